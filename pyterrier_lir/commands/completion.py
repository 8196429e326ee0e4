"""What a shell completes commands, flags and their values by, through shtab."""

from __future__ import annotations

import argparse
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def completion(
    shell: str, summaries: Mapping[str, str], functions: Mapping[str, Callable[..., Any]], ready: Sequence[str]
) -> str:
    """The script that a shell reads.

    Args:
        shell: bash, zsh or tcsh.
        summaries: of all commands.
        functions: of those commands whose flags are parameters of a function.
        ready: names that `--config` takes beside files.

    Raises:
        ValueError: for another shell.
    """
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise ValueError(f"shell {shell!r}; allowed: {', '.join(shtab.SUPPORTED_SHELLS)}.")
    parser = argparse.ArgumentParser(prog="pyterrier-lir")
    commands = parser.add_subparsers()
    for name, summary in summaries.items():
        command = commands.add_parser(name, help=summary)
        command.add_argument("--debug", action="store_true")
        command.add_argument("--print_config", action="store_true")
        config = command.add_argument("--config", choices=None if name in functions or not ready else ready)
        config.complete = shtab.FILE  # type: ignore[attr-defined]
        if name in functions:
            _add_flags(command, functions[name], shtab.FILE)
    script: str = shtab.complete(parser, shell)
    return script


def _add_flags(command: argparse.ArgumentParser, function: Callable[..., Any], files: Any) -> None:
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        choices = [value for value in typing.get_args(hints[parameter.name]) if isinstance(value, str)] or None
        for flag in [f"--{parameter.name}", parameter.name][: 2 if parameter.kind is not parameter.KEYWORD_ONLY else 1]:
            many = {} if flag.startswith("--") else {"nargs": "*"}
            argument = command.add_argument(flag, choices=choices, default=None, **many)  # type: ignore[arg-type]
            argument.complete = files if choices is None else None  # type: ignore[attr-defined]
