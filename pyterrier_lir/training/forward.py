"""Texts and pairs through a model, with gradients: tokenised, grouped by length, put back in the caller's order.

Inference leaves parts of a model out and returns numpy arrays; here every layer runs on PyTorch's own kernels.  A batch
of training is cut into groups of texts of like length, so that little is padded; with `cached=True` what a group
computes is thrown away after the forward pass and computed again, with the same random numbers, in the backward pass:
gradient caching (arXiv:2101.06983) by means of `torch.utils.checkpoint`, whose memory is that of one group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..config import BiEncoderConfig, Kind
from ..models import BiEncoderModel, CrossEncoderModel
from ..models.backbone import to_device
from ..tokenization import Positions, Ragged, TokenBatch
from .cpu_functions import FasterOnCPU

Tokenize: TypeAlias = Callable[[Sequence[str]], Ragged]
TOKENS = {"cpu": 4_096, "cuda": 65_536}  # of a group of texts, padding included


@dataclass
class TextVectors:
    """One output of a bi-encoder for N texts, with gradients.

    Attributes:
        config: how its vectors are compared.
        values: (N, D) of dense and (N, V) of sparse models; (tokens, D) of multi-vector ones.
        offsets: (N + 1,) where the vectors of each text begin; None where each text has one.
        ids: (tokens,) which token each vector is of, where the model compares equal ones only.
    """

    config: BiEncoderConfig
    values: Tensor
    offsets: Tensor | None = None
    ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def padded(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Vectors (N, T, D), True for those that are there (N, T), and the ids of their tokens (N, T)."""
        if self.offsets is None:
            return self.values[:, None], torch.ones_like(self.values[:, :1], dtype=torch.bool), None
        lengths = self.offsets.diff().tolist()
        pad = torch.nn.utils.rnn.pad_sequence
        values = pad(list(self.values.split(lengths)), batch_first=True)
        there = torch.arange(values.shape[1], device=values.device) < self.offsets.diff()[:, None]
        ids = None if self.ids is None else pad(list(self.ids.split(lengths)), batch_first=True)
        return values, there, ids

    def cut(self, size: int) -> TextVectors:
        """The vectors cut to their first numbers (Matryoshka, arXiv:2205.13147), of length 1 again where they were."""
        values = self.values[:, :size]
        if self.config.normalization_strategy == "l2":
            values = torch.nn.functional.normalize(values, dim=-1)
        return TextVectors(self.config, values, self.offsets, self.ids)

    def spread(self, there: Tensor) -> TextVectors:
        """Those of M texts (M,), of which these N are there; the others have zeros, or no vectors."""
        there = there.to(self.values.device)
        if self.offsets is None:
            values = self.values.new_zeros(len(there), *self.values.shape[1:])
            return TextVectors(self.config, values.masked_scatter(there[:, None], self.values))
        lengths = torch.zeros_like(there, dtype=self.offsets.dtype).masked_scatter(there, self.offsets.diff())
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return TextVectors(self.config, self.values, offsets, self.ids)


def encode(
    model: BiEncoderModel, texts: Sequence[str], query: bool, cached: bool = False, tokens: int | None = None,
    tokenize: Tokenize | None = None, packed: bool = False,
) -> list[TextVectors]:  # fmt: skip
    """The vectors of texts, one item for each output of the model; equal texts are encoded once.

    Args:
        cached: whether groups are computed again in the backward pass instead of being kept.
        tokens: most tokens of a group; None for `TOKENS` of the device.
        tokenize: gives the ids of texts; None for the model's tokenizer.
        packed: whether the texts of a group stand one behind the other, without padding.
    """
    device = next(model.parameters()).device
    text_of, distinct = pd.factorize(np.asarray(texts, dtype=object))
    tokenizer = model.tokenizers[0 if query else 1]
    rows = (tokenizer.encode if tokenize is None else tokenize)(list(distinct))  # an empty memory is False
    if not model.needs_forward(query):
        return [_without_forward(model, rows, query, text_of, device)]
    groups = grouped(tokenizer.batch_lengths(rows), tokens or TOKENS.get(device.type, 16_384))
    batches = [tokenizer.batch(rows, group, _pad_id(model)) for group in groups]

    def run(batch: TokenBatch) -> tuple[Tensor, ...]:
        found = model(to_device(batch, device, model.backbone.config, packed), query)
        return tuple(_one_row_each(found[c.kind], c, batch, query, model.vocabulary_size) for c in model.configs)

    outputs = [_run(model, run, batch, cached) for batch in batches]
    order = np.concatenate(groups)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    chosen = back[text_of]
    return [
        _in_order(config, [output[i] for output in outputs], batches, query, chosen)
        for i, config in enumerate(model.configs)
    ]


