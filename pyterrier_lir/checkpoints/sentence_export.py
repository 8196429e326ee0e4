"""Dense bi-encoders in sentence-transformers' layout: `modules.json`, pooling, layers, prompts beside the backbone."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import save_file
from torch import nn

from ..config import BiEncoderConfig
from .checkpoint import Checkpoint, max_positions

_MODES = {"first": "cls", "max": "max", "mean": "mean", "mean_sqrt": "mean_sqrt_len_tokens",
          "weighted_mean": "weightedmean", "last": "lasttoken"}  # fmt: skip
_OLD_FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "weightedmean": "weightedmean_tokens"}
_SIMILARITY = {"cosine": "cosine", "dot": "dot", "l2": "euclidean"}
_SAID = ("query_length", "doc_length", "query_prompt", "doc_prompt", "prompts", "query_pooling_strategy",
         "doc_pooling_strategy", "pool_prompt", "normalization_strategy", "similarity_function", "projection",
         "embedding_dim")  # fmt: skip


def why_not(checkpoint: Checkpoint) -> str | None:
    """Why sentence-transformers has no modules for a checkpoint; None if it has."""
    config = checkpoint.config
    if not isinstance(config, BiEncoderConfig) or config.kind != "dense":
        return "only dense bi-encoders can be written in its layout"
    plain = BiEncoderConfig(**{name: getattr(config, name) for name in _SAID})
    if plain != config or checkpoint.also:
        return "it has no words for markers, expansion, sparsification, skipped tokens or further outputs"
    if config.query_pooling_strategy != config.doc_pooling_strategy:
        return "it pools queries and documents alike"
    if unknown := set(config.doc_pooling_strategy or ()) - set(_MODES):
        return f"it has no pooling {', '.join(sorted(unknown))}"
    if not all(isinstance(layer, nn.Linear) or not list(layer.parameters()) for layer in checkpoint.head):
        return "layers other than linear ones and activations are not written in its layout"
    return None


def write(checkpoint: Checkpoint, folder: str) -> None:
    """Write what `sentence_transformers.SentenceTransformer(folder)` opens beside the backbone and its tokenizer.

    sentence-transformers has one limit of tokens for queries and documents: it is the documents'.
    """
    config, target = checkpoint.config, Path(folder)
    assert isinstance(config, BiEncoderConfig)
    modules = [("Transformer", "")]
    for name, settings, layer in _layers(checkpoint, config):
        place = f"{len(modules)}_{name}"
        (target / place).mkdir()
        if settings:
            _write(target / place / "config.json", settings)
        if layer is not None:
            tensors = {f"linear.{key}": tensor.contiguous() for key, tensor in layer.state_dict().items()}
            save_file(tensors, target / place / "model.safetensors")
        modules.append((name, place))
    rows = [{"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (name, path) in enumerate(modules)]  # fmt: skip
    length = config.doc_length or max_positions(checkpoint.backbone.config)
    _write(target / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    _write(target / "config_sentence_transformers.json", _settings(config))
    _write(target / "modules.json", rows)


def _layers(checkpoint: Checkpoint, config: BiEncoderConfig) -> list[tuple[str, dict[str, Any], nn.Linear | None]]:
    """Name, settings and weights of the modules behind the Transformer."""
    hidden: int = checkpoint.backbone.config.hidden_size
    modes = [_MODES[strategy] for strategy in config.doc_pooling_strategy or ()]
    pooling: dict[str, Any] = {"word_embedding_dimension": hidden, "include_prompt": config.pool_prompt}
    pooling |= {f"pooling_mode_{_OLD_FLAGS.get(mode, mode)}": mode in modes for mode in _MODES.values()}
    found: list[tuple[str, dict[str, Any], nn.Linear | None]] = [("Pooling", pooling, None)]
    layers = [*checkpoint.head, nn.Identity()]
    for layer, after in pairwise(layers):
        if not isinstance(layer, nn.Linear):
            continue
        act = nn.Identity() if isinstance(after, nn.Linear) else after
        settings = {"in_features": layer.in_features, "out_features": layer.out_features,
                    "bias": layer.bias is not None,
                    "activation_function": f"{type(act).__module__}.{type(act).__name__}"}  # fmt: skip
        found.append(("Dense", settings, layer))
    return [*found, ("Normalize", {}, None)] if config.normalization_strategy == "l2" else found


def _settings(config: BiEncoderConfig) -> dict[str, Any]:
    prompts = {**dict(config.prompts), "query": config.query_prompt, "document": config.doc_prompt}
    return {
        "__version__": {"transformers": transformers.__version__},
        "model_type": "SentenceTransformer",
        "prompts": prompts,
        "default_prompt_name": None,
        "similarity_fn_name": _SIMILARITY[config.similarity_function],
        "truncate_dim": config.embedding_dim,
    }


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")
