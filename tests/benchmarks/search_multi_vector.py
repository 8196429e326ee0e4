"""Multi-vector scoring and search on the CPU: documents/s of MaxSim over candidates, PLAID next to exact search.

    python -m tests.benchmarks.search_multi_vector score [--repeats 5]
    python -m tests.benchmarks.search_multi_vector search [--docs 100000]

Token vectors have 128 numbers and length 1.  A vocabulary of 8,192 centres is drawn from a normal distribution; a topic
is 300 of them; a document of about 70 tokens (log-normal) takes three quarters of its tokens from one of 400 topics,
the rest from the vocabulary, both by Zipf's law; each token's vector is its centre plus normal noise of 0.6 times the
centre's expected length, normalised.  A query is 32 tokens of a document, with noise of their own.

`score` scores 1,000 candidates of one query: vectors in memory against the padded einsum of PyLate's `colbert_scores`
(padding not counted), and from indexes, reading included.  Shares are those of the machine's own float32 matrix
products, measured in between: PyTorch's and oneDNN's.  Every system is timed in turn; medians and ranges are printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from pyterrier_lir.config import BiEncoderConfig
from pyterrier_lir.indexes import LIRMultiVectorIndex
from pyterrier_lir.memory import keep_freed_memory
from pyterrier_lir.models.scores import late_interaction
from pyterrier_lir.vectors import TokenVectors
from tests.benchmarks.rerank import gemm_rates
from tests.benchmarks.search import recall, timed

SIZE, WORDS, TOPICS, OF_TOPIC, QUERY = 128, 8_192, 400, 300, 32
CONFIG = BiEncoderConfig(query_pooling_strategy=None, doc_pooling_strategy=None, normalization_strategy="l2")


def noisy(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors (N, 128) of words (N,)."""
    centres = np.random.default_rng(0).standard_normal((WORDS, SIZE), dtype=np.float32)
    rows = centres[words] + 0.6 * rng.standard_normal((len(words), SIZE), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def zipf(rng: np.random.Generator, size: int, below: int) -> np.ndarray:
    """Numbers (size,) below `below`, the first the most frequent."""
    return np.minimum(below ** rng.random(size), below - 1).astype(np.int64)


def words(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(words, offsets) of that many documents."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(1).permuted(np.tile(np.arange(WORDS), (TOPICS, 1)), axis=1)[:, :OF_TOPIC]
    offsets = np.concatenate([[0], np.cumsum(np.clip(rng.lognormal(np.log(66), 0.4, count), 4, 180).astype(np.int64))])
    topic = np.repeat(rng.integers(0, TOPICS, count), np.diff(offsets))
    own, common = topics[topic, zipf(rng, len(topic), OF_TOPIC)], zipf(rng, len(topic), WORDS)
    return np.where(rng.random(len(topic)) < 0.75, own, common), offsets


def documents(count: int, part: int = 5_000) -> Iterator[TokenVectors]:
    """Documents in parts."""
    for start in range(0, count, part):
        chosen, offsets = words(min(part, count - start), 100 + start)
        yield TokenVectors(noisy(chosen, np.random.default_rng(200 + start)), offsets)


def queries(count: int) -> TokenVectors:
    """Queries, each from a document."""
    chosen, offsets = words(count, 100)
    rng = np.random.default_rng(7)
    rows = [rng.choice(chosen[start:stop], QUERY) for start, stop in pairwise(offsets)]
    return TokenVectors(noisy(np.concatenate(rows), rng), QUERY * np.arange(count + 1))


def build(folder: Path, parts: list[TokenVectors] | Iterator[TokenVectors], **settings: Any) -> LIRMultiVectorIndex:
    """An index of documents."""
    rows = (row for part in parts for row in part.rows())
    docs = ({"docno": f"d{i}", "doc_embs": row} for i, row in enumerate(rows))
    index = LIRMultiVectorIndex(folder)
    index.indexer(config=CONFIG, **settings).index(docs)
    return index


def padded(query: TokenVectors, docs: TokenVectors) -> Callable[[], np.ndarray]:
    """PyLate's scores of padded documents."""
    width = int(docs.lengths.max())
    values, mask = torch.zeros(len(docs), width, SIZE), torch.zeros(len(docs), width)
    for i, row in enumerate(docs.rows()):
        values[i, : len(row)], mask[i, : len(row)] = torch.from_numpy(row), 1
    vectors = torch.from_numpy(query.values)

    def score() -> np.ndarray:
        with torch.inference_mode():
            products = torch.einsum("sh,bth->bst", vectors, values) * mask[:, None]
            return products.max(-1).values.sum(-1).numpy()

    return score


def score(arguments: argparse.Namespace) -> None:
    """Scores of a thousand candidates."""
    keep_freed_memory()
    query, parts = queries(1), list(documents(1_000))
    docs, zeros, all_docs = parts[0], np.zeros(1_000, np.int64), np.arange(1_000)
    systems: dict[str, Callable[[], np.ndarray]] = {
        "in memory": lambda: late_interaction(CONFIG, query, docs, zeros, all_docs),
        "padded einsum": padded(query, docs),
    }
    with tempfile.TemporaryDirectory() as folder:
        for settings in ({"dtype": "float32"}, {"dtype": "float16"}, {"bits": 2}):
            name = ", ".join(f"{key}={value}" for key, value in settings.items())
            index = build(Path(folder) / name, parts, **settings)
            systems[f"from an index, {name}"] = lambda i=index: i.scores_of(query, zeros, all_docs)
            systems[f"only reading, {name}"] = lambda i=index: [len(block) for _, block in i.blocks(16_384)]
        rates = [gemm_rates()]
        times, found = timed(systems, arguments.repeats)
        rates.append(gemm_rates())
    np.testing.assert_allclose(found["in memory"], found["padded einsum"], rtol=1e-5)
    gemm = {name: median(rate[name] for rate in rates) for name in rates[0]}
    flop = 2 * len(docs.values) * SIZE * QUERY
    print("GEMM float32: " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in gemm.items()))
    print("| system | ms | documents/s | x | share |\n|---|---|---|---|---|")
    for name, seconds in times.items():
        middle = median(seconds)
        share = " / ".join(f"{flop / middle / rate:.2f}" for rate in gemm.values())
        print(
            f"| {name} | {middle * 1e3:.2f} ({min(seconds) * 1e3:.2f}-{max(seconds) * 1e3:.2f}) | "
            f"{1_000 / middle:,.0f} | {median(times['padded einsum']) / middle:.1f} | {share} |"
        )


def search(arguments: argparse.Namespace) -> None:
    """Exact search and PLAID on the same index."""
    given = queries(arguments.queries)
    with tempfile.TemporaryDirectory() as folder:
        for settings in ({"dtype": "float16"}, {"bits": 2}):
            start = time.perf_counter()
            index = build(Path(folder) / "x.lir", documents(arguments.docs), mode="overwrite", **settings)
            built, start = time.perf_counter() - start, time.perf_counter()
            plaid = index.retriever("plaid").searcher
            made = time.perf_counter() - start
            size = sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file())
            print(
                f"\n{settings}: {arguments.docs:,} documents, {int(index.lengths.sum()):,} tokens, built in "
                f"{built:.0f} s (drawing included), PLAID made in {made:.0f} s, {size / 1e6:,.0f} MB with it"
            )
            exact = index.retriever("exact").searcher
            print("| system | queries/s | recall |\n|---|---|---|")
            for k in (10, 100):
                systems = {
                    f"{name}, top {k}": lambda searcher=searcher, k=k: searcher.search(given, k)[0]
                    for name, searcher in (("exact", exact), ("plaid", plaid))
                }
                times, found = timed(systems, arguments.repeats)
                for name, seconds in times.items():
                    print(
                        f"| {name} | {len(given) / median(seconds):,.1f} ({len(given) / max(seconds):,.1f}-"
                        f"{len(given) / min(seconds):,.1f}) | {recall(found[name], found[f'exact, top {k}']):.3f} |",
                        flush=True,
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("score", "search"))
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    {"score": score, "search": search}[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
