"""Losses over the scores of lists: pure functions, each with its paper and equation.

`scores` (Q, D) are those of D documents for each of Q queries, `targets` (Q, D) say how good they are (labels, or a
teacher's scores; larger is better), and `mask` (Q, D) is True for documents that are there, None for all.  Every
function returns a scalar with gradients, computed in float32 at least; without anything to compare it is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

Weighting = Literal["ndcg_loss2++", "ndcg_loss2", "ndcg_loss1", "lambda_rank"]
_FAR = 1e4  # below every score


def ranknet(scores: Tensor, targets: Tensor, temperature: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """RankNet (Burges et al. 2005, equation 3): mean over pairs with t_i > t_j of -log sigmoid(T (s_i - s_j)).

    As in Lightning IR, scores are multiplied by the temperature.

    >>> ranknet(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.3133)
    """
    scores, targets, there = _checked(scores, targets, mask)
    better = _better(targets, there)
    return _mean(-logsigmoid(temperature * _differences(scores)), better)


def margin_mse(scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """MarginMSE (arXiv:2010.02666, equation 4): mean over pairs with t_i > t_j of ((s_i - s_j) - (t_i - t_j))^2.

    >>> margin_mse(torch.tensor([[2.0, 1.0]]), torch.tensor([[5.0, 2.0]]))
    tensor(4.)
    """
    scores, targets, there = _checked(scores, targets, mask)
    return _mean((_differences(scores) - _differences(targets)).square(), _better(targets, there))


def constant_margin_mse(scores: Tensor, targets: Tensor, margin: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """MarginMSE with the same margin for all pairs: mean over pairs with t_i > t_j of ((s_i - s_j) - margin)^2.

    >>> constant_margin_mse(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(1.)
    """
    scores, targets, there = _checked(scores, targets, mask)
    return _mean((_differences(scores) - margin).square(), _better(targets, there))


def kl_divergence(scores: Tensor, targets: Tensor, temperature: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the softmax of scores / T from that of targets / T, mean over queries.

    sum_i q_i (log q_i - log p_i), p = softmax(s / T), q = softmax(t / T), as ColBERTv2 distils (arXiv:2112.01488).

    >>> kl_divergence(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 3.0]])).abs() < 1e-6
    tensor(True)
    """
    scores, targets, there = _checked(scores, targets, mask)
    student, teacher = (_filled(one / temperature, there).log_softmax(-1) for one in (scores, targets))
    return nn.functional.kl_div(student, teacher, log_target=True, reduction="batchmean")


def info_nce(scores: Tensor, targets: Tensor, temperature: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Localized contrastive estimation (arXiv:2101.08751): cross-entropy of the document with the largest target.

    -log softmax(s / T)_best, the query's other documents being the negatives (InfoNCE, arXiv:1807.03748).

    >>> info_nce(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.3133)
    """
    scores, targets, there = _checked(scores, targets, mask)
    best = targets.masked_fill(~there, -torch.inf).argmax(-1)
    return nn.functional.cross_entropy(_filled(scores / temperature, there), best)


def pearson(scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """1 minus Pearson's correlation of scores and targets, mean over queries.

    >>> pearson(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]])).abs() < 1e-6
    tensor(True)
    """
    scores, targets, there = _checked(scores, targets, mask)
    count = there.sum(-1, keepdim=True).clamp(min=1)
    student, teacher = ((one - (one * there).sum(-1, keepdim=True) / count) * there for one in (scores, targets))
    return (1 - nn.functional.cosine_similarity(student, teacher, dim=-1)).mean()


def approx_ranks(scores: Tensor, temperature: float, there: Tensor) -> Tensor:
    """Smooth ranks (Qin et al. 2010, equation 9): 1 + sum over j != i of sigmoid((s_j - s_i) / T)."""
    beaten = torch.sigmoid(-_differences(scores) / temperature) * there[:, None, :]
    eye = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    return 1 + beaten.masked_fill(eye, 0).sum(-1)


def approx_ndcg(
    scores: Tensor, targets: Tensor, temperature: float = 1.0, scale_gains: bool = True, mask: Tensor | None = None
) -> Tensor:
    """1 minus nDCG at smooth ranks (ApproxNDCG, Qin et al. 2010, equation 12), mean over queries.

    DCG = sum_i g_i / log2(1 + rank_i); gains g = 2^t - 1, or t with `scale_gains=False`.
    """
    scores, targets, there = _checked(scores, targets, mask)
    gains = _gains(targets, scale_gains) * there
    dcg = (gains / torch.log2(1 + approx_ranks(scores, temperature, there))).sum(-1)
    return (1 - dcg / _ideal(gains).clamp(min=1e-9)).mul(gains.sum(-1) > 0).mean()


def approx_mrr(scores: Tensor, targets: Tensor, temperature: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """1 minus the largest t_i / rank_i at smooth ranks, mean over queries; targets are cut to 0 and 1."""
    scores, targets, there = _checked(scores, targets, mask)
    relevant = targets.clamp(0, 1) * there
    found = (relevant / approx_ranks(scores, temperature, there)).amax(-1)
    return (1 - found).mul(relevant.sum(-1) > 0).mean()


def approx_rank_mse(
    scores: Tensor, targets: Tensor, temperature: float = 1.0,
    discount: Literal["log2", "reciprocal"] | None = None, mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Squared error of smooth ranks (ADR-MSE, Schlatt et al. 2025): mean of w_i (rank_i - true rank_i)^2.

    w = 1 / log2(1 + true rank) with `log2`, as the paper has it, 1 / true rank with `reciprocal`, else 1.  Equal
    targets share their mean rank.
    """
    scores, targets, there = _checked(scores, targets, mask)
    above = (targets[:, None, :] > targets[:, :, None]) & there[:, None, :]
    equal = (targets[:, None, :] == targets[:, :, None]) & there[:, None, :]
    true = above.sum(-1) + (equal.sum(-1) + 1) / 2
    error = (approx_ranks(scores, temperature, there) - true).square()
    _one_of("discount", discount, ("log2", "reciprocal", None))
    if discount is not None:
        error = error / (torch.log2(1 + true) if discount == "log2" else true)
    return _mean(error, there)


