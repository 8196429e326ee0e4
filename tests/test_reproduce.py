"""The study that compares with published numbers: its table fits the package, and its command tells what is not reproduced."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyterrier_lir.indexes import configs
from pyterrier_lir.public_models import PUBLIC_MODELS
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
