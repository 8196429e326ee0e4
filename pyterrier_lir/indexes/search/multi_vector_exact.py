"""Exact multi-vector search: MaxSim of all queries with all documents, one block of documents after the other.

The vectors of all queries of a batch are the columns of one matrix product; the largest product of each document is
taken in each column, and the columns of a query are added up (MaxSim, arXiv:2004.12832, equation 3).  Models that
compare otherwise are scored pair by pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...cpu_kernels import PackedLinear, packs
from ...vectors import TokenVectors
from . import Found, top
from .dense_exact import Best

if TYPE_CHECKING:
    from ..multi_vector import LIRMultiVectorIndex

_TOKENS = 32_768  # tokens of a block of documents
_COLUMNS = 2_048  # query vectors that are multiplied at once
_LEAST = 32  # columns for which products are laid out


def open(index: LIRMultiVectorIndex) -> MultiVectorExact:
    """Open the engine."""
    return MultiVectorExact(index)


class MultiVectorExact:
    """Scores all documents of an index.

    Attributes:
        max_sim: whether scores are sums (or means) of the largest dot products.
    """

    def __init__(self, index: LIRMultiVectorIndex) -> None:
        self._index = index
        config = index.stored_config
        self.max_sim = (
            config.similarity_function == "dot" and config.doc_aggregation_function == "max"
            and config.query_aggregation_function in ("sum", "mean") and not config.exact_match
        )  # fmt: skip

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`; documents and queries without vectors have the score 0."""
        vectors = self._index.prepared(queries)
        wanted = min(k, self._index.docids)
        if not wanted or not len(vectors):
            return np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        parts = [self._part(vectors.take(rows), wanted, k, candidates) for rows in _portions(vectors.lengths)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _part(self, queries: TokenVectors, wanted: int, k: int, candidates: NDArray[np.bool_] | None) -> Found:
        """The best documents of as many queries as are multiplied at once."""
        best = Best(wanted, len(queries), torch.zeros(len(queries)))
        mask = None if candidates is None else torch.from_numpy(candidates)
        with torch.inference_mode():
            multiply = _products(queries.values) if self.max_sim else None
            for start, docs in self._index.blocks(_TOKENS):
                scores = self._pairs(queries, docs) if multiply is None else self._max_sim(multiply, queries, docs)
                if mask is not None:
                    scores = scores.masked_fill(~mask[start : start + len(docs), None], -torch.inf)
                best.add(start, scores)
            best.merge()
        return top(best.scores.numpy(), best.docids.numpy(), k)

    def _max_sim(self, multiply: Any, queries: TokenVectors, docs: TokenVectors) -> Tensor:
        """Scores (documents, queries)."""
        scores = torch.zeros(len(docs), len(queries))
        some = docs.lengths > 0
        columns = queries.offsets[-1]
        if not some.any() or not columns:
            return scores
        products = multiply(torch.from_numpy(docs.values))[:, :columns]
        largest = np.maximum.reduceat(products.numpy(), docs.offsets[:-1][some], axis=0)
        filled = queries.lengths > 0
        total = np.add.reduceat(largest, queries.offsets[:-1][filled], axis=1)
        if self._index.config.query_aggregation_function == "mean":
            total = total / queries.lengths[filled]
        rows, found = np.flatnonzero(some), np.flatnonzero(filled)
        scores[torch.from_numpy(rows)[:, None], torch.from_numpy(found)] = torch.from_numpy(total.astype(np.float32))
        return scores

    def _pairs(self, queries: TokenVectors, docs: TokenVectors) -> Tensor:
        """Scores (documents, queries) of models that compare otherwise."""
        query_of = np.repeat(np.arange(len(queries)), len(docs))
        scores = self._index.pair_scores(queries, docs, query_of, np.tile(np.arange(len(docs)), len(queries)))
        return torch.from_numpy(scores.reshape(len(queries), len(docs)).T.copy())


def _portions(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of queries that together have no more vectors than are multiplied at once."""
    number = (np.cumsum(lengths) - lengths) // _COLUMNS
    return [np.flatnonzero(number == one) for one in np.unique(number)]


def _products(values: NDArray[np.float32]) -> Any:
    """A function from vectors (N, D) to their products (N, columns) with all query vectors."""
    weight = torch.from_numpy(np.ascontiguousarray(values))
    if not packs(torch.float32):
        return lambda block: block @ weight.T
    layer = nn.Linear(weight.shape[1], max(len(weight), _LEAST), bias=False, device="meta")
    layer.weight = nn.Parameter(nn.functional.pad(weight, (0, 0, 0, max(0, _LEAST - len(weight)))), requires_grad=False)
    return PackedLinear(layer)
