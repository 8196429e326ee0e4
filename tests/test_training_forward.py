"""Forward passes with gradients: the scores of inference, and gradients that do not depend on how a batch is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pyterrier_lir.engine import Engine
from pyterrier_lir.models import BiEncoderModel, CrossEncoderModel, load_model
from pyterrier_lir.training import BiEncoderModule, CrossEncoderModule
from pyterrier_lir.training.forward import encode, score_pairs
from pyterrier_lir.training.similarity import all_scores, own_scores
from tests.tiny_bi_encoders import BI_ENCODERS, CROSS_KINDS

Tiny = Callable[[str], str]
QUERIES = ["rainfall in the mountains", "a hot oven for bread", "the height of the tower"]
DOCS = [
    "The rain in the mountains was measured.", "Bread is baked in a hot oven for an hour.", "x",
    "The tower is three hundred metres high and stands in the middle of the old town by the river.",
    "The rain in the mountains was measured.", "",
]  # fmt: skip
LISTS = [DOCS[0:2], DOCS[2:4], DOCS[4:6]]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", BI_ENCODERS)
def test_scores_are_those_of_inference(kind: str, tiny: Tiny) -> None:
    model = load_model(tiny(kind))
    assert isinstance(model, BiEncoderModel)
    model.plain = True
    pairs = [(query, doc) for query in QUERIES for doc in DOCS]
    expected = torch.from_numpy(Engine(model, precision="float32").score(*zip(*pairs, strict=True))).view(3, 6)
    queries, docs = encode(model, QUERIES, True), encode(model, DOCS, False)
    found = all_scores(queries, docs)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-4)
    own = torch.stack([found[i, 2 * i : 2 * i + 2] for i in range(3)])
    torch.testing.assert_close(own_scores(queries, docs), own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", CROSS_KINDS)
def test_scores_of_pairs_are_those_of_inference(kind: str, tiny: Tiny) -> None:
    model = load_model(tiny(kind))
    assert isinstance(model, CrossEncoderModel)
    model.plain = True
    queries = [query for query, own in zip(QUERIES, LISTS, strict=True) for _ in own]
    expected = Engine(model, precision="float32").score(queries, [d for own in LISTS for d in own], lists=queries)
    for tokens in (None, 1):
        found = score_pairs(model, QUERIES, LISTS, tokens=tokens)
        torch.testing.assert_close(found.detach(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def losses(model: BiEncoderModel, cached: bool, tokens: int | None) -> Tensor:
    queries, docs = encode(model, QUERIES, True, cached, tokens), encode(model, DOCS, False, cached, tokens)
    contrastive = nn.functional.cross_entropy(all_scores(queries, docs), torch.tensor([0, 2, 4]))
    return contrastive + 0.1 * own_scores(queries, docs).diff().square().mean()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", ["dense", "dpr-mean", "splade", "unicoil", "col", "mvr", "xtr", "coil"])
def test_cached_gradients_are_those_of_the_whole_batch_with_dropout_on(kind: str, bf16: bool, tiny: Tiny) -> None:
    model = BiEncoderModel.from_pretrained(tiny(kind)).train()
    found = []
    for cached in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = losses(model, cached, 24)
        found.append(gradients(model, loss))
    assert found[0].keys() == found[1].keys()
    assert any(gradient.abs().max() > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("kind", ["dense", "splade", "col"])
def test_gradients_do_not_depend_on_the_groups(kind: str, tiny: Tiny) -> None:
    model = BiEncoderModel.from_pretrained(tiny(kind))
    whole, cut = (gradients(model, losses(model, False, tokens)) for tokens in (None, 16))
    largest = max(float(gradient.abs().max()) for gradient in whole.values())  # keys' biases have its rounding only
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, rtol=1e-4, atol=1e-7 * largest + 1e-6, msg=name)


def without_dropout(model: BiEncoderModel | CrossEncoderModel) -> BiEncoderModel | CrossEncoderModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.plain = True
    return model.train()


@pytest.mark.parametrize("kind", [*BI_ENCODERS, *CROSS_KINDS])
def test_packed_gradients_are_those_of_padded_texts(kind: str, tiny: Tiny) -> None:
    model = without_dropout(load_model(tiny(kind)))
    if not model.packable:
        module = BiEncoderModule if isinstance(model, BiEncoderModel) else CrossEncoderModule
        with pytest.raises(ValueError, match=r"packed=True: .* runs padded; leave packed= out"):
            module(model=model, packed=True)
        return
    found = []
    for packed in (False, True):
        if isinstance(model, BiEncoderModel):
            queries, docs = (
                encode(model, texts, texts is QUERIES, False, 24, None, packed) for texts in (QUERIES, DOCS)
            )
            scores = all_scores(queries, docs)
        else:
            scores = score_pairs(model, QUERIES, LISTS, False, 24, packed=packed)
        found.append(
            (scores.detach(), gradients(model, (scores * torch.linspace(-1, 1, scores.numel()).view_as(scores)).sum()))
        )
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in found[0][1].values())
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("kind", ["mono-bert", "bert-1", "set-encoder"])
def test_cached_scores_of_pairs_have_the_same_gradients(kind: str, tiny: Tiny) -> None:
    model = CrossEncoderModel.from_pretrained(tiny(kind)).train()
    found = []
    for cached in (False, True):
        torch.manual_seed(1)
        scores = score_pairs(model, QUERIES, LISTS, cached, 48).view(3, 2)
        found.append(gradients(model, nn.functional.cross_entropy(scores, torch.zeros(3, dtype=torch.long))))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_vectors_are_cut_and_of_length_one_again(tiny: Tiny) -> None:
    [vectors] = encode(BiEncoderModel.from_pretrained(tiny("dense")), DOCS, False)
    for strategy in (None, "l2"):
        vectors.config = replace(vectors.config, normalization_strategy=strategy)
        cut = vectors.cut(5).values
        expected = vectors.values[:, :5]
        torch.testing.assert_close(cut, expected if strategy is None else nn.functional.normalize(expected, dim=-1))
