"""Index and search configurations of Lightning IR: thin names over the kinds of indexes and their engines.

An index configuration says how documents are stored and which engine is made of them; the index remembers the engine
(`engines/chosen.json`), so that a search configuration has to say only how to search.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..config import Kind
from .storage import write_json

if TYPE_CHECKING:
    from .index import LIRIndex
    from .retriever import Retriever

Options = dict[str, Any]
Imputation = Literal["min", "gather", "zero"]


@dataclass(frozen=True)
class IndexConfig:
    """How documents are indexed.

    Attributes:
        ENGINES: the engine for each kind of vectors that the configuration is for.
    """

    ENGINES: ClassVar[dict[Kind, str]] = {}

    def settings(self, kind: Kind) -> Options:
        """Settings of the index of a kind, such as `bits`."""
        return {}

    def options(self, kind: Kind) -> Options:
        """Options of the engine that belong to what it makes of the index."""
        return {}

    def engine(self, kind: Kind) -> str:
        """The engine for vectors of a kind.

        Raises:
            ValueError: if the configuration is for others.
        """
        if kind not in self.ENGINES:
            raise ValueError(
                f"{type(self).__name__} indexes {' and '.join(self.ENGINES)} vectors; the model makes {kind} vectors: "
                f"take {' or '.join(one.__name__ for one in INDEX_CONFIGS if kind in one.ENGINES)}."
            )
        return self.ENGINES[kind]

    def finish(self, index: LIRIndex) -> None:
        """Make what the engine needs, and let the index remember which it is."""
        engine = self.engine(index.KIND)
        options = {name: value for name, value in self.options(index.KIND).items() if value is not None}
        _ = index.retriever(engine, options=options).searcher
        path = _chosen(index)
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"engine": engine, "options": options})


@dataclass(frozen=True)
class FaissFlatIndexConfig(IndexConfig):
    """Exact search by FAISS; of token vectors by this package's MaxSim."""

    ENGINES: ClassVar[dict[Kind, str]] = {"dense": "flat", "multi_vector": "exact"}


@dataclass(frozen=True)
class _FaissTrained(IndexConfig):
    """What is trained on a sample, whose size follows from what is trained: `num_train_embeddings` is not needed."""

    num_train_embeddings: int | None = None

    def options(self, kind: Kind) -> Options:
        """Of token vectors, the number of centroids."""
        return {"ncentroids": getattr(self, "num_centroids", None)} if kind == "multi_vector" else self._faiss()

    def _faiss(self) -> Options:
        raise NotImplementedError


@dataclass(frozen=True)
class FaissIVFIndexConfig(_FaissTrained):
    """Inverted lists of vectors by FAISS; of token vectors PLAID's.

    Attributes:
        num_centroids: lists; None for 4 times the root of the number of vectors.
        ef_construction: kept for Lightning IR's files; lists are found exactly.
    """

    num_centroids: int | None = None
    ef_construction: int = 40

    ENGINES: ClassVar[dict[Kind, str]] = {"dense": "ivf", "multi_vector": "plaid"}

    def _faiss(self) -> Options:
        return {"nlist": self.num_centroids}


