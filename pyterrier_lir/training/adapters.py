"""Low-rank adapters (LoRA, arXiv:2106.09685) in a backbone, by peft."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..models import BiEncoderModel, CrossEncoderModel


def adapt(backbone: nn.Module, lora: Any) -> None:
    """Put adapters into a backbone in place; its own weights are frozen.

    Args:
        lora: a `peft.LoraConfig` or its arguments.

    Raises:
        ImportError: if peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError("lora= needs peft: pip install 'pyterrier-lir[peft]'.") from error
    config = peft.LoraConfig(**lora) if isinstance(lora, Mapping) else lora
    peft.inject_adapter_in_model(config, backbone)


def merged(model: BiEncoderModel | CrossEncoderModel) -> BiEncoderModel | CrossEncoderModel:
    """The model without adapters: itself if it has none, else a copy whose weights have taken them up."""
    if not _adapted(model.backbone):
        return model
    model = copy.deepcopy(model)
    for name in _adapted(model.backbone):
        layer: Any = model.backbone.get_submodule(name)
        layer.merge()
        model.backbone.set_submodule(name, layer.get_base_layer())
    model.backbone.requires_grad_(True)
    return model


def _adapted(backbone: nn.Module) -> list[str]:
    """Names of the layers with adapters."""
    return [name for name, module in backbone.named_modules() if hasattr(module, "get_base_layer")]
