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
        shell: bash, zsh, or another that shtab knows.
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
        choices = _choices(hints[parameter.name]) or None
        for flag in [f"--{parameter.name}", parameter.name][: 2 if parameter.kind is not parameter.KEYWORD_ONLY else 1]:
            many = {} if flag.startswith("--") else {"nargs": "*"}
            argument = command.add_argument(flag, choices=choices, default=None, **many)  # type: ignore[arg-type]
            if choices is None:
                argument.complete = files  # type: ignore[attr-defined]


def _choices(hint: Any) -> list[str]:
    """The values of a Literal, also of one in an optional type or a list.

    >>> _choices(typing.Optional[typing.Literal["a", "b"]])
    ['a', 'b']
    """
    if isinstance(hint, str):
        return [hint]
    return [value for part in typing.get_args(hint) for value in _choices(part)]
