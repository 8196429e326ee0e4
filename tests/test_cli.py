"""The command line answers quickly, runs the main job, and says in one line what is wrong."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from pyterrier_lir import cli, demo
from pyterrier_lir.cli import main
from pyterrier_lir.commands import arguments, config_errors
from pyterrier_lir.data import documentation
from tests.tiny_collection import write_collection

COMMAND = [sys.executable, "-m", "pyterrier_lir"]
HEAVY = {"torch", "transformers", "pyterrier", "lightning"}
OURS = {name: place.partition(":")[0] for name, (place, _) in cli.COMMANDS.items()}


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_answers_without_loading_torch_or_another_command(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pyterrier_lir", *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: pyterrier-lir")
    times = [
        line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:") and "cumul" not in line
    ]
    loaded = {line[-1].strip() for line in times}
    assert not loaded & HEAVY
    others = {f"pyterrier_lir.{module}" for name, module in OURS.items() if name not in words}
    mine = {f"pyterrier_lir.{OURS[words[0]]}"} if words[0] in OURS else set()
    needed = {"pyterrier_lir.commands.evaluate"} if words[0] == "experiment" else set()  # for its type of corrections
    assert not loaded & (others - mine - needed)
    # the processor's own time, which other work on the machine does not lengthen much
    seconds = _processor_seconds([*COMMAND, *words])
    assert seconds < 1.5


def _processor_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


YAML = """\
# a comment
model: DENSE
batch_size: many
"""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("dance", "no command 'dance'. There are: fit, index, search, re_rank, experiment,"),
        ("encod x", "no command 'encod'. Did you mean 'encode'?"),
        ("demo --queries 0", "queries=0"),
        ("demo --queries three", "queries=three; allowed: int."),
        ("demo --quieries 3", "unknown flag --quieries. Did you mean '--queries'?"),
        ("demo --queries 2 --model no/such-model", "'no/such-model' is no folder here"),
        ("encode", "model is needed."),
        ("encode DENSE", "--out"),
        ("encode DENSE no.tsv", "'no.tsv': no dataset, folder or file"),
        ("encode no/such-model texts.tsv", "'no/such-model' is no folder here"),
        ("encode CROSS texts.tsv", "CROSS is a cross-encoder: it reads query and document together"),
        ("encode DENSE texts.tsv x.npy", "unexpected 'x.npy'."),
        ("encode DENSE texts.tsv --out x.txt", "allowed: names that end in .npy, .npz, .parquet, .jsonl"),
        ("encode SPARSE texts.tsv --out x.npy", "SPARSE makes sparse vectors"),
        ("encode DENSE texts.tsv --out there.npy", "there.npy is there already; choose --mode overwrite"),
        ("encode DENSE texts.tsv --side dok", "side=dok; allowed: 'doc', 'query'. Did you mean 'doc'?"),
        ("encode DENSE texts.tsv --shard 2/2", "shard='2/2'; allowed: i/n"),
        ("encode DENSE texts.tsv --shard rank", "this process was not started by torchrun or SLURM"),
        ("encode DENSE texts.tsv --precision fp16", "precision='fp16' is for GPUs"),
        ("encode DENSE texts.tsv --batch-size 0", "batch_size=0"),
        ("encode DENSE --config wrong.yaml", "wrong.yaml, line 3: batch_size=many; allowed: int or null."),
        ("encode DENSE --config misspelt.yaml", "misspelt.yaml, line 2: unknown name 'modell'. Did you mean 'model'?"),
        ("encode DENSE --config missing.yaml", "missing.yaml: no such file."),
        ("merge --out x.lir", "parts is needed."),
        ("merge DENSE other --out x.lir", "DENSE is no index: it has no pt_meta.json."),
        ("info nothing/at/all", "No checkpoint folder at 'nothing/at/all'"),
        ("info empty", "empty is a checkpoint of no known format."),
        ("models sparce", "Did you mean 'sparse'?"),
        ("evaluate no.run --qrels tiny", "no.run: no such file."),
        ("evaluate tiny/first.run.gz --qrels no-qrels", "'no-qrels': no dataset, folder or file"),
        ("evaluate tiny/first.run.gz --qrels empty", "empty has no relevance judgements to measure by."),
        ("evaluate tiny/first.run.gz --qrels tiny --measures nDCG@10 nDGC@10", "ir_measures knows no 'nDGC@10'; such as nDCG@10, RR@10, R@100, AP. Did you mean 'nDCG@10'?"),
        ("evaluate tiny/first.run.gz --qrels tiny --measures mrt", "a run file does not say how long"),
        ("evaluate tiny/first.run.gz --qrels tiny --correction holm", "needs --baseline"),
        ("evaluate tiny/first.run.gz --qrels tiny --baseline frist", "Did you mean 'first'?"),
        ("convert DENSE empty/../DENSE", "is not empty"),
        ("convert DENSE new --to onnx", "to=onnx; allowed: 'sentence-transformers', 'lightning-ir', 'pyterrier-lir'."),
        ("--print-completion csh", "shell 'csh'; allowed: bash, "),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_exit_code_two(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: str, told: str,
) -> None:  # fmt: skip
    if words.startswith("demo") and importlib.util.find_spec("pyterrier_pisa") is None:
        pytest.skip("pyterrier_pisa is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTERRIER_LIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("a text\n"))
    write_collection(tmp_path / "tiny")
    Path("texts.tsv").write_text("d1\ta text\n")
    Path("there.npy").touch()
    Path("empty").mkdir()
    Path("wrong.yaml").write_text(YAML)
    Path("misspelt.yaml").write_text(YAML.replace("model", "modell").replace("many", "8"))
    for name, kind in (("CROSS", "bert-1"), ("SPARSE", "splade"), ("DENSE", "dense")):
        Path(name).symlink_to(tiny(kind))
    capsys.readouterr()
    if words == "encode DENSE":
        assert main(words.split()) == 0  # of standard input
        return
    assert main(words.split()) == 2
    said = capsys.readouterr().err.strip().splitlines()
    tried = [line for line in said if line.startswith("  ")]  # of a folder that no format is: one for each, at the end
    assert (tried[:1] == ["  pyterrier_lir: no pyterrier_lir.json"]) == (words == "info empty")
    last = said[-1 - len(tried)]
    assert last.startswith("pyterrier-lir: ")
    assert told in last
    assert "Traceback" not in "".join(said)


def test_debug_shows_where_an_error_came_from_before_or_behind_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--debug", "demo", "--queries", "0"], ["demo", "--queries", "0", "--debug"]):
        with pytest.raises(ValueError, match="queries=0"):
            main(words)


def test_exit_codes_tell_failures_from_mistakes_and_interruptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(error: BaseException) -> tuple[int, str]:
        def fails(*, seconds: int = 1) -> None:
            """Fail."""
            raise error

        monkeypatch.setattr(cli, "function_of", lambda name: fails)
        return main(["info"]), capsys.readouterr().err

    assert ends(RuntimeError("no\nmemory")) == (1, "pyterrier-lir: RuntimeError: no memory (--debug shows where)\n")
    assert ends(ValueError("no such\nthing")) == (2, "pyterrier-lir: no such thing\n")
    assert ends(KeyError("no column")) == (2, "pyterrier-lir: no column\n")
    assert ends(KeyboardInterrupt("Go on.")) == (130, "pyterrier-lir: interrupted. Go on.\n")
    assert ends(BrokenPipeError())[0] == 0


def test_commands_of_the_trainer_get_their_words_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[object] = []
    monkeypatch.setattr(cli, "function_of", lambda name: lambda *given: got.append(given))
    assert main(["fit", "--debug", "--config", "splade", "--trainer.max_steps=3"]) == 0
    assert got == [("fit", ["--config", "splade", "--trainer.max_steps=3"])]


def test_files_and_flags_become_arguments_and_print_config_prints_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[dict[str, object]] = []

    def command(
        names: list[str], more: str = "-", *, side: Literal["a", "b"] = "a", size: int | None = None, fast: bool = False,
        tags: tuple[str, ...] = ("x",),
    ) -> None:  # fmt: skip
        """Do."""
        got.append({"names": names, "side": side, "size": size, "fast": fast, "tags": tags})

    command.__annotations__ = {"names": list[str], "more": str, "side": Literal["a", "b"], "size": int | None, "fast": bool,
                               "tags": tuple[str, ...], "return": None}  # fmt: skip
    monkeypatch.setattr(cli, "function_of", lambda name: command)
    path = tmp_path / "c.yaml"
    path.write_text("names: [n]\nsize: 3\ntags: [u, v]\n")
    assert main(["info", "--config", str(path), "--size", "4", "--fast"]) == 0
    assert main(["info", "a", "b,c", "--side", "b", "--fast", "false", "--tags", "t"]) == 0
    assert got[0] == {"names": ["n"], "side": "a", "size": 4, "fast": True, "tags": ("u", "v")}
    assert got[1] == {"names": ["a", "b,c"], "side": "b", "size": None, "fast": False, "tags": ("t",)}
    assert main(["info", "--config", str(path), "--print_config"]) == 0
    assert capsys.readouterr().out == "names:\n- n\nmore: '-'\nside: a\nsize: 3\nfast: false\ntags:\n- u\n- v\n"


def test_errors_inside_classes_name_file_line_and_the_nearest_setting(tmp_path: Path) -> None:
    """As LightningCLI has them: class_path and init_args, below groups."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Trainer, "trainer")
    path = tmp_path / "c.yaml"
    known = ["trainer.max_steps", "trainer.callbacks", "trainer.precision"]

    def told(text: str) -> str:
        path.write_text(text)
        with pytest.raises(ArgumentError) as caught:
            parser.parse_args(["--config", str(path)])
        return config_errors.explain(str(caught.value), [path], known).replace(str(path), "c.yaml")

    here = f"{__name__}.Callback"
    assert (
        told("trainer:\n  max_stepz: 3\n")
        == "c.yaml, line 2: unknown name 'trainer.max_stepz'. Did you mean 'max_steps'?"
    )
    assert told("\ntraner:\n  max_steps: 3\n") == "c.yaml, line 2: unknown name 'traner'. Did you mean 'trainer'?"
    assert told("trainer:\n  max_steps: x\n") == "c.yaml, line 2: trainer.max_steps=x; allowed: int."
    inside = f"trainer:\n  callbacks:\n  - class_path: {here}\n    init_args:\n      every: 1\n      paht: x\n"
    assert told(inside) == "c.yaml, line 6: unknown name 'paht'. Did you mean 'path'?"
    assert told(inside.replace("paht", "path").replace("every: 1", "every: x")).startswith(
        "c.yaml, line 5: every=x; allowed: int."
    )


class Callback:
    def __init__(self, path: str = "", every: int = 1) -> None: ...


class Trainer:
    def __init__(self, max_steps: int = 3, callbacks: list[Callback] | None = None, precision: int = 32) -> None: ...


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_flags_and_values(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*cli.COMMANDS, "--correction", "overwrite", "sentence-transformers"):
        assert word in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_table_of_commands_and_their_help_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    usage = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in usage
        assert command.summary in usage
        if name not in ("fit", "index", "search", "re_rank"):
            function = cli.function_of(name)
            documented = set(re.findall(r"^ {8}(\w+): ", function.__doc__ or "", re.MULTILINE))
            assert documented == set(arguments.inspect.signature(function).parameters)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


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
