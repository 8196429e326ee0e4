"""Exact sparse search: the postings of a query's terms are added up, one block of documents after the other.

The sums of a block stay in the processor's cache.  Of a block come only documents that are better than the k-th best
that was found before.  All queries of a batch go through a block before the next, so that the postings of frequent
terms are read from memory once.
"""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...precision import resolve_device
from . import Found, Searcher

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from ..postings import Block
    from ..sparse import LIRSparseIndex

_SLACK = 4_096  # least room for documents that may be among the best, beside the k best
_ROOM = 1 << 28  # bytes of what is kept for the queries that are searched at once
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)


def open(index: LIRSparseIndex, device: str | None = None, threads: int | None = None) -> Searcher:
    """Open the engine.

    Args:
        device: such as `cuda:0`, where the postings are kept; None for compiled loops on the CPU, which leave them on
            the disk, or PyTorch on the CPU if numba is not installed.
        threads: of the compiled loops; None for as many as PyTorch has.
    """
    if device is None and importlib.util.find_spec("numba") is not None:
        return SparseExact(index, threads or torch.get_num_threads())
    from .sparse_torch import SparseTorch

    return SparseTorch(index, resolve_device(device or "cpu"))


class SparseExact:
    """Searches all postings of an index by compiled loops."""

    def __init__(self, index: LIRSparseIndex, threads: int) -> None:
        self._index, self._threads = index, threads
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    @cached_property
    def _blocks(self) -> list[Block]:
        return list(self._index.blocks())

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`; only documents with a score above 0 are found."""
        prepared = self._index.prepared(queries)
        wanted, count = min(k, self._index.docids), queries.shape[0]
        docids, scores = np.full((count, k), -1, np.int64), np.full((count, k), -np.inf, np.float32)
        if not wanted or not self._blocks:
            return docids, scores
        room = wanted + max(wanted, _SLACK)
        at_once = max(1, _ROOM // (8 * room * self._threads))
        for start in range(0, count, at_once * self._threads):
            part = slice(start, start + at_once * self._threads)
            docids[part, :wanted], scores[part, :wanted] = _decoded(
                self._keys(prepared[part], wanted, room, candidates)
            )
        return docids, scores

    def _keys(self, queries: csr_array, k: int, room: int, mask: NDArray[np.bool_] | None) -> NDArray[np.uint64]:
        """Keys (queries, k) of the best documents, in order; see `sparse_kernels`."""
        count = queries.shape[0]
        # few queries: each thread takes a part of the blocks; many: a part of the queries
        parts = 1 if count >= self._threads else min(len(self._blocks), -(-self._threads // max(1, count)))
        cuts = np.linspace(0, count, min(count, self._threads) + 1).astype(int)
        tasks = [
            (queries[low:high], self._blocks[part::parts]) for part in range(parts) for low, high in pairwise(cuts)
        ]
        run = self._workers().map if len(tasks) > 1 else map
        found = list(run(lambda task: _search(task[0], task[1], k, room, mask), tasks))
        each = len(cuts) - 1
        keys = np.concatenate([np.concatenate(found[at * each : (at + 1) * each]) for at in range(parts)], axis=1)
        keys.sort(axis=1)
        return cast("NDArray[np.uint64]", keys[:, :k])

    def _workers(self) -> ThreadPoolExecutor:
        """The threads, which are kept; a process that was forked off has none of its parent's."""
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = (os.getpid(), ThreadPoolExecutor(self._threads, "sparse-exact"))
        return self._pool[1]


def _search(
    queries: csr_array, blocks: list[Block], k: int, room: int, mask: NDArray[np.bool_] | None
) -> NDArray[np.uint64]:
    """Keys (queries, k) of the best documents of blocks, in no order."""
    from .sparse_kernels import GROUP, finish, search_block

    count, docs = queries.shape[0], -(-max(block.docs for block in blocks) // GROUP) * GROUP
    keys, counts = np.empty((count, room), np.uint64), np.zeros(count, np.int64)
    least, scores = np.zeros(count, np.int32), np.zeros(docs, np.float32)
    offsets, ids, factors = queries.indptr.astype(np.int64), queries.indices.astype(np.int32), queries.data
    for block in blocks:
        allowed = np.empty(0, bool) if mask is None else np.zeros(docs, bool)
        if mask is not None:
            allowed[: block.docs] = mask[block.start : block.start + block.docs]
            if not allowed.any():
                continue
        half = block.weights.dtype == np.float16
        search_block(
            block.terms, block.starts, block.rows, block.weights.view(np.uint16) if half else block.weights, half,
            np.float32(block.step), block.start, block.docs, allowed, offsets, ids, factors, k, scores, keys, counts,
            least,
        )  # fmt: skip
    finish(keys, counts, k)
    return keys[:, :k].copy()


def _decoded(keys: NDArray[np.uint64]) -> Found:
    """(docids, scores) of keys."""
    there = keys != _NONE
    bits = (np.uint64(0x7FFFFFFF) - (keys >> np.uint64(32))).astype(np.uint32)
    docids = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return np.where(there, docids, -1), np.where(there, bits.view(np.float32), -np.inf).astype(np.float32)
