"""Odd rows and files: what is missing, what could be read in two ways, and other libraries' columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ir_datasets
import numpy as np
import pandas as pd
import pytest
import torch

from pyterrier_lir.data import DocDataset, QueryDataset, RankSample, RunDataset, TupleDataset, mine_negatives
from pyterrier_lir.data.judgements import Judgements
from tests.test_data import DOCS, PARTS, QUERIES, RUN, cache, folder, plain, register_local

__all__ = ["cache", "folder"]


def lists(given: Any, targets: Any = "order", **settings: Any) -> list[Any]:
    samples = [plain(sample) for sample in TupleDataset(given, targets, **settings)]
    return [(query, docs, values) for _, query, _, docs, values in samples]


def test_fractional_grades_are_refused_and_not_cut_off() -> None:
    frame = pd.DataFrame({"qid": ["1", "1"], "docno": ["a", "b"], "label": [0.5, 1.0]})
    with pytest.raises(ValueError, match=r"relevance .*0\.5.*; allowed: whole numbers"):
        Judgements(frame, "qrels")
    assert Judgements(frame.assign(label=[2.0, 0.0]), "qrels").of("1")[0]["relevance"] == 2


MISSING: dict[str, tuple[Callable[[], Any], str]] = {
    "a document of a frame": (lambda: list(DocDataset({"docs": pd.DataFrame({"docno": ["a"], "text": [np.nan]})})),
                              "text of 'a' is missing"),
    "a document of a dictionary": (lambda: list(DocDataset({"docs": {"a": None}})), "text of 'a' is missing"),
    "a query": (lambda: list(QueryDataset({"queries": pd.DataFrame({"qid": ["q7"], "query": [None]})})),
                "query of 'q7' is missing"),
    "a negative": (lambda: lists(pd.DataFrame({"query": ["x"], "pos": ["y"], "neg": [np.nan]})),
                   "a document of query 'x' is missing"),
    "a query of tuples": (lambda: lists([{"query": float("nan"), "pos": "y", "neg": "z"}]), "a query is missing"),
    "a text of a long frame": (
        lambda: lists(pd.DataFrame({"qid": ["1", "1"], "query": ["x"] * 2, "docno": ["a", "b"], "text": ["y", None],
                                    "label": [1, 0]})), "text in row 1 is missing"),
    "a text of a run": (lambda: len(RunDataset(RUN.assign(query="x", text=[None] + ["y"] * (len(RUN) - 1)))),
                        "text of doc_id 'c' is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_text_is_told_and_does_not_become_a_word(case: str) -> None:
    call, message = MISSING[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_text_that_is_null_in_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"docno": "a", "text": null}\n')
    with pytest.raises(ValueError, match="text of 'a' is missing"):
        list(DocDataset(tmp_path / "corpus.jsonl"))


def test_a_title_that_is_missing_is_left_out() -> None:
    docs = pd.DataFrame({"docno": ["a", "b"], "title": ["Sand", np.nan], "text": ["and sea.", "Bread."]})
    assert [one.doc for one in DocDataset({"docs": docs})] == ["Sand and sea.", "Bread."]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_queries_whose_relevant_document_was_not_found_are_left_out_of_mining(size: int) -> None:
    """q2's was found for q1, which has to make no difference."""
    found = pd.DataFrame(
        [("q1", "a"), ("q1", "b"), ("q1", "c"), ("q2", "a"), ("q2", "c"), ("q2", "d")], columns=["qid", "docno"]
    ).assign(score=1.0, text="a text", rank=[0, 1, 2] * 2)
    topics = pd.DataFrame({"qid": ["q1", "q2"], "query": ["one", "two"]})
    qrels = pd.DataFrame({"qid": ["q1", "q2"], "docno": ["b", "b"], "label": 1})

    def search(asked: pd.DataFrame) -> pd.DataFrame:
        return asked.merge(found, on="qid")

    with pytest.warns(UserWarning, match=r"1 of 2 queries have no relevant document that was found with its text"):
        mined = mine_negatives(search, topics, qrels, n=2, batch_size=size)
    assert mined["qid"].tolist() == ["q1"] * 3
    assert mined["text"].tolist() == ["a text"] * 3
    docs = dict.fromkeys("abcd", "own text")
    whole = mine_negatives(search, topics, qrels, n=2, batch_size=size, docs=docs)
    assert whole["qid"].tolist() == ["q1"] * 3 + ["q2"] * 3


def test_grades_of_samples_are_used() -> None:
    sample = RankSample("q", "x", ("a", "b", "c"), ("A", "B", "C"), torch.tensor([0.0, 2.0, 3.0]))
    assert lists([sample]) == [("x", ("B", "A"), [1, 0]), ("x", ("C", "A"), [1, 0])]
    assert lists([sample], "relevance") == [("x", ("C", "B", "A"), [3, 2, 0])]
    scored = RankSample("q", "x", ("a", "b"), ("A", "B"), torch.tensor([9.5, 1.5]))
    assert lists([scored]) == [("x", ("A", "B"), [1, 0])]
    assert lists([scored], "score") == [("x", ("A", "B"), [9.5, 1.5])]


