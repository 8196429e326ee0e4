"""Hugging Face backbones alone: public models that `registry.DENSE` says how to pool, and new models.

Layers of new models are initialised to be trained; the public ones need none.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import BiEncoderConfig, CrossEncoderConfig, Kind
from . import lightning_ir
from .checkpoint import Checkpoint, ReadOptions, encoder_class, max_positions
from .files import Files
from .language_model_head import HEADS, has_masked_lm_head, read_masked_lm, tied_head
from .registry import DENSE, row_of


def why_not(files: Files) -> str | None:
    if not files.config:
        return "no config.json"
    return (
        None
        if _row(files)
        else "a backbone alone; say what to make of it with config=BiEncoderConfig(...) or CrossEncoderConfig(...)"
    )


def _row(files: Files) -> BiEncoderConfig | None:
    row = row_of(DENSE, files)
    # a classifier may remember the backbone that it was made of; what it is itself, its head says
    classifies = (files.config.get("architectures") or [""])[0].endswith("ForSequenceClassification")
    return None if classifies and files.name not in DENSE else row


def kinds(files: Files) -> tuple[Kind, ...]:
    return ("dense",)


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a public model that is a backbone alone."""
    config = _row(files)
    assert config is not None
    return new(files, options, config)


def new(files: Files, options: ReadOptions, config: BiEncoderConfig | CrossEncoderConfig) -> Checkpoint:
    """A bi-encoder or cross-encoder of that configuration on the backbone of a folder or hub id.

    Marker tokens that the vocabulary lacks are added to it.  `projection="mlm"` takes the head of a masked language
    model where the checkpoint has one, else a decoder on the backbone's own embeddings.

    Raises:
        ValueError: if the configuration asks for what the backbone cannot do.
    """
    subfolder = next((entry["path"] for entry in files.json("modules.json") or []), "")
    backbone_config = files.backbone_config(lightning_ir.backbone_values(files), subfolder)
    check_lengths(files, backbone_config, config)
    tokenizer = files.tokenizer(backbone_config, subfolder)
    if isinstance(config, CrossEncoderConfig):
        if config.head != "linear":
            raise ValueError(f"A new cross-encoder has head='linear', not {config.head!r}.")
        backbone = files.backbone(encoder_class(backbone_config), backbone_config, options.dtype, subfolder=subfolder)
        check_pooling(files, backbone, config)
        labels = 2 if config.scoring_strategy in ("mono", "difference") else 1
        head = nn.Sequential(_linear(backbone, backbone.config.hidden_size, labels, config.linear_bias))
        return Checkpoint(config, backbone, tokenizer, head.eval(), files.name)
    if config.projection == "mlm" and has_masked_lm_head(files, subfolder) and backbone_config.model_type in HEADS:
        backbone, head = read_masked_lm(files, backbone_config, options.dtype, subfolder)
    else:
        backbone = files.backbone(encoder_class(backbone_config), backbone_config, options.dtype, subfolder=subfolder)
        if config.embedding_dim not in (None, backbone_config.hidden_size) and config.projection is None:
            config = replace(config, projection="linear")
        check_pooling(files, backbone, config)
        head = _new_head(config, backbone)
    add_markers(tokenizer, backbone, config)
    tables = [side for side in ("query", "doc") if config.of(side == "query", "weighting") == "static"]
    size = backbone.config.vocab_size
    weights = {side: nn.Parameter(torch.ones(size, dtype=options.dtype)) for side in tables}
    return Checkpoint(config, backbone, tokenizer, head.eval(), files.name, weights)


def check_lengths(files: Files, backbone_config: Any, config: BiEncoderConfig | CrossEncoderConfig) -> None:
    """Refuse lengths that were asked for and that the backbone has no positions for; defaults are cut to them."""
    limit = max_positions(backbone_config)
    for field in dataclasses.fields(config):
        length = getattr(config, field.name)
        if field.name.endswith("_length") and length != field.default and limit is not None and (length or 0) > limit:
            raise ValueError(f"{field.name}={length}; {files.name} has positions for {limit} tokens.")


def check_pooling(files: Files, backbone: PreTrainedModel, config: BiEncoderConfig | CrossEncoderConfig) -> None:
    """Refuse to read the first token of a decoder, which sees no other."""
    fields = [name for name in (f"{side}pooling_strategy" for side in ("", "query_", "doc_"))
              if getattr(config, name, None) in ("first", ("first",))]  # fmt: skip
    if fields and _is_causal(backbone):
        kind, settings = type(config).__name__, ", ".join(f"{name}='last'" for name in fields)
        raise ValueError(
            f"{files.name} is a decoder, each of whose tokens sees those before it only: by its first token all texts "
            f"are alike, so take {kind}({settings})."
        )


def _is_causal(backbone: PreTrainedModel) -> bool:
    both_ways = getattr(backbone.config, "is_causal", None) is False or backbone.config.is_encoder_decoder
    return not both_ways and any(getattr(module, "is_causal", False) for module in backbone.modules())


def _new_head(config: BiEncoderConfig, backbone: PreTrainedModel) -> nn.Sequential:
    """Layers for a configuration, initialised as the backbone's own."""
    if config.projection == "mlm":
        return tied_head(backbone)
    if config.projection is None:
        return nn.Sequential()
    hidden: int = backbone.config.hidden_size
    pooled = hidden * len(config.doc_pooling_strategy or ("first",))
    if config.projection == "term_weight":
        return nn.Sequential(_linear(backbone, hidden, 1, True))
    return nn.Sequential(_linear(backbone, pooled, config.embedding_dim or pooled, config.projection == "linear"))


def _linear(backbone: PreTrainedModel, size: int, out: int, bias: bool) -> nn.Linear:
    layer = nn.Linear(size, out, bias=bias)
    nn.init.normal_(layer.weight, std=getattr(backbone.config, "initializer_range", 0.02))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer.to(backbone.dtype)


def add_markers(tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, config: BiEncoderConfig) -> None:
    """Markers that the vocabulary lacks get a row of their own in the embeddings."""
    lacking = [
        token for token in dict.fromkeys((*config.query_markers, *config.doc_markers))
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)
    ]  # fmt: skip
    if lacking:
        tokenizer.add_tokens(lacking, special_tokens=True)
        if len(tokenizer) > backbone.get_input_embeddings().num_embeddings:  # type: ignore[union-attr]
            backbone.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
