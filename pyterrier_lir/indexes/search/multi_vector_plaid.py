"""Approximate multi-vector search in the way of PLAID (arXiv:2205.09707).

Every token vector stands for its nearest centroid.  A query is compared with the centroids; documents that have a token
near one of its vectors (the `nprobe` nearest centroids of each) are candidates; centroids in the place of the vectors
score them (section 4.2), first without centroids that are far from all of the query (below `t_cs`, section 4.3), then
with all; the best quarter of `ndocs` is scored exactly.
"""

from __future__ import annotations

import os
import shutil
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...vectors import TokenVectors
from ..arrays import ArrayWriter, map_array, write_array
from . import Found, top
from .multi_vector_exact import MultiVectorExact

if TYPE_CHECKING:
    from ..multi_vector import LIRMultiVectorIndex

faiss: Any = import_module("faiss")
_TOKENS = 65_536  # tokens whose centroids are found at once
_PER_CENTROID = 64  # most token vectors for each centroid that are trained on


def open(
    index: LIRMultiVectorIndex,
    nprobe: int | None = None,
    t_cs: float | None = None,
    ndocs: int | None = None,
    ncentroids: int | None = None,
) -> Plaid:
    """Open the engine; None takes what the paper does for so many results (section 5, table 2).

    Args:
        nprobe: centroids that are searched for each query vector.
        t_cs: how near to a query vector a centroid must be to take part in the first scores; of unit vectors.
        ndocs: documents that are left after the first scores; the best quarter is scored exactly.
        ncentroids: None for the power of 2 below 16 times the root of the number of token vectors.

    Raises:
        ValueError: if the index's model compares otherwise than by MaxSim of dot products.
    """
    return Plaid(index, nprobe, t_cs, ndocs, ncentroids)


