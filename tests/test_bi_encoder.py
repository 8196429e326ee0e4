"""LIRBiEncoder: columns of every kind, scores from stored vectors, pruning, prompts, explanations, and what it refuses."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyterrier_lir import BiEncoderModel, LIRBiEncoder, LIRIndexer, LIRReRanker, LIRRetriever, load_model
from pyterrier_lir.engine import Engine
from pyterrier_lir.models.vocabulary import Vocabulary
from tests.tiny_bi_encoders import BI_ENCODERS, BI_KINDS
from tests.tiny_checkpoints import SENTENCES

Tiny = Callable[[str], str]
COLUMNS = {
    "dense": ("query_vec", "doc_vec"),
    "sparse": ("query_toks", "toks"),
    "multi_vector": ("query_embs", "doc_embs"),
}
SPARSE = [kind for kind in BI_ENCODERS if "splade" in kind]


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    rows = [(f"q{i}", query, f"d{j}", doc) for i, query in enumerate(["rainfall in the mountains", "hot bread, 3.5 km"])
            for j, doc in enumerate(SENTENCES)]  # fmt: skip
    return pd.DataFrame(rows, columns=["qid", "query", "docno", "text"])


def encoded(encoder: LIRBiEncoder, results: pd.DataFrame, sides: str = "both") -> pd.DataFrame:
    """The results with vectors instead of the texts that they are of."""
    if sides != "docs":
        results = encoder.query_encoder()(results).drop(columns="query")
    if sides != "queries":
        results = encoder.doc_encoder()(results).drop(columns="text")
    return results


@pytest.mark.parametrize("kind", BI_ENCODERS)
def test_columns_have_the_types_of_their_kind(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    encoder = LIRBiEncoder(tiny(kind))
    model = encoder.engine().model
    out = encoder.doc_encoder()(encoder.query_encoder()(results))
    made = [*results.columns]
    for what in encoder.kinds():
        for side in COLUMNS[what]:
            made.append(side)
            for value in out[side]:
                if what == "sparse":
                    assert {type(token) for token in value} <= {str}
                    assert {type(weight) for weight in value.values()} <= {float}
                    assert list(value.values()) == sorted(value.values(), reverse=True)
                    assert all(weight > 0 for weight in value.values())
                else:
                    assert value.dtype == np.float32
                    assert value.shape[-1] == model.size(what)
                    assert value.ndim == (1 if what == "dense" else 2)
    assert {name for name in out.columns if not name.endswith("_embs_toks")} == set(made)


@pytest.mark.parametrize("sides", ["both", "docs", "queries"])
@pytest.mark.parametrize("kind", BI_ENCODERS)
def test_stored_vectors_score_as_the_texts_do(kind: str, sides: str, tiny: Tiny, results: pd.DataFrame) -> None:
    encoder = LIRBiEncoder(tiny(kind))
    expected = encoder.scorer()(results)["score"]
    stored = encoded(encoder, results, sides)
    for transformer in (encoder, encoder.scorer(), LIRReRanker(tiny(kind))):
        np.testing.assert_allclose(transformer(stored)["score"], expected, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("kind", ["splade", "unicoil", "inference-free"])
def test_tokens_named_by_ids_score_the_same(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    encoder = LIRBiEncoder(tiny(kind), token_ids=True)
    stored = encoded(encoder, results)
    tokenizer = encoder.engine().model.tokenizers[0].tokenizer
    named = encoded(LIRBiEncoder(tiny(kind)), results)
    for ids, names in zip(stored["toks"], named["toks"], strict=True):
        assert tokenizer.convert_ids_to_tokens([int(i) for i in ids]) == list(names)
    expected = encoder.scorer()(results)["score"]
    for transformer in (encoder.scorer(), LIRReRanker(tiny(kind), token_ids=True)):
        np.testing.assert_allclose(transformer(stored)["score"], expected, rtol=3e-6, atol=1e-5)


def test_vectors_of_another_model_are_refused_and_each_column_tells_its_model(
    tiny: Tiny, results: pd.DataFrame, tmp_path: Path
) -> None:
    right, other, sparse = (LIRBiEncoder(tiny(kind)) for kind in ("dense", "dpr-first", "splade"))
    expected = right.scorer()(results)
    with pytest.raises(ValueError, match=f"'query_vec' was made with {tiny('dpr-first')}, whose weights are not those"):
        (other.query_encoder() >> right.scorer())(results)
    with pytest.raises(ValueError, match="'doc_vec' was made with"):
        (other.doc_encoder() >> LIRReRanker(tiny("dense")))(results)
    both = (right.query_encoder() >> sparse.query_encoder() >> sparse.doc_encoder())(results)
    for encoder in (right, sparse):
        found = encoder.scorer()(both)
        np.testing.assert_allclose(found["score"], encoder.scorer()(results)["score"], atol=1e-5)
    index = LIRIndexer(tiny("dpr-first"), tmp_path / "x.lir").index(results.drop_duplicates("docno"))
    loaded = index.vec_loader()(results)
    assert len(other.scorer()(loaded)) == len(results)
    with pytest.raises(ValueError, match="'doc_vec' was made with"):
        right.scorer()(loaded)
    loaded.attrs.clear()  # who does so says that they fit
    assert not np.allclose(right.scorer()(loaded)["score"], expected["score"])


def test_rows_of_one_document_may_have_vectors_of_their_own(tiny: Tiny, results: pd.DataFrame) -> None:
    encoder = LIRBiEncoder(tiny("dense"))
    stored = encoded(encoder, results, "docs")
    stored["doc_vec"] = [vector * (row + 1) for row, vector in enumerate(stored["doc_vec"])]
    plain = LIRBiEncoder(tiny("dense"))(results)["score"]
    queries = encoder.query_encoder()(stored)["query_vec"]
    expected = [float(q @ d) / np.linalg.norm(d) for q, d in zip(queries, stored["doc_vec"], strict=True)]
    np.testing.assert_allclose(encoder(stored)["score"], expected, atol=1e-5)  # cosine
    np.testing.assert_allclose(expected, plain, atol=1e-5)


def test_pruning_keeps_the_heaviest_terms(tiny: Tiny, results: pd.DataFrame) -> None:
    whole = LIRBiEncoder(tiny("splade")).doc_encoder()(results)["toks"]
    pruned = LIRBiEncoder(tiny("splade"), doc_top_k=7, query_top_k=3)
    for few, many in zip(pruned.doc_encoder()(results)["toks"], whole, strict=True):
        assert few == dict(list(many.items())[:7])
    assert {len(toks) for toks in pruned.query_encoder()(results)["query_toks"]} == {3}
    threshold = float(np.median([w for toks in whole for w in toks.values()]))
    for few, many in zip(
        LIRBiEncoder(tiny("splade"), doc_threshold=threshold).doc_encoder()(results)["toks"], whole, strict=True
    ):
        assert few == {token: weight for token, weight in many.items() if weight >= threshold}


@pytest.mark.parametrize("factor", [1, 1.5, 2, 4, 100])
def test_token_vectors_are_pooled_as_sentence_transformers_does(factor: float, tiny: Tiny) -> None:
    modules = pytest.importorskip("sentence_transformers.multi_vector_encoder.modules.token_pooling")
    whole = LIRBiEncoder(tiny("pylate")).encode_docs(SENTENCES)
    pooled = LIRBiEncoder(tiny("pylate"), doc_pool_factor=factor)
    expected = modules.HierarchicalTokenPooling(factor).pool([torch.from_numpy(rows) for rows in whole])
    for one, other in zip(pooled.encode_docs(SENTENCES), expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-6)
    for one, other in zip(
        pooled.encode_queries(SENTENCES), LIRBiEncoder(tiny("pylate")).encode_queries(SENTENCES), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_pooled_token_vectors_are_indexed_and_their_factor_remembered(tiny: Tiny, tmp_path: Path) -> None:
    docs = [{"docno": f"d{i}", "text": text} for i, text in enumerate(SENTENCES)]
    whole, half = (
        LIRIndexer(tiny("col"), tmp_path / str(factor), doc_pool_factor=factor).index(docs) for factor in (1, 2)
    )
    assert half.lengths.tolist() == [1 + (length - 1) // 2 for length in whole.lengths]
    assert half.meta["model"]["settings"] == {"doc_pool_factor": 2}
    best = LIRRetriever(tiny("col"), half, num_results=1)
    found = best(pd.DataFrame({"qid": list("abc"), "query": SENTENCES[:3]}))
    assert found["docno"].tolist() == ["d0", "d1", "d2"]


def test_pooling_is_refused_where_it_makes_no_sense(tiny: Tiny) -> None:
    for wrong in (0.5, "2", True, float("nan")):
        with pytest.raises(ValueError, match=rf"doc_pool_factor={wrong!r}; allowed: a number of at least 1"):
            LIRBiEncoder("any/model", doc_pool_factor=wrong)
    with pytest.raises(ValueError, match="has no token vectors"):
        LIRBiEncoder(tiny("dense"), doc_pool_factor=2).encode_docs(["bread"])
    with pytest.raises(ValueError, match="compares vectors of equal tokens only"):
        LIRBiEncoder(tiny("coil"), doc_pool_factor=2).encode_docs(["bread"])


def test_prompts_are_chosen_by_name_or_text(tmp_path: Path, results: pd.DataFrame) -> None:
    from tests.tiny_bi_encoders import save_sentence_transformer

    save_sentence_transformer(tmp_path, prompts={"query": "query: ", "document": "", "bread": "bread about "})
    vectors = {
        name: LIRBiEncoder(tmp_path, **settings).query_encoder()(results.head(1))["query_vec"].iloc[0]
        for name, settings in {
            "own": {}, "named": {"query_prompt_name": "bread"}, "text": {"query_prompt": "bread about "},
            "none": {"query_prompt": ""}, "same": {"query_prompt": "query: "},
        }.items()
    }  # fmt: skip
    np.testing.assert_array_equal(vectors["named"], vectors["text"])
    np.testing.assert_array_equal(vectors["own"], vectors["same"])
    assert not np.allclose(vectors["own"], vectors["none"])
    assert not np.allclose(vectors["named"], vectors["none"])
    with pytest.raises(ValueError, match="has no prompt 'music'; it has: 'query', 'document', 'bread'"):
        LIRBiEncoder(tmp_path, doc_prompt_name="music")(results)
    with pytest.raises(ValueError, match="both given"):
        LIRBiEncoder(tmp_path, query_prompt="a", query_prompt_name="query")


def test_truncation_cuts_vectors_and_normalises_scores(tiny: Tiny, results: pd.DataFrame) -> None:
    whole, cut = LIRBiEncoder(tiny("dense")), LIRBiEncoder(tiny("dense"), truncate_dim=8)
    for long, short in zip(whole.doc_encoder()(results)["doc_vec"], cut.doc_encoder()(results)["doc_vec"], strict=True):
        np.testing.assert_allclose(short, long[:8], atol=1e-6)
    pairs = encoded(cut, results)
    expected = [
        q @ d / np.linalg.norm(q) / np.linalg.norm(d) for q, d in zip(pairs["query_vec"], pairs["doc_vec"], strict=True)
    ]
    np.testing.assert_allclose(cut.scorer()(results)["score"], expected, atol=1e-5)


def test_lengths_cut_texts(tiny: Tiny, results: pd.DataFrame) -> None:
    short = LIRBiEncoder(tiny("col-modernbert"), doc_length=5).doc_encoder()(results)["doc_embs"]
    assert {len(vectors) for vectors in short} == {5}
    both = LIRBiEncoder(tiny("col-modernbert"), max_length=4)
    assert {len(vectors) for vectors in both.query_encoder()(results)["query_embs"]} == {4}


@pytest.mark.parametrize("kind", ["col", "pylate", "colbert"])
def test_a_limit_of_tokens_does_not_fill_queries_up_further(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    own = LIRBiEncoder(tiny(kind))
    length = own.config().query_length
    expected = [vectors.shape for vectors in own.encode_queries(["sand"])]
    assert expected == [(length, expected[0][1])]
    for limit, wanted in ((length + 9, length), (length - 2, length - 2)):
        [vectors] = LIRBiEncoder(tiny(kind), max_length=limit).encode_queries(["sand"])
        assert len(vectors) == wanted
    [longer] = LIRBiEncoder(tiny(kind), query_length=length + 9).encode_queries(["sand"])
    assert len(longer) == length + 9
    short = results.assign(text="sand")
    np.testing.assert_allclose(
        LIRReRanker(tiny(kind), max_length=length + 9)(short)["score"],
        LIRReRanker(tiny(kind))(short)["score"],
        atol=1e-5,
    )


def test_one_folder_serves_several_outputs(tiny: Tiny, results: pd.DataFrame) -> None:
    folder = tiny("bge-m3")
    alone = {kind: LIRBiEncoder(folder, outputs=(kind,)) for kind in COLUMNS}
    for kind, encoder in alone.items():
        assert encoder.kinds() == (kind,)
        assert set(encoder.doc_encoder()(results).columns) == {*results.columns, COLUMNS[kind][1]}
    together = LIRBiEncoder(folder, outputs=("dense", "sparse"))
    expected = alone["dense"].scorer()(results)["score"] + alone["sparse"].scorer()(results)["score"]
    np.testing.assert_allclose(together.scorer()(results)["score"], expected, rtol=1e-5)


def test_sparse_vectors_are_explained_by_their_terms(tiny: Tiny) -> None:
    encoder = LIRBiEncoder(tiny("splade"))
    query, doc = "rainfall in the mountains", SENTENCES[2]
    terms = encoder.explain(query)
    frame = encoder.query_encoder()(pd.DataFrame([("1", query)], columns=["qid", "query"]))
    assert dict(zip(terms["term"], terms["weight"], strict=True)) == pytest.approx(frame["query_toks"][0])
    assert encoder.explain(doc, query=False)["term"].tolist() != terms["term"].tolist()
    shared = encoder.explain(query, doc)
    score = encoder.scorer()(pd.DataFrame([("1", query, "d", doc)], columns=["qid", "query", "docno", "text"]))[
        "score"
    ][0]
    assert shared["score"].sum() == pytest.approx(score, rel=1e-5)
    shown = terms._repr_html_()
    assert "<table>" in shown
    assert shown.count("<tr>") == 1 + min(len(terms), 60)


@pytest.mark.parametrize("kind", ["col-modernbert", "coil", "pylate", "mvr", "xtr"])
def test_multi_vector_scores_are_explained_by_an_alignment(kind: str, tiny: Tiny) -> None:
    encoder = LIRBiEncoder(tiny(kind), outputs=("multi_vector",))
    query, doc = "rainfall in the mountains", SENTENCES[2]
    table = encoder.explain(query, doc)
    score = encoder.scorer()(pd.DataFrame([("1", query, "d", doc)], columns=["qid", "query", "docno", "text"]))[
        "score"
    ][0]
    total = table["similarity"].mean() if kind == "xtr" else table["similarity"].sum()
    assert total == pytest.approx(score, rel=1e-4)
    assert "bread" not in " ".join(table["doc_token"])
    similarities = table.similarities
    assert similarities.index.tolist() == table["query_token"].tolist()
    np.testing.assert_array_equal(similarities.max(axis=1), table["similarity"].astype(np.float32))
    assert [similarities.columns[i] for i in table["position"]] == table["doc_token"].tolist()
    shown = table._repr_html_()
    assert shown.count("<td ") == similarities.size
    assert re.findall(r"<b>(.*?)</b>", shown) == [f"{best:.2f}" for best in table["similarity"]]
    part = table[["query_token", "similarity"]]._repr_html_()  # is shown as bars
    assert part.count("<tr>") == 1 + len(table)
    assert "<b>" not in part
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(table)).similarities, similarities)
    with pytest.raises(ValueError, match="explained by a document too"):
        encoder.explain(query)


def test_long_documents_are_shown_by_the_tokens_that_were_found(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyterrier_lir.pipeline.explanation._TOKENS", 5)
    table = LIRBiEncoder(tiny("col-modernbert")).explain("bread", SENTENCES[2])
    count = table.similarities.shape[1]
    assert f"Of {count} tokens of the document those that were found." in table._repr_html_()
    assert table._repr_html_().count("writing-mode") == table["position"].nunique() < count


def test_dense_vectors_have_no_explanation(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"numbers have no names. LIRReRanker\(.*\).explain\(query, text\)"):
        LIRBiEncoder(tiny("dense")).explain("bread")


def test_one_of_several_outputs_is_explained_and_said(tiny: Tiny) -> None:
    folder, texts = tiny("bge-m3"), (SENTENCES[2], SENTENCES[2])
    several = LIRBiEncoder(folder, outputs=("dense", "multi_vector", "sparse"))
    for kind, words in (("sparse", "learned sparse"), ("multi_vector", "multi-vector")):
        alone, table = LIRBiEncoder(folder, outputs=(kind,)).explain(*texts), several.explain(*texts, kind=kind)
        pd.testing.assert_frame_equal(pd.DataFrame(table), pd.DataFrame(alone), rtol=1e-4)
        said = f"The {words} part alone, of: dense, multi-vector, learned sparse."
        assert table._repr_html_().endswith(f">{said}</p>")
        assert "part alone" not in alone._repr_html_()
    pd.testing.assert_frame_equal(several.explain(*texts), several.explain(*texts, kind="sparse"))
    with pytest.raises(ValueError, match="numbers have no names"):
        several.explain(*texts, kind="dense")
    with pytest.raises(ValueError, match=r"kind='dense'; .* makes: sparse"):
        LIRBiEncoder(folder, outputs=("sparse",)).explain(*texts, kind="dense")
    with pytest.raises(ValueError, match=r"kind='multi_vector'; .* makes: dense, sparse"):
        LIRBiEncoder(folder, outputs=("dense", "sparse")).explain(*texts, kind="multi_vector")


@pytest.mark.parametrize("kind", ["dense", "splade", "inference-free", "col", "coil", "bge-m3"])
def test_lists_of_texts_are_encoded_as_columns_are(kind: str, tiny: Tiny) -> None:
    texts = [*SENTENCES[:3], "", SENTENCES[0]]
    encoder = LIRBiEncoder(tiny(kind), outputs=("dense", "sparse", "multi_vector") if kind == "bge-m3" else None)
    sides = (
        (encoder.encode_queries, encoder.query_encoder()(pd.DataFrame({"qid": list("abcde"), "query": texts})), 0),
        (encoder.encode_docs, encoder.doc_encoder()(pd.DataFrame({"docno": list("abcde"), "text": texts})), 1),
    )
    for encode, frame, side in sides:
        found = encode(texts)
        found = found if isinstance(found, dict) else {encoder.kinds()[0]: found}
        assert list(found) == list(encoder.kinds())
        for output, vectors in found.items():
            assert type(vectors) is (np.ndarray if output == "dense" else list)
            for one, other in zip(vectors, frame[COLUMNS[output][side]], strict=True):
                np.testing.assert_equal(one, other)
        nothing = encode([])
        assert [len(part) for part in (nothing.values() if isinstance(nothing, dict) else [nothing])] == [0] * len(
            found
        )


def test_pruning_and_lengths_hold_for_lists_of_texts(tiny: Tiny) -> None:
    encoder = LIRBiEncoder(tiny("splade"), doc_top_k=5, query_top_k=2, token_ids=True)
    assert [len(terms) for terms in encoder.encode_docs(SENTENCES)] == [5] * len(SENTENCES)
    assert all(term.isdigit() for terms in encoder.encode_queries(SENTENCES) for term in terms)
    assert LIRBiEncoder(tiny("dense"), truncate_dim=8).encode_docs(["bread"]).shape == (1, 8)


@pytest.mark.parametrize("kind", ["dense", "splade", "col", "coil"])
def test_similarities_are_the_scores_of_all_pairs(kind: str, tiny: Tiny) -> None:
    encoder, queries, docs = LIRBiEncoder(tiny(kind)), ["bread", "the sea", "bread"], SENTENCES[:4]
    pairs = pd.DataFrame({"qid": list("abc"), "query": queries}).merge(
        pd.DataFrame({"docno": list("wxyz"), "text": docs}), how="cross"
    )
    expected = encoder.scorer()(pairs)["score"].to_numpy().reshape(3, 4)
    np.testing.assert_allclose(encoder.similarity(queries, docs), expected, rtol=1e-5)
    assert encoder.similarity(queries, []).shape == (3, 0)


def test_what_is_no_list_of_strings_is_refused(tiny: Tiny) -> None:
    encoder = LIRBiEncoder(tiny("dense"))
    with pytest.raises(TypeError, match="texts is str; allowed: a list of strings, also for a single one"):
        encoder.encode_queries("bread")
    frame = pd.DataFrame({"docno": ["a"], "text": ["Bread."]})
    for call in (encoder.encode_queries, encoder.encode_docs, lambda texts: encoder.similarity(["bread"], texts),
                 lambda texts: encoder.similarity(texts, ["bread"])):  # fmt: skip
        with pytest.raises(TypeError, match=r"(texts|queries|docs) is DataFrame; give frame\['text'\]"):
            call(frame)
        with pytest.raises(TypeError, match="is set; allowed: a list of strings"):
            call({"bread", "the sea"})
    assert len(encoder.encode_docs(frame["text"])) == 1
    with pytest.raises(TypeError, match=r"texts\[1\] is NoneType instead of str"):
        encoder.encode_docs(["bread", None])
    with pytest.raises(TypeError, match=r"docs\[0\] is int"):
        encoder.similarity(["bread"], [3])


@pytest.mark.parametrize("kind", BI_ENCODERS)
@pytest.mark.parametrize("query", [True, False])
def test_a_stream_gives_what_encoding_all_at_once_does(
    kind: str, query: bool, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_model(tiny(kind)))
    texts = [*SENTENCES, "", SENTENCES[0], *SENTENCES[::-1], "bread"]
    whole = engine.encode(texts, query)
    monkeypatch.setattr("pyterrier_lir.engine.CHUNK", 5)
    parts = list(engine.stream(iter(texts), query))
    assert len(parts) == 4
    for what, vectors in whole.items():
        rows = [row for part in parts for row in as_rows(part[what])]
        for one, other in zip(rows, as_rows(vectors), strict=True):
            np.testing.assert_allclose(one, other, rtol=3e-6, atol=1e-5)


def as_rows(vectors: object) -> list[np.ndarray]:
    return (
        vectors.rows()
        if hasattr(vectors, "rows")
        else list(vectors.toarray() if hasattr(vectors, "toarray") else vectors)
    )


def test_a_stream_reads_no_further_than_one_chunk_ahead(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyterrier_lir.engine.CHUNK", 4)
    read = []

    def texts() -> Iterator[str]:
        for i in range(40):
            read.append(i)
            yield f"sentence {i} of the sea"

    stream = Engine(load_model(tiny("dense"))).stream(texts(), query=False)
    for chunk in range(1, 11):
        assert len(next(stream)["dense"]) == 4
        assert len(read) <= 4 * (chunk + 2)


def test_a_stream_whose_source_fails_says_so(tiny: Tiny) -> None:
    def broken() -> Iterator[str]:
        yield "bread"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Engine(load_model(tiny("dense"))).stream(broken(), query=False))


@pytest.mark.parametrize("kind", SPARSE)
def test_the_vocabularys_slices_change_no_bit(kind: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BiEncoderModel.from_pretrained(tiny(kind))
    assert isinstance(model.outputs[0].head, Vocabulary)
    found = {}
    for numbers in (1, 1 << 30):
        monkeypatch.setattr("pyterrier_lir.models.vocabulary._NUMBERS", numbers)
        monkeypatch.setattr("pyterrier_lir.models.vocabulary.Vocabulary._least", 16, raising=False)
        found[numbers] = Engine(model, packed=False).encode(SENTENCES, query=False)["sparse"].toarray()
    np.testing.assert_allclose(found[1], found[1 << 30], rtol=1e-6, atol=1e-7)


def corrupt(tiny: Tiny, kind: str, folder: Path, change: Callable[[Path], object]) -> str:
    shutil.copytree(tiny(kind), folder / "copy")
    change(folder / "copy")
    return str(folder / "copy")


def edit(name: str, **values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


BROKEN = {
    "a module's file is gone": ("pylate", lambda f: (f / "1_Dense" / "model.safetensors").unlink(), "1_Dense"),
    "a module's folder is gone": ("dense", lambda f: shutil.rmtree(f / "1_Pooling"), "1_Pooling"),
    "unknown pooling": ("dense", edit("1_Pooling/config.json", pooling_mode="median", pooling_mode_mean_tokens=False), "median|pooling"),
    "unknown activation": ("sparse-encoder", edit("1_SpladePooling/config.json", activation_function="gelu"), "gelu"),
    "unknown similarity": ("dense", edit("config_sentence_transformers.json", similarity_fn_name="hamming"), "hamming"),
    "Lightning IR's projection is gone": ("col", lambda f: strip(f, "projection"), "projection.weight"),
    "unknown pooling of Lightning IR": ("dpr-first", edit("config.json", pooling_strategy="median"), "median"),
    "ColBERT's projection is gone": ("colbert", lambda f: strip(f, "linear"), "linear.weight"),
}  # fmt: skip


def strip(folder: Path, prefix: str) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(prefix)}
    save_file(kept, path, metadata={"format": "pt"})


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_are_refused_with_the_reason(case: str, tiny: Tiny, tmp_path: Path) -> None:
    kind, change, message = BROKEN[case]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_model(corrupt(tiny, kind, tmp_path, change))


WRONG = {
    "a cross-encoder as bi-encoder": ("mono-bert", {}, lambda f, e: f, TypeError, "is a cross-encoder"),
    "sparse columns into a dense scorer": ("dense", {}, lambda f, e: f.drop(columns="text").assign(toks=[{"bread": 1.0}] * len(f)), KeyError, "doc_vec"),
    "vectors of another size": ("dense", {}, lambda f, e: f.assign(doc_vec=[np.ones(7)] * len(f)), ValueError, "holds vectors of 7 numbers; those of"),
    "vectors of several sizes": ("dense", {}, lambda f, e: f.assign(doc_vec=[np.ones(7 + i % 2) for i in range(len(f))]), ValueError, "7 and of 8 numbers"),
    "NaN in a vector": ("dense", {}, lambda f, e: f.assign(doc_vec=[np.full(32, np.nan)] * len(f)), ValueError, "NaN or infinite"),
    "a missing vector": ("dense", {}, lambda f, e: f.assign(doc_vec=[None] * len(f)), ValueError, "'doc_vec' is missing in 16 of 16 rows"),
    "a string as vector": ("dense", {}, lambda f, e: f.assign(doc_vec=["a"] * len(f)), TypeError, "instead of an array"),
    "a matrix as dense vector": ("dense", {}, lambda f, e: f.assign(doc_vec=[np.ones((2, 32))] * len(f)), TypeError, r"array \(D,\)"),
    "token vectors of another size": ("col", {}, lambda f, e: f.assign(doc_embs=[np.ones((2, 5))] * len(f)), ValueError, "vectors of 5 numbers"),
    "a token of another vocabulary": ("splade", {}, lambda f, e: f.assign(toks=[{"zebra": 1.0}] * len(f)), ValueError, "'zebra' is not in the model's vocabulary"),
    "NaN as a weight": ("splade", {}, lambda f, e: f.assign(toks=[{}, {"[CLS]": float("nan")}] * (len(f) // 2)), ValueError, "NaN or infinite weights in 4 rows, first in .*docno='d1'"),
    "a list as tokens": ("splade", {}, lambda f, e: f.assign(toks=[[1.0]] * len(f)), TypeError, "instead of a dict"),
    "truncate_dim too large": ("dense", {"truncate_dim": 33}, lambda f, e: f, ValueError, "^truncate_dim .* is 33; .* have 32 numbers"),
    "truncate_dim of sparse vectors": ("splade", {"truncate_dim": 8}, lambda f, e: f, ValueError, "not cut"),
    "outputs that are not there": ("dense", {"outputs": ("sparse",)}, lambda f, e: f, ValueError, "sparse"),
    "unknown outputs": ("bge-m3", {"outputs": ("lexical",)}, lambda f, e: f, ValueError, "lexical"),
    "more tokens than positions": ("dense", {"doc_length": 65}, lambda f, e: f, ValueError, "^doc_length=65; .* positions for 64 tokens"),
    "a limit beyond the positions": ("dense", {"max_length": 65}, lambda f, e: f, ValueError, "^max_length=65; .* positions for 64 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_with_a_clear_error(case: str, tiny: Tiny, results: pd.DataFrame) -> None:
    kind, settings, change, error, message = WRONG[case]
    encoder = LIRBiEncoder(tiny(kind), **settings)
    with pytest.raises(error, match=message):
        encoder.scorer()(change(results, encoder))


@pytest.mark.parametrize("name", ["truncate_dim", "query_top_k", "doc_top_k", "query_length", "doc_length"])
def test_settings_below_one_are_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0; allowed: a positive number"):
        LIRBiEncoder("any/model", **{name: 0})


@pytest.mark.parametrize(("kind", "settings", "message"), [
    ("dense", {"query_top_k": 3}, "query_top_k=3: .* has no sparse vectors"),
    ("col", {"query_threshold": 0.5}, "query_threshold=0.5: .* has no sparse vectors"),
    ("splade", {"query_threshold": "a"}, "query_threshold='a'; allowed: a number"),
    ("dense", {"query_prompt": 5}, "query_prompt=5; allowed: a string"),
])  # fmt: skip
def test_settings_that_the_model_has_no_use_for_are_refused(
    kind: str, settings: dict[str, Any], message: str, tiny: Tiny
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        LIRBiEncoder(tiny(kind), **settings).encode_queries(["bread"])


def test_every_kind_is_told_from_its_files_without_weights(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {kind: tuple(load_model(tiny(kind)).kinds) for kind in BI_KINDS}
    monkeypatch.setattr("pyterrier_lir.models.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    for kind, kinds in expected.items():
        assert LIRBiEncoder(tiny(kind)).kinds() == kinds, kind
