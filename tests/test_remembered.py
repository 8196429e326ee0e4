"""An index alone: queries that are text are encoded by the model that it remembers."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_lir import BiEncoderModel, LIRBiEncoder, LIRDenseIndex, LIRIndex, LIRIndexer, LIRRetriever, open_index
from pyterrier_lir.indexes import remembered
from tests.tiny_checkpoints import SENTENCES

Tiny = Callable[[str], str]
DOCS = [{"docno": f"d{i}", "text": text} for i, text in enumerate(SENTENCES)]
TOPICS = pd.DataFrame([("q1", "rainfall in the mountains"), ("q2", "a hot oven"), ("q3", "rainfall in the mountains")],
                      columns=["qid", "query"]).assign(user=["ann", "bob", "cem"])  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "dense, short documents": ("dense", {"doc_length": 6}),
    "dense, other queries": ("dense", {"query_prompt": "find: ", "query_length": 5, "truncate_dim": 8}),
    "dense, cut": ("dense", {"max_length": 6}),
    "sparse": ("splade", {}),
    "sparse, by ids": ("splade", {"token_ids": True}),
    "multi-vector": ("col", {}),
    "one output of several": ("bge-m3", {"outputs": ("sparse",)}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path) -> tuple[LIRIndex, LIRRetriever]:
    """An index, and the retriever that is told the model and its settings."""
    kind, settings = CASES[request.param]
    index = LIRIndexer(tiny(kind), tmp_path / "x.lir", **settings).index(DOCS)
    own = {name: value for name, value in settings.items() if name != "doc_length"}
    return index, LIRRetriever(tiny(kind), tmp_path / "x.lir", num_results=5, **own)


def test_text_is_searched_as_by_the_model_that_made_the_index(case: tuple[LIRIndex, LIRRetriever]) -> None:
    index, told = case
    retriever = pickle.loads(pickle.dumps(open_index(index.path).retriever(num_results=5)))
    pd.testing.assert_frame_equal(retriever(TOPICS), told(TOPICS))
    pd.testing.assert_frame_equal((retriever % 2)(TOPICS), (told % 2)(TOPICS))
    assert list(retriever(TOPICS[:0]).columns) == list(told(TOPICS[:0]).columns)


def test_candidates_are_scored_from_stored_vectors_without_any_text(case: tuple[LIRIndex, LIRRetriever]) -> None:
    index, told = case
    candidates = pt.Transformer.from_df(told(TOPICS).assign(score=0.0).drop(columns="rank"))
    pipeline = candidates >> open_index(index.path).scorer()
    pd.testing.assert_frame_equal(pipeline(TOPICS), told(candidates(TOPICS)))


def test_vectors_in_the_frame_come_first(tiny: Tiny, tmp_path: Path) -> None:
    index = LIRIndexer(tiny("dense"), tmp_path / "x.lir").index(DOCS)
    encoded = LIRBiEncoder(tiny("dense")).query_encoder()(TOPICS)
    swapped = encoded.assign(query="something else")
    expected, found = (index.retriever(num_results=3)(frame) for frame in (encoded, swapped))
    assert found["docno"].tolist() == expected["docno"].tolist()
    assert "query_vec" in found.columns


def test_an_index_of_vectors_alone_says_that_it_knows_no_model(tiny: Tiny, tmp_path: Path) -> None:
    index = LIRDenseIndex(tmp_path / "x.lir")
    index.indexer().index(LIRBiEncoder(tiny("dense")).doc_encoder()(pd.DataFrame(DOCS)).to_dict("records"))
    assert index.retriever()(TOPICS[:0]).columns.tolist() == [*TOPICS.columns, "docno", "score", "rank"]
    with pytest.raises(ValueError, match=r"knows no model for queries that are text: put the query_encoder\(\)"):
        index.retriever()(TOPICS)


def test_a_model_that_has_changed_or_gone_is_told(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("dense"), tmp_path / "model")
    index = LIRIndexer(str(tmp_path / "model"), tmp_path / "x.lir").index(DOCS)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="model"):
        open_index(index.path).retriever()(TOPICS)
    shutil.copytree(tiny("dpr-mean"), tmp_path / "model")
    with pytest.raises(ValueError, match="whose weights are not those of"):
        open_index(index.path).retriever()(TOPICS)


def test_a_model_that_was_changed_before_indexing_is_not_opened_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    model = BiEncoderModel.from_pretrained(tiny("dense")).with_options(query_pooling_strategy="max")
    LIRIndexer(model, tmp_path / "x.lir").index(DOCS)
    with pytest.raises(ValueError, match=r"was made with query_pooling_strategy=\('max',\), other than .* by itself"):
        open_index(tmp_path / "x.lir").retriever()(TOPICS)


def test_an_index_that_is_built_anew_opens_its_new_model(tiny: Tiny, tmp_path: Path) -> None:
    retriever = LIRIndexer(tiny("dense"), tmp_path / "x.lir").index(DOCS).retriever(num_results=3)
    retriever(TOPICS)
    LIRIndexer(tiny("dpr-mean"), tmp_path / "x.lir", mode="overwrite").index(DOCS)
    expected = LIRRetriever(tiny("dpr-mean"), tmp_path / "x.lir", num_results=3)(TOPICS)
    pd.testing.assert_frame_equal(retriever(TOPICS), expected)


def test_retrievers_and_scorers_of_an_index_share_its_model(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = LIRIndexer(tiny("dense"), tmp_path / "x.lir").index(DOCS)
    loaded: list[Any] = []
    own = remembered._opened
    monkeypatch.setattr(remembered, "_opened", lambda index: loaded.append(index) or own(index))
    found = [index.retriever(num_results=n)(TOPICS) for n in (2, 3)]
    index.scorer()(found[0])
    assert loaded == [index]


def test_one_query_is_searched_as_in_any_pipeline(tiny: Tiny, tmp_path: Path) -> None:
    index = LIRIndexer(tiny("dense"), tmp_path / "x.lir").index(DOCS)
    retriever, topics = index.retriever(num_results=3), pd.DataFrame([("1", "a hot oven")], columns=["qid", "query"])
    pd.testing.assert_frame_equal(retriever.search("a hot oven"), retriever(topics))
