"""The notebooks are run from their first cell to their last, and what is committed of them is small and clean."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
MACHINE_PATH = re.compile(r"/(?:tmp|work|home|root|Users|usr|opt|private)/|site-packages|[A-Z]:\\\\Users")
ADDRESS = re.compile(r"0x[0-9a-f]{8,}")  # of an object in memory
OWN_FOLDER = "os.chdir(tempfile.mkdtemp())"
WRITING = re.compile(r"mkdir|write_|save_|copytree|\.(?:index|indexer|fit)\(")
ELSEWHERE = re.compile(r"chdir|rmtree|\.home\(|expanduser|\.resolve\(|\.absolute\(|\.parents?\b|[\"'](?:/|~|\.\.)")


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def failures(notebook: Any) -> list[str]:
    return [f"{out.ename}: {out.evalue}" for cell in code_cells(notebook) for out in cell.outputs
            if out.output_type == "error"]  # fmt: skip


def written(path: Path) -> str:
    """What a person reads in a notebook: sources and outputs, without the bytes of pictures."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts.append(cell.source)
        for out in cell.get("outputs", []):
            data = {kind: text for kind, text in out.get("data", {}).items() if not kind.startswith("image/")}
            parts += [str(out.get("text", "")), str(data)]
    return "\n".join(parts)


def test_there_are_notebooks_and_the_readme_names_each() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in readme] == []


@each_notebook
def test_outputs_are_committed_whole_and_without_errors(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # one run, in order
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) / 2
    assert failures(notebook) == []
    kinds = {kind for cell in cells for out in cell.outputs for kind in out.get("data", {})}
    assert {"image/png", "text/html"} <= kinds


@each_notebook
def test_notebooks_are_small_and_show_no_machine(path: Path) -> None:
    assert path.stat().st_size < 300_000
    text = written(path)
    assert MACHINE_PATH.findall(text) == []
    assert ADDRESS.findall(text) == []
    assert "it/s]" not in text  # progress bars


@each_notebook
def test_the_first_cell_has_the_switch_to_the_hub(path: Path) -> None:
    first = code_cells(nbformat.read(path, as_version=4))[0].source
    assert re.match(r"HUB = False\b", first)
    assert "if HUB:" in first


@each_notebook
def test_what_is_written_goes_to_a_folder_of_the_notebook_itself(path: Path) -> None:
    cells = [cell.source for cell in code_cells(nbformat.read(path, as_version=4))]
    before, found, after = cells[0].partition(OWN_FOLDER)
    assert found
    assert WRITING.findall(before) == []
    assert [ELSEWHERE.findall(part) for part in (before, after, *cells[1:])] == [[]] * (len(cells) + 1)


@pytest.mark.notebooks
@each_notebook
def test_notebooks_run_without_the_web(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    shutil.copy(path, tmp_path)
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises CellExecutionError at the first cell that fails
    assert failures(notebook) == []
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
