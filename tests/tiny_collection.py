"""A collection of eight sentences as files: documents, queries, judgements and two runs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tests.tiny_checkpoints import SENTENCES

QUERIES = {"q1": "measurement of rainfall in the mountains", "q2": "bread of flour and water", "q3": "tallest tower"}
QRELS = {("q1", "d2"): 2, ("q1", "d1"): 1, ("q2", "d4"): 1, ("q3", "d3"): 1}
RUN = {"q1": ["d1", "d2", "d0"], "q2": ["d4", "d1"], "q3": ["d0", "d3", "d5"]}


def write_collection(folder: Path) -> Path:
    """Write corpus.jsonl.gz, topics.tsv, qrels.txt, first.run.gz and second.run, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        for i, text in enumerate(SENTENCES):
            file.write(json.dumps({"docno": f"d{i}", "text": text}) + "\n")
    (folder / "topics.tsv").write_text("".join(f"{qid}\t{query}\n" for qid, query in QUERIES.items()))
    (folder / "qrels.txt").write_text("".join(f"{qid} 0 {docno} {label}\n" for (qid, docno), label in QRELS.items()))
    with gzip.open(folder / "first.run.gz", "wt", encoding="utf-8") as file:
        file.write(_trec(RUN))
    (folder / "second.run").write_text(_trec({qid: docnos[::-1] for qid, docnos in RUN.items()}))
    return folder


def _trec(run: dict[str, list[str]]) -> str:
    return "".join(
        f"{qid} Q0 {docno} {rank} {10 - rank} tag\n"
        for qid, docnos in run.items()
        for rank, docno in enumerate(docnos, start=1)
    )
