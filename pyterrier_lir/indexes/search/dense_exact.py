"""Exact dense search: products of all documents with all queries, one block of documents after the other.

From each block come only documents that can still be among the best: groups of documents are compared by their best
score with the k-th best so far, and only groups that reach it are looked into.

For few results, and on GPUs, products are in bfloat16 first.  They differ from those of float32 by no more than
|q - q'| |d'| + |q| |d - d'| + 2^-8 |s| (q' and d' rounded; Cauchy and Schwarz).  All documents within twice this of the
k-th best are scored again in float32, so that the result is that of float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...config import Similarity
from ...cpu_kernels import PackedLinear, packs
from ...models.scores import similarity
from ...precision import resolve_device
from . import Found, top

if TYPE_CHECKING:
    from ..dense import LIRDenseIndex

_BLOCK = 16_384  # documents of a block
_GROUP = 16  # documents of which only the best is compared first
_FEW = 128  # results up to which scoring again costs less than products in float32
_LEAST = 32  # queries for which products are laid out


def open(index: LIRDenseIndex, device: str | None = None, rounded: bool | None = None) -> DenseExact:
    """Open the engine.

    Args:
        device: such as `cuda:0`, where the vectors are kept in bfloat16; None for the CPU, where they stay on the disk.
        rounded: whether products are in bfloat16 first; None decides by the number of results.
    """
    return DenseExact(index, resolve_device(device or "cpu"), rounded)


class DenseExact:
    """Searches all vectors of an index; results are those of float32."""

    def __init__(self, index: LIRDenseIndex, device: torch.device, rounded: bool | None) -> None:
        self._index, self._device, self._rounded = index, device, rounded
        self._function = index.config.similarity_function
        self._kept: list[tuple[int, Tensor]] | None = None
        self._norms: tuple[float, float] | None = None

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`."""
        wanted = min(k, self._index.docids)
        vectors = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32))
        if vectors.shape[1] != self._index.size:
            raise ValueError(
                f"Queries have {vectors.shape[1]} numbers, the vectors of {self._index!r} {self._index.size}."
            )
        if not wanted or not len(vectors):
            return np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        if self._function == "cosine":
            vectors = nn.functional.normalize(vectors, dim=-1)
        rounded = self._rounded
        if rounded is None:
            rounded = self._device.type == "cuda" or (wanted <= _FEW and packs(torch.bfloat16))
        mask = None if candidates is None else torch.from_numpy(candidates)
        with torch.inference_mode():
            best = self._best(vectors, wanted, mask, rounded)
            if rounded or self._function == "l2":
                best.scores = self._scored_again(vectors, best)
            return top(best.scores.cpu().numpy(), best.docids.cpu().numpy(), k)

    def _best(self, queries: Tensor, k: int, mask: Tensor | None, rounded: bool) -> Best:
        """The k best documents of each query, and with `rounded` all those that may be among them."""
        slack = self._slack(queries, rounded) if rounded or self._function == "l2" else torch.zeros(len(queries))
        best = Best(k, len(queries), slack.to(self._device))
        multiply = self._products(queries, rounded)
        for start, block in self._blocks(rounded):
            scores = multiply(block)[:, : len(queries)].float()
            if self._function == "l2":
                scores = 2 * scores - block.float().square().sum(1, keepdim=True)
            if mask is not None:
                scores = scores.masked_fill(~mask[start : start + len(block), None].to(scores.device), -torch.inf)
            best.add(start, scores)
        return best.merge()

    def _blocks(self, rounded: bool) -> Iterator[tuple[int, Tensor]]:
        """All vectors in turn; on a GPU they are moved there once."""
        if self._device.type == "cpu":
            for start, block in self._index.blocks(_BLOCK):
                yield start, block.bfloat16() if rounded else block
            return
        if self._kept is None:
            self._kept = [
                (start, block.to(self._device, torch.bfloat16)) for start, block in self._index.blocks(_BLOCK * 8)
            ]
        yield from self._kept

    def _products(self, queries: Tensor, rounded: bool) -> Any:
        """A function from a block (N, D) to its products (N, queries) with all queries."""
        dtype = torch.bfloat16 if rounded else torch.float32
        weight = queries.to(self._device, dtype)
        if self._device.type == "cpu" and packs(dtype):
            layer = nn.Linear(weight.shape[1], max(len(weight), _LEAST), bias=False, device="meta")
            padded = nn.functional.pad(weight, (0, 0, 0, max(0, _LEAST - len(weight))))
            layer.weight = nn.Parameter(padded, requires_grad=False)
            return PackedLinear(layer)
        return lambda block: block @ weight.T

    def _slack(self, queries: Tensor, rounded: bool) -> Tensor:
        """Twice the largest difference of a product in bfloat16 from that in float32, (queries,).

        Of the l2 distance that is made of products also what float32 loses where vectors are long and near each other.
        """
        if self._norms is None:
            norm = residual = 0.0
            for _, block in self._index.blocks(_BLOCK):
                norm = max(norm, float(block.norm(dim=1).max()))
                residual = max(residual, float((block - block.bfloat16().float()).norm(dim=1).max()))
            self._norms = norm, residual
        norm, residual = self._norms
        length = queries.norm(dim=1)
        rounding = (queries - queries.bfloat16().float()).norm(dim=1)
        bound = rounding * norm + length * residual + 2**-8 * length * norm * 1.01 if rounded else 0 * length
        if self._function == "l2":
            bound = 2 * bound + 2**-21 * (2 * length * norm + norm**2)
        slack: Tensor = 2 * bound
        return slack

    def _scored_again(self, queries: Tensor, best: Best) -> Tensor:
        """Scores in float32 of the documents that were found."""
        there = ~torch.isneginf(best.scores).cpu()
        distinct, at = np.unique(best.docids.cpu().numpy()[there.numpy()], return_inverse=True)
        docs = torch.from_numpy(np.asarray(self._index.vectors_of(distinct)))
        scores = torch.full(there.shape, -torch.inf)
        function: Similarity = "l2" if self._function == "l2" else "dot"
        for row, rows in enumerate(torch.from_numpy(at).split(there.sum(1).tolist())):
            scores[row, there[row]] = similarity(queries[row], docs[rows], function)
        return scores


