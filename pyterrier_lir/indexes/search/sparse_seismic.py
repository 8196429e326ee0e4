"""Approximate sparse search by Seismic (arXiv:2404.18812), whose results are scored again from the stored vectors."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import Found, sparse_exact, top

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from ..sparse import LIRSparseIndex

_DOCS = 65_536  # documents that are handed over at once
_QUERIES = 32  # whose documents are scored again at once
_FILE = "seismic"  # the package puts its own endings behind


def open(
    index: LIRSparseIndex,
    n_postings: int = 3_500,
    centroid_fraction: float = 0.1,
    min_cluster_size: int = 2,
    summary_energy: float = 0.4,
    max_fraction: float = 1.5,
    doc_cut: int = 15,
    query_cut: int = 10,
    heap_factor: float = 0.7,
    n_knn: int = 0,
    num_threads: int = 0,
) -> SparseSeismic:
    """Open the engine; at the first time with these parameters of the build, build it.

    Args:
        n_postings, centroid_fraction, min_cluster_size, summary_energy, max_fraction, doc_cut: of the build, see
            `seismic.SeismicIndex.build_from_dataset`.
        n_knn: neighbours of each document that are searched too; they are part of the build.
        query_cut: how many of a query's heaviest terms lead to documents.
        heap_factor: how close to the worst result so far a cluster must promise to be, to be looked into; 0 to 1,
            lower is faster.
        num_threads: 0 for all.
    """
    build = {
        "n_postings": n_postings, "centroid_fraction": centroid_fraction, "min_cluster_size": min_cluster_size,
        "summary_energy": summary_energy, "max_fraction": max_fraction, "doc_cut": doc_cut, "nknn": n_knn,
    }  # fmt: skip
    folder = index.engine_folder("seismic-" + "-".join(f"{value:g}" for value in build.values()))
    engine = _read(folder) if folder.is_dir() else _build(index, folder, {**build, "num_threads": num_threads})
    return SparseSeismic(
        index, engine, query_cut=query_cut, heap_factor=heap_factor, n_knn=n_knn, num_threads=num_threads
    )


def _read(folder: Path) -> Any:
    """The engine in a folder; None if it is of no documents."""
    from seismic import SeismicIndex

    files = sorted(folder.glob(f"{_FILE}*"))
    return SeismicIndex.load(str(files[0])) if files else None


def _build(index: LIRSparseIndex, folder: Path, parameters: dict[str, Any]) -> Any:
    """Build the engine, and write it beside the folder, which is renamed."""
    from seismic import SeismicDataset, SeismicIndex

    dataset = SeismicDataset(dim=len(index.terms))
    for start in range(0, index.docids, _DOCS):
        docids = np.arange(start, min(start + _DOCS, index.docids))
        vectors: Any = index.vectors_of(docids)
        dataset.add_documents_by_id(
            [str(docid) for docid in docids.tolist()], vectors.indices.astype(np.int64), vectors.data,
            vectors.indptr.astype(np.int64),
        )  # fmt: skip
    engine = SeismicIndex.build_from_dataset(dataset, **parameters) if dataset.len else None
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if engine is not None:
            engine.save(str(part / _FILE))
        index.check_docids()
        if not folder.is_dir():  # another process may have been faster
            os.replace(part, folder)
    except OSError as error:
        warnings.warn(f"{folder} cannot be written ({error}); it is made anew in each process.", stacklevel=3)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return engine


class SparseSeismic:
    """Searches the clusters of postings that promise most.

    Args:
        index: that the documents are of.
        engine: `seismic.SeismicIndex`; None if there are no documents.
        options: of its search.
    """

    def __init__(self, index: LIRSparseIndex, engine: Any, **options: Any) -> None:
        from seismic import get_seismic_string

        self._index, self._engine, self._options = index, engine, options
        self._string = get_seismic_string()

    def search(self, queries: Any, k: int, candidates: NDArray[np.bool_] | None = None) -> Found:
        """See `Searcher.search`; approximate, with exact scores.

        Where few of what is found are candidates, the query is searched exactly instead.
        """
        prepared = self._index.prepared(queries)
        allowed = self._index.docids if candidates is None else int(candidates.sum())
        wanted = min(k, allowed)
        docids = np.full((queries.shape[0], k), -1, np.int64)
        scores = np.full((queries.shape[0], k), -np.inf, np.float32)
        if not wanted or self._engine is None:
            return docids, scores
        # as many more as are likely to be refused, and some more by chance
        fetched = (
            wanted if candidates is None else min(self._index.docids, wanted * self._index.docids // allowed * 3 // 2)
        )
        few, rows, found = [], [], []
        for row, ids in self._found(prepared, fetched):
            kept = ids if candidates is None else ids[candidates[ids]]
            if candidates is not None and len(kept) < wanted:
                few.append(row)
            else:
                rows.append(row)
                found.append(kept)
        for start in range(0, len(rows), _QUERIES):
            part = slice(start, start + _QUERIES)
            docids[rows[part]], scores[rows[part]] = self._scored(queries, rows[part], found[part], k)
        if few:
            docids[few], scores[few] = sparse_exact.open(self._index).search(queries[few], k, candidates)
        return docids, scores

    def _scored(self, queries: csr_array, rows: list[int], found: list[NDArray[np.int64]], k: int) -> Found:
        """The k best of the documents that were found for each of some queries, by their exact scores."""
        lengths = np.array([len(docids) for docids in found])
        distinct, doc_of = np.unique(np.concatenate(found), return_inverse=True)
        query_of = np.repeat(np.array(rows), lengths)
        values = self._index.pair_scores(queries, self._index.vectors_of(distinct), query_of, doc_of)
        shape = (len(rows), int(lengths.max()))
        docids, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
        there = np.arange(shape[1]) < lengths[:, None]
        docids[there], scores[there] = distinct[doc_of], values
        return top(scores, docids, k)

    def _found(self, queries: csr_array, k: int) -> list[tuple[int, NDArray[np.int64]]]:
        """(row, docids) of queries that have terms."""
        rows = np.flatnonzero(np.diff(queries.indptr))
        if not len(rows) or self._engine is None:
            return []
        parts = [slice(queries.indptr[row], queries.indptr[row + 1]) for row in rows]
        results = self._engine.batch_search(
            np.array([str(row) for row in rows], dtype=self._string),
            [queries.indices[part].astype(self._string) for part in parts],
            [queries.data[part] for part in parts],
            k=k,
            **self._options,
        )
        found = {row: np.empty(0, np.int64) for row in rows.tolist()}
        for result in results:
            if result:
                found[int(result[0][0])] = np.array([int(docid) for _, _, docid in result], dtype=np.int64)
        return list(found.items())
