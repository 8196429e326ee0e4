"""The study that compares with published numbers: its table fits the package, and its command tells what is not reproduced."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pyterrier_lir.indexes import configs
from pyterrier_lir.public_models import PUBLIC_MODELS
from pyterrier_lir.training.command_line import main
from tests.benchmarks import reproduce
from tests.local_dataset import write
from tests.test_training import quiet

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests
PAGE = Path(__file__).parents[1] / "notebooks" / "reproducibility.md"


def test_every_model_of_the_table_is_known_and_its_index_exists() -> None:
    known = {row.id for row in PUBLIC_MODELS}
    assert [row["model"] for row in reproduce.expected() if row["model"] not in known] == []
    for row in reproduce.expected(3):
        assert hasattr(configs, f"{row['index']}IndexConfig")
        assert hasattr(configs, f"{row['index']}SearchConfig")


def test_the_page_has_the_published_numbers_of_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    lines = [f"| {row['table']} | {row['name']} | `{row['model']}` | {row['trec-dl-2019']:.3f} | {row['trec-dl-2020']:.3f} |"
             for row in reproduce.expected()]  # fmt: skip
    assert [line for line in lines if line not in page] == []


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("mono-bert", {"table": 2, "kind": "cross"}),
        ("dense", {"table": 2, "kind": "bi"}),
        ("dense", {"table": 3, "index": "TorchDense"}),
        ("splade", {"table": 3, "index": "TorchSparse"}),
        ("col", {"table": 3, "index": "Plaid"}),
    ],
)
def test_a_row_is_measured_on_every_dataset(kind: str, row: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    write(tmp_path).register(f"local/{tmp_path.name}")
    dataset = f"local/{tmp_path.name}"
    [value] = reproduce.measured({**row, "model": tiny(kind)}, [dataset], dataset, tmp_path / "index")
    assert 0 < value <= 1


def test_numbers_that_are_not_reproduced_are_counted_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def measured(row: dict[str, Any], *_: Any) -> list[float]:
        if row["name"] == "ColBERT":
            raise OSError("no such model")
        return [row["trec-dl-2019"] + 0.004, row["trec-dl-2020"] - (0.006 if row["name"] == "SPLADE" else 0)]

    monkeypatch.setattr(reproduce, "measured", measured)
    assert reproduce.published(argparse.Namespace(table=2, out=str(tmp_path))) == 3  # two of ColBERT, one of SPLADE
    told = capsys.readouterr().out
    assert told.count("NOT REPRODUCED") == 1
    assert "table 2, ColBERT: no such model" in told
    assert "table 2, monoT5 3B, trec-dl-2020: 0.752, published 0.752: reproduced" in told


@pytest.mark.parametrize("kind", list(reproduce.KINDS))
def test_what_is_overridden_fits_the_ready_file(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = argparse.Namespace(out=tmp_path, model="a/backbone", steps=None)
    local = reproduce.local(kind, tmp_path / "train", arguments)
    path = tmp_path / "local.yaml"
    path.write_text(yaml.safe_dump(local), encoding="utf-8")
    with pytest.raises(SystemExit) as done:
        main("fit", ["--config", reproduce.READY[kind], "--config", str(path), "--print_config"])
    assert done.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    data, samples = printed["data"]["init_args"], printed["data"]["init_args"]["train_dataset"]["init_args"]
    assert printed["trainer"]["max_steps"] == reproduce.KINDS[kind]["steps"]
    assert (data["train_batch_size"], samples["sample_size"], samples["targets"]) == (
        reproduce.KINDS[kind]["queries"], reproduce.KINDS[kind]["docs"], "score" if kind == "cross" else "relevance",
    )  # fmt: skip
    assert (printed["model"]["init_args"]["config"] is None) == (kind == "splade")  # whose start has its own head
    assert printed["optimizer"]["init_args"]["lr"] == reproduce.KINDS[kind]["rate"]
    own = [loss["class_path"].rpartition(".")[2] for loss in printed["model"]["init_args"]["loss_functions"]]
    assert own == [loss["class_path"] for loss in reproduce.KINDS[kind].get("losses", [{"class_path": "RankNet"}])]


def test_first_stages_are_measured_with_the_judgements_of_the_passages_that_are_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    qids = [str(i) for i in range(8)]
    topics = pd.DataFrame({"qid": qids, "query": "a query"})
    here = pd.DataFrame({"qid": qids, "docno": "good", "label": 1})
    monkeypatch.setattr(reproduce.shared, "topics", lambda name: topics)
    monkeypatch.setattr(
        reproduce.shared, "qrels",
        lambda name, file: here if file == "qrels.txt" else pd.concat([here, here.assign(docno="elsewhere")]),
    )  # fmt: skip

    def run(found: int) -> pd.DataFrame:
        """A run that finds the good document for so many of the queries."""
        docnos = ["good" if i < found else "bad" for i in range(len(qids))]
        return pd.DataFrame({"qid": qids, "docno": docnos, "score": 1.0, "rank": 0})

    runs = {"BM25": run(1), "BM25 >> start": run(1), "start": run(7), "BM25 >> dense": run(7), "dense": run(1)}
    whole = 1 / (1 + 0.6309297535714575)  # the ideal has a second document, that nobody can find
    assert reproduce.table("trec-dl-2019", runs, "start").to_dict() == {
        "BM25": f"{whole / 8:.3f}", "BM25 >> start": f"{whole / 8:.3f}", "BM25 >> dense": f"{whole * 7 / 8:.3f}*+",
        "start": "0.875*", "dense": "0.125+",
    }  # fmt: skip
