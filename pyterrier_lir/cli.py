"""`pyterrier-lir COMMAND`: one table from a command's name to the function that does it.

Flags, types and help come from the function's signature and docstring.  Exit codes: 0 done, 1 failed, 2 wrong usage or
a mistake in what was given, 130 interrupted.  Errors are one line on stderr, and one for
each thing that was tried; `--debug` shows where they came from.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple


class Command(NamedTuple):
    """Where a command's function is (module:function in this package), and what it does."""

    place: str
    summary: str


_LIGHTNING = "training.command_line:main"  # called with the command's name and its words
# The modules import what is heavy in their functions, so that --help answers at once.
COMMANDS = {
    "fit": Command(_LIGHTNING, "fine-tune a model"),
    "index": Command(_LIGHTNING, "encode documents into an index"),
    "search": Command(_LIGHTNING, "find documents for queries"),
    "re_rank": Command(_LIGHTNING, "re-rank the documents of a run"),
    "experiment": Command("commands.experiment:experiment", "compare systems as a YAML file says"),
    "evaluate": Command("commands.evaluate:evaluate", "measure runs by relevance judgements, with significance"),
    "encode": Command("commands.encode:encode", "texts into vectors: .npy, .npz, .parquet or JSON lines"),
    "merge": Command("commands.merge:merge", "join the parts of an index"),
    "info": Command("commands.info:info", "what a checkpoint or an index is"),
    "models": Command("commands.models:models", "public checkpoints that are known to load"),
    "convert": Command("commands.convert:convert", "write a checkpoint in the form of another library"),
    "demo": Command("demo:demo", "re-rank BM25's results on real text that is on this machine"),
}
MISTAKES = (ValueError, TypeError, KeyError, ImportError, FileNotFoundError, FileExistsError, NotADirectoryError,
            IsADirectoryError, PermissionError)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    >>> main(["demo", "--depth", "0"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        _run([word for word in words if word != "--debug"])
    except SystemExit as stop:  # of --help and --print_config
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        return _say(f"interrupted. {stop}".strip(), 130)
    except BrokenPipeError:  # who read the output has seen enough
        with contextlib.suppress(OSError, ValueError):  # what is left in the buffer goes nowhere, without a complaint
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MISTAKES as error:
        if debug:
            raise
        return _say(str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error), 2)
    except Exception as error:
        if debug:
            raise
        return _say(f"{type(error).__name__}: {error} (--debug shows where)", 1)
    return 0


def _say(message: str, code: int) -> int:
    told = re.sub(r"\s*\n(?!  \S)\s*", " ", message.strip())  # indented lines are a list, and stay lines
    print(f"pyterrier-lir: {told}", file=sys.stderr, flush=True)
    return code


def _run(words: list[str]) -> None:
    first, rest = (words[0], words[1:]) if words else ("--help", [])
    if first in ("--help", "-h"):
        print(_usage())
    elif first == "--version":
        from importlib.metadata import version

        print(version("pyterrier-lir"))
    elif first.partition("=")[0] in ("--print-completion", "--print_completion"):
        _print_completion([*first.split("=", 1)[1:], *rest])
    else:
        _run_command(first, rest)


def _run_command(name: str, words: list[str]) -> None:
    if name not in COMMANDS:
        from .commands.config_errors import did_you_mean

        raise ValueError(f"no command {name!r}.{did_you_mean(name, COMMANDS)} There are: {', '.join(COMMANDS)}.")
    place = COMMANDS[name].place
    if place == _LIGHTNING:
        if {"--help", "-h"} & set(words) or not words:
            from .commands.lightning_help import help_of

            print(help_of(name, COMMANDS[name].summary))
            return
        _run_lightning(name, words)
        return
    from .commands import arguments
    from .commands.progress import plain_lines

    with plain_lines(), _terminated_as_interrupted():
        arguments.run(name, function_of(name), words)


def _run_lightning(name: str, words: list[str]) -> None:
    """Run a command of LightningCLI, whose errors are explained as those of the others."""
    from jsonargparse import ArgumentError

    try:
        function_of(name)(name, words)
    except ArgumentError as error:
        from .commands.config_errors import explain
        from .training import command_line

        given = [Path(word.rpartition("=")[2]) for word in command_line.with_ready_files(name, words)]
        files = [path for path in given if path.is_file()]
        message = re.sub(r"Subcommand '\w+' does not accept option '(.+?)'", r"Option '\1' is not accepted", str(error))
        raise ValueError(explain(message, files, command_line.names())) from None


def function_of(name: str) -> Callable[..., Any]:
    """The function of a command; its module, and no other command's, is imported."""
    module, _, function = COMMANDS[name].place.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), function)
    return found


def _usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pyterrier-lir COMMAND [--config FILE] [--FLAG VALUE ...]",
            "\nNeural retrieval models for PyTerrier.\n",
            *lines,
            "\npyterrier-lir COMMAND --help says more.  --debug shows where an error came from; --version; "
            "--print-completion\nbash|zsh prints what the shell completes commands by.",
            "Exit codes: 0 done, 1 failed, 2 wrong usage or a mistake in what was given, 130 interrupted.",
        ]
    )


def _print_completion(words: list[str]) -> None:
    from .commands.completion import completion

    if len(words) != 1:
        raise ValueError("--print-completion takes one word: such as bash or zsh.")
    functions = {name: function_of(name) for name, command in COMMANDS.items() if command.place != _LIGHTNING}
    ready = sorted(path.stem for path in (Path(__file__).parent / "configs").glob("**/*.yaml"))
    print(completion(words[0], {name: command.summary for name, command in COMMANDS.items()}, functions, ready))


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """While this is open, SIGTERM stops a command as Control-C does, so that it can close its files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
