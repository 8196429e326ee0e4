"""Approximate multi-vector search by fast-plaid, whose results are scored again from the stored vectors.

fast-plaid is built for one version of PyTorch and pins it (1.7.0: torch 2.11.0); with another it cannot be installed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...vectors import TokenVectors
from . import Found, top
from .multi_vector_exact import MultiVectorExact

if TYPE_CHECKING:
    from ..multi_vector import LIRMultiVectorIndex

_TOKENS = 1 << 20  # tokens that are handed over at once


def open(
    index: LIRMultiVectorIndex,
    nbits: int = 4,
    n_ivf_probe: int = 8,
    n_full_scores: int = 4_096,
    k_factor: int = 2,
    device: str = "cpu",
) -> FastPlaid:
    """Open the engine; at the first time with this many bits, build it, with all vectors in memory as float16.

    Args:
        nbits: bits of each number's residual; 2 or 4.
        n_ivf_probe: centroids that are searched for each query vector.
        n_full_scores: documents whose compressed vectors are scored.
        k_factor: how many times the wanted number of documents is scored again from the stored vectors.
        device: such as `cuda:0`.

    Raises:
        ImportError: if the package was built for another PyTorch than this one.
        ValueError: if the index's model compares otherwise than by MaxSim of dot products, or vectors are not of
            length 1, which is what the package makes of them.
    """
    config = index.stored_config
    if (config.similarity_function != "dot" or config.doc_aggregation_function != "max" or config.exact_match
            or config.query_aggregation_function == "max"):  # fmt: skip
        raise ValueError(f"{index!r}: fast-plaid is for models that compare by MaxSim of dot products.")
    some: Any = index.vectors_of(np.arange(min(index.docids, 64)))
    if (np.abs(np.linalg.norm(some.values, axis=1) - 1) > 0.02).any():
        raise ValueError(f"{index!r}: fast-plaid is for vectors of length 1; choose the engine 'plaid'.")
    return FastPlaid(index, nbits, n_ivf_probe, n_full_scores, k_factor, device)


def _library() -> Any:
    """The class of the package."""
    try:
        return import_module("fast_plaid.search").FastPlaid
    except (ImportError, OSError) as error:
        try:
            pins = [pin for pin in requires("fast-plaid") or () if pin.startswith("torch")]
        except PackageNotFoundError:
            pins = []
        raise ImportError(
            f"fast-plaid cannot be loaded with torch {torch.__version__} ({error}). It needs "
            f"{', '.join(pins) or 'a torch of its own'}: pip install 'pyterrier-lir[fast-plaid]' in an environment of "
            "its own. The engine 'plaid' needs nothing."
        ) from error


class FastPlaid:
    """Searches with fast-plaid's index of the documents that have vectors."""

    def __init__(
        self, index: LIRMultiVectorIndex, nbits: int, n_ivf_probe: int, n_full_scores: int, k_factor: int, device: str
    ) -> None:
        self._index, self._exact, self._k_factor, self._full = index, MultiVectorExact(index), k_factor, n_full_scores
        self._options = {"n_full_scores": n_full_scores, "n_ivf_probe": n_ivf_probe, "show_progress": False}
        self._engine: Any = None
        self._docs = np.flatnonzero(index.lengths > 0)  # of each document of the engine the docid
        if len(self._docs):
            library, folder = _library(), index.engine_folder(f"fast-plaid-{nbits}")
            self._engine = library(str(self._place(folder, nbits, device)), device=device)

    def _place(self, folder: Path, nbits: int, device: str) -> Path:
        """The folder of the engine's files, made beside it and renamed; a temporary one where it cannot be written."""
        if folder.is_dir() and os.access(folder, os.W_OK):  # which locks it
            return folder
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            self._write(part, nbits, device)
            self._index.check_docids()
            part.rename(folder)
            return folder
        except OSError as error:
            if folder.is_dir() and os.access(folder, os.W_OK):  # another process was faster
                return folder
            warnings.warn(f"{folder} cannot be written ({error}); it is made anew in each process.", stacklevel=4)
            self._temporary = tempfile.TemporaryDirectory()  # removed with the engine
            self._write(Path(self._temporary.name), nbits, device)
            return Path(self._temporary.name)
        finally:
            if part.is_dir():
                shutil.rmtree(part)

    def _write(self, folder: Path, nbits: int, device: str) -> None:
        rows = [
            torch.from_numpy(row).half()
            for _, block in self._index.blocks(_TOKENS, self._docs) for row in block.rows()
        ]  # fmt: skip
        made = _library()(str(folder), device=device)
        made.create(rows, nbits=nbits, start_from_scratch=0)
        made.close()

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`; where few documents can be found, they are scored exactly."""
        vectors: TokenVectors = self._index.prepared(queries)
        allowed = self._docs if candidates is None else np.flatnonzero(candidates[self._docs])
        few = self._engine is None or (candidates is not None and len(allowed) <= max(k, self._full // 4))
        docids, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        rows = np.flatnonzero(vectors.lengths > 0)
        found: dict[int, NDArray[np.int64]] = {} if few else self._found(vectors, rows, k, candidates is None, allowed)
        for row in range(len(vectors)):
            one, docs = vectors.take(np.array([row])), found.get(row)
            if docs is None or len(docs) < k:
                docids[[row]], scores[[row]] = self._exact.search(one, k, candidates)
            else:
                exact = self._index.scores_of(one, np.zeros(len(docs), np.int64), docs)
                docids[[row]], scores[[row]] = top(exact[None], docs[None], k)
        return docids, scores

    def _found(
        self, vectors: TokenVectors, rows: NDArray[np.int64], k: int, everything: bool, allowed: NDArray[np.int64]
    ) -> dict[int, NDArray[np.int64]]:
        """For rows of queries the docids that fast-plaid finds."""
        if not len(rows):
            return {}
        given = [torch.from_numpy(np.array(row)) for row in vectors.take(rows).rows()]
        subset = None if everything else [allowed.tolist()] * len(given)
        found = self._engine.search(given, top_k=k * self._k_factor, subset=subset, **self._options)
        return {int(row): self._docs[np.array([doc for doc, _ in one], np.int64)]
                for row, one in zip(rows, found, strict=True)}  # fmt: skip
