"""Several indexes that are searched as one give what one index of all documents gives."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyterrier_lir.columns import VECTOR_COLUMNS
from pyterrier_lir.config import BiEncoderConfig
from pyterrier_lir.indexes import IndexUnion, LIRDenseIndex, open_index
from pyterrier_lir.indexes.search import ENGINES
from tests.test_indexes import KINDS, documents, engines, open_or_skip, queries

COUNT = 900
Made = dict[str, tuple[IndexUnion, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For each kind: a union of three indexes, and one of the same documents."""
    found = {}
    for kind, index in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        docs = documents(kind, COUNT)
        for i in range(3):
            index(folder / str(i)).indexer(include_fields=["text", "year"]).index(docs[300 * i : 300 * (i + 1)])
        whole = index(folder / "whole").indexer(include_fields=["text", "year"]).index(docs)
        found[kind] = (open_index([folder / str(i) for i in range(3)]), whole)
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(("kind", "name"), engines())
def test_unions_find_what_one_index_finds(kind: str, name: str, made: Made) -> None:
    open_or_skip(kind, name)
    union, whole = made[kind]
    found = union.retriever(name, num_results=40)(queries(kind))
    expected = whole.retriever(num_results=40)(queries(kind))
    assert list(found) == list(expected)
    assert found["rank"].tolist() == list(range(40)) * 4
    if ENGINES[kind, name].exact:
        assert found["docno"].tolist() == expected["docno"].tolist()
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)
    assert len(found.merge(expected, on=["qid", "docno"])) >= 0.5 * len(expected)


def test_unions_hold_the_documents_of_all(kind: str, made: Made) -> None:
    union, whole = made[kind]
    docids = np.array([0, 899, 300, 299, 0])
    assert len(union) == len(whole) == COUNT
    assert union.docnos_of(docids).tolist() == whole.docnos_of(docids).tolist() == [f"d{i}" for i in docids]
    assert union.field_of("year", docids).tolist() == whole.field_of("year", docids).tolist()
    assert union.docids_of(["d899", "none", "d0"]).tolist() == [899, -1, 0]


def test_unions_are_restricted_and_give_stored_fields(kind: str, made: Made) -> None:
    settings: Any = {"num_results": 20, "include_fields": ["text"], "where": lambda docs: docs["year"] >= "2010"}
    found, expected = (index.retriever(**settings)(queries(kind)) for index in made[kind])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    only = [f"d{i}" for i in range(250, 350)]
    found, expected = (index.retriever(num_results=150, docnos=only)(queries(kind)) for index in made[kind])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    assert set(found["docno"]) <= set(only)


def test_unions_load_vectors_and_fields(kind: str, made: Made) -> None:
    rows = pd.DataFrame({"docno": ["d899", "d3", "d400", "d3"]})
    union, whole = made[kind]
    for name in ("vec_loader", "text_loader"):
        loaded, expected = (getattr(index, name)()(rows) for index in (union, whole))
        assert list(loaded.columns) == list(expected.columns)
        for column in loaded.columns[1:]:
            for one, other in zip(loaded[column], expected[column], strict=True):
                np.testing.assert_equal(one, other)
    assert list(union.vec_loader()(rows.head(0)).columns) == list(whole.vec_loader()(rows).columns)


def test_unions_score_results_from_stored_vectors(kind: str, made: Made) -> None:
    union, whole = made[kind]
    pairs = queries(kind).merge(pd.DataFrame({"docno": ["d850", "d3", "d400"]}), how="cross")
    expected = whole.scorer()(pairs)
    pd.testing.assert_frame_equal(union.scorer()(pairs), expected, rtol=1e-5)
    pd.testing.assert_frame_equal(union.retriever()(pairs), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"a docno that IndexUnion\(.* does not hold"):
        union.scorer()(pairs.assign(docno="none"))


def test_unions_keep_to_the_contract_of_transformers(kind: str, made: Made) -> None:
    union, _ = made[kind]
    retriever = union.retriever(num_results=30)
    assert retriever == pickle.loads(pickle.dumps(retriever)) == union.retriever(num_results=30)
    assert hash(retriever) == hash(union.retriever(num_results=30)) != hash(union.retriever(num_results=31))
    cut = (retriever % 7).compile()
    assert cut == union.retriever(num_results=7)
    pd.testing.assert_frame_equal(cut(queries(kind)), retriever(queries(kind)).query("rank < 7").reset_index(drop=True))
    empty = retriever(queries(kind).iloc[:0])
    assert list(empty) == list(retriever(queries(kind)))
    assert empty.empty


def test_changes_in_a_part_are_seen(kind: str, tmp_path: Path) -> None:
    column = VECTOR_COLUMNS[kind][0]
    parts = [KINDS[kind](tmp_path / str(i)).indexer().index(documents(kind, 50, 50 * i)) for i in range(2)]
    union = open_index(parts)
    best = union.retriever(num_results=1)(queries(kind))
    for part in parts:
        part.delete(best["docno"])
    after = open_index([tmp_path / "0", tmp_path / "1"]).retriever(num_results=100)(queries(kind)[["qid", column]])
    assert not set(after["docno"]) & set(best["docno"])


def test_indexes_that_do_not_fit_are_refused(made: Made, tmp_path: Path) -> None:
    dense, sparse = made["dense"][1], made["sparse"][1]
    with pytest.raises(ValueError, match=r"holds dense vectors, .* sparse ones"):
        IndexUnion([dense, sparse])
    with pytest.raises(ValueError, match="at least one index"):
        open_index([])
    cosine = LIRDenseIndex(tmp_path / "cosine")
    cosine.indexer(config=BiEncoderConfig(similarity_function="cosine")).index(documents("dense", 5))
    with pytest.raises(ValueError, match="differ in the config's similarity_function"):
        IndexUnion([dense, cosine])
    other = LIRDenseIndex(tmp_path / "other")
    other.indexer(model={"source": "other", "fingerprint": "1"}).index(documents("dense", 5))
    with pytest.raises(ValueError, match="differ in the model's fingerprint"):
        IndexUnion([dense, other])
    with pytest.raises(FileNotFoundError, match="is no index"):
        open_index([tmp_path / "nothing"])
