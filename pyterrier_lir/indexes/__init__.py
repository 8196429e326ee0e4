"""Indexes: PyTerrier artifacts that store vectors and search them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from .dense import LIRDenseIndex
from .index import LIRIndex
from .multi_vector import LIRMultiVectorIndex
from .sparse import LIRSparseIndex
from .storage import read_meta
from .union import IndexUnion

INDEXES: dict[str, type[LIRIndex]] = {
    kind.ARTIFACT_TYPE: kind for kind in (LIRDenseIndex, LIRSparseIndex, LIRMultiVectorIndex)
}


Place = str | os.PathLike[str]


@overload
def open_index(path: Place | LIRIndex) -> LIRIndex: ...


@overload
def open_index(path: Sequence[Place | LIRIndex]) -> IndexUnion: ...


def open_index(path: Place | LIRIndex | Sequence[Place | LIRIndex]) -> LIRIndex | IndexUnion:
    """The index in a folder, of whatever kind it is; of several folders, their union.

    Args:
        path: a folder, or several.

    Raises:
        FileNotFoundError: if there is none, or only a part of one.
        ValueError: if it is not of this package, or of a later version, or several do not fit each other.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp() + "/tiny.lir"
    >>> _ = LIRSparseIndex(folder).indexer().index([{"docno": "d1", "toks": {"fox": 1.5}}])
    >>> len(open_index(folder))
    1
    """
    if isinstance(path, LIRIndex):
        return path
    if isinstance(path, (str, os.PathLike)):
        return INDEXES[read_meta(Path(path))["type"]](path)
    return IndexUnion([open_index(part) for part in path])


__all__ = ["INDEXES", "IndexUnion", "LIRDenseIndex", "LIRIndex", "LIRMultiVectorIndex", "LIRSparseIndex", "open_index"]
