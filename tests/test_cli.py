"""The command line answers quickly, runs the main job, and says in one line what is wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pyterrier_lir import cli, demo
from pyterrier_lir.data import documentation

COMMAND = [sys.executable, "-m", "pyterrier_lir"]


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_answers_without_loading_torch(arguments: list[str]) -> None:
    start = time.perf_counter()
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    assert done.stdout.startswith("usage: pyterrier-lir")
    assert seconds < 10  # 0.4 s on an idle machine; importing torch and transformers alone takes longer when it is busy
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pyterrier_lir", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rsplit("|", 1)[-1].strip() for line in traced.stderr.splitlines()}
    assert not loaded & {"torch", "transformers", "pyterrier", "lightning"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--queries", "0"], "queries=0"),
        (["demo", "--queries", "2", "--model", "no/such-model"], "'no/such-model' is no folder here"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(arguments: list[str], message: str) -> None:
    if importlib.util.find_spec("pyterrier_pisa") is None:
        pytest.skip("pyterrier_pisa is not installed")
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run([*COMMAND, "dance"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'dance'" in done.stderr


def test_missing_packages_come_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pyterrier-lir\[demo\]'"):
        demo.require("pyterrier_pisa", "BM25")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pyterrier-lir\[demo\]'"):
        demo.resolve(demo.MINILM)


def test_the_demo_prints_a_table_and_three_examples(
    tiny: Callable[[str], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyterrier_pisa")

    class Small(documentation.DocumentationDataset):
        def __init__(self) -> None:
            super().__init__(["more_itertools", "jinja2"])

    monkeypatch.setattr(demo, "DocumentationDataset", Small)
    demo.demo(model=tiny("dense"), queries=5, depth=10)
    printed = capsys.readouterr().out
    table = [line.split() for line in printed.splitlines() if line.split()[:1] in (["name"], ["BM25"])]
    assert table[0] == ["name", "nDCG@10", "RR@10", "ms/query"]
    assert len(table) == 3
    assert printed.count("Query: ") == 3
    assert printed.count("  re-ranked: ") == 3
    demo.demo(model=tiny("dense"), queries=5, depth=10)
    again_printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Query: ")]
    assert again_printed == [line for line in printed.splitlines() if line.startswith("Query: ")]