def score_pairs(
    model: CrossEncoderModel, queries: Sequence[str], docs: Sequence[Sequence[str]], cached: bool = False,
    tokens: int | None = None, raw: bool = False, tokenize: tuple[Tokenize, Tokenize] | None = None,
    packed: bool = False,
) -> Tensor:  # fmt: skip
    """Scores (N,) of each query's documents, one query after the other; `raw` ones are before any activation.

    A listwise model reads all documents of a query together.  `tokenize` gives the ids of queries and of documents,
    None for the model's tokenizer; `packed` pairs stand one behind the other, without padding.
    """
    device = next(model.parameters()).device
    flat = [doc for own in docs for doc in own]
    query_of = np.repeat(np.arange(len(queries)), [len(own) for own in docs])
    of_queries, of_docs = tokenize or (model.tokenizer.encode_queries, model.tokenizer.encode_docs)
    encoded = of_queries(queries), of_docs(flat)
    doc_of = np.arange(len(flat))
    lengths = model.tokenizer.pair_lengths(encoded[0].lengths[query_of], encoded[1].lengths)
    budget = tokens or TOKENS.get(device.type, 16_384)
    groups = _whole_lists(query_of, lengths, budget) if model.config.listwise else grouped(lengths, budget)

    def run(group: NDArray[np.int64]) -> tuple[Tensor, ...]:
        batch = model.tokenizer.join(*encoded, query_of[group], doc_of[group], _pad_id(model))
        if model.config.listwise:
            batch = TokenBatch(batch.ids, batch.lengths, batch.types, groups=query_of[group])
        return (model(to_device(batch, device, model.backbone.config, packed), raw),)

    scores = torch.cat([_run(model, run, group, cached)[0] for group in groups])
    order = np.concatenate(groups)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return scores[torch.from_numpy(back).to(device)]


