"""LIRDenseIndex: one vector for each document, in rows of a memory-mapped array."""

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
from ..vectors import Vectors
from .arrays import ArrayWriter, fitting, map_array
from .docnos import Docids
from .index import LIRIndex
from .storage import Shard

# how numbers are stored -> the type of the file's array
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}


class LIRDenseIndex(LIRIndex):
    """An index of dense vectors.

    Numbers are stored as `float32`, `float16`, `bfloat16` or `int8` (each vector scaled by its largest number): choose
    with `indexer(dtype=...)`.  Vectors that are compared by their cosine are stored with length 1.

    >>> import tempfile
    >>> index = LIRDenseIndex(tempfile.mkdtemp() + "/tiny.lir")
    >>> docs = [{"docno": "a", "doc_vec": np.array([1.0, 0.0])}, {"docno": "b", "doc_vec": np.array([0.6, 0.8])}]
    >>> index.indexer().index(docs)  # doctest: +ELLIPSIS
    LIRDenseIndex('.../tiny.lir')
    >>> found = index.retriever(num_results=1)([{"qid": "1", "query_vec": np.array([0.0, 1.0])}])
    >>> [(row["docno"], round(row["score"], 3)) for row in found]
    [('b', 0.8)]
    """

    ARTIFACT_TYPE: ClassVar[str] = "dense_index"
    KIND: ClassVar[Kind] = "dense"
    SETTINGS: ClassVar[tuple[str, ...]] = ("dtype",)

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        return int(self.meta["size"] or 0)

    @property
    def dtype(self) -> str:
        """How numbers are stored."""
        return str(self.meta["dtype"])

    def _header(self, config: BiEncoderConfig, size: int | None, settings: dict[str, Any]) -> dict[str, Any]:
        dtype = settings.pop("dtype", "float32")
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r}; allowed: {', '.join(DTYPES)}.")
        return {"size": size, "dtype": dtype}

    def _writer(self, folder: Path, header: dict[str, Any]) -> DenseWriter:
        similarity = header["config"]["similarity_function"]
        return DenseWriter(folder, header["size"], header["dtype"], normalised=similarity == "cosine")

    def pair_scores(self, queries: Vectors, docs: Vectors, query_of: Docids, doc_of: Docids) -> NDArray[np.float32]:
        """See `LIRIndex.pair_scores`; vectors compared by their cosine are stored with length 1."""
        config = self.config
        if config.similarity_function == "cosine":
            queries = normalize(torch.from_numpy(np.asarray(queries)), dim=-1).numpy()
            config = replace(config, similarity_function="dot")
        return pair_scores(config, queries, docs, query_of, doc_of)

    def _read(self, shard: Shard, rows: NDArray[np.int64]) -> Vectors:
        return self.stored(shard)[rows].numpy() if self.dtype != "int8" else self._unscaled(shard, rows)

    def _read_nothing(self) -> Vectors:
        return np.empty((0, self.size), dtype=np.float32)

    @cached_property
    def _maps(self) -> dict[tuple[int, str], NDArray[Any]]:
        return {}

    def _map(self, shard: Shard, name: str) -> NDArray[Any]:
        """An array of a shard, opened once."""
        if (shard.start, name) not in self._maps:
            self._maps[shard.start, name] = map_array(shard.folder / f"{name}.npy")
        return self._maps[shard.start, name]

    def _unscaled(self, shard: Shard, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        numbers, scales = self._map(shard, "vectors"), self._map(shard, "scales")
        return cast("NDArray[np.float32]", numbers[rows].astype(np.float32) * scales[rows, None])

    def stored(self, shard: Shard) -> StoredRows:
        """The rows of a shard, which turn into float32 tensors when they are read."""
        return StoredRows(self._map(shard, "vectors"), self.dtype)

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(docid of the first, vectors (rows, D) float32) for all documents in turn, the deleted included."""
        for shard in self.shards:
            stored = self.stored(shard)
            for start in range(0, shard.docs, rows):
                part = slice(start, min(start + rows, shard.docs))
                block = torch.from_numpy(self._unscaled(shard, part)) if self.dtype == "int8" else stored[part]
                yield shard.start + start, block


class StoredRows:
    """Rows of a memory-mapped array as float32 tensors; float32 is not copied."""

    def __init__(self, array: NDArray[Any], dtype: str) -> None:
        self._array, self._dtype = array, dtype

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> torch.Tensor:
        part = self._array[rows]
        if not part.flags.writeable:
            part = part.view()  # torch warns of arrays that cannot be written
        tensor = _tensor(part)
        return tensor.view(torch.bfloat16).float() if self._dtype == "bfloat16" else tensor.float()


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)


class DenseWriter:
    """Writes the vectors of a shard."""

    def __init__(self, folder: Path, size: int | None, dtype: str, normalised: bool) -> None:
        self._dtype, self._normalised, self.size = dtype, normalised, 0
        self._vectors = ArrayWriter(folder / "vectors.npy", DTYPES[dtype], (size or 0,))
        self._scales = ArrayWriter(folder / "scales.npy", np.float32) if dtype == "int8" else None

    def append(self, vectors: Vectors) -> None:
        """Write further vectors, (N, D) float32."""
        rows = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
        if self._normalised:
            rows = normalize(rows, dim=-1)
        if self._dtype == "bfloat16":
            stored = rows.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        elif self._scales is not None:
            scales = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            self._scales.append(scales[:, 0].numpy())
            stored = (rows / scales).round().to(torch.int8).numpy()
        else:
            stored = fitting(rows.numpy(), DTYPES[self._dtype])
        self._vectors.append(stored)
        self.size += stored.nbytes

    def __enter__(self) -> DenseWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Bring the files to the disk."""
        self._vectors.close()
        if self._scales is not None:
            self._scales.close()
