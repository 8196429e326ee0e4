"""What a model is trained for: losses with their settings, over the scores and vectors of a batch.

Classes bear Lightning IR's names where it has them; the formulas are in `losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from . import in_batch, losses
from .forward import TextVectors
from .similarity import all_scores, own_scores

Positives = Literal["all", "first"]
Negatives = Literal["all", "first", "all_and_non_first"]


@dataclass
class Scored:
    """A batch behind the model.

    Attributes:
        scores: (Q, D) of each query's documents.
        targets: (Q, D) what the dataset says of them; larger is better.
        mask: (Q, D) True for documents that are there; None for all.
        queries, docs: vectors of a bi-encoder's outputs, of Q and Q * D texts; None for cross-encoders.
        query_ids, doc_ids: by which equal texts are known.
        others, other_ids: documents of other processes, N of them, which are further negatives.
    """

    scores: Tensor
    targets: Tensor | None = None
    mask: Tensor | None = None
    queries: list[TextVectors] | None = None
    docs: list[TextVectors] | None = None
    query_ids: Sequence[str] | None = None
    doc_ids: Sequence[Sequence[str]] | None = None
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

    def vectors(self) -> tuple[list[TextVectors], list[TextVectors]]:
        """The vectors of queries and documents."""
        if self.queries is None or self.docs is None:
            raise ValueError("A cross-encoder has no vectors: this loss is for bi-encoders.")
        return self.queries, self.docs

    def cut(self, size: int) -> Scored:
        """The batch with vectors cut to so many numbers."""
        queries, docs = ([one.cut(size) for one in side] for side in self.vectors())
        others = None if self.others is None else [one.cut(size) for one in self.others]
        return replace(self, scores=own_scores(queries, docs), queries=queries, docs=docs, others=others)


@runtime_checkable
class Loss(Protocol):
    """A loss of a batch, a scalar."""

    def __call__(self, scored: Scored) -> Tensor: ...


@dataclass(frozen=True)
class RankNet:
    """See `losses.ranknet`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.ranknet(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class SupervisedMarginMSE:
    """See `losses.margin_mse`."""

    needs_scores: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.margin_mse(scored.scores, scored.labels, scored.mask)


@dataclass(frozen=True)
class ConstantMarginMSE:
    """See `losses.constant_margin_mse`."""

    margin: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.constant_margin_mse(scored.scores, scored.labels, self.margin, scored.mask)


@dataclass(frozen=True)
class KLDivergence:
    """See `losses.kl_divergence`."""

    temperature: float = 1.0
    needs_scores: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.kl_divergence(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class InfoNCE:
    """See `losses.info_nce`: the best document against the query's others."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.info_nce(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class PearsonCorrelation:
    """See `losses.pearson`."""

    def __call__(self, scored: Scored) -> Tensor:
        return losses.pearson(scored.scores, scored.labels, scored.mask)


@dataclass(frozen=True)
class ApproxNDCG:
    """See `losses.approx_ndcg`."""

    temperature: float = 1.0
    scale_gains: bool = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.approx_ndcg(scored.scores, scored.labels, self.temperature, self.scale_gains, scored.mask)


@dataclass(frozen=True)
class ApproxMRR:
    """See `losses.approx_mrr`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.approx_mrr(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class ApproxRankMSE:
    """See `losses.approx_rank_mse`."""

    temperature: float = 1.0
    discount: Literal["log2", "reciprocal"] | None = None

    def __call__(self, scored: Scored) -> Tensor:
        return losses.approx_rank_mse(scored.scores, scored.labels, self.temperature, self.discount, scored.mask)


@dataclass(frozen=True)
class NeuralNDCG:
    """See `losses.neural_ndcg`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.neural_ndcg(scored.scores, scored.labels, temperature=self.temperature, mask=scored.mask)


@dataclass(frozen=True)
class NeuralMRR:
    """See `losses.neural_mrr`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.neural_mrr(scored.scores, scored.labels, temperature=self.temperature, mask=scored.mask)


@dataclass(frozen=True)
class ListNet:
    """See `losses.listnet`."""

    def __call__(self, scored: Scored) -> Tensor:
        return losses.listnet(scored.scores, scored.labels, mask=scored.mask)


@dataclass(frozen=True)
class ListMLE:
    """See `losses.list_mle`."""

    def __call__(self, scored: Scored) -> Tensor:
        return losses.list_mle(scored.scores, scored.labels, mask=scored.mask)


@dataclass(frozen=True)
class LambdaLoss:
    """See `losses.lambda_loss`."""

    weighting: Literal["ndcg_loss2++", "ndcg_loss2", "ndcg_loss1", "lambda_rank"] | None = "ndcg_loss2++"
    k: int | None = None
    sigma: float = 1.0
    mu: float = 10.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.lambda_loss(scored.scores, scored.labels, weighting=self.weighting, k=self.k, sigma=self.sigma,
                                  mu=self.mu, mask=scored.mask)  # fmt: skip


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """See `losses.binary_cross_entropy`; targets above 0 are relevant."""

    positive_weight: float | None = None

    def __call__(self, scored: Scored) -> Tensor:
        labels = (scored.labels > 0).float()
        return losses.binary_cross_entropy(scored.scores, labels, self.positive_weight, scored.mask)


@dataclass(frozen=True)
class MeanSquaredError:
    """See `losses.mean_squared_error`."""

    needs_scores: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.mean_squared_error(scored.scores, scored.labels, scored.mask)


@dataclass(frozen=True)
class InBatchCrossEntropy:
    """The best document of each query against those of the batch (multiple negatives ranking, InfoNCE).

    Documents that are known to be relevant are no negatives: those with the id of one of the query's positives, and
    those of the same query elsewhere in the batch.

    Args:
        temperature: that scores are divided by.
        pos_sampling_technique: `first` takes the document with the largest target, `all` those with a target above 0.
        neg_sampling_technique: `all` documents of other queries, the `first` of each, or `all_and_non_first`: also the
            query's own others.
        max_num_neg_samples: how many of them, drawn anew for each batch.
        min_target_diff: how far below the best an own document's target must lie to be a negative.
    """

    temperature: float = 1.0
    pos_sampling_technique: Positives = "first"
    neg_sampling_technique: Negatives = "all_and_non_first"
    max_num_neg_samples: int | None = None
    min_target_diff: float | None = None

    def __call__(self, scored: Scored) -> Tensor:
        targets = scored.labels
        if scored.mask is not None:
            targets = targets.masked_fill(~scored.mask, -torch.inf)
        ids = None if scored.doc_ids is None else [list(own) for own in scored.doc_ids]
        positives, allowed = in_batch.in_batch_negatives(
            targets, ids, None if scored.query_ids is None else list(scored.query_ids), self.pos_sampling_technique,
            self.neg_sampling_technique, self.min_target_diff, self.max_num_neg_samples,
        )  # fmt: skip
        if scored.mask is not None:
            allowed = allowed & scored.mask.reshape(1, -1)
        if scored.other_ids is not None:
            allowed = torch.cat([allowed, _unknown(positives, ids, scored.other_ids).to(allowed.device)], dim=1)
        return in_batch.in_batch_cross_entropy(scored.all, positives, allowed, self.temperature)


def _unknown(positives: Tensor, ids: list[list[str]] | None, others: list[str | None]) -> Tensor:
    """Which documents of other processes (Q, N) are not known to be relevant; None stands for padding."""
    there = torch.tensor([one is not None for one in others]).expand(len(positives), -1)
    if ids is None:
        return there
    flat = [doc for own in ids for doc in own]
    rows = positives.view(len(positives), -1).tolist()
    good = [{flat[column] for column in row if column >= 0} for row in rows]
    return there & torch.tensor([[one not in own for one in others] for own in good])


@dataclass(frozen=True)
class ScoreBasedInBatchCrossEntropy(InBatchCrossEntropy):
    """`InBatchCrossEntropy` whose own negatives lie `min_target_diff` below the best by the teacher's scores."""

    min_target_diff: float | None = 3.0
    needs_scores: ClassVar[bool] = True


@dataclass(frozen=True)
class FLOPSRegularization:
    """See `in_batch.flops`; of queries and of documents, each with its weight."""

    query_weight: float = 1e-4
    doc_weight: float = 1e-4
    function: ClassVar[Any] = staticmethod(in_batch.flops)

    def __call__(self, scored: Scored) -> Tensor:
        queries, docs = scored.vectors()
        return sum((self.query_weight * self.function(query.values) + self.doc_weight * self.function(doc.values)
                    for query, doc in zip(queries, docs, strict=True)), start=scored.scores.new_zeros(()))  # fmt: skip


@dataclass(frozen=True)
class L1Regularization(FLOPSRegularization):
    """See `in_batch.l1`."""

    function: ClassVar[Any] = staticmethod(in_batch.l1)


@dataclass(frozen=True)
class L2Regularization(FLOPSRegularization):
    """See `in_batch.l2`."""

    function: ClassVar[Any] = staticmethod(in_batch.l2)


@dataclass(frozen=True)
class Matryoshka:
    """A loss over vectors cut to several sizes (arXiv:2205.13147, equation 1).

    Args:
        loss: that is summed.
        dims: sizes, in numbers.
        weights: of each; None for 1.
    """

    loss: Loss = field(default_factory=InBatchCrossEntropy)
    dims: tuple[int, ...] = (256, 128, 64)
    weights: tuple[float, ...] | None = None

    def __call__(self, scored: Scored) -> Tensor:
        queries, _ = scored.vectors()
        size = queries[0].values.shape[-1]
        if max(self.dims) > size:
            raise ValueError(f"dims={self.dims}: the model's vectors have {size} numbers.")
        weights = self.weights or (1.0,) * len(self.dims)
        parts = [weight * self.loss(scored.cut(dim)) for dim, weight in zip(self.dims, weights, strict=True)]
        return torch.stack(parts).sum()


OBJECTIVES: dict[str, type[Any]] = {
    one.__name__: one
    for one in (RankNet, SupervisedMarginMSE, ConstantMarginMSE, KLDivergence, InfoNCE, PearsonCorrelation, ApproxNDCG,
                ApproxMRR, ApproxRankMSE, NeuralNDCG, NeuralMRR, ListNet, ListMLE, LambdaLoss, BinaryCrossEntropy,
                MeanSquaredError, InBatchCrossEntropy, ScoreBasedInBatchCrossEntropy, FLOPSRegularization,
                L1Regularization, L2Regularization, Matryoshka)
}  # fmt: skip
