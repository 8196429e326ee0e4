"""What a model is trained for: losses with their settings, over the scores and vectors of a batch.

Classes bear Lightning IR's names where it has them; the formulas are in `losses`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..models import BiEncoderModel
from . import in_batch, losses
from .forward import TextVectors, encode
from .scored import Loss, Scored
from .similarity import similarities

Positives = Literal["all", "first"]
Negatives = Literal["all", "first", "all_and_non_first"]


@dataclass(frozen=True)
class RankNet(Loss):
    """See `losses.ranknet`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.ranknet(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class SupervisedMarginMSE(Loss):
    """See `losses.margin_mse`."""

    needs_scores: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.margin_mse(scored.scores, scored.labels, scored.mask)


@dataclass(frozen=True)
class ConstantMarginMSE(Loss):
    """See `losses.constant_margin_mse`."""

    margin: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.constant_margin_mse(scored.scores, scored.labels, self.margin, scored.mask)


@dataclass(frozen=True)
class KLDivergence(Loss):
    """See `losses.kl_divergence`."""

    temperature: float = 1.0
    needs_scores: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.kl_divergence(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class InfoNCE(Loss):
    """See `losses.info_nce`: the best document against the query's others."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.info_nce(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class PearsonCorrelation(Loss):
    """See `losses.pearson`."""

    def __call__(self, scored: Scored) -> Tensor:
        return losses.pearson(scored.scores, scored.labels, scored.mask)


@dataclass(frozen=True)
class ApproxNDCG(Loss):
    """See `losses.approx_ndcg`."""

    temperature: float = 1.0
    scale_gains: bool = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.approx_ndcg(scored.scores, scored.labels, self.temperature, self.scale_gains, scored.mask)


@dataclass(frozen=True)
class ApproxMRR(Loss):
    """See `losses.approx_mrr`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.approx_mrr(scored.scores, scored.labels, self.temperature, scored.mask)


@dataclass(frozen=True)
class ApproxRankMSE(Loss):
    """See `losses.approx_rank_mse`."""

    temperature: float = 1.0
    discount: Literal["log2", "reciprocal"] | None = None

    def __call__(self, scored: Scored) -> Tensor:
        return losses.approx_rank_mse(scored.scores, scored.labels, self.temperature, self.discount, scored.mask)


@dataclass(frozen=True)
class NeuralNDCG(Loss):
    """See `losses.neural_ndcg`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.neural_ndcg(scored.scores, scored.labels, temperature=self.temperature, mask=scored.mask)


@dataclass(frozen=True)
class NeuralMRR(Loss):
    """See `losses.neural_mrr`."""

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.neural_mrr(scored.scores, scored.labels, temperature=self.temperature, mask=scored.mask)


@dataclass(frozen=True)
class ListNet(Loss):
    """See `losses.listnet`."""

    def __call__(self, scored: Scored) -> Tensor:
        return losses.listnet(scored.scores, scored.labels, mask=scored.mask)


@dataclass(frozen=True)
class ListMLE(Loss):
    """See `losses.list_mle`."""

    def __call__(self, scored: Scored) -> Tensor:
        return losses.list_mle(scored.scores, scored.labels, mask=scored.mask)


@dataclass(frozen=True)
class LambdaLoss(Loss):
    """See `losses.lambda_loss`."""

    weighting: Literal["ndcg_loss2++", "ndcg_loss2", "ndcg_loss1", "lambda_rank"] | None = "ndcg_loss2++"
    k: int | None = None
    sigma: float = 1.0
    mu: float = 10.0

    def __call__(self, scored: Scored) -> Tensor:
        return losses.lambda_loss(scored.scores, scored.labels, weighting=self.weighting, k=self.k, sigma=self.sigma,
                                  mu=self.mu, mask=scored.mask)  # fmt: skip


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """See `losses.binary_cross_entropy`; targets above 0 are relevant."""

    positive_weight: float | None = None

    def __call__(self, scored: Scored) -> Tensor:
        labels = (scored.labels > 0).float()
        return losses.binary_cross_entropy(scored.scores, labels, self.positive_weight, scored.mask)


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """See `losses.mean_squared_error`."""

    needs_scores: ClassVar[bool] = True

    def __call__(self, scored: Scored) -> Tensor:
        return losses.mean_squared_error(scored.scores, scored.labels, scored.mask)


@dataclass(frozen=True)
class InBatchCrossEntropy(Loss):
    """The best document of each query against those of the batch (multiple negatives, arXiv:1705.00652).

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
        ids = None if scored.doc_ids is None else [list(own) for own in scored.doc_ids]
        positives, allowed = in_batch.in_batch_negatives(
            scored.labels_of_those_there, ids,
            None if scored.query_ids is None else list(scored.query_ids), self.pos_sampling_technique,
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
class FLOPSRegularization(Loss):
    """See `in_batch.flops`; of queries and of documents, each with its weight."""

    query_weight: float = 1e-4
    doc_weight: float = 1e-4
    function: ClassVar[Any] = staticmethod(in_batch.flops)

    def __call__(self, scored: Scored) -> Tensor:
        return sum((self.query_weight * self.function(queries) + self.doc_weight * self.function(docs)
                    for queries, docs in scored.numbers()), start=scored.scores.new_zeros(()))  # fmt: skip


@dataclass(frozen=True)
class L1Regularization(FLOPSRegularization):
    """See `in_batch.l1`."""

    function: ClassVar[Any] = staticmethod(in_batch.l1)


@dataclass(frozen=True)
class L2Regularization(FLOPSRegularization):
    """See `in_batch.l2`."""

    function: ClassVar[Any] = staticmethod(in_batch.l2)


@dataclass(frozen=True)
class Matryoshka(Loss):
    """A loss over vectors cut to several sizes (arXiv:2205.13147, equation 1).

    Args:
        loss: that is summed.
        dims: sizes, in numbers.
        weights: of each; None for 1.

    Raises:
        ValueError: for sizes that are not positive, or other than one weight for each.
    """

    loss: Loss = field(default_factory=InBatchCrossEntropy)
    dims: tuple[int, ...] = (256, 128, 64)
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.dims or min(self.dims) < 1:
            raise ValueError(f"Matryoshka.dims={self.dims!r}; allowed: one or more positive numbers.")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise ValueError(
                f"Matryoshka.weights={self.weights!r}; allowed: None, or {len(self.dims)}, one of each size."
            )

    def __call__(self, scored: Scored) -> Tensor:
        queries, _ = scored.vectors()
        size = queries[0].values.shape[-1]
        if max(self.dims) > size:
            raise ValueError(f"dims={self.dims}: the model's vectors have {size} numbers.")
        weights = (1.0,) * len(self.dims) if self.weights is None else self.weights
        parts = [weight * self.loss(scored.cut(dim)) for dim, weight in zip(self.dims, weights, strict=True)]
        return torch.stack(parts).sum()


@dataclass(frozen=True)
class ContrastiveLocalLoss(Loss):
    """One vector of each document answers the query, the others do not (see `in_batch.contrastive_local`).

    For multi-vector models: the query's largest similarity to a vector of its best document against the similarities to
    that document's other vectors (MVR, arXiv:2203.08372, equation 6).
    """

    temperature: float = 1.0

    def __call__(self, scored: Scored) -> Tensor:
        queries, docs = scored.vectors()
        best = scored.labels_of_those_there.argmax(1).to(scored.scores.device)
        parts = [_local(query, doc, best, self.temperature) for query, doc in zip(queries, docs, strict=True)]
        return torch.stack(parts).sum()


def _local(queries: TextVectors, docs: TextVectors, best: Tensor, temperature: float) -> Tensor:
    config = queries.config
    if config.kind != "multi_vector":
        raise ValueError(f"ContrastiveLocalLoss is for multi-vector models; this one is {config.kind}.")
    (query, query_there, _), (doc, doc_there, _) = queries.padded(), docs.padded()
    rows = torch.arange(len(query), device=best.device)
    at = rows * (len(doc) // len(query)) + best
    own = similarities(query, doc[at], config.similarity_function)
    own = own.masked_fill(~doc_there[at][:, None], torch.finfo(own.dtype).min)
    return in_batch.contrastive_local(own[query_there], temperature)


@dataclass(frozen=True, eq=False)
class EmbeddingDistillation(Loss):
    """Vectors like those of a teacher (arXiv:2004.09813), of queries and of documents.

    Args:
        teacher: a dense bi-encoder with vectors of as many numbers; it is not trained.
        function: mse or cosine, see `in_batch.embedding_mse` and `in_batch.embedding_cosine`.
    """

    teacher: BiEncoderModel
    function: Literal["mse", "cosine"] = "mse"

    def __call__(self, scored: Scored) -> Tensor:
        if scored.texts is None:
            raise ValueError("EmbeddingDistillation needs the texts of the batch, which this one comes without.")
        measure = in_batch.embedding_mse if self.function == "mse" else in_batch.embedding_cosine
        parts = []
        for numbers, texts, query in zip(scored.numbers()[0], scored.texts, (True, False), strict=True):
            with torch.no_grad():
                own = encode(self.teacher.eval().to(scored.scores.device), texts, query)
            parts.append(measure(numbers, own[0].values))
        return torch.stack(parts).sum()

    def __repr__(self) -> str:
        return f"EmbeddingDistillation({self.teacher!r}, {self.function!r})"


OBJECTIVES: dict[str, type[Any]] = {
    one.__name__: one
    for one in (RankNet, SupervisedMarginMSE, ConstantMarginMSE, KLDivergence, InfoNCE, PearsonCorrelation, ApproxNDCG,
                ApproxMRR, ApproxRankMSE, NeuralNDCG, NeuralMRR, ListNet, ListMLE, LambdaLoss, BinaryCrossEntropy,
                MeanSquaredError, InBatchCrossEntropy, ScoreBasedInBatchCrossEntropy, FLOPSRegularization,
                L1Regularization, L2Regularization, Matryoshka, ContrastiveLocalLoss, EmbeddingDistillation)
}  # fmt: skip
