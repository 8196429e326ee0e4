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
from ..models.scores import pair_scores
from ..vectors import TokenVectors, Vectors
from .arrays import ArrayWriter, map_array
from .docnos import Docids
from .index import LIRIndex
from .storage import Shard

DTYPES = ("float32", "float16")


class LIRMultiVectorIndex(LIRIndex):
    """An index of token vectors.

    Numbers are stored as `float16` or `float32`: choose with `indexer(dtype=...)`.  Vectors that are compared by their
    cosine are stored with length 1.  A document may have no vectors; its score is 0.

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

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        return int(self.meta["size"] or 0)

    @property
    def dtype(self) -> str:
        """How numbers are stored."""
        return str(self.meta["dtype"])

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

    def blocks(self, tokens: int) -> Iterator[tuple[int, TokenVectors]]:
        """(docid of the first, vectors) of all documents in turn, also deleted ones, so many tokens at a time."""
        for shard in self.shards:
            offsets = self._map(shard, "offsets")
            start = 0
            while start < shard.docs:
                stop = int(np.searchsorted(offsets, offsets[start] + tokens, side="right")) - 1
                stop = min(max(stop, start + 1), shard.docs)
                yield shard.start + start, self._rows(shard, start, stop)
                start = stop

    def offsets_of(self, shard: Shard) -> NDArray[np.int64]:
        """Where the vectors of each document of a shard begin, (docs + 1,)."""
        return self._map(shard, "offsets")

    def _rows(self, shard: Shard, start: int, stop: int) -> TokenVectors:
        """The vectors of the documents from `start` to `stop` of a shard."""
        offsets = np.asarray(self._map(shard, "offsets")[start : stop + 1])
        part = slice(int(offsets[0]), int(offsets[-1]))
        values = np.asarray(self._map(shard, "vectors")[part]).astype(np.float32)
        ids = np.asarray(self._map(shard, "ids")[part]) if self.with_ids else None
        return TokenVectors(values, offsets - offsets[0], ids)

    def _header(self, config: BiEncoderConfig, size: int | None, settings: dict[str, Any]) -> dict[str, Any]:
        dtype = settings.pop("dtype", "float16")
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r}; allowed: {', '.join(DTYPES)}.")
        return {"size": size, "dtype": dtype}

    def _writer(self, folder: Path, header: dict[str, Any]) -> TokenWriter:
        config = header["config"]
        normalised = config["similarity_function"] == "cosine"
        return TokenWriter(folder, header["size"], header["dtype"], normalised, config["exact_match"])

    def _read(self, shard: Shard, rows: NDArray[np.int64]) -> Vectors:
        offsets = self._map(shard, "offsets")
        starts, lengths = np.asarray(offsets[rows]), np.asarray(offsets[rows + 1] - offsets[rows])
        ends = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
        values = np.asarray(self._map(shard, "vectors")[at]).astype(np.float32)
        return TokenVectors(values, ends, np.asarray(self._map(shard, "ids")[at]) if self.with_ids else None)

    def _read_nothing(self) -> Vectors:
        ids = np.empty(0, dtype=np.int32) if self.with_ids else None
        return TokenVectors(np.empty((0, self.size), dtype=np.float32), np.zeros(1, dtype=np.int64), ids)

    @cached_property
    def _maps(self) -> dict[tuple[int, str], NDArray[Any]]:
        return {}

    def _map(self, shard: Shard, name: str) -> NDArray[Any]:
        """An array of a shard, opened once."""
        if (shard.start, name) not in self._maps:
            self._maps[shard.start, name] = map_array(shard.folder / f"{name}.npy")
        return self._maps[shard.start, name]


class TokenWriter:
    """Writes the vectors of a shard."""

    def __init__(self, folder: Path, size: int | None, dtype: str, normalised: bool, with_ids: bool) -> None:
        self._normalised, self.size = normalised, 0
        self._vectors = ArrayWriter(folder / "vectors.npy", dtype, (size or 0,))
        self._offsets = ArrayWriter(folder / "offsets.npy", np.int64)
        self._offsets.append([0])
        self._ids = ArrayWriter(folder / "ids.npy", np.int32) if with_ids else None

    def append(self, vectors: Vectors) -> None:
        """Write the vectors of further documents."""
        rows = cast("TokenVectors", vectors)
        values = rows.values
        if self._normalised:
            values = normalize(torch.from_numpy(values), dim=-1).numpy()
        self._offsets.append(self._vectors.rows + rows.offsets[1:])
        self._vectors.append(values)
        self.size += values.nbytes
        if self._ids is not None:
            if rows.ids is None:
                raise ValueError("Vectors that meet only where their tokens are equal need a column doc_embs_toks.")
            self._ids.append(rows.ids)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Bring the files to the disk."""
        for writer in (self._vectors, self._offsets, self._ids):
            if writer is not None:
                writer.close()
