"""Losses against sentence-transformers' own classes, Lightning IR's values, and what their papers promise.

Plain loops, finite differences and masks are in `test_training_losses`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyterrier_lir.training import in_batch, losses

SCORES = torch.tensor([[2.0, -1.0, 0.5, 0.3], [0.1, 1.2, -0.7, 0.0]])
TARGETS = torch.tensor([[3.0, 0.0, 1.0, 2.0], [0.0, 2.0, 3.0, 1.0]])
TIED = torch.tensor([[3.0, 0.0, 1.0, 1.0], [0.0, 2.0, 0.0, 1.0]])
LENGTHS = [4, 3]  # of lists, where one is shorter
MASK = torch.arange(4) < torch.tensor(LENGTHS)[:, None]


# sentence-transformers


def cross_encoder(scores: Tensor, lengths: list[int]) -> tuple[Any, list[str], list[list[str]]]:
    """A model of sentence-transformers that gives these scores, with its queries and documents."""
    models = pytest.importorskip("sentence_transformers.cross_encoder")

    class Known(models.CrossEncoder):  # type: ignore[misc, name-defined]
        num_labels = 1
        device = torch.device("cpu")

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def preprocess(self, pairs: list[tuple[str, str]], **_: Any) -> dict[str, Tensor]:
            rows, places = zip(*((int(query), int(doc)) for query, doc in pairs), strict=True)
            return {"rows": torch.tensor(rows), "places": torch.tensor(places)}

        def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
            return {"scores": scores[features["rows"], features["places"]]}

    queries = [str(row) for row in range(len(scores))]
    return Known(), queries, [[str(place) for place in range(length)] for length in lengths]


def theirs(make: Callable[[Any, Any], Any], scores: Tensor, targets: Tensor, lengths: list[int]) -> Tensor:
    model, queries, docs = cross_encoder(scores, lengths)
    module = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    labels = [row[:length] for row, length in zip(targets, lengths, strict=True)]
    loss: Tensor = make(module, model)([queries, docs], labels)
    return loss


def assert_equal_with_gradients(ours: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> None:
    found = []
    for loss in (ours, other):
        scores = SCORES.clone().requires_grad_()
        value = loss(scores)
        value.backward()
        found.append((value.detach(), scores.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


SCHEMES = {
    "ndcg_loss2++": "NDCGLoss2PPScheme", "ndcg_loss2": "NDCGLoss2Scheme", "ndcg_loss1": "NDCGLoss1Scheme",
    "lambda_rank": "LambdaRankScheme", None: "NoWeightingScheme",
}  # fmt: skip


@pytest.mark.parametrize("targets", [TARGETS, TIED], ids=["distinct", "tied"])
@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("weighting", SCHEMES)
def test_lambda_loss_is_that_of_sentence_transformers(weighting: Any, k: int | None, targets: Tensor) -> None:
    def other(scores: Tensor) -> Tensor:
        return theirs(
            lambda module, model: module.LambdaLoss(model, getattr(module, SCHEMES[weighting])(), k=k, sigma=1.5),
            scores, targets, LENGTHS,
        )  # fmt: skip

    assert_equal_with_gradients(
        lambda scores: losses.lambda_loss(scores, targets, weighting, k=k, sigma=1.5, mask=MASK), other
    )


def test_lambda_loss_has_the_mu_of_sentence_transformers() -> None:
    def other(scores: Tensor) -> Tensor:
        return theirs(lambda module, model: module.LambdaLoss(model, module.NDCGLoss2PPScheme(mu=3.0)),
                      scores, TARGETS, [4, 4])  # fmt: skip

    assert_equal_with_gradients(lambda scores: losses.lambda_loss(scores, TARGETS, mu=3.0), other)


OTHERS: dict[str, tuple[Callable[..., Tensor], Callable[[Any, Any], Any]]] = {
    "listnet": (losses.listnet, lambda module, model: module.ListNetLoss(model)),
    "list_mle": (losses.list_mle, lambda module, model: module.ListMLELoss(model, respect_input_order=False)),
    "adr_mse": (
        lambda *args, **kwargs: losses.approx_rank_mse(*args, temperature=0.5, discount="log2", **kwargs),
        lambda module, model: module.ADRMSELoss(model, alpha=2.0),
    ),
    "ranknet": (losses.ranknet, lambda module, model: module.RankNetLoss(model, reduction_log="natural")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_values_and_gradients_are_those_of_sentence_transformers(name: str) -> None:
    ours, make = OTHERS[name]
    targets = TARGETS if name == "list_mle" else TIED  # which of two equal documents comes first is anyone's choice
    assert_equal_with_gradients(
        lambda scores: ours(scores, targets, mask=MASK), lambda scores: theirs(make, scores, targets, LENGTHS)
    )


def test_margin_mse_of_one_positive_is_that_of_sentence_transformers() -> None:
    targets = torch.tensor([[5.0, 1.0, 1.0, 1.0], [4.0, 0.5, 0.5, 0.5]])  # equal negatives, so no pairs among them

    def other(scores: Tensor) -> Tensor:
        model, queries, _ = cross_encoder(scores, [4, 4])
        module = pytest.importorskip("sentence_transformers.cross_encoder.losses")
        columns = [[str(place)] * len(queries) for place in range(4)]
        loss: Tensor = module.MarginMSELoss(model)([queries, *columns], list(targets))
        return loss

    assert_equal_with_gradients(lambda scores: losses.margin_mse(scores, targets), other)


# Lightning IR


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda: losses.ranknet(SCORES, TARGETS, temperature=2.0), 0.777803361415863),
        (lambda: losses.constant_margin_mse(SCORES, TARGETS, margin=0.5), 1.743333339691162),
        (lambda: losses.approx_ndcg(SCORES, TARGETS, temperature=0.5, scale_gains=False), 0.14709213376045227),
        (lambda: losses.approx_mrr(SCORES, TARGETS, temperature=0.5), 0.12297049164772034),
        (lambda: losses.approx_rank_mse(SCORES, TARGETS, discount="log2"), 0.8339812755584717),
        (lambda: losses.approx_rank_mse(SCORES, TARGETS, 0.5, discount="reciprocal"), 1.00730299949646),
        (lambda: in_batch.contrastive_local(torch.tensor([[0.3, 0.9, -0.2], [0.5, 0.1, 0.4]])), 0.7890385389328003),
    ],
    ids=["ranknet", "constant_margin", "ndcg", "mrr", "rank_mse_log2", "rank_mse_reciprocal", "contrastive_local"],
)
def test_settings_mean_what_they_mean_in_lightning_ir(loss: Callable[[], Tensor], expected: float) -> None:
    torch.testing.assert_close(float(loss()), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("negatives", "expected"),  # InBatchLossFunction.get_ib_idcs, 2 queries with 4 documents, the first the positive
    [
        ("all", [[4, 5, 6, 7], [0, 1, 2, 3]]),
        ("first", [[4], [0]]),
        ("all_and_non_first", [[1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 5, 6, 7]]),
    ],
)
def test_negatives_in_the_batch_are_those_of_lightning_ir(negatives: Any, expected: list[list[int]]) -> None:
    positives, allowed = in_batch.in_batch_negatives(torch.tensor([[1.0, 0, 0, 0]] * 2), negatives=negatives)
    assert positives.tolist() == [[0], [4]]
    assert [row.nonzero()[:, 0].tolist() for row in allowed] == expected


def test_own_negatives_by_the_teachers_scores_are_at_least_those_of_lightning_ir() -> None:
    """Lightning IR then drops some at random until all queries have as many: here column 2 of the second."""
    _, allowed = in_batch.in_batch_negatives(torch.tensor([[9.0, 8, 3, 1], [7, 2, 1, 0]]), min_target_diff=3.0)
    assert [row.nonzero()[:, 0].tolist() for row in allowed] == [[2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 5, 6, 7]]


# Minima


@pytest.mark.parametrize("name", ["approx_ndcg", "approx_mrr", "approx_rank_mse", "neural_ndcg", "neural_mrr"])
def test_a_perfect_ranking_far_apart_has_no_loss(name: str) -> None:
    assert float(getattr(losses, name)(100 * TARGETS, TARGETS)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", ["margin_mse", "kl_divergence", "pearson", "mean_squared_error"])
def test_the_teachers_scores_themselves_have_no_loss_and_no_gradient(name: str) -> None:
    scores = TARGETS.clone().requires_grad_()
    loss = getattr(losses, name)(scores, TARGETS)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert scores.grad is not None
    assert float(scores.grad.abs().max()) < 1e-6


def test_listnet_of_the_teachers_scores_is_their_entropy() -> None:
    entropy = torch.distributions.Categorical(logits=TARGETS).entropy().mean()
    torch.testing.assert_close(losses.listnet(TARGETS, TARGETS), entropy)


def test_shifting_all_scores_of_a_query_changes_no_ranking_loss() -> None:
    shift = torch.tensor([[5.0], [-3.0]])
    for name in ("ranknet", "margin_mse", "kl_divergence", "info_nce", "pearson", "approx_ndcg", "approx_mrr",
                 "approx_rank_mse", "neural_ndcg", "neural_mrr", "listnet", "list_mle", "lambda_loss"):  # fmt: skip
        loss = getattr(losses, name)
        torch.testing.assert_close(loss(SCORES + shift, TARGETS), loss(SCORES, TARGETS), rtol=1e-4, atol=1e-5)


# Numbers


@pytest.mark.parametrize("name", ["ranknet", "info_nce", "kl_divergence", "listnet", "list_mle", "lambda_loss"])
def test_scores_that_are_far_off_keep_a_finite_gradient_that_mends_them(name: str) -> None:
    scores = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    loss = getattr(losses, name)(scores, torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert scores.grad[0, 0] < 0 < scores.grad[0, 1]


@pytest.mark.parametrize("name", ["ranknet", "margin_mse", "constant_margin_mse", "lambda_loss"])
def test_a_list_without_pairs_has_a_loss_of_zero_that_is_connected_to_the_scores(name: str) -> None:
    scores = SCORES.clone().requires_grad_()
    loss = getattr(losses, name)(scores, torch.ones_like(SCORES))
    loss.backward()
    assert float(loss.detach()) == 0
    torch.testing.assert_close(scores.grad, torch.zeros_like(SCORES))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    for name in ("ranknet", "margin_mse", "kl_divergence", "info_nce", "pearson", "approx_ndcg", "lambda_loss"):
        loss = getattr(losses, name)
        found = loss(SCORES.to(dtype), TARGETS.to(dtype))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(SCORES.to(dtype).float(), TARGETS))


# In the batch


def test_a_query_without_negatives_has_no_loss_and_a_finite_gradient() -> None:
    scores = SCORES.clone().requires_grad_()
    allowed = torch.tensor([[False] * 4, [True, True, False, True]])
    loss = in_batch.in_batch_cross_entropy(scores, torch.tensor([[0], [2]]), allowed)
    loss.backward()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(SCORES[1:], torch.tensor([2])) / 2)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert not scores.grad[0].any()


def test_several_positives_are_not_each_others_negatives() -> None:
    positives, allowed = torch.tensor([[0, 1], [2, -1]]), torch.tensor([[False, False, True, True], [True] * 4])
    allowed[1, 2] = False
    total = 0.0
    for row, column in ((0, 0), (0, 1), (1, 2)):
        others = SCORES[row][allowed[row]].tolist()
        against = sum(math.exp(one) for one in (*others, float(SCORES[row, column])))
        total += math.log(against) - float(SCORES[row, column])
    found = in_batch.in_batch_cross_entropy(SCORES, positives, allowed)
    torch.testing.assert_close(float(found), total / 3, rtol=1e-6, atol=1e-6)


def test_regularisers_have_the_gradients_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = (torch.rand(3, 5, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()
    teacher = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    for regulariser in (in_batch.flops, in_batch.l1, in_batch.l2):
        assert torch.autograd.gradcheck(regulariser, weights)
    assert torch.autograd.gradcheck(lambda w: in_batch.embedding_mse(w, teacher), weights)
    assert torch.autograd.gradcheck(lambda w: in_batch.embedding_cosine(w, teacher), weights)


def test_the_length_of_a_vector_of_zeros_has_a_finite_gradient() -> None:
    weights = torch.zeros(2, 3, requires_grad=True)
    in_batch.l2(weights).backward()
    assert weights.grad is not None
    assert torch.isfinite(weights.grad).all()


# Contracts

LISTWISE = ["ranknet", "margin_mse", "constant_margin_mse", "kl_divergence", "info_nce", "pearson", "approx_ndcg",
            "approx_mrr", "approx_rank_mse", "neural_ndcg", "neural_mrr", "listnet", "list_mle", "lambda_loss",
            "mean_squared_error", "binary_cross_entropy"]  # fmt: skip
BINARY = (TARGETS > 1).float()


@pytest.mark.parametrize("name", LISTWISE)
@pytest.mark.parametrize("value", [-math.inf, math.nan, 9.0])
def test_scores_of_padding_change_neither_loss_nor_gradient(name: str, value: float) -> None:
    loss = getattr(losses, name)
    shorter = SCORES[:, :3].clone().requires_grad_()
    padded = torch.cat([SCORES[:, :3], torch.full((2, 2), value)], dim=1).requires_grad_()
    expected = loss(shorter, BINARY[:, :3])
    targets = torch.cat([BINARY[:, :3], torch.zeros(2, 2)], dim=1)
    found = loss(padded, targets, mask=torch.tensor([[True] * 3 + [False] * 2] * 2))
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert padded.grad is not None
    torch.testing.assert_close(padded.grad[:, :3], shorter.grad, rtol=1e-4, atol=1e-6)
    assert not padded.grad[:, 3:].any()


@pytest.mark.parametrize("name", LISTWISE)
def test_autocast_changes_no_value(name: str) -> None:
    loss = getattr(losses, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(SCORES, BINARY)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(SCORES, BINARY))


def test_targets_below_zero_gain_nothing_as_in_lightning_ir_and_sentence_transformers() -> None:
    targets = torch.tensor([[3.0, -2.0, 1.0, -1.0], [-3.0, 2.0, 0.0, 1.0]])
    assert float(losses.approx_ndcg(SCORES, targets)) == pytest.approx(0.22500810027122498, abs=1e-6)
    assert_equal_with_gradients(
        lambda scores: losses.lambda_loss(scores, targets),
        lambda scores: theirs(lambda module, model: module.LambdaLoss(model), scores, targets, [4, 4]),
    )


@pytest.mark.parametrize("name", ["approx_ndcg", "neural_ndcg", "lambda_loss"])
def test_targets_that_are_ranks_of_long_lists_have_finite_gains(name: str) -> None:
    scores = torch.linspace(-1, 1, 300)[None].requires_grad_()
    loss = getattr(losses, name)(scores, torch.arange(300.0)[None])
    loss.backward()
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="weighting='ndcg'"):
        losses.lambda_loss(SCORES, TARGETS, weighting="ndcg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="discount='log'"):
        losses.approx_rank_mse(SCORES, TARGETS, discount="log")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negatives='none'"):
        in_batch.in_batch_negatives(TARGETS, negatives="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Targets are NaN"):
        in_batch.in_batch_negatives(torch.full((2, 2), math.nan))


def test_in_batch_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a row per query"):
        in_batch.in_batch_cross_entropy(SCORES, torch.tensor([[0]]))
    with pytest.raises(ValueError, match="the teacher's"):
        in_batch.embedding_mse(torch.ones(3, 4), torch.ones(1, 4))


def test_all_other_columns_are_negatives_unless_told() -> None:
    expected = torch.nn.functional.cross_entropy(SCORES, torch.tensor([0, 2]))
    torch.testing.assert_close(in_batch.in_batch_cross_entropy(SCORES, torch.tensor([0, 2])), expected)
    several = in_batch.in_batch_cross_entropy(SCORES[:1], torch.tensor([[0, 1, -1]]))
    told = in_batch.in_batch_cross_entropy(
        SCORES[:1], torch.tensor([[0, 1]]), torch.tensor([[False, False, True, True]])
    )
    torch.testing.assert_close(several, told)


def test_a_generator_draws_the_same_negatives_again() -> None:
    drawn = [
        in_batch.in_batch_negatives(torch.eye(6), max_negatives=7, generator=torch.Generator().manual_seed(1))[1]
        for _ in range(2)
    ]
    assert torch.equal(*drawn)


def test_regularisers_of_half_precision_are_computed_in_float32() -> None:
    weights = torch.full((2, 30_522), 4.0, dtype=torch.float16)
    assert float(in_batch.flops(weights)) == 16 * 30_522  # more than float16 holds
    for regulariser in (in_batch.flops, in_batch.l1, in_batch.l2):
        assert regulariser(weights).dtype == torch.float32
