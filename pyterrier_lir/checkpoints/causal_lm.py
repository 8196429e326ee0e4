"""Causal language models that are asked about a pair and answer with a word: Qwen3-Reranker, mxbai-rerank-v2, ...

The prompt is found in `registry`, by the id of a public model, else by the backbone's type; `template=` overrides it.
"""

from __future__ import annotations

from torch import nn
from transformers import AutoModelForCausalLM

from ..config import Kind
from .checkpoint import Checkpoint, ReadOptions
from .files import Files
from .registry import TEMPLATES, template_for


def why_not(files: Files) -> str | None:
    architecture = (files.config.get("architectures") or [""])[0]
    if not architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return f"architecture {architecture or 'unnamed'} is no causal language model"
    return None


def kinds(files: Files) -> tuple[Kind, ...]:
    return ()


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a causal language model as a re-ranker.

    Raises:
        ValueError: if the backbone is no known re-ranker and no template was given.
    """
    config = files.backbone_config()
    template = template_for(files, config, options.template)
    if template is None:
        raise ValueError(
            f"{files.name} is a generative {config.model_type} model and no known re-ranker: how to ask it about a "
            f"pair is not in its files. Say how with template=, one of {', '.join(TEMPLATES)}."
        )
    tokenizer = files.tokenizer(config)
    joined = template.config(tokenizer, config)
    backbone = files.backbone(AutoModelForCausalLM, config, options.dtype, ignore=("lm_head.",))
    return Checkpoint(joined, backbone, tokenizer, nn.Sequential(), files.name)
