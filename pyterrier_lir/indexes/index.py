"""LIRIndex: what the indexes of all kinds share: opening, building, searching, deleting, merging."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pandas as pd
import pyterrier as pt
from numpy.typing import NDArray
from typing_extensions import Self

from ..columns import stored_vectors, vector_columns
from ..config import BiEncoderConfig, Kind, config_from_dict
from ..display import facts_table
from ..models.scores import pair_scores
from ..vectors import Vectors, concatenate, take
from .building import ShardWriter, deleted_of
from .docnos import Docids, Docnos, Strings, as_names, hash_of
from .storage import META, Mode, Shard, delete, differences, discard, docids_stamp, read_meta, shards_of, stamp_of, tidy

if TYPE_CHECKING:
    from .indexer import Indexer
    from .loaders import FieldLoader, VectorLoader
    from .retriever import IndexScorer, Retriever

Mask = NDArray[np.bool_]


class LIRIndex(pt.Artifact):
    """An index of one kind of vectors, memory-mapped.

    Args:
        path: the folder; made by `indexer()`, read at the first use.

    Raises:
        FileNotFoundError: at the first use, if there is no index, or only a part of one.
        ValueError: at the first use, if it is an index of another kind or of a later version.
    """

    ARTIFACT_FORMAT: ClassVar[str] = "lir"
    ARTIFACT_PACKAGE_HINT: ClassVar[str] = "pyterrier-lir"
    KIND: ClassVar[Kind]
    SETTINGS: ClassVar[tuple[str, ...]]  # of `indexer`, for this kind alone

    _stamp: tuple[int, int] | None = None  # of the metadata that was read
    _docids_stamp: list[tuple[str, int, int]] | None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(Path(path))

    @property
    def folder(self) -> Path:
        """Where the index is."""
        return Path(str(self.path))

    def built(self) -> bool:
        """Whether there is a complete index."""
        return (self.folder / META).is_file()

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What the index was built from and consists of."""
        self._stamp = stamp_of(self.folder)
        meta = read_meta(self.folder)
        if meta["type"] != self.ARTIFACT_TYPE:
            raise ValueError(f"{self.path} is a {meta['type']}; {type(self).__name__} opens a {self.ARTIFACT_TYPE}.")
        self._docids_stamp = docids_stamp(self.folder, meta)
        return meta

    @cached_property
    def config(self) -> BiEncoderConfig:
        """How vectors are compared: the configuration of the model that they are of."""
        config = config_from_dict(self.meta["config"])
        assert isinstance(config, BiEncoderConfig)
        return config

    @cached_property
    def shards(self) -> list[Shard]:
        """The parts of the index."""
        return shards_of(self.folder, self.meta)

    @cached_property
    def _docnos(self) -> list[Docnos]:
        return [Docnos(shard.folder) for shard in self.shards]

    @cached_property
    def deleted(self) -> Mask | None:
        """True for docids of deleted documents, (docids,); None if there are none."""
        mask = deleted_of(self.folder)
        if mask is None or not mask.any():
            return None
        return np.concatenate([mask, np.zeros(self.docids - len(mask), dtype=bool)])

    @property
    def docids(self) -> int:
        """Number of docids, those of deleted documents included."""
        return int(self.meta["docs"])

    def __len__(self) -> int:
        self.refresh()
        return self.docids - (0 if self.deleted is None else int(self.deleted.sum()))

    def docnos_of(self, docids: Docids) -> NDArray[np.object_]:
        """The docnos (N,) of docids."""
        return self._strings([docnos.strings for docnos in self._docnos], docids)

    def field_of(self, name: str, docids: Docids) -> NDArray[np.object_]:
        """A stored field (N,) of documents.

        Raises:
            ValueError: if the field is not stored.
        """
        if name not in self.meta["fields"]:
            stored = ", ".join(map(repr, self.meta["fields"])) or "none"
            raise ValueError(
                f"{self.path} does not store {name!r}; it stores: {stored}. Give include_fields= at indexing."
            )
        return self._strings([Strings(shard.folder, f"field.{name}") for shard in self.shards], docids)

    def _strings(self, parts: list[Strings], docids: Docids) -> NDArray[np.object_]:
        out = np.empty(len(docids), dtype=object)
        for shard, rows, strings in self._by_shard(docids, parts):
            out[rows] = strings[docids[rows] - shard.start]
        return out

    def _by_shard(self, docids: Docids, parts: Sequence[Any]) -> Iterator[tuple[Shard, NDArray[np.int64], Any]]:
        """For each shard which rows of `docids` are in it."""
        starts = np.array([shard.start for shard in self.shards], dtype=np.int64)
        shard_of = np.searchsorted(starts, docids, side="right") - 1
        for at in np.unique(shard_of):
            yield self.shards[at], np.flatnonzero(shard_of == at), parts[at]

    def docids_of(self, docnos: Iterable[str]) -> Docids:
        """The docids (N,) of docnos, -1 where the index has no such document."""
        names = np.array(as_names(docnos, "docnos"), dtype=object)
        hashes = hash_of(names)
        out = np.full(len(names), -1, dtype=np.int64)
        for shard, part in zip(self.shards, self._docnos, strict=True):
            rows = part.find(names, hashes)
            there = rows >= 0
            if self.deleted is not None:
                there[there] = ~self.deleted[shard.start + rows[there]]
            out[there] = shard.start + rows[there]
        return out

    def mask_of(self, docnos: Iterable[str]) -> Mask:
        """Which docids (docids,) may be found when a search is restricted to these docnos; unknown ones are ignored."""
        found = self.docids_of(docnos)
        mask = np.zeros(self.docids, dtype=bool)
        mask[found[found >= 0]] = True
        return mask

    def vectors_of(self, docids: Docids) -> Vectors:
        """The stored vectors of documents, as `pyterrier_lir.vectors` describes them."""
        order = np.argsort(docids, kind="stable")
        parts = [
            self._read(shard, docids[order[rows]] - shard.start)
            for shard, rows, _ in self._by_shard(docids[order], self.shards)
        ]
        if not parts:
            return self._read_nothing()
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return take(concatenate(parts), back)

    def columns_of(self, docids: Docids) -> dict[str, list[Any]]:
        """The stored vectors of documents in the columns of a document encoder, a value for each docid."""
        return vector_columns({self.KIND: self.vectors_of(docids)}, query=False, terms=getattr(self, "terms", None))

    def scores_of(self, queries: Vectors, query_of: Docids, docids: Docids) -> NDArray[np.float32]:
        """Scores (N,) of the pairs (query_of[i], docids[i]) from stored vectors."""
        distinct, doc_of = np.unique(docids, return_inverse=True)
        return self.pair_scores(queries, self.vectors_of(distinct), query_of, doc_of)

    def get_corpus_iter(self, verbose: bool = False) -> Iterator[dict[str, Any]]:
        """The documents with their vectors and stored fields, as an indexer reads them."""
        self.refresh()
        for docids in self._alive(1_024):
            columns: dict[str, Any] = {"docno": self.docnos_of(docids), **self.columns_of(docids)}
            columns |= {name: self.field_of(name, docids) for name in self.meta["fields"]}
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))

    def _alive(self, count: int) -> Iterator[Docids]:
        """The docids of documents, so many at a time."""
        for start in range(0, self.docids, count):
            docids = np.arange(start, min(start + count, self.docids))
            yield docids if self.deleted is None else docids[~self.deleted[docids]]

    def indexer(self, *, mode: Mode = "create", **settings: Any) -> Indexer:
        """The transformer that builds the index from documents with vectors; see `Indexer`."""
        from .indexer import Indexer

        return Indexer(self, mode=mode, **settings)

    def retriever(self, engine: str = "exact", **settings: Any) -> Retriever:
        """The transformer that finds documents for queries with vectors; see `Retriever`."""
        from .retriever import Retriever

        return Retriever(self, engine, **settings)

    def scorer(self, **settings: Any) -> IndexScorer:
        """The transformer that scores results from stored vectors; no texts are needed.  See `IndexScorer`."""
        from .retriever import IndexScorer

        return IndexScorer(self, **settings)

    def text_loader(self, fields: Sequence[str] | str | Literal["*"] = "*", *, verbose: bool = False) -> FieldLoader:
        """The transformer that adds stored fields to results, as `pt.text.get_text(index)` asks for.

        Args:
            fields: their names, or `*` for all.
            verbose: is for other text loaders.
        """
        from .loaders import FieldLoader

        return FieldLoader(self, self.meta["fields"] if fields == "*" else fields)

    def vec_loader(self) -> VectorLoader:
        """The transformer that adds the stored vectors to results or documents; see `VectorLoader`."""
        from .loaders import VectorLoader

        return VectorLoader(self)

    def delete(self, docnos: Iterable[str]) -> int:
        """Delete documents: no search finds them any more.  `compact` gives their room back.

        Returns:
            how many there were.
        """
        self.refresh()
        found = self.docids_of(docnos)
        found = np.unique(found[found >= 0])
        if len(found):
            mask = np.zeros(self.docids, dtype=bool) if self.deleted is None else self.deleted.copy()
            mask[found] = True
            delete(self.folder, mask)
            self.reopen()
        return len(found)

    def discard(self) -> Self:
        """Give up a build that was interrupted, such as an append; the documents that were there before it stay."""
        discard(self.folder)
        self.reopen()
        return self

    def compact(self) -> Self:
        """Write the index anew without its deleted documents; docnos stay, docids change."""
        self.refresh()
        if self.deleted is not None:
            self._copy([self], self.folder, "overwrite", self._deleted_since)
            self.reopen()
        tidy(self.folder)
        return self

    def _deleted_since(self) -> Mask | None:
        """Of the documents that were there when the index was opened, those that another has deleted since."""
        self.check_docids()
        now = deleted_of(self.folder)
        return None if now is None or self.deleted is None else now[~self.deleted]

    @classmethod
    def merge(cls, parts: Sequence[str | os.PathLike[str] | LIRIndex], path: str | os.PathLike[str]) -> Self:
        """Join indexes that were built apart, by the same model, without encoding anything.

        Args:
            parts: indexes, or their folders, in the order of the documents.
            path: of the new index.

        Raises:
            ValueError: if there are none, their settings differ, or two have the same docno.
            FileExistsError: if there is something at `path`.
        """
        from . import open_index

        opened = [open_index(part) if cls is LIRIndex or isinstance(part, LIRIndex) else cls(part) for part in parts]
        if not opened:
            raise ValueError("merge needs at least one index.")
        for part in opened:
            part.refresh()
        whole = next((part for part in opened if part.docids), opened[0])  # which knows the size of vectors
        whole._copy(opened, Path(path), "create")
        return cast("Self", type(whole)(path))

    def _copy(
        self, sources: Sequence[LIRIndex], path: Path, mode: Mode, deleted: Callable[[], Mask | None] | None = None
    ) -> None:
        """Write the documents of indexes to another; for `deleted` see `building.Plan`."""
        from .building import Plan, build
        from .indexer import header_of

        header = header_of(self.meta)
        for source in sources:
            if changed := differences(header, header_of(source.meta)):
                raise ValueError(f"{source.path} and {self.path} differ in {', '.join(changed)}.")
        docs = ({"docno": d, **_fields(source, ids, i)} for source in sources for ids in source._alive(4_096)
                for i, d in enumerate(source.docnos_of(ids)))  # fmt: skip
        stored = ((source, ids) for source in sources for ids in source._alive(4_096))

        def encode(stream: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], Vectors]]:
            for source, ids in stored:
                yield [next(stream) for _ in ids], self._from(source, ids)

        plan = Plan(path, mode, header, lambda folder: self._writer(folder, header), tuple(header["fields"]),
                    copies=True, deleted=deleted)  # fmt: skip
        build(plan, docs, encode)

    def _from(self, source: LIRIndex, docids: Docids) -> Vectors:
        """Vectors of another index of this kind, as this one stores them."""
        return source.vectors_of(docids)

    def reopen(self) -> None:
        """Forget what was read, because the folder has changed."""
        for name in [name for name in self.__dict__ if name != "path"]:
            del self.__dict__[name]

    def refresh(self) -> tuple[Any, ...]:
        """Open the index again if it was changed meanwhile, by whomever.

        Returns:
            what is another after every change.
        """
        now = stamp_of(self.folder)
        if "meta" in self.__dict__ and now is not None and now != self._stamp:
            self.reopen()
        _ = self.meta
        return (self._stamp,)

    def check_docids(self) -> None:
        """Refuse to keep what was made of the vectors if docids came to mean other documents meanwhile.

        Raises:
            OSError: if they did, or the index is no more.
        """
        if docids_stamp(self.folder, read_meta(self.folder)) != self._docids_stamp:
            raise OSError(f"{self.path} was changed meanwhile")

    def engine_folder(self, name: str) -> Path:
        """Where a search engine keeps what it made of the vectors."""
        return self.folder / "engines" / name

    # What each kind does in its own way.

    def _header(self, config: BiEncoderConfig, size: int | None, settings: dict[str, Any]) -> dict[str, Any]:
        """What of the settings belongs to the index: JSON values."""
        raise NotImplementedError

    def _writer(self, folder: Path, header: dict[str, Any]) -> AbstractContextManager[ShardWriter]:
        """Opens a shard's folder to write vectors."""
        raise NotImplementedError

    def _vectors(self, frame: pd.DataFrame, config: BiEncoderConfig) -> Vectors:
        """The vectors in the column of documents, checked."""
        return stored_vectors(frame, config, query=False, terms=None)

    def _queries(self, frame: pd.DataFrame) -> Vectors:
        """The vectors in the column of queries, checked."""
        return stored_vectors(frame, self.config, query=True, terms=None)

    def pair_scores(self, queries: Vectors, docs: Vectors, query_of: Docids, doc_of: Docids) -> NDArray[np.float32]:
        """Scores (N,) of the pairs (query_of[i], doc_of[i])."""
        return pair_scores(self.config, queries, docs, query_of, doc_of)

    def _read(self, shard: Shard, rows: NDArray[np.int64]) -> Vectors:
        """The vectors of rows of a shard."""
        raise NotImplementedError

    def _read_nothing(self) -> Vectors:
        """The vectors of no documents."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(self.path) == str(other.path)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), str(self.path)))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def _repr_html_(self) -> str:
        from .facts import facts_of

        return facts_table(repr(self), facts_of(self) if self.built() else {"documents": "not built"})


def _fields(index: LIRIndex, docids: Docids, row: int) -> dict[str, str]:
    return {name: index.field_of(name, docids[[row]])[0] for name in index.meta["fields"]}
