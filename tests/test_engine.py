"""The engine's shortcuts change nothing but the time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pyterrier_lir import engine as engine_module
from pyterrier_lir import load_model
from pyterrier_lir.cpu_kernels import int8_linear
from pyterrier_lir.engine import Engine
from pyterrier_lir.models import CrossEncoderModel
from tests.tiny_bi_encoders import KINDS
from tests.tiny_checkpoints import POINTWISE

Tiny = Callable[[str], str]
Pairs = tuple[list[str], list[str]]
LISTS = [i // 5 for i in range(60)]
# backbones that pack nothing, and queries filled up with tokens that others do not see
_PADDED = ("t5", "deberta", "set-encoder", "xtr", "distilbert", "sparse-encoder-sum", "pylate", "colbert")
PACKABLE = [k for k in KINDS if not any(x in k for x in _PADDED) and k not in ("col", "multi-vector-encoder")]


@pytest.mark.parametrize("kind", KINDS)
def test_batch_sizes_and_budgets_agree(kind: str, tiny: Tiny, pairs: Pairs) -> None:
    model = load_model(tiny(kind))
    expected = Engine(model).score(*pairs, LISTS)
    for size in (1, 3, 1_000):
        np.testing.assert_allclose(Engine(model, batch_size=size).score(*pairs, LISTS), expected, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("kind", POINTWISE)
def test_computing_only_the_needed_rows_agrees_with_computing_all(kind: str, tiny: Tiny, pairs: Pairs) -> None:
    model = load_model(tiny(kind))
    fast = Engine(model).score(*pairs)
    model.plain = True
    np.testing.assert_allclose(Engine(model).score(*pairs), fast, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("kind", PACKABLE)
def test_packed_input_agrees_with_padded_input(kind: str, tiny: Tiny, pairs: Pairs) -> None:
    model = load_model(tiny(kind))
    packed = Engine(model, packed=True)
    assert packed.packed
    np.testing.assert_allclose(packed.score(*pairs), Engine(model, packed=False).score(*pairs), rtol=3e-6, atol=1e-5)


def test_packed_input_is_checked_once_and_given_up_where_it_differs(
    tiny: Tiny, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny("bert-1"))
    expected = Engine(model).score(*pairs)
    mixing = Engine(model, packed=True)
    mixing._checked = False
    inner = CrossEncoderModel.forward

    def forward(self: CrossEncoderModel, inputs: object) -> torch.Tensor:
        scores = inner(self, inputs)  # type: ignore[arg-type]
        return scores if inputs.offsets is None else scores + torch.randn(len(scores)) * 5  # type: ignore[attr-defined]

    monkeypatch.setattr(CrossEncoderModel, "forward", forward)
    with pytest.warns(RuntimeWarning, match="packed and padded input disagree"):
        scores = mixing.score(*pairs)
    np.testing.assert_allclose(scores, expected, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("kind", POINTWISE)
def test_equal_pairs_are_computed_once(kind: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    inner = CrossEncoderModel.forward
    monkeypatch.setattr(
        CrossEncoderModel, "forward", lambda self, inputs: (rows.append(len(inputs)), inner(self, inputs))[1]
    )
    scores = Engine(load_model(tiny(kind))).score(["sand", "bread", "sand"] * 4, ["sea", "oven", "sea"] * 4)
    assert sum(rows) == 2
    assert len(set(scores[0::3]) | set(scores[2::3])) == 1


def test_chunks_do_not_show(tiny: Tiny, pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("bert-1", "dense", "set-encoder"):
        model = load_model(tiny(kind))
        expected = Engine(model).score(*pairs, LISTS)
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "CHUNK", 7)
            np.testing.assert_allclose(Engine(model).score(*pairs, LISTS), expected, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("kind", ["set-encoder", "set-encoder-extra"])
def test_listwise_scores_are_permutation_invariant_deterministic_and_alike_in_any_company(
    kind: str, tiny: Tiny, pairs: Pairs
) -> None:
    engine = Engine(load_model(tiny(kind)))
    lists = np.repeat(np.arange(22), [3, 1, 5, 2] * 5 + [3, 2])[:60]  # ragged
    lists = np.concatenate([lists, np.full(60 - len(lists), 99)])
    queries, docs = (np.array(column, dtype=object) for column in pairs)
    together = engine.score(queries, docs, lists)
    np.testing.assert_array_equal(engine.score(queries, docs, lists), together)
    order = np.random.default_rng(0).permutation(60)
    shuffled = np.empty(60)
    shuffled[order] = engine.score(queries[order], docs[order], lists[order])
    np.testing.assert_allclose(shuffled, together, rtol=3e-6, atol=1e-5)
    for number in np.unique(lists):
        rows = lists == number
        np.testing.assert_allclose(
            engine.score(queries[rows], docs[rows], lists[rows]), together[rows], rtol=3e-6, atol=1e-5
        )


def test_a_listwise_model_without_lists_is_refused(tiny: Tiny, pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="give lists="):
        Engine(load_model(tiny("set-encoder"))).score(*pairs)


@pytest.mark.parametrize(("precision", "near"), [("bf16", 0.05), ("int8", 0.35)])
@pytest.mark.parametrize("kind", ["mono-bert", "mono-roberta", "modernbert-cls", "monot5", "dense", "set-encoder"])
def test_lower_precisions_stay_near_float32(kind: str, precision: str, near: float, tiny: Tiny, pairs: Pairs) -> None:
    model = load_model(tiny(kind))
    exact = Engine(model).score(*pairs, LISTS)
    scores = Engine(model, precision=precision).score(*pairs, LISTS)  # type: ignore[arg-type]
    assert np.abs(scores - exact).max() > 0
    assert np.abs(scores - exact).mean() < near * max(exact.std(), 0.1)


def test_int8_keeps_the_small_rows_of_a_weight_beside_large_ones() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-2, 0, 32)[:, None])  # each row is a number of its own size
        layer.bias.zero_()
    states = torch.randn(200, 64)
    with torch.inference_mode():
        exact, found = layer(states), int8_linear(layer)(states)
    errors = (found - exact).norm(dim=0) / exact.norm(dim=0)
    assert errors.max() < 0.05  # with one scale for the whole weight those of the smallest rows are 0.4


def test_preparing_a_model_leaves_it_as_it_was(tiny: Tiny, pairs: Pairs) -> None:
    model = load_model(tiny("bert-1"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for precision in ("bf16", "int8", "float32"):
        Engine(model, precision=precision).score(*pairs)  # type: ignore[arg-type]
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_out_of_memory_halves_the_batch_and_goes_on(
    batch_size: int | None, tiny: Tiny, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny("bert-1"))
    expected = Engine(model).score(*pairs)
    inner = CrossEncoderModel.forward

    def small_gpu(self: CrossEncoderModel, inputs: object) -> torch.Tensor:
        if len(inputs) > 3:  # type: ignore[arg-type]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(CrossEncoderModel, "forward", small_gpu)
    np.testing.assert_allclose(Engine(model, batch_size=batch_size).score(*pairs), expected, rtol=3e-6, atol=1e-5)


def test_a_single_pair_that_does_not_fit_is_an_error(tiny: Tiny, pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: CrossEncoderModel, inputs: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CrossEncoderModel, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        Engine(load_model(tiny("bert-1"))).score(*pairs)


def test_queries_and_documents_must_pair_up(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="2 queries and 1 documents"):
        Engine(load_model(tiny("bert-1"))).score(["a", "b"], ["c"])


def test_no_pairs_give_no_scores(tiny: Tiny) -> None:
    for kind in KINDS:
        assert Engine(load_model(tiny(kind))).score([], [], []).shape == (0,)


@pytest.mark.parametrize("kind", POINTWISE)
def test_order_and_company_of_pairs_do_not_matter(kind: str, tiny: Tiny, pairs: Pairs) -> None:
    engine = Engine(load_model(tiny(kind)), batch_size=7)
    expected = engine.score(*pairs)
    queries, docs = (np.array(column, dtype=object) for column in pairs)
    order = np.random.default_rng(3).permutation(np.repeat(np.arange(60), 2))  # each pair twice
    np.testing.assert_allclose(engine.score(queries[order], docs[order]), expected[order], rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 9])
@pytest.mark.parametrize("kind", ["set-encoder", "set-encoder-extra"])
def test_out_of_memory_halves_the_number_of_lists_and_goes_on(
    kind: str, batch_size: int | None, tiny: Tiny, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny(kind))
    expected = Engine(model).score(*pairs, LISTS)
    inner = CrossEncoderModel.forward

    def one_list_at_a_time(self: CrossEncoderModel, inputs: object) -> torch.Tensor:
        if len(inputs) > 5:  # type: ignore[arg-type]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(CrossEncoderModel, "forward", one_list_at_a_time)
    np.testing.assert_allclose(
        Engine(model, batch_size=batch_size).score(*pairs, LISTS), expected, rtol=3e-6, atol=1e-5
    )


def test_the_batch_size_bounds_the_rows_of_several_lists(
    tiny: Tiny, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    inner = CrossEncoderModel.forward
    monkeypatch.setattr(
        CrossEncoderModel, "forward", lambda self, inputs: (rows.append(len(inputs)), inner(self, inputs))[1]
    )
    Engine(load_model(tiny("set-encoder")), batch_size=10).score(*pairs, LISTS)
    assert sum(rows) == 60
    assert max(rows) <= 10  # lists have five rows, so none is too long for a batch


@pytest.mark.parametrize("packed", [False, True])
def test_a_pair_without_any_token_scores_the_same_in_any_company(packed: bool, tiny: Tiny) -> None:
    model = load_model(tiny("qwen3-classifier"))  # its tokenizer has no special tokens
    alone, after_sand, after_bread = (
        Engine(model, packed=packed).score([*others, ""], [*others, ""])[-1]
        for others in ([], ["sand"], ["bread and sea"])
    )
    np.testing.assert_allclose([after_sand, after_bread], [alone, alone], rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda:99"}, "device='cuda:99' is not there; here are: cpu"),
        ({"device": "toaster"}, "device='toaster' is not there; here are: cpu"),
        ({"precision": "bf8"}, "precision='bf8'; allowed: auto, float32, bf16, fp16, int8"),
        ({"precision": "fp16", "device": "cpu"}, "precision='fp16' is for GPUs"),
        ({"batch_size": 0}, "batch_size=0; allowed: a positive number"),
        ({"batch_size": 2.5}, "batch_size=2.5; allowed: a positive number"),
    ],
)
def test_settings_that_are_not_there_are_refused(settings: dict[str, object], message: str, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(load_model(tiny("bert-1")), **settings)  # type: ignore[arg-type]
