"""IndexUnion: several indexes that are searched as one, where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..config import BiEncoderConfig, Kind
from ..display import facts_table
from .docnos import as_names
from .facts import facts_of
from .index import LIRIndex
from .loaders import FieldLoader, VectorLoader
from .retriever import IndexScorer, Retriever
from .search import top
from .storage import comparable

if TYPE_CHECKING:
    from ..vectors import Vectors
    from .docnos import Docids


class IndexUnion:
    """Indexes of one kind and model that are searched as one, such as the parts that several machines have built.

    Nothing is copied or written: each is searched by itself, with its own engine, and the best of all are kept.
    `LIRIndex.merge` makes one index of them.  A document should be in one of them only.

    Args:
        parts: indexes, in the order of their documents.

    Raises:
        ValueError: if there are none, or they are of several kinds, or their vectors of several models.

    >>> import numpy as np, tempfile
    >>> from pyterrier_lir import LIRDenseIndex, open_index
    >>> folders = [tempfile.mkdtemp() + "/tiny.lir" for _ in "ab"]
    >>> for docno, folder in zip("ab", folders):
    ...     docs = [{"docno": docno, "doc_vec": np.array([ord(docno), 0], dtype=np.float32)}]
    ...     _ = LIRDenseIndex(folder).indexer().index(docs)
    >>> union = open_index(folders)
    >>> query = [{"qid": "1", "query_vec": np.array([1, 0], dtype=np.float32)}]
    >>> [(row["docno"], row["score"]) for row in union.retriever()(query)]
    [('b', 98.0), ('a', 97.0)]
    """

    def __init__(self, parts: Sequence[LIRIndex]) -> None:
        self.parts = tuple(parts)
        if not self.parts:
            raise ValueError("A union needs at least one index.")
        first = self.parts[0]
        for part in self.parts[1:]:
            if part.KIND != first.KIND:
                raise ValueError(f"{first!r} holds {first.KIND} vectors, {part!r} {part.KIND} ones.")
            ours, theirs = comparable(first.meta), comparable(part.meta)
            for name in ("config", "model"):
                if (one := ours[name]) != (other := theirs[name]):
                    changed = [key for key in {**one, **other} if one.get(key) != other.get(key)]
                    raise ValueError(f"{first!r} and {part!r} differ in the {name}'s {', '.join(changed)}.")

    @property
    def KIND(self) -> Kind:
        """What vectors they hold."""
        return self.parts[0].KIND

    @property
    def meta(self) -> dict[str, Any]:
        """What the first was built from, and the fields that all of them store."""
        fields = [name for name in self.parts[0].meta["fields"] if all(name in p.meta["fields"] for p in self.parts)]
        return {**self.parts[0].meta, "fields": fields}

    @property
    def config(self) -> BiEncoderConfig:
        """How vectors are compared."""
        return self.parts[0].config

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The docid of each one's first document, and the number of all docids, (parts + 1,)."""
        return np.cumsum([0, *(part.docids for part in self.parts)])

    def refresh(self) -> tuple[Any, ...]:
        """See `LIRIndex.refresh`."""
        self.__dict__.pop("starts", None)
        return tuple(part.refresh() for part in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def docnos_of(self, docids: Docids) -> NDArray[np.object_]:
        """The docnos (N,) of docids."""
        return self._gathered(docids, lambda part, own: part.docnos_of(own))

    def field_of(self, name: str, docids: Docids) -> NDArray[np.object_]:
        """A stored field (N,) of documents."""
        return self._gathered(docids, lambda part, own: part.field_of(name, own))

    def docids_of(self, docnos: Iterable[str]) -> Docids:
        """The docids (N,) of docnos, -1 where no index has such a document."""
        names = np.array(as_names(docnos, "docnos"), dtype=object)
        out = np.full(len(names), -1, dtype=np.int64)
        for part, start in zip(self.parts, self.starts, strict=False):
            missing = np.flatnonzero(out < 0)
            found = part.docids_of(names[missing])
            out[missing[found >= 0]] = start + found[found >= 0]
        return out

    def scores_of(self, queries: list[Vectors], query_of: Docids, docids: Docids) -> NDArray[np.float32]:
        """Scores (N,) of the pairs (query_of[i], docids[i]) from stored vectors."""
        out = np.empty(len(docids), np.float32)
        for at, rows, own in self._by_part(docids):
            out[rows] = self.parts[at].scores_of(queries[at], query_of[rows], own)
        return out

    def columns_of(self, docids: Docids) -> dict[str, list[Any]]:
        """See `LIRIndex.columns_of`."""
        columns = {name: [None] * len(docids) for name in self.parts[0].columns_of(docids[:0])}
        for at, rows, own in self._by_part(docids):
            for name, values in self.parts[at].columns_of(own).items():
                for row, value in zip(rows, values, strict=True):
                    columns[name][row] = value
        return columns

    def retriever(self, engine: str = "exact", **settings: Any) -> UnionRetriever:
        """The transformer that finds documents for queries with vectors; see `Retriever`."""
        return UnionRetriever(cast("LIRIndex", self), engine, **settings)

    def scorer(self, **settings: Any) -> IndexScorer:
        """The transformer that scores results from stored vectors; see `IndexScorer`."""
        return IndexScorer(cast("LIRIndex", self), **settings)

    def text_loader(self, fields: Sequence[str] | str | Literal["*"] = "*", *, verbose: bool = False) -> FieldLoader:
        """The transformer that adds stored fields to results; see `LIRIndex.text_loader`."""
        names = self.meta["fields"] if fields == "*" else fields
        return FieldLoader(cast("LIRIndex", self), names)

    def vec_loader(self) -> VectorLoader:
        """The transformer that adds the stored vectors to results or documents; see `VectorLoader`."""
        return VectorLoader(cast("LIRIndex", self))

    def _queries(self, frame: pd.DataFrame) -> list[Vectors]:
        """The queries' vectors as each index reads them: sparse ones have terms of their own."""
        return [part._queries(frame) for part in self.parts]

    def _by_part(self, docids: Docids) -> Iterable[tuple[int, NDArray[np.int64], Docids]]:
        """For each index: its number, which rows of `docids` are in it, and their docids there."""
        part_of = np.searchsorted(self.starts, docids, side="right") - 1
        for at in np.unique(part_of):
            rows = np.flatnonzero(part_of == at)
            yield int(at), rows, docids[rows] - self.starts[at]

    def _gathered(self, docids: Docids, read: Any) -> NDArray[np.object_]:
        out = np.empty(len(docids), dtype=object)
        for at, rows, own in self._by_part(docids):
            out[rows] = read(self.parts[at], own)
        return out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IndexUnion) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"IndexUnion([{', '.join(map(repr, self.parts))}])"

    def _repr_html_(self) -> str:
        parts = [facts_of(part) for part in self.parts]
        shared = {name: parts[0][name] for name in ("what", "made with", "configuration")}
        engines = sorted({engine for part in parts for engine in part["engines built"]})
        each = [f"{part['path']}: {part['documents']:,} documents, {part['size on disk']}" for part in parts]
        return facts_table("IndexUnion", {"documents": len(self), "parts": each, "engines built": engines, **shared})


