"""LIRMultiVectorIndex: the vectors of all tokens, packed, with the place where each document begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ..config import BiEncoderConfig, Kind
from ..models.scores import LateInteraction, pair_scores
from ..token_kernels import gather, gather_half
from ..vectors import TokenVectors, Vectors, concatenate
from .arrays import map_array
from .docnos import Docids
from .index import LIRIndex
from .residuals import BITS, CodedVectors, ResidualCodec
from .storage import Shard
from .token_writers import CodedWriter, TokenWriter

DTYPES = ("float32", "float16")
_TOKENS = 16_384  # tokens whose vectors are read at once to be scored


class LIRMultiVectorIndex(LIRIndex):
    """An index of token vectors.

    Numbers are stored as `float16` or `float32`: choose with `indexer(dtype=...)`.  With `indexer(bits=...)` of 1, 2 or
    4 vectors are compressed (see `residuals`); the centroids, `ncentroids` of them if given, are those of the first
    documents of the first shard, and stay when documents are added or parts are merged.  Vectors that are compared by
    their cosine are stored with length 1.  A document may have no vectors: its score is 0, with which engines that
    search everything find it and others do not.

    >>> import tempfile
    >>> index = LIRMultiVectorIndex(tempfile.mkdtemp() + "/tiny.lir")
    >>> docs = [{"docno": "a", "doc_embs": np.eye(2)}, {"docno": "b", "doc_embs": np.array([[0.5, 0.0]])}]
    >>> index.indexer().index(docs)  # doctest: +ELLIPSIS
    LIRMultiVectorIndex('.../tiny.lir')
    >>> found = index.retriever()([{"qid": "1", "query_embs": np.array([[1.0, 0.0], [0.0, 1.0]])}])
    >>> [(row["docno"], row["score"]) for row in found]
    [('a', 2.0), ('b', 0.5)]
    """

    ARTIFACT_TYPE: ClassVar[str] = "multi_vector_index"
    KIND: ClassVar[Kind] = "multi_vector"
    SETTINGS: ClassVar[tuple[str, ...]] = ("dtype", "bits", "ncentroids")

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        return int(self.meta["size"] or 0)

    @property
    def dtype(self) -> str | None:
        """How numbers are stored; None where they are compressed."""
        return cast("str | None", self.meta["dtype"])

    @property
    def with_ids(self) -> bool:
        """Whether the tokens that vectors are of are stored too: vectors meet only where they are equal."""
        return self.config.exact_match

    def prepared(self, queries: TokenVectors) -> TokenVectors:
        """Queries as the stored vectors are multiplied with: of length 1 where the cosine compares.

        Raises:
            ValueError: if they have vectors of another size.
        """
        if queries.values.shape[1] != self.size:
            raise ValueError(
                f"Queries have vectors of {queries.values.shape[1]} numbers, the documents of {self!r} {self.size}."
            )
        if self.config.similarity_function != "cosine":
            return queries
        return replace(queries, values=normalize(torch.from_numpy(queries.values), dim=-1).numpy())

    @cached_property
    def stored_config(self) -> BiEncoderConfig:
        """How prepared queries and stored vectors are compared."""
        config = self.config
        return replace(config, similarity_function="dot") if config.similarity_function == "cosine" else config

    def pair_scores(self, queries: Vectors, docs: Vectors, query_of: Docids, doc_of: Docids) -> NDArray[np.float32]:
        """See `LIRIndex.pair_scores`; vectors compared by their cosine are stored with length 1."""
        return pair_scores(self.stored_config, self.prepared(cast("TokenVectors", queries)), docs, query_of, doc_of)

    def scores_of(self, queries: Vectors, query_of: Docids, docids: Docids) -> NDArray[np.float32]:
        """Scores (N,) of the pairs (query_of[i], docids[i]); vectors are read a few documents at a time."""
        prepared = self.prepared(cast("TokenVectors", queries))
        out = np.zeros(len(docids), np.float32)
        order = np.lexsort((docids, query_of))
        for rows in np.split(order, np.flatnonzero(np.diff(query_of[order])) + 1):
            if len(rows):
                interact = LateInteraction(self.stored_config, prepared.take(query_of[rows[:1]]))
                for part in np.split(rows, self.cuts(docids[rows], _TOKENS)):
                    out[part] = interact(cast("TokenVectors", self.vectors_of(docids[part])))[:, 0]
        return out

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """How many vectors each document has, (docids,)."""
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(self._map(shard, "offsets")) for shard in self.shards)])

    def cuts(self, docids: Docids, tokens: int) -> NDArray[np.int64]:
        """Where to cut documents into parts of about so many tokens, (parts - 1,)."""
        ends = np.cumsum(self.lengths[docids])
        return np.flatnonzero(np.diff(ends // tokens)) + 1

    def blocks(self, tokens: int, docids: Docids | None = None) -> Iterator[tuple[Docids, TokenVectors]]:
        """(docids, vectors) of documents, or of all in turn, also deleted ones, about so many tokens at a time."""
        chosen = np.arange(self.docids) if docids is None else docids
        for part in np.split(chosen, self.cuts(chosen, tokens)):
            if len(part):
                yield part, cast("TokenVectors", self.vectors_of(part))

    def vectors_of(self, docids: Docids) -> Vectors:
        """See `LIRIndex.vectors_of`; documents in rising order are read without a further copy."""
        if (np.diff(docids) < 0).any():
            return super().vectors_of(docids)
        parts = [
            self._read(shard, docids[rows] - shard.start) for shard, rows, _ in self._by_shard(docids, self.shards)
        ]
        return parts[0] if len(parts) == 1 else concatenate(parts) if parts else self._read_nothing()

    @cached_property
    def codec(self) -> ResidualCodec | None:
        """What compresses vectors; None where they are not, or there are none."""
        if not self.meta.get("bits") or not self.shards:
            return None
        return ResidualCodec.read(self.shards[0].folder, _unit(self.meta["config"]))

    def coded(self, docids: Docids) -> CodedVectors:
        """Compressed vectors of documents in rising order, as they are stored."""
        assert self.codec is not None
        codes, residuals, ids = [], [], []
        for shard, rows, _ in self._by_shard(docids, self.shards):
            at = _rows_of(*self._places(shard, docids[rows] - shard.start))
            codes.append(self._map(shard, "codes")[at])
            residuals.append(self._map(shard, "residuals")[at])
            ids += [self._map(shard, "ids")[at]] if self.with_ids else []
        offsets = np.concatenate([[0], np.cumsum(self.lengths[docids])])
        return CodedVectors(self.codec, np.concatenate(codes), np.concatenate(residuals), offsets,
                            np.concatenate(ids) if self.with_ids else None)  # fmt: skip

    def _places(self, shard: Shard, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(starts, lengths) of the vectors of rows of a shard."""
        offsets = self._map(shard, "offsets")
        starts = np.asarray(offsets[rows])
        return starts, np.asarray(offsets[rows + 1]) - starts

    def _from(self, source: LIRIndex, docids: Docids) -> Vectors:
        """Compressed vectors are copied as they are, where both compress in the same way."""
        if not isinstance(source, LIRMultiVectorIndex) or source.codec is None or not len(docids):
            return source.vectors_of(docids)
        return cast("Vectors", source.coded(docids))

    def _header(self, config: BiEncoderConfig, size: int | None, settings: dict[str, Any]) -> dict[str, Any]:
        bits, ncentroids = settings.pop("bits", None), settings.pop("ncentroids", None)
        dtype = settings.pop("dtype", "float16" if bits is None else None)
        if bits is None and (dtype not in DTYPES or ncentroids is not None):
            wrong = f"dtype={dtype!r}" if dtype not in DTYPES else f"ncentroids={ncentroids!r}, which needs bits"
            raise ValueError(f"{wrong}; allowed: dtype {', '.join(DTYPES)}, or bits {', '.join(map(str, BITS))}.")
        if bits is not None and (bits not in BITS or dtype is not None):
            raise ValueError(
                f"bits={bits!r}, dtype={dtype!r}; allowed: bits {', '.join(map(str, BITS))} without dtype."
            )
        if ncentroids is not None and (not isinstance(ncentroids, int) or ncentroids < 1):
            raise ValueError(f"ncentroids={ncentroids!r}; allowed: a positive number, or None.")
        return {"size": size, "dtype": dtype, "bits": bits, "ncentroids": ncentroids}

    def _writer(self, folder: Path, header: dict[str, Any]) -> TokenWriter:
        config = header["config"]
        similar, with_ids = config["similarity_function"] == "cosine", config["exact_match"]
        if header.get("bits") is None:
            return TokenWriter(folder, header["size"], header["dtype"], similar, with_ids)
        codec, first = None, "00000"
        if not folder.name.startswith(first):  # the first shard is there, or in the index that is appended to
            place = folder.with_name(first)
            codec = ResidualCodec.read(place if place.is_dir() else self.folder / first, _unit(config))
        return CodedWriter(folder, header["size"], similar, with_ids, codec, header["bits"], header["ncentroids"],
                           _unit(config))  # fmt: skip

    def _read(self, shard: Shard, rows: NDArray[np.int64]) -> Vectors:
        starts, lengths = self._places(shard, rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.asarray(self._map(shard, "ids")[_rows_of(starts, lengths)]) if self.with_ids else None
        return TokenVectors(self._values(shard, starts, lengths), offsets, ids)

    def _values(self, shard: Shard, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of the rows from `starts[i]` to `starts[i] + lengths[i]` for each i."""
        if self.codec is not None:
            codes, residuals = self._map(shard, "codes"), self._map(shard, "residuals")
            return self.codec.decode(codes, residuals, starts, lengths)
        values = np.empty((int(lengths.sum()), self.size), np.float32)
        stored = self._map(shard, "vectors")
        if stored.dtype == np.float16:
            gather_half(stored.view(np.int16), starts, lengths, values)
        else:
            gather(stored, starts, lengths, values)
        return values

    def tokens_of(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (N, D) of tokens, which are numbered through all documents; numbers rise."""
        ends = np.cumsum([int(self._map(shard, "offsets")[-1]) for shard in self.shards], dtype=np.int64)
        parts = np.split(tokens, np.searchsorted(tokens, ends[:-1]))
        starts = np.concatenate([[0], ends[:-1]])
        return np.concatenate([self._values(shard, part - start, np.ones(len(part), np.int64))
                               for shard, part, start in zip(self.shards, parts, starts, strict=True)])  # fmt: skip

    def _read_nothing(self) -> Vectors:
        ids = np.empty(0, dtype=np.int32) if self.with_ids else None
        return TokenVectors(np.empty((0, self.size), dtype=np.float32), np.zeros(1, dtype=np.int64), ids)

    @cached_property
    def _maps(self) -> dict[tuple[int, str], NDArray[Any]]:
        return {}

    def _map(self, shard: Shard, name: str) -> NDArray[Any]:
        """An array of a shard, opened once."""
        if (shard.start, name) not in self._maps:
            self._maps[shard.start, name] = np.asarray(map_array(shard.folder / f"{name}.npy"))
        return self._maps[shard.start, name]


def _unit(config: dict[str, Any]) -> bool:
    """Whether all vectors have the length 1."""
    return bool(config["similarity_function"] == "cosine" or config["normalization_strategy"] == "l2")


def _rows_of(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of documents, one after the other."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    rows: NDArray[np.int64] = np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
    return rows