def grouped(lengths: Positions, tokens: int) -> list[NDArray[np.int64]]:
    """Rows in groups of like length, each of at most so many tokens with its padding, the longest first.

    >>> [group.tolist() for group in grouped(np.array([3, 9, 4, 8]), 20)]
    [[1, 3], [2, 0]]
    """
    order = np.argsort(-lengths, kind="stable")
    groups, start = [], 0
    while start < len(order):
        rows = max(1, tokens // max(1, int(lengths[order[start]])))
        groups.append(order[start : start + rows])
        start += rows
    return groups


def _whole_lists(query_of: Positions, lengths: Positions, tokens: int) -> list[NDArray[np.int64]]:
    """Rows in groups of whole lists."""
    query_of = pd.factorize(query_of)[0]  # queries without documents have no list
    longest = pd.Series(lengths).groupby(query_of).agg(lambda own: own.max() * len(own)).to_numpy()
    number = np.cumsum(longest) // tokens
    return [np.flatnonzero(number[query_of] == one) for one in np.unique(number)]


def _run(
    model: BiEncoderModel | CrossEncoderModel,
    function: Callable[[Any], tuple[Tensor, ...]],
    argument: Any,
    cached: bool,
) -> tuple[Tensor, ...]:
    compiled = getattr(model.backbone, "_compiled_call_impl", None) is not None  # which has kernels of its own

    def run(argument: Any) -> tuple[Tensor, ...]:
        with nullcontext() if compiled else FasterOnCPU():
            return function(argument)

    if not cached or not torch.is_grad_enabled():
        return run(argument)
    return cast("tuple[Tensor, ...]", checkpoint(run, argument, use_reentrant=False, preserve_rng_state=True))


def _pad_id(model: BiEncoderModel | CrossEncoderModel) -> int:
    return int(getattr(model.backbone.config, "pad_token_id", None) or 0)


def _counts(batch: TokenBatch, kind: Kind) -> NDArray[np.bool_] | None:
    return batch.counts.get(kind)


def _one_row_each(numbers: Tensor, config: BiEncoderConfig, batch: TokenBatch, query: bool, vocabulary: int) -> Tensor:
    """Weights of a text's own tokens as a row over the vocabulary; other outputs as they are."""
    if config.projection != "term_weight":
        return numbers
    counts = batch.counts[config.kind]
    ids, row = batch.ids[counts], np.repeat(np.arange(len(batch.ids)), counts.sum(axis=1))
    return _over_vocabulary(numbers, ids, row, len(batch.ids), vocabulary, config.of(query, "repeated_terms"))


def _over_vocabulary(
    weights: Tensor, ids: NDArray[Any], row: NDArray[np.int64], rows: int, vocabulary: int, repeated: str
) -> Tensor:
    """Rows (rows, vocabulary) of tokens' weights; `repeated` says what becomes of a term that comes again."""
    if repeated == "last" and len(ids):
        last = np.unique((row * vocabulary + ids)[::-1], return_index=True)[1]
        keep = np.sort(len(ids) - 1 - last)
        weights, ids, row = weights[torch.from_numpy(keep).to(weights.device)], ids[keep], row[keep]
    at = torch.from_numpy(row * vocabulary + ids).long().to(weights.device)
    out = weights.new_zeros(rows * vocabulary)
    how = "sum" if repeated == "sum" else "amax"
    return out.scatter_reduce(0, at, weights.relu(), how, include_self=True).view(rows, vocabulary)


def _without_forward(
    model: BiEncoderModel, rows: Ragged, query: bool, text_of: Positions, device: torch.device
) -> TextVectors:
    """Vectors whose weights are from a table, which has gradients, or all 1."""
    terms = model.tokenizers[0 if query else 1].terms(rows)
    row = np.repeat(np.arange(len(terms.lengths)), terms.lengths)
    weights = torch.ones(len(terms.values), device=device)
    if model.config.of(query, "weighting") == "static":
        table = model.outputs[0].term_weights["query" if query else "doc"]
        weights = table[torch.from_numpy(terms.values).long().to(device)].float()
    values = _over_vocabulary(weights, terms.values, row, len(terms.lengths), model.vocabulary_size, "max")
    return TextVectors(model.config, values[torch.from_numpy(text_of).to(device)])


def _in_order(
    config: BiEncoderConfig, parts: list[Tensor], batches: list[TokenBatch], query: bool, chosen: Positions
) -> TextVectors:
    """The outputs of all groups in the order of the caller's texts."""
    values = torch.cat(parts)
    counted = [_counts(batch, config.kind) for batch in batches]
    if config.kind != "multi_vector":
        return TextVectors(config, values[torch.from_numpy(chosen).to(values.device)])
    if counted[0] is None:  # this side is pooled: one vector for each text
        lengths, ids = np.ones(len(values), np.int64), None
    else:
        masks = cast("list[NDArray[np.bool_]]", counted)
        lengths = np.concatenate([mask.sum(axis=1) for mask in masks])
        ids = np.concatenate([batch.ids[mask] for batch, mask in zip(batches, masks, strict=True)])
    starts = np.cumsum(lengths) - lengths
    offsets = np.concatenate([[0], np.cumsum(lengths[chosen])])
    at = np.arange(offsets[-1]) + np.repeat(starts[chosen] - offsets[:-1], lengths[chosen])
    tokens = torch.from_numpy(at).to(values.device)
    own = None if ids is None or not config.exact_match else torch.from_numpy(ids[at]).to(values.device)
    return TextVectors(config, values[tokens], torch.from_numpy(offsets).to(values.device), own)
