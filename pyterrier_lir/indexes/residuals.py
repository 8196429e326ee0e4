"""Residual compression of token vectors (ColBERTv2, arXiv:2112.01488, section 3.3).

A vector is stored as the number of its nearest centroid and, for each of its numbers, in which of 2^bits buckets the
difference from the centroid lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..cpu_kernels import PackedLinear, packs
from ..token_kernels import decode
from ..vectors import Positions, TokenVectors
from .arrays import map_array, write_array

BITS = (1, 2, 4)
SAMPLE = 1 << 18  # token vectors that are trained on, unless more centroids need more
PER_CENTROID = 32  # token vectors for each centroid that are trained on
_ROUNDS = 4  # of k-means, as in ColBERT
_FILES = ("centroids", "cutoffs", "weights")
_AT_ONCE = 1 << 23  # products with centroids that are kept at once


def centroid_count(tokens: int) -> int:
    """How many centroids so many token vectors get: the power of 2 below 16 times the root (PLAID, section 4.1).

    >>> centroid_count(1_000_000), centroid_count(40), centroid_count(0)
    (8192, 5, 1)
    """
    return max(1, min(1 << int(np.log2(16 * max(tokens, 1) ** 0.5)), tokens // 8))


def train_centroids(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The means (count, D) of a k-means clustering; the same for the same vectors.

    Lloyd's iterations over `Nearest`, whose products are twice as fast as those in FAISS's own clustering.
    """
    values = torch.from_numpy(np.ascontiguousarray(vectors))
    means = values[np.random.default_rng(0).choice(len(values), count, replace=False)]
    for _ in range(_ROUNDS):
        codes = torch.from_numpy(Nearest(means.numpy())(vectors))
        sizes = torch.bincount(codes, minlength=count)[:, None]
        sums = torch.zeros_like(means).index_add_(0, codes, values)
        means = torch.where(sizes > 0, sums / sizes.clamp(min=1), means)
    return means.numpy()


