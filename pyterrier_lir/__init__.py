"""Neural retrieval models as PyTerrier transformers.

    bm25 >> pt.text.get_text(dataset) >> LIRReRanker("webis/monoelectra-base")

Names are imported at their first use, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import BiEncoderConfig, CrossEncoderConfig
    from .data.documentation import DocumentationDataset
    from .indexes import LIRDenseIndex, LIRIndex, LIRMultiVectorIndex, LIRSparseIndex, open_index
    from .models import BiEncoderModel, CrossEncoderModel, load_model
    from .pipeline import LIRBiEncoder, LIRIndexer, LIRReRanker, LIRRetriever

__all__ = [
    "BiEncoderConfig",
    "BiEncoderModel",
    "CrossEncoderConfig",
    "CrossEncoderModel",
    "DocumentationDataset",
    "LIRBiEncoder",
    "LIRDenseIndex",
    "LIRIndex",
    "LIRIndexer",
    "LIRMultiVectorIndex",
    "LIRReRanker",
    "LIRRetriever",
    "LIRSparseIndex",
    "load_model",
    "open_index",
]

_HOME = {
    "BiEncoderConfig": "config",
    "BiEncoderModel": "models",
    "CrossEncoderConfig": "config",
    "CrossEncoderModel": "models",
    "DocumentationDataset": "data.documentation",
    "LIRBiEncoder": "pipeline",
    "LIRDenseIndex": "indexes",
    "LIRIndex": "indexes",
    "LIRIndexer": "pipeline",
    "LIRMultiVectorIndex": "indexes",
    "LIRReRanker": "pipeline",
    "LIRRetriever": "pipeline",
    "LIRSparseIndex": "indexes",
    "load_model": "models",
    "open_index": "indexes",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("pyterrier-lir")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
