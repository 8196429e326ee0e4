"""The collections of ../shared/data as PyTerrier needs them: documents, topics, judgements, stored runs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import ir_measures
import pandas as pd

from tests.tiny_checkpoints import SHARED

DATA = SHARED / "data"


def documents(name: str) -> dict[str, str]:
    """docno -> title and text."""
    with gzip.open(DATA / name / "corpus.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["docno"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}


def topics(name: str, file: str = "topics.tsv") -> pd.DataFrame:
    """`qid`, `query`."""
    lines = (DATA / name / file).read_text(encoding="utf-8").split("\n")
    return pd.DataFrame([line.split("\t", 1) for line in lines if line], columns=["qid", "query"])


def qrels(name: str, file: str = "qrels.txt") -> pd.DataFrame:
    """`qid`, `docno`, `label`."""
    frame = pd.DataFrame(ir_measures.read_trec_qrels(str(DATA / name / file)))
    return frame.rename(columns={"query_id": "qid", "doc_id": "docno", "relevance": "label"})[["qid", "docno", "label"]]


def run(name: str, file: str = "runs/bm25.run.gz", depth: int = 100) -> pd.DataFrame:
    """A stored run with queries and texts: `qid`, `docno`, `score`, `rank`, `query`, `text`."""
    path = Path(DATA / name / file)
    columns = ["qid", "Q0", "docno", "rank", "score", "tag"]
    frame = pd.read_csv(path, sep=r"\s+", names=columns, dtype={"qid": str, "docno": str})
    texts = documents(name)
    frame["rank"] -= frame["rank"].min()
    frame = frame[(frame["rank"] < depth) & frame["docno"].isin(texts)].merge(topics(name), on="qid")
    return frame.assign(text=frame["docno"].map(texts))[["qid", "query", "docno", "text", "score", "rank"]]