class Nearest:
    """A function from vectors (N, D) to the number of the nearest of `centroids` (C, D) by Euclidean distance, (N,)."""

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        layer = nn.Linear(centroids.shape[1], len(centroids), device="meta")
        weight = torch.from_numpy(np.array(centroids))
        # |x - c|^2 is smallest where x c - |c|^2 / 2 is largest
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(weight.square().sum(1) / -2, requires_grad=False)
        self._layer: nn.Module = PackedLinear(layer) if packs(torch.float32) else layer
        self._rows = max(1, _AT_ONCE // len(centroids))

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """See the class."""
        values = torch.from_numpy(np.ascontiguousarray(vectors))
        with torch.inference_mode():
            parts = [self._layer(part).argmax(1) for part in values.split(self._rows)]
        return torch.cat(parts).numpy() if len(values) else np.empty(0, np.int64)


@dataclass(frozen=True)
class CodedVectors:
    """Compressed vectors of the tokens of N texts, packed as `TokenVectors` are.

    Attributes:
        codec: that they were made by.
        codes: (tokens,) int32, which centroid.
        residuals: (tokens, bytes) uint8.
        offsets: (N + 1,) int64.
        ids: (tokens,) int32 or None.
    """

    codec: ResidualCodec
    codes: NDArray[np.int32]
    residuals: NDArray[np.uint8]
    offsets: Positions
    ids: NDArray[np.int32] | None = None

    def decoded(self) -> TokenVectors:
        """The vectors that the codes stand for."""
        starts, lengths = self.offsets[:-1], np.diff(self.offsets)
        return TokenVectors(self.codec.decode(self.codes, self.residuals, starts, lengths), self.offsets, self.ids)


@dataclass(frozen=True, eq=False)
class ResidualCodec:
    """Turns vectors into centroids and residuals, and back.

    Attributes:
        centroids: (C, D) float32.
        cutoffs: (2^bits - 1,) float32, the quantiles between which buckets lie.
        weights: (2^bits,) float32, the quantiles in the middle of buckets, which they stand for.
        unit: whether decoded vectors get the length 1.

    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((500, 8)).astype(np.float32)
    >>> codec = ResidualCodec.train(vectors, bits=4, count=16, unit=False)
    >>> codes, residuals = codec.encode(vectors)
    >>> residuals.shape, bool(np.abs(codec.decoded(codes, residuals) - vectors).mean() < 0.1)
    ((500, 4), True)
    """

    centroids: NDArray[np.float32]
    cutoffs: NDArray[np.float32]
    weights: NDArray[np.float32]
    unit: bool

    @classmethod
    def train(cls, vectors: NDArray[np.float32], bits: int, count: int | None, unit: bool) -> ResidualCodec:
        """Choose centroids and buckets for vectors like these (N, D); no vectors give a single centroid of zeros."""
        count = min(count or centroid_count(len(vectors)), max(1, len(vectors)))
        buckets = 1 << bits
        if not len(vectors):
            zeros = np.zeros((1, vectors.shape[1]), np.float32)
            return cls(zeros, np.zeros(buckets - 1, np.float32), np.zeros(buckets, np.float32), unit)
        centroids = train_centroids(vectors, count)
        heldout = vectors[:: max(1, len(vectors) // 16_384)]  # quantiles of some thousand vectors are near enough
        residuals = heldout - centroids[Nearest(centroids)(heldout)]
        marks = np.arange(buckets) / buckets
        cutoffs = np.quantile(residuals, marks[1:]).astype(np.float32)
        return cls(centroids, cutoffs, np.quantile(residuals, marks + 0.5 / buckets).astype(np.float32), unit)

    @cached_property
    def _nearest(self) -> Nearest:
        return Nearest(self.centroids)

    @property
    def bits(self) -> int:
        """How many bits each number's residual takes."""
        return len(self.weights).bit_length() - 1

    @property
    def width(self) -> int:
        """How many bytes a vector's residual takes."""
        return -(-int(self.centroids.shape[1]) * self.bits // 8)

    def encode(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Codes (N,) and residuals (N, width) of vectors (N, D)."""
        codes, each = self._nearest(vectors), 8 // self.bits
        residuals = torch.from_numpy(vectors - self.centroids[codes])
        buckets = torch.bucketize(residuals, torch.from_numpy(np.array(self.cutoffs))).numpy().astype(np.uint8)
        padded = np.pad(buckets, ((0, 0), (0, each * self.width - vectors.shape[1])))
        packed = np.zeros((len(vectors), self.width), np.uint8)
        for part in range(each):
            packed |= padded[:, part * self.width : (part + 1) * self.width] << np.uint8(part * self.bits)
        return codes.astype(np.int32), packed

    def decode(
        self, codes: NDArray[np.int32], residuals: NDArray[np.uint8], starts: Positions, lengths: Positions
    ) -> NDArray[np.float32]:
        """The vectors (tokens, D) float32 of the rows from `starts[i]` to `starts[i] + lengths[i]` for each i."""
        out = np.empty((int(lengths.sum()), self.centroids.shape[1]), np.float32)
        decode(codes, residuals, self.centroids, self.weights, self.bits, self.unit, starts, lengths, out)
        return out

    def decoded(self, codes: NDArray[np.int32], residuals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The vectors (N, D) float32 of all rows."""
        return self.decode(codes, residuals, np.zeros(1, np.int64), np.array([len(codes)]))

    def same(self, other: ResidualCodec) -> bool:
        """Whether codes mean the same."""
        return self.unit == other.unit and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in _FILES
        )

    def write(self, folder: Path) -> None:
        """Write the arrays into a folder."""
        for name in _FILES:
            write_array(folder / f"{name}.npy", np.asarray(getattr(self, name)))

    @classmethod
    def read(cls, folder: Path, unit: bool) -> ResidualCodec:
        """Read what `write` wrote."""
        centroids, cutoffs, weights = (np.array(map_array(folder / f"{name}.npy")) for name in _FILES)
        return cls(centroids, cutoffs, weights, unit)
