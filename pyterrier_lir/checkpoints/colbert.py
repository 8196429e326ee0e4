"""The official ColBERT's folders: a backbone with `linear.weight` beside it, and artifact.metadata.

Its `similarity` is not read: `l2` there is the negated squared distance, which of vectors of length 1 is twice their
product minus 2, so that documents are in the order of the products, which `cosine` asks for.
"""

from __future__ import annotations

import string

from torch import nn
from transformers import AutoModel, PreTrainedTokenizerBase

from ..config import BiEncoderConfig, Kind
from .checkpoint import Checkpoint, ReadOptions, linear
from .files import Files

_METADATA = "artifact.metadata"


def why_not(files: Files) -> str | None:
    named = "HF_ColBERT" in (files.config.get("architectures") or [])
    return None if named or _METADATA in files else f"no {_METADATA}, and no architecture HF_ColBERT"


def kinds(files: Files) -> tuple[Kind, ...]:
    return ("multi_vector",)


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a ColBERT model.

    Raises:
        ValueError: if the projection is missing.
    """
    values = files.json(_METADATA)
    backbone_config = files.backbone_config()
    tokenizer = files.tokenizer(backbone_config)
    weight = files.tensors(["linear.weight"], dtype=options.dtype).get("linear.weight")
    if weight is None:
        raise ValueError(f"{files.name} lacks linear.weight, the projection of a ColBERT model.")
    config = BiEncoderConfig(
        query_length=values.get("query_maxlen", 32),
        doc_length=values.get("doc_maxlen", 220),
        query_markers=(values.get("query_token_id", "[unused0]"),),
        doc_markers=(values.get("doc_token_id", "[unused1]"),),
        query_expansion=True,
        attend_to_query_expanded_tokens=values.get("attend_to_mask_tokens", False),
        projection="linear_no_bias",
        query_pooling_strategy=None,
        doc_pooling_strategy=None,
        normalization_strategy="l2",
        doc_mask_scoring_tokens=_masked(tokenizer, values.get("mask_punctuation", True)),
    )
    backbone = files.backbone(AutoModel, backbone_config, options.dtype)
    return Checkpoint(config, backbone, tokenizer, nn.Sequential(linear(weight, None)), files.name)


def _masked(tokenizer: PreTrainedTokenizerBase, punctuation: bool) -> tuple[int | str, ...]:
    """The padding token, even where a text has it; ASCII punctuation, and what a tokenizer makes of each sign alone."""
    signs = list(string.punctuation) if punctuation else []
    rows = tokenizer(signs, add_special_tokens=False)["input_ids"] if signs else []
    ids = {row[0] for row in rows if row} | set(tokenizer.convert_tokens_to_ids(signs))
    return tuple(sorted({tokenizer.pad_token_id, *ids} - {tokenizer.unk_token_id, None}))
