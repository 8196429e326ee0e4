"""Encoder-decoder re-rankers: monoT5, RankT5 and their siblings in other languages.

The decoder makes one step and the logits of one or two words are read.  monoT5 and RankT5 cannot be told apart by
their files: a public model is looked up by its id, another T5 is read as monoT5 and another mT5 as mMARCO's, and
`template="rankt5"` says otherwise.

Departures: pyterrier_t5 appends `Relevant:` behind the padding of a batch, so its scores depend on the batch; here they
are those of its batch size 1.  The prompt's end is kept for texts beyond the limit, where some libraries cut it.
"""

from __future__ import annotations

from torch import nn
from transformers import AutoModelForSeq2SeqLM

from ..config import Kind
from .checkpoint import Checkpoint, ReadOptions
from .files import Files
from .registry import TEMPLATES, template_for


def why_not(files: Files) -> str | None:
    architecture = (files.config.get("architectures") or [""])[0]
    if not files.config.get("is_encoder_decoder") and not architecture.endswith("ForConditionalGeneration"):
        return f"architecture {architecture or 'unnamed'} is no encoder-decoder"
    if architecture.endswith("ForSequenceClassification"):
        return f"architecture {architecture} has a classification head"
    return None


def kinds(files: Files) -> tuple[Kind, ...]:
    return ()


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read an encoder-decoder language model as a re-ranker.

    Raises:
        ValueError: if no template fits the backbone or its tokenizer.
    """
    config = files.backbone_config()
    template = template_for(files, config, options.template)
    if template is None:
        raise ValueError(
            f"{files.name} is a {config.model_type} encoder-decoder, for which no prompt is known; "
            f"say which with template=, one of {', '.join(TEMPLATES)}."
        )
    tokenizer = files.tokenizer(config)
    joined = template.config(tokenizer, config)
    backbone = files.backbone(AutoModelForSeq2SeqLM, config, options.dtype, ignore=("encoder.embed", "decoder.embed"))
    return Checkpoint(joined, backbone, tokenizer, nn.Sequential(), files.name)
