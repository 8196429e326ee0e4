"""Bi-encoders: queries and documents become vectors, sparse vectors or vectors of their tokens, each for itself."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from .. import checkpoints
from ..checkpoints.checkpoint import Checkpoint, Output, max_positions
from ..config import BiEncoderConfig, Kind
from ..display import facts_table
from ..text_tokenizer import TextTokenizer, masked_ids
from ..tokenization import backend_of
from .backbone import PACKABLE, PACKED, Inputs, attention, states, wants_types
from .facts import facts_of
from .first_token import first_token_only, has_first_token_layer
from .heads import pool
from .vocabulary import Vocabulary, sparsify


class BiEncoderModel(nn.Module):
    """A bi-encoder: token ids of texts in, numbers of each output out.

    Most models have one output; COIL and BGE-M3 have several, whose scores add up.

    Args:
        checkpoint: what `checkpoints.load` returns.

    Attributes:
        parameter_count: how many numbers its weights are.
        config: what makes the checkpoint what it is; of several outputs, the first.
        outputs: an `OutputModel` for each output.
        tokenizers: tokenise queries and documents, in this order.
        fingerprint: tells models with other weights apart, in whatever precision they were loaded.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        assert isinstance(checkpoint.config, BiEncoderConfig)
        self.source = checkpoint.source
        self.backbone = checkpoint.backbone
        first = Output(checkpoint.config, checkpoint.head, checkpoint.term_weights)
        self.outputs: Sequence[OutputModel] = _modules(OutputModel(output) for output in (first, *checkpoint.also))
        self._tokenize_by(checkpoint.tokenizer)
        self.plain = False  # leave shortcuts out, to compare with
        self.fingerprint = fingerprint_of(self)
        self.register_load_state_dict_post_hook(_renew)
        self.parameter_count = sum(weight.numel() for weight in self.parameters())  # before they are packed for a CPU
        self.eval()

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], config: BiEncoderConfig | None = None, **options: Any
    ) -> Self:
        """Load a bi-encoder from a folder or hub id; `options` are those of `checkpoints.load`.

        Args:
            config: another configuration than the checkpoint's; layers that it has not are new, and have to be
                trained.  None makes a `BiEncoderConfig()` of a backbone alone, with a warning.

        Raises:
            ValueError: if the checkpoint is no bi-encoder.
        """
        checkpoint = checkpoints.load(name, config=config, default=BiEncoderConfig(), **options)
        if not isinstance(checkpoint.config, BiEncoderConfig):
            raise ValueError(f"{name} is a cross-encoder, not a bi-encoder.")
        return cls(checkpoint)

    @property
    def config(self) -> BiEncoderConfig:
        """The first output's configuration."""
        return self.configs[0]

    @property
    def configs(self) -> list[BiEncoderConfig]:
        """The configuration of each output."""
        return [output.config for output in self.outputs]

    @property
    def kinds(self) -> list[Kind]:
        """The kind of each output."""
        return [config.kind for config in self.configs]

    def with_options(
        self,
        max_length: int | None = None,
        instruction: str | None = None,
        activation: str | None = None,
        **changes: Any,
    ) -> Self:
        """The same weights with other settings; None leaves a setting as it is.

        Args:
            max_length: most tokens of queries and documents.  A side that is filled up with `[MASK]`, as ColBERT's
                queries, is not made longer by it: each of these makes a vector.  `query_length` does that.
            instruction: text in front of queries, as `query_prompt`.
            activation: not for bi-encoders.
            changes: fields of `BiEncoderConfig`; `query_prompt_name` and `doc_prompt_name` choose a prompt that the
                checkpoint holds by its name.

        Raises:
            ValueError: if the backbone has fewer positions, vectors fewer numbers or the checkpoint no such prompt, or
                for an activation, which a similarity has not.
        """
        if activation is not None:
            raise ValueError(f"activation={activation!r}: {self.source} is a bi-encoder, whose score is a similarity.")
        changes = {name: value for name, value in changes.items() if value is not None}
        if max_length is not None:
            self._check_length("max_length", max_length)
            changes = {**self._lengths(max_length), **changes}
        if instruction is not None:
            changes["query_prompt"] = instruction
        for side in ("query", "doc"):
            name = changes.pop(f"{side}_prompt_name", None)
            if name is not None:
                changes[f"{side}_prompt"] = self._prompt(name)
        if not changes:
            return self
        self._check(changes)
        other = copy.copy(self)
        other._modules = {**self._modules}
        outputs = (copy.copy(output) for output in self.outputs)
        other.outputs = _modules(output.with_config(**changes) for output in outputs)
        other._tokenize_by(self.tokenizers[0].tokenizer)
        return other

    def _prompt(self, name: str) -> str:
        prompts = dict(self.config.prompts)
        if name not in prompts:
            known = ", ".join(map(repr, prompts)) or "none; give the text itself with query_prompt= or doc_prompt="
            raise ValueError(f"{self.source} has no prompt {name!r}; it has: {known}.")
        return prompts[name]

    def _lengths(self, max_length: int) -> dict[str, int]:
        """The length of each side; one that is filled up to its length keeps it."""
        lengths = {"query_length": max_length, "doc_length": max_length}
        for query, name in zip((True, False), lengths, strict=True):
            own = getattr(self.config, name)
            if own is not None and self.config.of(query, "expansion") and not self.config.expansion_length:
                lengths[name] = min(own, max_length)
        return lengths

    def _check_length(self, name: str, length: int) -> None:
        limit = max_positions(self.backbone.config)
        if limit is not None and length > limit:
            raise ValueError(f"{name}={length}; {self.source} has positions for {limit} tokens.")

    def _check(self, changes: dict[str, Any]) -> None:
        for name in ("query_length", "doc_length"):
            self._check_length(name, changes.get(name, 0))
        cut = changes.get("embedding_dim")
        if cut is None:
            return
        if "sparse" in self.kinds:
            raise ValueError(f"truncate_dim (embedding_dim) is {cut}: {self.source} makes sparse vectors, not cut.")
        sizes = [output.size(self.backbone.config.hidden_size) for output in self.outputs]
        if cut > min(sizes):
            raise ValueError(
                f"truncate_dim (embedding_dim) is {cut}; the vectors of {self.source} have {min(sizes)} numbers."
            )

    def _tokenize_by(self, tokenizer: PreTrainedTokenizerBase) -> None:
        given = wants_types(self.backbone.config) and "token_type_ids" in tokenizer.model_input_names
        if given and any(backend_of(tokenizer).encode("x").type_ids):
            raise ValueError(
                f"The tokenizer of {self.source} gives the tokens of one text several types; bi-encoders have one."
            )
        positions = max_positions(self.backbone.config)
        self.tokenizers = tuple(TextTokenizer(tokenizer, self.configs, query, positions) for query in (True, False))
        for output in self.outputs:
            output.skips = tuple(self._skip(output.config, query) for query in (True, False))
            output.masked = tuple(
                torch.from_numpy(masked_ids(tokenizer, output.config.of(query, "mask_scoring_tokens"))).long()
                for query in (True, False)
            )

    def _skip(self, config: BiEncoderConfig, query: bool) -> int:
        tokenizer = self.tokenizers[0 if query else 1]
        # without a prompt nothing is left out, not even the special tokens that stand in front of one
        prompt = 0 if config.pool_prompt or not tokenizer.prompt else tokenizer.prompt_length
        return max(prompt, config.skip_first)

    def save_pretrained(self, folder: str | os.PathLike[str], layout: checkpoints.Layout | None = None) -> None:
        """Write a folder that `from_pretrained` opens, and the library whose `layout` it is; see `checkpoints.save`."""
        checkpoints.save(self.checkpoint(), folder, layout)

    def checkpoint(self) -> Checkpoint:
        """The parts that this model was made of."""
        first, *also = (output.parts() for output in self.outputs)
        tokenizer = self.tokenizers[0].tokenizer
        return Checkpoint(
            first.config, self.backbone, tokenizer, first.head, self.source, first.term_weights, tuple(also)
        )

    def __repr__(self) -> str:
        return f"BiEncoderModel.from_pretrained({self.source!r})"

    def _repr_html_(self) -> str:
        return facts_table(repr(self), facts_of(self))

    @property
    def packable(self) -> bool:
        """Whether batches may come packed, without padding."""
        hidden_masks = any(
            config.of(query, "expansion") and not config.attend_to_expansion(query)
            for config in self.configs
            for query in (True, False)
        )
        return self.backbone.config.model_type in PACKABLE and not hidden_masks

    def size(self, kind: Kind) -> int:
        """How many numbers a vector of that kind has."""
        output = next(output for output in self.outputs if output.config.kind == kind)
        size: int = output.size(self.backbone.config.hidden_size)
        return self.vocabulary_size if kind == "sparse" else min(size, output.config.embedding_dim or size)

    @property
    def vocabulary_size(self) -> int:
        """How many terms sparse vectors are over."""
        return int(self.backbone.config.vocab_size)

    def needs_forward(self, query: bool) -> bool:
        """Whether queries (or documents) go through the backbone; those of inference-free models do not."""
        return any(config.of(query, "weighting") not in ("static", "binary") for config in self.configs)

    def reads_first_only(self, query: bool) -> bool:
        """Whether nothing reads more than the first token of the last layer."""
        firsts = all(c.kind == "dense" and c.of(query, "pooling_strategy") == ("first",) for c in self.configs)
        return firsts and has_first_token_layer(self.backbone)

    def _first_only(self, query: bool) -> bool:
        unskipped = all(output.skips[0 if query else 1] == 0 for output in self.outputs)
        return unskipped and self.reads_first_only(query) and not self.plain and not torch.is_grad_enabled()

    def forward(self, inputs: Inputs, query: bool) -> dict[Kind, Tensor]:
        """The numbers of each output.

        Returns:
            kind -> `dense` (B, D); `sparse` (B, V), or (tokens,) of single tokens with `projection="term_weight"`;
            `multi_vector` (tokens, D) of the tokens that count, or (B, D) where that side is pooled.  All float32.
        """
        with attention(self.backbone, PACKED if inputs.offsets is not None else None):
            if self._first_only(query):
                with first_token_only(self.backbone):
                    found = states(self.backbone, inputs)[:, :1]
                inputs = replace(inputs, offsets=None, mask=None)
            else:
                found = states(self.backbone, inputs)
        return {output.config.kind: output(found, inputs, query) for output in self.outputs}


