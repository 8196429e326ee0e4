"""Progress where there is no terminal: lines that a log can hold, one in ten seconds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partialmethod

SECONDS = 10.0  # between two lines


@contextlib.contextmanager
def plain_lines() -> Iterator[None]:
    """While this is open, bars of tqdm are lines, at most one in ten seconds; unchanged if stderr is a terminal."""
    if sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    init = tqdm.__init__
    tqdm.__init__ = partialmethod(init, file=_Lines(), mininterval=SECONDS, ncols=80)
    try:
        yield
    finally:
        tqdm.__init__ = init


class _Lines:
    """What bars write to: each state is a line on stderr of its own, without what moves a cursor."""

    encoding = "utf-8"
    last = ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self.last:
            print(line, file=sys.stderr, flush=True)
        self.last = line or self.last

    def flush(self) -> None:
        """Nothing: lines are written at once."""
