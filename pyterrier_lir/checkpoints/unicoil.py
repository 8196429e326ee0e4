"""UniCOIL of castorini: a BERT under `coil_encoder.`, and a layer that gives each token a weight."""

from __future__ import annotations

from torch import nn
from transformers import AutoModel

from ..config import BiEncoderConfig, Kind
from .checkpoint import Checkpoint, ReadOptions, linear, max_positions
from .files import Files
from .weight_files import weight_files

_PREFIXES = ("coil_encoder.", "")


def why_not(files: Files) -> str | None:
    if not files.config:
        return "no config.json"
    return None if _found(files) is not None else "no tok_proj.weight among its weights"


def _found(files: Files) -> str | None:
    if not weight_files(files.folder):
        return None
    names = files.tensors([f"{prefix}tok_proj.weight" for prefix in _PREFIXES])
    return next((name.removesuffix("tok_proj.weight") for name in names), None)


def kinds(files: Files) -> tuple[Kind, ...]:
    return ("sparse",)


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a UniCOIL model."""
    prefix = _found(files)
    weights = files.tensors([f"{prefix}tok_proj.weight", f"{prefix}tok_proj.bias"], dtype=options.dtype)
    backbone_config = files.backbone_config()
    tokenizer = files.tokenizer(backbone_config)
    special = tuple(str(token) for token in (tokenizer.cls_token, tokenizer.pad_token) if token)
    positions = max_positions(backbone_config) or 512
    config = BiEncoderConfig(
        query_length=min(128, positions), doc_length=min(512, positions), projection="term_weight",
        sparsification_strategy="relu", query_mask_scoring_tokens=special, doc_mask_scoring_tokens=special,
        query_repeated_terms="sum",
    )  # fmt: skip
    renamed = {f"{prefix}bert.": ""} if prefix else None
    backbone = files.backbone(AutoModel, backbone_config, options.dtype, renamed=renamed)
    layer = linear(weights[f"{prefix}tok_proj.weight"], weights.get(f"{prefix}tok_proj.bias"))
    return Checkpoint(config, backbone, tokenizer, nn.Sequential(layer), files.name)
