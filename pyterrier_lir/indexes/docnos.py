"""docno <-> docid: the users' strings of a shard's documents, memory-mapped, found by hash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .arrays import map_array, write_array

Docids = NDArray[np.int64]


class Strings:
    """A list of strings on disk: all their bytes, and where each begins.

    Args:
        folder, name: `name.bytes.npy` and `name.offsets.npy` in the folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> Strings.write(folder, "docnos", ["a", "", "bcd"])
    >>> Strings(folder, "docnos")[np.array([2, 0])].tolist()
    ['bcd', 'a']
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._bytes, self._offsets = (map_array(folder / f"{name}.{part}.npy") for part in ("bytes", "offsets"))

    @staticmethod
    def write(folder: Path, name: str, strings: Sequence[str]) -> None:
        """Write strings to the two files."""
        encoded = [string.encode() for string in strings]
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in encoded], dtype=np.int64)])
        write_array(folder / f"{name}.bytes.npy", np.frombuffer(b"".join(encoded), dtype=np.uint8))
        write_array(folder / f"{name}.offsets.npy", offsets.astype(np.int64))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, rows: NDArray[Any]) -> NDArray[np.object_]:
        out = np.empty(len(rows), dtype=object)
        starts, stops = self._offsets[rows], self._offsets[np.asarray(rows) + 1]
        view = memoryview(cast("bytes", np.asarray(self._bytes)))  # slices of a mapped array cost ten times as much
        out[:] = [str(view[start:stop], "utf-8") for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        return out


class Docnos:
    """The docnos of one shard.

    Args:
        folder: of the shard.
    """

    def __init__(self, folder: Path) -> None:
        self.strings = Strings(folder, "docnos")
        self._hashes, self._rows = (map_array(folder / f"docnos.{part}.npy") for part in ("hashes", "rows"))

    @staticmethod
    def write(folder: Path, docnos: Sequence[str]) -> None:
        """Write docnos, and their hashes in rising order with the rows that they are of."""
        Strings.write(folder, "docnos", docnos)
        hashes = hash_of(docnos)
        order = np.argsort(hashes, kind="stable")
        write_array(folder / "docnos.hashes.npy", hashes[order])
        write_array(folder / "docnos.rows.npy", order.astype(np.int32))

    def __len__(self) -> int:
        return len(self.strings)

    def find(self, docnos: NDArray[np.object_], hashes: NDArray[np.uint64]) -> Docids:
        """The last rows (N,) of docnos with these hashes, -1 for those that are not here."""
        found = np.full(len(docnos), -1, dtype=np.int64)
        at = np.searchsorted(self._hashes, hashes, side="right") - 1
        open_rows = np.arange(len(docnos))
        while len(open_rows):  # again where another docno has the same hash
            inside = open_rows[at[open_rows] >= 0]
            inside = inside[self._hashes[at[inside]] == hashes[inside]]
            rows = self._rows[at[inside]]
            same = self.strings[rows] == docnos[inside]
            found[inside[same]] = rows[same]
            open_rows = inside[~same]
            at[open_rows] -= 1
        return found


def hash_of(docnos: Sequence[str] | NDArray[np.object_]) -> NDArray[np.uint64]:
    """Hashes (N,) that are the same on every machine."""
    array = np.asarray(docnos, dtype=object)
    return pd.util.hash_array(array, categorize=False) if len(array) else np.empty(0, dtype=np.uint64)


def as_names(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Strings as a tuple.

    Raises:
        TypeError: for one string, which would be taken for its letters, and for what is none.
    """
    if isinstance(names, str):
        raise TypeError(f"{what}={names!r}; allowed: several strings, such as [{names!r}].")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{what} has {name!r}, {type(name).__name__}; allowed: strings.")
    return found


def as_fields(names: Iterable[str] | str) -> tuple[str, ...]:
    """Names of stored fields as a tuple, one name alone too.

    Raises:
        TypeError: for what is no string.

    >>> as_fields("text"), as_fields(["text", "title"])
    (('text',), ('text', 'title'))
    """
    return as_names([names] if isinstance(names, str) else names, "include_fields")
