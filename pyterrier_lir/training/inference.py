"""What a module does with a whole dataset: index its documents, search for its queries, re-rank its rankings.

The engine is the one behind the transformers of `pipeline`, so that both give equal results.  Each process takes its
own part of a dataset; runs come together, and so do the parts of an index.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import distributed

from ..columns import Terms
from ..data.collections import DocDataset, QueryDataset
from ..data.runs import RunDataset
from ..engine import Engine
from ..models import BiEncoderModel

if TYPE_CHECKING:
    from ..indexes import IndexUnion, LIRIndex
    from ..indexes.configs import IndexConfig
    from ..indexes.retriever import Retriever
    from ..indexes.storage import Mode
    from ..vectors import Vectors

RUN = ("query_id", "doc_id", "score", "rank")
_PAIRS = 16_384  # that are scored together


def engine_of(module: Any, verbose: bool = False) -> Engine:
    """The engine with a module's model, on its device, in the precision of its trainer."""
    precision: Any = "bf16" if str(getattr(module._trainer, "precision", "")).startswith("bf16") else "float32"
    return Engine(module.model.eval(), device=str(module.device), precision=precision, verbose=verbose)


def docs_name(dataset: DocDataset | QueryDataset | RunDataset) -> str:
    """The name of the collection that a dataset's documents are of, with dashes instead of slashes."""
    source: Any = dataset.source
    if hasattr(source, "path"):
        return str(Path(source.path).resolve().name.split(".")[0])
    from ..data.local_datasets import docs_id

    return docs_id(str(source.name)).replace("/", "-")


def name_of(dataset: Any) -> str:
    """What measures and runs of a dataset are called: an id, or a file's or folder's name."""
    source = getattr(dataset, "source", None)
    name = str(dataset.name if hasattr(dataset, "name") else getattr(source, "name", dataset))
    return Path(name).name.split(".")[0] if os.path.exists(name.partition(":")[0]) else name


class Indexer:
    """Builds an index with a module as a configuration says.

    Args:
        index_dir: the folder of the index.
        index_config: how documents are stored, and for which engine.
        module: a `BiEncoderModule`.
        verbose: show a progress bar.

    Raises:
        ValueError: if the configuration is for vectors of another kind than the model's.
    """

    def __init__(
        self, index_dir: str | os.PathLike[str], index_config: IndexConfig, module: Any, verbose: bool = False
    ) -> None:
        self.index_dir, self.index_config, self.module, self.verbose = Path(index_dir), index_config, module, verbose
        if not isinstance(module.model, BiEncoderModel):
            raise ValueError(f"{module.model.source} is a cross-encoder, which makes no vectors to index.")
        index_config.engine(module.model.kinds[0])

    def index(self, dataset: DocDataset, overwrite: bool = False) -> LIRIndex:
        """Index the documents; an interrupted build goes on behind its last whole part.

        Args:
            dataset: each process indexes its own documents, and the first one merges.
            overwrite: whether an index that is there is replaced.
        """
        from ..indexes import open_index
        from ..indexes.storage import building_path

        rank, world = ranks()
        folder = self.index_dir
        if world > 1:
            folder = folder.with_name(f"{folder.name}.part-{rank}-of-{world}")
        mode: Mode = "overwrite" if overwrite else "resume" if building_path(folder).is_dir() else "create"
        docs = ({"docno": sample.doc_id, "text": sample.doc} for sample in dataset)
        engine = engine_of(self.module)
        if world == 1 or not (folder / "pt_meta.json").is_file():  # a part may be whole where another was interrupted
            index = build_index(engine, folder, docs, self.index_config, mode, _length(dataset), self.verbose)
        if world > 1:
            distributed.barrier()
            parts = [self.index_dir.with_name(f"{self.index_dir.name}.part-{i}-of-{world}") for i in range(world)]
            if rank == 0:
                if overwrite:
                    shutil.rmtree(self.index_dir, ignore_errors=True)
                type(open_index(parts[0])).merge(parts, self.index_dir)
            distributed.barrier()
            shutil.rmtree(folder)
            index = open_index(self.index_dir)
        if rank == 0:
            self.index_config.finish(index)
        return index


FaissFlatIndexer = Indexer  # Lightning IR's name


