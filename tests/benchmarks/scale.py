"""Sizes, memory and times of indexes, measured on synthetic ones and projected to MS MARCO.

    python -m tests.benchmarks.scale [--docs 100000 400000]

For each kind of vectors (drawn as in the benchmarks of searching: dense of 384 numbers, 119 terms, 68 tokens of 128
numbers) an index is written and searched in another process.  Bytes, seconds and anonymous memory are measured, and
bytes and seconds for a document are multiplied by the 8,841,823 passages of MS MARCO v1 and the 138,364,198 of v2.
Encoding is measured by `tests.benchmarks.encode`.  Anonymous memory is what the process needs; pages of the
memory-mapped index come and go as the machine has room for them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import search, search_multi_vector, search_sparse

V1, V2 = 8_841_823, 138_364_198
SEARCH = """
import json, sys, time
import torch
from pyterrier_lir import open_index
from tests.benchmarks.scale import queries_of

def anonymous():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

queries = queries_of(sys.argv[2])
start = time.perf_counter()
index = open_index(sys.argv[1])
len(index), index.shards
opened = time.perf_counter() - start
before = anonymous()
retriever = index.retriever(num_results=100)
retriever.nearest(queries)
start = time.perf_counter()
retriever.nearest(queries)
print(json.dumps([opened, time.perf_counter() - start, before, anonymous()]))
"""


def queries_of(kind: str) -> Any:
    """32 queries."""
    if kind == "dense":
        return search.vectors(32, 7)
    if kind == "sparse":
        return search_sparse.draw(32, 24, np.random.default_rng(7))
    return search_multi_vector.queries(32)


def dense(folder: Path, count: int, **settings: Any) -> None:
    """An index of dense vectors."""
    search.build(folder, count, **settings)


def sparse(folder: Path, count: int, **settings: Any) -> None:
    """An index of sparse vectors."""
    search_sparse.our_index(folder / "x.lir", search_sparse.draw(count, 119, np.random.default_rng(0)), **settings)


def multi_vector(folder: Path, count: int, **settings: Any) -> None:
    """An index of token vectors."""
    search_multi_vector.build(folder / "x.lir", search_multi_vector.documents(count), **settings)


SYSTEMS: list[tuple[str, Callable[..., None], int, dict[str, Any]]] = [
    ("dense, float32", dense, 1, {"dtype": "float32"}),
    ("dense, float16", dense, 1, {"dtype": "float16"}),
    ("dense, int8", dense, 1, {"dtype": "int8"}),
    ("sparse, float32", sparse, 1, {"impacts": "float32"}),
    ("sparse, uint8", sparse, 1, {"impacts": "uint8"}),
    ("multi_vector, float16", multi_vector, 8, {"dtype": "float16"}),
    ("multi_vector, bits=2", multi_vector, 8, {"bits": 2}),
]


def measure(name: str, make: Callable[..., None], count: int, settings: dict[str, Any]) -> None:
    """Print a row."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make(Path(folder), count, **settings)
        built = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        run = subprocess.run([sys.executable, "-c", SEARCH, f"{folder}/x.lir", make.__name__], check=True,
                             capture_output=True, text=True)  # fmt: skip
        opened, seconds, before, after = json.loads(run.stdout.splitlines()[-1])
    print(
        f"| {name} | {count:,} | {size / count:,.0f} | {size / count * V1 / 1e9:,.1f} | {size / count * V2 / 1e9:,.0f} | "
        f"{count / built:,.0f} | {opened * 1e3:.1f} ms | {32 / seconds:,.0f} | {after - before:,.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, nargs="+", default=[100_000, 400_000])
    arguments = parser.parse_args()
    print(
        "| vectors | documents | bytes each | MS MARCO v1, GB | v2, GB | documents/s written, drawing included | "
        "opened in | queries/s, top 100 | memory of the search, MiB |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, make, fewer, settings in SYSTEMS:
        for count in arguments.docs:
            measure(name, make, count // fewer, settings)


if __name__ == "__main__":
    sys.exit(main())
