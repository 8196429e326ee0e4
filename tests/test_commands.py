"""encode, merge, info, evaluate, models and convert: what they write is what the library computes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from pyterrier_lir import LIRBiEncoder, LIRIndexer, load_model, open_index
from pyterrier_lir.checkpoints import READERS, registry
from pyterrier_lir.cli import main
from pyterrier_lir.columns import VECTOR_COLUMNS
from pyterrier_lir.commands import encode as encode_module
from pyterrier_lir.commands import merge as merge_module
from pyterrier_lir.engine import Engine
from pyterrier_lir.public_models import PUBLIC_MODELS
from tests.tiny_checkpoints import SENTENCES
from tests.tiny_collection import QUERIES, write_collection

Tiny = Callable[[str], str]
IDS = [f"d{i}" for i in range(len(SENTENCES))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTERRIER_LIR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts.tsv").write_text("".join(f"{i}\t{text}\n" for i, text in zip(IDS, SENTENCES, strict=True)))
    return write_collection(tmp_path / "tiny")


def run(*words: str) -> None:
    assert main(list(words)) == 0


def expected(model: str, kind: str, texts: list[str] = SENTENCES, query: bool = False) -> Any:
    """What the library makes of the texts, as the columns hold it."""
    frame = pd.DataFrame({"qid": texts, "query": texts} if query else {"docno": texts, "text": texts})
    encoder = LIRBiEncoder(model)
    return list((encoder.query_encoder() if query else encoder.doc_encoder())(frame)[VECTOR_COLUMNS[kind][not query]])


def test_dense_vectors_are_written_for_numpy_with_their_ids_beside(folder: Path, tiny: Tiny) -> None:
    run("encode", tiny("dense"), "texts.tsv", "--out", "new/x.npy")
    run("encode", tiny("dense"), "tiny", "--out", "x.npz")  # the folder holds the same texts
    wanted = np.stack(expected(tiny("dense"), "dense"))
    np.testing.assert_allclose(np.load("new/x.npy"), wanted, atol=1e-6)
    np.testing.assert_allclose(np.load("x.npz")["vectors"], wanted, atol=1e-6)
    for path in ("new/x.ids.txt", "x.ids.txt"):
        assert Path(path).read_text().split("\n") == [*IDS, ""]
    assert sorted(path.name for path in Path("new").iterdir()) == ["x.ids.txt", "x.npy"]


def test_memory_is_bounded_by_a_chunk(folder: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyterrier_lir import engine
    from pyterrier_lir.commands.vector_files import VectorFile

    read, sizes = [0], []
    append, texts = VectorFile.append, encode_module.read_texts

    def counted(*arguments: Any) -> Any:
        for pair in texts(*arguments):
            read[0] += 1
            yield pair

    def measured(self: VectorFile, names: list[str], encoded: Any) -> None:
        sizes.append((len(names), read[0]))
        append(self, names, encoded)

    monkeypatch.setattr(engine, "CHUNK", 2)
    monkeypatch.setattr(encode_module, "read_texts", counted)
    monkeypatch.setattr(VectorFile, "append", measured)
    run("encode", tiny("dense"), "texts.tsv", "--out", "x.npy")
    assert [size for size, _ in sizes] == [2, 2, 2, 2]
    assert sizes[0][1] <= 4  # one chunk ahead
    np.testing.assert_allclose(np.load("x.npy"), np.stack(expected(tiny("dense"), "dense")), atol=1e-6)


def test_sparse_vectors_are_written_for_scipy(folder: Path, tiny: Tiny) -> None:
    run("encode", tiny("splade"), "texts.tsv", "--out", "x.npz", "--top-k", "5")
    written = scipy.sparse.load_npz("x.npz")
    encoder = LIRBiEncoder(tiny("splade"), doc_top_k=5)
    wanted: Any = encoder.pruned(encoder.engine().encode(SENTENCES, query=False), query=False)["sparse"]
    assert written.shape == wanted.shape
    np.testing.assert_allclose(written.toarray(), wanted.toarray(), atol=1e-6)


def test_ids_are_not_written_over_those_of_another_output(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    run("encode", tiny("dense"), "texts.tsv", "--out", "x.npy")
    run("encode", tiny("dense"), "texts.tsv", "--out", "x.npy", "--mode", "overwrite")
    for mode in ("create", "overwrite"):
        assert main(["encode", tiny("splade"), "tiny", "--side", "query", "--out", "x.npz", "--mode", mode]) == 2
        assert "x.ids.txt holds the ids of x.npy; the ids of x.npz would go there" in capsys.readouterr().err
    assert Path("x.ids.txt").read_text().split() == IDS
    Path("mine.ids.txt").write_text("kept")
    assert main(["encode", tiny("dense"), "texts.tsv", "--out", "mine.npy"]) == 2
    assert "mine.ids.txt is there already" in capsys.readouterr().err
    assert Path("mine.ids.txt").read_text() == "kept"
    assert {path.name for path in Path().glob("*.np*")} == {"x.npy"}


@pytest.mark.parametrize("out", ["x.npy", "x.npz", "x.parquet", "x.jsonl"])
def test_of_no_texts_an_output_without_rows_is_written(folder: Path, tiny: Tiny, out: str) -> None:
    Path("none.tsv").touch()
    run("encode", tiny("dense"), "none.tsv", "--out", out)
    if out == "x.parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        assert (table.schema.names, len(table)) == (["docno", "doc_vec"], 0)
    elif out == "x.jsonl":
        assert Path(out).read_text() == ""
    else:
        array = np.load(out) if out == "x.npy" else np.load(out)["vectors"]
        assert array.shape == (0, 32)


def test_the_encoders_settings_are_flags(folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    run("encode", tiny("dense"), "texts.tsv", "--out", "x.npy", "--doc-prompt", "sand: ", "--truncate-dim", "8")
    wanted = LIRBiEncoder(tiny("dense"), doc_prompt="sand: ", truncate_dim=8).encode_docs(SENTENCES)
    np.testing.assert_allclose(np.load("x.npy"), wanted, atol=1e-6)
    run("encode", tiny("pylate"), "texts.tsv", "--out", "y.npz", "--doc-pool-factor", "2")
    pooled = LIRBiEncoder(tiny("pylate"), doc_pool_factor=2).encode_docs(SENTENCES)
    np.testing.assert_allclose(np.load("y.npz")["values"], np.concatenate(pooled), atol=1e-6)
    assert main(["encode", tiny("dense"), "texts.tsv", "--out", "y.npy", "--query-prompt", "a"]) == 2
    assert "query_prompt: of no use with side='doc'" in capsys.readouterr().err


def test_token_vectors_are_written_with_offsets(folder: Path, tiny: Tiny) -> None:
    run("encode", tiny("col"), "texts.tsv", "--out", "x.npz", "--side", "query")
    file = np.load("x.npz")
    parts = np.split(file["values"], file["offsets"][1:-1])
    for part, row in zip(parts, expected(tiny("col"), "multi_vector", query=True), strict=True):
        np.testing.assert_allclose(part, row, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "splade", "col", "coil"])
def test_parquet_and_json_lines_have_the_columns_of_pipelines(folder: Path, tiny: Tiny, kind: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for out in ("x.parquet", "x.jsonl"):
        run("encode", tiny(kind), "tiny", "--out", out, "--side", "query")
    table = parquet.read_table("x.parquet").to_pandas(maps_as_pydicts="strict")
    lines = pd.read_json("x.jsonl", lines=True)
    assert list(table.columns) == list(lines.columns) or set(table.columns) == set(lines.columns)
    kinds = [one for one, (query, _) in VECTOR_COLUMNS.items() if query in table.columns]
    assert kinds == sorted(LIRBiEncoder(tiny(kind)).kinds(), key=list(VECTOR_COLUMNS).index)
    for name in kinds:
        wanted = expected(tiny(kind), name, list(QUERIES.values()), query=True)
        for frame in (table, lines):
            assert list(frame["qid"]) == list(QUERIES)
            for row, other in zip(frame[VECTOR_COLUMNS[name][0]], wanted, strict=True):
                if name == "sparse":
                    assert row == pytest.approx(other, abs=1e-6)
                else:
                    np.testing.assert_allclose(np.stack(list(row)), other, atol=1e-6)


def test_standard_input_is_a_text_a_line_and_standard_output_json_lines(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("bread\n\nthe sea\n"))
    run("encode", tiny("dense"))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["docno"] for row in printed] == ["0", "1", "2"]
    np.testing.assert_allclose(
        [row["doc_vec"] for row in printed], expected(tiny("dense"), "dense", ["bread", "", "the sea"]), atol=1e-6
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"qid": "a", "query": "bread"}\n'))
    run("encode", tiny("dense"), "-", "--input-format", "jsonl", "--side", "query")
    assert json.loads(capsys.readouterr().out)["qid"] == "a"
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\tbread\nb bread\n"))
    assert main(["encode", tiny("dense"), "--input-format", "tsv"]) == 2
    assert "line 2: no tab" in capsys.readouterr().err


def test_two_processes_each_write_their_part(folder: Path, tiny: Tiny) -> None:
    command = [sys.executable, "-m", "pyterrier_lir", "encode", tiny("dense"), "texts.tsv", "--out", "x.npy"]
    started = [
        subprocess.Popen([*command, "--shard", "rank"], env={**os.environ, "RANK": str(i), "WORLD_SIZE": "2"})
        for i in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    wanted = np.stack(expected(tiny("dense"), "dense"))
    for i in range(2):
        np.testing.assert_allclose(np.load(f"x.part-{i}-of-2.npy"), wanted[i::2], atol=1e-6)
        assert Path(f"x.part-{i}-of-2.ids.txt").read_text().split() == IDS[i::2]
    run("encode", tiny("dense"), "texts.tsv", "--out", "x.npy", "--shard", "1/2", "--mode", "resume")  # nothing to do


def test_what_is_interrupted_leaves_nothing_half_written(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def texts(*arguments: Any) -> Any:
        yield "d0", SENTENCES[0]
        os.kill(os.getpid(), signal.SIGTERM)
        yield "d1", SENTENCES[1]

    monkeypatch.setattr(encode_module, "read_texts", texts)
    for out in ("x.npy", "x.npz", "x.jsonl"):
        assert main(["encode", tiny("dense"), "texts.tsv", "--out", out]) == 130
        assert "interrupted. Nothing was written to" in capsys.readouterr().err
    assert not list(Path().glob("x.*"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_progress_in_a_log_is_plain_lines(folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny("dense")
    capsys.readouterr()  # what making it has said
    run("encode", model, "texts.tsv", "--out", "x.npy")
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(re.match(r"encoding: \d", line) for line in lines[:-1])
    assert lines[-1] == "8 documents -> x.npy"
    run("encode", tiny("dense"), "texts.tsv", "--out", "y.npy", "--verbose", "false")
    assert capsys.readouterr().err == "8 documents -> y.npy\n"


def test_parts_of_an_index_become_one(folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    docs = [{"docno": i, "text": text} for i, text in zip(IDS, SENTENCES, strict=True)]
    for i in range(2):
        LIRIndexer(tiny("dense"), "x.lir", shard=(i, 2)).index(docs)
    assert main(["merge", "x.lir.part-0-of-2", "--out", "y.lir"]) == 2
    assert "Not given: x.lir.part-1-of-2" in capsys.readouterr().err
    run("merge", "x.lir.part-0-of-2", "x.lir.part-1-of-2", "--out", "y.lir")
    joined = open_index("y.lir")
    assert joined.docnos_of(np.arange(8)).tolist() == IDS[::2] + IDS[1::2]
    LIRIndexer(tiny("splade"), "z.lir").index(docs)
    assert main(["merge", "y.lir", "z.lir", "--out", "both.lir"]) == 2
    assert "z.lir holds sparse vectors and y.lir dense ones" in capsys.readouterr().err
    with pytest.raises(ValueError, match="given twice"):
        merge_module.merge(["y.lir", "y.lir"], out="both.lir")


def test_info_tells_what_an_index_is(folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    docs = [{"docno": i, "text": text} for i, text in zip(IDS, SENTENCES, strict=True)]
    index = LIRIndexer(tiny("dense"), "x.lir", include_fields=["text"]).index(docs)
    index.delete(["d3"])
    _ = index.retriever("hnsw").searcher
    run("info", "x.lir", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["what"] == "index of dense vectors"
    assert (facts["documents"], facts["deleted documents"], facts["stored fields"]) == (7, 1, ["text"])
    assert facts["made with"]["model"] == tiny("dense")
    assert len(facts["engines built"]) == 1
    run("info", "x.lir")
    assert re.search(r"^documents +7$", capsys.readouterr().out, re.MULTILINE)
    Path("x.lir/pt_meta.json").unlink()  # without it a build is not complete
    Path("x.lir").rename("y.lir.building")
    assert main(["info", "y.lir"]) == 2
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dense", "splade-own-embeddings", "bge-m3", "set-encoder", "bert-1", "monot5"])
def test_info_tells_what_a_checkpoint_is_without_its_weights(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    model = load_model(tiny(kind))
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *a, **k: pytest.fail("weights are read"))
    run("info", tiny(kind), "--json")
    facts = json.loads(capsys.readouterr().out)
    words = {
        "dense": "dense bi-encoder",
        "splade-own-embeddings": "learned sparse bi-encoder",
        "set-encoder": "listwise cross-encoder",
    }
    assert facts["what"] == words.get(kind, facts["what"])
    assert facts["format"] in READERS
    if kind != "bge-m3":  # of which load_model takes one output
        assert facts["parameters"] == sum(p.numel() for p in model.parameters())
        assert all(
            getattr(model.config, name) == value or isinstance(value, list)
            for name, value in facts["configuration"].items()
        )


def test_info_and_kinds_run_a_checkpoints_code_only_where_it_is_trusted(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyterrier_lir.checkpoints import Files

    trusted: list[bool] = []
    init = Files.__init__

    def watch(self: Files, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        trusted.append(self.trust_remote_code)

    monkeypatch.setattr(Files, "__init__", watch)
    for flags in ([], ["--trust-remote-code"]):
        run("info", tiny("dense"), *flags)
        told = trusted[0]
        LIRBiEncoder(tiny("dense"), trust_remote_code=bool(flags)).kinds()
        assert told == trusted[-1] == bool(flags)
        trusted.clear()


def test_runs_are_measured_with_significance(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, qrels = ["tiny/first.run.gz", "tiny/second.run"], ["--qrels", "tiny"]
    run(
        "evaluate",
        *runs,
        *qrels,
        "--measures",
        "RR@10",
        "map",
        "--baseline",
        "first",
        "--correction",
        "holm",
        "--table",
        "csv",
    )
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    by_hand = {
        "RR@10": [(1 + 1 + 1 / 2) / 3, (1 / 2 + 1 / 2 + 1 / 2) / 3],
        "map": [(1 + 1 + 1 / 2) / 3, ((1 / 2 + 2 / 3) / 2 + 1 / 2 + 1 / 2) / 3],
    }
    assert table["name"].tolist() == ["first", "second"]
    for name, values in by_hand.items():
        assert table[name].tolist() == pytest.approx(values)
    from scipy.stats import ttest_rel

    assert table["RR@10 p-value"][1] == pytest.approx(ttest_rel([0.5, 0.5, 0.5], [1, 1, 0.5]).pvalue)
    assert list(table.columns[:6]) == ["name", "RR@10", "RR@10 +", "RR@10 -", "RR@10 p-value", "RR@10 reject"]
    run(
        "evaluate",
        *runs,
        "--qrels",
        "tiny/qrels.txt",
        "--measures",
        "RR@10",
        "--table",
        "markdown",
        "--baseline",
        runs[0],
        "--alpha",
        "0.5",
    )
    assert capsys.readouterr().out == "| name | RR@10 |\n|---|---|\n| first | **0.833** |\n| second | 0.500† |\n"
    run("evaluate", *runs, *qrels, "--measures", "RR@10", "--table", "latex")
    assert r"first & \textbf{0.833} \\" in capsys.readouterr().out
    run("evaluate", runs[0], *qrels, "--measures", "RR@10", "--per-query")
    assert "first,q3,RR@10,0.5" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(Path(runs[1]).read_text().split("q2")[0]))
    run("evaluate", "-", *qrels, "--measures", "RR@10")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["name   RR@10", "stdin  0.167"]
    assert "stdin lacks 2 of 3 judged queries; they count as zero." in captured.err


def test_known_models_are_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [row.id for row in PUBLIC_MODELS]
    assert len(set(ids)) == len(ids)
    assert {row.format for row in PUBLIC_MODELS} <= set(READERS)
    assert all(row.source.startswith("https://") for row in PUBLIC_MODELS)
    assert set(registry.GENERATIVE) | set(registry.DENSE) | set(registry.SPLADE) | registry.SECOND_LOGIT <= set(ids)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    loads = readme[readme.index("## What loads") : readme.index("## Precision")]
    named = set(re.findall(r"`([\w.-]+/[\w.-]+)`", loads))
    assert named <= set(ids)
    run("models", "set-encoder")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["webis/set-encoder-base", "webis/set-encoder-large"]
    run("models", "--name", "splade-v3-doc", "--json")
    assert json.loads(capsys.readouterr().out)[0]["reads"] == {"query_weighting": "binary"}


TEXTS = ["how tall is the tower", "", "a " * 80, "Straße 雨"]


@pytest.mark.parametrize("kind", ["dense", "dpr-first", "dpr-mean", "bge-m3"])
def test_dense_models_become_sentence_transformers(folder: Path, tiny: Tiny, kind: str) -> None:
    library = pytest.importorskip("sentence_transformers")
    run("convert", tiny(kind), "new", "--max-length", "24")
    opened = library.SentenceTransformer("new", device="cpu")
    model: Any = load_model(tiny(kind))
    engine = Engine(model.with_options(max_length=24))
    for encode, query in ((opened.encode_query, True), (opened.encode_document, False)):
        np.testing.assert_allclose(encode(TEXTS), engine.encode(TEXTS, query)["dense"], atol=2e-6)
    config: Any = load_model("new").config
    assert {None: "dot"}.get(opened.similarity_fn_name, opened.similarity_fn_name) == config.similarity_function


@pytest.mark.parametrize("poolings", [["mean", "cls"], ["cls", "mean"], ["lasttoken", "max", "mean"]])
def test_concatenated_poolings_keep_their_order(folder: Path, tiny: Tiny, poolings: list[str]) -> None:
    library = pytest.importorskip("sentence_transformers")
    shutil.copytree(tiny("dense"), "old")
    Path("old/1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": poolings}))
    run("convert", "old", "new")
    old, new = (library.SentenceTransformer(name, device="cpu").encode(TEXTS) for name in ("old", "new"))
    assert old.shape == (len(TEXTS), 32 * len(poolings))
    np.testing.assert_allclose(new, old, atol=1e-6)
    np.testing.assert_allclose(LIRBiEncoder("new").encode_docs(TEXTS), old, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "bert-1"])
@pytest.mark.parametrize(("limit", "reason"), [("65", "has positions for 64 tokens"), ("0", "a positive number")])
def test_a_limit_that_the_model_cannot_have_is_not_written(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], kind: str, limit: str, reason: str
) -> None:
    assert main(["convert", tiny(kind), "new", "--max-length", limit]) == 2
    said = capsys.readouterr().err
    assert f"max_length={limit}" in said
    assert reason in said
    assert not list(Path().glob("new*"))


def test_the_written_folder_is_read_again_as_the_old_one_was(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted: list[bool] = []

    def load(name: Path, trust_remote_code: bool) -> Any:
        trusted.append(trust_remote_code)
        raise ValueError(f"{name} is broken.")

    monkeypatch.setattr("pyterrier_lir.models.load_model", load)
    assert main(["convert", tiny("dense"), "new", "--trust-remote-code"]) == 2
    assert trusted == [True]
    assert "cannot be read again, and was not written: the new folder is broken." in capsys.readouterr().err


def test_classifiers_become_cross_encoders(folder: Path, tiny: Tiny) -> None:
    library = pytest.importorskip("sentence_transformers")
    run("convert", tiny("roberta-1"), "new")
    pairs = [(query, doc) for query in TEXTS for doc in TEXTS]
    ours = Engine(load_model(tiny("roberta-1"))).score([q for q, _ in pairs], [d for _, d in pairs])
    np.testing.assert_allclose(library.CrossEncoder("new", device="cpu").predict(pairs), ours, atol=1e-6)


@pytest.mark.parametrize(("kind", "form", "reason"), [
    ("mono-bert", "sentence-transformers", "head='linear'"),
    ("qwen3-classifier", "sentence-transformers", "reads a decoder's last token"),
    ("bert-2", "sentence-transformers", "log probability of two labels"),
    ("splade", "sentence-transformers", "only dense models"),
    ("dpr-first", "sentence-transformers", "query_length=12 is not doc_length=24 (--max_length gives both one limit)"),
    ("dense-mixed", "lightning-ir", "query_pooling_strategy=['min']"),
    ("bert-1", "lightning-ir", "head='classification'"),
])  # fmt: skip
def test_models_that_another_library_does_not_have_are_refused_with_the_reason(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], kind: str, form: str, reason: str
) -> None:
    assert main(["convert", tiny(kind), "new", "--to", form]) == 2
    assert reason in capsys.readouterr().err
    assert not list(Path().glob("new*"))


@pytest.mark.parametrize(("kind", "form"), [("naver-splade", "lightning-ir"), ("splade-modernbert", "pyterrier-lir")])
def test_other_forms_are_written_and_compared(folder: Path, tiny: Tiny, kind: str, form: str) -> None:
    run("convert", tiny(kind), "new", "--to", form)
    assert Path("new/pyterrier_lir.json").is_file() == (form == "pyterrier-lir")
    wanted, found = (Engine(load_model(name)).encode(SENTENCES, False)["sparse"] for name in (tiny(kind), "new"))
    np.testing.assert_allclose(found.toarray(), wanted.toarray(), atol=1e-6)  # type: ignore[union-attr]


def test_a_conversion_that_scores_otherwise_leaves_nothing(
    folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyterrier_lir.checkpoints import sentence_transformers_form as form

    write = form._pooling
    monkeypatch.setattr(
        form,
        "_pooling",
        lambda config, width: (
            write(config, width) | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
        ),
    )
    assert main(["convert", tiny("dense"), "new"]) == 2
    assert "scores otherwise as a sentence-transformers model" in capsys.readouterr().err
    assert not list(Path().glob("new*"))
