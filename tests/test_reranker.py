"""LIRReRanker keeps PyTerrier's contracts, whatever model is in it."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from ir_measures import RR, nDCG
from torch import nn

from pyterrier_lir import LIRBiEncoder, LIRReRanker, load_model, models
from pyterrier_lir.engine import Engine
from pyterrier_lir.models.backbone import lock_of
from pyterrier_lir.pipeline.reranker import windows
from tests.tiny_bi_encoders import KINDS
from tests.tiny_checkpoints import CROSS_ENCODERS

Tiny = Callable[[str], str]


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    """Two queries' results as a first stage gives them, with a column of its own."""
    rows = [
        ("q1", "rainfall in the mountains", "d1", "Rivers carry sand from the mountains.", 9.0, 0),
        ("q1", "rainfall in the mountains", "d2", "Bread is baked from flour and water.", 8.0, 1),
        ("q1", "rainfall in the mountains", "d3", "The measurement of rainfall.", 7.0, 2),
        ("q2", "bread", "d2", "Bread is baked from flour and water.", 5.0, 0),
        ("q2", "bread", "d4", "Computers multiply matrices.", 4.0, 1),
    ]
    frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])
    return frame.assign(year=range(2000, 2005))


@pytest.fixture(scope="module")
def reranker(tiny: Tiny) -> LIRReRanker:
    return LIRReRanker(tiny("mono-bert"))


