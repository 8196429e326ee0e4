"""SPLADE as a plain masked language model: naver's and OpenSearch's.

The files do not say how long texts are, nor whether queries are encoded: `registry.SPLADE` says it for public models,
and an idf.json beside the model means that queries are their tokens with those weights.  For others the usual SPLADE
is assumed, queries and documents alike.

OpenSearch's models zero the weights of special tokens, as their cards do; Lightning IR does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config import BiEncoderConfig, Kind
from .checkpoint import Checkpoint, ReadOptions, max_positions
from .files import Files
from .language_model_head import HEADS, has_masked_lm_head, read_masked_lm
from .registry import SPLADE, row_of
from .sparse_encoder import read_table

_IDF = "idf.json"


def why_not(files: Files) -> str | None:
    if not has_masked_lm_head(files):
        architecture = (files.config.get("architectures") or [""])[0]
        return f"architecture {architecture or 'unnamed'} is no masked language model"
    kind = files.config.get("model_type")
    return None if kind in HEADS else f"the head of a {kind} masked language model is not known"


def says_so(files: Files) -> bool:
    """Whether anything but its head says that a masked language model is a SPLADE: a table, its id or its name."""
    return _IDF in files or row_of(SPLADE, files) is not None or any("splade" in name.lower() for name in files.ids)


def kinds(files: Files) -> tuple[Kind, ...]:
    return ("sparse",)


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a SPLADE model.

    Raises:
        ValueError: if the head or the table of query weights is broken.
    """
    backbone_config = files.backbone_config()
    tokenizer = files.tokenizer(backbone_config)
    config = splade_config(files, tokenizer, max_positions(backbone_config))
    backbone, head = read_masked_lm(files, backbone_config, options.dtype)
    weights: dict[str, nn.Parameter] = {}
    if config.query_weighting == "static":
        weights["query"] = read_table(files, "", tokenizer, options.dtype)
    return Checkpoint(config, backbone, tokenizer, head, files.name, weights)


def splade_config(files: Files, tokenizer: PreTrainedTokenizerBase, positions: int | None) -> BiEncoderConfig:
    """The configuration that the registry or the files say, with the backbone's length where nothing else is said."""
    row: dict[str, Any] = dict(row_of(SPLADE, files) or {})
    length = min(limit for limit in (positions, 512) if limit)
    lengths = {"query_length": length, "doc_length": length}
    no_specials = row.pop("no_special_terms", False)
    config = BiEncoderConfig.splade(**{**lengths, **row})
    if _IDF in files:
        no_specials = True
        config = replace(config, query_weighting="static")
    if no_specials:
        masked: tuple[int | str, ...] = special_ids(tokenizer)
        config = replace(config, query_mask_scoring_tokens=masked, doc_mask_scoring_tokens=masked)
    elif config.query_weighting in ("binary", "lexical"):
        config = replace(config, query_mask_scoring_tokens=special_ids(tokenizer))
    return config


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids of the tokenizer's special tokens, without further added ones."""
    return tuple(sorted({int(tokenizer.convert_tokens_to_ids(str(t))) for t in tokenizer.special_tokens_map.values()
                         if isinstance(t, str)}))  # fmt: skip
