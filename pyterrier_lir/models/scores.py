"""Scores of pairs from vectors: dot products, distances, and late interaction of token vectors."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from ..config import Aggregation, BiEncoderConfig, Similarity
from ..vectors import Positions, TokenVectors, Vectors

_ROWS = 8_192  # pairs of single vectors that are multiplied at once
_PRODUCTS = 1 << 22  # similarities of tokens that are kept at once


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
        if not len(rows):
            continue
        query = slice(*queries.offsets[query_of[rows[0]] : query_of[rows[0]] + 2])
        vectors = torch.from_numpy(queries.values[query])
        ids = None if not config.exact_match or queries.ids is None else torch.from_numpy(queries.ids[query])
        at_once = max(1, _PRODUCTS // max(1, len(vectors) * int(docs.lengths[doc_of[rows]].max())))
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            scores[part] = _interact(config, vectors, ids, docs.take(doc_of[part])).numpy()
    return scores


def _interact(config: BiEncoderConfig, query: Tensor, ids: Tensor | None, docs: TokenVectors) -> Tensor:
    """Scores (N,) of one query's vectors (Q, D) and N documents."""
    sims = similarities(query, torch.from_numpy(docs.values), config.similarity_function)  # (tokens, Q)
    if ids is not None:
        assert docs.ids is not None
        sims = sims * (torch.from_numpy(docs.ids)[:, None] == ids)
    best = torch.from_numpy(_by_segment(sims.numpy(), docs, config.doc_aggregation_function))  # (N, Q)
    if not len(query):
        return best.new_zeros(len(best))
    how = config.query_aggregation_function
    return best.amax(1) if how == "max" else best.mean(1) if how == "mean" else best.sum(1)


def _by_segment(values: NDArray[np.float32], docs: TokenVectors, how: Aggregation) -> NDArray[np.float32]:
    """Aggregate the rows of each document, (tokens, Q) -> (N, Q); a document without rows gets 0."""
    out = np.zeros((len(docs), values.shape[1]), dtype=np.float32)
    some = docs.lengths > 0
    if some.any():
        add = np.maximum if how == "max" else np.add
        out[some] = add.reduceat(values, docs.offsets[:-1][some], axis=0)
        if how == "mean":
            out[some] /= docs.lengths[some, None]
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