class Best:
    """The best documents so far of each query.

    Args:
        k: how many are wanted.
        queries: how many there are.
        slack: (queries,), documents that are worse than the k-th best by no more than this are kept too.

    Attributes:
        scores, docids: (queries, kept), the best first; -inf and -1 where there are none.
    """

    def __init__(self, k: int, queries: int, slack: Tensor) -> None:
        self._k, self._slack = k, slack
        self.scores = torch.full((queries, 0), -torch.inf, device=slack.device)
        self.docids = torch.empty((queries, 0), dtype=torch.int64, device=slack.device)
        self._least = torch.full((queries,), -torch.inf, device=slack.device)
        self._new: list[tuple[Tensor, Tensor, Tensor]] = []  # query, docid, score of documents that may be kept
        self._count = 0

    def add(self, start: int, scores: Tensor) -> None:
        """Look into the scores (documents, queries) of a block whose first document has the docid `start`."""
        docs, queries = scores.shape
        groups = -(-docs // _GROUP)
        if docs % _GROUP:
            scores = nn.functional.pad(scores, (0, 0, 0, groups * _GROUP - docs), value=-torch.inf)
        grouped = scores.view(groups, _GROUP, queries)
        best = grouped.amax(1)
        if bool(torch.isneginf(self._least).any()):
            if groups < 4 * self._k:
                self._first(start, scores)
                return
            self._least = best.topk(self._k, dim=0).values[-1] - self._slack  # k documents are no worse than this
        group, query = (best >= self._least).nonzero(as_tuple=True)
        inside = grouped[group, :, query]
        row, at = (inside >= self._least[query, None]).nonzero(as_tuple=True)
        self._new.append((query[row], start + group[row] * _GROUP + at, inside[row, at]))
        self._count += len(row)
        if self._count > 2 * self._k * queries:
            self.merge()

    def _first(self, start: int, scores: Tensor) -> None:
        """While there are fewer than k: the best of the block itself."""
        by_query = scores.T.contiguous()
        values, rows = by_query.topk(min(self._k, len(scores)), dim=1)
        if bool((self._slack > 0).any()) or len(scores) > self._k:  # what the slack or equal scores let in
            least = values[:, -1] - self._slack
            width = int((scores >= least).sum(0).max()) if self._k <= len(scores) else len(scores)
            values, rows = by_query.topk(max(width, values.shape[1]), dim=1)
        query = torch.arange(scores.shape[1], device=scores.device)[:, None].expand_as(rows)
        real = ~torch.isneginf(values)
        self._new.append((query[real], start + rows[real], values[real]))
        self.merge()

    def merge(self) -> Best:
        """Put the new ones among the best."""
        if not self._new:
            return self
        query, docid, score = (torch.cat(column) for column in zip(*self._new, strict=True))
        self._new, self._count = [], 0
        order = query.argsort(stable=True)
        query, docid, score = query[order], docid[order], score[order]
        counts = torch.bincount(query, minlength=len(self.scores))
        place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        width = int(counts.max()) if len(counts) else 0
        fresh = torch.full((len(self.scores), width), -torch.inf, device=query.device)
        docids = torch.full((len(self.scores), width), -1, dtype=torch.int64, device=query.device)
        fresh[query, place], docids[query, place] = score, docid
        scores, docids = torch.cat([self.scores, fresh], 1), torch.cat([self.docids, docids], 1)
        if scores.shape[1] >= self._k:
            self._least = scores.topk(self._k, dim=1).values[:, -1] - self._slack
            kept = int((scores >= self._least[:, None]).sum(1).max())
            scores, at = scores.topk(max(kept, self._k), dim=1)
            docids = docids.gather(1, at)
        self.scores, self.docids = scores, docids
        return self
