"""Lightning IR's folders, on any backbone; bi-encoders are read by `lightning_ir_bi_encoders`.

A folder is recognised by `backbone_model_type` in config.json.  Weights of the backbone have no prefix; the heads of
cross-encoders are `linear.weight`, `linear.bias` and, for `bert_pool`, `bert_pool.0.weight` and `bert_pool.0.bias`.

Departure: Lightning IR fills a set-encoder's list that is shorter than `depth` with random states, so that its scores
change from call to call; here a list is scored as it is.  Lists of exactly `depth` documents score the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from ..config import BiEncoderConfig, CrossEncoderConfig, Kind
from . import lightning_ir_bi_encoders as bi_encoders
from .checkpoint import Checkpoint, ReadOptions, Scale, linear
from .files import Files

_OWN_KEYS = frozenset(
    [
        "query_length",
        "doc_length",
        "pooling_strategy",
        "linear_bias",
        "scoring_strategy",
        "depth",
        "add_extra_token",
        "sample_missing_docs",
        "_bert_pool",
        "tokenizer_pattern",
        "use_adapter",
        "adapter_config",
        "pretrained_adapter_name_or_path",
        "backbone_model_type",
        "architectures",
        "model_type",
    ]
)
_T5_TEMPLATES = {
    "mono": ("Query:", "{query}", "Document:", "{doc}", "Relevant:", "{eos}"),
    "rank": ("Query:", "{query}", "Document:", "{doc}", "{eos}"),
}


def why_not(files: Files) -> str | None:
    if "backbone_model_type" not in files.config:
        return "config.json names no backbone_model_type"
    return None


def kinds(files: Files) -> tuple[Kind, ...]:
    return bi_encoders.KINDS.get(files.config.get("model_type"), ())


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read a model of any of Lightning IR's types.

    Raises:
        ValueError: if the model is of a type that is not known, or if layers of it are missing.
    """
    values = files.config
    known = ("mono", "set-encoder", *bi_encoders.MODEL_TYPES)
    if values["model_type"] not in known:
        raise ValueError(
            f"{files.name} is a Lightning IR model of type {values['model_type']!r}; known are {', '.join(known)}."
        )
    backbone_config = files.backbone_config(backbone_values(files))
    if values["model_type"] in bi_encoders.MODEL_TYPES:
        return bi_encoders.read(files, backbone_config, options)
    config = _config(values)
    if backbone_config.is_encoder_decoder:
        config = _with_t5_template(config)
    backbone = files.backbone(AutoModel, backbone_config, options.dtype)
    head = _head(files, config, backbone, values.get("_bert_pool", False), options.dtype)
    return Checkpoint(config, backbone, files.tokenizer(backbone_config), head, files.name)


def backbone_values(files: Files) -> dict[str, Any] | None:
    """What config.json says of the backbone; None for a checkpoint of another library."""
    if why_not(files) is not None:
        return None
    own = _OWN_KEYS | bi_encoders.OWN_KEYS if files.config["model_type"] in bi_encoders.MODEL_TYPES else _OWN_KEYS
    values = {name: value for name, value in files.config.items() if name not in own}
    return values | {"model_type": files.config["backbone_model_type"]}


def _config(values: dict[str, Any]) -> CrossEncoderConfig:
    listwise = values["model_type"] == "set-encoder"
    extra_token = bool(listwise and values.get("add_extra_token"))
    return CrossEncoderConfig(
        query_length=values.get("query_length"),
        doc_length=values.get("doc_length"),
        pooling_strategy=values.get("pooling_strategy", "first"),
        linear_bias=values.get("linear_bias", False),
        scoring_strategy=values.get("scoring_strategy", "rank"),
        depth=values.get("depth", 100) if listwise else None,
        add_extra_token=extra_token,
        sample_missing_docs=values.get("sample_missing_docs", True),
    )


def _with_t5_template(config: CrossEncoderConfig) -> CrossEncoderConfig:
    values = config.to_dict() | {"template": _T5_TEMPLATES[config.scoring_strategy]}
    return CrossEncoderConfig.from_dict(values)


def _head(
    files: Files, config: CrossEncoderConfig, backbone: PreTrainedModel, bert_pool: bool, dtype: torch.dtype
) -> nn.Sequential:
    names = ["linear.weight", "linear.bias", "bert_pool.0.weight", "bert_pool.0.bias"]
    found = files.tensors(names, dtype=dtype)
    needed = names[:1] + names[1:2] * config.linear_bias + names[2:] * bert_pool
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{files.name} lacks {', '.join(missing)}, the scoring layer of a Lightning IR model.")
    layers: list[nn.Module] = []
    if bert_pool:
        layers += [linear(found["bert_pool.0.weight"], found["bert_pool.0.bias"]), nn.Tanh()]
    if backbone.config.is_encoder_decoder:
        layers.append(Scale(backbone.config.hidden_size**-0.5))
    layers.append(linear(found["linear.weight"], found.get("linear.bias")))
    return nn.Sequential(*layers)


def can_write(checkpoint: Checkpoint) -> bool:
    """Whether Lightning IR has a model type that does just what this checkpoint does."""
    config = checkpoint.config
    if isinstance(config, BiEncoderConfig):
        return bi_encoders.can_write(checkpoint)
    return (
        isinstance(config, CrossEncoderConfig)
        and config.head == "linear"
        and config.truncation == "separate"
        and config.max_length is None
        and config.activation == "Identity"
        and not config.query_prompt
        and config.scoring_strategy in ("rank", "mono")
        and config.pooling_strategy in ("first", "mean", "max", "sum")
    )


def write(checkpoint: Checkpoint, folder: str) -> None:
    """Write a folder that Lightning IR's `CrossEncoderModule(folder)` or `BiEncoderModule(folder)` opens."""
    if isinstance(checkpoint.config, BiEncoderConfig):
        bi_encoders.write(checkpoint, folder)
        return
    config, backbone = checkpoint.config, checkpoint.backbone
    assert isinstance(config, CrossEncoderConfig)
    linears = [layer for layer in checkpoint.head if isinstance(layer, nn.Linear)]
    weights = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    for tied in getattr(backbone, "all_tied_weights_keys", None) or ():
        weights.pop(tied, None)
    for prefix, layer in zip(("bert_pool.0", "linear")[-len(linears) :], linears, strict=True):
        weights |= {f"{prefix}.{name}": tensor.contiguous() for name, tensor in layer.state_dict().items()}
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    checkpoint.tokenizer.save_pretrained(folder)
    _write_configs(Path(folder), config, backbone.config, bert_pool=len(linears) > 1)


def _write_configs(folder: Path, config: CrossEncoderConfig, backbone: PretrainedConfig, bert_pool: bool) -> None:
    kind, label = ("set-encoder", "SetEncoder") if config.listwise else ("mono", "Mono")
    own = {
        "model_type": kind,
        "backbone_model_type": backbone.model_type,
        "architectures": [label + MODEL_MAPPING[type(backbone)].__name__],
        "_bert_pool": bert_pool,
        **{name: getattr(config, name) for name in ("query_length", "doc_length", "pooling_strategy", "linear_bias")},
        "scoring_strategy": config.scoring_strategy,
    }
    if config.listwise:
        own |= {name: getattr(config, name) for name in ("depth", "add_extra_token", "sample_missing_docs")}
    (folder / "config.json").write_text(json.dumps(backbone.to_dict() | own, indent=2, default=str))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "SetEncoderTokenizer" if config.listwise else "CrossEncoderTokenizer"}
    tokenizer |= {
        name: own[name] for name in ("query_length", "doc_length", "scoring_strategy", "add_extra_token") if name in own
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2))
