"""FAISS on the stored vectors: Flat, IVF, IVF-PQ, PQ fast-scan, HNSW and RaBitQ.

An index is trained on a sample and made block by block at its first use, and kept in the folder of the engines.  What
coded vectors find (PQ, IVF-PQ, RaBitQ) is scored again from the stored vectors: `k_factor` times as many as wanted.
Queries for which fewer documents are found than are wanted and there are searched for exactly.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..storage import sync_folder
from . import Found, top
from .dense_exact import DenseExact
from .dense_exact import open as open_exact

if TYPE_CHECKING:
    from ..dense import LIRDenseIndex

faiss: Any = import_module("faiss")  # its type stubs lack half of it
_BLOCK = 65_536  # vectors that are added at once
_LEAST = 1_024  # fewer vectors are compared exactly where FAISS would train on them
_SAMPLE = 262_144  # most vectors that are trained on
# what a factory string starts with -> the options that it has, and whether what it finds is scored again
FAMILIES: dict[str, tuple[tuple[str, ...], bool]] = {
    "Flat": ((), False),
    "IVF{nlist},Flat": (("nlist", "nprobe"), False),
    "IVF{nlist},PQ{M}x{nbits}": (("nlist", "nprobe", "M", "nbits", "k_factor"), True),
    "PQ{M}x4fs": (("M", "k_factor"), True),
    "HNSW{M},Flat": (("M", "efConstruction", "efSearch"), False),
    "RaBitQ": (("k_factor",), True),
}


def options_of(factory: str) -> tuple[str, ...]:
    """The options that a kind of FAISS index has, of those of `open`."""
    return FAMILIES[factory][0]


def open(
    index: LIRDenseIndex,
    factory: str,
    nlist: int | None = None,
    nprobe: int = 32,
    M: int | None = None,
    nbits: int = 8,
    efConstruction: int = 200,
    efSearch: int = 128,
    k_factor: int = 4,
) -> DenseFaiss:
    """Open the engine; options bear FAISS's names.

    Args:
        factory: what is made, in the words of `faiss.index_factory`; it has the options of `options_of`.
        nlist, nprobe: clusters (None: 4 times the root of the number of vectors), and how many are searched.
        M: of HNSW the neighbours of a vector (None: 32), of PQ the parts of a code (None: half as many as numbers).
        nbits: bits of a part of an IVF-PQ code.
        efConstruction, efSearch: candidates of HNSW when it is made and searched.
        k_factor: how many times the wanted number of coded vectors is scored again.
    """
    given = {"nlist": nlist, "nprobe": nprobe, "M": M, "nbits": nbits, "efConstruction": efConstruction,
             "efSearch": efSearch, "k_factor": k_factor}  # fmt: skip
    return DenseFaiss(index, factory, {name: given[name] for name in options_of(factory)})


class DenseFaiss:
    """Searches with a FAISS index."""

    def __init__(self, index: LIRDenseIndex, factory: str, options: dict[str, Any]) -> None:
        self._index, self._family, self._options = index, factory, options
        self._again = FAMILIES[factory][1]
        self._exact: DenseExact = open_exact(index)
        self._l2 = index.config.similarity_function == "l2"
        if index.docids < (_LEAST if factory not in ("Flat", "HNSW{M},Flat") else 1):
            self._faiss = None  # too few to train on
            return
        filled = self._filled()
        name = factory.format(**filled).replace(",", "-") + (
            f"-{options['efConstruction']}" if "efConstruction" in options else ""
        )
        path = index.engine_folder(f"{name}.faiss")
        self._faiss = self._make(filled) if factory == "Flat" else _read(path) or self._made(filled, path)

    def _filled(self) -> dict[str, Any]:
        """The options that the factory needs, with what follows from the vectors."""
        docs, size, options = self._index.docids, self._index.size, dict(self._options)
        if "nlist" in options:
            options["nlist"] = options["nlist"] or max(1, min(int(4 * docs**0.5), docs // 39))
        if "M" in options and options["M"] is None:
            options["M"] = (
                32
                if self._family.startswith("HNSW")
                else max(d for d in range(1, size // 2 + 2) if size % d == 0 and d <= max(1, size // 2))
            )
        if self._family.startswith(("PQ", "IVF{nlist},PQ")) and size % options["M"]:
            raise ValueError(f"M={options['M']}: vectors of {size} numbers do not fall into so many equal parts.")
        return options

    def _made(self, filled: dict[str, Any], path: Path) -> Any:
        made = self._make(filled)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(exist_ok=True)
            faiss.write_index(made, str(part))
            self._index.check_docids()
            part.replace(path)
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True) if path.parent.is_dir() else None
            warnings.warn(f"{path} cannot be written ({error}); it is made anew in each process.", stacklevel=2)
        return made

    def _make(self, filled: dict[str, Any]) -> Any:
        """Train on a sample, then add all vectors."""
        metric = faiss.METRIC_L2 if self._l2 else faiss.METRIC_INNER_PRODUCT
        made = faiss.index_factory(self._index.size, self._family.format(**filled), metric)
        if "efConstruction" in filled:
            made.hnsw.efConstruction = filled["efConstruction"]
        if not made.is_trained:
            parts: list[Any] = [made, getattr(made, "pq", None)]
            for part in parts:  # small collections are no reason to warn
                if hasattr(part, "cp"):
                    part.cp.min_points_per_centroid = 1
            count = min(self._index.docids, max(_SAMPLE, 64 * filled.get("nlist", 0)))
            rows = np.sort(np.random.default_rng(0).choice(self._index.docids, count, replace=False))
            made.train(np.ascontiguousarray(self._index.vectors_of(rows)))
        for _, block in self._index.blocks(_BLOCK):
            made.add(np.ascontiguousarray(block.numpy()))
        return made

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`."""
        fast_scan = self._family.startswith("PQ")
        if self._faiss is None or (candidates is not None and (fast_scan or candidates.sum() <= 4 * k)):
            return self._exact.search(queries, k, candidates)  # fast-scan knows no selection; few are soon compared
        vectors = np.ascontiguousarray(queries, dtype=np.float32)
        if vectors.shape[1] != self._index.size:
            raise ValueError(
                f"Queries have {vectors.shape[1]} numbers, the vectors of {self._index!r} {self._index.size}."
            )
        if self._index.config.similarity_function == "cosine":
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        wanted = min(self._index.docids, k * self._options.get("k_factor", 1))
        keep = None if candidates is None else np.packbits(candidates, bitorder="little")
        found, docids = self._faiss.search(vectors, wanted, params=self._parameters(wanted, keep))
        scores = (
            self._scored_again(vectors, docids) if self._again else (-np.sqrt(found.clip(0)) if self._l2 else found)
        )
        docids, scores = top(np.where(docids < 0, -np.inf, scores).astype(np.float32), docids, k)
        # few clusters or neighbours may hold fewer documents, or candidates, than there are
        there = min(k, self._index.docids if candidates is None else int(candidates.sum()))
        few = np.flatnonzero((docids >= 0).sum(axis=1) < there)
        if len(few):
            docids[few], scores[few] = self._exact.search(vectors[few], k, candidates)
        return docids, scores

    def _parameters(self, wanted: int, keep: NDArray[np.uint8] | None) -> Any:
        """FAISS's search parameters; HNSW looks at no fewer candidates than are wanted."""
        chosen: dict[str, Any] = {}
        if keep is not None:
            self._keep = keep  # FAISS reads it while it searches
            chosen["sel"] = faiss.IDSelectorBitmap(keep)
        if self._family.startswith("IVF{nlist},PQ"):
            return faiss.IVFPQSearchParameters(nprobe=self._options["nprobe"], **chosen)
        if self._family.startswith("IVF"):
            return faiss.SearchParametersIVF(nprobe=self._options["nprobe"], **chosen)
        if self._family.startswith("HNSW"):
            return faiss.SearchParametersHNSW(efSearch=max(self._options["efSearch"], wanted), **chosen)
        if self._family == "RaBitQ":
            return faiss.RaBitQSearchParameters(**chosen)
        return faiss.SearchParameters(**chosen) if chosen else None

    def _scored_again(self, queries: NDArray[np.float32], docids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores (queries, found) from the stored vectors."""
        distinct, at = np.unique(docids.clip(0), return_inverse=True)
        docs = np.asarray(self._index.vectors_of(distinct))
        at = at.reshape(docids.shape)
        scores = np.empty(docids.shape, dtype=np.float32)
        for row, query in enumerate(queries):
            near = docs[at[row]]
            scores[row] = -np.linalg.norm(near - query, axis=1) if self._l2 else near @ query
        return scores


def _read(path: Path) -> Any:
    """The FAISS index in a file, memory-mapped where its kind allows for it; None if there is no file."""
    if not path.is_file():
        return None
    with contextlib.suppress(RuntimeError, AttributeError):
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    return faiss.read_index(str(path))
