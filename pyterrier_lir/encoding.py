"""From the outputs of batches to vectors of texts: the numbers of one output, put in the texts' order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from .config import BiEncoderConfig, Kind
from .models import BiEncoderModel
from .tokenization import Positions, Ragged, TokenBatch
from .vectors import Encoded, TokenVectors, Vectors, prune, sparse_of_tokens, take

BatchOutput = dict[Kind, tuple[Tensor, ...]]


def compact(output: dict[Kind, Tensor], model: BiEncoderModel) -> BatchOutput:
    """A batch's output without the zeros of sparse vectors: counts (B,), ids and weights instead of (B, vocabulary)."""
    found: BatchOutput = {}
    for config in model.configs:
        numbers = output[config.kind]
        if config.projection == "mlm":
            rows, ids = numbers.nonzero(as_tuple=True)
            found["sparse"] = (torch.bincount(rows, minlength=len(numbers)), ids, numbers[rows, ids])
        else:
            found[config.kind] = (numbers,)
    return found


def gather(
    outputs: Sequence[BatchOutput], batches: Sequence[TokenBatch], order: Positions, model: BiEncoderModel, query: bool
) -> Encoded:
    """Vectors of all texts of a run, of which `order[i]` is the number of the i-th row of the batches."""
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    encoded: dict[Kind, Vectors] = {}
    for config in model.configs:
        parts = [_array([output[config.kind][i] for output in outputs]) for i in range(len(outputs[0][config.kind]))]
        vectors = take(_vectors(config, parts, batches, query, model.vocabulary_size), back)
        encoded[config.kind] = _strongest(config, vectors, query)
    return encoded


def _strongest(config: BiEncoderConfig, vectors: Vectors, query: bool) -> Vectors:
    """Sparse vectors with as many terms as the checkpoint keeps."""
    top_k = config.of(query, "top_k")
    return prune(vectors, top_k) if isinstance(vectors, csr_array) and top_k is not None else vectors


def _vectors(
    config: BiEncoderConfig, parts: list[NDArray[Any]], batches: Sequence[TokenBatch], query: bool, vocabulary: int
) -> Vectors:
    """The vectors of one output in the order of the batches' rows."""
    if config.projection == "mlm":
        counts, ids, weights = parts
        starts = np.concatenate([[0], np.cumsum(counts)])
        return csr_array((weights, ids.astype(np.int32), starts), shape=(len(counts), vocabulary))
    if config.kind == "dense":
        return cast("NDArray[np.float32]", parts[0])
    chosen = [batch.counts[config.kind] for batch in batches if config.kind in batch.counts]
    if not chosen:  # this side is pooled: a vector for each text
        return TokenVectors(parts[0], np.arange(len(parts[0]) + 1))
    lengths = np.concatenate([counts.sum(axis=1) for counts in chosen])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([batch.ids[counts] for batch, counts in zip(batches, chosen, strict=True)])
    if config.kind == "sparse":
        return sparse_of_tokens(ids, parts[0], offsets, vocabulary, config.of(query, "repeated_terms"))
    return TokenVectors(parts[0], offsets, ids if config.exact_match else None)


def without_forward(rows: Ragged, model: BiEncoderModel, query: bool) -> Encoded:
    """Sparse vectors of texts whose terms have weights from a table, or all the weight 1."""
    config = model.config
    terms = model.tokenizers[0 if query else 1].terms(rows)
    weights = np.ones(len(terms.values), dtype=np.float32)
    if config.of(query, "weighting") == "static":
        table = model.outputs[0].term_weights["query" if query else "doc"]
        weights = table.detach().float().cpu().numpy()[terms.values]
    vectors = sparse_of_tokens(terms.values, weights, terms.offsets, model.vocabulary_size)
    return {"sparse": _strongest(config, vectors, query)}


def empty(model: BiEncoderModel) -> Encoded:
    """Vectors of no texts."""
    return {kind: _no_vectors(kind, model.size(kind)) for kind in model.kinds}


def _no_vectors(kind: Kind, size: int) -> Vectors:
    nothing = np.empty((0, size), dtype=np.float32)
    if kind == "sparse":
        return csr_array((0, size), dtype=np.float32)
    return nothing if kind == "dense" else TokenVectors(nothing, np.zeros(1, dtype=np.int64))


def _array(tensors: list[Tensor]) -> NDArray[Any]:
    whole = torch.cat(tensors)
    return (whole.float() if whole.is_floating_point() else whole).cpu().numpy()
