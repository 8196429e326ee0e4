"""What texts become: dense vectors, sparse vectors over the vocabulary, or vectors of their tokens; arrays only.

| kind | of N texts | type |
|---|---|---|
| `dense` | (N, D) | float32 array |
| `sparse` | (N, vocabulary) | float32 `scipy.sparse.csr_array`, ids rising in each row |
| `multi_vector` | (tokens, D) of all texts | `TokenVectors` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from .config import Kind

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class TokenVectors:
    """Vectors of the tokens of many texts in one array: text i has `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: (tokens, D) float32.
        offsets: (N + 1,) int64.
        ids: (tokens,) int32, which token each vector is of; None where nothing compares them.

    >>> one = TokenVectors(np.ones((3, 2), np.float32), np.array([0, 2, 3]))
    >>> [len(text) for text in one.rows()], one.take(np.array([1, 0])).offsets.tolist()
    ([2, 1], [0, 1, 3])
    """

    values: NDArray[np.float32]
    offsets: Positions
    ids: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.float32]], ids: Sequence[NDArray[np.int32]] | None = None) -> TokenVectors:
        """One array (tokens, D) for each text."""
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return cls(np.concatenate(rows), offsets, None if ids is None else np.concatenate(ids))

    @property
    def lengths(self) -> Positions:
        """Number of vectors of each text."""
        return np.diff(self.offsets)

    def rows(self) -> list[NDArray[np.float32]]:
        """A view (tokens, D) for each text."""
        return np.split(self.values, self.offsets[1:-1])

    def between(self, start: int, stop: int) -> TokenVectors:
        """The texts from `start` to before `stop`, not copied."""
        offsets = self.offsets[start : stop + 1]
        part = slice(int(offsets[0]), int(offsets[-1]))
        return TokenVectors(self.values[part], offsets - offsets[0], None if self.ids is None else self.ids[part])

    def take(self, chosen: Positions) -> TokenVectors:
        """The chosen texts, in the order given, possibly several times."""
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return TokenVectors(self.values[at], offsets, None if self.ids is None else self.ids[at])


Vectors: TypeAlias = NDArray[np.float32] | csr_array | TokenVectors
Encoded: TypeAlias = Mapping[Kind, Vectors]  # all that a model makes of the same N texts


def take(vectors: Vectors, chosen: Positions) -> Vectors:
    """The chosen texts' vectors, in the order given."""
    return vectors.take(chosen) if isinstance(vectors, TokenVectors) else cast("Vectors", vectors[chosen])


def concatenate(parts: Sequence[Vectors]) -> Vectors:
    """One after the other."""
    first = parts[0]
    if isinstance(first, TokenVectors):
        several = cast("Sequence[TokenVectors]", parts)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in several]))])
        ids = None if first.ids is None else np.concatenate([cast("NDArray[np.int32]", part.ids) for part in several])
        return TokenVectors(np.concatenate([part.values for part in several]), offsets, ids)
    if isinstance(first, csr_array):
        return csr_array(vstack(parts, format="csr"))
    return np.concatenate(cast("Sequence[NDArray[np.float32]]", parts))


def sparse_of_tokens(
    ids: NDArray[np.int32], weights: NDArray[np.float32], offsets: Positions, vocabulary: int, repeated: str = "max"
) -> csr_array:
    """Sparse vectors from weights of tokens.

    Args:
        ids, weights: (tokens,) of all texts; those of text i lie between `offsets[i]` and `offsets[i + 1]`.
        repeated: which weight a term gets that a text has several times: `max`, `sum` or `last`.

    >>> sparse_of_tokens(np.array([5, 2, 5]), np.array([1.0, 2.0, 3.0]), np.array([0, 3]), 6).toarray().tolist()
    [[0.0, 0.0, 2.0, 0.0, 0.0, 3.0]]
    """
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((weights if repeated == "max" else np.arange(len(ids)), ids, row))
    row, ids, weights = row[order], ids[order], weights[order]
    last = np.append((row[1:] != row[:-1]) | (ids[1:] != ids[:-1]), True)[: len(ids)]  # of its text and term
    if repeated == "sum" and len(ids):
        starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
        weights[last] = np.add.reduceat(weights, starts)
    keep = last & (weights > 0)
    starts = np.searchsorted(row[keep], np.arange(len(offsets)))
    return csr_array((weights[keep].astype(np.float32), ids[keep], starts), shape=(len(offsets) - 1, vocabulary))


def prune(vectors: csr_array, top_k: int | None = None, threshold: float | None = None) -> csr_array:
    """Keep the `top_k` largest weights of each row and drop those below `threshold`; of equal ones the lower id stays.

    >>> prune(csr_array(np.array([[0.5, 2.0, 1.0]])), top_k=2, threshold=0.8).toarray().tolist()
    [[0.0, 2.0, 1.0]]
    """
    row = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    keep = np.ones(len(row), dtype=bool) if threshold is None else vectors.data >= threshold
    if top_k is not None:
        order = np.lexsort((-vectors.data, row))
        place = np.empty(len(row), dtype=np.int64)
        place[order] = np.arange(len(row)) - vectors.indptr[row[order]]
        keep &= place < top_k
    starts = np.concatenate([[0], np.cumsum(keep)])[vectors.indptr]
    return csr_array((vectors.data[keep], vectors.indices[keep], starts), shape=vectors.shape)


def pool_tokens(vectors: TokenVectors, factor: float, unit: bool = True) -> TokenVectors:
    """Keep a `factor`-th of the token vectors of each text: the means of clusters of like ones (arXiv:2409.14683).

    The first vector, of a special token or marker, stays as it is.  The others are clustered by Ward's method over
    their cosine distances, as PyLate and sentence-transformers do.

    Args:
        factor: at least 1, which keeps all.
        unit: whether the means are brought to length 1.

    >>> one = TokenVectors.of([np.array([[1, 0], [0, 1], [0, 1], [-1, 0], [-1, 0]], dtype=np.float32)])
    >>> pool_tokens(one, 2).rows()[0].tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    """
    return TokenVectors.of([_pooled(row, factor, unit) for row in vectors.rows()]) if len(vectors) else vectors


def _pooled(row: NDArray[np.float32], factor: float, unit: bool) -> NDArray[np.float32]:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    first, rest = row[:1], row[1:]
    count = max(int(len(rest) // factor), 1)
    if count >= len(rest):
        return row
    directions = _of_length_one(rest)
    distances = squareform(np.clip(1 - directions @ directions.T, 0, 2), checks=False)
    _, cluster = np.unique(fcluster(linkage(distances, "ward"), count, "maxclust"), return_inverse=True)
    means = np.zeros((cluster.max() + 1, row.shape[1]), np.float32)
    np.add.at(means, cluster, rest)
    means /= np.bincount(cluster)[:, None]
    return np.concatenate([first, _of_length_one(means) if unit else means])


def _of_length_one(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return cast("NDArray[np.float32]", rows / np.maximum(lengths, 1e-12))
