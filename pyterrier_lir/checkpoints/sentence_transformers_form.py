"""Writes folders that sentence-transformers opens: SentenceTransformer for dense models, CrossEncoder for classifiers.

It writes only what that library computes in the same way; `why_not_write` says what else there is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import save_file
from torch import nn

from ..config import BiEncoderConfig, CrossEncoderConfig
from .checkpoint import Checkpoint, Normalize, max_positions

# in the order in which booleans are concatenated
_POOLING = {"first": "cls", "max": "max", "mean": "mean", "mean_sqrt": "mean_sqrt_len_tokens",
            "weighted_mean": "weightedmean", "last": "lasttoken"}  # fmt: skip
_FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "weightedmean": "weightedmean_tokens"}
_SIMILARITY = {"cosine": "cosine", "dot": "dot", "l2": "euclidean"}
# fields of queries and documents that a SentenceTransformer has once
_ALIKE = ("query_length", "query_pooling_strategy")
# fields that it has not
_USUAL = ("strip_text", "query_markers", "doc_markers", "special_tokens", "query_expansion", "doc_expansion",
          "sparsification_strategy", "skip_first", "exact_match", "add_marker_tokens")  # fmt: skip
_MODULES = "sentence_transformers.models"


def why_not_write(checkpoint: Checkpoint, one_length: bool = True) -> str | None:
    """Why sentence-transformers cannot compute what this checkpoint does; None if it can.

    Args:
        one_length: whether queries and documents have to be cut alike; else queries get the documents' limit.
    """
    config = checkpoint.config
    if isinstance(config, CrossEncoderConfig):
        return _why_not_cross_encoder(config)
    if config.kind != "dense" or checkpoint.also:
        return "only dense models with one output are written"
    usual = BiEncoderConfig()
    for name in _ALIKE if one_length else _ALIKE[1:]:
        other = name.replace("query", "doc")
        if getattr(config, name) != getattr(config, other):
            hint = " (--max_length gives both one limit)" if name == "query_length" else ""
            return f"{name}={getattr(config, name)!r} is not {other}={getattr(config, other)!r}{hint}"
    if unusual := [name for name in _USUAL if getattr(config, name) != getattr(usual, name)]:
        return ", ".join(f"{name}={getattr(config, name)!r}" for name in unusual)
    if unknown := [pooling for pooling in config.query_pooling_strategy or () if pooling not in _POOLING]:
        return f"it has no pooling {', '.join(unknown)}"
    layers = _dense_layers(checkpoint.head)
    return "its layers are not linear ones with activations" if layers is None else None


def _why_not_cross_encoder(config: CrossEncoderConfig) -> str | None:
    if config.head == "linear" and config.pooling_strategy == "last":
        return "its classifier reads a decoder's last token, and only encoders' classifiers are written as CrossEncoder"
    if config.head != "classification":
        return f"only sequence classifiers are written as CrossEncoder, and this has head={config.head!r}"
    if config.scoring_strategy != "rank":
        return "its score is a log probability of two labels, and a CrossEncoder returns both logits"
    if config.truncation != "longest_first":
        return f"a CrossEncoder cuts the longer text first, and this has truncation={config.truncation!r}"
    if config.query_prompt:
        return f"a classifier's folder holds no prompts, and this has query_prompt={config.query_prompt!r}"
    return None


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Write what `why_not_write` has no objection to."""
    checkpoint.backbone.save_pretrained(folder)
    tokenizer = checkpoint.tokenizer
    config = checkpoint.config
    if isinstance(config, CrossEncoderConfig):
        tokenizer.model_max_length = config.max_length or tokenizer.model_max_length
        tokenizer.save_pretrained(folder)
        _write_activation(folder, config.activation)
        return
    tokenizer.save_pretrained(folder)
    write_modules(checkpoint, folder)


def write_modules(checkpoint: Checkpoint, folder: Path) -> None:
    """Write what a SentenceTransformer needs beside a dense model's backbone and tokenizer."""
    config = checkpoint.config
    assert isinstance(config, BiEncoderConfig)
    length = config.doc_length or max_positions(checkpoint.backbone.config)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    modules = [("", "Transformer")]
    width = checkpoint.backbone.config.hidden_size
    _add(folder, modules, "Pooling", _pooling(config, width))
    for layer, activation in _dense_layers(checkpoint.head) or ():
        path = _add(folder, modules, "Dense", {
            "in_features": layer.in_features, "out_features": layer.out_features, "bias": layer.bias is not None,
            "activation_function": _dotted(activation),
        })  # fmt: skip
        state = {f"linear.{name}": tensor.contiguous() for name, tensor in layer.state_dict().items()}
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    if config.normalization_strategy == "l2":
        _add(folder, modules, "Normalize", None)
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_MODULES}.{kind}"} for i, (path, kind) in enumerate(modules)
    ]
    _write(folder / "config_sentence_transformers.json", _settings(config))
    _write(folder / "modules.json", entries)


def _settings(config: BiEncoderConfig) -> dict[str, Any]:
    prompts = {"query": config.query_prompt, "document": config.doc_prompt}
    # prompts that other names hold are kept; those that are used are the two above
    kept = {name: text for name, text in config.prompts if name not in ("query", "document", "passage", "corpus")}
    settings = {
        "model_type": "SentenceTransformer",
        "__version__": {"transformers": transformers.__version__},
        "prompts": {**prompts, **kept},
        "default_prompt_name": None,
        "similarity_fn_name": _SIMILARITY[config.similarity_function],
    }
    return settings | ({"truncate_dim": config.embedding_dim} if config.embedding_dim else {})


def _pooling(config: BiEncoderConfig, width: int) -> dict[str, Any]:
    """The pooling's settings, as booleans, which all versions of the library read and concatenate in their order; in
    another order as a list, which those from 6.0 on read.
    """
    chosen = [_POOLING[one] for one in config.query_pooling_strategy or ()]
    modes: dict[str, Any] = {"pooling_mode": chosen}
    if chosen == [mode for mode in _POOLING.values() if mode in chosen]:
        modes = {f"pooling_mode_{_FLAGS.get(mode, mode)}": mode in chosen for mode in _POOLING.values()}
    return {"word_embedding_dimension": width, **modes, "include_prompt": config.pool_prompt}


def _dense_layers(head: nn.Sequential) -> list[tuple[nn.Linear, nn.Module]] | None:
    """Each linear layer with the activation behind it; None if there are other layers."""
    layers: list[tuple[nn.Linear, nn.Module]] = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            layers.append((layer, nn.Identity()))
        elif layers and isinstance(layers[-1][1], nn.Identity) and type(layer).__module__.startswith("torch.nn"):
            layers[-1] = (layers[-1][0], layer)
        elif not isinstance(layer, (nn.Identity, Normalize)):
            return None
        elif isinstance(layer, Normalize):
            return None  # in the middle of the layers
    return layers


def _dotted(activation: nn.Module) -> str:
    return f"{type(activation).__module__}.{type(activation).__name__}"


def _write_activation(folder: Path, activation: str) -> None:
    """Name the activation where old and new versions of CrossEncoder look for it."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    path = _dotted(getattr(nn, activation)())
    values |= {"sentence_transformers": {"activation_fn": path}, "sbert_ce_default_activation_function": path}
    _write(folder / "config.json", values)


def _add(folder: Path, modules: list[tuple[str, str]], kind: str, values: dict[str, Any] | None) -> Path:
    path = folder / f"{len(modules)}_{kind}"
    path.mkdir()
    if values is not None:
        _write(path / "config.json", values)
    modules.append((path.name, kind))
    return path


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")
