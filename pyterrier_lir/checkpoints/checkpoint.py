"""What a reader returns, and the layers that a checkpoint may put on top of its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import AutoModel, AutoModelForTextEncoding, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..config import BiEncoderConfig, CrossEncoderConfig, Kind


@dataclass
class Output:
    """One of the things that a bi-encoder makes of a text.

    Attributes:
        config: its configuration; how texts become tokens is taken from the first output's.
        head: layers from a state (..., H) to a vector, a weight, or (the last layer) the vocabulary.
        term_weights: of `static` weighting, the weight (V,) of each term under `query` or `doc`.
    """

    config: BiEncoderConfig
    head: nn.Sequential
    term_weights: dict[str, nn.Parameter] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """The parts of a model as they lie in its folder.

    Attributes:
        config: the choices that make the checkpoint what it is.
        backbone: the Hugging Face model.
        tokenizer: its fast tokenizer.
        head: layers from a pooled state (B, H) to logits (B, 1 or 2) or a vector (B, D); empty where the backbone
            itself has the head.
        source: the folder or hub id that it was read from.
        term_weights: see `Output`.
        also: further outputs of a bi-encoder.
    """

    config: CrossEncoderConfig | BiEncoderConfig
    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: nn.Sequential
    source: str
    term_weights: dict[str, nn.Parameter] = field(default_factory=dict)
    also: tuple[Output, ...] = ()

    def only(self, kinds: Sequence[Kind]) -> Checkpoint:
        """This checkpoint with some of its outputs, in the order given.

        Raises:
            ValueError: if there is no such output.
        """
        assert isinstance(self.config, BiEncoderConfig)
        outputs = {o.config.kind: o for o in (Output(self.config, self.head, self.term_weights), *self.also)}
        if unknown := [kind for kind in kinds if kind not in outputs]:
            raise ValueError(f"outputs={tuple(kinds)!r}: {self.source} has no {', '.join(unknown)} output; it has "
                             f"{', '.join(outputs)}.")  # fmt: skip
        first, *also = (outputs[kind] for kind in kinds)
        return Checkpoint(
            first.config, self.backbone, self.tokenizer, first.head, self.source, first.term_weights, tuple(also)
        )


@dataclass(frozen=True)
class ReadOptions:
    """How to read a checkpoint; see `checkpoints.load`."""

    dtype: torch.dtype = torch.float32
    template: str | None = None
    outputs: tuple[Kind, ...] | None = None
    config: BiEncoderConfig | None = None


class Scale(nn.Module):
    """Multiply by a constant: T5 scales states by d_model ** -0.5 before tied output embeddings."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states * self.factor


class Normalize(nn.Module):
    """Divide each vector by its L2 norm."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(states, dim=-1)


class Residual(nn.Module):
    """`layer(x) + shortcut(x)`, the shortcut being the identity where sizes agree."""

    def __init__(self, layer: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.layer, self.shortcut = layer, shortcut

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(states) + self.shortcut(states)
        return out


def activation(path: str) -> nn.Module:
    """The activation of that name in `torch.nn`; dotted paths are cut to the class's own name.

    Raises:
        ValueError: if torch.nn has no such activation: code of other packages is never run.
    """
    name = path.rsplit(".", 1)[-1]
    kind = getattr(nn, name, None)
    if (name != path and not path.startswith("torch.")) or not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"Activation {path!r} is not one of torch.nn, and code from elsewhere is not run.")
    return nn.Softmax(dim=-1) if kind is nn.Softmax else kind()


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer around given parameters: weight (out, in), bias (out,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def tied_linear(weight: nn.Parameter, bias: torch.Tensor | None = None) -> nn.Linear:
    """A linear layer whose weight is a parameter that another layer has too."""
    layer = linear(weight, bias)
    layer.weight = weight
    return layer


def encoder_class(config: PretrainedConfig) -> type:
    """The class of transformers that reads a bi-encoder's backbone: of encoder-decoders the encoder alone."""
    found: type = AutoModelForTextEncoding if config.model_type in ("t5", "mt5", "umt5") else AutoModel
    return found


def max_positions(config: PretrainedConfig) -> int | None:
    """The most tokens that a backbone has positions for; None for relative positions."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 1:
        return None
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet"):
        return positions - (config.pad_token_id or 0) - 1  # their positions start behind the padding id
    return positions


def max_tokens(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int | None:
    """The most tokens of an input: the tokenizer's limit, or the backbone's positions where that is lower."""
    limits = [limit for limit in (tokenizer.model_max_length, max_positions(config)) if limit and 0 < limit < 10**9]
    return min(limits, default=None)