@dataclass(frozen=True)
class FaissPQIndexConfig(_FaissTrained):
    """Product-quantised vectors by FAISS's fast scan, the best ones scored again exactly; of token vectors PLAID's.

    A code has `num_subquantizers * n_bits` bits, in parts of 4.
    """

    num_subquantizers: int = 16
    n_bits: int = 8

    ENGINES: ClassVar[dict[Kind, str]] = {"dense": "pq", "multi_vector": "plaid"}

    def _faiss(self) -> Options:
        return {"M": max(1, self.num_subquantizers * self.n_bits // 4)}


@dataclass(frozen=True)
class FaissIVFPQIndexConfig(_FaissTrained):
    """Inverted lists of product-quantised vectors by FAISS; of token vectors PLAID's."""

    num_centroids: int | None = None
    ef_construction: int = 40
    num_subquantizers: int = 16
    n_bits: int = 8

    ENGINES: ClassVar[dict[Kind, str]] = {"dense": "ivfpq", "multi_vector": "plaid"}

    def _faiss(self) -> Options:
        return {"nlist": self.num_centroids, "M": self.num_subquantizers, "nbits": self.n_bits}


@dataclass(frozen=True)
class FaissHNSWIndexConfig(IndexConfig):
    """A graph of neighbours by FAISS, each with `M` of them."""

    M: int = 32
    ef_construction: int = 200

    ENGINES: ClassVar[dict[Kind, str]] = {"dense": "hnsw"}

    def options(self, kind: Kind) -> Options:
        """In FAISS's names."""
        return {"M": self.M, "efConstruction": self.ef_construction}


@dataclass(frozen=True)
class TorchDenseIndexConfig(IndexConfig):
    """Exact search by blocks of products."""

    ENGINES: ClassVar[dict[Kind, str]] = {"dense": "exact", "multi_vector": "exact"}


@dataclass(frozen=True)
class TorchSparseIndexConfig(IndexConfig):
    """Exact search in postings."""

    ENGINES: ClassVar[dict[Kind, str]] = {"sparse": "exact"}


@dataclass(frozen=True)
class SeismicIndexConfig(IndexConfig):
    """Approximate search in postings by Seismic (arXiv:2404.18812); `batch_size` is kept for Lightning IR's files."""

    num_postings: int = 3_500
    centroid_fraction: float = 0.1
    min_cluster_size: int = 2
    summary_energy: float = 0.4
    num_k_nearest_neighbors: int = 0
    batch_size: int | None = None
    num_threads: int = 0

    ENGINES: ClassVar[dict[Kind, str]] = {"sparse": "seismic"}

    def options(self, kind: Kind) -> Options:
        """In Seismic's names."""
        return {
            "n_postings": self.num_postings, "centroid_fraction": self.centroid_fraction,
            "min_cluster_size": self.min_cluster_size, "summary_energy": self.summary_energy,
            "n_knn": self.num_k_nearest_neighbors, "num_threads": self.num_threads,
        }  # fmt: skip


@dataclass(frozen=True)
class PlaidIndexConfig(IndexConfig):
    """Token vectors as a centroid and `n_bits` a number, searched in PLAID's way (arXiv:2205.09707).

    Attributes:
        num_centroids: None for a number that follows from that of the token vectors.
        k_means_iters, seed: kept for Lightning IR's files.
    """

    num_centroids: int | None = None
    k_means_iters: int = 4
    n_bits: int = 2
    seed: int = 42

    ENGINES: ClassVar[dict[Kind, str]] = {"multi_vector": "plaid"}

    def settings(self, kind: Kind) -> Options:
        """Of the compressed index."""
        return {"bits": self.n_bits, "ncentroids": self.num_centroids}


INDEX_CONFIGS: tuple[type[IndexConfig], ...] = (
    FaissFlatIndexConfig, FaissIVFIndexConfig, FaissPQIndexConfig, FaissIVFPQIndexConfig, FaissHNSWIndexConfig,
    TorchDenseIndexConfig, TorchSparseIndexConfig, SeismicIndexConfig, PlaidIndexConfig,
)  # fmt: skip


@dataclass(frozen=True)
class SearchConfig:
    """How an index is searched: `k` documents of each query.

    Attributes:
        ENGINES: for each kind of vectors the engines that the configuration is for; the first where the index
            remembers none of them.
        NAMES: for some engines, their options by the names that the configuration has for them.
    """

    k: int = 10

    ENGINES: ClassVar[dict[Kind, tuple[str, ...]]] = {}
    NAMES: ClassVar[dict[str, dict[str, str]]] = {}

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"{type(self).__name__}.k={self.k}; allowed: a positive number.")
        if getattr(self, "imputation_strategy", "gather") not in ("gather", "min"):
            raise ValueError(
                f"{type(self).__name__}: documents that are found are scored exactly, by all of their vectors; "
                "imputation_strategy='zero' is not offered."
            )

    def retriever(self, index: LIRIndex, **settings: Any) -> Retriever:
        """The retriever that searches an index so; `settings` are further ones of it.

        Raises:
            ValueError: if the configuration is for indexes of another kind.
        """
        if index.KIND not in self.ENGINES:
            raise ValueError(
                f"{type(self).__name__} searches {' and '.join(self.ENGINES)} vectors; {index!r} holds {index.KIND} "
                f"vectors: take {' or '.join(one.__name__ for one in SEARCH_CONFIGS if index.KIND in one.ENGINES)}."
            )
        allowed = self.ENGINES[index.KIND]
        path = _chosen(index)
        chosen = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        engine = chosen.get("engine")
        options = dict(chosen["options"]) if engine in allowed else {}
        if engine not in allowed:
            engine = allowed[0]
        given = asdict(self)
        options |= {option: given[name] for option, name in self.NAMES.get(engine, {}).items()}
        return index.retriever(engine, num_results=self.k, options=options, **settings)


@dataclass(frozen=True)
class FaissSearchConfig(SearchConfig):
    """Search by FAISS; of token vectors by this package's MaxSim or PLAID, as the index was made for.

    Attributes:
        candidate_k: of token vectors, the documents that are scored exactly.
        imputation_strategy: kept for Lightning IR's files; what is found is scored exactly.
        n_probe: lists that are searched.
        ef_search: candidates of a graph.
    """

    candidate_k: int = 100
    imputation_strategy: Imputation = "gather"
    n_probe: int = 1
    ef_search: int = 16

    ENGINES: ClassVar[dict[Kind, tuple[str, ...]]] = {
        "dense": ("flat", "ivf", "ivfpq", "pq", "hnsw"),
        "multi_vector": ("exact", "plaid"),
    }
    NAMES: ClassVar[dict[str, dict[str, str]]] = {
        "ivf": {"nprobe": "n_probe"},
        "ivfpq": {"nprobe": "n_probe"},
        "hnsw": {"efSearch": "ef_search"},
        "plaid": {"nprobe": "n_probe", "ndocs": "candidate_k"},
    }


@dataclass(frozen=True)
class TorchDenseSearchConfig(SearchConfig):
    """Exact search by blocks of products."""

    ENGINES: ClassVar[dict[Kind, tuple[str, ...]]] = {"dense": ("exact",), "multi_vector": ("exact",)}


@dataclass(frozen=True)
class TorchSparseSearchConfig(SearchConfig):
    """Exact search in postings."""

    ENGINES: ClassVar[dict[Kind, tuple[str, ...]]] = {"sparse": ("exact",)}


@dataclass(frozen=True)
class SeismicSearchConfig(SearchConfig):
    """Approximate search in postings by Seismic; `candidate_k` is kept for Lightning IR's files."""

    candidate_k: int = 100
    imputation_strategy: Imputation = "min"
    query_cut: int = 10
    heap_factor: float = 0.7
    num_threads: int = 1

    ENGINES: ClassVar[dict[Kind, tuple[str, ...]]] = {"sparse": ("seismic",)}
    NAMES: ClassVar[dict[str, dict[str, str]]] = {
        "seismic": {name: name for name in ("query_cut", "heap_factor", "num_threads")}
    }


@dataclass(frozen=True)
class PlaidSearchConfig(SearchConfig):
    """PLAID: `n_cells` centroids of each query vector lead to documents; `candidate_k` are looked at closer."""

    candidate_k: int = 256
    n_cells: int = 1
    centroid_score_threshold: float = 0.5

    ENGINES: ClassVar[dict[Kind, tuple[str, ...]]] = {"multi_vector": ("plaid",)}
    NAMES: ClassVar[dict[str, dict[str, str]]] = {
        "plaid": {"nprobe": "n_cells", "t_cs": "centroid_score_threshold", "ndocs": "candidate_k"}
    }


SEARCH_CONFIGS: tuple[type[SearchConfig], ...] = (
    FaissSearchConfig, TorchDenseSearchConfig, TorchSparseSearchConfig, SeismicSearchConfig, PlaidSearchConfig,
)  # fmt: skip


def _chosen(index: LIRIndex) -> Path:
    return index.engine_folder("chosen.json")
