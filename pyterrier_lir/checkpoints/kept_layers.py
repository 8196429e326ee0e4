"""A checkpoint with another configuration that asks for the layers which it has."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..config import SIDES, BiEncoderConfig, CrossEncoderConfig
from . import backbone
from .checkpoint import Checkpoint
from .files import Files

_ALIKE = ("head", "token_ids", "scoring_strategy", "listwise")  # in what cross-encoders with the same layers are


def fits(own: Checkpoint, config: BiEncoderConfig | CrossEncoderConfig) -> bool:
    """Whether the layers behind a checkpoint's backbone are such as a configuration asks for."""
    if isinstance(config, CrossEncoderConfig):
        return isinstance(own.config, CrossEncoderConfig) and all(
            getattr(own.config, name) == getattr(config, name) for name in _ALIKE
        )
    if isinstance(own.config, CrossEncoderConfig) or own.also or own.config.exact_match != config.exact_match:
        return False
    tables = {side for side in SIDES if config.of(side == "query", "weighting") == "static"}
    states = [len(one.doc_pooling_strategy or ("first",)) for one in (own.config, config)]
    widths = [layer.out_features for layer in own.head if isinstance(layer, nn.Linear)]
    return (
        config.projection in _projections(own)
        and states[0] == states[1]
        and tables == {*own.term_weights}
        and config.embedding_dim in (None, own.config.embedding_dim, *widths[-1:])
    )


def _projections(own: Checkpoint) -> set[str | None]:
    """What a configuration may call the layers: some libraries' are of no name, though one that has one."""
    assert isinstance(own.config, BiEncoderConfig)
    layers = [layer for layer in own.head if not isinstance(layer, nn.Identity)]
    if own.config.projection is not None or len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        return {own.config.projection}
    return {None, "linear" if isinstance(layers[0].bias, nn.Parameter) else "linear_no_bias"}


def scores(own: Checkpoint) -> bool:
    """Whether a checkpoint has layers that its scores depend on, behind its backbone or as the last ones of it."""
    return isinstance(own.config, CrossEncoderConfig) or next(own.head.parameters(), None) is not None


def with_config(files: Files, own: Checkpoint, config: BiEncoderConfig | CrossEncoderConfig) -> Checkpoint:
    """What was read of a checkpoint, with another configuration that `fits`.

    Raises:
        ValueError: if the configuration asks for what the backbone cannot do.
    """
    backbone.check_lengths(files, own.backbone.config, config)
    if isinstance(config, BiEncoderConfig):
        backbone.add_markers(own.tokenizer, own.backbone, config)
    elif isinstance(own.config, CrossEncoderConfig):
        asked = own.backbone.config.is_encoder_decoder  # by words of its own, which no tokenizer knows
        template = own.config.template if asked and config.template is None else config.template
        config = replace(config, linear_bias=own.config.linear_bias, template=template)
    if getattr(config, "head", "linear") == "linear":
        backbone.check_pooling(files, own.backbone, config)
    return replace(own, config=config)
