"""A small collection in files, and under an id of ir_datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyterrier_lir.data.local_datasets import register_local_dataset
from tests.tiny_checkpoints import SENTENCES

QUERIES = {"1": "height of the tower", "2": "bread and sand", "3": "rainfall in the mountains"}
QRELS = [("1", "d1", 1), ("1", "d3", 2), ("2", "d2", 1), ("3", "d0", 1), ("3", "d5", 1)]


@dataclass(frozen=True)
class Files:
    """Where the parts of the collection are."""

    docs: str
    queries: str
    qrels: str
    docpairs: str
    scoreddocs: str

    def register(self, dataset_id: str) -> None:
        """Make them known to ir_datasets."""
        register_local_dataset(dataset_id, **self.__dict__)


def write(folder: Path) -> Files:
    """Write the collection: a document for each sentence, every document ranked for every query."""
    docs = {f"d{number}": text for number, text in enumerate(SENTENCES)}
    parts = {
        "docs.tsv": [f"{docno}\t{text}" for docno, text in docs.items()],
        "queries.tsv": [f"{qid}\t{query}" for qid, query in QUERIES.items()],
        "qrels.txt": [f"{qid} 0 {docno} {grade}" for qid, docno, grade in QRELS],
        "docpairs.tsv": [f"{qid}\t{docno}\td{4 + n % 3}" for n, (qid, docno, _) in enumerate(QRELS * 4)],
        "bm25.run": [
            f"{qid} Q0 {docno} {rank} {50 - rank} bm25" for qid in QUERIES for rank, docno in enumerate(docs, 1)
        ],
    }
    for name, lines in parts.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Files(*(str(folder / name) for name in parts))