def neural_sort(scores: Tensor, temperature: float, there: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Smooth permutations (Q, ranks, D) (NeuralSort, arXiv:1903.08850, equation 5), doubly stochastic (Sinkhorn)."""
    counts = there.sum(-1, keepdim=True)
    apart = (_differences(scores).abs() * there[:, None, :]).sum(-1)[:, None, :]
    ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    factors = (counts + 1 - 2 * ranks).to(scores)
    logits = (factors[:, :, None] * scores[:, None, :] - apart) / temperature
    # Ranks and documents beyond a list's own are zeros; they are divided by 1, lest gradients overflow.
    found = _filled(logits, there[:, None, :], torch.finfo(logits.dtype).min).softmax(-1)
    used = ranks <= counts
    found = found * there[:, None, :] * used[:, :, None]
    for _ in range(iterations):
        found = found / (found.sum(1, keepdim=True) + (~there)[:, None, :]).clamp(min=1e-10)
        found = found / (found.sum(2, keepdim=True) + (~used)[:, :, None]).clamp(min=1e-10)
        if bool(((found.detach().sum(1) - there.to(found)).abs() < tolerance).all()):
            break
    return found


def neural_ndcg(
    scores: Tensor, targets: Tensor, temperature: float = 1.0, mask: Tensor | None = None, tolerance: float = 1e-5,
    iterations: int = 50,
) -> Tensor:  # fmt: skip
    """1 minus nDCG of gains that are sorted smoothly (NeuralNDCG, arXiv:2102.07831, equation 7), mean over queries."""
    scores, targets, there = _checked(scores, targets, mask)
    gains = _gains(targets, True) * there
    ordered = (neural_sort(scores, temperature, there, tolerance, iterations) * gains[:, None, :]).sum(-1)
    return (1 - _dcg(ordered) / _ideal(gains).clamp(min=1e-9)).mul(gains.sum(-1) > 0).mean()


def neural_mrr(
    scores: Tensor, targets: Tensor, temperature: float = 1.0, mask: Tensor | None = None, tolerance: float = 1e-5,
    iterations: int = 50,
) -> Tensor:  # fmt: skip
    """1 minus the largest reciprocal rank of labels that are sorted smoothly, mean over queries."""
    scores, targets, there = _checked(scores, targets, mask)
    relevant = targets.clamp(0, 1) * there
    ordered = (neural_sort(scores, temperature, there, tolerance, iterations) * relevant[:, None, :]).sum(-1)
    ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    return (1 - (ordered / ranks).amax(-1)).mul(relevant.sum(-1) > 0).mean()


def listnet(scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """ListNet (Cao et al. 2007, equation 4): cross-entropy of softmax(s) under softmax(t), mean over queries.

    >>> round(float(listnet(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]]))), 4)
    0.6931
    """
    scores, targets, there = _checked(scores, targets, mask)
    wanted = _filled(targets, there).softmax(-1)
    return -(wanted * _filled(scores, there).log_softmax(-1)).sum(-1).mean()


def list_mle(scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """ListMLE (Xia et al. 2008, equation 5): -log likelihood of the true order, mean over queries.

    -sum_i log(exp(s_i) / sum of exp(s_j) over j at or behind i in the order of the targets).
    """
    scores, targets, there = _checked(scores, targets, mask)
    order = targets.masked_fill(~there, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    ordered, counts = _filled(scores, there).gather(1, order), there.gather(1, order)
    behind = ordered.flip(-1).logcumsumexp(-1).flip(-1)
    return ((behind - ordered) * counts).sum(-1).mean()


def lambda_loss(
    scores: Tensor, targets: Tensor, weighting: Weighting | None = "ndcg_loss2++", k: int | None = None,
    sigma: float = 1.0, mu: float = 10.0, mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """LambdaLoss (Wang et al. 2018, equations 9 to 17): mean over pairs of -w_ij log2 sigmoid(sigma (s_i - s_j)).

    Pairs have t_i > t_j, of which at least one is among the first k by the scores; w_ij is by `weighting`: None for 1,
    else differences of gains g = (2^t - 1) / maxDCG and discounts D = log2(1 + rank).
    """
    scores, targets, there = _checked(scores, targets, mask)
    _one_of("weighting", weighting, (*get_args(Weighting), None))
    order = scores.detach().masked_fill(~there, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    scores, targets, there = (one.gather(1, order) for one in (scores, targets, there))
    size = scores.shape[1]
    first = torch.arange(size, device=scores.device) < (k or size)
    pairs = (there[:, :, None] & there[:, None, :]) & (first[:, None] | first[None, :])
    if weighting != "ndcg_loss1":
        pairs = pairs & (targets[:, :, None] > targets[:, None, :])
    gains = _gains(targets, True) * there
    best = gains.sort(-1, descending=True).values[:, : k or size]
    weights = _pair_weights(gains / _dcg(best).clamp(min=1e-10)[:, None], weighting, mu)
    return _mean(-weights * logsigmoid(sigma * _differences(scores)) / math.log(2), pairs)


def _pair_weights(gains: Tensor, weighting: Weighting | None, mu: float) -> Tensor:
    ranks = torch.arange(1, gains.shape[1] + 1, device=gains.device, dtype=gains.dtype)
    discounts = torch.log2(1 + ranks)
    if weighting is None:
        return torch.ones_like(gains[:, :, None])
    if weighting == "ndcg_loss1":
        return (gains / discounts)[:, :, None]
    apart = _differences(gains).abs()
    rank_weights = (1 / discounts[:, None] - 1 / discounts[None, :]).abs() * apart
    if weighting == "lambda_rank":
        return rank_weights
    distance = (ranks[:, None] - ranks[None, :]).abs()
    near = (1 / torch.log2(1 + distance.clamp(min=1)) - 1 / torch.log2(2 + distance)).abs()
    near = near.masked_fill(distance == 0, 0)
    return near * apart if weighting == "ndcg_loss2" else mu * near * apart + rank_weights


def binary_cross_entropy(
    scores: Tensor, targets: Tensor, positive_weight: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Mean over documents of -w t log sigmoid(s) - (1 - t) log sigmoid(-s); targets are between 0 and 1.

    Raises:
        ValueError: for other targets.
    """
    scores, targets, there = _checked(scores, targets, mask)
    if bool(((targets < 0) | (targets > 1))[there].any()):
        raise ValueError("binary_cross_entropy: targets must be between 0 and 1; take mean_squared_error for scores.")
    weight = None if positive_weight is None else scores.new_tensor(positive_weight)
    found = nn.functional.binary_cross_entropy_with_logits(scores, targets, pos_weight=weight, reduction="none")
    return _mean(found, there)