@pytest.mark.parametrize(
    ("values", "order"),
    [((3, 2, 1), "abc"), ((1, 2, 3), "abc"), ((0, 1, 2), "abc"), ((2, 1, 0), "abc"), ((2, 3, 1), "cab")],
)
def test_a_third_column_that_falls_has_scores_and_one_that_rises_ranks(
    values: tuple[int, ...], order: str, tmp_path: Path
) -> None:
    path = tmp_path / "three.tsv"
    path.write_text("".join(f"{q}\t{d}\t{v}\n" for q in QUERIES for d, v in zip("abc", values, strict=True)))
    assert "".join(RunDataset(path, dataset=PARTS)[0].doc_ids) == order


def test_a_third_column_that_may_be_either_is_refused(tmp_path: Path) -> None:
    (tmp_path / "three.tsv").write_text("q1\ta\t5\nq1\tb\t9\nq1\tc\t1\n")
    with pytest.raises(ValueError, match="may be ranks or scores"):
        len(RunDataset(tmp_path / "three.tsv", dataset=PARTS))


@pytest.mark.parametrize("scores", [("9.5", "1e-05"), ("8", "3"), ("9.5", "-1")])
def test_scores_before_a_triple_need_no_point(scores: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "triples.tsv"
    path.write_text("\t".join((*scores, "how tall", "It is tall.", "Bread.")) + "\n")
    [(query, docs, values)] = lists(path, "score")
    assert (query, docs) == ("how tall", ("It is tall.", "Bread."))
    assert values == torch.tensor([float(score) for score in scores]).tolist()


def test_five_ids_that_are_numbers_are_a_query_and_four_documents(tmp_path: Path) -> None:
    (tmp_path / "ids.tsv").write_text("1\t10\t11\t12\t13\n")
    parts = {"queries": {"1": "x"}, "docs": {str(one): f"d{one}" for one in range(10, 14)}}
    assert lists(tmp_path / "ids.tsv", dataset=parts) == [("x", ("d10", "d11", "d12", "d13"), [1, 0, 0, 0])]


def test_datasets_of_ir_datasets_are_taken_as_objects(folder: Path) -> None:
    name = register_local(folder)
    dataset = ir_datasets.load(name)
    assert lists(dataset) == lists(name)
    given, named = RunDataset(dataset), RunDataset(name)
    assert [plain(given[i]) for i in range(len(given))] == [plain(named[i]) for i in range(len(named))]


@pytest.mark.parametrize(
    ("row", "targets", "expected"),
    [
        ({"anchor": "x", "positive": "y", "negative": "z"}, "order", ("x", ("y", "z"), [1, 0])),
        ({"anchor": "x", "positive": "y", "negative_1": "z", "negative_2": "w"}, "order",
         ("x", ("y", "z", "w"), [1, 0, 0])),
        ({"query": "x", "positive": "y", "negative": "z", "label": 4.5}, "score", ("x", ("y", "z"), [4.5, 0])),
        ({"query": "x", "positive": "y", "negative": "z", "score": [7.0, 2.5]}, "score", ("x", ("y", "z"), [7, 2.5])),
    ],
)  # fmt: skip
def test_columns_of_sentence_transformers_are_read(
    row: dict[str, Any], targets: Any, expected: Any, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    for given in ([row], pd.DataFrame([row]), tmp_path / "rows.jsonl"):
        assert lists(given, targets) == [expected]


def test_pairs_are_for_negatives_of_the_batch() -> None:
    for given in ([("x", "y")], [{"anchor": "x", "positive": "y"}], pd.DataFrame({"anchor": ["x"], "positive": ["y"]})):
        assert lists(given, num_docs=1) == [("x", ("y",), [1])]
    with pytest.raises(ValueError, match="such as 1 where negatives are those of the batch"):
        lists([("x", "y")])


@pytest.mark.parametrize("column", ["label", "score"])
def test_pairs_of_sentences_with_values_are_lists(column: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"sentence1": ["x", "x"], "sentence2": ["y", "z"], column: [1, 0]})
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    for given in (frame, tmp_path / "pairs.csv"):
        assert lists(given, "score" if column == "score" else "relevance") == [("x", ("y", "z"), [1, 0])]


def test_a_run_whose_tag_is_the_name_of_a_column_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "title.run"
    path.write_text("".join(f"{q}\tQ0\t{d}\t{i}\t{4.0 - i}\ttitle\n" for q in QUERIES for i, d in enumerate("cba")))
    assert RunDataset(path, dataset=PARTS)[0].docs == tuple(DOCS[docno] for docno in "cba")
