"""Texts by id: in memory, or on disk and read where they are needed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import Self

CHUNK = 65_536


class Texts(Mapping[str, str]):
    """Texts by id, in an order: what documents and queries are looked up in.

    >>> texts = MemoryTexts({"d1": "It is tall.", "d2": "Bread."})
    >>> texts.lookup(["d2", "d1"])
    ['Bread.', 'It is tall.']
    >>> list(texts.stretch(0, None, 2))
    [('d1', 'It is tall.')]
    """

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that have no text."""
        return [one for one in ids if one not in self]

    def lookup(self, ids: Sequence[str]) -> list[str]:
        """The texts of ids, in their order.

        Raises:
            ValueError: if any has none; names the first and counts them.
        """
        try:
            return [self[one] for one in ids]
        except KeyError:
            raise ValueError(missing_message(self.missing(ids), len(ids), "document")) from None

    def refuse_missing(self, ids: Sequence[str]) -> None:
        """Say early which ids have no text, where that costs little.

        Raises:
            ValueError: if any has none; names the first and counts them.
        """
        if missing := self.missing(ids):
            raise ValueError(missing_message(missing, len(ids), "document"))

    def stretch(self, start: int, stop: int | None, step: int = 1) -> Iterator[tuple[str, str]]:
        """Pairs of id and text by position, as `islice` counts."""
        return islice(self.items(), start, stop, step)

    def count(self) -> int | None:
        """How many there are, None if that is not known without reading them."""
        return len(self)


def missing_message(missing: Sequence[str], asked: int, what: str) -> str:
    """What to say when ids have no text."""
    return (
        f"{what} id {missing[0]!r} is not in the {what} texts ({len(missing)} of {asked} ids are not); allowed: ids of "
        f"the collection.  Give the collection that they belong to as dataset=."
    )


def text_of(value: Any, where: str) -> str:
    """A value as text.

    Raises:
        ValueError: for one that is missing, which as text would be the word nan or None.

    >>> text_of("Bread.", "d1"), text_of(7, "d1")
    ('Bread.', '7')
    """
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        raise ValueError(f"{where} is missing ({value}); allowed: text.  Leave the row out, or give an empty text.")
    return str(value)


