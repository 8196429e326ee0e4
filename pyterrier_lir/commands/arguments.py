"""A function's signature and docstring as a command's flags, read by jsonargparse.

Parameters before the `*` may be given without their flags.  A flag of a list takes all words behind it, one that
switches something on needs none, and dashes in its name are underscores.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Union

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from .config_errors import ConfigError, diagnose, did_you_mean, explain, locate

Function = Callable[..., None]
_OWN = ("config", "print_config", "help", "debug")  # flags of every command


class _Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Descriptions as they are written, with the YAML in them."""


def run(name: str, function: Function, words: Sequence[str]) -> None:
    """Call a command's function with what the words and the files of `--config` say.

    Raises:
        ValueError: for unknown flags and keys (with file, line and the nearest name), and values of another type.
    """
    words = spread(function, words)
    parser = parser_of(name, function)
    flags = _flags(words)
    files = [Path(word) for flag, word in flags if flag == "config"]
    given = {flag for flag, _ in flags}  # what the line says does not come from a file
    try:
        values: dict[str, Any] = parser.parse_args(words).as_dict()
    except ArgumentError as error:
        known = [*inspect.signature(function).parameters, *_OWN]
        keys = diagnose(str(error), known)[1]
        raise ValueError(explain(str(error), [] if given & set(keys[:1]) else files, known)) from error
    values.pop("config")
    try:
        function(**values)
    except ConfigError as error:
        raise ValueError(locate(error, [] if given & set(error.keys[:1]) else files)) from error


def parser_of(name: str, function: Function) -> ArgumentParser:
    """The parser of a command, `--config` and `--print_config` included."""
    text = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:")[0].partition("\nRaises:")[0]
    first = " ".join(
        f"[{p.name.upper()}]" if p.default is not p.empty else p.name.upper() for p in _positional(function)
    )
    parser = ArgumentParser(
        prog=f"pyterrier-lir {name}",
        usage=" ".join(f"pyterrier-lir {name} {first} [--FLAG VALUE ...]".split()),
        description=text.strip(),
        epilog="--debug shows where an error came from.",
        formatter_class=_Formatter,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file of flags; those behind it on the line win.")
    parser.add_function_arguments(_resolved(function), as_group=False)
    return parser


def _resolved(function: Function) -> Function:
    """The function with types instead of their names: to find these, jsonargparse would import all that
    `if TYPE_CHECKING` of its module guards.
    """
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__doc__, copy.__module__ = function.__kwdefaults__, function.__doc__, __name__
    copy.__annotations__ = typing.get_type_hints(function)
    return copy


def checked(function: Function, settings: dict[str, Any], skip: Sequence[str] = ()) -> dict[str, Any]:
    """A function's arguments from part of a YAML file, their types checked, with its defaults.

    Raises:
        ConfigError: with the keys below `settings`, for unknown names and values of another type.

    >>> def cutoff(k: int) -> None: ...
    >>> checked(cutoff, {"k": 3})
    {'k': 3}
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(_resolved(function), as_group=False, skip=set(skip))
    try:
        values: dict[str, Any] = parser.parse_object(settings).as_dict()
    except ArgumentError as error:
        known = [name for name in inspect.signature(function).parameters if name not in skip]
        raise ConfigError(*diagnose(str(error), known)) from error
    return values


def spread(function: Function, words: Sequence[str]) -> list[str]:
    """The words with a flag before each value, as jsonargparse reads them.

    >>> def merge(parts: list[str], *, out: str, verbose: bool = False) -> None: ...
    >>> spread(merge, ["a", "b", "--verbose", "--out", "c"])
    ['--parts=["a", "b"]', '--verbose=true', '--out=c']

    Raises:
        ValueError: for a word that no parameter takes.
    """
    kinds = {name: _kind(hint) for name, hint in typing.get_type_hints(function).items()}
    free: list[str] = []
    flags: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            if word == "-h":
                flags.append("--help")
            else:
                free.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        kind = kinds.get(name.removesuffix("+"))
        if equals:
            taken = [value]
        elif name in ("help", "print_config", "debug"):
            flags.append(f"--{name}")
            continue
        elif kind is bool:
            taken = [queue.pop(0) if queue and queue[0].lower() in ("true", "false") else "true"]
        else:
            taken = _take(queue, many=kind is list and not name.endswith("+"))
        flags.append(f"--{name}={_joined(taken, kind)}" if taken else f"--{name}")
    return [*_placed(function, kinds, free), *flags]


def _take(queue: list[str], many: bool) -> list[str]:
    taken: list[str] = []
    while queue and not queue[0].startswith("--") and (many or not taken):
        taken.append(queue.pop(0))
    return taken


def _joined(values: list[str], kind: Any) -> str:
    if kind is list and not (len(values) == 1 and values[0].startswith("[")):
        return json.dumps(values, ensure_ascii=False)
    return values[0]


def _placed(function: Function, kinds: dict[str, Any], free: list[str]) -> list[str]:
    """Words without a flag, each with that of its parameter; a list takes all of them."""
    names = [parameter.name for parameter in _positional(function)]
    if free and names and kinds[names[0]] is list:
        return [f"--{names[0]}={_joined(free, list)}"]
    if len(free) > len(names):
        flags = inspect.signature(function).parameters
        raise ValueError(
            f"unexpected {free[len(names)]!r}.{did_you_mean('--' + free[len(names)], [f'--{f}' for f in flags])}"
        )
    return [f"--{name}={word}" for name, word in zip(names, free, strict=False)]


def _positional(function: Function) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


def _kind(hint: Any) -> Any:
    """`list` for lists, `bool` for switches, else something else; of an optional type, that of its value."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in typing.get_args(hint) if one is not types.NoneType)
    return list if typing.get_origin(hint) in (list, tuple) else hint


def _flags(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(name[2:], value) for name, _, value in (word.partition("=") for word in words) if name.startswith("--")]