def _modules(outputs: Iterable[OutputModel]) -> Sequence[OutputModel]:
    """The outputs as a list that torch knows of."""
    return cast("Sequence[OutputModel]", nn.ModuleList(outputs))


def _renew(model: nn.Module, _: Any) -> None:
    """Other weights were loaded."""
    cast("BiEncoderModel", model).fingerprint = fingerprint_of(model)


def fingerprint_of(model: nn.Module) -> str:
    """A digest of the names, the shapes and some numbers of all weights, before they are packed for a device."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if ".pooler." in name:  # which no bi-encoder reads, and many checkpoints lack: it is random then
            continue
        few = weight.detach().reshape(-1)[:: max(1, weight.numel() // 16)][:16]
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(few.to(torch.bfloat16).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class OutputModel(nn.Module):
    """What is made of the backbone's states for one output: pooled, projected, sparsified, normalised, cut.

    Args:
        output: configuration and layers.
    """

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.config = output.config
        self.skips: tuple[int, ...] = (0, 0)  # tokens at the start that are not pooled, of queries and documents
        self.masked: tuple[Tensor, ...] = ()  # ids of terms that do not count, of queries and documents
        self.term_weights = nn.ParameterDict(output.term_weights)
        self.head: nn.Module = output.head
        linears = [module for module in output.head.modules() if isinstance(module, nn.Linear)]
        self._width = linears[-1].out_features if linears else None
        if self.config.projection == "mlm":
            decoder = output.head[-1]
            assert isinstance(decoder, nn.Linear)
            self.head = Vocabulary(nn.Sequential(*list(output.head)[:-1]), decoder)

    def with_config(self, **changes: Any) -> Self:
        """This output, changed."""
        self.config = replace(self.config, **changes)
        return self

    def parts(self) -> Output:
        """Configuration and layers as they are saved."""
        head = self.head
        if isinstance(head, Vocabulary):
            head = nn.Sequential(*head.transform, head.decoder)
        assert isinstance(head, nn.Sequential)
        return Output(self.config, head, dict(self.term_weights))

    def size(self, hidden: int) -> int:
        """How many numbers a vector has, on states of `hidden` numbers."""
        return self._width or hidden * len(self.config.doc_pooling_strategy or ("first",))

    def forward(self, states: Tensor, inputs: Inputs, query: bool) -> Tensor:
        """Numbers of this output; see `BiEncoderModel.forward`."""
        config = self.config
        strategies = config.of(query, "pooling_strategy")
        if isinstance(self.head, Vocabulary):
            numbers: Tensor = self.head(states, inputs, strategies[0], config.sparsification_strategy)
            masked = self.masked[0 if query else 1].to(numbers.device)
            return self._own_terms(numbers, inputs, query).index_fill(1, masked, 0.0)
        if config.kind in inputs.kept:
            rows = states.reshape(-1, states.shape[-1])[inputs.kept[config.kind]]
        else:
            skip = self.skips[0 if query else 1]
            rows = torch.cat([pool(states, inputs, strategy, skip) for strategy in strategies], dim=-1)
        vectors = sparsify(self.head(rows).float(), config.sparsification_strategy)
        if config.projection == "term_weight":
            return vectors.squeeze(-1)
        if config.normalization_strategy == "l2":
            vectors = nn.functional.normalize(vectors, dim=-1)
        return vectors[:, : config.embedding_dim]

    def _own_terms(self, numbers: Tensor, inputs: Inputs, query: bool) -> Tensor:
        """With `lexical` weighting, the numbers of the text's own terms; others are 0."""
        if self.config.of(query, "weighting") != "lexical":
            return numbers
        rows = torch.arange(len(inputs), device=numbers.device).repeat_interleave(inputs.lengths.to(numbers.device))
        ids = inputs.ids[0] if inputs.offsets is not None else inputs.ids.reshape(-1)
        if inputs.offsets is None and inputs.mask is not None:
            ids = ids[inputs.mask.reshape(-1)]
        own = torch.zeros_like(numbers, dtype=torch.bool)
        own[rows, ids] = True
        return numbers * own
