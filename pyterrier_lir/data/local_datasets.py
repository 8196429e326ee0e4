"""Files of one's own under an id of ir_datasets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ir_datasets import Dataset, docs_parent_id, registry
from ir_datasets import load as load_dataset
from ir_datasets.formats import (
    BaseDocPairs,
    BaseDocs,
    BaseQrels,
    BaseQueries,
    BaseScoredDocs,
    GenericDoc,
    GenericQuery,
    GenericScoredDoc,
    TrecQrel,
)
from ir_datasets.indices import Docstore

from .file_formats import read_frame
from .judgements import Judgements
from .rankings import read_ranking
from .registered import ScoredTuple
from .source_kinds import QRELS_LAYOUTS, FileSource
from .text_store import Texts
from .tuple_formats import open_tuples

Place = str | os.PathLike[str]


def register_local_dataset(
    dataset_id: str,
    docs: Place | None = None,
    queries: Place | None = None,
    qrels: Place | None = None,
    docpairs: Place | None = None,
    scoreddocs: Place | None = None,
    qrels_defs: Mapping[int, str] | None = None,
) -> None:
    """Make files known to ir_datasets under an id; each part is a file, or the id of a dataset that has it.

    Args:
        dataset_id: of the new dataset; one registered before from other files is replaced.
        docs, queries: TSV (id, text), JSON lines or Parquet, also compressed.
        qrels: in TREC's format, or with a line of column names.
        docpairs: ids of a query, a relevant document and others in a TSV, or any layout that `TupleDataset` reads.
        scoreddocs: a run.
        qrels_defs: what the grades mean.

    Raises:
        FileNotFoundError: for what is neither a file nor a dataset.
        ValueError: if the id is one of ir_datasets' own.
    """
    given = {"docs": docs, "queries": queries, "qrels": qrels, "docpairs": docpairs, "scoreddocs": scoreddocs}
    made = [_part(name, place, qrels_defs or {}) for name, place in given.items() if place is not None]
    known = registry._registered
    if dataset_id in known and not getattr(known[dataset_id], "local", False):
        raise ValueError(f"dataset_id={dataset_id!r} is a dataset of ir_datasets; choose another id.")
    dataset = Dataset(*made)
    dataset.local = True
    dataset.docs_of = str(docs) if docs is not None and not Path(docs).is_file() else None
    known[dataset_id] = dataset


def docs_id(dataset_id: str) -> str:
    """The id of the dataset that a dataset has its documents of, such as `msmarco-passage` for all of its parts.

    >>> docs_id("msmarco-passage/trec-dl-2019/judged")
    'msmarco-passage'
    """
    local = registry._registered.get(dataset_id)
    shared = getattr(local, "docs_of", None) if getattr(local, "local", False) else docs_parent_id(dataset_id)
    return shared or dataset_id


def _part(name: str, place: Place, grades: Mapping[int, str]) -> Any:
    path = Path(place)
    if path.is_file():
        return Qrels(path, grades) if name == "qrels" else _PARTS[name](path)
    try:
        dataset = load_dataset(str(place))
    except KeyError:
        raise FileNotFoundError(f"{name}={str(place)!r}: neither a file nor a dataset of ir_datasets.") from None
    return getattr(dataset, f"{name}_handler")()


class Docs(BaseDocs):  # type: ignore[misc]
    """Documents of a file, in the order of the file."""

    def __init__(self, path: Path) -> None:
        self._texts = FileSource(path).documents

    def docs_iter(self) -> Iterator[GenericDoc]:
        """Each document."""
        return (GenericDoc(*pair) for pair in self._texts().stretch(0, None))

    def docs_count(self) -> int | None:
        """How many there are."""
        return self._texts().count()

    def docs_store(self, field: str = "doc_id") -> Store:
        """Documents by id."""
        return Store(self._texts())


class Store(Docstore):  # type: ignore[misc]
    """Documents by id."""

    def __init__(self, texts: Texts) -> None:
        super().__init__(GenericDoc)
        self._texts = texts

    def get_many_iter(self, doc_ids: Iterable[str]) -> Iterator[GenericDoc]:
        """Those of the documents that there are."""
        ids = [doc_id for doc_id in dict.fromkeys(doc_ids) if doc_id in self._texts]
        return (GenericDoc(*pair) for pair in zip(ids, self._texts.lookup(ids), strict=True))


class Queries(BaseQueries):  # type: ignore[misc]
    """Queries of a file."""

    def __init__(self, path: Path) -> None:
        self._source = FileSource(path)

    def queries_iter(self) -> Iterator[GenericQuery]:
        """Each query."""
        return (GenericQuery(*pair) for pair in self._source.queries.items())


class Qrels(BaseQrels):  # type: ignore[misc]
    """Judgements of a file."""

    def __init__(self, path: Path, grades: Mapping[int, str]) -> None:
        self._path, self._grades = path, dict(grades)

    def qrels_iter(self) -> Iterator[TrecQrel]:
        """Each judgement."""
        rows = Judgements(read_frame(self._path, QRELS_LAYOUTS), str(self._path)).frame
        return (TrecQrel(row.query_id, row.doc_id, row.relevance, row.iteration) for row in rows.itertuples())

    def qrels_path(self) -> Path:
        """The file."""
        return self._path

    def qrels_cls(self) -> Any:
        """What each judgement is."""
        return TrecQrel

    def qrels_defs(self) -> dict[int, str]:
        """What the grades mean."""
        return self._grades


class DocPairs(BaseDocPairs):  # type: ignore[misc]
    """Tuples of a file, of ids."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def docpairs_iter(self) -> Iterator[ScoredTuple]:
        """Each tuple, its relevant documents first."""
        rows, parse = open_tuples(self._path, ids=True)
        for row in rows:
            group = parse(row)
            scores = None if group.scores is None else tuple(group.scores)
            positives = sum(label > 0 for label in group.labels)
            yield ScoredTuple(str(group.query_id), tuple(group.doc_ids or ()), scores, positives)

    def docpairs_path(self) -> Path:
        """The file."""
        return self._path

    def docpairs_cls(self) -> type[ScoredTuple]:
        """What each tuple is."""
        return ScoredTuple


class ScoredDocs(BaseScoredDocs):  # type: ignore[misc]
    """A run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def scoreddocs_iter(self) -> Iterator[GenericScoredDoc]:
        """Each row."""
        rows = read_ranking(self._path, str(self._path))
        scores = rows["score"] if "score" in rows else -rows["rank"]
        return (GenericScoredDoc(*row) for row in zip(rows["query_id"], rows["doc_id"], scores, strict=True))

    def scoreddocs_path(self) -> Path:
        """The file."""
        return self._path


_PARTS: dict[str, Any] = {"docs": Docs, "queries": Queries, "docpairs": DocPairs, "scoreddocs": ScoredDocs}
