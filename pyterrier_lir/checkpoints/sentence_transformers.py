"""sentence-transformers' folders: `modules.json` lists a Transformer and what follows it.

Modules are known by the last part of their dotted type, where that is of the library; code of the checkpoint is never
run.  The list says what the model is: Pooling (+ Dense, LayerNorm, Normalize) is a dense bi-encoder; the same ending in
`scores`, a classification head, or LogitScore is a cross-encoder; SpladePooling is sparse; Dense without Pooling is
multi-vector.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from torch import nn
from transformers import AutoModelForCausalLM

from ..config import BiEncoderConfig, CrossEncoderConfig, Kind, Pooling, Similarity
from . import multi_vector_encoder, sequence_classification, sparse_encoder
from .checkpoint import Checkpoint, Normalize, ReadOptions, encoder_class
from .files import Files
from .sentence_modules import (
    Transformer,
    default_prompt,
    module_name,
    prompts_of,
    read_layer,
    transformer,
)

_POOLING: dict[str, Pooling] = {  # in the order in which old files' booleans are concatenated
    "cls": "first", "max": "max", "mean": "mean", "mean_sqrt_len_tokens": "mean_sqrt", "weightedmean": "weighted_mean",
    "lasttoken": "last",
}  # fmt: skip
_OLD_FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "weightedmean": "weightedmean_tokens"}
_SIMILARITY: dict[str | None, Similarity] = {None: "cosine", "cosine": "cosine", "dot": "dot", "euclidean": "l2"}
_LAYERS = ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
# Modules whose config.json is read; others that are not known are refused by their names, not by what they lack.
_SETTLED = ("Pooling", "Dense", "LayerNorm", "SpladePooling", "MultiVectorMask", "LogitScore")


def why_not(files: Files) -> str | None:
    return None if "modules.json" in files else "no modules.json"


def kinds(files: Files) -> tuple[Kind, ...]:
    family = _family(*_modules(files))
    return () if family == "cross-encoder" else (family,)


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a SentenceTransformer, SparseEncoder, MultiVectorEncoder, PyLate ColBERT or CrossEncoder.

    Raises:
        ValueError: for modules that are not known, and a module whose files are missing or broken.
    """
    modules, settings = _modules(files)
    names = [kind for kind, _ in modules]
    family = _family(modules, settings)
    if family == "sparse":
        return sparse_encoder.read(files, options, modules, settings)
    if family == "multi_vector":
        return multi_vector_encoder.read(files, options, modules, settings)
    if names == ["Transformer"]:
        return sequence_classification.classifier(
            files, options, transformer(files, modules[0][1]), default_prompt(settings)
        )
    if names == ["Transformer", "LogitScore"]:
        return _logit_score(files, options, *(path for _, path in modules))
    unknown = [kind for kind in names[1:] if kind not in _LAYERS]
    if names[0] != "Transformer" or unknown or names[1] != "Pooling":
        raise ValueError(
            f"{files.name} is a sentence-transformers {settings.get('model_type', 'model')} of {' + '.join(names)}; "
            f"what can be read is Transformer + Pooling (+ {', '.join(_LAYERS[1:])}), SparseEncoder, "
            "MultiVectorEncoder and CrossEncoder."
        )
    return _pooled(files, options, modules, settings)


def _modules(files: Files) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """The modules, as (name of the class, folder), and the model's settings."""
    modules = [(module_name(files, entry["type"]), entry["path"]) for entry in files.json("modules.json")]
    if not modules:
        raise ValueError(f"{files.name} has a modules.json without modules.")
    settled = [f"{path}/config.json" for kind, path in modules[1:] if path and kind in _SETTLED]
    if missing := [path for path in settled if path not in files]:
        raise ValueError(f"{files.name} lacks {', '.join(missing)}, which its modules.json names; download it anew.")
    return modules, files.json("config_sentence_transformers.json")


def _family(modules: list[tuple[str, str]], settings: dict[str, Any]) -> Kind | Literal["cross-encoder"]:
    """What the model is, by its modules and the class that saved it."""
    names, saved_by = [kind for kind, _ in modules], settings.get("model_type")
    if saved_by == "SparseEncoder" or {"SpladePooling", "Router", "Asym"} & set(names):
        return "sparse"
    if saved_by in ("ColBERT", "MultiVectorEncoder") or names[1:2] == ["Dense"]:
        return "multi_vector"
    plain = names == ["Transformer"] and saved_by in (None, "CrossEncoder")
    return "cross-encoder" if saved_by == "CrossEncoder" or plain or names[1:] == ["LogitScore"] else "dense"


def _pooled(files: Files, options: ReadOptions, modules: list[tuple[str, str]], settings: dict[str, Any]) -> Checkpoint:
    """Transformer + Pooling + layers: a dense bi-encoder, or a cross-encoder if the layers end in a score."""
    first = transformer(files, modules[0][1])
    pooling, pool_prompt = _pooling(files.json(f"{modules[1][1]}/config.json"))
    layers = [layer for kind, path in modules[2:] for layer in read_layer(files, kind, path, options)]
    backbone = files.backbone(encoder_class(first.config), first.config, options.dtype, subfolder=first.subfolder)
    config: BiEncoderConfig | CrossEncoderConfig
    if settings.get("model_type") == "CrossEncoder":
        if len(pooling) > 1:
            raise ValueError(f"{files.name} concatenates {len(pooling)} poolings; a cross-encoder here has one.")
        config = CrossEncoderConfig(
            query_length=None, doc_length=None, pooling_strategy=pooling[0], max_length=first.max_length,
            truncation="longest_first", query_prompt=default_prompt(settings),
            activation=(sequence_classification.saved_activation(files) or "Sigmoid").rsplit(".", 1)[-1],
        )  # fmt: skip
    else:
        config = _dense_config(files, settings, pooling, first.max_length)
        config = replace(config, pool_prompt=pool_prompt)
        if layers and isinstance(layers[-1], Normalize):
            config = replace(config, normalization_strategy="l2")
            layers = layers[:-1]
    return Checkpoint(config, backbone, first.tokenizer, nn.Sequential(*layers), files.name)


