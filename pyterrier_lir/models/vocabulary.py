"""A masked language model's head as SPLADE reads it: one number for each term of the vocabulary and text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import Pooling, Sparsification
from .backbone import Inputs
from .heads import pool

_NUMBERS = 1 << 21  # logits of tokens that are kept at once


def sparsify(values: Tensor, strategy: Sparsification) -> Tensor:
    """Numbers that are not negative: relu, log(1 + relu), or log(1 + log(1 + relu)).

    >>> sparsify(torch.tensor([-1.0, 1.0]), "relu_log")
    tensor([0.0000, 0.6931])
    """
    if strategy is None:
        return values
    values = values.relu()
    for _ in range({"relu": 0, "relu_log": 1, "relu_2xlog": 2}[strategy]):
        values = values.log1p()
    return values


class Vocabulary(nn.Module):
    """From token states to a number for each term: logits, sparsified and pooled over the tokens of each text.

    Logits are made for one slice of the vocabulary after the other, so that there are never tokens x vocabulary of
    them.  The largest logit is taken before it is sparsified, which rises monotonically: the same numbers, bit by bit.

    Args:
        transform: layers below the decoder, (..., H) -> (..., H).
        decoder: a linear layer from a state to the logits of all terms.
    """

    def __init__(self, transform: nn.Sequential, decoder: nn.Linear) -> None:
        super().__init__()
        self.transform, self.decoder = transform, decoder
        self._packed: list[nn.Module] | None = None
        self._width = decoder.out_features

    def forward(self, states: Tensor, inputs: Inputs, strategy: Pooling, sparsification: Sparsification) -> Tensor:
        """Numbers of all terms, (B, V) float32, from states (B, T, H) or packed (1, total, H)."""
        if strategy in ("first", "last"):
            logits = self.decoder(self.transform(pool(states, inputs, strategy)))
            return sparsify(logits.float(), sparsification)
        hidden = self.transform(states)
        if strategy == "max" and inputs.offsets is None:
            hidden = _repeat_first(hidden, inputs)
        out = torch.empty(len(inputs), self.decoder.out_features, device=states.device)
        for start, logits_of in self._slices(hidden.shape[0] * hidden.shape[1]):
            logits = logits_of(hidden)
            if strategy != "max":
                logits = sparsify(logits.float(), sparsification)
            unpadded = strategy == "max" and inputs.offsets is None
            pooled = logits.amax(1) if unpadded else pool(logits, inputs, strategy)
            out[:, start : start + logits.shape[-1]] = pooled
        return sparsify(out, sparsification) if strategy == "max" else out

    def _slices(self, tokens: int) -> list[tuple[int, Callable[[Tensor], Tensor]]]:
        """Where each slice of the vocabulary starts, and what makes its logits."""
        if self._packed is not None:
            return [(i * self._width, layer) for i, layer in enumerate(self._packed)]
        width = max(256, _NUMBERS // max(1, tokens))
        weight, bias = self.decoder.weight, self.decoder.bias

        def logits_of(start: int) -> Callable[[Tensor], Tensor]:
            part = slice(start, start + width)
            return lambda hidden: nn.functional.linear(hidden, weight[part], None if bias is None else bias[part])

        return [(start, logits_of(start)) for start in range(0, len(weight), width)]

    def pack(self, make: Callable[[nn.Linear], nn.Module], width: int = 1_024) -> None:
        """Replace the decoder's slices by layers that `make` packs for inference."""
        self._packed, self._width = [], width
        for start in range(0, self.decoder.out_features, width):
            part = slice(start, start + width)
            weight = self.decoder.weight.detach()[part]
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=self.decoder.bias is not None, device="meta")
            layer.weight = nn.Parameter(weight, requires_grad=False)
            if self.decoder.bias is not None:
                layer.bias = nn.Parameter(self.decoder.bias.detach()[part], requires_grad=False)
            self._packed.append(make(layer))


def _repeat_first(hidden: Tensor, inputs: Inputs) -> Tensor:
    """Padding replaced by each text's first token, which leaves every maximum as it is."""
    if inputs.mask is None:
        return hidden
    return torch.where(inputs.mask[..., None], hidden, hidden[:, :1])
