"""Speed of learned sparse search, side by side with PISA, PyTorch, scipy and Seismic in one run.

    python -m tests.benchmarks.search_sparse search [--docs 500000] [--queries 128] [--k 1000] [--repeats 5]
    python -m tests.benchmarks.search_sparse search --collection FOLDER
    python -m tests.benchmarks.search_sparse seismic [--docs 50000]

Documents have 119 and queries 24 different terms of 30,522, as those of SPLADE models have.  Terms are drawn by a Zipf
distribution, the r-th with a probability in proportion to 1 / (r + 30) (the most frequent is in 4 of 10 documents);
weights are log-normal (mu -0.5, sigma 0.8), multiplied by 100 and rounded, so that PISA, which stores whole numbers,
has the same ones.  Terms and weights are independent, unlike those of a model: nothing can be skipped for its bound.
With `--collection` (such as msmarco-passage-mini) weights are those of BM25, and queries real.

`search`: every system searches the same queries for the k best documents, in turn, `--repeats` times; medians and
ranges are printed.  PyTorch's product of sparse matrices is what Lightning IR searches with.
`seismic`: time of the build and of the search, and how many of the exact results are found.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array

from pyterrier_lir.config import BiEncoderConfig
from pyterrier_lir.indexes import LIRSparseIndex
from pyterrier_lir.indexes.building import Plan, build
from pyterrier_lir.indexes.indexer import make_header

VOCABULARY = 30_522


def draw(rows: int, per_row: int, rng: np.random.Generator) -> csr_array:
    """Vectors with so many different terms each."""
    share = 1 / (np.arange(VOCABULARY) + 30.0)
    share = np.cumsum(share / share.sum())
    parts = []
    for start in range(0, rows, 50_000):
        shape = (min(50_000, rows - start), int(per_row * 1.35))
        terms = np.sort(np.searchsorted(share, rng.random(shape)).clip(max=VOCABULARY - 1).astype(np.int32), axis=1)
        lottery = rng.random(shape, dtype=np.float32)
        lottery[:, 1:][terms[:, 1:] == terms[:, :-1]] = 2  # repeated terms go first
        chosen = lottery <= np.partition(lottery, per_row - 1, axis=1)[:, per_row - 1 : per_row].clip(max=1)
        weights = (rng.lognormal(-0.5, 0.8, chosen.sum()) * 100).round().clip(1).astype(np.float32)
        offsets = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))])
        parts.append(csr_array((weights, terms[chosen], offsets.astype(np.int32)), shape=(shape[0], VOCABULARY)))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.indptr) for part in parts]))])
    values, terms = (np.concatenate([getattr(part, name) for part in parts]) for name in ("data", "indices"))
    return csr_array((values, terms, offsets), shape=(rows, VOCABULARY))


def bm25(folder: Path, count: int) -> tuple[csr_array, csr_array]:
    """BM25's weights (k1 0.9, b 0.4) of a collection's words, times 100, and the words of real queries."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    topics = (folder / "topics.dev-small.tsv").read_text(encoding="utf-8").splitlines()[:count]
    ids: dict[str, int] = {}
    docs, queries = (
        [[ids.setdefault(word, len(ids)) for word in re.findall(r"\w+", text.lower())] for text in part]
        for part in (texts, topics)
    )
    tf, asked = (
        csr_array((np.ones(sum(map(len, rows)), np.float32), np.concatenate(rows).astype(np.int32),
                   np.cumsum([0, *map(len, rows)])), shape=(len(rows), len(ids)))
        for rows in (docs, queries)
    )  # fmt: skip
    for vectors in (tf, asked):
        vectors.sum_duplicates()
    lengths = np.repeat(tf.sum(axis=1), np.diff(tf.indptr))
    df = np.bincount(tf.indices, minlength=len(ids))[tf.indices]
    saturated = tf.data * 1.9 / (tf.data + 0.9 * (0.6 + 0.4 * lengths / lengths.mean()))
    tf.data = (100 * np.log(1 + (len(texts) - df + 0.5) / (df + 0.5)) * saturated).round().clip(1).astype(np.float32)
    return tf, asked