def check_ranks(frame: pd.DataFrame) -> None:
    """Ranks from 0 by falling score within each query, ties in the order of rows."""
    for _, group in frame.groupby("qid"):
        best_first = np.argsort(-group["score"].to_numpy(), kind="stable")
        assert group["rank"].to_numpy()[best_first].tolist() == list(range(len(group)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_scores_and_ranks_and_keeps_rows_and_columns(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    out = LIRReRanker(tiny(kind))(results)
    kept = ["qid", "query", "docno", "text", "year"]
    pd.testing.assert_frame_equal(out[kept], results[kept])
    assert list(out.columns) == [*kept[:4], "score", "year", "rank"]
    assert np.isfinite(out["score"]).all()
    assert out["score"].nunique() > 2
    check_ranks(out)


@pytest.mark.parametrize("kind", KINDS)
def test_row_order_does_not_change_scores(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    model = LIRReRanker(tiny(kind))
    shuffled = results.sample(frac=1, random_state=3)
    again = model(shuffled).loc[results.index]
    np.testing.assert_allclose(again["score"], model(results)["score"], rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("kind", CROSS_ENCODERS)
def test_duplicated_rows_get_equal_scores(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    if kind.startswith("set-encoder"):
        pytest.skip("a duplicate is one more document of the list, which changes the others' scores")
    out = LIRReRanker(tiny(kind))(pd.concat([results, results]))
    np.testing.assert_array_equal(out["score"][: len(results)], out["score"][len(results) :])
    check_ranks(out.reset_index(drop=True))


def test_other_columns_can_hold_query_and_text(tiny: Tiny, reranker: LIRReRanker, results: pd.DataFrame) -> None:
    renamed = results.rename(columns={"query": "question", "text": "body"})
    out = LIRReRanker(tiny("mono-bert"), text_field="body", query_field="question")(renamed)
    np.testing.assert_array_equal(out["score"], reranker(results)["score"])


def test_inspection_tells_columns_and_loads_nothing() -> None:
    unloadable = LIRReRanker("no/such-model")
    texts, *stored = pt.inspect.transformer_inputs(unloadable)
    assert texts == ["qid", "docno", "query", "text"]
    assert ["qid", "docno", "query", "doc_vec"] in stored
    columns = ["qid", "query", "docno", "text", "extra"]
    assert pt.inspect.transformer_outputs(unloadable, columns) == [*columns, "score", "rank"]
    names = [attribute.name for attribute in pt.inspect.transformer_attributes(unloadable)]
    assert names[:5] == ["model", "text_field", "query_field", "batch_size", "device"]
    drawn = pt.schematic.transformer_schematic(unloadable)
    assert drawn["label"] == "such-model"
    assert drawn["help_url"] is None


def test_equal_settings_are_equal_and_hash_equally(tiny: Tiny) -> None:
    one, same, other = (LIRReRanker(tiny("bert-1"), batch_size=size) for size in (None, None, 4))
    one(pd.DataFrame([["1", "a", "d", "b"]], columns=["qid", "query", "docno", "text"]))  # a loaded one is no other
    assert one == same
    assert hash(one) == hash(same)
    assert one != other


def test_repr_is_python_that_makes_an_equal_transformer() -> None:
    made = LIRReRanker("webis/set-encoder-base", batch_size=8, precision="bf16", text_field="body")
    assert repr(made) == "LIRReRanker('webis/set-encoder-base', text_field='body', batch_size=8, precision='bf16')"
    assert eval(repr(made)) == made


def test_a_loaded_model_serves_as_its_name_does(tiny: Tiny, reranker: LIRReRanker, results: pd.DataFrame) -> None:
    loaded = load_model(tiny("mono-bert"))
    pd.testing.assert_frame_equal(LIRReRanker(loaded)(results), reranker(results))


@pytest.mark.parametrize("kind", ["bert-1", "set-encoder", "dpr-first", "monot5"])
def test_threads_that_share_a_model_load_it_once_and_get_the_scores_of_one(
    kind: str, tiny: Tiny, results: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = LIRReRanker(tiny(kind))(results)
    loads: list[str] = []
    load = models.load_model
    monkeypatch.setattr(models, "load_model", lambda name, **how: (loads.append(name), load(name, **how))[1])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # a thread is stopped in the middle of most forward passes
    model = LIRReRanker(tiny(kind))
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: model(results), range(24)))
    finally:
        sys.setswitchinterval(interval)
    for frame in [*found, model(results)]:
        pd.testing.assert_frame_equal(frame, expected, rtol=3e-6, atol=1e-5)
    assert loads == [tiny(kind)]


def test_models_of_one_backbone_share_a_lock_and_copies_have_their_own(tiny: Tiny) -> None:
    model = load_model(tiny("bert-1"))
    lock = lock_of(model.backbone)
    assert lock_of(model.with_options(max_length=20).backbone) is lock
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert lock_of(other.backbone) is not lock


@pytest.mark.parametrize("kind", ["bert-1", "dense"])
def test_an_engines_model_serves_again_but_not_in_another_precision(
    kind: str, tiny: Tiny, results: pd.DataFrame
) -> None:
    first = LIRReRanker(tiny(kind), device="cpu")
    expected = first(results)
    packed = first.engine().model
    pd.testing.assert_frame_equal(LIRReRanker(packed, device="cpu")(results), expected)
    pd.testing.assert_frame_equal(LIRReRanker(packed, device="cpu", max_length=64)(results), expected)
    with pytest.raises(ValueError, match=r"packed for a CPU in float32; .* Give the name of the model"):
        LIRReRanker(packed, device="cpu", precision="int8")(results)


def test_operators_and_cutoffs_compose(reranker: LIRReRanker, results: pd.DataFrame) -> None:
    first = pt.Transformer.from_df(results)
    topics = results[["qid", "query"]].drop_duplicates()
    top = (first >> reranker % 1)(topics)
    assert top["rank"].tolist() == [0, 0]
    assert len((first % 2 >> reranker)(topics)) == 4
    summed = ((first >> reranker) + (first >> reranker * 0.0))(topics)
    assert sorted(summed["score"].round(5)) == sorted(reranker(results)["score"].round(5))
    assert len(((first >> reranker) | first)(topics)) == len(results)
    features = (first >> (pt.transformer.IdentityTransformer() ** reranker))(topics)
    scores = dict(zip(zip(results["qid"], results["docno"], strict=True), reranker(results)["score"], strict=True))
    for row in features.itertuples():
        assert row.features[1] == pytest.approx(scores[row.qid, row.docno])


def test_experiments_with_batches_and_shared_prefixes_agree(tiny: Tiny, results: pd.DataFrame) -> None:
    topics = results[["qid", "query"]].drop_duplicates()
    qrels = pd.DataFrame([("q1", "d3", 1), ("q2", "d2", 2)], columns=["qid", "docno", "label"])
    first = pt.Transformer.from_df(results)
    systems = [first, *(first >> LIRReRanker(tiny(kind)) for kind in ("mono-bert", "dense"))]
    tables = [
        pt.Experiment(systems, topics, qrels, [nDCG @ 10, RR @ 10], names=["first", "mono", "dense"], **options)
        for options in ({}, {"batch_size": 1}, {"plan": "tree"})
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_grid_search_can_set_parameters(tiny: Tiny, results: pd.DataFrame) -> None:
    model = LIRReRanker(tiny("bert-1"))
    topics = results[["qid", "query"]].drop_duplicates()
    qrels = pd.DataFrame([("q1", "d3", 1), ("q2", "d2", 2)], columns=["qid", "docno", "label"])
    found = pt.GridScan(
        pt.Transformer.from_df(results) >> model, {model: {"max_length": [8, 32]}}, topics, qrels, [nDCG @ 10]
    )
    assert len(found) == 2
    short, long = (LIRReRanker(tiny("bert-1"), max_length=length)(results)["score"] for length in (8, 32))
    assert not np.allclose(short, long)
    model.set_parameter("max_length", 8)
    np.testing.assert_array_equal(model(results)["score"], short)


def test_scorer_cache_around_it_gives_the_same_scores(
    reranker: LIRReRanker, results: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> None:
    caching = pytest.importorskip("pyterrier_caching")
    cached = caching.ScorerCache(str(tmp_path_factory.mktemp("cache") / "scores"), reranker)
    for _ in range(2):
        np.testing.assert_allclose(cached(results)["score"], reranker(results)["score"], atol=1e-6)


def test_sliding_passages_and_their_maximum_compose(tiny: Tiny) -> None:
    long = " ".join(["Bread is baked."] * 30) + " The measurement of rainfall."
    inp = pd.DataFrame(
        [["q", "rainfall", "d1", long], ["q", "rainfall", "d2", "sand"]], columns=["qid", "query", "docno", "text"]
    )
    passages = pt.text.sliding(text_attr="text", length=10, stride=5, prepend_attr=None)
    model = LIRReRanker(tiny("mono-bert"))
    out = (passages >> model >> pt.text.max_passage())(inp)
    best = model(passages(inp)).assign(doc=lambda f: f["docno"].str.split("%p").str[0]).groupby("doc")["score"].max()
    assert dict(zip(out["docno"], out["score"], strict=True)) == pytest.approx(best.to_dict())


@pytest.mark.parametrize("kind", ["set-encoder", "set-encoder-extra"])
def test_a_listwise_model_sees_the_whole_list_of_a_query(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    model = LIRReRanker(tiny(kind))
    together = model(results)["score"].to_numpy()
    alone = model(results.iloc[[0]])["score"].to_numpy()
    assert abs(together[0] - alone[0]) > 1e-4
    other_query_changed = results.assign(text=results["text"].where(results["qid"] == "q1", "sand"))
    np.testing.assert_allclose(model(other_query_changed)["score"][:3], together[:3], rtol=3e-6, atol=1e-5)


def test_lists_beyond_the_models_depth_are_cut_into_even_windows_by_rank(tiny: Tiny, results: pd.DataFrame) -> None:
    many = pd.concat([results[results["qid"] == "q1"]] * 3, ignore_index=True)
    many = many.assign(docno=[f"d{i}" for i in range(9)], rank=[8, 7, 6, 5, 4, 3, 2, 1, 0])
    many["text"] += many["docno"]
    assert windows(many, 5).tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    model = LIRReRanker(tiny("set-encoder"))  # its depth is 5
    out = model(many)
    for part in (many.iloc[:4], many.iloc[4:]):
        np.testing.assert_allclose(model(part)["score"], out["score"].loc[part.index], rtol=3e-6, atol=1e-5)
    shuffled = model(many.sample(frac=1, random_state=1)).loc[many.index]
    np.testing.assert_allclose(shuffled["score"], out["score"], rtol=3e-6, atol=1e-5)


def test_an_instruction_changes_what_a_generative_model_is_told(tiny: Tiny, results: pd.DataFrame) -> None:
    folder = tiny("qwen3-reranker")
    own, other = LIRReRanker(folder)(results), LIRReRanker(folder, instruction="Find dogs")(results)
    assert not np.allclose(own["score"], other["score"])
    with pytest.raises(ValueError, match="takes no instruction"):
        LIRReRanker(tiny("bert-1"), instruction="Find dogs")(results)


def test_raw_logits_can_be_asked_for(tiny: Tiny, results: pd.DataFrame) -> None:
    logits = LIRReRanker(tiny("bert-1"), activation="Identity")(results)["score"]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), LIRReRanker(tiny("bert-1"))(results)["score"], atol=1e-6)


@pytest.mark.parametrize("kind", ["mono-bert", "set-encoder", "bert-1", "qwen3-reranker", "dense", "col"])
def test_texts_are_ranked_without_a_pipeline(kind: str, tiny: Tiny, results: pd.DataFrame) -> None:
    model = LIRReRanker(tiny(kind), text_field="body", query_field="question")
    first = results[results["qid"] == "q1"]
    expected = LIRReRanker(tiny(kind))(first).sort_values("rank")
    found = model.rank(first["query"][0], dict(zip(first["docno"], first["text"], strict=True)))
    assert list(found.columns) == ["rank", "score", "docno", "text"]
    for name in ("rank", "docno", "text"):
        assert found[name].tolist() == expected[name].tolist()
    np.testing.assert_allclose(found["score"], expected["score"], rtol=3e-6, atol=1e-5)
    unnamed = model.rank(first["query"][0], first["text"], num_results=2)
    assert [first["text"].iloc[int(docno)] for docno in unnamed["docno"]] == expected["text"].tolist()[:2]
    nothing = model.rank("bread", [])
    assert (list(nothing.columns), len(nothing)) == (["rank", "score", "docno", "text"], 0)


@pytest.mark.parametrize("kind", ["mono-bert", "set-encoder", "bert-1", "monot5", "dense", "splade", "col"])
def test_explanations_tell_how_much_scores_fall_without_words(kind: str, tiny: Tiny) -> None:
    model, query, text = LIRReRanker(tiny(kind)), "rainfall  of\tmountains", " Bread & <rain> in mountains\n"
    table = model.explain(query, text)
    assert table["side"].tolist() == ["query"] * 3 + ["doc"] * 5
    assert table["word"].tolist() == ["rainfall", "of", "mountains", "Bread", "&", "<rain>", "in", "mountains"]

    def score(query: str, text: str) -> float:
        return float(model.rank(query, [text])["score"][0])

    assert table.score == pytest.approx(score(query, text), abs=1e-5)
    left = {0: ("of\tmountains", text), 2: ("rainfall  of", text), 5: (query, " Bread & in mountains\n"),
            7: (query, " Bread & <rain> in")}  # fmt: skip
    for row, pair in left.items():
        assert table["fall"][row] == pytest.approx(table.score - score(*pair), abs=2e-5), pair
    shown = table._repr_html_()
    assert [unescape(word) for word in re.findall(r"<span[^>]*>([^<]*)</span>", shown)] == table["word"].tolist()
    assert f"Score {table.score:.3f}" in shown
    assert table.sort_values("fall")._repr_html_() == shown  # the texts stay in their order
    assert "<tr>" in table[["word", "fall"]]._repr_html_()
    assert model.explain("", "").empty


@pytest.mark.parametrize("kind", ["mono-bert", "set-encoder", "bert-1", "monot5", "dense", "splade", "col"])
def test_explanations_tell_of_words_that_are_not_read(kind: str, tiny: Tiny) -> None:
    model, words = LIRReRanker(tiny(kind), max_length=20), ["rainfall", "mountains", "bread"] * 20
    table = model.explain("rainfall", " ".join(words))
    read = len(words) - table.unread
    assert 0 < read < len(words)

    def score(doc: list[str]) -> float:
        return float(model.rank("rainfall", [" ".join(doc)])["score"][0])

    other = ["sea"] * table.unread
    assert score(words[:read] + other) == pytest.approx(table.score, abs=1e-6)
    assert score([*words[: read - 1], "sea", *other]) != pytest.approx(table.score, abs=1e-6)
    assert f"Not read: The last {table.unread} words of the document." in table._repr_html_()
    short = model.explain("rainfall", "rainfall bread\n")
    assert short.unread == 0
    assert "beyond" not in short._repr_html_()


def test_bad_texts_are_refused(reranker: LIRReRanker) -> None:
    with pytest.raises(TypeError, match="docs is str; allowed: a list of strings"):
        reranker.rank("bread", "a document")
    with pytest.raises(TypeError, match=r"docs is DataFrame; give frame\['text'\], or for `rank` a dict docno -> text"):
        reranker.rank("bread", pd.DataFrame({"docno": ["a"], "text": ["Bread."]}))
    with pytest.raises(TypeError, match="docs is set; allowed: a list of strings"):
        reranker.rank("bread", {"Bread.", "The sea."})
    with pytest.raises(TypeError, match=r"docs\[1\] is NoneType instead of str"):
        reranker.rank("bread", {"a": "Bread.", "b": None})
    with pytest.raises(TypeError, match=r"query\[0\] is int"):
        reranker.rank(7, ["Bread."])
    with pytest.raises(ValueError, match="num_results=0; allowed: a positive number"):
        reranker.rank("bread", ["Bread."], num_results=0)
    with pytest.raises(TypeError, match="is float instead of str"):
        reranker.explain("bread", float("nan"))


@pytest.mark.parametrize("fields", [{"text_field": "docno"}, {"text_field": "score"}, {"query_field": "qid"},
                                    {"text_field": "query"}, {"query_field": "text"}])  # fmt: skip
def test_texts_are_not_ranked_in_a_column_of_other_values(fields: dict[str, str], tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"_field='\w+'; rank\(\) has other values in that column"):
        LIRReRanker(tiny("mono-bert"), **fields).rank("bread", ["Bread."])


def test_texts_are_ranked_by_the_names_that_columns_have(tiny: Tiny, reranker: LIRReRanker) -> None:
    named = LIRReRanker(tiny("mono-bert"), query_field="text", text_field="body")
    docs = ["The sea.", "Bread."]
    pd.testing.assert_frame_equal(named.rank("bread", docs), reranker.rank("bread", docs))


BAD_INPUT = {
    "no text column": (lambda f: f.drop(columns="text"), {}, KeyError, "pt.text.get_text"),
    "no query column": (lambda f: f.drop(columns="query"), {}, KeyError, "query_field="),
    "no docno column": (lambda f: f.drop(columns="docno"), {}, KeyError, "docno"),
    "null text": (
        lambda f: f.assign(text=[None, *f["text"][1:]]),
        {},
        ValueError,
        "missing in 1 of 5 rows.*docno='d1'",
    ),
    "null query": (lambda f: f.assign(query=[np.nan] * 5), {}, ValueError, "missing in 5 of 5 rows"),
    "numbers as text": (lambda f: f.assign(text=range(5)), {}, TypeError, "instead of str in 5 of 5 rows"),
    "a row without qid": (
        lambda f: f.assign(qid=["q1", None, *f["qid"][2:]]),
        {},
        ValueError,
        "1 of 5 rows have no qid, first in .*docno='d2'",
    ),
    "two text columns": (
        lambda f: pd.concat([f, f[["text"]]], axis=1),
        {},
        ValueError,
        "has 2 columns 'text'; keep the first",
    ),
    "two score columns": (
        lambda f: pd.concat([f, f[["score"]]], axis=1),
        {},
        ValueError,
        "has 2 columns 'score'; keep the first",
    ),
    "unknown device": (lambda f: f, {"device": "cuda:99"}, ValueError, "device='cuda:99' is not there"),
    "nonsense device": (lambda f: f, {"device": "gpu"}, ValueError, "device='gpu' is not there"),
    "int8 with positions": (lambda f: f, {"max_length": 4_000}, ValueError, "positions for 64 tokens"),
    "no room": (lambda f: f, {"max_length": 3}, ValueError, "leaves no room"),
    "unknown activation": (lambda f: f, {"activation": "os.system"}, ValueError, "os.system"),
    "a misspelt activation": (lambda f: f, {"activation": "sigmoid"}, ValueError, "Did you mean 'Sigmoid'"),
    "a layer as activation": (lambda f: f, {"activation": "Linear"}, ValueError, "allowed: the name of an activation"),
    "a device without numbers": (lambda f: f, {"device": "meta"}, ValueError, "device='meta' is not there"),
    "a template of a classifier": (lambda f: f, {"template": "monot5"}, ValueError, "is no generative model"),
    "a revision of a folder": (lambda f: f, {"revision": "main"}, ValueError, "is a folder here"),
    "fp16 on a CPU": (lambda f: f, {"precision": "fp16", "device": "cpu"}, ValueError, "for GPUs"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_with_a_clear_error(case: str, tiny: Tiny, results: pd.DataFrame) -> None:
    change, settings, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        LIRReRanker(tiny("bert-1"), **settings)(change(results))


@pytest.mark.parametrize("kind", ["bert-1", "dense"])
def test_scores_that_are_no_numbers_are_refused(
    kind: str, tiny: Tiny, results: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.array([1.0, 2.0, np.nan, np.inf, 3.0])
    monkeypatch.setattr(Engine, "score", lambda *_: scores)
    message = "NaN or infinite in 2 of 5 rows, first in qid='q1', docno='d3'. With precision='fp16', take 'bf16'"
    transformers = [LIRReRanker(tiny(kind)), *([LIRBiEncoder(tiny(kind)).scorer()] if kind == "dense" else [])]
    for transformer in transformers:
        with pytest.raises(ValueError, match=re.escape(message)):
            transformer(results)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"max_length": -1}, "max_length=-1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"precision": "float8"}, "allowed: auto, float32"),
        ({"activation": nn.Sigmoid()}, r"activation=Sigmoid\(\); allowed: the name of a class of torch.nn"),
        ({"template": 5}, "template=5; allowed: a string, or None"),
        ({"trust_remote_code": "no"}, "trust_remote_code='no'; allowed: True or False"),
        ({"outputs": ()}, r"outputs=\(\); allowed: a tuple"),
    ],
)
def test_settings_that_no_model_could_serve_are_refused_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        LIRReRanker("any/model", **settings)  # type: ignore[arg-type]


def test_settings_that_are_set_later_are_refused_too_and_those_of_numpy_taken(
    tiny: Tiny, results: pd.DataFrame
) -> None:
    model = LIRReRanker(tiny("bert-1"), batch_size=np.int64(2))
    assert repr(model) == f"LIRReRanker({tiny('bert-1')!r}, batch_size=2)"
    expected = model(results)
    model.max_length = "x"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="max_length='x'; allowed: a positive number"):
        model(results)
    model.max_length, model.batch_size = None, np.int64(1)
    pd.testing.assert_frame_equal(model(results), expected, rtol=3e-6, atol=1e-5)
    assert len({LIRReRanker("any/model", outputs=["dense"]), LIRReRanker("any/model", outputs=("dense",))}) == 1


@pytest.mark.parametrize("setting", [{"outputs": ("dense",)}, {"template": "monot5"}, {"revision": "main"}])
def test_settings_for_loading_are_refused_with_a_loaded_model(setting: dict[str, Any], tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(setting))}=.* is for loading, .* give it to load_model"):
        LIRReRanker(load_model(tiny("dense")), **setting)
