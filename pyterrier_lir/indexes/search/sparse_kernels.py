"""Compiled loops of exact sparse search; numba compiles them at the first search and keeps the result on the disk."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

GROUP = 32  # documents whose scores are compared at once
_HALF = np.float32(2.0**112)  # what is missing when the bits of a float16 are read as those of a float32


def _compiled(function: Any) -> Any:
    """The function in machine code that lets other threads run; without a folder to write to, for this process."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


def _add_block(
    terms: Any, starts: Any, rows: Any, weights: Any, half: bool, ids: Any, factors: Any, scores: Any
) -> bool:
    """Add the products of a query's terms to the scores (documents,) of a block; whether it has any of them.

    Args:
        terms, starts, rows, weights: of the block; see `postings.Block`.
        half: whether the weights are the bits of float16.
        ids, factors: terms and weights of the query.
    """
    some = False
    for i in range(len(ids)):
        at = np.searchsorted(terms, ids[i])
        if at == len(terms) or terms[at] != ids[i]:
            continue
        some = True
        if half:
            factor = factors[i] * _HALF
            for j in range(starts[at], starts[at + 1]):
                scores[rows[j]] += factor * np.int32(np.int32(weights[j]) << 13).view(np.float32)
        else:
            factor = factors[i]
            for j in range(starts[at], starts[at + 1]):
                scores[rows[j]] += factor * np.float32(weights[j])
    return some


def _keep_best(keys: Any, count: int, k: int) -> int:
    """Move the k smallest of `keys[:count]`, which all differ, to the front; how many there are.

    Numbers are divided by a pivot again and again (quickselect), without branches that depend on them.
    """
    low, high = 0, count - 1
    while count > k and low < high:
        if high == low + 1:
            keys[low], keys[high] = min(keys[low], keys[high]), max(keys[low], keys[high])
            break
        first, middle, last = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        at = low
        for i in range(low, high + 1):
            key = keys[i]
            keys[i] = keys[at]
            keys[at] = key
            at += key < pivot
        if at >= k:
            high = at - 1
        else:
            low = at
    return min(count, k)


def _collect(scores: Any, docs: int, start: int, mask: Any, keys: Any, count: int, least: Any, k: int) -> Any:
    """Put documents that may be among the k best into `keys[count:]`, and set all scores to zero.

    A key is a number that is smaller for better documents: the bits of the score from above, then the docid.  The bits
    of positive float32 numbers, read as integers, are in the order of the numbers.

    Args:
        scores: (documents,) the bits of the scores as int32; behind `docs` there are zeros up to whole groups.
        mask: (documents,), which may be found; empty for all.
        least: bits of the score that must be exceeded.

    Returns:
        (count, least) from now on.
    """
    for group in range(0, docs, GROUP):
        better = 0
        for i in range(group, group + GROUP):
            better += scores[i] > least
        if better:
            for i in range(group, group + GROUP):
                if scores[i] > least and (len(mask) == 0 or mask[i]):
                    if count == len(keys):
                        count = keep_best(keys, count, k)
                        least = np.int32(np.int64(0x7FFFFFFF) - np.int64(keys[:count].max() >> np.uint64(32)))
                        if scores[i] <= least:
                            continue
                    keys[count] = (np.uint64(0x7FFFFFFF - scores[i]) << np.uint64(32)) | np.uint64(start + i)
                    count += 1
        for i in range(group, group + GROUP):
            scores[i] = 0
    return count, least


def _search_block(
    terms: Any, starts: Any, rows: Any, weights: Any, half: bool, step: Any, start: int, docs: int, mask: Any,
    offsets: Any, ids: Any, factors: Any, k: int, scores: Any, keys: Any, counts: Any, least: Any,
) -> None:  # fmt: skip
    """Search a block for several queries.

    Args:
        terms, starts, rows, weights, half, step, start, docs: of the block.
        mask: see `_collect`.
        offsets, ids, factors: the queries in csr form.
        scores: (documents,) float32 zeros, which they are afterwards too.
        keys, counts, least: (queries, room), (queries,), (queries,): what `_collect` keeps for each query.
    """
    bits = scores.view(np.int32)
    for query in range(len(offsets) - 1):
        part = slice(offsets[query], offsets[query + 1])
        if add_block(terms, starts, rows, weights, half, ids[part], factors[part] * step, scores):
            counts[query], least[query] = collect(
                bits, docs, start, mask, keys[query], counts[query], least[query], k
            )  # fmt: skip


def _finish(keys: Any, counts: Any, k: int) -> None:
    """Leave the k best keys of each query, the largest number of all behind them."""
    for query in range(len(counts)):
        count = keep_best(keys[query], counts[query], k)
        keys[query, count:] = np.uint64(0xFFFFFFFFFFFFFFFF)


add_block, keep_best = _compiled(_add_block), _compiled(_keep_best)
collect, search_block, finish = _compiled(_collect), _compiled(_search_block), _compiled(_finish)
