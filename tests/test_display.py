"""What notebooks show: models, indexes and transformers tell what they are, without a notebook and without loading."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_lir import LIRBiEncoder, LIRIndexer, LIRReRanker, LIRRetriever, Trainable, load_model, open_index
from pyterrier_lir.indexes import IndexUnion, LIRDenseIndex, LIRIndex
from pyterrier_lir.models.facts import KIND_WORDS
from tests.test_indexes import KINDS, documents
from tests.tiny_checkpoints import SENTENCES

Tiny = Callable[[str], str]


def table(html: str) -> dict[str, str]:
    """The names and values of the last table."""
    cells = re.findall(r"<tr><th[^>]*>([^<]*)</th><td[^>]*>([^<]*)</td></tr>", html[html.rindex("<table>") :])
    return {unescape(name): unescape(value) for name, value in cells}


def shown(made: Any) -> str:
    """The display of something, which gives no warning: PyTerrier's of what it cannot draw is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        html: str = made._repr_html_()
    return html


MODELS: dict[str, dict[str, str]] = {
    "mono-bert": {"what": "cross-encoder", "backbone": "BertModel, 2 layers of 32", "score": "linear, rank",
                  "most tokens": "query 10, document 24, positions 64"},
    "set-encoder": {"what": "listwise cross-encoder", "documents seen together": "5"},
    "bert-1": {"what": "cross-encoder", "score": "classification, rank", "activation": "Sigmoid"},
    "dense": {"what": "dense bi-encoder", "vectors": "dense: 32 numbers", "similarity": "cosine"},
    "splade": {"what": "learned sparse bi-encoder", "similarity": "dot"},
    "col": {"what": "multi-vector bi-encoder", "similarity": "dot, max over a document's tokens, sum over a query's"},
    "bge-m3": {"what": "dense bi-encoder and learned sparse bi-encoder and multi-vector bi-encoder"},
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_models_tell_what_they_are(kind: str, tiny: Tiny) -> None:
    options = {"outputs": ("dense", "sparse", "multi_vector")} if kind == "bge-m3" else {}
    model = load_model(tiny(kind), **options)
    facts = table(shown(model))
    assert facts["parameters"] == f"{sum(weight.numel() for weight in model.parameters()):,}"
    assert facts["precision"] == "float32"
    assert {name: facts[name] for name in MODELS[kind]} == MODELS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_indexes_tell_what_they_are(kind: str, tmp_path: Path) -> None:
    index: LIRIndex = KINDS[kind](tmp_path / "<x>.lir")
    assert table(shown(index)) == {"documents": "not built"}
    index.indexer(model={"source": "the/model"}, include_fields=["text"]).index(documents(kind, 1_200))
    index.delete(["d7"])
    facts = table(shown(index))
    assert facts["what"] == f"index of {KIND_WORDS[kind]} vectors"
    assert (facts["documents"], facts["deleted documents"], facts["stored fields"]) == ("1,199", "1", "text")
    assert (facts["made with: model"], facts["engines built"]) == ("the/model", "none")
    assert facts["size on disk"].endswith("KiB")
    assert facts["path"] == str(tmp_path / "<x>.lir")
    assert "settings: impacts" in facts or "settings: dtype" in facts
    assert "<x>" not in shown(index)
    union = table(shown(open_index([index.folder])))
    assert (union["documents"], union["what"]) == ("1,199", facts["what"])


def test_engines_that_were_built_are_told(tmp_path: Path) -> None:
    index = LIRDenseIndex(tmp_path / "x.lir").indexer().index(documents("dense", 300))
    assert index.retriever("hnsw").searcher
    assert table(shown(index))["engines built"] == "HNSW32-Flat-200.faiss"


def transformers(tiny: Tiny, folder: Path) -> dict[str, tuple[pt.Transformer, dict[str, str]]]:
    """Transformers of every class, and what their tables begin with."""
    index = LIRDenseIndex(folder / "x.lir")
    encoder = LIRBiEncoder(tiny("dense"), doc_length=9)
    model = {"model": tiny("dense")}
    told = {**model, "doc_length": "9", "weights": "not loaded"}
    return {
        "LIRReRanker": (LIRReRanker(tiny("dense"), batch_size=4), {**model, "batch_size": "4"}),
        "LIRBiEncoder": (encoder, told),
        "query encoder": (encoder.query_encoder(), told),
        "doc encoder": (encoder.doc_encoder(), told),
        "scorer": (encoder.scorer(), told),
        "LIRIndexer": (LIRIndexer(tiny("dense"), folder / "y", dtype="int8"), {"index": str(folder / "y"), "dtype": "int8"}),
        "LIRRetriever": (LIRRetriever(tiny("dense"), index, num_results=9), {"index": repr(index), "num_results": "9"}),
        "Trainable": (Trainable(tiny("mono-bert"), folder / "t", n=3), {"n": "3", "trained": "False"}),
        "indexer": (index.indexer(mode="append"), {"index": repr(index), "mode": "append"}),
        "retriever": (index.retriever("hnsw", efSearch=7), {"engine": "hnsw", "options: efSearch": "7"}),
        "index's scorer": (index.scorer(include_fields=["text"]), {"include_fields": "text"}),
        "text loader": (index.text_loader(["text"]), {"index": repr(index), "include_fields": "text"}),
        "vec loader": (index.vec_loader(), {"index": repr(index)}),
    }  # fmt: skip


@pytest.mark.parametrize("name", transformers(str, Path()))
def test_transformers_show_pyterriers_schematic_and_their_facts(
    name: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyterrier_lir.models.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    LIRDenseIndex(tmp_path / "x.lir").indexer(include_fields=["text"]).index(documents("dense", 9))
    made, expected = transformers(tiny, tmp_path)[name]
    html = shown(made)
    drawn = pt.schematic.transformer_schematic(made)
    assert "pts-transformer" in html or "pts-indexer" in html
    assert drawn["label"] in unescape(html)
    assert drawn["name"] == repr(made)
    assert {key: table(html).get(key) for key in expected} == expected
    assert drawn["settings"] == table(html)
    assert "pts-transformer" in shown(LIRReRanker(tiny("mono-bert")) >> made)
    monkeypatch.setenv("PYTERRIER_DISABLE_NOTEBOOK_SCHEMATIC", "1")
    assert "pts-" not in shown(made)
    assert table(shown(made)) == table(html)


def test_loaded_transformers_tell_of_their_models_too(tiny: Tiny) -> None:
    frame = pd.DataFrame([("1", "bread", "d", SENTENCES[4])], columns=["qid", "query", "docno", "text"])
    reranker = LIRReRanker(tiny("mono-bert"), device="cpu")
    reranker(frame)
    facts = table(shown(reranker))
    assert "weights" not in facts
    assert (facts["what"], facts["precision"], facts["device"]) == ("cross-encoder", "float32", "cpu")
    assert facts["parameters"] == table(shown(load_model(tiny("mono-bert"))))["parameters"]  # packed weights count too
    reranker.max_length = 32  # of which the engine is another
    assert table(shown(reranker))["weights"] == "not loaded"
    given = LIRReRanker(load_model(tiny("mono-bert")))
    assert table(shown(given))["what"] == "cross-encoder"


def test_settings_that_no_argument_has_are_in_the_representation(tmp_path: Path) -> None:
    index = LIRDenseIndex(tmp_path / "x.lir")
    made = LIRRetriever("a/b", index, where=len, docnos=(), doc_length=9)
    assert repr(made) == f"LIRRetriever('a/b', {index!r}, docnos=(), where=<built-in function len>, doc_length=9)"


def test_words_behind_the_limit_are_told_of(tiny: Tiny) -> None:
    explained = LIRReRanker(tiny("mono-bert"), max_length=16).explain("tower", "the tower of sand " * 20)
    assert explained.unread > 60
    assert f"The last {explained.unread} words of the document" in explained._repr_html_()
    short = LIRReRanker(tiny("mono-bert")).explain("tower", "the tower of sand")
    assert short.unread == 0
    assert "The last" not in short._repr_html_()


def test_a_union_shows_what_its_parts_are(tmp_path: Path) -> None:
    parts = []
    for name in "ab":
        index = LIRDenseIndex(tmp_path / f"{name}.lir")
        index.indexer(model={"source": "a-model"}).index([{"docno": name, "doc_vec": np.ones(4, dtype=np.float32)}])
        parts.append(index)
    shown = IndexUnion(parts)._repr_html_()
    assert "index of dense vectors" in shown
    assert "a-model" in shown
    assert "b.lir: 1 documents" in shown
