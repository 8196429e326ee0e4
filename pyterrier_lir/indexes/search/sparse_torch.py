"""Exact sparse search by PyTorch: products of postings are added up where they belong, on a GPU or the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..postings import Block
from . import Found, top

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from ..sparse import LIRSparseIndex

_SCORES = 1 << 26  # scores that are kept at once
_POSTINGS = 1 << 25  # products that are added at once


@dataclass(frozen=True)
class _Moved:
    """A block whose postings are on the device."""

    block: Block
    rows: Tensor  # (postings,) int32
    weights: Tensor  # (postings,)


class SparseTorch:
    """Searches all postings of an index.

    Args:
        index: whose postings move to the device at the first search.
        device: where to.
    """

    def __init__(self, index: LIRSparseIndex, device: torch.device) -> None:
        self._index, self._device = index, device

    @cached_property
    def _blocks(self) -> list[_Moved]:
        moved = []
        for block in self._index.blocks():
            part = slice(int(block.starts[0]), int(block.starts[-1]))
            rows = torch.from_numpy(block.rows[part].astype(np.int32)).to(self._device)
            moved.append(_Moved(block, rows, torch.from_numpy(np.array(block.weights[part])).to(self._device)))
        return moved

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`; only documents with a score above 0 are found."""
        prepared = self._index.prepared(queries)
        mask = None if candidates is None else torch.from_numpy(candidates).to(self._device)
        at_once = max(1, _SCORES // (max([moved.block.docs for moved in self._blocks], default=1)))
        parts = [top(np.empty((0, 0), np.float32), np.empty((0, 0), np.int64), k)]
        with torch.inference_mode():
            for start in range(0, queries.shape[0], at_once):
                parts.append(self._best(prepared[start : start + at_once], k, mask))
        docids, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        return docids, scores

    def _best(self, queries: csr_array, k: int, mask: Tensor | None) -> Found:
        """The k best documents of a few queries."""
        count = queries.shape[0]
        docids = torch.full((count, 0), -1, dtype=torch.int64, device=self._device)
        best = torch.full((count, 0), -torch.inf, device=self._device)
        for moved in self._blocks:
            start, docs = moved.block.start, moved.block.docs
            scores = torch.zeros(count * docs, device=self._device)
            for where, products in self._products(moved, queries):
                scores.index_add_(0, where, products)
            scores = scores.view(count, docs)
            allowed = scores > 0 if mask is None else (scores > 0) & mask[start : start + docs]
            values, rows = _topk(scores.masked_fill(~allowed, -torch.inf), k)
            best, at = _topk(torch.cat([best, values], 1), k)
            docids = torch.cat([docids, rows + start], 1).gather(1, at)
        return top(best.cpu().numpy(), docids.cpu().numpy(), k)

    def _products(self, moved: _Moved, queries: csr_array) -> Iterator[tuple[Tensor, Tensor]]:
        """(places in (queries, documents), products) of the postings of the queries' terms, some at a time."""
        block = moved.block
        at = np.searchsorted(block.terms, queries.indices)
        found = np.flatnonzero(block.terms[np.minimum(at, len(block.terms) - 1)] == queries.indices)
        row = np.repeat(np.arange(queries.shape[0]), np.diff(queries.indptr))[found]
        low, high = block.starts[at[found]] - block.starts[0], block.starts[at[found] + 1] - block.starts[0]
        cuts = np.searchsorted(np.cumsum(high - low), np.arange(_POSTINGS, (high - low).sum(), _POSTINGS))
        for part in np.split(np.arange(len(found)), cuts):
            lengths = torch.from_numpy(high[part] - low[part]).to(self._device)
            # postings of all lists: positions within their list, moved to where the list begins
            ends = lengths.cumsum(0)
            shift = torch.from_numpy(low[part]).to(self._device) - (ends - lengths)
            position = torch.arange(int(ends[-1]) if len(part) else 0, device=self._device)
            position += shift.repeat_interleave(lengths)
            factor = torch.from_numpy(queries.data[found[part]] * np.float32(block.step)).to(self._device)
            first = torch.from_numpy(row[part] * block.docs).to(self._device)
            where = first.repeat_interleave(lengths) + moved.rows[position]
            yield where, moved.weights[position].float() * factor.repeat_interleave(lengths)


def _topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row and all that are equal to the k-th, so that docids can decide."""
    values, at = scores.topk(min(k, scores.shape[1]), dim=1)
    if values.shape[1] < scores.shape[1]:
        last = values[:, -1:]
        width = int(((scores >= last) & ~torch.isneginf(scores)).sum(1).max())
        if width > values.shape[1]:
            values, at = scores.topk(width, dim=1)
    return values, at