class MemoryTexts(Texts):
    """Texts in a dictionary."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, key: str) -> str:
        return self._texts[key]

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)


class TextStore(Texts):
    """Texts on disk, memory-mapped: opening costs nothing, and workers share what they read.

    Args:
        folder: written by `build`.

    Raises:
        FileNotFoundError: if there is none in the folder.

    >>> folder = Path(tempfile.mkdtemp()) / "texts"
    >>> store = TextStore.build(folder, [("d1", "It is tall."), ("d2", "Bread.")])
    >>> store["d2"], len(store), store.missing(["d1", "d3"])
    ('Bread.', 2, ['d3'])
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "store.json").is_file():
            raise FileNotFoundError(f"{folder} holds no texts; write them with TextStore.build(folder, pairs).")
        self._count = json.loads((self.folder / "store.json").read_text())["texts"]
        self._texts, self._ids = (_Column(self.folder, name) for name in ("texts", "ids"))
        self._hashes = _mapped(self.folder / "hashes.bin", np.uint64)
        self._rows = _mapped(self.folder / "rows.bin", np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return TextStore, (self.folder,)  # a mapped array would be copied whole to every worker

    def __repr__(self) -> str:
        return f"TextStore({str(self.folder)!r})"

    @classmethod
    def build(cls, folder: Path | str, pairs: Iterable[tuple[str, str]]) -> Self:
        """Write pairs of id and text, beside the folder until they are complete, and open them.

        Raises:
            ValueError: if an id occurs twice.
        """
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(work, pairs)
            try:
                work.rename(folder)
            except OSError:  # another process was faster: its texts are the same
                if not (folder / "store.json").is_file():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return cls(folder)

    def find(self, ids: Sequence[str] | NDArray[np.object_]) -> NDArray[np.int64]:
        """The rows of ids, -1 for those that are not here."""
        hashes = _hashes(ids)
        at = np.searchsorted(self._hashes, hashes)
        found = np.full(len(ids), -1, dtype=np.int64)
        for place, (one, hashed, first) in enumerate(zip(ids, hashes, at.tolist(), strict=True)):
            while first < self._count and self._hashes[first] == hashed:
                row = int(self._rows[first])
                if self._ids[row] == one:
                    found[place] = row
                    break
                first += 1
        return found

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that have no text, by their hashes alone: for millions of ids."""
        hashes = _hashes(ids)
        at = np.minimum(np.searchsorted(self._hashes, hashes), max(self._count - 1, 0))
        absent = self._hashes[at] != hashes if self._count else np.ones(len(ids), dtype=bool)
        return [ids[place] for place in np.flatnonzero(absent).tolist()]

    def lookup(self, ids: Sequence[str]) -> list[str]:
        """The texts of ids, in their order; see `Texts.lookup`."""
        rows = self.find(ids)
        if (rows < 0).any():
            missing = [one for one, row in zip(ids, rows.tolist(), strict=True) if row < 0]
            raise ValueError(missing_message(missing, len(ids), "document"))
        return [self._texts[row] for row in rows.tolist()]

    def stretch(self, start: int, stop: int | None, step: int = 1) -> Iterator[tuple[str, str]]:
        """Pairs of id and text by position, as `islice` counts."""
        for row in range(*slice(start, stop, step).indices(self._count)):
            yield self._ids[row], self._texts[row]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.find([key])[0] >= 0)

    def __getitem__(self, key: str) -> str:
        row = int(self.find([key])[0])
        if row < 0:
            raise KeyError(key)
        return self._texts[row]

    def __len__(self) -> int:
        return int(self._count)

    def __iter__(self) -> Iterator[str]:
        return (self._ids[row] for row in range(self._count))


class _Column:
    """Strings on disk: all their bytes, and where each ends."""

    def __init__(self, folder: Path, name: str) -> None:
        self._bytes = _mapped(folder / f"{name}.bin", np.uint8)
        self._view = memoryview(self._bytes)  # type: ignore[arg-type]  # slices of a mapped array cost ten times as much
        self._offsets = _mapped(folder / f"{name}.offsets.bin", np.int64)

    def __getitem__(self, row: int) -> str:
        return str(self._view[self._offsets[row] : self._offsets[row + 1]], "utf-8")


def _mapped(path: Path, dtype: Any) -> NDArray[Any]:
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _hashes(ids: Sequence[str] | NDArray[np.object_]) -> NDArray[np.uint64]:
    """Hashes that are the same on every machine and in every process."""
    listed = np.empty(len(ids), dtype=object)
    listed[:] = ids
    return pd.util.hash_array(listed, categorize=False) if len(listed) else np.empty(0, dtype=np.uint64)


def _write(folder: Path, pairs: Iterable[tuple[str, str]]) -> None:
    ends = {"texts": array("q", [0]), "ids": array("q", [0])}
    hashes: list[NDArray[np.uint64]] = []
    stream = iter(pairs)
    with (folder / "texts.bin").open("wb") as texts, (folder / "ids.bin").open("wb") as ids:
        while chunk := list(islice(stream, CHUNK)):
            hashes.append(_hashes([one for one, _ in chunk]))
            for one, text in chunk:
                _append(texts, text, ends["texts"])
                _append(ids, one, ends["ids"])
    for name, offsets in ends.items():
        np.asarray(offsets, dtype=np.int64).tofile(folder / f"{name}.offsets.bin")
    joined = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
    order = np.argsort(joined, kind="stable").astype(np.int64)
    joined[order].tofile(folder / "hashes.bin")
    order.tofile(folder / "rows.bin")
    _refuse_duplicates(_Column(folder, "ids"), joined, order)
    (folder / "store.json").write_text(json.dumps({"texts": len(joined)}))  # last: its presence means complete


def _append(file: BinaryIO, text: str, ends: array[int]) -> None:
    data = text.encode("utf-8", errors="replace")  # lone surrogates, which JSON allows
    file.write(data)
    ends.append(ends[-1] + len(data))


def _refuse_duplicates(ids: _Column, hashes: NDArray[np.uint64], order: NDArray[np.int64]) -> None:
    equal = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    twice = [ids[int(order[at])] for at in equal if ids[int(order[at])] == ids[int(order[at + 1])]]
    if twice:
        raise ValueError(f"id {twice[0]!r} occurs more than once ({len(twice)} such ids); allowed: each id once.")


def cache_folder() -> Path:
    """Where texts of files are kept: `$PYTERRIER_LIR_CACHE`, else `pyterrier_lir` in the user's cache folder."""
    own = os.environ.get("PYTERRIER_LIR_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() if own else Path(base).expanduser() / "pyterrier_lir"
