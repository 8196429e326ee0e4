"""Search engines: one file each, and the table that names them.

An engine's file has `open(index, **options)`, which gives a `Searcher`.  What it makes of an index is kept in the
index's folder, so that it is made once.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ...config import Kind

if TYPE_CHECKING:
    from ...vectors import Vectors
    from ..index import LIRIndex

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


class Searcher(Protocol):
    """An engine on an index."""

    def search(self, queries: Vectors, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """The k best documents of each query.

        Args:
            queries: vectors of the index's kind.
            k: how many, of which an index may have fewer.
            candidates: (docids,), True for documents that may be found; None for all.

        Returns:
            docids (queries, k) int64, -1 where there are no more, and scores (queries, k) float32, -inf there; the
            best first, of equal scores the lower docid.
        """


@dataclass(frozen=True)
class Engine:
    """A row of the table.

    Attributes:
        module: which opens it.
        exact: whether its results are those of comparing all documents.
        when: it is the one to take.
        options: that are fixed; then the module says by `options_of(**options)` which it has beside them.
        needs: the package it is of, and `extra` the extra of this one that installs it.
    """

    module: str
    exact: bool
    when: str
    options: tuple[tuple[str, Any], ...] = ()
    needs: str | None = None
    extra: str | None = None


_CODES = "compressed copies in memory, of which more are scored again exactly; large k"

ENGINES: dict[tuple[Kind, str], Engine] = {
    ("dense", "exact"): Engine(
        "dense_exact", True, "always below a few million documents, and wherever results are compared"),
    ("dense", "flat"): Engine(
        "dense_faiss", True, "FAISS's own exact search, to compare", (("factory", "Flat"),)),
    ("dense", "ivf"): Engine(
        "dense_faiss", False, "fastest to build; recall by `nprobe`", (("factory", "IVF{nlist},Flat"),)),
    ("dense", "ivfpq"): Engine(
        "dense_faiss", False, "smallest; recall by `nprobe`", (("factory", "IVF{nlist},PQ{M}x{nbits}"),)),
    ("dense", "pq"): Engine("dense_faiss", False, _CODES, (("factory", "PQ{M}x4fs"),)),
    ("dense", "hnsw"): Engine(
        "dense_faiss", False, "many queries, built slowly once; recall by `efSearch`", (("factory", "HNSW{M},Flat"),)),
    ("dense", "rabitq"): Engine("dense_faiss", False, _CODES, (("factory", "RaBitQ"),)),
    ("multi_vector", "exact"): Engine("multi_vector_exact", True, "below 100,000 documents"),
    ("multi_vector", "plaid"): Engine(
        "multi_vector_plaid", False, "above; the best are scored again exactly; recall by `nprobe` and `ndocs`"),
    ("multi_vector", "fast-plaid"): Engine(
        "multi_vector_fast_plaid", False, "to compare, where it was built for the PyTorch that is installed",
        needs="fast_plaid", extra="fast-plaid"),
    ("sparse", "exact"): Engine("sparse_exact", True, "always; thousands of queries a second"),
    ("sparse", "seismic"): Engine(
        "sparse_seismic", False, "larger collections; recall by `query_cut` and `heap_factor`",
        needs="seismic", extra="seismic"),
}  # fmt: skip


def engines_of(kind: Kind) -> list[str]:
    """The names of the engines for a kind of index."""
    return [name for of, name in ENGINES if of == kind]


def open_engine(index: LIRIndex, name: str, options: dict[str, Any]) -> Searcher:
    """Open an engine on an index.

    Raises:
        ValueError: for an unknown engine or option.
        ImportError: if the engine's package is not installed.
    """
    if (index.KIND, name) not in ENGINES:
        near = difflib.get_close_matches(name, engines_of(index.KIND), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"No engine {name!r} for {index.KIND} vectors; there are: {', '.join(engines_of(index.KIND))}.{hint}"
        )
    engine = ENGINES[index.KIND, name]
    if engine.needs and importlib.util.find_spec(engine.needs) is None:
        raise ImportError(f"The engine {name!r} needs {engine.needs}: pip install 'pyterrier-lir[{engine.extra}]'.")
    module, fixed = importlib.import_module(f"{__name__}.{engine.module}"), dict(engine.options)
    known = module.options_of(**fixed) if fixed else list(inspect.signature(module.open).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        there = ", ".join(known) or "none"
        raise ValueError(f"The engine {name!r} has no option {', '.join(unknown)}; it has: {there}.")
    return cast("Searcher", module.open(index, **fixed, **options))


def top(scores: NDArray[np.float32], docids: NDArray[np.int64], k: int) -> Found:
    """The k best of (queries, found), the best first, of equal scores the lower docid; padded to k."""
    order = np.lexsort((docids, -scores), axis=1)[:, :k]
    scores, docids = np.take_along_axis(scores, order, 1), np.take_along_axis(docids, order, 1)
    pad = max(0, k - scores.shape[1])
    scores = np.pad(scores, ((0, 0), (0, pad)), constant_values=-np.inf)
    docids = np.pad(docids, ((0, 0), (0, pad)), constant_values=-1)
    return np.where(np.isneginf(scores), -1, docids), scores
