"""Devices, and numbers' precision on them: which one `auto` means, and models made ready for it.

| precision | on | weights and activations | scores against float32 |
|---|---|---|---|
| float32 | all | float32 | the source library's to 1e-5 |
| bf16 | CPU with AVX512-BF16 or AMX, CUDA | bfloat16, heads read out in float32 | two to three digits |
| fp16 | CUDA | float16, heads read out in float32 | three digits; T5 and Gemma overflow, take bf16 |
| int8 | CPU | linear layers int8, quantised per batch; the rest float32 | one to two digits |
"""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from .config import PRECISIONS
from .cpu_kernels import PackedLinear, int8_linear, packs, replace_linears
from .models import BiEncoderModel, CrossEncoderModel
from .models.backbone import lock_of
from .models.first_token import has_first_token_layer
from .models.vocabulary import Vocabulary

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
Model = CrossEncoderModel | BiEncoderModel


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision that `precision` means on `device`.

    >>> resolve_precision("auto", torch.device("cpu"))
    'float32'

    Raises:
        ValueError: for an unknown precision, or one that the device does not have.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}; allowed: {', '.join(PRECISIONS)}.")
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "float32"
    if precision == "int8" and device.type != "cpu":
        raise ValueError(f"precision='int8' is for CPUs, not for {device}; take bf16 there.")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision='fp16' is for GPUs; take bf16 or int8 on a CPU.")
    return precision


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that weights are loaded in for a resolved precision."""
    return _DTYPES[precision]


def prepare(model: Model, device: torch.device, precision: str) -> Model:
    """The model on its device in its precision; on CPUs a copy that shares what does not change.

    Raises:
        ValueError: for an engine's model, which is packed for a CPU already, on another device or in another precision.
    """
    with lock_of(model.backbone):  # a copy made during a forward pass would keep what that changes
        return _prepared(model, device, precision)


# backbone that is packed for a CPU -> for which precision; it cannot be copied, nor be packed for another
_PACKED_FOR: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def _prepared(model: Model, device: torch.device, precision: str) -> Model:
    if packed := _PACKED_FOR.get(model.backbone):
        if (device.type, precision) != ("cpu", packed):
            raise ValueError(
                f"{model!r} is an engine's, packed for a CPU in {packed}; it can't be used on {device} in {precision}. "
                "Give the name of the model, or what load_model returns."
            )
        return model
    dtype = dtype_of(precision)
    if any(p.dtype != dtype for p in model.parameters()):
        model = copy.deepcopy(model).to(dtype)
    if device.type != "cpu":
        return model.to(device)
    if precision != "int8" and not packs(dtype):
        return model
    model = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    make = int8_linear if precision == "int8" else PackedLinear
    replace_linears(model.backbone, make, _plain_layers(model))
    _PACKED_FOR[model.backbone] = precision
    if isinstance(model, BiEncoderModel) and packs(dtype):
        for output in model.outputs:
            _pack_head(output)
    return model


def _pack_head(output: nn.Module) -> None:
    """Pack what stands above the backbone; it stays float32 where that is quantised."""
    head = output.head
    if isinstance(head, Vocabulary):
        replace_linears(head.transform, PackedLinear, set())
        head.pack(PackedLinear)
    else:
        replace_linears(head, PackedLinear, set())  # type: ignore[arg-type]


def _plain_layers(model: Model) -> set[str]:
    """Layers whose plain weights are read: `FirstTokenLayer`'s, and the vocabulary's, of which a few rows are."""
    backbone: PreTrainedModel = model.backbone
    keep = {name for name, module in backbone.named_modules() if module is backbone.get_output_embeddings()}
    first_only = not isinstance(model, BiEncoderModel) or any(model.reads_first_only(side) for side in (True, False))
    if first_only and has_first_token_layer(backbone):
        prefix = "" if backbone.base_model is backbone else backbone.base_model_prefix + "."
        last = len(backbone.base_model.encoder.layer) - 1
        keep |= {f"{prefix}encoder.layer.{last}.attention.self.{name}" for name in ("key", "value")}
    return keep


def resolve_device(device: str | None) -> torch.device:
    """The device of that name; None is the GPU if there is one, else the CPU.

    Raises:
        ValueError: if there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
        if found.type == "meta":
            raise RuntimeError("which computes nothing")
    except (RuntimeError, AssertionError) as error:
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"device={device!r} is not there; here are: {', '.join(here)}.") from error
    return found
