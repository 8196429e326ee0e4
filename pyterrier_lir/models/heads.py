"""From token states to one state a text: pure functions over padded and packed batches."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Pooling
from .backbone import Inputs


def pool(states: Tensor, inputs: Inputs, strategy: Pooling, skip: int = 0) -> Tensor:
    """One vector for each sequence.

    states (B, T, H) padded or (1, total, H) packed; `skip` tokens at the start do not take part.  Returns (B, H).

    >>> x = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> rows = Inputs(torch.zeros(1, 3), torch.tensor([2]), torch.tensor([[True, True, False]]), longest=3)
    >>> pool(x, rows, "mean"), pool(x, rows, "max"), pool(x, rows, "last")
    (tensor([[2.]]), tensor([[3.]]), tensor([[3.]]))

    Raises:
        ValueError: for an unknown strategy.
    """
    lengths = inputs.lengths.to(states.device)
    if strategy in ("first", "last"):
        column = lengths - 1 if strategy == "last" else lengths.clamp(max=skip + 1) - 1
        if inputs.offsets is not None:
            return states[0, inputs.offsets[:-1] + column]
        return states[torch.arange(len(lengths), device=states.device), column]
    if inputs.offsets is not None:
        states = torch.nn.utils.rnn.pad_sequence(states[0].split(lengths.tolist()), batch_first=True)  # type: ignore[arg-type]
    at = torch.arange(states.shape[1], device=states.device)
    counts = ((at >= skip) & (at < lengths[:, None]))[..., None]  # (B, T, 1)
    if strategy in ("max", "min"):
        extreme = -torch.inf if strategy == "max" else torch.inf
        masked = states.masked_fill(~counts, extreme)
        return masked.amax(1) if strategy == "max" else masked.amin(1)
    weight = counts.to(states.dtype)
    if strategy == "weighted_mean":
        weight = weight * (at + 1)[:, None]
    elif strategy not in ("mean", "sum", "mean_sqrt"):
        raise ValueError(f"pooling {strategy!r}; allowed: first, last, mean, max, min, sum, mean_sqrt, weighted_mean.")
    total = (states * weight).sum(1)
    if strategy == "sum":
        return total
    size = weight.sum(1).clamp(min=1e-9)
    return total / (size.sqrt() if strategy == "mean_sqrt" else size)
