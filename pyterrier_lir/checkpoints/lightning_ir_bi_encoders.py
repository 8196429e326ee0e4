"""Lightning IR's bi-encoders: DPR, SPLADE, UniCOIL, COL, MVR and COIL.

Weights of the backbone have no prefix; a projection is `projection.*`, SPLADE's a whole masked language model's head
under names that changed with versions, UniCOIL's and COIL's `token_projection.*` and `cls_projection.*`.

Departure: a term that a text has several times gets from UniCOIL the weight of its last token here; in Lightning IR it
is that of any of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from ..config import BiEncoderConfig, Kind
from .checkpoint import Checkpoint, Output, ReadOptions, encoder_class, linear, tied_linear
from .files import Files
from .language_model_head import HEADS, activation_of

# model_type -> what stands before the backbone's name in `architectures`
MODEL_TYPES = {
    "lir-dpr": "LirDpr", "dpr": "Dpr", "splade": "Splade", "unicoil": "Unicoil", "col": "Col", "mvr": "Mvr",
    "coil": "Coil",
}  # fmt: skip
KINDS: dict[str | None, tuple[Kind, ...]] = {
    "lir-dpr": ("dense",), "dpr": ("dense",), "splade": ("sparse",), "unicoil": ("sparse",), "col": ("multi_vector",),
    "mvr": ("multi_vector",), "coil": ("multi_vector", "dense"),
}  # fmt: skip
_HEAD_NAMES = ("dense", "norm", "decoder")
_OLD_HEAD_NAMES = {  # of version 0.0.6, by backbone
    "bert": ("predictions.transform.dense", "predictions.transform.LayerNorm", "predictions.decoder"),
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
}
_SHARED = (
    "query_length", "doc_length", "similarity_function", "add_marker_tokens", "query_mask_scoring_tokens",
    "doc_mask_scoring_tokens", "query_aggregation_function", "doc_aggregation_function",
    "attend_to_query_expanded_tokens", "attend_to_doc_expanded_tokens",
)  # fmt: skip
OWN_KEYS = frozenset([
    *_SHARED, "pooling_strategy", "query_pooling_strategy", "doc_pooling_strategy", "projection", "embedding_dim",
    "normalization_strategy", "normalize", "sparsification_strategy", "sparsification", "query_expansion",
    "doc_expansion", "query_weighting", "doc_weighting", "k_train", "num_viewer_tokens", "token_embedding_dim",
    "cls_embedding_dim", "tokenizer_pattern", "use_adapter", "adapter_config", "pretrained_adapter_name_or_path",
])  # fmt: skip


def read(files: Files, backbone_config: PretrainedConfig, options: ReadOptions) -> Checkpoint:
    """Read a bi-encoder.

    Raises:
        ValueError: if layers are missing.
    """
    values = files.config
    backbone = files.backbone(encoder_class(backbone_config), backbone_config, options.dtype)
    tokenizer = files.tokenizer(backbone_config)
    config = _config(values)
    first = Output(config, _head(files, values, config, backbone, options.dtype))
    also: tuple[Output, ...] = ()
    if values["model_type"] == "splade":
        for side in ("query", "doc"):
            if config.of(side == "query", "weighting") == "static":
                table = _tensors(files, [f"{side}_weights.weight"], options.dtype)[f"{side}_weights.weight"]
                first.term_weights[side] = nn.Parameter(table.reshape(-1))
    if values["model_type"] == "coil":
        cls = BiEncoderConfig(**_shared(values), query_pooling_strategy="first", doc_pooling_strategy="first")
        also = (Output(cls, nn.Sequential(_linear(files, "cls_projection", values, options.dtype))),)
    return Checkpoint(config, backbone, tokenizer, first.head, files.name, first.term_weights, also)


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in _SHARED if name in values}


def _config(values: dict[str, Any]) -> BiEncoderConfig:
    """The configuration of a model's (first) output; versions name some fields differently."""
    kind = values["model_type"]
    normalize = values.get("normalization_strategy") or ("l2" if values.get("normalize") else None)
    fields = _shared(values) | {
        "normalization_strategy": normalize,
        "sparsification_strategy": values.get("sparsification_strategy") or values.get("sparsification"),
        "projection": values.get("projection", "linear"),
    }
    if kind in ("lir-dpr", "dpr"):
        return BiEncoderConfig(**fields, **_pooling(values, "mean"))
    if kind == "splade":
        return BiEncoderConfig(**(fields | _splade_fields(values)), **_pooling(values, "max"))
    if kind == "unicoil":
        return BiEncoderConfig(**(fields | {"projection": "term_weight", "sparsification_strategy": "relu"}),
                               query_repeated_terms="last", doc_repeated_terms="last")  # fmt: skip
    if kind == "mvr":
        viewers = tuple(f"[VIE{i}]" for i in range(values.get("num_viewer_tokens", 8)))
        marked = fields.pop("add_marker_tokens", False)
        return BiEncoderConfig(
            **fields, query_pooling_strategy="first", doc_pooling_strategy="markers",
            query_markers=("[QUE]",) if marked else (), doc_markers=viewers,
        )  # fmt: skip
    fields |= {"query_pooling_strategy": None, "doc_pooling_strategy": None}
    if kind == "coil":
        return BiEncoderConfig(**fields, skip_first=1, exact_match=True)
    expansion = {f"{side}_expansion": values.get(f"{side}_expansion", False) for side in ("query", "doc")}
    return BiEncoderConfig(**fields, **expansion)


