"""Lexicon: the terms of sparse vectors, and how dictionaries of terms and weights become arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from .docnos import Strings

_LARGEST = float(np.finfo(np.float32).max)


class Lexicon:
    """Terms in the order of their ids.

    Args:
        names: the terms that it begins with.

    Raises:
        ValueError: if a term comes twice.

    >>> lexicon = Lexicon(["a"])
    >>> lexicon.add(["b", "a", "b"]).tolist(), lexicon.find(["b", "c"]).tolist(), lexicon.names.tolist()
    ([1, 0, 1], [1, -1], ['a', 'b'])
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._ids = _Ids()
        self._names: NDArray[np.object_] | None = None
        for name in names:
            if name in self._ids:
                raise ValueError(f"Term {name!r} comes twice in the terms; every id needs a name of its own.")
            self._ids[name]  # which adds it

    @classmethod
    def read(cls, folders: Iterable[Path]) -> Lexicon:
        """The terms that shards have added, in their order."""
        parts = (Strings(folder, "terms") for folder in folders)
        return cls(chain.from_iterable(part[np.arange(len(part))] for part in parts))

    def write(self, folder: Path, start: int) -> None:
        """Write the terms from an id on."""
        Strings.write(folder, "terms", self.names[start:].tolist())

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def names(self) -> NDArray[np.object_]:
        """The terms (T,), by id."""
        if self._names is None or len(self._names) != len(self._ids):
            self._names = np.empty(len(self._ids), dtype=object)
            self._names[:] = list(self._ids)
        return self._names

    def add(self, terms: Iterable[str]) -> NDArray[np.int32]:
        """The ids (N,) of terms; new ones get the next ids.

        Raises:
            TypeError: for terms that are no strings.
        """
        return np.fromiter(map(self._ids.__getitem__, terms), dtype=np.int32)

    def find(self, terms: Iterable[str]) -> NDArray[np.int32]:
        """The ids (N,) of terms, -1 for unknown ones."""
        get = self._ids.get
        return np.fromiter((get(term, -1) for term in terms), dtype=np.int32)


class _Ids(dict[str, int]):
    """Term -> id; a term that is asked for gets an id."""

    def __missing__(self, term: str) -> int:
        if not isinstance(term, str):
            raise TypeError(f"Term {term!r} is a {type(term).__name__}; a term is a string.")
        self[term] = found = len(self)
        return found


def token_rows(frame: pd.DataFrame, column: str) -> tuple[list[dict[str, float]], NDArray[np.float32]]:
    """The dictionaries of a column, and all their weights (tokens,) one after the other.

    Raises:
        TypeError: if a row holds something else than a dict of numbers.
        ValueError: if a row has none, or weights are NaN or infinite.
    """
    rows = list(frame[column])
    null = frame[column].isna().to_numpy(dtype=bool)
    if null.any():
        raise ValueError(f"{column!r} is missing in {null.sum()} of {len(frame)} rows, {_first(frame, null)}.")
    wrong = np.array([not isinstance(row, dict) for row in rows], dtype=bool)
    if wrong.any():
        raise TypeError(
            f"{column!r} holds {type(rows[int(wrong.argmax())]).__name__} instead of a dict of tokens and weights in "
            f"{wrong.sum()} of {len(frame)} rows, {_first(frame, wrong)}."
        )
    try:  # an array of Python's takes numbers only, where numpy reads strings
        weights = np.array(array("d", chain.from_iterable(row.values() for row in rows)))
    except (TypeError, OverflowError):
        wrong = np.array([not all(hasattr(w, "__float__") for w in row.values()) for row in rows])
        raise TypeError(
            f"{column!r} holds weights that are no numbers in {wrong.sum()} of {len(frame)} rows, "
            f"{_first(frame, wrong)}."
        ) from None
    if not (np.abs(weights) <= _LARGEST).all():
        wrong = np.array([not all(abs(w) <= _LARGEST for w in row.values()) for row in rows])
        raise ValueError(
            f"{column!r} holds weights that are NaN, infinite or too large for float32 in {wrong.sum()} of "
            f"{len(frame)} rows, {_first(frame, wrong)}."
        )
    return rows, weights.astype(np.float32)


def _first(frame: pd.DataFrame, chosen: NDArray[np.bool_]) -> str:
    row = frame.iloc[int(chosen.argmax())]
    return "first in " + ", ".join(f"{name}={row[name]!r}" for name in ("qid", "docno") if name in frame.columns)


def offsets_of(rows: Sequence[Any]) -> NDArray[np.int64]:
    """Where each row begins when all are one after the other, (rows + 1,)."""
    return np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])


def positive(vectors: csr_array) -> csr_array:
    """The vectors in float32 without weights of 0 and less, ids rising in each row.

    >>> positive(csr_array(np.array([[0.5, -1.0, 2.0]]))).toarray().tolist()
    [[0.5, 0.0, 2.0]]
    """
    vectors = csr_array(vectors, dtype=np.float32)
    keep = vectors.data > 0
    if not keep.all():
        starts = np.concatenate([[0], np.cumsum(keep)])[vectors.indptr]
        vectors = csr_array((vectors.data[keep], vectors.indices[keep], starts), shape=vectors.shape)
    if not vectors.has_sorted_indices:
        vectors = vectors.sorted_indices()
    return vectors


def of_length_one(vectors: csr_array) -> csr_array:
    """The vectors scaled to length 1; those without weights stay so.

    >>> of_length_one(csr_array(np.array([[3.0, 4.0]], np.float32))).toarray()
    array([[0.6, 0.8]], dtype=float32)
    """
    row = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    squares = np.bincount(row, vectors.data.astype(np.float64) ** 2, minlength=vectors.shape[0])
    scaled = (vectors.data / np.sqrt(squares)[row]).astype(np.float32)
    return csr_array((scaled, vectors.indices, vectors.indptr), shape=vectors.shape)
