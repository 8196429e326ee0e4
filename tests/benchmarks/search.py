"""Dense search, side by side with FAISS and pyterrier_dr in one run: queries/s next to recall.

    python -m tests.benchmarks.search synthetic [--docs 1000000]
    python -m tests.benchmarks.search collections --model FOLDER

`synthetic` draws unit vectors of 384 numbers around 10,000 centres (a centre plus Gaussian noise of the same expected
length as the centre, normalised), and queries in the same way.  `collections` indexes real collections with
all-MiniLM-L6-v2 and compares nDCG@10 with a brute-force search over sentence-transformers' vectors.  Every engine is timed in
turn, `--repeats` times; medians and ranges are printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from pyterrier_lir.indexes import LIRDenseIndex
from tests.benchmarks.encode import DATA
from tests.benchmarks.rerank import gemm_rates

SIZE, CENTRES = 384, 10_000


def vectors(count: int, seed: int) -> np.ndarray:
    """Unit vectors (count, 384) around the centres."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, SIZE), dtype=np.float32)
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, CENTRES, count)] + rng.standard_normal((count, SIZE), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(folder: Path, count: int, **settings: Any) -> tuple[LIRDenseIndex, float]:
    """An index of that many vectors, and the seconds that it took."""

    def docs() -> Iterator[dict[str, Any]]:
        for start in range(0, count, 50_000):
            for i, row in enumerate(vectors(min(50_000, count - start), 1 + start)):
                yield {"docno": f"d{start + i}", "doc_vec": row}

    start = time.perf_counter()
    index = LIRDenseIndex(folder / "x.lir").indexer(**settings).index(docs())
    return index, time.perf_counter() - start


def timed(systems: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every call in turn, and its last result."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    found = {name: call() for name, call in systems.items()}
    for _ in range(repeats):
        for name, call in systems.items():
            start = time.perf_counter()
            found[name] = call()
            times[name].append(time.perf_counter() - start)
    return times, found


def rows(times: dict[str, list[float]], count: int, notes: dict[str, str]) -> None:
    for name, seconds in times.items():
        print(
            f"| {name} | {count / median(seconds):,.1f} ({count / max(seconds):,.1f}-{count / min(seconds):,.1f}) | "
            f"{notes.get(name, '')} |",
            flush=True,
        )


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]))


def synthetic(arguments: argparse.Namespace) -> None:
    """Exact search against FAISS Flat; approximate engines against pyterrier_dr's at their recall."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    queries = vectors(arguments.queries, 7)
    with tempfile.TemporaryDirectory() as folder:
        index, seconds = build(Path(folder), arguments.docs)
        print(f"{arguments.docs:,} vectors written in {seconds:.0f} s, drawing them included")
        start = time.perf_counter()
        len(LIRDenseIndex(Path(folder) / "x.lir")), LIRDenseIndex(Path(folder) / "x.lir").shards
        print(f"opened in {(time.perf_counter() - start) * 1e3:.1f} ms")
        flat = faiss.IndexFlatIP(SIZE)
        for _, block in index.blocks(65_536):
            flat.add(np.ascontiguousarray(block.numpy()))
        print("| system | queries/s | same documents |\n|---|---|---|")
        for k in (1_000, 10):
            systems = {
                f"exact, top {k:,}": lambda k=k: index.retriever(num_results=k).searcher.search(queries, k)[0],
                f"FAISS Flat, top {k:,}": lambda k=k: flat.search(queries, k)[1],
            }
            times, found = timed(systems, arguments.repeats)
            same = recall(found[f"exact, top {k:,}"], found[f"FAISS Flat, top {k:,}"])
            rows(times, len(queries), {f"exact, top {k:,}": f"{same:.6f}"})
        rate = gemm_rates()
        share = 2 * arguments.docs * SIZE * len(queries) / median(times["exact, top 10"])
        print("share of GEMM (top 10): " + ", ".join(f"{share / one:.2f} of {name}" for name, one in rate.items()))
        approximate(arguments, index, queries, found["exact, top 10"], Path(folder))


def approximate(
    arguments: argparse.Namespace, index: LIRDenseIndex, queries: np.ndarray, exact: np.ndarray, folder: Path
) -> None:
    """HNSW, PQ and IVF here and HNSW and IVF of pyterrier_dr, recall@10 next to queries/s, then those that reach 0.95."""
    systems: dict[str, Callable[[], np.ndarray]] = {}
    own = [("pq", {"k_factor": factor}) for factor in (4, 16)]
    own += [("hnsw", {"efSearch": ef}) for ef in (16, 32, 64, 128)]
    own += [*(("ivf", {"nprobe": count}) for count in (4, 8, 16, 32)), ("rabitq", {"k_factor": 16})]
    for name, options in own:
        start = time.perf_counter()
        searcher = index.retriever(name, num_results=10, **options).searcher
        print(f"{name} made in {time.perf_counter() - start:.0f} s", flush=True)
        systems[f"{name} {options}"] = lambda s=searcher: s.search(queries, 10)[0]
    if arguments.flex:
        systems |= flex_engines(index, queries, folder)
    times, found = timed(systems, arguments.repeats)
    print("| engine | queries/s | recall@10 |\n|---|---|---|")
    recalls = {name: recall(docids, exact) for name, docids in found.items()}
    rows(times, len(queries), {name: f"{value:.3f}" for name, value in recalls.items()})
    print("\n| fastest of its family at a recall of 0.95 or more | queries/s | recall@10 |\n|---|---|---|")
    for family in ("pq", "hnsw", "ivf", "rabitq", "pyterrier_dr faiss_hnsw", "pyterrier_dr faiss_ivf"):
        enough = [name for name in times if name.startswith(family) and recalls[name] >= 0.95]
        if enough:
            best = min(enough, key=lambda name: median(times[name]))
            rows({best: times[best]}, len(queries), {best: f"{recalls[best]:.3f}"})


def flex_engines(index: LIRDenseIndex, queries: np.ndarray, folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """pyterrier_dr's engines on the same vectors."""
    import pyterrier_dr

    flex = pyterrier_dr.FlexIndex(str(folder / "flex"))
    flex.index(index.get_corpus_iter())
    topics = pd.DataFrame({"qid": [str(i) for i in range(len(queries))], "query_vec": list(queries)})

    def numbers(retriever: Any) -> np.ndarray:
        found = retriever(topics)
        groups = found.groupby("qid")["docno"].apply(lambda d: [int(one[1:]) for one in d])
        return np.array([(groups.get(str(i), []) + [-1] * 10)[:10] for i in range(len(queries))])

    retrievers = {
        **{
            f"pyterrier_dr faiss_hnsw {ef}": flex.faiss_hnsw_retriever(neighbours=32, num_results=10, ef_search=ef)
            for ef in (128, 512, 1_024, 2_048)
        },
        **{
            f"pyterrier_dr faiss_ivf {n}": flex.faiss_ivf_retriever(num_results=10, n_probe=n)
            for n in (8, 32, 128, 512)
        },
        "pyterrier_dr torch": flex.torch_retriever(num_results=10),
    }
    return {name: lambda r=retriever: numbers(r) for name, retriever in retrievers.items()}