def _pooling(values: dict[str, Any], default: str) -> dict[str, Any]:
    both = values.get("pooling_strategy", default)
    return {f"{side}_pooling_strategy": values.get(f"{side}_pooling_strategy", both) for side in ("query", "doc")}


def _splade_fields(values: dict[str, Any]) -> dict[str, Any]:
    """SPLADE's (weighting, expansion) of each side as one word; texts without a forward pass have no special tokens."""
    fields: dict[str, Any] = {"projection": "mlm"}
    for side in ("query", "doc"):
        weighting = values.get(f"{side}_weighting", "contextualized")
        if weighting == "contextualized" and not values.get(f"{side}_expansion", True):
            weighting = "lexical"
        fields[f"{side}_weighting"] = weighting or "binary"
    fields["special_tokens"] = tuple(
        fields[f"{s}_weighting"] in ("contextualized", "lexical") for s in ("query", "doc")
    )
    return fields


def _head(
    files: Files, values: dict[str, Any], config: BiEncoderConfig, backbone: PreTrainedModel, dtype: torch.dtype
) -> nn.Sequential:
    if config.projection == "mlm":
        return _masked_lm_head(files, backbone, dtype)
    if config.projection is None:
        return nn.Sequential()
    name = "token_projection" if values["model_type"] in ("coil", "unicoil") else "projection"
    return nn.Sequential(_linear(files, name, values, dtype))


def _linear(files: Files, name: str, values: dict[str, Any], dtype: torch.dtype) -> nn.Linear:
    biased = "no_bias" not in (values.get("projection") or "linear")
    wanted = [f"{name}.weight", *([f"{name}.bias"] if biased else [])]
    found = _tensors(files, wanted, dtype)
    return linear(found[wanted[0]], found.get(f"{name}.bias"))


