"""`pyterrier-lir merge`: parts of an index into one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_PART = re.compile(r"^(.*)\.part-(\d+)-of-(\d+)$")


def merge(parts: list[str], *, out: str) -> None:
    """Join indexes that were built apart, by the same model, without encoding anything.

    Args:
        parts: their folders, such as x.lir.part-*-of-4; documents come in this order.
        out: folder of the new index.
    """
    refuse_missing_parts(parts)

    from ..indexes import open_index

    opened = [open_index(part) for part in parts]
    first = opened[0]
    for one in opened[1:]:
        if type(one) is not type(first):
            raise ValueError(
                f"{one.path} holds {one.KIND} vectors and {first.path} {first.KIND} ones: these do not join."
            )
    joined = type(first).merge(opened, out)
    print(f"{len(joined):,} documents of {len(parts)} parts -> {out}", file=sys.stderr)


def refuse_missing_parts(parts: list[str]) -> None:
    """Check that of folders named NAME.part-i-of-n there are all n, each once.

    Raises:
        FileNotFoundError: naming those that are missing.
        ValueError: for no parts, and a part that is given twice.

    >>> refuse_missing_parts(["x.lir.part-0-of-2", "x.lir.part-1-of-2"])
    """
    if not parts:
        raise ValueError("merge needs the folders of at least one part.")
    if twice := [part for part in parts if parts.count(part) > 1]:
        raise ValueError(f"{twice[0]} is given twice.")
    named = [match for part in parts if (match := _PART.match(str(Path(part))))]
    for match in named:
        name, count = match[1], int(match[3])
        there = {int(one[2]) for one in named if one[1] == name and int(one[3]) == count}
        if missing := sorted(set(range(count)) - there):
            told = ", ".join(f"{name}.part-{i}-of-{count}" for i in missing)
            raise FileNotFoundError(f"Not given: {told}; an index of fewer parts lacks every {count}th document.")
