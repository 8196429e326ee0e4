"""What a model is, in words: family, backbone, parameters, how it scores, how much it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..checkpoints.checkpoint import max_positions
from ..config import BiEncoderConfig, CrossEncoderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .bi_encoder import BiEncoderModel
    from .cross_encoder import CrossEncoderModel


def facts_of(model: CrossEncoderModel | BiEncoderModel) -> dict[str, Any]:
    """The facts of a loaded model."""
    configs = getattr(model, "configs", [model.config])
    first = configs[0]
    facts: dict[str, Any] = {
        "what": " and ".join(map(kind_of, configs)),
        "backbone": backbone_of(model.backbone),
        "parameters": model.parameter_count,
        "precision": str(model.backbone.dtype).removeprefix("torch."),
    }
    if isinstance(first, BiEncoderConfig):
        facts["vectors"] = [f"{KIND_WORDS[kind]}: {model.size(kind):,} {_NUMBERS[kind]}" for kind in model.kinds]  # type: ignore[union-attr,operator]
        facts["similarity"] = [_similarity(config) for config in configs]
    else:
        facts["score"] = f"{first.head}, {first.scoring_strategy}"
        facts |= {"activation": first.activation} if first.activation != "Identity" else {}
        facts |= {"documents seen together": first.depth} if first.listwise else {}
    return {**facts, "most tokens": _limits(first, max_positions(model.backbone.config))}


KIND_WORDS = {"dense": "dense", "sparse": "learned sparse", "multi_vector": "multi-vector"}
_NUMBERS = {"dense": "numbers", "sparse": "terms", "multi_vector": "numbers of each token"}


def kind_of(config: BiEncoderConfig | CrossEncoderConfig) -> str:
    """What a model of this configuration is, in words.

    >>> kind_of(CrossEncoderConfig(depth=100)), kind_of(BiEncoderConfig.splade())
    ('listwise cross-encoder', 'learned sparse bi-encoder')
    """
    if isinstance(config, CrossEncoderConfig):
        return "listwise cross-encoder" if config.listwise else "cross-encoder"
    return f"{KIND_WORDS[config.kind]} bi-encoder"


def changed(config: BiEncoderConfig | CrossEncoderConfig) -> dict[str, Any]:
    """The fields of a configuration that are not as by default."""
    usual = type(config)().to_dict()
    return {name: value for name, value in config.to_dict().items() if value != usual[name]}


def backbone_of(backbone: PreTrainedModel) -> str:
    """The class and the size of a backbone."""
    layers, width = (getattr(backbone.config, name, "?") for name in ("num_hidden_layers", "hidden_size"))
    return f"{type(backbone).__name__}, {layers} layers of {width}"


def _similarity(config: BiEncoderConfig) -> str:
    if config.kind != "multi_vector":
        return config.similarity_function
    doc, query = config.doc_aggregation_function, config.query_aggregation_function
    return f"{config.similarity_function}, {doc} over a document's tokens, {query} over a query's"


def _limits(config: BiEncoderConfig | CrossEncoderConfig, positions: int | None) -> list[str]:
    """Of what there are how many tokens at most."""
    most = {"query": config.query_length, "document": config.doc_length,
            "pair": getattr(config, "max_length", None), "positions": positions}  # fmt: skip
    return [f"{what} {count:,}" for what, count in most.items() if count is not None]
