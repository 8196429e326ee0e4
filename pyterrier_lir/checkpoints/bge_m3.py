"""BGE-M3: one backbone with three outputs, of which `outputs=` chooses; the dense one unless told otherwise.

The sparse weights are those of `sparse_linear.pt`, the token vectors those of `colbert_linear.pt`, without the first
token's; their late interaction is the mean over the query's tokens (arXiv:2402.03216, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from ..config import BiEncoderConfig, Kind
from .checkpoint import Checkpoint, Output, ReadOptions, linear, max_positions
from .files import Files
from .weight_files import readable

_SPARSE, _TOKENS = "sparse_linear.pt", "colbert_linear.pt"


def why_not(files: Files) -> str | None:
    return None if _SPARSE in files and _TOKENS in files else f"no {_SPARSE} and {_TOKENS}"


def kinds(files: Files) -> tuple[Kind, ...]:
    return ("dense",)


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read all three outputs.

    Raises:
        ValueError: if a layer is broken.
    """
    backbone_config = files.backbone_config()
    tokenizer = files.tokenizer(backbone_config)
    backbone = files.backbone(AutoModel, backbone_config, options.dtype)
    length = min(limit for limit in (max_positions(backbone_config), 8192) if limit)
    ignored = tuple(token for token in (tokenizer.cls_token, tokenizer.eos_token, tokenizer.pad_token,
                                        tokenizer.unk_token) if token)  # fmt: skip
    lengths: dict[str, Any] = {"query_length": length, "doc_length": length}
    dense = BiEncoderConfig(
        **lengths, query_pooling_strategy="first", doc_pooling_strategy="first", normalization_strategy="l2"
    )
    sparse = BiEncoderConfig(
        **lengths, projection="term_weight", sparsification_strategy="relu", query_mask_scoring_tokens=ignored,
        doc_mask_scoring_tokens=ignored,
    )  # fmt: skip
    tokens = BiEncoderConfig(
        **lengths, projection="linear", query_pooling_strategy=None, doc_pooling_strategy=None, skip_first=1,
        normalization_strategy="l2", query_aggregation_function="mean",
    )  # fmt: skip
    layers = {name: _linear(files, name, options.dtype) for name in (_SPARSE, _TOKENS)}
    also = (Output(sparse, nn.Sequential(layers[_SPARSE])), Output(tokens, nn.Sequential(layers[_TOKENS])))
    whole = Checkpoint(dense, backbone, tokenizer, nn.Sequential(), files.name, also=also)
    return whole if options.outputs else whole.only(("dense",))


def _linear(files: Files, name: str, dtype: torch.dtype) -> nn.Linear:
    with readable(files.folder / name):
        state = torch.load(files.folder / name, map_location="cpu", weights_only=True)
        return linear(state["weight"].to(dtype), state["bias"].to(dtype))
