"""The installed documentation is an ordinary test collection."""

from __future__ import annotations

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_lir import DocumentationDataset
from pyterrier_lir.data.documentation import make_entry


@pytest.fixture(scope="module")
def dataset() -> DocumentationDataset:
    return DocumentationDataset(["stdlib", "more_itertools", "not_installed_anywhere"])


def test_documents_have_unique_names_and_text_under_them(dataset: DocumentationDataset) -> None:
    docs = pd.DataFrame(dataset.get_corpus_iter())
    assert list(docs.columns) == ["docno", "title", "text"]
    assert docs["docno"].is_unique
    assert len(docs) > 1_000
    assert all(text.startswith(title + "\n") for title, text in zip(docs["title"], docs["text"], strict=True))
    assert not docs["docno"].str.contains(r"(?:^|\.)_").any()


def test_the_splits_are_disjoint_cover_everything_and_judge_one_document_each(dataset: DocumentationDataset) -> None:
    splits = {name: dataset.get_topics(name) for name in ("train", "dev", "test")}
    assert sum(map(len, splits.values())) == len(dataset.entries)
    assert pd.concat(splits.values())["qid"].is_unique
    for name, topics in splits.items():
        qrels = dataset.get_qrels(name)
        assert qrels["qid"].tolist() == topics["qid"].tolist()
        assert (qrels["label"] == 1).all()
        assert set(qrels["docno"]) <= {entry.docno for entry in dataset.entries}
    assert len(splits["train"]) > 5 * len(splits["test"])


def test_no_query_occurs_twice_or_stands_in_its_document(dataset: DocumentationDataset) -> None:
    queries = [entry.query.lower() for entry in dataset.entries]
    assert len(set(queries)) == len(queries)
    assert not any(entry.query in entry.text.partition("\n")[2] for entry in dataset.entries)


def test_reading_again_gives_the_same_collection(dataset: DocumentationDataset) -> None:
    again = DocumentationDataset(["stdlib", "more_itertools"])
    assert again.entries == dataset.entries
    assert set(dataset.versions) == {"stdlib", "more_itertools"}


def test_texts_are_added_to_results(dataset: DocumentationDataset) -> None:
    entry = dataset.entries[10]
    results = pd.DataFrame([["q", entry.docno, 1.0]], columns=["qid", "docno", "score"])
    loaded = pt.text.get_text(dataset, ["text"])(results)
    assert loaded.to_dict("records") == [{"qid": "q", "docno": entry.docno, "score": 1.0, "text": entry.text}]
    with pytest.raises(ValueError, match="No field body"):
        dataset.text_loader("body")


def test_an_unknown_split_is_refused(dataset: DocumentationDataset) -> None:
    with pytest.raises(ValueError, match="variant='validation'; allowed: train, dev, test"):
        dataset.get_topics("validation")  # type: ignore[arg-type]


REST = "It goes on with twenty words or more, so that there is something to find, which this sentence surely provides by now."


@pytest.mark.parametrize(
    ("name", "docstring", "query"),
    [
        ("a.join", f"Put several strings together. {REST}", "Put several strings together"),
        ("a.join", f"Put several strings together.\n\n{REST}", "Put several strings together"),
        ("a.join", f"Put several\nstrings together\n\n{REST}", "Put several strings together"),
        ("a.join", "Put several strings together.", None),
        ("a.join", f"Joins. {REST}", None),
        ("a.put_several_strings", f"Put several strings now. {REST}", None),
        ("a.join", f"Deprecated since version two, use another. {REST}", None),
        ("a.join", f"Put strings, e.g. names, together quickly. {REST}", "Put strings, e.g. names, together quickly"),
    ],
)
def test_first_sentences_become_queries_unless_they_are_trivial(name: str, docstring: str, query: str | None) -> None:
    entry = make_entry(name, docstring)
    assert (entry.query if entry else None) == query
    assert entry is None or entry.text == f"{name}\n{REST}"
