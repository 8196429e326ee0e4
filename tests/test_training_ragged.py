"""Training on lists of unlike lengths: what is not there is neither read nor counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyterrier_lir.data.samples import TrainBatch
from pyterrier_lir.models import BiEncoderModel
from pyterrier_lir.training import BiEncoderModule, CrossEncoderModule, in_batch
from pyterrier_lir.training.forward import encode
from pyterrier_lir.training.objectives import (
    ContrastiveLocalLoss,
    EmbeddingDistillation,
    FLOPSRegularization,
    InBatchCrossEntropy,
    L1Regularization,
    L2Regularization,
    Loss,
)

Tiny = Callable[[str], str]
LISTS = [("the tower by the river", "bread"), ("the sea", "sand in the oven", "a cat", "mountains")]
SHORT = [("the tower by the river", "bread"), ("the sea",)]


def batch(lists: list[tuple[str, ...]], targets: list[float] | None = None) -> TrainBatch:
    numbers = iter(range(9))
    ids = [tuple(f"d{next(numbers)}" for _ in own) for own in lists]
    count = sum(map(len, lists))
    return TrainBatch(["tower", "sea"][: len(lists)], lists, ["q1", "q2"][: len(lists)], ids,
                      targets=torch.tensor(targets or [float(count - i) for i in range(count)]))  # fmt: skip


def bi_encoder(tiny: Tiny, kind: str, *losses: Loss) -> Any:
    module: Any = BiEncoderModule(tiny(kind), loss_functions=losses)
    module.model.eval()
    return module


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["set-encoder", "set-encoder-extra"])
def test_a_list_scores_beside_a_longer_one_as_it_does_alone(kind: str, cached: bool, tiny: Tiny) -> None:
    module: Any = CrossEncoderModule(tiny(kind), cached=cached)
    module.model.eval()
    alone, together = module.scored(batch(LISTS[:1])), module.scored(batch(LISTS))
    torch.testing.assert_close(together.scores[0, :2], alone.scores[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.scores[0].detach(), module.score("tower", LISTS[0]).scores, rtol=1e-4, atol=1e-5)
    assert together.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert together.targets.tolist() == [[6.0, 5.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0]]


@pytest.mark.parametrize("kind", ["dense", "splade", "col", "mvr", "coil"])
def test_a_bi_encoders_lists_score_beside_longer_ones_as_they_do_alone(kind: str, tiny: Tiny) -> None:
    module = bi_encoder(tiny, kind, InBatchCrossEntropy())
    alone, together = module.scored(batch(LISTS[:1])), module.scored(batch(LISTS))
    torch.testing.assert_close(together.scores[0, :2], alone.scores[0], rtol=1e-4, atol=1e-5)
    InBatchCrossEntropy()(together).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize(
    ("kind", "formula"),
    [(FLOPSRegularization, in_batch.flops), (L1Regularization, in_batch.l1), (L2Regularization, in_batch.l2)],
)
def test_regularisation_is_over_documents_that_are_there(
    kind: Any, formula: Callable[[Tensor], Tensor], tiny: Tiny
) -> None:
    module = bi_encoder(tiny, "splade")
    docs = encode(module.model, [doc for own in SHORT for doc in own], query=False)[0].values
    torch.testing.assert_close(kind(0.0, 1.0)(module.scored(batch(SHORT))), formula(docs), rtol=1e-4, atol=1e-6)


def test_a_student_learns_no_vectors_of_documents_that_are_not_there(tiny: Tiny) -> None:
    teacher = BiEncoderModel.from_pretrained(tiny("dense"))
    for parameter in teacher.parameters():
        parameter.data *= 1.1
    module, flat = bi_encoder(tiny, "dense"), [doc for own in SHORT for doc in own]
    expected = sum(in_batch.embedding_mse(*(encode(model, texts, query)[0].values for model in (module.model, teacher)))
                   for texts, query in ((["tower", "sea"], True), (flat, False)))  # fmt: skip
    torch.testing.assert_close(EmbeddingDistillation(teacher)(module.scored(batch(SHORT))), expected)


def test_the_best_of_documents_with_negative_scores_is_one_that_is_there(tiny: Tiny) -> None:
    module = bi_encoder(tiny, "col")
    found, expected = (ContrastiveLocalLoss()(module.scored(batch(SHORT, targets)))
                       for targets in ([-1.0, -2.0, -3.0], [3.0, 2.0, 1.0]))  # fmt: skip
    torch.testing.assert_close(found, expected)
