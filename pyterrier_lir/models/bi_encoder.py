"""Bi-encoders: a query and a document become a vector each; their similarity is the score."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from .. import checkpoints
from ..checkpoints.checkpoint import Checkpoint, max_positions
from ..config import BiEncoderConfig, Similarity
from ..tokenization import doc_tokenizer, query_tokenizer
from .backbone import PACKABLE, PACKED, Inputs, attention, states
from .heads import pool


class BiEncoderModel(nn.Module):
    """A dense bi-encoder: token ids of texts in, one vector each out.

    Args:
        checkpoint: what `checkpoints.load` returns.

    Attributes:
        config: what makes the checkpoint what it is.
        tokenizers: tokenise queries and documents, in this order.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        assert isinstance(checkpoint.config, BiEncoderConfig)
        self.config = checkpoint.config
        self.source = checkpoint.source
        self.backbone = checkpoint.backbone
        self.head = checkpoint.head
        self._tokenize_by(checkpoint.tokenizer)
        self.eval()

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **options: Any) -> Self:
        """Load a bi-encoder from a folder or hub id; `options` are those of `checkpoints.load`.

        Raises:
            ValueError: if the checkpoint is no bi-encoder.
        """
        checkpoint = checkpoints.load(name, **options)
        if not isinstance(checkpoint.config, BiEncoderConfig):
            raise ValueError(f"{name} is a cross-encoder, not a bi-encoder.")
        return cls(checkpoint)

    def with_options(
        self, max_length: int | None = None, instruction: str | None = None, activation: str | None = None
    ) -> Self:
        """The same weights with another maximum length of texts, or another prompt in front of queries.

        Raises:
            ValueError: if the backbone has fewer positions, or for an activation, which a similarity has not.
        """
        if activation is not None:
            raise ValueError(f"activation={activation!r}: {self.source} is a bi-encoder, whose score is a similarity.")
        limit = max_positions(self.backbone.config)
        if max_length is not None and limit is not None and max_length > limit:
            raise ValueError(f"max_length={max_length}; {self.source} has positions for {limit} tokens.")
        if max_length is None and instruction is None:
            return self
        other = copy.copy(self)
        lengths = {} if max_length is None else {"query_length": max_length, "doc_length": max_length}
        prompts = {} if instruction is None else {"query_prompt": instruction}
        other.config = replace(self.config, **lengths, **prompts)  # type: ignore[arg-type]
        other._tokenize_by(self.tokenizers[0].tokenizer)
        return other

    def _tokenize_by(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizers = query_tokenizer(tokenizer, self.config), doc_tokenizer(tokenizer, self.config)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `from_pretrained` opens."""
        tokenizer = self.tokenizers[0].tokenizer
        checkpoints.save(Checkpoint(self.config, self.backbone, tokenizer, self.head, self.source), folder)

    def __repr__(self) -> str:
        return f"BiEncoderModel.from_pretrained({self.source!r})"

    @property
    def packable(self) -> bool:
        """Whether batches may come packed, without padding."""
        return self.backbone.config.model_type in PACKABLE

    def forward(self, inputs: Inputs, query: bool) -> Tensor:
        """Vectors of queries or documents, (B, D) float32."""
        with attention(self.backbone, PACKED if inputs.offsets is not None else None):
            found = states(self.backbone, inputs)
        strategies = self.config.query_pooling_strategy if query else self.config.doc_pooling_strategy
        skip = 0 if self.config.pool_prompt else self.tokenizers[0 if query else 1].prompt_length
        pooled = torch.cat([pool(found, inputs, strategy, skip) for strategy in strategies], dim=-1)
        vectors: Tensor = self.head(pooled).float()
        return vectors[:, : self.config.embedding_dim]

    def similarity(self, queries: Tensor, docs: Tensor) -> Tensor:
        """Similarity of row i of both, (N, D) and (N, D) -> (N,)."""
        return similarity(queries, docs, self.config.similarity_function)


def similarity(queries: Tensor, docs: Tensor, function: Similarity) -> Tensor:
    """Row-wise similarity, larger is more similar: `l2` is the negated distance.

    >>> similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]), "cosine")
    tensor([0.6000])
    """
    if function == "l2":
        distances: Tensor = (queries - docs).norm(dim=-1)
        return -distances
    if function == "cosine":
        queries, docs = (nn.functional.normalize(vectors, dim=-1) for vectors in (queries, docs))
    products: Tensor = (queries * docs).sum(-1)
    return products
