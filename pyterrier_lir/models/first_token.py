"""The last layer of a BERT-like backbone for the first token alone, where nothing reads the others.

With one query row, the key projection moves to the query's side and the value projection behind the weighted sum,
so that the other tokens are not projected at all: exact, and one layer's work less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .backbone import BERT_LIKE, packed_attention


class FirstTokenLayer(nn.Module):
    """A layer (attention, intermediate, output) that computes the first row: (B, T, H) -> (B, 1, H)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **kwargs: Any) -> Tensor:
        block: Any = self.layer
        if "cu_seq_lens_q" in kwargs:
            first, context = self._packed(hidden, **kwargs)
        else:
            first, context = self._padded(hidden, attention_mask)
        out: Tensor = block.feed_forward_chunk(block.attention.output(context, first))
        return out

    def _padded(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden (B, T, H), mask (B, 1, T or 1, T) bool or additive -> first rows and their context, (B, 1, H)."""
        attention: Any = self.layer.attention.self  # type: ignore[union-attr]
        heads, size = attention.num_attention_heads, attention.attention_head_size
        first = hidden[:, :1]
        query = attention.query(first).view(-1, heads, size).transpose(0, 1)  # (heads, B, size)
        key_weight = attention.key.weight.view(heads, size, -1)
        # q . (W h + b) = (q W) . h + q . b, and the last term is the same for all tokens: softmax ignores it
        absorbed = torch.bmm(query, key_weight).transpose(0, 1)  # (B, heads, H)
        scores = torch.bmm(absorbed, hidden.transpose(1, 2)).float() * size**-0.5  # (B, heads, T)
        if mask is not None:
            row = mask[:, 0, :1]  # (B, 1, T)
            scores = scores.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else scores + row
        mixed = torch.bmm(scores.softmax(-1).to(hidden.dtype), hidden)  # (B, heads, H)
        value_weight = attention.value.weight.view(heads, size, -1)
        context = torch.bmm(mixed.transpose(0, 1), value_weight.transpose(1, 2))  # (heads, B, size)
        return first, context.transpose(0, 1).reshape(len(hidden), 1, -1) + attention.value.bias

    def _packed(self, hidden: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hidden (1, total, H) -> first rows and their context, (B, 1, H)."""
        attention: Any = self.layer.attention.self  # type: ignore[union-attr]
        heads, size = attention.num_attention_heads, attention.attention_head_size
        offsets: Tensor = kwargs["cu_seq_lens_q"]
        first = hidden[0, offsets[:-1].long()]  # (B, H)
        query = attention.query(first)
        q, k, v = (
            x.view(1, -1, heads, size).transpose(1, 2) for x in (query, attention.key(hidden), attention.value(hidden))
        )
        rows = torch.arange(len(offsets), device=offsets.device, dtype=offsets.dtype)
        context, _ = packed_attention(
            attention,
            q,
            k,
            v,
            None,
            size**-0.5,
            cu_seq_lens_q=rows,
            cu_seq_lens_k=offsets,
            max_length_q=1,
            max_length_k=kwargs["max_length_k"],
        )
        return first[:, None], context.reshape(len(first), 1, -1)


@contextlib.contextmanager
def first_token_only(backbone: PreTrainedModel) -> Iterator[None]:
    """Run the backbone's last layer for first tokens only; its states are then (B, 1, H), padded or packed.

    The layer is exchanged in the backbone itself, so this is used within `backbone.attention`, which keeps other
    threads out meanwhile.
    """
    layers: Any = backbone.base_model.encoder.layer
    last = layers[-1]
    layers[-1] = FirstTokenLayer(last)
    try:
        yield
    finally:
        layers[-1] = last


def has_first_token_layer(backbone: PreTrainedModel) -> bool:
    """Whether `first_token_only` knows this backbone, whose last layer must have plain weights, not an adapter's."""
    if backbone.config.model_type not in BERT_LIKE or getattr(backbone.config, "is_decoder", False):
        return False
    layers: Any = backbone.base_model.encoder.layer
    last = getattr(layers[-1], "layer", layers[-1])  # while `first_token_only` is in place
    attention = last.attention.self
    return type(attention.key) is nn.Linear and type(attention.value) is nn.Linear
