"""Linear layers for inference on CPUs: weights packed once for oneDNN, or quantised to int8.

PyTorch multiplies float32 matrices by MKL, which on many CPUs reaches less than half of what oneDNN does with weights
in its own layout (measured on an AMD CPU with AVX-512: 200 against 470 GFLOP/s).  The operators are those that
torch.compile emits; where a build of torch lacks them, layers stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's layout, and GELU on its output if asked: (..., in) -> (..., out)."""

    def __init__(self, layer: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous(), 1024)
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.after, self.how = ("gelu", "none") if gelu else ("none", "")

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, self.after, [], self.how)
        return out


def int8_linear(layer: nn.Linear, gelu: bool = False) -> nn.Module:
    """A linear layer in int8: weights quantised now, inputs by their range at each call; float32 in and out.

    Each row of the weight has a scale of its own, which costs no time: all-MiniLM-L6-v2's vectors have a cosine of 0.97
    to 0.99 with those in float32, with one scale for the whole weight 0.92 to 0.96.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which needs compilation
        how = {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), how)[0]
    return nn.Sequential(quantized, nn.GELU()) if gelu else quantized


def replace_linears(backbone: nn.Module, make: Callable[..., nn.Module], keep: set[str]) -> None:
    """Replace every linear layer of the backbone, except those named in `keep`; BERT's GELU joins its layer."""
    for name, module in list(backbone.named_modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and f"{name}.{child_name}".removeprefix(".") not in keep:
                act = getattr(module, "intermediate_act_fn", None)
                gelu = child_name == "dense" and type(act).__name__ == "GELUActivation"
                setattr(module, child_name, make(child, gelu))
                if gelu:
                    module.intermediate_act_fn = nn.Identity()


_LEAST = 32  # columns for which oneDNN's layout pays


def products_with(columns: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from vectors (N, D) to their dot products (N, columns) with `columns` (columns, D), laid out once.

    >>> products_with(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))(torch.tensor([[3.0, 4.0]]))
    tensor([[11.,  4.]])
    """
    count, size = columns.shape
    if not size or not packs(columns.dtype):
        return lambda vectors: vectors @ columns.T
    layer = nn.Linear(size, max(count, _LEAST), bias=False, device="meta")
    padded = nn.functional.pad(columns, (0, 0, 0, max(0, _LEAST - count)))
    layer.weight = nn.Parameter(padded, requires_grad=False)
    packed = PackedLinear(layer)
    return lambda vectors: packed(vectors)[:, :count]


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether this build of torch can pack layers of that dtype, and they compute what a plain layer does."""
    layer = nn.utils.skip_init(nn.Linear, 64, 32, dtype=dtype)  # draws no random numbers, which others may count on
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape).sin() / (1 + number))
    states = torch.linspace(-1, 1, 4 * 64).view(1, 4, 64).to(dtype)
    try:
        with torch.inference_mode():
            return bool(torch.allclose(PackedLinear(layer)(states).float(), layer(states).float(), atol=0.05))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