def _tensors(files: Files, names: list[str], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    found = files.tensors(names, dtype=dtype)
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{files.name} lacks {', '.join(missing)}, a layer of a Lightning IR bi-encoder.")
    return found


def _masked_lm_head(files: Files, backbone: PreTrainedModel, dtype: torch.dtype) -> nn.Sequential:
    """Layer, activation, norm, and a decoder on the embeddings unless it has a weight of its own."""
    old = _OLD_HEAD_NAMES.get(backbone.config.model_type, _HEAD_NAMES)
    for dense, norm, decoder in (_HEAD_NAMES, old):
        parts = (f"{dense}.weight", f"{dense}.bias", f"{norm}.weight", f"{norm}.bias", f"{decoder}.weight",
                 f"{decoder}.bias", "predictions.bias", "bias")  # fmt: skip
        found = files.tensors([f"projection.{part}" for part in parts], dtype=dtype)
        if f"projection.{dense}.weight" in found:
            break
    else:
        raise ValueError(f"{files.name} lacks projection.dense, the masked language model's head of a SPLADE model.")
    weights = {name.removeprefix("projection."): tensor for name, tensor in found.items()}
    eps = getattr(backbone.config, "layer_norm_eps", None) or getattr(backbone.config, "norm_eps", None) or 1e-12
    layer_norm = nn.LayerNorm(len(weights[f"{norm}.weight"]), eps=eps, dtype=dtype, bias=f"{norm}.bias" in weights)
    layer_norm.load_state_dict({n: weights[f"{norm}.{n}"] for n in ("weight", "bias") if f"{norm}.{n}" in weights})
    bias = weights.get(f"{decoder}.bias", weights.get("predictions.bias", weights.get("bias")))
    if f"{decoder}.weight" in weights:
        last = linear(weights[f"{decoder}.weight"], bias)
    else:
        embeddings: Any = backbone.get_input_embeddings()
        last = tied_linear(embeddings.weight, bias)
    dense_layer = linear(weights[f"{dense}.weight"], weights.get(f"{dense}.bias"))
    return nn.Sequential(dense_layer, activation_of(backbone.config), layer_norm, last)


def can_write(checkpoint: Checkpoint) -> bool:
    """Whether Lightning IR has a model type for this bi-encoder."""
    return model_type(checkpoint) is not None


def model_type(checkpoint: Checkpoint) -> str | None:
    """Lightning IR's type that does just what this checkpoint does, None if there is none."""
    config = checkpoint.config
    assert isinstance(config, BiEncoderConfig)
    named = {name: getattr(config, name) for name in _SHARED}
    kinds = {
        "lir-dpr": {"query_pooling_strategy": config.query_pooling_strategy},
        "splade": _splade_fields(_weightings(config)) | {"query_pooling_strategy": config.query_pooling_strategy},
        "unicoil": {"projection": "term_weight", "sparsification_strategy": "relu",
                    "query_repeated_terms": "last", "doc_repeated_terms": "last"},
        "mvr": {"query_pooling_strategy": "first", "doc_pooling_strategy": "markers",
                "doc_markers": tuple(f"[VIE{i}]" for i in range(len(config.doc_markers)))},
        "coil": {"query_pooling_strategy": None, "doc_pooling_strategy": None, "skip_first": 1, "exact_match": True},
        "col": {"query_pooling_strategy": None, "doc_pooling_strategy": None, "query_expansion": config.query_expansion,
                "doc_expansion": config.doc_expansion},
    }  # fmt: skip
    free = ("normalization_strategy", "sparsification_strategy", "projection", "embedding_dim")
    for kind, fields in kinds.items():
        if KINDS[kind][0] != config.kind:
            continue
        if kind in ("lir-dpr", "splade"):
            fields = {**fields, "doc_pooling_strategy": config.query_pooling_strategy}
        fixed = {**named, **{name: getattr(config, name) for name in free}, **fields}
        if BiEncoderConfig(**fixed) == config and _fits(kind, checkpoint, config):
            return kind
    return None


def _fits(kind: str, checkpoint: Checkpoint, config: BiEncoderConfig) -> bool:
    """Whether the layers and outputs are those of the type too."""
    if (kind == "coil") != bool(checkpoint.also):
        return False
    if kind == "splade":
        named = checkpoint.backbone.config.model_type in HEADS and getattr(checkpoint.backbone.config, "legacy", True)
        return len(checkpoint.head) == 4 and named
    allowed = {("first",), ("mean",), ("max",), ("sum",)}
    if kind == "lir-dpr" and config.query_pooling_strategy not in allowed:
        return False
    linears = [layer for layer in checkpoint.head if isinstance(layer, nn.Linear)]
    if config.embedding_dim is not None and any(layer.out_features != config.embedding_dim for layer in linears):
        return False  # cut vectors
    return len(linears) == len(checkpoint.head) == (config.projection is not None)


def _weightings(config: BiEncoderConfig) -> dict[str, Any]:
    """Lightning IR's words for SPLADE's weightings."""
    fields: dict[str, Any] = {}
    for side in ("query", "doc"):
        weighting = config.of(side == "query", "weighting")
        words = {"lexical": "contextualized", "binary": None}
        fields |= {
            f"{side}_weighting": words.get(weighting, weighting),
            f"{side}_expansion": weighting == "contextualized",
        }
    return fields


def write(checkpoint: Checkpoint, folder: str) -> None:
    """Write a folder that Lightning IR's `BiEncoderModule(folder)` opens."""
    kind, backbone, config = model_type(checkpoint), checkpoint.backbone, checkpoint.config
    assert kind is not None
    assert isinstance(config, BiEncoderConfig)
    weights = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    for tied in getattr(backbone, "all_tied_weights_keys", None) or ():
        weights.pop(tied, None)
    heads = {"projection": checkpoint.head}
    if kind in ("unicoil", "coil"):
        heads = {"token_projection": checkpoint.head}
    if kind == "coil":
        heads["cls_projection"] = checkpoint.also[0].head
    for prefix, head in heads.items():
        names = _HEAD_NAMES if kind == "splade" else ("",)
        for name, layer in zip(names, (layer for layer in head if any(True for _ in layer.parameters())), strict=False):
            state = {f"{prefix}.{name}.{n}".replace("..", "."): t.contiguous() for n, t in layer.state_dict().items()}
            weights |= state
    if kind == "splade" and checkpoint.head[-1].weight is backbone.get_input_embeddings().weight:  # type: ignore
        del weights["projection.decoder.weight"]
    weights |= {
        f"{s}_weights.weight": t.detach().reshape(-1, 1).contiguous() for s, t in checkpoint.term_weights.items()
    }
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    checkpoint.tokenizer.save_pretrained(folder)
    _write_configs(Path(folder), kind, checkpoint, backbone.config)


def _write_configs(folder: Path, kind: str, checkpoint: Checkpoint, backbone: PretrainedConfig) -> None:
    config = checkpoint.config
    assert isinstance(config, BiEncoderConfig)
    own: dict[str, Any] = {name: getattr(config, name) for name in _SHARED} | {
        "model_type": kind,
        "backbone_model_type": backbone.model_type,
        "architectures": [MODEL_TYPES[kind] + MODEL_MAPPING[type(backbone)].__name__],
        "normalization_strategy": config.normalization_strategy,
        "sparsification_strategy": config.sparsification_strategy,
        "projection": config.projection,
    }
    if config.query_pooling_strategy is not None and kind in ("lir-dpr", "splade"):
        own["pooling_strategy"] = config.query_pooling_strategy[0]
    if kind == "splade":
        own |= _weightings(config)
    if kind in ("unicoil", "coil"):
        biased = any(layer.bias is not None for layer in checkpoint.head if isinstance(layer, nn.Linear))
        own |= {"projection": "linear" if biased else "linear_no_bias", "sparsification_strategy": None}
    if kind == "mvr":
        own["num_viewer_tokens"] = len(config.doc_markers)
    if kind == "col":
        own |= {"query_expansion": config.query_expansion, "doc_expansion": config.doc_expansion}
    dims = [layer.out_features for layer in checkpoint.head if isinstance(layer, nn.Linear)]
    if kind == "coil":
        cls = [
            layer.out_features for output in checkpoint.also for layer in output.head if isinstance(layer, nn.Linear)
        ]
        own |= {"token_embedding_dim": dims[-1], "cls_embedding_dim": cls[-1]}
    elif kind in ("lir-dpr", "col", "mvr") and dims:
        own["embedding_dim"] = dims[-1]
    (folder / "config.json").write_text(json.dumps(backbone.to_dict() | own, indent=2, default=str))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    classes = {"col": "ColTokenizer", "mvr": "MvrTokenizer", "splade": "SpladeTokenizer"}
    tokenizer["tokenizer_class"] = classes.get(kind, "BiEncoderTokenizer")
    names = (
        "query_length", "doc_length", "add_marker_tokens", "query_expansion", "doc_expansion", "query_weighting",
        "doc_weighting", "num_viewer_tokens", "attend_to_query_expanded_tokens", "attend_to_doc_expanded_tokens",
    )  # fmt: skip
    tokenizer |= {name: own[name] for name in names if name in own}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2))
