"""Indexes: PyTerrier artifacts that store vectors and search them."""

from __future__ import annotations

import os

from .dense import LIRDenseIndex
from .index import LIRIndex
from .multi_vector import LIRMultiVectorIndex
from .sparse import LIRSparseIndex
from .storage import read_meta

INDEXES: dict[str, type[LIRIndex]] = {
    kind.ARTIFACT_TYPE: kind for kind in (LIRDenseIndex, LIRSparseIndex, LIRMultiVectorIndex)
}


def open_index(path: str | os.PathLike[str]) -> LIRIndex:
    """The index in a folder, of whatever kind it is.

    Raises:
        FileNotFoundError: if there is none, or only a part of one.
        ValueError: if it is not of this package, or of a later version.
    """
    from pathlib import Path

    return INDEXES[read_meta(Path(path))["type"]](path)


__all__ = ["INDEXES", "LIRDenseIndex", "LIRIndex", "LIRMultiVectorIndex", "LIRSparseIndex", "open_index"]