def dicts(vectors: csr_array) -> Iterator[dict[str, float]]:
    """A dictionary for each row."""
    for start, stop in zip(vectors.indptr[:-1].tolist(), vectors.indptr[1:].tolist(), strict=True):
        names = (f"t{i}" for i in vectors.indices[start:stop].tolist())
        yield dict(zip(names, vectors.data[start:stop].tolist(), strict=True))


def our_index(path: Path, docs: csr_array, impacts: str) -> LIRSparseIndex:
    """The index of this package, built from arrays as an encoder gives them."""
    index = LIRSparseIndex(path)
    terms = [f"t{i}" for i in range(docs.shape[1])]
    header = make_header(index, BiEncoderConfig.splade(), len(terms), {}, (), {"impacts": impacts, "terms": terms})

    def encode(stream: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], csr_array]]:
        for start in range(0, docs.shape[0], 4_096):
            part = docs[start : start + 4_096]
            yield [next(stream) for _ in range(part.shape[0])], part

    plan = Plan(path, "create", header, lambda folder: index._writer(folder, header))
    build(plan, ({"docno": str(i)} for i in range(docs.shape[0])), encode)
    index.reopen()
    return index


def pisa(path: Path, docs: csr_array, threads: int) -> Any:
    """PISA's index of the same weights."""
    from pyterrier_pisa import PisaIndex

    index = PisaIndex(str(path), stemmer="none", threads=threads)
    index.toks_indexer(scale=1.0).index({"docno": str(i), "toks": toks} for i, toks in enumerate(dicts(docs)))
    return index


def torch_search(docs: csr_array, queries: csr_array, k: int) -> Callable[[], Any]:
    """Lightning IR's way: one product of sparse matrices for each batch of queries, made dense, and its best."""
    warnings.filterwarnings("ignore", message="Sparse")
    by_term = torch.sparse_csr_tensor(
        torch.from_numpy(docs.indptr.astype(np.int64)), torch.from_numpy(docs.indices.astype(np.int64)),
        torch.from_numpy(docs.data), size=docs.shape,
    )  # fmt: skip

    def search() -> list[Any]:
        found = []
        for start in range(0, queries.shape[0], 16):
            batch = torch.from_numpy(queries[start : start + 16].toarray())
            found.append((by_term @ batch.T).T.topk(k))
        return found

    return search


def scipy_search(docs: csr_array, queries: csr_array, k: int) -> Callable[[], Any]:
    """scipy's product of sparse matrices, and its best."""
    by_term = docs.T.tocsr()

    def search() -> list[Any]:
        found = []
        for row in range(queries.shape[0]):
            scores = queries[[row]] @ by_term
            kept = np.argpartition(scores.data, -k)[-k:]
            found.append(scores.indices[kept[np.argsort(-scores.data[kept], kind="stable")]])
        return found

    return search


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result)."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def table(rows: list[tuple[str, int, list[float], float | None]]) -> None:
    """A Markdown table; the first row is what others are compared with."""
    print("| system | queries/s, median (lowest-highest) | ms a query | of the first | build, s |")
    print("|---|---|---|---|---|")
    first = median(rows[0][2]) / rows[0][1]
    for name, count, seconds, built in rows:
        middle = median(seconds)
        print(
            f"| {name} | {count / middle:,.0f} ({count / max(seconds):,.0f}-{count / min(seconds):,.0f}) | "
            f"{middle / count * 1e3:.2f} | x{first / (middle / count):.2f} | {'' if built is None else f'{built:.1f}'} |"
        )