def _dense_config(
    files: Files, settings: dict[str, Any], pooling: tuple[Pooling, ...], limit: int | None
) -> BiEncoderConfig:
    """Lengths, pooling, similarity and prompts."""
    similarity = settings.get("similarity_fn_name")
    if similarity not in _SIMILARITY:
        raise ValueError(f"{files.name} compares by {similarity!r}; allowed: cosine, dot, euclidean.")
    return BiEncoderConfig(
        query_length=limit,
        doc_length=limit,
        query_pooling_strategy=pooling,
        doc_pooling_strategy=pooling,
        similarity_function=_SIMILARITY[similarity],
        embedding_dim=settings.get("truncate_dim"),
        **prompts_of(settings),
    )


def _pooling(values: dict[str, Any]) -> tuple[tuple[Pooling, ...], bool]:
    """The pooling modes, from new files (`pooling_mode`) or old ones (a boolean each), and `include_prompt`."""
    modes = values.get("pooling_mode")
    if modes is None:
        modes = [m for m in _POOLING if values.get(f"pooling_mode_{_OLD_FLAGS.get(m, m)}")] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if unknown := [mode for mode in modes if mode not in _POOLING]:
        raise ValueError(f"Unknown pooling {', '.join(map(repr, unknown))}; allowed: {', '.join(_POOLING)}.")
    return tuple(_POOLING[mode] for mode in modes), values.get("include_prompt", True)


def _logit_score(files: Files, options: ReadOptions, subfolder: str, score_folder: str) -> Checkpoint:
    """A causal language model that reads the logits of one or two tokens behind its chat template."""
    first = transformer(files, subfolder, chat=True)
    if first.tokenizer.truncation_side == "left":
        raise ValueError(
            f"{files.name} cuts its prompt from the left (truncation_side of its tokenizer), which cannot be read."
        )
    score = files.json(f"{score_folder}/config.json")
    ids = [token for token in (score.get("false_token_id"), score["true_token_id"]) if token is not None]
    template, instruction = _chat_pieces(files, first)
    config = CrossEncoderConfig(
        query_length=None,
        doc_length=None,
        pooling_strategy="last",
        scoring_strategy="difference" if len(ids) == 2 else "rank",
        max_length=first.max_length,
        truncation="tail",
        template=template,
        instruction=instruction,
        query_prompt="" if template else default_prompt(files.json("config_sentence_transformers.json")),
        head="tokens",
        token_ids=tuple(ids),
        activation=(sequence_classification.saved_activation(files) or "Sigmoid").rsplit(".", 1)[-1],
    )
    backbone = files.backbone(
        AutoModelForCausalLM, first.config, options.dtype, ignore=("lm_head.",), subfolder=subfolder
    )
    return Checkpoint(config, backbone, first.tokenizer, nn.Sequential(), files.name)


_QUERY, _DOC, _SYSTEM = "\ue000", "\ue001", "\ue002"  # private characters that stand for the slots


def _chat_pieces(files: Files, first: Transformer) -> tuple[tuple[str, ...] | None, str | None]:
    """The chat template's pieces and its instruction; (None, None) where the model takes a plain pair.

    The text is cut between words before the document and behind it, where cutting does not change tokens.

    Raises:
        ValueError: if the template does not show the query once and then the document once.
    """
    modalities = first.settings.get("modality_config") or {}
    if "message" not in modalities:
        return None, None
    structured = modalities["message"].get("format", "structured") != "flat"
    chosen = (first.settings.get("processing_kwargs") or {}).get("chat_template", {})

    def render(*messages: tuple[str, str]) -> str:
        shown = [{"role": r, "content": [{"type": "text", "text": t}] if structured else t} for r, t in messages]
        return str(first.tokenizer.apply_chat_template(shown, tokenize=False, **chosen))

    pair = ("query", _QUERY), ("document", _DOC)
    plain, text = render(*pair), render(("system", _SYSTEM), *pair)
    if text.count(_QUERY) != 1 or text.count(_DOC) != 1 or text.index(_QUERY) > text.index(_DOC):
        raise ValueError(f"The chat template of {files.name} does not show the query once and then the document once.")
    instruction = default_prompt(files.json("config_sentence_transformers.json")) or None
    before, _, after = text.partition(_SYSTEM)
    if plain.startswith(before) and plain.endswith(after):  # the template has an instruction of its own
        instruction = instruction or plain[len(before) : len(plain) - len(after)]
    elif instruction is None:
        text = plain
    text = text.replace(_QUERY, "{query}").replace(_SYSTEM, "{instruction}")
    before, after = text.split(_DOC)
    blank = " " if before.endswith(" ") else ""  # a word and the blank before it are one token
    return (before.removesuffix(" "), blank + "{doc}", after), instruction
