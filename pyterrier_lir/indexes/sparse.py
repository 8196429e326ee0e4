"""LIRSparseIndex: learned sparse vectors over a lexicon of terms, by document and by term."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..columns import VECTOR_COLUMNS
from ..config import BiEncoderConfig, Kind
from ..models.scores import pair_scores
from ..vectors import Vectors
from .docnos import Docids
from .index import LIRIndex
from .lexicon import Lexicon, of_length_one, offsets_of, positive, token_rows
from .postings import IMPACTS, SparseWriter, rows_of_shard
from .storage import Shard

if TYPE_CHECKING:
    from .postings import Block


class LIRSparseIndex(LIRIndex):
    """An index of learned sparse vectors, dictionaries of terms and weights.

    Weights are stored as `float32`, `float16` or `uint8` (multiples of one step for each shard): choose with
    `indexer(impacts=...)`; what is stored is what scores are made of.  The terms are those of the documents, in the
    order in which they come, or given beforehand with `indexer(terms=...)`; then the documents may have no others.
    Weights of 0 and less are dropped, and so are terms of queries that no document has.  Vectors that are compared by
    their cosine are stored with length 1.

    >>> import tempfile
    >>> index = LIRSparseIndex(tempfile.mkdtemp() + "/tiny.lir")
    >>> docs = [{"docno": "a", "toks": {"fox": 1.5, "quick": 0.5}}, {"docno": "b", "toks": {"dog": 2.0, "fox": 0.5}}]
    >>> index.indexer().index(docs)  # doctest: +ELLIPSIS
    LIRSparseIndex('.../tiny.lir')
    >>> index.retriever(num_results=1)([{"qid": "1", "query_toks": {"fox": 1.0, "lazy": 1.0}}])
    [{'qid': '1', 'query_toks': {'fox': 1.0, 'lazy': 1.0}, 'docno': 'a', 'score': 1.5, 'rank': 0}]
    """

    ARTIFACT_TYPE: ClassVar[str] = "sparse_index"
    KIND: ClassVar[Kind] = "sparse"
    SETTINGS: ClassVar[tuple[str, ...]] = ("impacts", "terms")

    _given: list[str] | None = None  # terms that were given for the build under way
    _lexicon: Lexicon | None = None  # of the build under way
    _writing: tuple[Path, int, SparseWriter] | None = None  # the last shard of the build under way

    @cached_property
    def terms(self) -> Lexicon:
        """The terms of the documents; `terms.names[id]` is the name of a term."""
        return Lexicon.read(shard.folder for shard in self.shards)

    @property
    def impacts(self) -> str:
        """How weights are stored."""
        return str(self.meta["impacts"])

    def prepared(self, queries: csr_array) -> csr_array:
        """Queries as the stored vectors are multiplied with: (Q, terms), of length 1 where the cosine compares.

        Args:
            queries: (Q, terms); with one more column, that stands for terms which the index does not have: they count
                for the length.

        Raises:
            ValueError: if queries have other terms.
        """
        size = len(self.terms)
        if not 0 <= queries.shape[1] - size <= 1:
            raise ValueError(f"Queries have {queries.shape[1]} terms, {self!r} has {size}.")
        queries = positive(queries)
        if self.config.similarity_function == "cosine":
            queries = of_length_one(queries)
        return csr_array(queries[:, :size])

    def pair_scores(self, queries: Vectors, docs: Vectors, query_of: Docids, doc_of: Docids) -> NDArray[np.float32]:
        """See `LIRIndex.pair_scores`; vectors compared by their cosine are stored with length 1."""
        config = replace(self.config, similarity_function="dot")
        return pair_scores(config, self.prepared(cast("csr_array", queries)), docs, query_of, doc_of)

    def blocks(self) -> Iterable[Block]:
        """The postings of all documents in turn, the deleted included."""
        from .postings import blocks_of

        return chain.from_iterable(blocks_of(shard) for shard in self.shards)

    def _header(self, config: BiEncoderConfig, size: int | None, settings: dict[str, Any]) -> dict[str, Any]:
        impacts, terms = settings.pop("impacts", "float32"), settings.pop("terms", None)
        if impacts not in IMPACTS:
            raise ValueError(f"impacts={impacts!r}; allowed: {', '.join(IMPACTS)}.")
        self._given = None if terms is None else [str(term) for term in terms]
        digest = None
        if self._given is not None:
            digest = hashlib.sha256("\0".join(self._given).encode()).hexdigest()[:16]
        return {"impacts": impacts, "terms": digest}

    def _writer(self, folder: Path, header: dict[str, Any]) -> SparseWriter:
        number = int(folder.name.partition(".")[0])
        self._lexicon = lexicon = self._terms_before(folder.parent, number, header)
        start = len(lexicon) if number or header["terms"] is None else 0
        normalised = header["config"]["similarity_function"] == "cosine"
        writer = SparseWriter(folder, lexicon, header["impacts"], normalised, start)
        self._writing = (folder.parent, number, writer)
        return writer

    def _terms_before(self, work: Path, number: int, header: dict[str, Any]) -> Lexicon:
        """The terms that a build has before its shard of that number."""
        if number == 0:
            if header["terms"] is None:
                return Lexicon()
            return Lexicon(self.terms.names.tolist() if self._given is None else self._given)
        names = [f"{i:05d}" for i in range(number)]
        if self._writing is not None and self._lexicon is not None:
            before, last, writer = self._writing
            if (before, last) == (work, number - 1) and writer.whole and (work / names[-1]).is_dir():
                return self._lexicon
        # the shards of an index that is appended to lie there
        base = work.with_name(work.name.removesuffix(".building"))
        return Lexicon.read(work / name if (work / name).is_dir() else base / name for name in names)

    def _vectors(self, frame: pd.DataFrame, config: BiEncoderConfig) -> Vectors:
        rows, weights = token_rows(frame, VECTOR_COLUMNS["sparse"][1])
        assert self._lexicon is not None
        terms = chain.from_iterable(rows)
        ids = self._lexicon.add(terms) if self._given is None else self._known(rows, frame)
        return positive(csr_array((weights, ids, offsets_of(rows)), shape=(len(rows), len(self._lexicon))))

    def _known(self, rows: list[dict[str, float]], frame: pd.DataFrame) -> NDArray[np.int32]:
        """The ids of documents' terms where the terms were given."""
        assert self._lexicon is not None
        ids = self._lexicon.find(chain.from_iterable(rows))
        if (ids < 0).any():
            at = int((ids < 0).argmax())
            row = int(np.searchsorted(offsets_of(rows), at, side="right")) - 1
            name = next(name for i, name in enumerate(chain.from_iterable(rows)) if i == at)
            raise ValueError(f"Document {frame['docno'].iloc[row]!r} has the term {name!r}, which is not among terms=.")
        return ids

    def _queries(self, frame: pd.DataFrame) -> Vectors:
        rows, weights = token_rows(frame, VECTOR_COLUMNS["sparse"][0])
        ids, row, size = self.terms.find(chain.from_iterable(rows)), _row_of(rows), len(self.terms)
        known = ids >= 0
        if self.config.similarity_function == "cosine":
            # what the index does not have counts for the length: one more term stands for all of it
            other = ~known & (weights > 0)
            squares = np.bincount(row[other], weights[other].astype(np.float64) ** 2, minlength=len(rows))
            ids = np.concatenate([ids[known], np.full(len(rows), size)])
            weights = np.concatenate([weights[known], np.sqrt(squares)])
            row, known, size = np.concatenate([row[known], np.arange(len(rows))]), np.ones(len(ids), bool), size + 1
        return positive(csr_array((weights[known], (row[known], ids[known])), shape=(len(rows), size)))

    def _from(self, source: LIRIndex, docids: Docids) -> Vectors:
        vectors = cast("csr_array", source.vectors_of(docids))
        assert isinstance(source, LIRSparseIndex)
        assert self._lexicon is not None
        used, at = np.unique(vectors.indices, return_inverse=True)
        first = np.full(len(used), len(vectors.indices))
        np.minimum.at(first, at, np.arange(len(at)))
        order = np.argsort(first)  # new terms get their ids in the order in which they come
        ids = np.empty(len(used), dtype=np.int32)
        ids[order] = self._lexicon.add(source.terms.names[used[order]])
        return positive(csr_array((vectors.data, ids[at], vectors.indptr), shape=(len(docids), len(self._lexicon))))

    def _read(self, shard: Shard, rows: NDArray[np.int64]) -> Vectors:
        return rows_of_shard(shard, rows, len(self.terms))

    def _read_nothing(self) -> Vectors:
        return csr_array((0, len(self.terms)), dtype=np.float32)


def _row_of(rows: list[dict[str, float]]) -> NDArray[np.int64]:
    """Which row each of all tokens is of."""
    return np.repeat(np.arange(len(rows)), [len(row) for row in rows])
