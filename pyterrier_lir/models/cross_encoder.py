"""Cross-encoders: one score for a query and a document that are read together, pointwise or as a list."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from .. import checkpoints
from ..checkpoints.checkpoint import Checkpoint, max_positions
from ..checkpoints.checkpoint import activation as make_activation
from ..config import CrossEncoderConfig
from ..display import facts_table
from ..pair_tokenizer import PairTokenizer
from . import generative
from .backbone import LISTWISE, PACKABLE, PACKED, Inputs, arguments, attention, states, wants_types
from .facts import facts_of
from .first_token import first_token_only, has_first_token_layer
from .heads import pool


class CrossEncoderModel(nn.Module):
    """A cross-encoder: token ids of pairs in, scores out.

    Args:
        checkpoint: what `checkpoints.load` returns.

    Attributes:
        parameter_count: how many numbers its weights are.
        config: what makes the checkpoint what it is.
        tokenizer: joins queries and documents.
        plain: compute every row of every layer, as the source library does; the reference of the fast path.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        assert isinstance(checkpoint.config, CrossEncoderConfig)
        self.config = checkpoint.config
        self.source = checkpoint.source
        self.backbone = checkpoint.backbone
        self.head = checkpoint.head
        self.activation = make_activation(self.config.activation)
        self.plain = False
        self._join_by(checkpoint.tokenizer)
        self.parameter_count = sum(weight.numel() for weight in self.parameters())  # before they are packed for a CPU
        self.eval()

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], config: CrossEncoderConfig | None = None, **options: Any
    ) -> Self:
        """Load a cross-encoder from a folder or hub id; `options` are those of `checkpoints.load`.

        Args:
            config: another configuration than the checkpoint's; layers that it has not are new, and have to be
                trained.  None makes a `CrossEncoderConfig()` of a backbone alone, with a warning.

        Raises:
            ValueError: if the checkpoint is no cross-encoder.
        """
        checkpoint = checkpoints.load(name, config=config, default=CrossEncoderConfig(), **options)
        if not isinstance(checkpoint.config, CrossEncoderConfig):
            raise ValueError(f"{name} is a bi-encoder, not a cross-encoder.")
        return cls(checkpoint)

    def with_options(
        self, max_length: int | None = None, instruction: str | None = None, activation: str | None = None
    ) -> Self:
        """The same weights with other settings; None leaves a setting as it is.

        Raises:
            ValueError: if the backbone has fewer positions, the model takes no instruction, or torch.nn has no such
                activation.
        """
        given = {"max_length": max_length, "instruction": instruction, "activation": activation}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if not changes:
            return self
        if instruction is not None and not any("{instruction}" in piece for piece in self.config.template or ()):
            raise ValueError(f"{self.source} takes no instruction: its input is a query and a document only.")
        limit = max_positions(self.backbone.config)
        if max_length is not None and limit is not None and max_length > limit:
            raise ValueError(f"max_length={max_length}; {self.source} has positions for {limit} tokens.")
        other = copy.copy(self)
        other.config = replace(self.config, **changes)
        other.activation = make_activation(other.config.activation)
        other._join_by(self.tokenizer.tokenizer)
        return other

    def _join_by(self, tokenizer: PreTrainedTokenizerBase) -> None:
        config = self.backbone.config
        self.tokenizer = PairTokenizer(tokenizer, self.config, wants_types(config), max_positions(config))

    def save_pretrained(self, folder: str | os.PathLike[str], layout: checkpoints.Layout | None = None) -> None:
        """Write a folder that `from_pretrained` opens, and the library whose `layout` it is; see `checkpoints.save`."""
        tokenizer = self.tokenizer.tokenizer
        checkpoints.save(Checkpoint(self.config, self.backbone, tokenizer, self.head, self.source), folder, layout)

    def __repr__(self) -> str:
        return f"CrossEncoderModel.from_pretrained({self.source!r})"

    def _repr_html_(self) -> str:
        return facts_table(repr(self), facts_of(self))

    @property
    def packable(self) -> bool:
        """Whether batches may come packed, without padding."""
        kind = self.backbone.config.model_type
        if self.config.listwise or kind not in PACKABLE:
            return False
        return self.config.head != "classification" or has_first_token_layer(self.backbone) or kind == "modernbert"

    def forward(self, inputs: Inputs, raw: bool = False) -> Tensor:
        """Scores of the pairs, (B,) float32; `raw` ones are before the activation."""
        name = PACKED if inputs.offsets is not None else LISTWISE if self.config.listwise else None
        with attention(self.backbone, name), self._needed_rows(inputs):
            logits = self._logits(inputs).float()
        return read_out(logits, self.config, nn.Identity() if raw else self.activation)

    def _logits(self, inputs: Inputs) -> Tensor:
        """(B, 1 or 2) logits in the backbone's precision."""
        config, backbone = self.config, self.backbone
        if config.head == "classification" and backbone.config.is_encoder_decoder:
            return generative.end_logits(backbone, inputs)
        if config.head == "classification":
            logits: Tensor = backbone(**arguments(backbone, inputs)).logits
            return logits
        if backbone.config.is_encoder_decoder:
            state = generative.first_decoder_state(backbone, inputs)[:, 0]
            if config.pooling_strategy == "sum":  # Lightning IR sums the one state over the encoder's mask
                state = state * inputs.lengths[:, None]
        elif config.head == "tokens":
            state = pool(generative.last_states(backbone, inputs), inputs, config.pooling_strategy)
        else:
            found = states(backbone, inputs, interaction=int(config.add_extra_token) if config.listwise else None)
            state = found[:, 0] if self._first_only else pool(found, inputs, config.pooling_strategy)
        if config.head == "tokens":
            return generative.word_logits(backbone, state, config.token_ids)
        scores: Tensor = self.head(state)
        return scores

    @property
    def _first_only(self) -> bool:
        """Whether nothing reads more than the first token of the last layer."""
        reads_first = self.config.head == "classification" or (
            self.config.head == "linear" and self.config.pooling_strategy == "first"
        )
        exact = reads_first and not self.config.listwise and has_first_token_layer(self.backbone)
        return exact and not self.plain and not torch.is_grad_enabled()

    @contextlib.contextmanager
    def _needed_rows(self, inputs: Inputs) -> Iterator[None]:
        """Skip rows that nothing reads, and give packed states the shape that classification heads expect."""
        if self._first_only:
            with first_token_only(self.backbone):
                yield
        elif self.config.head == "classification" and inputs.offsets is not None:
            strategy = getattr(self.backbone.config, "classifier_pooling", "cls")

            def pooled(module: nn.Module, args: Any, output: Any) -> Any:
                rows = pool(output.last_hidden_state, inputs, "mean" if strategy == "mean" else "first")
                output.last_hidden_state = rows[:, None]
                return output

            hook = stack(self.backbone).register_forward_hook(pooled)
            try:
                yield
            finally:
                hook.remove()
        else:
            yield


def stack(backbone: Any) -> nn.Module:
    """The module whose output's last_hidden_state the heads read."""
    base: nn.Module = backbone.base_model
    encoder: nn.Module | None = getattr(base, "encoder", None)
    return base if encoder is None else encoder


def read_out(logits: Tensor, config: CrossEncoderConfig, act: nn.Module) -> Tensor:
    """Scores (B,) from logits (B, 1 or 2), columns (not relevant, relevant).

    >>> two = torch.tensor([[0.0, 1.0]])
    >>> configs = [CrossEncoderConfig(scoring_strategy=strategy) for strategy in ("rank", "mono", "difference")]
    >>> [round(float(read_out(two, config, nn.Identity())), 4) for config in configs]
    [1.0, -0.3133, 1.0]
    """
    if config.scoring_strategy == "mono":
        return act(logits.log_softmax(-1)[:, 1])  # type: ignore[no-any-return]
    if config.scoring_strategy == "difference":
        return act(logits[:, 1] - logits[:, 0])  # type: ignore[no-any-return]
    return act(logits)[:, -1]  # type: ignore[no-any-return]
