"""Retrieval by tokens, with missing similarities imputed (XTR, arXiv:2304.01982).

For each of the query's vectors the `candidate_k` most similar tokens are retrieved, from the centroids nearest to it.
A document's score is the sum over the query's vectors of its best retrieved token's similarity; where none of its
tokens was retrieved, the least similarity that was takes the place (equation 5): it could not be larger.  Vectors of no
other tokens are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..arrays import kept_arrays, write_array

if TYPE_CHECKING:
    from ..multi_vector import LIRMultiVectorIndex

_MORE = 4  # how many times `candidate_k` tokens the centroids hold that are searched


class TokenRetrieval:
    """Scores documents by their retrieved tokens.

    Args:
        index: whose vectors are read.
        folder: of the lists of tokens, made at the first use.
        codes: (tokens,) which centroid each token is at.
        offsets: (docids + 1,) where each document's tokens begin.
        centroids: how many there are.
        nprobe: centroids that are searched for each vector; None for as many as hold enough tokens.
    """

    def __init__(
        self, index: LIRMultiVectorIndex, folder: Path, codes: NDArray[np.integer], offsets: NDArray[np.int64],
        centroids: int, nprobe: int | None,
    ) -> None:  # fmt: skip
        self._index, self._offsets, self._nprobe = index, offsets, nprobe

        def write(part: Path) -> None:
            write_array(part / "tokens.npy", np.argsort(codes, kind="stable"))
            write_array(part / "starts.npy", np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=centroids))]))

        arrays = kept_arrays(folder, ("tokens", "starts"), write, index.check_docids)
        self._tokens, self._starts = arrays["tokens"], np.array(arrays["starts"])

    def scores(
        self, query: NDArray[np.float32], near: NDArray[np.float32], candidate_k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(docids, scores) of documents of which a token was retrieved, docids rising.

        Args:
            query: (n, D) its vectors.
            near: (centroids, n) products of the centroids with them.
            allowed: (docids,) True for documents whose tokens may be retrieved; None for all.
        """
        found, gains, least = [np.empty(0, np.int64)], [np.empty(0, np.float32)], 0.0
        for column, vector in enumerate(query):
            tokens, docs = self._near(near[:, column], candidate_k, allowed)
            if not len(tokens):
                continue
            similar = self._index.tokens_of(tokens) @ vector
            if len(similar) > candidate_k:
                kept = similar >= np.partition(similar, len(similar) - candidate_k)[len(similar) - candidate_k]
                similar, docs = similar[kept], docs[kept]
            first = np.flatnonzero(np.diff(docs, prepend=-1))
            missing = similar.min()
            found.append(docs[first])
            gains.append(np.maximum.reduceat(similar, first) - missing)
            least += float(missing)
        docids, at = np.unique(np.concatenate(found), return_inverse=True)
        return docids, (least + np.bincount(at, np.concatenate(gains), len(docids))).astype(np.float32)

    def _near(
        self, near: NDArray[np.float32], candidate_k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(tokens, their documents) at the centroids nearest to a vector, in the order of documents."""
        centroids, wanted = torch.from_numpy(np.ascontiguousarray(near)), 1 if self._nprobe else candidate_k
        count = min(self._nprobe or 1 + _MORE * candidate_k * len(near) // max(1, len(self._tokens)), len(near))
        while True:
            nearest = centroids.topk(count, sorted=False).indices.tolist()
            tokens = np.sort(np.concatenate([self._tokens[self._starts[c] : self._starts[c + 1]] for c in nearest]))
            docs = np.searchsorted(self._offsets, tokens, side="right") - 1
            if allowed is not None:
                tokens, docs = tokens[allowed[docs]], docs[allowed[docs]]
            if len(tokens) >= wanted or count == len(near):
                return tokens, docs
            count = min(4 * count, len(near))
