"""How a shard of sparse vectors lies on disk: by document for scoring, by term for search.

By document, `forward.*`: the rising term ids and the weights of each document.  By term, `postings.*`: blocks of 65,536
documents one after the other, in each the terms that it has by rising id, of each term the documents (16 bits: the
number within the block, rising) and the weights.

Weights are float32, float16, or uint8: multiples of one step for each shard, its largest weight / 255.  They are
rounded to the nearest multiple, but not to zero, so that no document loses a term: the difference is at most half a
step, for weights below half a step less than a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..vectors import Vectors
from .arrays import ArrayWriter, map_array, write_array
from .lexicon import Lexicon, of_length_one, positive
from .storage import Shard

# how weights are stored -> the type of the files' arrays
IMPACTS = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_TINY = float(np.finfo(np.float16).smallest_subnormal)
BLOCK = 65_536  # documents of a block: what 16 bits can number; the sums of a query's block stay in the cache


@dataclass(frozen=True)
class Block:
    """The postings of a block of documents.

    Attributes:
        start, docs: docid of the first document, number of documents.
        terms: (T,) int32, the terms that its documents have, rising.
        starts: (T + 1,) int64, where each term's postings begin in `rows` and `weights`.
        rows: (postings,) uint16, documents by their number in the block.
        weights: (postings,) as they are stored; `step` times as large.
    """

    start: int
    docs: int
    terms: NDArray[np.int32]
    starts: NDArray[np.int64]
    rows: NDArray[np.uint16]
    weights: NDArray[Any]
    step: float


def blocks_of(shard: Shard) -> Iterator[Block]:
    """The blocks of a shard that have postings."""
    terms, starts, rows, weights, bounds = (
        np.asarray(map_array(shard.folder / f"postings.{name}.npy"))
        for name in ("terms", "starts", "rows", "weights", "blocks")
    )
    step = step_of(shard)
    for at, (low, high) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        if high > low:
            docs = min(BLOCK, shard.docs - at * BLOCK)
            start = shard.start + at * BLOCK
            yield Block(start, docs, terms[low:high], starts[low : high + 1], rows, weights, step)


def step_of(shard: Shard) -> float:
    """What stored weights are multiples of; 1 for floating-point numbers."""
    return float(np.load(shard.folder / "forward.step.npy")[0])


def rows_of_shard(shard: Shard, rows: NDArray[np.int64], size: int) -> csr_array:
    """The vectors of rows of a shard, over `size` terms."""
    offsets, terms, weights = (map_array(shard.folder / f"forward.{n}.npy") for n in ("offsets", "terms", "weights"))
    lengths = (offsets[rows + 1] - offsets[rows]).astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    at = np.arange(indptr[-1]) + np.repeat(offsets[rows] - indptr[:-1], lengths)
    values = weights[at].astype(np.float32)
    if weights.dtype == np.uint8:
        values *= np.float32(step_of(shard))
    return csr_array((values, terms[at], indptr), shape=(len(rows), size))


class SparseWriter:
    """Writes the sparse vectors of a shard.

    Args:
        folder: of the shard.
        lexicon: its terms so far are those of earlier shards; those that are added meanwhile are written here.
        impacts: how weights are stored; see `IMPACTS`.
        normalised: whether vectors are scaled to length 1.
    """

    def __init__(self, folder: Path, lexicon: Lexicon, impacts: str, normalised: bool, start: int) -> None:
        self._folder, self._lexicon, self._impacts, self._normalised = folder, lexicon, impacts, normalised
        self._start, self.size, self._docs = start, 0, 0
        self._offsets = ArrayWriter(folder / "forward.offsets.npy", np.int64)
        self._offsets.append(np.zeros(1, dtype=np.int64))
        self._terms = ArrayWriter(folder / "forward.terms.npy", np.int32)
        self._weights = ArrayWriter(folder / "forward.weights.npy", IMPACTS[impacts])
        self._waiting: list[NDArray[np.float32]] = []  # of uint8, whose step is known at the end
        self.whole = False

    def append(self, vectors: Vectors) -> None:
        """Write further vectors, csr (N, terms).

        Raises:
            ValueError: if they have more terms than the lexicon, or weights that float16 cannot hold.
        """
        assert isinstance(vectors, csr_array)
        if vectors.shape[1] > len(self._lexicon):
            raise ValueError(
                f"Vectors over {vectors.shape[1]} terms do not fit an index of {len(self._lexicon)}: give the model's "
                "vocabulary as terms=."
            )
        vectors = positive(vectors)
        if self._normalised:
            vectors = of_length_one(vectors)
        if self._impacts == "float16" and len(vectors.data) and vectors.data.max() > np.finfo(np.float16).max:
            raise ValueError(f"A weight is {vectors.data.max()}, too large for float16; choose impacts='float32'.")
        self._offsets.append(vectors.indptr[1:].astype(np.int64) + self._terms.rows)
        self._terms.append(vectors.indices)
        if self._impacts == "uint8":
            self._waiting.append(vectors.data)
        elif self._impacts == "float16":
            self._weights.append(vectors.data.clip(min=_TINY))
        else:
            self._weights.append(vectors.data)
        self._docs += vectors.shape[0]
        self.size += vectors.nnz * (4 + np.dtype(IMPACTS[self._impacts]).itemsize)

    def __enter__(self) -> SparseWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None:
            self.close()

    def close(self) -> None:
        """Write the terms that are new and the postings."""
        write_array(self._folder / "forward.step.npy", np.array([self._write_multiples()], dtype=np.float32))
        for writer in (self._offsets, self._terms, self._weights):
            writer.close()
        self._lexicon.write(self._folder, self._start)
        _invert(self._folder, self._docs, len(self._lexicon))
        self.whole = True

    def _write_multiples(self) -> float:
        """Write weights that waited for the step."""
        largest = max((float(part.max()) for part in self._waiting if len(part)), default=0.0)
        step = np.float32(largest / 255) if largest else np.float32(1)
        for part in self._waiting:
            self._weights.append((part / step).round().clip(1, 255).astype(np.uint8))
        self._waiting = []
        return float(step)


def _invert(folder: Path, docs: int, size: int) -> None:
    """Write the postings of a shard's documents."""
    offsets, terms, weights = (map_array(folder / f"forward.{name}.npy") for name in ("offsets", "terms", "weights"))
    bounds, postings = [0], 0
    with (
        ArrayWriter(folder / "postings.rows.npy", np.uint16) as out_rows,
        ArrayWriter(folder / "postings.weights.npy", weights.dtype) as out_weights,
        ArrayWriter(folder / "postings.terms.npy", np.int32) as out_terms,
        ArrayWriter(folder / "postings.starts.npy", np.int64) as out_starts,
    ):
        for start in range(0, docs, BLOCK):
            starts = np.asarray(offsets[start : min(start + BLOCK, docs) + 1])
            part = slice(int(starts[0]), int(starts[-1]))
            values = np.asarray(weights[part])
            bits = values.view(np.uint16) if values.dtype == np.float16 else values  # scipy has no float16
            by_term = csr_array(
                (bits, np.asarray(terms[part]), starts - starts[0]), shape=(len(starts) - 1, size)
            ).tocsc()  # fmt: skip
            present = np.flatnonzero(np.diff(by_term.indptr))
            out_terms.append(present.astype(np.int32))
            out_starts.append(by_term.indptr[present].astype(np.int64) + postings)
            out_rows.append(by_term.indices.astype(np.uint16))
            out_weights.append(by_term.data.view(weights.dtype))
            postings += len(values)
            bounds.append(out_terms.rows)
        out_starts.append(np.array([postings]))
    write_array(folder / "postings.blocks.npy", np.array(bounds, dtype=np.int64))