class Plaid:
    """Searches with centroids, scores exactly what is left."""

    def __init__(
        self, index: LIRMultiVectorIndex, nprobe: int | None, t_cs: float | None, ndocs: int | None, count: int | None
    ) -> None:
        self._index, self._exact = index, MultiVectorExact(index)
        self._nprobe, self._t_cs, self._ndocs = nprobe, t_cs, ndocs
        if not self._exact.max_sim:
            raise ValueError(f"{index!r}: PLAID is for models that compare by MaxSim of dot products.")
        tokens = sum(int(index.offsets_of(shard)[-1]) for shard in index.shards)
        count = count or 1 << max(0, int(np.log2(16 * max(tokens, 1) ** 0.5)))
        self._count = min(count, max(1, tokens // 8))
        folder = index.engine_folder(f"plaid-{self._count}")
        self._arrays = _read(folder) if tokens else None
        if self._arrays is None and tokens:
            self._arrays = self._made(folder)

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`; a query that finds fewer than k documents is searched exactly."""
        if self._arrays is None:
            return self._exact.search(queries, k, candidates)
        vectors = self._index.prepared(queries)
        found = [self._one(vectors.take(np.array([i])), k, candidates) for i in range(len(vectors))]
        if not found:
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        return np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])

    def _one(self, query: TokenVectors, k: int, candidates: NDArray[np.bool_] | None) -> Found:
        nprobe, t_cs, ndocs = self._knobs(k)
        near = self._near(query.values)  # (centroids, vectors of the query)
        docs = self._candidates(near, nprobe)
        if candidates is not None:
            docs = docs[candidates[docs]]
        if len(docs) < k:
            return self._exact.search(query, k, candidates)
        if len(docs) > ndocs:
            docs = self._best(docs, np.where(near.max(axis=1, keepdims=True) >= t_cs, near, 0.0), ndocs)
        if len(docs) > max(ndocs // 4, k):
            docs = self._best(docs, near, max(ndocs // 4, k))
        stored = self._index.vectors_of(docs)
        scores = self._index.pair_scores(query, stored, np.zeros(len(docs), np.int64), np.arange(len(docs)))
        return top(scores[None], docs[None], k)

    def _knobs(self, k: int) -> tuple[int, float, int]:
        """(nprobe, t_cs, ndocs) for k results."""
        nprobe, t_cs, ndocs = (
            (1, 0.5, 256) if k <= 10 else (2, 0.45, 1_024) if k <= 100 else (4, 0.4, max(4_096, 4 * k))
        )
        return self._nprobe or nprobe, t_cs if self._t_cs is None else self._t_cs, self._ndocs or ndocs

    def _near(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        near: NDArray[np.float32] = self._arrays["centroids"] @ query.T  # type: ignore[index]
        return near

    def _candidates(self, near: NDArray[np.float32], nprobe: int) -> NDArray[np.int64]:
        """The documents that have a token at one of the centroids nearest to the query's vectors, docids rising."""
        assert self._arrays is not None
        probed = np.unique(np.argpartition(-near, min(nprobe, len(near)) - 1, axis=0)[:nprobe])
        starts = self._arrays["list_offsets"]
        lists = [self._arrays["lists"][starts[c] : starts[c + 1]] for c in probed]
        found = np.zeros(self._index.docids, dtype=bool)
        for one in lists:
            found[one] = True
        return np.flatnonzero(found)

    def _best(self, docs: NDArray[np.int64], near: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """The documents with the best scores of their centroids."""
        assert self._arrays is not None
        offsets, codes = self._arrays["offsets"], self._arrays["codes"]
        starts, lengths = np.asarray(offsets[docs]), np.asarray(offsets[docs + 1] - offsets[docs])
        ends = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
        products = torch.from_numpy(np.ascontiguousarray(near))[torch.from_numpy(np.asarray(codes[at])).long()]
        scores = np.maximum.reduceat(products.numpy(), ends[:-1], axis=0).sum(axis=1)  # no document here is empty
        return np.sort(docs[np.argpartition(-scores, count - 1)[:count]])

    def _made(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Make the centroids and lists beside the folder, and rename; in memory where it cannot be written."""
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            self._write(part)
            part.rename(folder)
            return _read(folder) or {}
        except OSError as error:
            import tempfile

            warnings.warn(f"{folder} cannot be written ({error}); it is made anew in each process.", stacklevel=2)
            place = Path(tempfile.mkdtemp())
            self._write(place)
            arrays = {name: np.array(array) for name, array in (_read(place) or {}).items()}
            shutil.rmtree(place)
            return arrays

    def _write(self, folder: Path) -> None:
        centroids = self._centroids()
        write_array(folder / "centroids.npy", centroids)
        weight = torch.from_numpy(centroids).T.contiguous()
        pairs = []
        with (
            ArrayWriter(folder / "codes.npy", np.int32) as codes,
            ArrayWriter(folder / "offsets.npy", np.int64) as ends,
        ):
            ends.append([0])
            for start, docs in self._index.blocks(_TOKENS):
                nearest = (torch.from_numpy(docs.values) @ weight).argmax(1).numpy()
                ends.append(codes.rows + docs.offsets[1:])
                codes.append(nearest)
                doc_of = np.repeat(np.arange(start, start + len(docs)), docs.lengths)
                pairs.append(np.unique(nearest * np.int64(self._index.docids) + doc_of))
        centroid, doc = np.divmod(np.sort(np.concatenate(pairs)), self._index.docids)
        write_array(folder / "lists.npy", doc.astype(np.int32))
        write_array(folder / "list_offsets.npy", np.searchsorted(centroid, np.arange(self._count + 1)))

    def _centroids(self) -> NDArray[np.float32]:
        """k-means on a sample of the token vectors, (ncentroids, D)."""
        rng, wanted, sample = np.random.default_rng(0), _PER_CENTROID * self._count, []
        total = sum(int(self._index.offsets_of(shard)[-1]) for shard in self._index.shards)
        for _, docs in self._index.blocks(_TOKENS):
            share = min(1.0, wanted / total)
            sample.append(docs.values[rng.random(len(docs.values)) <= share])
        vectors = np.concatenate(sample)
        means = faiss.Kmeans(self._index.size, self._count, niter=8, seed=0, min_points_per_centroid=1)
        means.train(np.ascontiguousarray(vectors))
        found: NDArray[np.float32] = means.centroids
        return found


def _read(folder: Path) -> dict[str, NDArray[Any]] | None:
    """What was made before, memory-mapped; None if there is nothing."""
    if not folder.is_dir():
        return None
    return {
        name: map_array(folder / f"{name}.npy") for name in ("centroids", "codes", "offsets", "lists", "list_offsets")
    }
