"""PyTorch's functions with gradients, faster on CPU: linear layers and dropout.

Linear layers of float32 run on oneDNN, which on many CPUs has twice the rate of MKL, that PyTorch takes (see
`cpu_kernels`).  For dropout PyTorch draws a number for each element, on one core; of the attention weights of a batch
that is a third of the time of a training step in bfloat16.  Here 16 bits of a random number decide each element, and
the probability is the nearest of 65,536.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from ..cpu_kernels import packs
from ..models.backbone import attention as attention_of

_STEPS = 65_536


def dropout(values: Tensor, p: float = 0.5) -> Tensor:
    """Values, each set to 0 with the probability p, else divided by 1 - p; numbers are of PyTorch's own generator.

    >>> dropout(torch.ones(10_000), p=0.25).unique()
    tensor([0.0000, 1.3333])
    """
    dropped = round(p * _STEPS)
    if dropped in (0, _STEPS):
        return values * (dropped == 0)
    drawn = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = drawn[: values.numel()].view(values.shape) >= dropped - _STEPS // 2
    return torch.where(kept, values, 0) * (_STEPS / (_STEPS - dropped))


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """What `torch.nn.functional.scaled_dot_product_attention` computes, with `dropout` of its weights.

    Args:
        query, key, value: (..., heads, tokens, D).
        attn_mask: (..., tokens, tokens), True for what is seen, or numbers that are added to scores.
    """
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = (query * (scale or query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return dropout(scores.softmax(-1, dtype=scores.dtype), dropout_p).to(value.dtype) @ value


class _Linear(torch.autograd.Function):
    """`torch.nn.functional.linear` of float32 on oneDNN."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return _product(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        gradient = gradients[0]
        flat = gradient.reshape(-1, gradient.shape[-1])
        needed = ctx.needs_input_grad
        return (
            _product(gradient, weight.T) if needed[0] else None,
            _product(flat.T, states.reshape(-1, states.shape[-1]).T) if needed[1] else None,
            flat.sum(0) if needed[2] else None,
        )


def _product(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")  # type: ignore[no-any-return]


class FasterOnCPU(TorchFunctionMode):
    """Inside, PyTorch's linear layers, attention and dropout on CPU are those of this file.

    >>> with FasterOnCPU():
    ...     float(torch.nn.functional.dropout(torch.ones(1000), 0.1).count_nonzero()) > 850
    True
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        return _FASTER.get(func, func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    both = input.dtype == weight.dtype == torch.float32 and input.device.type == "cpu" and input.numel() > 0
    if not both or torch.is_autocast_enabled("cpu") or not packs(torch.float32):
        return nn.functional.linear(input, weight, bias)
    return _Linear.apply(input, weight, bias)  # type: ignore[no-any-return]


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or inplace or input.device.type != "cpu":
        return nn.functional.dropout(input, p, training, inplace)
    return dropout(input, p)


def _attention(query: Tensor, *args: Any, **given: Any) -> Tensor:
    if query.device.type != "cpu" or not given.get("dropout_p"):
        return nn.functional.scaled_dot_product_attention(query, *args, **given)
    return attention(query, *args, **given)


_FASTER: dict[Callable[..., Any], Callable[..., Any]] = {
    nn.functional.linear: _linear,
    nn.functional.dropout: _dropout,
    nn.functional.scaled_dot_product_attention: _attention,
}


def again(backbone: PreTrainedModel) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For `torch.utils.checkpoint`: what is computed again in the backward pass runs on these functions too.

    It runs with the attention function of the forward pass, which the backbone no longer has then.
    """
    return nullcontext(), _as_in_forward(backbone, backbone.config._attn_implementation)


@contextmanager
def _as_in_forward(backbone: PreTrainedModel, name: str) -> Iterator[None]:
    with attention_of(backbone, name), FasterOnCPU():
        yield