def search(arguments: argparse.Namespace) -> None:
    """Every system in turn on the same queries."""
    rng = np.random.default_rng(0)
    if arguments.collection:
        docs, queries = bm25(arguments.collection, arguments.queries)
    else:
        docs, queries = draw(arguments.docs, 119, rng), draw(arguments.queries, 24, rng)
    slow = queries[: max(1, arguments.queries // 8)]
    k, threads = arguments.k, torch.get_num_threads()
    frame = pd.DataFrame({"qid": [str(i) for i in range(queries.shape[0])], "query_toks": list(dicts(queries))})
    postings = np.bincount(docs.indices, minlength=docs.shape[1])[queries.indices].sum() / queries.shape[0]
    print(
        f"{docs.shape[0]:,} documents, {queries.shape[0]} queries of {postings:,.0f} postings, k={k}, {threads} threads\n"
    )
    systems: dict[str, tuple[int, Callable[[], Any], float | None]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for impacts in ("float32", "float16", "uint8"):
            seconds, index = timed(lambda impacts=impacts: our_index(Path(folder) / impacts, docs, impacts))
            retriever = index.retriever(num_results=k)
            systems[f"pyterrier_lir {impacts}"] = (len(frame), lambda r=retriever: r.nearest(queries), seconds)
            if impacts == "float32":
                systems["pyterrier_lir float32, frames"] = (len(frame), lambda r=retriever: r(frame), seconds)
                alone = index.retriever(num_results=k, threads=1)
                systems["pyterrier_lir float32, 1 thread"] = (len(frame), lambda r=alone: r.nearest(queries), seconds)
                systems["pyterrier_lir float32, query by query"] = (
                    len(frame), lambda r=retriever: [r.search(queries[[row]]) for row in range(len(frame))], seconds,
                )  # fmt: skip
        if importlib.util.find_spec("pyterrier_pisa"):
            seconds, index = timed(lambda: pisa(Path(folder) / "pisa", docs, threads))
            for how in ("block_max_wand", "maxscore", "block_max_maxscore", "ranked_or"):
                other = index.quantized(num_results=k, toks_scale=1.0, threads=threads, query_algorithm=how)
                systems[f"PISA {how}, frames"] = (slow.shape[0], lambda r=other: r(frame[: slow.shape[0]]), seconds)
        systems["scipy csr @ csr"] = (slow.shape[0], scipy_search(docs, slow, k), None)
        systems["torch csr @ dense, topk"] = (slow.shape[0], torch_search(docs, slow, k), None)
        for _, call, _ in systems.values():
            call()  # compiles, maps and warms
        times: dict[str, list[float]] = {name: [] for name in systems}
        for _ in range(arguments.repeats):
            for name, (_, call, _) in systems.items():
                time.sleep(0.5)  # threads of the one before wait for work at full speed
                times[name].append(timed(call)[0])
    table([(name, systems[name][0], times[name], systems[name][2]) for name in systems])


def seismic(arguments: argparse.Namespace) -> None:
    """The build and the search of Seismic against the exact engine."""
    rng = np.random.default_rng(0)
    docs, queries = draw(arguments.docs, 119, rng), draw(arguments.queries, 24, rng)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        seconds, index = timed(lambda: our_index(Path(folder) / "index", docs, "float32"))
        exact = index.retriever(num_results=arguments.k)
        expected, _ = exact.search(queries)
        times = [timed(lambda: exact.search(queries))[0] for _ in range(arguments.repeats)]
        rows = [("pyterrier_lir exact", queries.shape[0], times, seconds)]
        for query_cut, heap_factor in ((5, 0.9), (10, 0.7), (24, 0.5)):
            retriever = index.retriever(
                "seismic", num_results=arguments.k, query_cut=query_cut, heap_factor=heap_factor, n_postings=3_500
            )
            built, _ = timed(lambda r=retriever: r.searcher)
            found, _ = retriever.nearest(queries)
            recall = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, expected, strict=True)])
            times = [timed(lambda r=retriever: r.nearest(queries))[0] for _ in range(arguments.repeats)]
            name = f"Seismic, query_cut={query_cut}, heap_factor={heap_factor}: recall {recall:.3f}"
            rows.append((name, queries.shape[0], times, built))
    table(rows)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command, docs in ((search, 500_000), (seismic, 50_000)):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.add_argument("--docs", type=int, default=docs)
        sub.add_argument("--queries", type=int, default=128)
        sub.add_argument("--k", type=int, default=1_000)
        sub.add_argument("--repeats", type=int, default=5)
        sub.add_argument(
            "--folder", help="where indexes are built; the system's folder for temporary files if not given"
        )
        sub.add_argument("--collection", type=Path, help="folder of a collection: BM25's weights of its words")
        sub.set_defaults(command=command)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