def mean_squared_error(scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over documents of (s - t)^2."""
    scores, targets, there = _checked(scores, targets, mask)
    return _mean((scores - targets).square(), there)


def _checked(scores: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and targets in float32 at least, and what is there."""
    if scores.ndim != 2 or targets.shape != scores.shape or (mask is not None and mask.shape != scores.shape):
        shapes = [tuple(one.shape) for one in (scores, targets, mask) if one is not None]
        raise ValueError(f"Scores, targets and mask have the shapes {shapes}; they must be (queries, documents).")
    scores = scores if scores.dtype == torch.float64 else scores.float()
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    targets = targets.to(scores)
    if bool(targets[there].isnan().any()):
        raise ValueError("Targets are NaN: the training data lacks a label or a teacher's score.")
    return scores.masked_fill(~there, 0), targets.masked_fill(~there, 0), there


def _one_of(name: str, value: str | None, known: Sequence[str | None]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, known))}.")


def _differences(values: Tensor) -> Tensor:
    """(Q, D, D): values[i] - values[j]."""
    return values[:, :, None] - values[:, None, :]


def _better(targets: Tensor, there: Tensor) -> Tensor:
    """(Q, D, D): True for pairs whose first has the larger target."""
    return (targets[:, :, None] > targets[:, None, :]) & there[:, :, None] & there[:, None, :]


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values; 0, with gradients of 0, if there are none."""
    return values.masked_fill(~chosen, 0).sum() / chosen.sum().clamp(min=1)


def _filled(values: Tensor, there: Tensor, value: float = -_FAR) -> Tensor:
    return values.masked_fill(~there, value)


def _gains(targets: Tensor, scale: bool) -> Tensor:
    """Gains (Q, D) up to a factor, as nDCG divides by the ideal; targets below 0 gain nothing."""
    targets = targets.clamp(min=0)
    if not scale:
        return targets
    excess = (targets.amax(-1, keepdim=True) - 60).clamp(min=0)  # 2^128 is too much for float32
    return torch.exp2(targets - excess) - torch.exp2(-excess)


def _dcg(ordered: Tensor) -> Tensor:
    """(Q,) of gains (Q, ranks) in the order of a ranking."""
    return (ordered / torch.log2(torch.arange(2, ordered.shape[1] + 2, device=ordered.device))).sum(-1)


def _ideal(gains: Tensor) -> Tensor:
    return _dcg(gains.sort(-1, descending=True).values)
