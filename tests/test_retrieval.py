"""LIRIndexer and LIRRetriever: a model and an index in one, equal to scoring every pair."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from ir_measures import RR, nDCG

from pyterrier_lir import (
    BiEncoderModule,
    LightningIRDataModule,
    LightningIRTrainer,
    LIRBiEncoder,
    LIRIndexer,
    LIRReRanker,
    LIRRetriever,
    TupleDataset,
    load_model,
    open_index,
)
from pyterrier_lir.indexes import INDEXES
from pyterrier_lir.training.objectives import InBatchCrossEntropy
from tests.tiny_checkpoints import SENTENCES

Tiny = Callable[[str], str]
KINDS = [
    "dense",
    "dpr-mean",
    "dense-mixed",
    "splade",
    "splade-static",
    "inference-free",
    "unicoil",
    "col",
    "pylate",
    "mvr",
    "xtr",
]
CLASSES = {index.KIND: index for index in INDEXES.values()}


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    words = " ".join(SENTENCES).split()
    texts = [*SENTENCES, *(" ".join(words[i : i + 8]) for i in range(len(words) - 8))]
    return [{"docno": f"d{i}", "text": text, "title": f"title {i}"} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def topics() -> pd.DataFrame:
    rows = [("q1", "rainfall in the mountains"), ("q2", "a hot oven for bread"), ("q3", "rainfall in the mountains")]
    return pd.DataFrame(rows, columns=["qid", "query"]).assign(user=["ann", "bob", "cem"])


@pytest.fixture(scope="module")
def indexed(tiny: Tiny, corpus: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def index(kind: str) -> str:
        if kind not in made:
            made[kind] = str(tmp_path_factory.mktemp("indexes") / f"{kind}.lir")
            LIRIndexer(tiny(kind), made[kind], include_fields=["text"], **exact(kind)).index(corpus)
        return made[kind]

    return index


def exact(kind: str) -> dict[str, Any]:
    """Token vectors in float32, to be compared."""
    return {"dtype": "float32"} if kind in ("col", "pylate", "mvr", "xtr") else {}


@pytest.mark.parametrize("kind", KINDS)
def test_retrieval_finds_what_scoring_all_pairs_ranks_first(
    kind: str, tiny: Tiny, indexed: Callable[[str], str], corpus: list[dict[str, str]], topics: pd.DataFrame
) -> None:
    found = LIRRetriever(tiny(kind), indexed(kind), num_results=12)(topics)
    assert list(found.columns) == ["qid", "query", "user", "docno", "score", "rank"]
    everything = LIRBiEncoder(tiny(kind)).scorer()(topics.merge(pd.DataFrame(corpus), how="cross"))
    scores = everything.set_index(["qid", "docno"])["score"]
    for qid, group in found.groupby("qid"):
        assert group["rank"].tolist() == list(range(len(group)))
        np.testing.assert_allclose(group["score"], scores[qid][group["docno"]], rtol=1e-5, atol=1e-5)
        best = np.sort(scores[qid])[::-1][: len(group)]
        np.testing.assert_allclose(group["score"], best, rtol=1e-5, atol=1e-5)
    assert found.groupby("qid")["user"].first().to_dict() == {"q1": "ann", "q2": "bob", "q3": "cem"}


@pytest.mark.parametrize("kind", ["mvr", "xtr"])
def test_late_interaction_is_searched_end_to_end(
    kind: str, tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame
) -> None:
    exact = LIRRetriever(tiny(kind), indexed(kind), num_results=12)(topics)
    found = LIRRetriever(tiny(kind), indexed(kind), "plaid", num_results=12, options={"nprobe": 1_000})(topics)
    assert open_index(indexed(kind)).config.imputation_strategy == ("min" if kind == "xtr" else "gather")
    assert found["docno"].tolist() == exact["docno"].tolist()  # with so few tokens all are retrieved
    np.testing.assert_allclose(found["score"], exact["score"], rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "splade", "col"])
def test_encoders_in_front_of_an_index_make_the_same(
    kind: str,
    tiny: Tiny,
    indexed: Callable[[str], str],
    corpus: list[dict[str, str]],
    topics: pd.DataFrame,
    tmp_path: Path,
) -> None:
    encoder = LIRBiEncoder(tiny(kind))
    index = CLASSES[encoder.kinds()[0]](tmp_path / "x.lir")
    (encoder.doc_encoder() >> index.indexer(encoder=encoder, **exact(kind))).index(corpus)
    own = (encoder.query_encoder() >> index.retriever(num_results=9))(topics)
    expected = LIRRetriever(tiny(kind), indexed(kind), num_results=9)(topics)
    assert own["docno"].tolist() == expected["docno"].tolist()
    np.testing.assert_allclose(own["score"], expected["score"], rtol=1e-5)
    assert index.meta["model"] == open_index(indexed(kind)).meta["model"]
    more = {"mode": "append", "replace": True, **exact(kind)}
    LIRIndexer(tiny(kind), tmp_path / "x.lir", **more).index(pd.DataFrame(corpus[:2]))
    assert len(open_index(tmp_path / "x.lir")) == len(corpus)


@pytest.mark.parametrize("kind", ["dense", "splade", "col"])
def test_queries_come_as_text_or_as_vectors(
    kind: str, tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame
) -> None:
    retrieve = LIRRetriever(tiny(kind), indexed(kind), num_results=5, include_fields=["text"])
    vectors = LIRBiEncoder(tiny(kind)).query_encoder()(topics)
    expected = retrieve(topics)
    assert "text" in expected.columns
    found = retrieve(vectors.drop(columns="query"))
    assert found["docno"].tolist() == expected["docno"].tolist()


@pytest.mark.parametrize("kind", ["dense", "splade", "col"])
def test_results_of_another_stage_are_scored_without_texts(
    kind: str, tiny: Tiny, indexed: Callable[[str], str], corpus: list[dict[str, str]], topics: pd.DataFrame
) -> None:
    results = topics.merge(pd.DataFrame(corpus), how="cross").sample(40, random_state=1)
    expected = LIRBiEncoder(tiny(kind)).scorer()(results)
    found = LIRRetriever(tiny(kind), indexed(kind), num_results=2)(results.drop(columns=["text", "title"]))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-5)
    assert found["rank"].tolist() == expected["rank"].tolist()


@pytest.mark.parametrize("kind", ["dpr-first", "splade", "col"])
def test_threads_that_share_a_retriever_find_what_one_does(
    kind: str, tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame
) -> None:
    expected = LIRRetriever(tiny(kind), indexed(kind))(topics)
    retriever = LIRRetriever(tiny(kind), indexed(kind))
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: retriever(topics), range(16)):
            pd.testing.assert_frame_equal(found, expected)


def test_pipelines_cut_rerank_and_evaluate(tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame) -> None:
    retrieve = LIRRetriever(tiny("dense"), indexed("dense"), include_fields=["text"])
    cut = (retrieve % 4).compile()
    assert cut == LIRRetriever(tiny("dense"), indexed("dense"), num_results=4, include_fields=["text"])
    pd.testing.assert_frame_equal(cut(topics), retrieve(topics).query("rank < 4").reset_index(drop=True))
    qrels = pd.DataFrame([("q1", "d2", 1), ("q2", "d4", 1)], columns=["qid", "docno", "label"])
    pipeline = retrieve % 4 >> LIRReRanker(tiny("mono-bert"))
    tables = [pt.Experiment([retrieve, pipeline], topics, qrels, [nDCG @ 10, RR @ 10], ["first", "second"], **options)
              for options in ({}, {"batch_size": 1}, {"plan": "tree"})]  # fmt: skip
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_an_index_remembers_its_model_and_refuses_others(
    tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame, tmp_path: Path
) -> None:
    meta = open_index(indexed("dense")).meta["model"]
    assert meta["source"] == tiny("dense")
    with pytest.raises(ValueError, match=r"whose weights are not those of.*any_model=True"):
        LIRRetriever(tiny("dpr-first"), indexed("dense"))(topics)
    assert len(LIRRetriever(tiny("dpr-first"), indexed("dense"), any_model=True)(topics))
    with pytest.raises(ValueError, match=r"holds dense vectors; those of .* are sparse"):
        LIRRetriever(tiny("splade"), indexed("dense"), any_model=True)(topics)


def test_a_model_is_told_from_what_it_was_before_training(
    tiny: Tiny, indexed: Callable[[str], str], corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    module = BiEncoderModule(tiny("dense"), loss_functions=[InBatchCrossEntropy()], learning_rate=1e-2)
    before = module.model.fingerprint
    rows = [(text["text"], text["text"], "something else") for text in corpus[:4]]
    given: Any = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = LightningIRTrainer(max_steps=2, enable_checkpointing=False, **given)
    trainer.fit(module, LightningIRDataModule(train_dataset=TupleDataset(rows), train_batch_size=2))
    module.save_pretrained(tmp_path / "trained")
    LIRIndexer(module.model, tmp_path / "x.lir").index(corpus)
    expected = LIRRetriever(module.model, tmp_path / "x.lir", num_results=3)(topics)
    found = LIRRetriever(str(tmp_path / "trained"), tmp_path / "x.lir", num_results=3)(topics)
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(ValueError, match="whose weights are not those of"):
        LIRRetriever(module.model, indexed("dense"))(topics)
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    loaded = BiEncoderModule.load_from_checkpoint(tmp_path / "state.ckpt", model_name_or_path=tiny("dense"))
    assert loaded.model.fingerprint == module.model.fingerprint != before
    with pytest.raises(FileNotFoundError, match=r"is a file; .*load_from_checkpoint"):
        LIRRetriever(tmp_path / "state.ckpt", tmp_path / "x.lir")(topics)


@pytest.mark.parametrize("ids", [True, False])
def test_terms_that_are_named_otherwise_are_refused(
    ids: bool, tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    LIRIndexer(tiny("splade"), tmp_path / "x.lir", token_ids=ids).index(corpus)
    assert len(LIRRetriever(tiny("splade"), tmp_path / "x.lir", token_ids=ids)(topics))
    with pytest.raises(ValueError, match=f"give token_ids={ids}"):
        LIRRetriever(tiny("splade"), tmp_path / "x.lir", token_ids=not ids)(topics)
    with pytest.raises(ValueError, match=f"give token_ids={ids}"):
        LIRRetriever(tiny("splade"), [tmp_path / "x.lir"] * 2, token_ids=not ids)(topics)


def test_vectors_in_a_frame_tell_their_model(tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame) -> None:
    index, other = open_index(indexed("dense")), LIRBiEncoder(tiny("dpr-first")).query_encoder()
    right = LIRBiEncoder(tiny("dense")).query_encoder()
    found = (right >> index.retriever(num_results=3))(topics)
    with pytest.raises(ValueError, match="whose weights are not those of"):
        (other >> index.retriever())(topics)
    with pytest.raises(ValueError, match="whose weights are not those of"):
        (other >> index.scorer())(found[["qid", "query", "docno"]])
    assert len((other >> index.retriever(num_results=3, any_model=True))(topics)) == len(found)
    sparse = LIRBiEncoder(tiny("splade")).query_encoder()  # whose vectors are in another column
    pd.testing.assert_series_equal((right >> sparse >> index.retriever(num_results=3))(topics)["score"], found["score"])
    assert len((other >> index.scorer(any_model=True))(found[["qid", "query", "docno"]])) == len(found)


def test_precision_does_not_make_another_model(tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame) -> None:
    for precision in ("bf16", "int8"):
        assert len(LIRRetriever(tiny("dense"), indexed("dense"), precision=precision)(topics))


def test_settings_make_equality_hash_and_representation(tiny: Tiny, indexed: Callable[[str], str]) -> None:
    made = LIRRetriever(tiny("dense"), indexed("dense"), "hnsw", num_results=7, options={"efSearch": 64}, doc_length=9)
    assert eval(repr(made)) == made
    assert hash(eval(repr(made))) == hash(made)
    assert pickle.loads(pickle.dumps(made)) == made
    assert made != LIRRetriever(tiny("dense"), indexed("dense"), num_results=7)
    indexer = LIRIndexer("webis/splade", "x.lir", mode="resume", doc_top_k=9, dtype="float16")
    assert eval(repr(indexer)) == indexer
    assert hash(eval(repr(indexer))) == hash(indexer)


def test_inspection_reads_neither_weights_nor_index(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyterrier_lir.models.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    made = LIRRetriever(tiny("dense"), "no/such/index")
    assert ["qid", "query"] in pt.inspect.transformer_inputs(made)
    assert ["qid", "query_vec"] in pt.inspect.transformer_inputs(made)
    columns = ["qid", "query", "docno", "score", "rank", "title"]
    titled = LIRRetriever(tiny("dense"), "no/such/index", include_fields=["title"])
    assert pt.inspect.transformer_outputs(titled, ["qid", "query"]) == columns
    assert pt.schematic.transformer_schematic(made)["output_columns"] == columns[:-1]
    indexer = LIRIndexer(tiny("dense"), "x.lir", include_fields=["title"])
    assert indexer.index_inputs() == [["docno", "text", "title"]]


def test_no_queries_give_the_columns_of_results_and_load_nothing(
    tiny: Tiny, indexed: Callable[[str], str], topics: pd.DataFrame
) -> None:
    made = LIRRetriever(tiny("dense"), indexed("dense"), num_results=3, include_fields=["text"])
    found = made(topics)
    fresh = pickle.loads(pickle.dumps(made))
    for given, full in ((topics, found), (found, made(found))):
        empty = fresh(given.head(0))
        assert empty.empty
        assert list(empty.columns) == list(full.columns)
    assert fresh([]) == []
    assert fresh.encoder._loaded is None


def test_parts_are_encoded_apart_and_joined(
    tiny: Tiny, indexed: Callable[[str], str], corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    parts = [
        LIRIndexer(tiny("dense"), tmp_path / "x.lir", shard=(i, 3), include_fields=["text"]).index(corpus)
        for i in range(3)
    ]
    assert sorted(len(part) for part in parts) == sorted(len(corpus[i::3]) for i in range(3))
    merged = CLASSES["dense"].merge(parts, tmp_path / "x.lir")
    found, expected = (
        LIRRetriever(tiny("dense"), index, num_results=9)(topics) for index in (merged, indexed("dense"))
    )
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"allowed: \(i, n\)"):
        LIRIndexer(tiny("dense"), tmp_path / "y.lir", shard=(3, 3))


LAUNCHED = """
import json, sys
sys.path[:0] = {path!r}
from pyterrier_lir import LIRIndexer
{launch}
LIRIndexer({model!r}, {index!r}, shard="rank").index(json.load(open({corpus!r})))
"""
FABRIC = """
from lightning.fabric import Fabric
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
"""


@pytest.mark.parametrize("launcher", ["environment", "torchrun", "Fabric"])
def test_processes_of_a_launcher_take_their_parts_by_themselves(
    launcher: str, tiny: Tiny, corpus: list[dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "corpus.json").write_text(json.dumps(corpus))
    program = tmp_path / "program.py"
    program.write_text(
        LAUNCHED.format(
            path=sys.path, launch=FABRIC if launcher == "Fabric" else "", model=tiny("dense"),
            index=str(tmp_path / "x.lir"), corpus=str(tmp_path / "corpus.json"),
        )
    )  # fmt: skip
    own = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if launcher == "environment":
        processes = [
            subprocess.Popen([sys.executable, program], env={**own, "RANK": str(i), "WORLD_SIZE": "2"})
            for i in range(2)
        ]
    else:
        module = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        start = module if launcher == "torchrun" else []
        processes = [subprocess.Popen([sys.executable, *start, program], env=own)]
    assert [process.wait() for process in processes] == [0] * len(processes)
    parts = sorted(tmp_path.glob("x.lir.part-*-of-2"))
    merged = CLASSES["dense"].merge(parts, tmp_path / "x.lir")
    assert [len(open_index(part)) for part in parts] == [len(corpus[i::2]) for i in range(2)]
    assert sorted(merged.docnos_of(np.arange(len(merged)))) == sorted(doc["docno"] for doc in corpus)


def test_a_part_by_rank_needs_a_launcher(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="no RANK, WORLD_SIZE"):
        LIRIndexer(tiny("dense"), tmp_path / "y.lir", shard="rank")


def test_parts_are_searched_where_they_lie(
    tiny: Tiny, indexed: Callable[[str], str], corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    parts = [LIRIndexer(tiny("dense"), tmp_path / "x.lir", shard=(i, 2)) for i in range(2)]
    for part in parts:
        part.index(corpus)
    union = LIRRetriever(tiny("dense"), [part.folder for part in parts], num_results=9)
    found, expected = union(topics), LIRRetriever(tiny("dense"), indexed("dense"), num_results=9)(topics)
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)
    assert (union % 3).compile()(topics)["score"].tolist() == found[found["rank"] < 3]["score"].tolist()
    assert union == LIRRetriever(tiny("dense"), [part.folder for part in parts], num_results=9)
    with pytest.raises(ValueError, match="whose weights are not those of"):
        LIRRetriever(tiny("dpr-first"), [part.folder for part in parts])(topics)


def test_an_interrupted_encoding_resumes_to_the_same_bytes(
    tiny: Tiny, corpus: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyterrier_lir.engine.CHUNK", 16)
    settings: dict[str, Any] = {"shard_docs": 16, "include_fields": ["text"]}
    LIRIndexer(tiny("col"), tmp_path / "whole.lir", **settings).index(corpus)
    broken = [*corpus[:50], {"docno": "broken", "text": None}]
    with pytest.raises(ValueError, match="Document 'broken' has text=None"):
        LIRIndexer(tiny("col"), tmp_path / "x.lir", **settings).index(broken)
    LIRIndexer(tiny("col"), tmp_path / "x.lir", mode="resume", **settings).index(corpus)
    for file in sorted((tmp_path / "whole.lir").rglob("*.npy")):
        assert (tmp_path / "x.lir" / file.relative_to(tmp_path / "whole.lir")).read_bytes() == file.read_bytes(), file


def test_models_with_several_outputs_are_indexed_one_by_one(
    tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"index each by itself.*outputs=\('dense',\)"):
        LIRIndexer(tiny("bge-m3"), tmp_path / "x.lir", outputs=("dense", "sparse")).index(corpus)
    for kind in CLASSES:
        LIRIndexer(tiny("bge-m3"), tmp_path / kind, outputs=(kind,)).index(corpus)
        found = LIRRetriever(tiny("bge-m3"), tmp_path / kind, num_results=3, outputs=(kind,))(topics)
        assert len(found) >= 3


def test_vectors_that_meet_where_tokens_are_equal_are_indexed(
    tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"outputs": ("multi_vector",)}
    LIRIndexer(tiny("coil"), tmp_path / "x.lir", dtype="float32", **settings).index(corpus)
    found = LIRRetriever(tiny("coil"), tmp_path / "x.lir", num_results=12, **settings)(topics)
    everything = LIRBiEncoder(tiny("coil"), **settings).scorer()(topics.merge(pd.DataFrame(corpus), how="cross"))
    expected = everything[everything["rank"] < 12].sort_values(["qid", "rank"])
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)
    rescored = LIRRetriever(tiny("coil"), tmp_path / "x.lir", **settings)(found.drop(columns=["score", "rank"]))
    np.testing.assert_allclose(rescored["score"], found["score"], rtol=1e-5)


BAD = {
    "a cross-encoder": (lambda m, p: LIRIndexer(m("mono-bert"), p).index([{"docno": "1", "text": "a"}]), TypeError, "is a cross-encoder"),
    "no text": (lambda m, p: LIRIndexer(m("dense"), p).index([{"docno": "1", "body": "a"}]), ValueError, "Choose another with text_field="),
    "a setting of no one": (lambda m, p: LIRIndexer(m("dense"), p, colour="red").index([{"docno": "1", "text": "a"}]), TypeError, "has no setting colour"),
    "the size of vectors": (lambda m, p: LIRIndexer(m("dense"), p, size=3), TypeError, "has no setting size; it has those of LIRBiEncoder, and of indexes bits, dtype, impacts, ncentroids"),
    "a misspelt setting": (lambda m, p: LIRIndexer(m("dense"), p, batchsize=3), TypeError, r"Did you mean 'batch_size'\?"),
    "an unknown mode": (lambda m, p: LIRIndexer(m("dense"), p, mode="replace"), ValueError, "mode='replace'; allowed: 'create'"),
    "a string of outputs": (lambda m, p: LIRIndexer(m("dense"), p, outputs="dense"), TypeError, r"allowed: a tuple, such as \('dense',\)"),
    "several text fields": (lambda m, p: LIRReRanker(m("dense"), text_field=["title", "text"]), TypeError, "the name of a column"),
    "an unknown dtype": (lambda m, p: LIRIndexer(m("dense"), p, dtype="float8").index([{"docno": "1", "text": "a"}]), ValueError, "dtype='float8'; allowed: float32"),
    "a setting of engines": (lambda m, p: LIRRetriever(m("dense"), p, nprobe=3), TypeError, r"go into options=dict\("),
    "no index": (lambda m, p: LIRRetriever(m("dense"), p)(pd.DataFrame([("1", "a")], columns=["qid", "query"])), FileNotFoundError, "is no index"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_a_clear_error(case: str, tiny: Tiny, tmp_path: Path) -> None:
    run, error, message = BAD[case]
    with pytest.raises(error, match=message):
        run(tiny, tmp_path / "x.lir")


def test_no_queries_need_no_model(tmp_path: Path) -> None:
    found = LIRRetriever("no/such-model", tmp_path / "no.lir")(pd.DataFrame({"qid": [], "query": []}, dtype=str))
    assert found.empty
    assert list(found.columns) == ["qid", "query", "docno", "score", "rank"]


def test_vectors_alone_do_not_pass_for_those_that_are_compared_otherwise(
    tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    model = load_model(tiny("dpr-first")).with_options(similarity_function="cosine")
    encoder = LIRBiEncoder(model)
    index = CLASSES["dense"](tmp_path / "x.lir")
    (encoder.doc_encoder() >> index.indexer()).index(corpus)
    for search in (encoder.query_encoder() >> index.retriever(), LIRRetriever(model, index)):
        with pytest.raises(ValueError, match=r"compares vectors by the dot product, .* by cosine: build it with"):
            search(topics)
    assert len((encoder.query_encoder() >> index.retriever(any_model=True))(topics))
    (encoder.doc_encoder() >> index.indexer(encoder=encoder, mode="overwrite")).index(corpus)
    assert len((encoder.query_encoder() >> index.retriever())(topics))


def test_a_document_without_docno_is_refused_by_its_place(tiny: Tiny, tmp_path: Path) -> None:
    docs = [{"docno": "d1", "text": "a"}, {"text": "b"}]
    with pytest.raises(ValueError, match="Document 1 of the stream has no docno"):
        LIRIndexer(tiny("dense"), tmp_path / "x.lir", device="cpu").index(docs)
