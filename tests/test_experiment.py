"""`pyterrier-lir experiment`: a YAML file's systems, run, measured, written and not run twice."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pyterrier as pt
import pytest
import yaml

from pyterrier_lir import LIRReRanker, data
from pyterrier_lir.cli import main
from pyterrier_lir.commands import kept_runs, stages
from pyterrier_lir.commands.runs import read_run
from pyterrier_lir.data.documentation import DocumentationDataset
from tests import shared_collections
from tests.tiny_collection import QRELS, QUERIES, RUN, write_collection

Tiny = Callable[[str], str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTERRIER_LIR_CACHE", str(tmp_path / "cache"))
    return write_collection(tmp_path / "tiny")


def write(path: Path, **values: Any) -> str:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


def test_a_file_of_systems_becomes_tables_runs_a_plot_and_a_record_that_repeats_it(
    folder: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {"run": "tiny/first.run.gz"}
    systems = {
        "first": [first],
        "first >> mono": [
            first,
            {"cutoff": 2},
            "text",
            {"reranker": {"model": tiny("bert-1"), "precision": "float32"}},
        ],
        "dense": [{"retriever": {"model": tiny("dense"), "num_results": 5}}],
        "scored": [first, {"scorer": {"model": tiny("dense"), "index": "out/indexes/x.lir"}}],
        "any": [first, {"class_path": "pyterrier.RankCutoff", "init_args": {"k": 1}}],
    }
    config = write(tmp_path / "e.yaml", dataset="tiny", systems=systems, metrics=["nDCG@10", "RR@10", "mrt"],
                   baseline="first", correction="holm", out="out")  # fmt: skip
    asked: list[int] = []
    monkeypatch.setattr(
        stages.StoredRun,
        "transform",
        lambda self, inp: (asked.append(len(inp)), inp.merge(self.frame, on="qid").reset_index(drop=True))[1],
    )
    assert main(["experiment", "--config", config]) == 0
    assert asked.count(len(QUERIES)) == 2  # to see that it fits the queries, and once for the four systems

    # the same by hand
    run = read_run("tiny/first.run.gz").merge(pd.DataFrame(QUERIES.items(), columns=["qid", "query"]))
    texts = dict(json.loads(line).values() for line in _lines(folder / "corpus.jsonl.gz"))
    mono = LIRReRanker(tiny("bert-1"))(run[run["rank"] < 2].assign(text=lambda frame: frame["docno"].map(texts)))
    qrels = pd.DataFrame([(q, d, label) for (q, d), label in QRELS.items()], columns=["qid", "docno", "label"])
    expected = pt.Experiment(
        [run, mono], run[["qid", "query"]].drop_duplicates(), qrels, ["ndcg_cut_10", "recip_rank"], validate="ignore"
    )
    table = pd.read_csv("out/table.csv")
    assert table["name"].tolist() == list(systems)
    assert table["nDCG@10"].tolist()[:2] == pytest.approx(expected["ndcg_cut_10"].tolist())
    assert table["RR@10"].tolist()[:2] == pytest.approx(expected["recip_rank"].tolist())
    assert "nDCG@10 p-value corrected" in table
    assert (table["mrt"] > 0).all()
    kept = read_run(f"out/runs/{kept_runs.file_name('first >> mono')}.run.gz")
    merged = kept.merge(mono, on=["qid", "docno"])
    assert len(kept) == len(mono) == len(merged)
    assert merged["score_x"].tolist() == pytest.approx(merged["score_y"].tolist())

    assert r"first $\gg$ mono & " in Path("out/table.tex").read_text()
    assert "| first >> mono |" in Path("out/table.md").read_text()
    assert json.loads(Path("out/versions.json").read_text())["torch"]
    if importlib.util.find_spec("matplotlib"):
        assert Path("out/plot.png").read_bytes().startswith(b"\x89PNG")

    # what it wrote repeats it, and takes the runs that are there
    asked.clear()
    monkeypatch.setattr(stages, "warm", lambda stage: pytest.fail(f"{stage} is loaded again"))
    assert main(["experiment", "--config", "out/config.yaml"]) == 0
    assert asked.count(len(QUERIES)) == 1
    pd.testing.assert_frame_equal(pd.read_csv("out/table.csv"), table)
    assert capsys.readouterr().err.count("its run is there already") == len(systems)


def _lines(path: Path) -> list[str]:
    import gzip

    return gzip.decompress(path.read_bytes()).decode().splitlines()


def test_runs_are_made_anew_when_their_settings_or_files_change(folder: Path, tmp_path: Path) -> None:
    topics = pd.DataFrame(QUERIES.items(), columns=["qid", "query"])

    def has(spec: list[Any], of: pd.DataFrame = topics, dataset: str = "tiny") -> bool:
        return kept_runs.KeptRuns(tmp_path / "out", dataset, of).has("a", spec)

    spec = [{"run": "tiny/first.run.gz"}]
    runs = kept_runs.KeptRuns(tmp_path / "out", "tiny", topics)
    pipeline = runs.keeping("a", spec, [stages.StoredRun(read_run("tiny/first.run.gz"))])
    assert not has(spec)
    results = pipeline(topics)
    assert {qid: list(group["docno"]) for qid, group in results.groupby("qid")} == RUN
    assert has(spec)
    assert not has([*spec, {"cutoff": 1}])
    assert not has(spec, topics.head(1))
    assert not has(spec, dataset="other")
    (folder / "first.run.gz").write_bytes((folder / "first.run.gz").read_bytes() + b"\n")
    assert not has(spec)


def test_bm25_is_a_stage_and_flags_win_over_the_file(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyterrier_pisa")
    config = write(tmp_path / "e.yaml", dataset="tiny", systems={"BM25": ["bm25"]}, out="out")
    assert main(["experiment", "--config", config, "--out", "other", "--metrics", "RR@10", "P@1"]) == 0
    assert not Path("out").exists()
    table = pd.read_csv("other/table.csv")
    assert list(table.columns) == ["name", "RR@10", "P@1"]
    assert table["RR@10"][0] == 1  # each query shares its rarest words with its document


def test_the_documentation_is_a_dataset_and_a_plot_that_cannot_be_drawn_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyterrier_pisa")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "DocumentationDataset", lambda: DocumentationDataset(["more_itertools"]), raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    config = write(tmp_path / "e.yaml", dataset="documentation", systems={"BM25": ["bm25", {"cutoff": 10}]},
                   metrics=["RR@10"], out="out")  # fmt: skip
    assert main(["experiment", "--config", config]) == 0
    assert pd.read_csv("out/table.csv")["RR@10"][0] > 0.3
    assert "out/plot.png is not drawn: pip install 'pyterrier-lir[plots]'" in capsys.readouterr().err


def test_an_interrupted_experiment_keeps_what_has_finished(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Any, inp: pd.DataFrame) -> pd.DataFrame:
        if len(inp):
            raise KeyboardInterrupt
        return inp.assign(text="")

    systems = {"first": [{"run": "tiny/first.run.gz"}], "texts": [{"run": "tiny/second.run"}, "text"]}
    config = write(tmp_path / "e.yaml", dataset="tiny", systems=systems, metrics=["RR@10"], out="out")
    with monkeypatch.context() as patched:
        patched.setattr(stages.Texts, "transform", stopped)
        assert main(["experiment", "--config", config]) == 130
    assert "the same command takes them and goes on" in capsys.readouterr().err
    assert main(["experiment", "--config", config]) == 0
    assert capsys.readouterr().err.count("its run is there already") == 1


def test_the_readmes_file_names_stages_and_flags_that_there_are() -> None:
    import inspect
    import re

    from pyterrier_lir.commands.experiment import experiment

    readme = (Path(__file__).parents[1] / "README.md").read_text()
    block = re.search(r"```yaml\n# exp.yaml\n(.*?)```", readme, re.DOTALL)
    assert block
    values = yaml.safe_load(block[1])
    assert set(values) <= set(inspect.signature(experiment).parameters)
    for stage in chain.from_iterable(values["systems"].values()):
        name, settings = stages._read(stage, ())
        assert set(settings) <= set(inspect.signature(stages.STAGES[name]).parameters)


GOOD = {"dataset": "tiny", "systems": {"A": [{"run": "tiny/first.run.gz"}]}, "out": "out"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("dataset: tiny", "datset: tiny"), "line 1: unknown name 'datset'. Did you mean 'dataset'?"),
        (("- run:", "- rnu:"), "line 4: no stage 'rnu'. Did you mean 'run'?"),
        (("first.run.gz", "frist.run.gz"), "line 4: run: tiny/frist.run.gz: no such file."),
        (("- run: tiny/first.run.gz", "- run: {pth: x}"), "line 4: run: unknown name 'pth'. Did you mean 'path'?"),
        (("- run: tiny/first.run.gz", "- run: {path: tiny/first.run.gz, depth: two}"), "line 4: run: depth=two; allowed: int or null."),
        (("- run: tiny/first.run.gz", "- cutoff: 0"), "line 4: cutoff: k=0; allowed: a positive number."),
        (("- run: tiny/first.run.gz", "- 7"), "line 4: a stage is a name with its settings"),
        (("- run: tiny/first.run.gz", "- class_path: pyterrier.Nothing"), "line 4: class_path: no class 'pyterrier.Nothing'."),
        (("- run: tiny/first.run.gz", "- class_path: pathlib.Path"), "line 4: class_path: pathlib.Path makes a PosixPath"),
        (("- run: tiny/first.run.gz", "- text"), "line 3: A: "),
        (("- run: tiny/first.run.gz", "- retriever: {model: CROSS}"), "line 4: retriever: CROSS is a cross-encoder"),
        (("- run: tiny/first.run.gz", "- retriever: {model: SPARSE, index: x.lir}"), "holds dense vectors; those of SPARSE are sparse."),
        (("- run: tiny/first.run.gz", "- retriever: {model: DENSE, index: x.lir, engine: exat}"), "'exat'"),
        (("gz\n", "gz\n  - text\n  - reranker: {model: CROSS, precision: bf17}\n"), "line 6: reranker: precision=bf17; allowed: "),
        (("gz\n", "gz\n  - reranker: {model: CROSS}\n"), "line 3: A: "),
        (("out: out", "out: out\nmetrics: [RR@10, nDGC@10]"), "line 6: metrics: ir_measures knows no 'nDGC@10'; such as nDCG@10, RR@10, R@100, AP. Did you mean 'nDCG@10'?"),
        (("out: out", "out: out\nbaseline: B"), "line 6: baseline='B' is none of the systems: A."),
        (("out: out", "out: out\ncorrection: holm"), "line 6: correction='holm' needs a baseline."),
        (("out: out", "out: out\nalpha: high"), "line 6: alpha=high; allowed: float."),
        (("out: out", "out: out\nreuse: maybe"), "line 6: reuse=maybe; allowed: bool."),
        (("dataset: tiny", "dataset: tinny"), "line 1: dataset: 'tinny': no dataset, folder or file"),
        (("dataset: tiny", "dataset: unjudged"), "line 1: dataset: unjudged has no relevance judgements to measure by."),
        (("out: out\n", ""), "out is needed."),
        (("out: out", "out: [out"), "no valid YAML"),
    ],
)  # fmt: skip
def test_mistakes_in_the_file_are_told_with_their_line(
    folder: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], told: str
) -> None:
    text = yaml.safe_dump(GOOD, sort_keys=False)
    assert change[0] in text
    (tmp_path / "unjudged").mkdir()
    for name in ("corpus.jsonl.gz", "topics.tsv"):
        (tmp_path / "unjudged" / name).write_bytes((folder / name).read_bytes())
    for name, kind in (("CROSS", "bert-1"), ("SPARSE", "splade"), ("DENSE", "dense")):
        Path(name).symlink_to(tiny(kind))
    if "x.lir" in change[1]:
        from pyterrier_lir import LIRIndexer

        LIRIndexer("DENSE", "x.lir").index([{"docno": "d0", "text": "x"}])
    Path("e.yaml").write_text(text.replace(*change, 1))
    assert main(["experiment", "--config", "e.yaml"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("pyterrier-lir: ")
    assert told in said[-1]
    assert told.startswith(("out is", "no valid", "holds", "'exat'")) or "e.yaml, line " in said[-1]
    assert "Traceback" not in "".join(said)


@pytest.mark.shared
@pytest.mark.skipif(not shared_collections.DATA.is_dir(), reason="no ../shared/data")
def test_vaswani_with_its_stored_run_has_the_effectiveness_that_its_notes_say(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTERRIER_LIR_CACHE", str(tmp_path / "cache"))
    vaswani = shared_collections.DATA / "vaswani"
    first = {"run": str(vaswani / "runs" / "bm25.run.gz")}
    systems = {"BM25": [first], "BM25 >> mono": [first, {"cutoff": 5}, "text", {"reranker": {"model": tiny("bert-1")}}]}
    out = tmp_path / "out"
    config = write(tmp_path / "e.yaml", dataset=str(vaswani), systems=systems, metrics=["nDCG@10", "AP@100", "mrt"],
                   baseline="BM25", out=str(out))  # fmt: skip
    assert main(["experiment", "--config", config]) == 0
    table = pd.read_csv(out / "table.csv").set_index("name")
    assert table.loc["BM25", ["nDCG@10", "AP@100"]].tolist() == pytest.approx([0.467, 0.281], abs=5e-4)
    assert table.loc["BM25 >> mono", "mrt"] > table.loc["BM25", "mrt"]
    assert len(read_run(str(out / "runs" / f"{kept_runs.file_name('BM25 >> mono')}.run.gz"))) == 93 * 5
