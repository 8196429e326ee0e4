"""Progress where there is no terminal: lines that a log can hold, one in ten seconds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partialmethod
from typing import Any, TextIO

SECONDS = 10.0  # between two lines


@contextlib.contextmanager
def plain_lines() -> Iterator[None]:
    """While this is open, bars of tqdm are lines, at most one in ten seconds; unchanged if stderr is a terminal."""
    if sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    init, printer = tqdm.__init__, tqdm.status_printer
    tqdm.__init__ = partialmethod(init, mininterval=SECONDS, ncols=80)
    tqdm.status_printer = staticmethod(_line_printer)
    try:
        yield
    finally:
        tqdm.__init__, tqdm.status_printer = init, staticmethod(printer)


def _line_printer(file: TextIO) -> Callable[[Any], None]:
    """What writes the states of a bar, each once, as lines of their own."""
    last = [""]

    def write(text: Any) -> None:
        line = str(text).strip()
        if line and line != last[0]:
            file.write(line + "\n")
            file.flush()
        last[0] = line

    return write
