"""Scores equal those of the libraries that wrote the checkpoints, on their own recorded outputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyterrier_lir import load_model
from pyterrier_lir.engine import Engine
from pyterrier_lir.models import BiEncoderModel, CrossEncoderModel
from pyterrier_lir.vectors import Encoded
from tests.tiny_checkpoints import SHARED

PARITY = SHARED / "parity"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not PARITY.is_dir(), reason=f"no reference outputs in {PARITY}"),
]
# What the reference was computed with and no file says.
LOADED_WITH = {"rankt5": {"template": "rankt5"}}
_NO_SPECIALS = {"query_mask_scoring_tokens": ("[PAD]", "[CLS]", "[SEP]", "[MASK]")}
SETTINGS: dict[str, dict[str, Any]] = {
    "qwen3-reranker": {"max_length": 320},
    "naver-splade": {"max_length": 64},
    "naver-splade-doc": {"max_length": 64, "query_weighting": "binary", **_NO_SPECIALS},
    "naver-splade-lexical": {"max_length": 64, "query_weighting": "lexical", **_NO_SPECIALS},
}


def folders() -> list[Path]:
    return sorted((PARITY / "public").iterdir()) if PARITY.is_dir() else []


@dataclass
class Case:
    """One checkpoint, its reference outputs and the pairs of all queries and documents."""

    model: Any
    expected: dict[str, Any]
    queries: list[str]
    docs: list[str]

    @property
    def scores(self) -> np.ndarray:
        return np.array(self.expected["scores"])

    def all_pairs(self) -> tuple[list[str], list[str], list[int]]:
        rows = [(q, d, i) for i, q in enumerate(self.queries) for d in self.docs]
        return [q for q, _, _ in rows], [d for _, d, _ in rows], [i for _, _, i in rows]

    def check(self, scores: np.ndarray) -> None:
        relative = max(1.0, float(np.abs(self.scores).max())) if "bi-encoder" in self.expected["kind"] else 1.0
        np.testing.assert_allclose(scores.reshape(self.scores.shape), self.scores, rtol=0, atol=1e-5 * relative)


@pytest.fixture(params=folders(), ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> Case:
    folder = request.param
    texts = json.loads((PARITY / "texts.json").read_text())
    queries, docs = ([entry["text"] for entry in texts[name]] for name in ("queries", "documents"))
    model = load_model(folder / "model", **LOADED_WITH.get(folder.name, {}))
    expected = json.loads((folder / "expected.json").read_text())
    return Case(model.with_options(**SETTINGS.get(folder.name, {})), expected, queries, docs)


def test_scores_equal_the_source_librarys_in_batches_by_tokens(case: Case) -> None:
    case.check(Engine(case.model).score(*case.all_pairs()))


def test_scores_equal_one_pair_at_a_time_without_shortcuts(case: Case) -> None:
    case.model.plain = True
    engine = Engine(case.model, batch_size=1)
    case.check(engine.score(*case.all_pairs()))


def test_scores_equal_without_padding(case: Case) -> None:
    if not case.model.packable:
        pytest.skip("this backbone runs padded")
    engine = Engine(case.model, packed=True)
    assert engine.packed
    case.check(engine.score(*case.all_pairs()))


def test_scores_equal_in_any_order(case: Case) -> None:
    queries, docs, lists = (np.array(column, dtype=object) for column in case.all_pairs())
    order = np.random.default_rng(5).permutation(len(queries))
    scores = np.empty(len(order))
    scores[order] = Engine(case.model, batch_size=7).score(queries[order], docs[order], lists[order])
    case.check(scores)


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("how", [{}, {"batch_size": 1}, {"packed": True}], ids=["by tokens", "alone", "packed"])
def test_representations_equal_the_source_librarys(case: Case, side: str, how: dict[str, Any]) -> None:
    if not isinstance(case.model, BiEncoderModel):
        pytest.skip("a cross-encoder represents no single texts")
    texts = case.queries if side == "query" else case.docs
    encoded = Engine(case.model, **how).encode(texts, query=side == "query")
    recorded = case.expected[f"{side}_embeddings"]
    by_id = dict(zip(case.expected[f"{side}_ids"], range(len(texts)), strict=True))
    rows = recorded.items() if isinstance(recorded, dict) else zip(by_id, recorded, strict=True)
    for name, expected in rows:
        compare(encoded, by_id[name], expected)


def compare(encoded: Encoded, row: int, expected: Any) -> None:
    """One text's vectors with those recorded: a list, terms and weights, or token vectors of which some count."""
    if isinstance(expected, list):
        close(encoded["dense"][row], expected)
    elif "vectors" not in expected:
        if all(term.isdigit() for term in expected):
            dense = np.zeros(encoded["sparse"].shape[1])
            dense[[int(term) for term in expected]] = list(expected.values())
            close(encoded["sparse"][[row]].toarray()[0], dense)
    else:
        vectors = np.array(expected["vectors"])
        keep = np.array(expected.get("keep", np.ones(len(vectors))), dtype=bool)
        vectors = vectors[keep] if len(vectors) == len(keep) else vectors
        close(encoded["multi_vector"].take(np.array([row])).values, vectors)
        if "cls_vector" in expected:
            close(encoded["dense"][row], expected["cls_vector"])


def close(ours: np.ndarray, theirs: Any) -> None:
    scale = max(1.0, float(np.abs(theirs).max(initial=0)))
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-5 * scale)


def test_joined_ids_equal_the_source_librarys(case: Case) -> None:
    if "pair_input_ids" not in case.expected or not isinstance(case.model, CrossEncoderModel):
        pytest.skip("the source library does not join pairs")
    tokenizer = case.model.tokenizer
    queries, docs = tokenizer.encode_queries(case.queries), tokenizer.encode_docs(case.docs)
    for i, rows in enumerate(case.expected["pair_input_ids"]):
        batch = tokenizer.join(queries, docs, np.full(len(rows), i), np.arange(len(rows)), pad_id=0)
        assert [ids[:length].tolist() for ids, length in zip(batch.ids, batch.lengths, strict=True)] == rows
        if batch.types is not None and "pair_second_segment_start" in case.expected:
            assert batch.types.argmax(1).tolist() == case.expected["pair_second_segment_start"][i]


def test_shorter_lists_of_listwise_models_equal_where_the_library_is_deterministic(case: Case) -> None:
    if "scores_list_of_first_8_documents" not in case.expected:
        pytest.skip("no shorter lists recorded")
    engine = Engine(case.model)
    for i, query in enumerate(case.queries):
        eight = engine.score([query] * 8, case.docs[:8], [0] * 8)
        np.testing.assert_allclose(eight, case.expected["scores_list_of_first_8_documents"][i], atol=1e-5)
    alone = engine.score(*case.all_pairs()[:2], list(range(len(case.queries) * len(case.docs))))
    np.testing.assert_allclose(
        alone.reshape(case.scores.shape), case.expected["scores_list_of_one_document"], atol=1e-5
    )