def _length(dataset: DocDataset) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def build_index(
    engine: Engine,
    folder: Path,
    docs: Iterable[dict[str, str]],
    config: IndexConfig | None = None,
    mode: Mode = "create",
    total: int | None = None,
    verbose: bool = False,
) -> LIRIndex:
    """An index of documents with `docno` and `text`, of the model's kind."""
    from ..indexes import INDEXES
    from ..indexes.building import Plan, build
    from ..indexes.indexer import make_header
    from ..indexes.texts import encoded

    model = engine.model
    assert isinstance(model, BiEncoderModel)
    kind = model.kinds[0]
    index = next(own for own in INDEXES.values() if kind == own.KIND)(folder)
    settings = {} if config is None else config.settings(kind)
    if kind == "sparse":
        settings["terms"] = Terms(model.tokenizers[0].tokenizer.get_vocab(), model.vocabulary_size).names.tolist()
    made_by = {"source": str(model.source), "fingerprint": model.fingerprint, "settings": {}}
    header = make_header(index, model.config, model.size(kind), made_by, (), settings)

    def vectors(texts: Iterator[str]) -> Iterator[Vectors]:
        return (made[kind] for made in engine.stream(texts, query=False))

    plan = Plan(folder, mode, header, lambda part: index._writer(part, header), total=total, verbose=verbose)
    build(plan, docs, lambda stream: encoded(stream, vectors, "text"))
    index.reopen()
    return index


def search(engine: Engine, retriever: Retriever, query_ids: Sequence[str], queries: Sequence[str]) -> pd.DataFrame:
    """A run (`RUN`) of this process's queries."""
    index: LIRIndex | IndexUnion = retriever.index
    if not queries:
        return pd.DataFrame(columns=list(RUN))
    docids, scores = retriever.nearest(engine.encode(queries, query=True)[index.KIND])
    there = docids >= 0
    ids = np.repeat(np.array(query_ids, dtype=object), there.sum(axis=1))
    return run_of(ids, index.docnos_of(docids[there]), scores[there])


def re_rank(engine: Engine, dataset: RunDataset) -> pd.DataFrame:
    """A run (`RUN`) of this process's rankings, with the scores of the model."""
    rank, world = ranks()
    parts, waiting, pairs = [], [], 0
    for number in range(rank, len(dataset), world):
        waiting.append(dataset[number])
        pairs += len(waiting[-1].docs)
        if pairs >= _PAIRS:
            parts.append(_scored(engine, waiting))
            waiting, pairs = [], 0
    if waiting:
        parts.append(_scored(engine, waiting))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(RUN))


def _scored(engine: Engine, samples: Sequence[Any]) -> pd.DataFrame:
    lengths = [len(sample.docs) for sample in samples]
    queries = np.repeat(np.array([sample.query for sample in samples], dtype=object), lengths)
    docs = np.array([doc for sample in samples for doc in sample.docs], dtype=object)
    scores = engine.score(queries, docs, lists=np.repeat(np.arange(len(samples)), lengths))
    ids = np.repeat(np.array([sample.query_id for sample in samples], dtype=object), lengths)
    return run_of(ids, np.array([one for sample in samples for one in sample.doc_ids], dtype=object), scores)


def run_of(query_ids: NDArray[Any], doc_ids: NDArray[Any], scores: NDArray[Any]) -> pd.DataFrame:
    """A run in the order of the queries and of falling scores; ranks begin at 1, equal scores keep their order.

    >>> run_of(np.array(["q", "q"]), np.array(["a", "b"]), np.array([1.0, 2.0]))[["doc_id", "rank"]].values.tolist()
    [['b', 1], ['a', 2]]
    """
    codes = pd.factorize(query_ids)[0]
    order = np.lexsort((-scores, codes))
    counts = np.bincount(codes) if len(codes) else np.zeros(0, np.int64)
    ranks = np.arange(1, len(codes) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = (query_ids[order], doc_ids[order], scores[order].astype(np.float64), ranks)
    return pd.DataFrame(dict(zip(RUN, columns, strict=True)))


def ranks() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def everyones(run: pd.DataFrame) -> pd.DataFrame:
    """The rows of all processes."""
    parts: list[pd.DataFrame] = [run]
    if ranks()[1] > 1:
        gathered: list[Any] = [None] * ranks()[1]
        distributed.all_gather_object(gathered, run)
        parts = gathered
    return pd.concat([one for one in parts if len(one)] or [run], ignore_index=True)
