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
from transformers import AutoModelForSequenceClassification

from ..config import CrossEncoderConfig, Kind, ScoringStrategy
from .adapter import label_count
from .checkpoint import Checkpoint, ReadOptions, activation, max_tokens
from .files import Files
from .registry import SECOND_LOGIT
from .sentence_modules import Transformer


def why_not(files: Files) -> str | None:
    if not files.config:
        return "no config.json"
    architecture = (files.config.get("architectures") or [""])[0]
    if not architecture.endswith("ForSequenceClassification"):
        return f"architecture {architecture or 'unnamed'} has no sequence classification head"
    return None


def kinds(files: Files) -> tuple[Kind, ...]:
    return ()


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a classification model with one or two labels.

    Raises:
        ValueError: if the model has more labels, or an activation that is not torch's.
    """
    config = files.backbone_config(changes=label_count(files))
    tokenizer = files.tokenizer(config)
    return classifier(files, options, Transformer("", config, tokenizer, max_tokens(tokenizer, config), {}))


def classifier(files: Files, options: ReadOptions, parts: Transformer, query_prompt: str = "") -> Checkpoint:
    """Read a classification model whose configuration and tokenizer are known; `query_prompt` is put before queries.

    Raises:
        ValueError: if the model has more than two labels, or an activation that is not torch's.
    """
    backbone_config, tokenizer = parts.config, parts.tokenizer
    named = saved_activation(files)
    strategy: ScoringStrategy = "rank"
    if backbone_config.num_labels == 2 and not named and not SECOND_LOGIT.intersection(files.ids):
        strategy = "mono"
    if backbone_config.num_labels > 2:
        labels = ", ".join(map(str, backbone_config.id2label.values()))
        raise ValueError(
            f"{files.name} has {backbone_config.num_labels} labels ({labels}); "
            "a re-ranker has one score, or two labels of which the second means relevant."
        )
    named = named or ("Sigmoid" if backbone_config.num_labels == 1 else "Identity")
    activation(named)  # refuses what is not torch's
    backbone = files.backbone(
        AutoModelForSequenceClassification, backbone_config, options.dtype, subfolder=parts.subfolder
    )
    config = CrossEncoderConfig(
        query_length=None,
        doc_length=None,
        scoring_strategy=strategy,
        max_length=parts.max_length,
        truncation="longest_first",
        query_prompt=query_prompt,
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
