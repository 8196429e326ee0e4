"""Sequence classification heads of transformers, which is how nearly all public cross-encoders are saved.

One label is the score; its activation is the one that sentence-transformers' CrossEncoder takes from config.json, a
sigmoid where none is named.  Of two labels (monoBERT) the score is the log probability of the second, unless a
CrossEncoder saved them, whose activation then applies.  A pair that is too long is cut as CrossEncoder cuts it: the
longer text first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedTokenizerBase

from ..config import CrossEncoderConfig, Kind, ScoringStrategy
from .checkpoint import Checkpoint, ReadOptions, activation, max_positions
from .files import Files
from .registry import SECOND_LOGIT


def why_not(files: Files) -> str | None:
    if not files.config:
        return "no config.json"
    architecture = (files.config.get("architectures") or [""])[0]
    if not architecture.endswith("ForSequenceClassification"):
        return f"architecture {architecture or 'unnamed'} has no sequence classification head"
    return None


def kinds(files: Files) -> tuple[Kind, ...]:
    return ()


def read(files: Files, options: ReadOptions, subfolder: str = "") -> Checkpoint:
    """Read a classification model with one or two labels.

    Raises:
        ValueError: if the model has more labels, or an activation that is not torch's.
    """
    backbone_config = files.backbone_config(subfolder=subfolder)
    named = saved_activation(files)
    strategy: ScoringStrategy = "rank"
    if backbone_config.num_labels == 2 and not named and files.name not in SECOND_LOGIT:
        strategy = "mono"
    if backbone_config.num_labels > 2:
        labels = ", ".join(map(str, backbone_config.id2label.values()))
        raise ValueError(
            f"{files.name} has {backbone_config.num_labels} labels ({labels}); "
            "a re-ranker has one score, or two labels of which the second means relevant."
        )
    named = named or ("Sigmoid" if backbone_config.num_labels == 1 else "Identity")
    activation(named)  # refuses what is not torch's
    tokenizer = files.tokenizer(backbone_config, subfolder)
    backbone = files.backbone(AutoModelForSequenceClassification, backbone_config, options.dtype, subfolder=subfolder)
    config = CrossEncoderConfig(
        query_length=None,
        doc_length=None,
        scoring_strategy=strategy,
        max_length=max_tokens(tokenizer, backbone_config),
        truncation="longest_first",
        head="classification",
        activation=named.rsplit(".", 1)[-1],
    )
    if isinstance(score := getattr(backbone, "score", None), nn.Linear):  # decoders: the last token's state
        config = replace(config, head="linear", pooling_strategy="last")
        return Checkpoint(config, backbone.base_model, tokenizer, nn.Sequential(score), files.name)
    return Checkpoint(config, backbone, tokenizer, nn.Sequential(), files.name)


def saved_activation(files: Files) -> str | None:
    """The dotted path of the activation that a CrossEncoder saved, in its own file or (older ones) in config.json."""
    values: dict[str, Any] = files.config
    path: str | None = (
        files.json("config_sentence_transformers.json").get("activation_fn")
        or (values.get("sentence_transformers") or {}).get("activation_fn")
        or values.get("sbert_ce_default_activation_function")
    )
    return path


def max_tokens(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int | None:
    """The most tokens of an input: the tokenizer's limit, or the backbone's positions where that is lower."""
    limits = [limit for limit in (tokenizer.model_max_length, max_positions(config)) if limit and 0 < limit < 10**9]
    return min(limits, default=None)
