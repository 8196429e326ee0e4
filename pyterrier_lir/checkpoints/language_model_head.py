"""Masked language models' heads: a layer, its activation, a norm, and the decoder into the vocabulary.

They are cut out of the Hugging Face model, so that every SPLADE-like model is a backbone with layers on top.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel

from .checkpoint import tied_linear
from .files import Files

# backbone -> where its masked language model keeps (layer, norm), and which field of its config names the activation
_BERT = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "hidden_act")
_ROBERTA = ("lm_head.dense", "lm_head.layer_norm", None)
HEADS: dict[str, tuple[str, str, str | None]] = {
    "bert": _BERT,
    "deberta-v2": _BERT,
    "distilbert": ("vocab_transform", "vocab_layer_norm", "activation"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _ROBERTA,
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", None),
    "modernbert": ("head.dense", "head.norm", "classifier_activation"),
}  # fmt: skip


def read_masked_lm(
    files: Files, config: PretrainedConfig, dtype: torch.dtype, subfolder: str = ""
) -> tuple[PreTrainedModel, nn.Sequential]:
    """The backbone of a masked language model, and its head as layers whose last is the decoder.

    Raises:
        ValueError: if the backbone's head is not known, or its weights are missing.
    """
    if config.model_type not in HEADS:
        raise ValueError(
            f"{files.name}: the masked language model's head of {config.model_type!r} is not known; known are "
            f"{', '.join(HEADS)}."
        )
    model: Any = files.backbone(AutoModelForMaskedLM, config, dtype, subfolder=subfolder)
    if getattr(config, "legacy", True):
        dense, layer_norm = (attrgetter(path)(model) for path in HEADS[config.model_type][:2])
        decoder: Any = model.get_output_embeddings()
    else:  # DeBERTa's own head has no decoder, it is given the embeddings
        own = model.lm_predictions.lm_head
        dense, layer_norm = own.dense, own.LayerNorm
        decoder = tied_linear(model.get_input_embeddings().weight, own.bias)
    head = nn.Sequential(dense, activation_of(config), layer_norm, _plain(decoder))
    return model.base_model, head


def activation_of(config: PretrainedConfig) -> nn.Module:
    """The activation of the head's layer.

    Raises:
        ValueError: if torch.nn has no such activation.
    """
    field = HEADS[config.model_type][2]
    name = "gelu" if field is None else getattr(config, field)
    known: dict[str, nn.Module] = {
        "gelu": nn.GELU(), "gelu_new": nn.GELU("tanh"), "gelu_pytorch_tanh": nn.GELU("tanh"), "relu": nn.ReLU(),
        "silu": nn.SiLU(), "swish": nn.SiLU(), "tanh": nn.Tanh(),
    }  # fmt: skip
    if name not in known:
        raise ValueError(f"The head's activation {name!r} is not known; known are {', '.join(known)}.")
    return known[name]


def tied_head(backbone: PreTrainedModel) -> nn.Sequential:
    """A decoder on the backbone's own embeddings, for one without a head: a term's logit is state · embedding.

    Where states and embeddings differ in size, a new layer between them has to be trained.
    """
    weight: Any = backbone.get_input_embeddings().weight  # type: ignore[union-attr]
    decoder = tied_linear(weight, torch.zeros(len(weight), dtype=weight.dtype))
    hidden = backbone.config.hidden_size
    bridge = [nn.Linear(hidden, weight.shape[1], dtype=weight.dtype)] if weight.shape[1] != hidden else []
    return nn.Sequential(*bridge, decoder)


def _plain(decoder: Any) -> nn.Linear:
    """The decoder as a linear layer that shares its parameters: some are of a class of their own."""
    layer = tied_linear(decoder.weight, decoder.bias)
    if decoder.bias is not None:
        layer.bias = decoder.bias
    return layer


def has_masked_lm_head(files: Files, subfolder: str = "") -> bool:
    """Whether the checkpoint says that it is a masked language model."""
    values = files.json(f"{subfolder}/config.json") if subfolder else files.config
    architecture: str = (values.get("architectures") or [""])[0]
    return architecture.endswith(("ForMaskedLM", "ForPreTraining"))
