"""A batch behind the model, which losses are computed of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .forward import TextVectors
from .similarity import all_scores, own_scores


@dataclass
class Scored:
    """A batch behind the model.

    Attributes:
        scores: (Q, D) of each query's documents.
        targets: (Q, D) what the dataset says of them; larger is better.
        mask: (Q, D) True for documents that are there; None for all.
        queries, docs: vectors of a bi-encoder's outputs, of Q and Q * D texts; None for cross-encoders.  Documents that
            are not there have zeros, or no vectors.
        query_ids, doc_ids: by which equal texts are known.
        texts: the queries and the documents that are there.
        others, other_ids: documents of other processes, N of them, which are further negatives.
    """

    scores: Tensor
    targets: Tensor | None = None
    mask: Tensor | None = None
    queries: list[TextVectors] | None = None
    docs: list[TextVectors] | None = None
    query_ids: Sequence[str] | None = None
    doc_ids: Sequence[Sequence[str]] | None = None
    texts: tuple[Sequence[str], Sequence[str]] | None = None
    others: list[TextVectors] | None = None
    other_ids: list[str | None] | None = None

    @cached_property
    def all(self) -> Tensor:
        """Scores (Q, Q * D + N) of each query with all documents of the batch, those of other processes behind."""
        if self.queries is None or self.docs is None:
            raise ValueError("A cross-encoder scores no query with other queries' documents: take another loss.")
        own = all_scores(self.queries, self.docs)
        return own if self.others is None else torch.cat([own, all_scores(self.queries, self.others)], dim=1)

    @property
    def labels(self) -> Tensor:
        """The targets, which the dataset must have."""
        if self.targets is None:
            raise ValueError("The loss needs targets, which the training dataset does not give: set its targets=.")
        return self.targets

    @property
    def labels_of_those_there(self) -> Tensor:
        """The targets, -inf for documents that are not there."""
        return self.labels if self.mask is None else self.labels.masked_fill(~self.mask, -torch.inf)

    def warn_of_equal_targets(self) -> None:
        """Warn where the targets of no query tell its documents apart, from which no order is learned."""
        if self.targets is None or self.targets.shape[1] < 2:
            return
        there = torch.ones_like(self.targets, dtype=torch.bool) if self.mask is None else self.mask
        largest, smallest = (one.masked_fill(~there, worst).amax(1)
                             for one, worst in ((self.targets, -torch.inf), (-self.targets, -torch.inf)))  # fmt: skip
        if bool((largest == -smallest).all()):
            warnings.warn(
                f"All documents of each of the {len(largest)} queries of the first batch have equal targets, from "
                "which no order is learned: check targets= and the judgements of the training dataset.",
                stacklevel=2,
            )

    def vectors(self) -> tuple[list[TextVectors], list[TextVectors]]:
        """The vectors of queries and documents."""
        if self.queries is None or self.docs is None:
            raise ValueError("A cross-encoder has no vectors: this loss is for bi-encoders.")
        return self.queries, self.docs

    def numbers(self) -> list[tuple[Tensor, Tensor]]:
        """The numbers of the queries' vectors and of those of the documents that are there, of each output."""
        queries, docs = self.vectors()
        own = [one.values if self.mask is None or one.offsets is not None else one.values[self.mask.flatten()]
               for one in docs]  # fmt: skip
        return [(query.values, doc) for query, doc in zip(queries, own, strict=True)]

    def cut(self, size: int) -> Scored:
        """The batch with vectors cut to so many numbers."""
        queries, docs = ([one.cut(size) for one in side] for side in self.vectors())
        others = None if self.others is None else [one.cut(size) for one in self.others]
        return replace(self, scores=own_scores(queries, docs), queries=queries, docs=docs, others=others)


class Loss:
    """A loss of a batch, a scalar; any function of a `Scored` may take its place."""

    def __call__(self, scored: Scored) -> Tensor:
        raise NotImplementedError
