"""Where training and evaluation text comes from.  Knows no models.

Names are imported at their first use, so that `pyterrier_lir.data.documentation` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .collections import DocDataset, QueryDataset
    from .documentation import DocumentationDataset
    from .mining import mine_negatives, teacher_scores
    from .runs import RunDataset
    from .samples import DocSample, IndexBatch, QuerySample, RankBatch, RankSample, SearchBatch, TrainBatch, collate
    from .sources import open_source
    from .text_store import TextStore
    from .tuples import TupleDataset

__all__ = [
    "DocDataset",
    "DocSample",
    "DocumentationDataset",
    "IndexBatch",
    "QueryDataset",
    "QuerySample",
    "RankBatch",
    "RankSample",
    "RunDataset",
    "SearchBatch",
    "TextStore",
    "TrainBatch",
    "TupleDataset",
    "collate",
    "mine_negatives",
    "open_source",
    "teacher_scores",
]

_HOME = {
    "DocDataset": "collections",
    "DocSample": "samples",
    "DocumentationDataset": "documentation",
    "IndexBatch": "samples",
    "QueryDataset": "collections",
    "QuerySample": "samples",
    "RankBatch": "samples",
    "RankSample": "samples",
    "RunDataset": "runs",
    "SearchBatch": "samples",
    "TextStore": "text_store",
    "TrainBatch": "samples",
    "TupleDataset": "tuples",
    "collate": "samples",
    "mine_negatives": "mining",
    "open_source": "sources",
    "teacher_scores": "mining",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