def collections(arguments: argparse.Namespace) -> None:
    """nDCG@10 of exact retrieval and of a brute-force search over sentence-transformers' vectors."""
    from ir_measures import calc_aggregate, nDCG
    from sentence_transformers import SentenceTransformer

    from pyterrier_lir import LIRIndexer, LIRRetriever

    peer = SentenceTransformer(arguments.model, device="cpu")
    print(
        "| collection | documents | nDCG@10 | brute force | indexed in, s | encoded there in, s |\n|---|---|---|---|---|---|"
    )
    for name in arguments.names:
        with gzip.open(DATA / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            docs = [{"docno": row["docno"], "text": f"{row.get('title', '')} {row['text']}".strip()}
                    for row in map(json.loads, lines)]  # fmt: skip
        topics = pd.read_csv(DATA / name / "topics.tsv", sep="\t", names=["qid", "query"], dtype=str, quoting=3)
        qrels = pd.read_csv(DATA / name / "qrels.txt", sep=r"\s+", names=["query_id", "_", "doc_id", "relevance"],
                            dtype={"query_id": str, "doc_id": str})  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            LIRIndexer(arguments.model, f"{folder}/x.lir").index(docs)
            ours = time.perf_counter() - start
            run = LIRRetriever(arguments.model, f"{folder}/x.lir", num_results=1_000)(topics)
        start = time.perf_counter()
        matrix = peer.encode([doc["text"] for doc in docs], batch_size=8)
        theirs = time.perf_counter() - start
        scores = peer.encode(topics["query"].tolist()) @ matrix.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :1_000]
        names = np.array([doc["docno"] for doc in docs], dtype=object)
        brute = pd.DataFrame({"query_id": topics["qid"].repeat(best.shape[1]).to_numpy(), "doc_id": names[best].ravel(),
                              "score": np.take_along_axis(scores, best, 1).ravel()})  # fmt: skip
        one, other = (
            calc_aggregate([nDCG @ 10], qrels, frame)[nDCG @ 10]
            for frame in (run.rename(columns={"qid": "query_id", "docno": "doc_id"}), brute)
        )
        print(
            f"| {name} | {len(docs):,} | {one:.4f} | {other:.4f} | {ours:.0f} | {theirs:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("synthetic", "collections"))
    parser.add_argument("--docs", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flex", action="store_true", help="pyterrier_dr's engines too")
    parser.add_argument("--model", help="folder of all-MiniLM-L6-v2")
    parser.add_argument(
        "--names", nargs="+", default=["vaswani", "cranfield", "medline", "cisi", "nfcorpus", "scifact"]
    )
    arguments = parser.parse_args()
    {"synthetic": synthetic, "collections": collections}[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
