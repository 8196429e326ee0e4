"""Approximate multi-vector search in the way of PLAID (arXiv:2205.09707).

Every token vector stands for its nearest centroid.  A query is compared with the centroids; documents that have a token
near one of its vectors (the `nprobe` nearest centroids of each) are candidates; centroids in the place of the vectors
score them (section 4.2), first without centroids that are far from all of the query (below `t_cs`, section 4.3), then
with all; the best quarter of `ndocs` is scored exactly, from the stored vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...cpu_kernels import products_with
from ...token_kernels import centroid_scores
from ...vectors import TokenVectors
from ..arrays import ArrayWriter, kept_arrays, write_array
from ..residuals import PER_CENTROID, Nearest, centroid_count, train_centroids
from . import Found, top
from .multi_vector_exact import MultiVectorExact
from .multi_vector_tokens import TokenRetrieval

if TYPE_CHECKING:
    from ..multi_vector import LIRMultiVectorIndex

_TOKENS = 65_536  # tokens whose centroids are found at once
_FILES = ("centroids", "codes", "offsets", "lists", "list_offsets")


def open(
    index: LIRMultiVectorIndex,
    nprobe: int | None = None,
    t_cs: float | None = None,
    ndocs: int | None = None,
    ncentroids: int | None = None,
    imputation_strategy: Literal["gather", "min"] | None = None,
    candidate_k: int | None = None,
) -> Plaid:
    """Open the engine; None takes what the paper does for so many results (section 5, table 2).

    Scores are exact, but for models that say that similarities of tokens which were not retrieved are imputed (XTR);
    see `multi_vector_tokens`.

    Args:
        nprobe: centroids that are searched for each query vector; more where they lead to fewer documents than wanted,
            and with None to fewer than `ndocs`.
        t_cs: how large a centroid's product with a query vector must be to take part in the first scores; the default
            is for vectors of length 1.
        ndocs: documents that are left after the first scores; the best quarter, or as many as are wanted, is scored
            exactly.
        ncentroids: None for those of a compressed index, else the power of 2 below 16 times the root of the number of
            token vectors.
        imputation_strategy: `gather` computes similarities of tokens that were not retrieved, `min` imputes the least
            that was; None for what the model says.
        candidate_k: of `min`, tokens that are retrieved for each query vector (k' in arXiv:2304.01982); None for
            10 times as many as results, at least 1,000.

    Raises:
        ValueError: if the index's model compares otherwise than by MaxSim of dot products, or options are no positive
            numbers.
    """
    given = {"nprobe": nprobe, "ndocs": ndocs, "ncentroids": ncentroids, "candidate_k": candidate_k}
    for name, value in given.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value!r}; allowed: a positive number, or None.")
    if imputation_strategy not in (None, "gather", "min"):
        raise ValueError(f"imputation_strategy={imputation_strategy!r}; allowed: 'gather', 'min', or None.")
    strategy = imputation_strategy or index.config.imputation_strategy
    if candidate_k is not None and strategy != "min":
        raise ValueError("candidate_k is an option of imputation_strategy='min' only.")
    plaid = Plaid(index, nprobe, t_cs, ndocs, ncentroids)
    if strategy == "min":
        plaid.impute(candidate_k)
    return plaid


class Plaid:
    """Searches with centroids and scores exactly what is left."""

    def __init__(
        self, index: LIRMultiVectorIndex, nprobe: int | None, t_cs: float | None, ndocs: int | None, count: int | None
    ) -> None:
        self._index, self._exact = index, MultiVectorExact(index)
        self._nprobe, self._t_cs, self._ndocs = nprobe, t_cs, ndocs
        config = index.stored_config
        if (config.similarity_function != "dot" or config.doc_aggregation_function != "max" or config.exact_match
                or config.query_aggregation_function == "max"):  # fmt: skip
            raise ValueError(f"{index!r}: PLAID is for models that compare by MaxSim of dot products.")
        tokens = int(index.lengths.sum())
        self._own = None if count is not None or index.codec is None else index.codec.centroids
        self._count = min(count or centroid_count(tokens), max(1, tokens)) if self._own is None else len(self._own)
        folder = index.engine_folder("plaid-codec" if self._own is not None else f"plaid-{self._count}")
        self._folder = folder
        self._candidate_k: int | None = None
        self._by_token: TokenRetrieval | None = None
        self._arrays = kept_arrays(folder, _FILES, self._write, index.check_docids) if tokens else None
        self._points = torch.empty(0) if self._arrays is None else torch.from_numpy(np.array(self._arrays["centroids"]))

    def impute(self, candidate_k: int | None) -> None:
        """Score by the tokens that are retrieved, and impute the others' similarities."""
        self._candidate_k = candidate_k
        if self._arrays is not None:
            folder = self._folder.with_name(f"{self._folder.name}-tokens")
            codes, offsets = self._arrays["codes"], self._arrays["offsets"]
            self._by_token = TokenRetrieval(self._index, folder, codes, offsets, self._count, self._nprobe)

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`; where no more than k documents can be found, all of them are scored."""
        vectors = self._index.prepared(queries)
        if self._arrays is None or (candidates is not None and candidates.sum() <= max(k, self._knobs(k)[2] // 4)):
            return self._exact.search(queries, k, candidates)
        found = [self._one(vectors.take(np.array([i])), k, candidates) for i in range(len(vectors))]
        if not found:
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        return np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])

    def _one(self, query: TokenVectors, k: int, candidates: NDArray[np.bool_] | None) -> Found:
        nprobe, t_cs, ndocs = self._knobs(k)
        near = self._near(query.values)  # (centroids, vectors of the query)
        if self._by_token is not None:
            return self._imputed(self._by_token, query, near, k, candidates)
        docs = self._candidates(near, nprobe, candidates)
        wanted = k if self._nprobe else max(k, ndocs)  # few vectors, in a query or in all, lead to few documents
        while len(docs) < wanted and nprobe < len(near) and near.size:
            nprobe = min(4 * nprobe, len(near))
            docs = self._candidates(near, nprobe, candidates)
        if len(docs) < k:
            return self._exact.search(query, k, candidates)
        if len(docs) > max(ndocs, k):
            docs = self._best(docs, near, near.max(axis=1) >= t_cs, max(ndocs, k))
        if len(docs) > max(ndocs // 4, k):
            docs = self._best(docs, near, np.ones(len(near), bool), max(ndocs // 4, k))
        return top(self._index.scores_of(query, np.zeros(len(docs), np.int64), docs)[None], docs[None], k)

    def _imputed(
        self, by_token: TokenRetrieval, query: TokenVectors, near: NDArray[np.float32], k: int,
        candidates: NDArray[np.bool_] | None,
    ) -> Found:  # fmt: skip
        docs, scores = by_token.scores(query.values, near, self._candidate_k or max(1_000, 10 * k), candidates)
        if len(docs) < k:
            return self._exact.search(query, k, candidates)
        if self._index.config.query_aggregation_function == "mean":
            scores /= len(query.values)
        return top(scores[None], docs[None], k)

    def _knobs(self, k: int) -> tuple[int, float, int]:
        """(nprobe, t_cs, ndocs) for k results."""
        nprobe, t_cs, ndocs = (1, 0.5, 256) if k <= 10 else (2, 0.45, 1_024) if k <= 100 else (4, 0.4, 4_096)
        return self._nprobe or nprobe, t_cs if self._t_cs is None else self._t_cs, self._ndocs or ndocs

    def _near(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Products of the centroids with the query's vectors."""
        assert self._arrays is not None
        with torch.inference_mode():
            near = products_with(torch.from_numpy(query))(self._points)
        return np.ascontiguousarray(near.numpy())

    def _candidates(
        self, near: NDArray[np.float32], nprobe: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """The documents that have a token at one of the centroids nearest to the query's vectors, docids rising."""
        assert self._arrays is not None
        by_vector = torch.from_numpy(np.ascontiguousarray(near.T))
        starts, found = self._arrays["list_offsets"], np.zeros(self._index.docids, dtype=bool)
        for centroid in np.unique(by_vector.topk(min(nprobe, len(near)), dim=1, sorted=False).indices.numpy()):
            found[self._arrays["lists"][starts[centroid] : starts[centroid + 1]]] = True
        return np.flatnonzero(found if allowed is None else found & allowed)

    def _best(
        self, docs: NDArray[np.int64], near: NDArray[np.float32], keep: NDArray[np.bool_], count: int
    ) -> NDArray[np.int64]:
        """The documents with the best scores of their centroids, of which those in `keep` count; docids rising."""
        assert self._arrays is not None
        scores = np.empty(len(docs), np.float32)
        starts, lengths = self._arrays["offsets"][docs], self._index.lengths[docs]
        centroid_scores(self._arrays["codes"], near, keep, starts, lengths, scores)
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        better, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        return np.sort(docs[np.concatenate([better, equal[: count - len(better)]])])  # of equal ones the first docids

    def _write(self, folder: Path) -> None:
        centroids = self._centroids() if self._own is None else self._own
        write_array(folder / "centroids.npy", centroids)
        nearest, pairs = Nearest(centroids), []
        with ArrayWriter(folder / "codes.npy", np.uint16 if self._count <= 1 << 16 else np.int32) as codes:
            chosen = np.arange(self._index.docids)
            for docids in np.split(chosen, self._index.cuts(chosen, _TOKENS)):
                if self._own is None:
                    own = nearest(self._index.vectors_of(docids).values)  # type: ignore[union-attr]
                else:
                    own = self._index.coded(docids).codes.astype(np.int64)
                codes.append(own)
                doc_of = np.repeat(docids, self._index.lengths[docids])
                pairs.append(np.unique(own * self._index.docids + doc_of))
        write_array(folder / "offsets.npy", np.concatenate([[0], np.cumsum(self._index.lengths)]))
        centroid, doc = np.divmod(np.sort(np.concatenate(pairs)), self._index.docids)
        write_array(folder / "lists.npy", doc.astype(np.int32))
        write_array(folder / "list_offsets.npy", np.searchsorted(centroid, np.arange(self._count + 1)))

    def _centroids(self) -> NDArray[np.float32]:
        """k-means on the vectors of a random sample of documents, (ncentroids, D)."""
        lengths = self._index.lengths
        order = np.random.default_rng(0).permutation(self._index.docids)
        enough = np.searchsorted(np.cumsum(lengths[order]), PER_CENTROID * self._count) + 1
        vectors = self._index.vectors_of(np.sort(order[:enough]))
        return train_centroids(vectors.values, self._count)  # type: ignore[union-attr]
