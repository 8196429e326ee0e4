"""Exact multi-vector search: MaxSim of all queries with all documents, one block of documents after the other.

The vectors of all queries of a batch are the columns of one matrix product; the largest product of each document is
taken in each column, and the columns of a query are added up (MaxSim, arXiv:2004.12832, equation 3).  Documents that
are no candidates are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.scores import LateInteraction
from ...vectors import TokenVectors
from . import Found, top
from .dense_exact import Best

if TYPE_CHECKING:
    from ..multi_vector import LIRMultiVectorIndex

_TOKENS = 65_536  # tokens of a block of documents
_COLUMNS = 2_048  # query vectors that are multiplied at once


def open(index: LIRMultiVectorIndex) -> MultiVectorExact:
    """Open the engine."""
    return MultiVectorExact(index)


class MultiVectorExact:
    """Scores all documents of an index, also those without vectors, whose score is 0."""

    def __init__(self, index: LIRMultiVectorIndex) -> None:
        self._index = index

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`."""
        vectors = self._index.prepared(queries)
        docids = np.arange(self._index.docids) if candidates is None else np.flatnonzero(candidates)
        if not len(docids) or not len(vectors):
            return np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        parts = [self._part(vectors.take(rows), docids, k) for rows in _portions(vectors.lengths)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _part(self, queries: TokenVectors, docids: NDArray[np.int64], k: int) -> Found:
        """The best documents of as many queries as are multiplied at once."""
        best = Best(min(k, len(docids)), len(queries), torch.zeros(len(queries)))
        start = 0  # among the candidates, whose order is that of docids
        with torch.inference_mode():
            interact = LateInteraction(self._index.stored_config, queries)
            for part, docs in self._index.blocks(_TOKENS, docids):
                best.add(start, torch.from_numpy(_scores(interact, docs)))
                start += len(part)
            best.merge()
        found = best.docids.numpy()
        return top(best.scores.numpy(), np.where(found < 0, -1, docids[found]), k)


def _scores(interact: LateInteraction, docs: TokenVectors) -> NDArray[np.float32]:
    """Scores (documents, queries)."""
    parts = np.split(np.arange(len(docs)), interact.cuts(docs.lengths))
    return np.concatenate([interact(docs.between(int(part[0]), int(part[-1]) + 1)) for part in parts])


def _portions(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of queries that together have no more vectors than are multiplied at once."""
    number = (np.cumsum(lengths) - lengths) // _COLUMNS
    return [np.flatnonzero(number == one) for one in np.unique(number)]
