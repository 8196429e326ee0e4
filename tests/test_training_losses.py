"""Losses against values worked out by plain loops, by other libraries, and against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from pyterrier_lir.training import in_batch, losses

SCORES = torch.tensor([[2.0, -1.0, 0.5, 0.3], [0.1, 1.2, -0.7, 0.0]], dtype=torch.float64)
TARGETS = torch.tensor([[3.0, 0.0, 1.0, 1.0], [0.0, 2.0, 0.0, 1.0]], dtype=torch.float64)
LABELS = (TARGETS > 1).double()
LISTWISE: dict[str, Callable[..., Tensor]] = {
    "ranknet": losses.ranknet, "margin_mse": losses.margin_mse, "constant_margin_mse": losses.constant_margin_mse,
    "kl_divergence": losses.kl_divergence, "info_nce": losses.info_nce, "pearson": losses.pearson,
    "approx_ndcg": losses.approx_ndcg, "approx_mrr": losses.approx_mrr, "approx_rank_mse": losses.approx_rank_mse,
    "neural_ndcg": losses.neural_ndcg, "neural_mrr": losses.neural_mrr, "listnet": losses.listnet,
    "list_mle": losses.list_mle, "lambda_loss": losses.lambda_loss, "mean_squared_error": losses.mean_squared_error,
    "binary_cross_entropy": losses.binary_cross_entropy,
}  # fmt: skip


def targets_of(name: str) -> Tensor:
    return LABELS if name == "binary_cross_entropy" else TARGETS


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_loops(name: str, scores: list[float], targets: list[float]) -> list[float]:
    """What is averaged: terms of one query (of all pairs or documents), or its loss."""
    places = range(len(scores))
    pairs = [(i, j) for i, j in product(places, places) if targets[i] > targets[j]]
    ranks = [1 + sum(sigmoid(scores[j] - scores[i]) for j in places if j != i) for i in places]
    exps, wanted = [math.exp(s) for s in scores], [math.exp(t) for t in targets]
    p, q = [e / sum(exps) for e in exps], [e / sum(wanted) for e in wanted]
    gains = [2**t - 1 for t in targets]
    ideal = sum(g / math.log2(2 + i) for i, g in enumerate(sorted(gains, reverse=True)))
    if name == "ranknet":
        return [-math.log(sigmoid(scores[i] - scores[j])) for i, j in pairs]
    if name == "margin_mse":
        return [(scores[i] - scores[j] - targets[i] + targets[j]) ** 2 for i, j in pairs]
    if name == "constant_margin_mse":
        return [(scores[i] - scores[j] - 1) ** 2 for i, j in pairs]
    if name == "kl_divergence":
        return [sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True))]
    if name == "info_nce":
        return [-math.log(p[targets.index(max(targets))])]
    if name == "listnet":
        return [-sum(b * math.log(a) for a, b in zip(p, q, strict=True))]
    if name == "approx_ndcg":
        return [1 - sum(g / math.log2(1 + r) for g, r in zip(gains, ranks, strict=True)) / ideal]
    if name == "approx_mrr":
        return [1 - max(min(t, 1) / r for t, r in zip(targets, ranks, strict=True))]
    if name == "approx_rank_mse":
        true = [sum(t > targets[i] for t in targets) + (sum(t == targets[i] for t in targets) + 1) / 2 for i in places]
        return [(a - b) ** 2 for a, b in zip(ranks, true, strict=True)]
    if name == "mean_squared_error":
        return [(s - t) ** 2 for s, t in zip(scores, targets, strict=True)]
    if name == "binary_cross_entropy":
        return [-math.log(sigmoid(s if t else -s)) for s, t in zip(scores, targets, strict=True)]
    if name == "list_mle":
        order = sorted(places, key=lambda i: -targets[i])
        return [sum(math.log(sum(exps[j] for j in order[n:])) - scores[i] for n, i in enumerate(order))]
    raise KeyError(name)


@pytest.mark.parametrize(
    "name", [name for name in LISTWISE if name not in ("pearson", "neural_ndcg", "neural_mrr", "lambda_loss")]
)
def test_values_are_those_of_plain_loops(name: str) -> None:
    targets = targets_of(name)
    terms = [term for s, t in zip(SCORES.tolist(), targets.tolist(), strict=True) for term in by_loops(name, s, t)]
    found = LISTWISE[name](SCORES, targets)
    torch.testing.assert_close(float(found), sum(terms) / len(terms))


def test_pearsons_correlation_is_numpys() -> None:
    expected = [1 - float(torch.corrcoef(torch.stack([s, t]))[0, 1]) for s, t in zip(SCORES, TARGETS, strict=True)]
    torch.testing.assert_close(float(losses.pearson(SCORES, TARGETS)), sum(expected) / 2)


@pytest.mark.parametrize("name", LISTWISE)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    scores = SCORES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: LISTWISE[name](s, targets_of(name)), scores)


@pytest.mark.parametrize("name", LISTWISE)
def test_what_is_not_there_changes_nothing(name: str) -> None:
    targets = targets_of(name)
    padded = torch.cat([SCORES, torch.full((2, 2), 9.0, dtype=torch.float64)], dim=1)
    wrong = torch.cat([targets, torch.full((2, 2), float("nan"), dtype=torch.float64)], dim=1)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if name.startswith("neural") else {"rtol": 1e-6, "atol": 1e-8}
    torch.testing.assert_close(LISTWISE[name](padded, wrong, mask=mask), LISTWISE[name](SCORES, targets), **tolerance)


@pytest.mark.parametrize("name", LISTWISE)
def test_equal_targets_give_a_finite_loss_and_gradient(name: str) -> None:
    scores = SCORES.clone().requires_grad_()
    loss = LISTWISE[name](scores, torch.zeros_like(SCORES))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("name", ["ranknet", "info_nce", "approx_ndcg", "approx_mrr", "approx_rank_mse", "neural_ndcg",
                                  "neural_mrr", "list_mle", "lambda_loss", "pearson"])  # fmt: skip
def test_the_right_order_has_a_smaller_loss_than_the_reverse(name: str) -> None:
    right, wrong = (LISTWISE[name](factor * TARGETS, TARGETS) for factor in (3, -3))
    assert right < wrong


@pytest.mark.parametrize("name", LISTWISE)
def test_bad_targets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Targets are NaN"):
        LISTWISE[name](SCORES, torch.full_like(SCORES, float("nan")))
    with pytest.raises(ValueError, match=r"must be \(queries, documents\)"):
        LISTWISE[name](SCORES, TARGETS[:, :2])


def test_a_hard_neural_sort_gives_the_metric() -> None:
    gains = [[2**t - 1 for t in row] for row in TARGETS.tolist()]
    values = []
    for s, g in zip(SCORES.tolist(), gains, strict=True):
        order = sorted(range(4), key=lambda i: -s[i])
        dcg, ideal = (
            sum(g[i] / math.log2(n + 2) for n, i in enumerate(o))
            for o in (order, sorted(range(4), key=lambda i: -g[i]))
        )
        values.append(1 - dcg / ideal)
    found = losses.neural_ndcg(SCORES, TARGETS, temperature=1e-3)
    torch.testing.assert_close(float(found), sum(values) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("weighting", ["ndcg_loss2++", "ndcg_loss2", "lambda_rank", None])
def test_lambda_loss_is_that_of_plain_loops(weighting: Any, k: int | None) -> None:
    total, count = 0.0, 0
    for s, t in zip(SCORES.tolist(), TARGETS.tolist(), strict=True):
        order = sorted(range(4), key=lambda i: -s[i])
        s, t = [s[i] for i in order], [t[i] for i in order]
        best = sorted((2**x - 1 for x in t), reverse=True)[: k or 4]
        ideal = sum(g / math.log2(2 + i) for i, g in enumerate(best))
        gains = [(2**x - 1) / ideal for x in t]
        for i, j in product(range(4), range(4)):
            if t[i] > t[j] and min(i, j) < (k or 4):
                apart = abs(gains[i] - gains[j])
                rank = abs(1 / math.log2(i + 2) - 1 / math.log2(j + 2)) * apart
                d = abs(i - j)
                near = abs(1 / math.log2(1 + d) - 1 / math.log2(2 + d)) * apart
                weight = {"lambda_rank": rank, "ndcg_loss2": near, "ndcg_loss2++": 10 * near + rank, None: 1.0}[
                    weighting
                ]
                total += -weight * math.log2(sigmoid(s[i] - s[j]))
                count += 1
    torch.testing.assert_close(float(losses.lambda_loss(SCORES, TARGETS, weighting, k)), total / count)


LIGHTNING_IR = {  # of Lightning IR 0.0.6, on these scores and targets
    losses.ranknet: 0.6055862307548523, losses.margin_mse: 2.9266672134399414,
    losses.constant_margin_mse: 1.8600001335144043, losses.kl_divergence: 0.5259326696395874,
    losses.info_nce: 1.4270358085632324, losses.pearson: 0.6363769769668579, losses.approx_ndcg: 0.2635975778102875,
    losses.approx_mrr: 0.32850706577301025, losses.approx_rank_mse: 1.0524632930755615,
}  # fmt: skip


@pytest.mark.parametrize("loss", LIGHTNING_IR)
def test_values_are_those_of_lightning_ir(loss: Callable[..., Tensor]) -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5, 0.3], [0.1, 1.2, -0.7, 0.0]])
    targets = torch.tensor([[3.0, 0.0, 1.0, 2.0], [0.0, 2.0, 3.0, 1.0]])
    torch.testing.assert_close(float(loss(scores, targets)), LIGHTNING_IR[loss], rtol=1e-6, atol=1e-6)


# In the batch


def test_in_batch_cross_entropy_compares_each_positive_with_the_negatives() -> None:
    scores = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    positives, allowed = in_batch.in_batch_negatives(torch.tensor([[1.0, 0.0]] * 3))
    expected = torch.nn.functional.cross_entropy(scores / 0.5, torch.tensor([0, 2, 4]))
    torch.testing.assert_close(in_batch.in_batch_cross_entropy(scores, positives, allowed, 0.5), expected)
    assert torch.autograd.gradcheck(lambda s: in_batch.in_batch_cross_entropy(s, positives, allowed), scores)


def columns(mask: Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in mask]


@pytest.mark.parametrize(
    ("how", "expected"),
    [("all", [[2, 3], [0, 1]]), ("first", [[2], [1]]), ("all_and_non_first", [[0, 2, 3], [0, 1, 3]])],
)
def test_negatives_are_those_asked_for(how: Any, expected: list[list[int]]) -> None:
    positives, allowed = in_batch.in_batch_negatives(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), negatives=how)
    assert positives.tolist() == [[1], [2]]
    assert columns(allowed) == expected


def test_documents_known_to_be_relevant_are_no_negatives() -> None:
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    _, allowed = in_batch.in_batch_negatives(targets, doc_ids=[["a", "b"], ["c", "a"], ["e", "f"]])
    assert columns(allowed) == [[1, 2, 4, 5], [0, 1, 3, 4, 5], [0, 1, 2, 3, 5]]
    _, allowed = in_batch.in_batch_negatives(targets, query_ids=["q", "r", "q"])
    assert columns(allowed) == [[1, 2, 3], [0, 1, 3, 4, 5], [2, 3, 5]]


def test_all_positives_count_each_against_the_negatives() -> None:
    positives, allowed = in_batch.in_batch_negatives(torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), positives="all")
    assert positives.tolist() == [[0, 1, -1], [-1, 4, -1]]
    assert columns(allowed) == [[2, 3, 4, 5], [0, 1, 2, 3, 5]]


def test_own_documents_near_the_best_by_the_teacher_are_no_negatives() -> None:
    _, allowed = in_batch.in_batch_negatives(torch.tensor([[9.0, 8.0, 3.0]]), min_target_diff=3.0)
    assert columns(allowed) == [[2]]


def test_as_many_negatives_as_asked_for_are_drawn() -> None:
    _, allowed = in_batch.in_batch_negatives(torch.eye(6), max_negatives=7)
    everything = in_batch.in_batch_negatives(torch.eye(6))[1]
    assert allowed.sum(1).tolist() == [7] * 6
    assert not (allowed & ~everything).any()


def test_regularisers_are_their_formulas() -> None:
    weights = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert float(in_batch.flops(weights)) == 2.0**2 + 1.0**2
    assert float(in_batch.l1(weights)) == 3.0
    torch.testing.assert_close(float(in_batch.l2(weights)), (5**0.5 + 3) / 2)
    teacher = torch.tensor([[2.0, 0.0, 4.0], [3.0, 0.0, 1.0]])
    torch.testing.assert_close(float(in_batch.embedding_mse(weights, teacher)), (1 + 4 + 1) / 6)
    torch.testing.assert_close(float(in_batch.embedding_cosine(weights, teacher)), (1 - 3 / 10**0.5) / 2)
    torch.testing.assert_close(
        float(in_batch.contrastive_local(torch.tensor([[1.0, 2.0]]))), -math.log(sigmoid(1.0)), rtol=1e-5, atol=1e-6
    )
