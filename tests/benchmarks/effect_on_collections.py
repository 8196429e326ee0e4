"""Effectiveness of re-ranking stored BM25 runs on real collections, with paired tests.

python -m tests.benchmarks.effect_on_collections MODEL [COLLECTION ...]
"""

from __future__ import annotations

import sys
import time

import pyterrier as pt
from ir_measures import RR, nDCG

from pyterrier_lir import LIRReRanker
from pyterrier_lir.demo import resolve
from tests import shared_collections as collections


def main(model: str, names: list[str]) -> None:
    """Print one row a collection."""
    for name in names:
        first = collections.run(name)
        start = time.perf_counter()
        reranked = LIRReRanker(resolve(model))(first)
        seconds = time.perf_counter() - start
        systems = [pt.Transformer.from_df(frame) for frame in (first, reranked)]
        table = pt.Experiment(
            systems, collections.topics(name), collections.qrels(name), [nDCG @ 10, RR @ 10], names=["BM25", "re-ranked"],
            baseline=0,
        )  # fmt: skip
        values = " ".join(
            f"{m} {table[m][0]:.3f} -> {table[m][1]:.3f} (p={table[m + ' p-value'][1]:.3f})"
            for m in ("nDCG@10", "RR@10")
        )
        print(f"{name}: {first['qid'].nunique()} queries, {len(first)} pairs in {seconds:.0f} s: {values}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or ["medline", "cranfield", "vaswani", "scifact", "trec-dl-2019", "trec-dl-2020"])
