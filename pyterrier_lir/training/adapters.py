"""Low-rank adapters (LoRA, arXiv:2106.09685) in a backbone, by peft, and the head above it, which is trained whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from torch import nn

from ..config import CrossEncoderConfig
from ..models import BiEncoderModel, CrossEncoderModel


def adapt(model: BiEncoderModel | CrossEncoderModel, lora: Any) -> None:
    """Put adapters into a model's backbone in place; its own weights are frozen, those of the head are not.

    Args:
        lora: a `peft.LoraConfig` or its arguments; without `target_modules` those that peft has for the backbone, else
            all linear layers.

    Raises:
        ImportError: if peft is not installed.
        TypeError: for anything else.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError("lora= needs peft: pip install 'pyterrier-lir[peft]'.") from error
    if not isinstance(lora, (Mapping, peft.LoraConfig)):
        raise TypeError(f"lora={lora!r}; allowed: None, a peft.LoraConfig, or its arguments such as {{'r': 8}}.")
    config = peft.LoraConfig(**lora) if isinstance(lora, Mapping) else lora
    trained, backbone = head_of(model), model.backbone
    known = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    if not config.target_modules and not config.target_parameters and backbone.config.model_type not in known:
        config, backbone = replace(config, target_modules="all-linear"), backbone.base_model
    peft.inject_adapter_in_model(config, backbone)
    copied = {id(p) for name, p in model.named_parameters() if ".original_module." in name}  # peft trains its own copy
    for parameter in trained:
        parameter.requires_grad_(id(parameter) not in copied)


def head_of(model: BiEncoderModel | CrossEncoderModel) -> list[nn.Parameter]:
    """The weights of the layers on top of the backbone, which classification models have inside it."""
    below: Any = model.backbone
    if isinstance(model.config, CrossEncoderConfig) and model.config.head == "classification":
        below = below.base_model
    own = {id(parameter) for parameter in below.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in own]


def merged(model: BiEncoderModel | CrossEncoderModel) -> BiEncoderModel | CrossEncoderModel:
    """The model without adapters: itself if it has none, else a copy whose weights have taken them up."""
    if not _adapted(model.backbone):
        return model
    model = copy.deepcopy(model)
    for name in _adapted(model.backbone):
        layer: Any = model.backbone.get_submodule(name)
        model.backbone.set_submodule(name, _taken_up(layer))
    model.backbone.requires_grad_(True)
    return model


def _taken_up(layer: Any) -> nn.Module:
    """A layer with its adapter, or one that peft has trained whole (`modules_to_save`), as it is without peft."""
    if hasattr(layer, "unload_and_optionally_merge_module"):
        return cast(nn.Module, layer.unload_and_optionally_merge_module(True, False, None))
    layer.merge()
    return cast(nn.Module, layer.get_base_layer())


def _adapted(backbone: nn.Module) -> list[str]:
    """Names of the layers that peft has put others around."""
    names: list[str] = []
    for name, module in backbone.named_modules():
        inner = bool(names) and name.startswith(f"{names[-1]}.")
        if not inner and (hasattr(module, "get_base_layer") or hasattr(module, "original_module")):
            names.append(name)
    return names