def _nothing(queries: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """What is found where there are no documents, whose vectors would have no size."""
    count = queries.shape[0] if hasattr(queries, "shape") else len(queries)
    return np.empty((count, 0), np.int64), np.empty((count, 0), np.float32)


class UnionRetriever(Retriever):
    """Searches every index of a union, and keeps the best of all; settings are those of `Retriever`."""

    @cached_property
    def _retrievers(self) -> list[Retriever]:
        union = cast("IndexUnion", self.index)
        return [
            part.retriever(self.engine, num_results=self.num_results, docnos=self.docnos, where=self.where,
                           missing=self.missing, verbose=self.verbose, options=self.options)
            for part in union.parts
        ]  # fmt: skip

    def nearest(self, queries: Any) -> tuple[np.ndarray, np.ndarray]:
        """See `Retriever.nearest`; `queries` are those of each index."""
        self.index.refresh()
        starts = cast("IndexUnion", self.index).starts
        found = [
            one.nearest(own) if one.index.docids else _nothing(own)
            for one, own in zip(self._retrievers, queries, strict=True)
        ]
        docids = [np.where(ids < 0, -1, ids + start) for (ids, _), start in zip(found, starts, strict=False)]
        scores = np.concatenate([scores for _, scores in found], axis=1)
        return top(scores, np.concatenate(docids, axis=1), min(self.num_results, max(1, int(starts[-1]))))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_retrievers"}
