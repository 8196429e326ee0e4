"""Scores of pairs from vectors: dot products, distances, and late interaction of token vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from ..config import Aggregation, BiEncoderConfig, Similarity
from ..cpu_kernels import products_with
from ..vectors import Positions, TokenVectors, Vectors

_ROWS = 8_192  # pairs of single vectors that are multiplied at once
_PRODUCTS = 1 << 20  # similarities of tokens that are kept at once
_LAID_OUT = 2_048  # tokens of documents for which the query's vectors are laid out for products
_COMPILED = 1 << 18  # similarities for which a compiled loop is worth loading


def pair_scores(
    config: BiEncoderConfig, queries: Vectors, docs: Vectors, query_of: Positions, doc_of: Positions
) -> NDArray[np.float32]:
    """Scores (N,) of the pairs (query_of[i], doc_of[i]).

    Raises:
        ValueError: if vectors of queries and documents have different sizes.
    """
    if config.kind == "multi_vector":
        return late_interaction(config, cast("TokenVectors", queries), cast("TokenVectors", docs), query_of, doc_of)
    if config.kind == "sparse":
        return _sparse(config, cast("csr_array", queries), cast("csr_array", docs), query_of, doc_of)
    left, right = (torch.from_numpy(cast("NDArray[np.float32]", vectors)) for vectors in (queries, docs))
    _same_size(left.shape[1], right.shape[1])
    out = np.empty(len(query_of), dtype=np.float32)
    for start in range(0, len(out), _ROWS):
        part = slice(start, start + _ROWS)
        out[part] = similarity(left[query_of[part]], right[doc_of[part]], config.similarity_function).numpy()
    return out


def similarity(queries: Tensor, docs: Tensor, function: Similarity) -> Tensor:
    """Row-wise similarity, larger is more similar: `l2` is the negated distance.

    >>> similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]), "cosine")
    tensor([0.6000])
    """
    if function == "l2":
        distances: Tensor = (queries - docs).norm(dim=-1)
        return -distances
    if function == "cosine":
        queries, docs = (nn.functional.normalize(vectors, dim=-1) for vectors in (queries, docs))
    products: Tensor = (queries * docs).sum(-1)
    return products


def similarities(queries: Tensor, docs: Tensor, function: Similarity) -> Tensor:
    """Similarity of each query vector with each document vector, (Q, D) and (N, D) -> (N, Q)."""
    if function == "l2":
        return -torch.cdist(docs, queries)
    if function == "cosine":
        queries, docs = (nn.functional.normalize(vectors, dim=-1) for vectors in (queries, docs))
    return docs @ queries.T


def late_interaction(
    config: BiEncoderConfig, queries: TokenVectors, docs: TokenVectors, query_of: Positions, doc_of: Positions
) -> NDArray[np.float32]:
    """Sum over the query's vectors of the largest similarity to the document's (MaxSim, arXiv:2004.12832, equation 3).

    `config` may ask for other aggregations.  With `exact_match`, vectors of unequal tokens have similarity 0
    (COIL, arXiv:2104.07186, equation 5).  A document or query without vectors scores 0.

    >>> config = BiEncoderConfig(query_pooling_strategy=None, doc_pooling_strategy=None)
    >>> vectors = TokenVectors(np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), np.array([0, 2]))
    >>> late_interaction(config, vectors, vectors, np.array([0]), np.array([0]))
    array([5.], dtype=float32)
    """
    _same_size(queries.values.shape[1], docs.values.shape[1])
    scores = np.zeros(len(query_of), dtype=np.float32)
    order = np.argsort(query_of, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(query_of[order])) + 1):
        if len(rows):
            interact = LateInteraction(config, queries.take(query_of[rows[:1]]))
            for part in np.split(rows, interact.cuts(docs.lengths[doc_of[rows]])):
                scores[part] = interact(_chosen(docs, doc_of[part]))[:, 0]
    return scores


class LateInteraction:
    """Scores documents for queries whose vectors were laid out before; see `late_interaction`.

    Args:
        config: how vectors are compared.
        queries: whose vectors are the columns of one matrix product.
    """

    def __init__(self, config: BiEncoderConfig, queries: TokenVectors) -> None:
        self._config, self._queries = config, queries
        self._vectors = torch.from_numpy(np.ascontiguousarray(queries.values))
        self._ids = (
            torch.from_numpy(np.asarray(queries.ids)) if config.exact_match and queries.ids is not None else None
        )
        self._products: Callable[[Tensor], Tensor] | None = None

    def cuts(self, lengths: Positions) -> Positions:
        """Where to cut documents so that each part's similarities stay in the processor's cache, (parts - 1,)."""
        ends = np.cumsum(lengths * max(1, len(self._vectors)))
        return np.flatnonzero(np.diff(ends // _PRODUCTS)) + 1

    def __call__(self, docs: TokenVectors) -> NDArray[np.float32]:
        """Scores (documents, queries)."""
        scores = np.zeros((len(docs), len(self._queries)), dtype=np.float32)
        filled = self._queries.lengths > 0
        if not len(docs.values) or not filled.any():
            return scores
        sims = self._similarities(torch.from_numpy(docs.values))  # (tokens, vectors of queries)
        if self._ids is not None:
            assert docs.ids is not None
            sims = sims * (torch.from_numpy(np.asarray(docs.ids))[:, None] == self._ids)
        best = _by_segment(sims.numpy(), docs.offsets, self._config.doc_aggregation_function)
        how = self._config.query_aggregation_function
        add = np.maximum if how == "max" else np.add
        scores[:, filled] = add.reduceat(best, self._queries.offsets[:-1][filled], axis=1)
        if how == "mean":
            scores[:, filled] /= self._queries.lengths[filled]
        return scores

    def _similarities(self, docs: Tensor) -> Tensor:
        function = self._config.similarity_function
        if function == "l2" or (self._products is None and len(docs) < _LAID_OUT):
            return similarities(self._vectors, docs, function)
        if self._products is None:
            cosine = function == "cosine"
            self._products = products_with(nn.functional.normalize(self._vectors, dim=-1) if cosine else self._vectors)
        return self._products(nn.functional.normalize(docs, dim=-1) if function == "cosine" else docs)


def _chosen(docs: TokenVectors, rows: Positions) -> TokenVectors:
    """The chosen documents; those that follow each other are not copied."""
    consecutive = bool((np.diff(rows) == 1).all())
    return docs.between(int(rows[0]), int(rows[-1]) + 1) if consecutive else docs.take(rows)


def _by_segment(values: NDArray[np.float32], offsets: Positions, how: Aggregation) -> NDArray[np.float32]:
    """Aggregate the rows of each document, (tokens, columns) -> (N, columns); a document without rows gets 0."""
    lengths = np.diff(offsets)
    out = np.zeros((len(lengths), values.shape[1]), dtype=np.float32)
    if how == "max" and values.size >= _COMPILED:
        from ..token_kernels import segment_max

        segment_max(values, offsets, out)
    elif (some := lengths > 0).any():
        add = np.maximum if how == "max" else np.add
        out[some] = add.reduceat(values, offsets[:-1][some], axis=0)
        if how == "mean":
            out[some] /= lengths[some, None]
    return out


def _sparse(
    config: BiEncoderConfig, queries: csr_array, docs: csr_array, query_of: Positions, doc_of: Positions
) -> NDArray[np.float32]:
    _same_size(queries.shape[1], docs.shape[1])
    if config.similarity_function == "cosine":
        queries, docs = (_of_length_one(vectors) for vectors in (queries, docs))
    scores = np.empty(len(query_of), dtype=np.float32)
    order = np.argsort(query_of, kind="stable")
    dense = np.zeros(queries.shape[1], dtype=np.float32)
    for rows in np.split(order, np.flatnonzero(np.diff(query_of[order])) + 1):
        if len(rows):
            query = slice(*queries.indptr[query_of[rows[0]] : query_of[rows[0]] + 2])
            dense[queries.indices[query]] = queries.data[query]
            scores[rows] = docs[doc_of[rows]] @ dense
            dense[queries.indices[query]] = 0
    return scores


def _of_length_one(vectors: csr_array) -> csr_array:
    norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1))).clip(min=1e-12)
    row = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    return csr_array((vectors.data / norms[row], vectors.indices, vectors.indptr), shape=vectors.shape)


def _same_size(query: int, doc: int) -> None:
    if query != doc:
        raise ValueError(
            f"Query vectors have {query} numbers and document vectors {doc}: they are of different models, or were "
            "cut to different sizes."
        )
