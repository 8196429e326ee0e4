"""Data sets to distil from that ir_datasets does not list: where they are, and how they are read.

Looking them up downloads nothing; ir_datasets downloads a file when it is first read and checks its sum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

MSMARCO, TRAIN = "msmarco-passage", "msmarco-passage/train"
_RANK_DISTILLM = "https://huggingface.co/datasets/webis/rank-distillm/resolve/main/"
_SBERT = "https://sbert.net/datasets/msmarco-hard-negatives.jsonl.gz"
_COLBERT = "https://huggingface.co/colbert-ir/colbertv2.0_msmarco_64way/resolve/main/examples.json?download=true"
_ZENODO = "https://zenodo.org/record/4068216/files/bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv?download=1"


@dataclass(frozen=True)
class Registered:
    """One row: the file, its sum, its name in the cache, its layout (one of four).

    `system` says whose negatives are taken of a file that holds those of several.
    """

    url: str
    md5: str
    file: str
    layout: str
    system: str | None = None


def _sbert(system: str) -> Registered:
    return Registered(_SBERT, "ecf8cafb10197fd7adf4f68aabd15d84", "sbert-docpairs.jsonl", "hard negatives", system)


def _rank_distillm(name: str, file: str, md5: str) -> Registered:
    return Registered(_RANK_DISTILLM + file, md5, f"{name}.parquet", "ranking")


REGISTERED = {
    # ColBERTv2, arXiv:2112.01488: 64 passages a query with MiniLM's scores
    f"{TRAIN}/colbert-docpairs": Registered(
        _COLBERT, "8be0c71e330ac54dcd77fba058d291c7", "colbert_64way.json", "scored list"
    ),
    # cross-architecture knowledge distillation, arXiv:2010.02666: triples with an ensemble's scores
    f"{TRAIN}/kd-docpairs": Registered(
        _ZENODO,
        "4d99696386f96a7f1631076bcc53ac3c",
        "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv",
        "scored triple",
    ),
    # sentence-transformers' hard negatives with a cross-encoder's scores
    **{
        f"{TRAIN}/sbert-{system}-docpairs": _sbert(system)
        for system in ("bm25", "msmarco-distilbert-base-tas-b", "msmarco-distilbert-base-v3", "msmarco-MiniLM-L-6-v3")
    },
    # Rank-DistiLLM, arXiv:2405.07920: rankings of re-rankers
    **{
        f"{TRAIN}/{name}": _rank_distillm(name, file, md5)
        for name, file, md5 in (
            (
                "rank-distillm-rankzephyr",
                "__rankzephyr-colbert-10000-sampled-100__msmarco-passage-train-judged.parquet",
                "38f69a3c8a5ed21c639e882a6c2eff7c",
            ),
            (
                "rank-distillm-set-encoder",
                "__set-encoder-colbert-all-100__msmarco-passage-train-judged.parquet",
                "a47206da7dc551e3ebd4e5b6866be78a",
            ),
            (
                "rank-distillm-monoelectra",
                "__monoelectra-colbert-all-100__msmarco-passage-train-judged.parquet",
                "6561f33476a6c8408737f38ea85c848f",
            ),
            (
                "rank-distillm-colbert",
                "__colbert__msmarco-passage-train-judged.parquet",
                "1e927d52af085516bf5a3de2865809d5",
            ),
        )
    },
}


class ScoredTuple(NamedTuple):
    """A query with documents, the first of which is relevant, and a teacher's scores of them.

    `positives` says how many of the first are relevant; `scores` may be None.
    """

    query_id: str
    doc_ids: tuple[str, ...]
    scores: tuple[float, ...] | None
    positives: int = 1


def read_scored_list(line: str) -> ScoredTuple:
    """Read `[query, [document, score], ...]`.

    >>> read_scored_list("[7, [3, 9.5], [4, 1.0]]")
    ScoredTuple(query_id='7', doc_ids=('3', '4'), scores=(9.5, 1.0), positives=1)
    """
    query_id, *docs = json.loads(line)
    return ScoredTuple(str(query_id), tuple(str(doc) for doc, _ in docs), tuple(float(score) for _, score in docs))


def read_scored_triple(line: str) -> ScoredTuple:
    r"""Read `score score query relevant other`, parted by tabs.

    >>> read_scored_triple("9.5\t1.0\t7\t3\t4")
    ScoredTuple(query_id='7', doc_ids=('3', '4'), scores=(9.5, 1.0), positives=1)
    """
    score, other_score, query_id, *docs = line.split()
    return ScoredTuple(query_id, tuple(docs), (float(score), float(other_score)))


def read_hard_negatives(line: str, system: str | None) -> ScoredTuple:
    """Read `{"qid", "pos": [{"pid", "ce-score"}], "neg": {system: [...]}}`."""
    row = json.loads(line)
    docs = [*row["pos"], *row["neg"].get(system, [])]
    scores = tuple(float(doc["ce-score"]) for doc in docs)
    return ScoredTuple(str(row["qid"]), tuple(str(doc["pid"]) for doc in docs), scores, len(row["pos"]))


class _Tuples:
    """What ir_datasets asks of a handler of document pairs."""

    def __init__(self, file: Any, row: Registered) -> None:
        self._file, self._row = file, row

    def docpairs_path(self) -> Path:
        return Path(self._file.path())

    def docpairs_handler(self) -> _Tuples:
        return self

    def docpairs_cls(self) -> type[ScoredTuple]:
        return ScoredTuple

    def docpairs_iter(self) -> Iterator[ScoredTuple]:
        with self._file.stream() as stream:
            for line in stream:
                text = line.decode("utf-8")
                if self._row.layout == "scored list":
                    yield read_scored_list(text)
                elif self._row.layout == "scored triple":
                    yield read_scored_triple(text)
                else:
                    yield read_hard_negatives(text, self._row.system)


class _Ranking:
    """What ir_datasets asks of a handler of scored documents."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def scoreddocs_path(self) -> Path:
        return Path(self._file.path())

    def scoreddocs_handler(self) -> _Ranking:
        return self

    @cached_property
    def _cls(self) -> Any:
        from ir_datasets.formats import GenericScoredDoc

        return GenericScoredDoc

    def scoreddocs_cls(self) -> Any:
        return self._cls

    def scoreddocs_iter(self) -> Iterator[Any]:
        from .file_formats import read_rows

        for row in read_rows(self.scoreddocs_path(), []):
            yield self._cls(str(row["qid"]), str(row["docno"]), float(row["score"]))


def register(dataset_id: str) -> None:
    """Make a data set of `REGISTERED` known to ir_datasets; nothing happens for any other or a second time.

    >>> import ir_datasets
    >>> register("msmarco-passage/train/kd-docpairs")
    >>> ir_datasets.load("msmarco-passage/train/kd-docpairs").has_docpairs()
    True
    """
    import ir_datasets

    row = REGISTERED.get(dataset_id)
    if row is None or dataset_id in ir_datasets.registry._registered:
        return
    from ir_datasets.util import Cache, Download, GzipExtract, RequestsDownload, home_path

    file = Download([RequestsDownload(row.url)], expected_md5=row.md5, stream=True)
    cached = Cache(GzipExtract(file) if row.url.endswith(".gz") else file, home_path() / TRAIN / row.file)
    docs, train = ir_datasets.load(MSMARCO), ir_datasets.load(TRAIN)
    handler = _Ranking(cached) if row.layout == "ranking" else _Tuples(cached, row)
    parts = (docs.docs_handler(), train.queries_handler(), train.qrels_handler(), handler)
    ir_datasets.registry.register(dataset_id, ir_datasets.Dataset(*parts))
