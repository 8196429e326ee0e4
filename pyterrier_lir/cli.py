"""`pyterrier-lir COMMAND`: one table from a command's name to the function that does it.

Flags, types and help come from the function's signature and docstring.  Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

# command -> where its function lives; these modules import what is heavy in their functions, so --help answers at once
COMMANDS = {"demo": "demo:demo"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors of usage are one line, with `--debug` a traceback.

    >>> main(["demo", "--depth", "0"])
    2
    """
    parser = argparse.ArgumentParser(prog="pyterrier-lir", description="Neural retrieval models for PyTerrier.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    functions = {name: _function(place) for name, place in COMMANDS.items()}
    for name, function in functions.items():
        _add_command(commands, name, function)
    options = vars(parser.parse_args(argv))
    debug, function = options.pop("debug"), functions[options.pop("command")]
    try:
        function(**options)
    except (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError) as error:
        if debug:
            raise
        print(f"pyterrier-lir: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pyterrier-lir: interrupted", file=sys.stderr)
        return 1
    return 0


def _function(place: str) -> Callable[..., None]:
    module, _, name = place.partition(":")
    function: Callable[..., None] = getattr(import_module(f"{__package__}.{module}"), name)
    return function


def _add_command(commands: Any, name: str, function: Callable[..., None]) -> None:
    """A sub-command with a flag for each of the function's arguments."""
    summary, _, details = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
    description, _, arguments = details.partition("Args:\n")
    helps = dict(re.findall(r"^ {4}(\w+): (.+)$", arguments, flags=re.MULTILINE))
    command = commands.add_parser(name, help=summary, description=f"{summary} {description}")
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        kinds = [
            k for k in typing.get_args(hints[parameter.name]) or (hints[parameter.name],) if k is not types.NoneType
        ]
        command.add_argument(
            f"--{parameter.name.replace('_', '-')}",
            type=kinds[0],
            default=parameter.default,
            help=f"{helps[parameter.name]} (default: {parameter.default})",
        )
    command.add_argument("--debug", action="store_true", help="show where an error came from")
