"""Compiled loops over packed token vectors; numba compiles them at the first use and keeps the result on the disk.

Document i of a call has the rows `starts[i]` to `starts[i] + lengths[i]`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_HALF = np.float32(2.0**112)  # what is missing when the bits of a float16 are read as those of a float32


def _compiled(function: Any) -> Any:
    """The function in machine code that lets other threads run; without a folder to write to, for this process.

    Sums may be added up in another order (`reassoc`), which is what vector instructions need.
    """
    try:
        return numba.njit(nogil=True, cache=True, fastmath={"reassoc"})(function)
    except RuntimeError:
        return numba.njit(nogil=True, fastmath={"reassoc"})(function)


def _segment_max(values: Any, offsets: Any, out: Any) -> None:
    """The largest number of each column among a document's rows: (rows, columns) -> (documents, columns).

    Args:
        values: (rows, columns) float32; document i has the rows `offsets[i]` to `offsets[i + 1]`.
        out: (documents, columns) float32; 0 where a document has no rows.
    """
    columns = values.shape[1]
    for doc in range(len(offsets) - 1):
        first, last = offsets[doc], offsets[doc + 1]
        for j in range(columns):
            out[doc, j] = values[first, j] if last > first else np.float32(0)
        for row in range(first + 1, last):
            for j in range(columns):
                value = values[row, j]
                out[doc, j] = value if value > out[doc, j] else out[doc, j]


def _gather_half(bits: Any, starts: Any, lengths: Any, out: Any) -> None:
    """Copy documents' rows, from the bits of float16 (as int16) to float32; exact, also for the smallest numbers."""
    at = 0
    for doc in range(len(starts)):
        for row in range(starts[doc], starts[doc] + lengths[doc]):
            for j in range(bits.shape[1]):
                number = np.int32(bits[row, j])
                sign = (number & np.int32(0x8000)) << np.int32(16)
                rest = (number & np.int32(0x7FFF)) << np.int32(13)
                out[at, j] = np.int32(sign | rest).view(np.float32) * _HALF
            at += 1


def _gather(values: Any, starts: Any, lengths: Any, out: Any) -> None:
    """Copy documents' rows."""
    at = 0
    for doc in range(len(starts)):
        for row in range(starts[doc], starts[doc] + lengths[doc]):
            for j in range(values.shape[1]):
                out[at, j] = values[row, j]
            at += 1


def _decode(
    codes: Any, residuals: Any, centroids: Any, weights: Any, bits: int, unit: bool, starts: Any, lengths: Any, out: Any
) -> None:
    """Documents' vectors from centroids and packed residuals.

    Args:
        codes: (rows,) which centroid.
        residuals: (rows, bytes) uint8; byte k has the buckets of the numbers k, k + bytes, k + 2 bytes and so on, from
            its lowest bits, so that neighbours are computed together.
        centroids: (centroids, D) float32.
        weights: (2 ** bits,) float32, the numbers that buckets stand for.
        unit: whether vectors get the length 1.
        out: (rows of all documents, D) float32.
    """
    size, width, mask = out.shape[1], residuals.shape[1], np.uint8((1 << bits) - 1)
    at = 0
    for doc in range(len(starts)):
        for row in range(starts[doc], starts[doc] + lengths[doc]):
            code = codes[row]
            for part in range(8 // bits):
                shift, first = np.uint8(part * bits), part * width
                for k in range(min(width, size - first)):
                    bucket = (residuals[row, k] >> shift) & mask
                    out[at, first + k] = centroids[code, first + k] + weights[bucket]
            if unit:
                total = np.float32(0)
                for j in range(size):
                    total += out[at, j] * out[at, j]
                factor = np.float32(1) / max(np.float32(np.sqrt(total)), np.float32(1e-12))
                for j in range(size):
                    out[at, j] *= factor
            at += 1


def _centroid_scores(codes: Any, near: Any, keep: Any, starts: Any, lengths: Any, out: Any) -> None:
    """MaxSim with centroids in the place of the documents' vectors (arXiv:2205.09707, equation 4).

    Args:
        codes: (rows,) which centroid.
        near: (centroids, vectors of the query) float32, their products.
        keep: (centroids,) bool, those that count; a document without any has the score 0.
        out: (documents,) float32.
    """
    columns = near.shape[1]
    best = np.empty(columns, dtype=np.float32)
    for doc in range(len(starts)):
        some = False
        for row in range(starts[doc], starts[doc] + lengths[doc]):
            code = codes[row]
            if not keep[code]:
                continue
            if some:
                for j in range(columns):
                    value = near[code, j]
                    best[j] = value if value > best[j] else best[j]
            else:
                for j in range(columns):
                    best[j] = near[code, j]
                some = True
        total = np.float32(0)
        if some:
            for j in range(columns):
                total += best[j]
        out[doc] = total


segment_max, gather_half, gather = _compiled(_segment_max), _compiled(_gather_half), _compiled(_gather)
decode, centroid_scores = _compiled(_decode), _compiled(_centroid_scores)
