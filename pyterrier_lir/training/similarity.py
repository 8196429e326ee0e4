"""Similarities of vectors with gradients: of each query with its own documents, or with all of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import Aggregation, BiEncoderConfig, Similarity
from .forward import TextVectors

_PRODUCTS = 1 << 26  # similarities of tokens that are made at once


def own_scores(queries: Sequence[TextVectors], docs: Sequence[TextVectors]) -> Tensor:
    """Scores (Q, D) of each query with its own D documents, of which there are Q * D, summed over the outputs."""
    return torch.stack([_own(query, doc) for query, doc in zip(queries, docs, strict=True)]).sum(0)


def all_scores(queries: Sequence[TextVectors], docs: Sequence[TextVectors]) -> Tensor:
    """Scores (Q, N) of each query with all N documents, summed over the outputs."""
    return torch.stack([_all(query, doc) for query, doc in zip(queries, docs, strict=True)]).sum(0)


def similarities(queries: Tensor, docs: Tensor, function: Similarity) -> Tensor:
    """Similarities (..., A, B) of vectors (..., A, D) and (..., B, D)."""
    if function == "l2":
        return -torch.cdist(queries, docs)
    if function == "cosine":
        queries, docs = nn.functional.normalize(queries, dim=-1), nn.functional.normalize(docs, dim=-1)
    return queries @ docs.transpose(-1, -2)


def _own(queries: TextVectors, docs: TextVectors) -> Tensor:
    config, count = queries.config, len(queries)
    if config.kind != "multi_vector":
        own = docs.values.view(count, -1, docs.values.shape[-1])
        return similarities(queries.values[:, None], own, config.similarity_function)[:, 0]
    query, query_there, query_ids = queries.padded()
    doc, doc_there, doc_ids = docs.padded()
    doc, doc_there = doc.view(count, -1, *doc.shape[1:]), doc_there.view(count, -1, doc.shape[1])
    sims = similarities(query[:, None], doc, config.similarity_function)  # (Q, D, query's vectors, document's)
    if config.exact_match and query_ids is not None and doc_ids is not None:
        sims = sims * (query_ids[:, None, :, None] == doc_ids.view(count, -1, 1, doc_ids.shape[1]))
    return _aggregated(config, sims, query_there[:, None], doc_there)


def _all(queries: TextVectors, docs: TextVectors) -> Tensor:
    config = queries.config
    if config.kind != "multi_vector":
        return similarities(queries.values, docs.values, config.similarity_function)
    query, query_there, query_ids = queries.padded()
    doc, doc_there, doc_ids = docs.padded()
    rows = max(1, _PRODUCTS // max(1, query.shape[1] * doc.shape[0] * doc.shape[1]))
    found = []
    for start in range(0, len(query), rows):
        part = slice(start, start + rows)
        sims = similarities(query[part, None], doc[None], config.similarity_function)
        if config.exact_match and query_ids is not None and doc_ids is not None:
            sims = sims * (query_ids[part, None, :, None] == doc_ids[None, :, None, :])
        found.append(_aggregated(config, sims, query_there[part, None], doc_there[None]))
    return torch.cat(found)


def _aggregated(config: BiEncoderConfig, sims: Tensor, query_there: Tensor, doc_there: Tensor) -> Tensor:
    """Scores (...,) of similarities (..., query's vectors, document's); a text without vectors scores 0."""
    best = _reduced(sims, doc_there[..., None, :], config.doc_aggregation_function)
    return _reduced(best, query_there, config.query_aggregation_function)


def _reduced(values: Tensor, there: Tensor, how: Aggregation) -> Tensor:
    """Aggregate the last dimension over what is there."""
    if how == "max":
        largest = values.masked_fill(~there, -torch.inf).amax(-1)
        return largest.masked_fill(~there.any(-1), 0.0)
    total = (values * there).sum(-1)
    return total / there.sum(-1).clamp(min=1) if how == "mean" else total
