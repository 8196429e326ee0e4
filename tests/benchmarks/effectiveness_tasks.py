"""Collections to learn from and to be tested on: queries of training with BM25's results, and of a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyterrier as pt

from pyterrier_lir import DocumentationDataset, LIRBiEncoder
from pyterrier_lir.data import RunDataset, open_source
from pyterrier_lir.demo import first_stage
from tests.benchmarks.encode import DATA

RESULT = ["qid", "docno", "score", "rank"]


@dataclass
class Task:
    """What is learned from, and tested on.

    Attributes:
        docs: texts by docno.
        topics, qrels: of the test.
        bm25: BM25's results of the test topics.
        samples: what to train on, for a number of documents of each query and perhaps a teacher of their scores, and
            what relevant ones get on top of these.
    """

    docs: dict[str, str]
    topics: pd.DataFrame
    qrels: pd.DataFrame
    bm25: pd.DataFrame
    samples: Callable[..., RunDataset]

    @property
    def corpus(self) -> list[dict[str, str]]:
        """Documents as an indexer takes them."""
        return [{"docno": docno, "text": text} for docno, text in self.docs.items()]


def read(path: Path, names: list[str]) -> pd.DataFrame:
    """Topics (TSV) or judgements (TREC)."""
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else r"\s+", names=names, dtype=dict.fromkeys(names, str),
                       quoting=3)  # fmt: skip


def topics_of(path: Path) -> pd.DataFrame:
    """`qid`, `query`."""
    return read(path, ["qid", "query"])


def qrels_of(path: Path) -> pd.DataFrame:
    """`qid`, `docno`, `label`."""
    return read(path, ["qid", "iteration", "docno", "label"]).astype({"label": int}).drop(columns="iteration")


def taught(
    run: pd.DataFrame, topics: pd.DataFrame, qrels: pd.DataFrame, docs: dict[str, str], teacher: LIRBiEncoder,
    bonus: float = 10.0,
) -> pd.DataFrame:  # fmt: skip
    """BM25's score and the teacher's similarity, each standardised over a query's documents, added up.

    Relevant documents get a bonus, by which they usually stand on top.
    """
    run = run[RESULT].merge(topics, on="qid")
    similar = teacher.scorer()(run.assign(text=run["docno"].map(docs)))
    both = run.merge(similar[["qid", "docno", "score"]], on=["qid", "docno"], suffixes=("", "_teacher"))
    both = both.merge(qrels, on=["qid", "docno"], how="left")
    lists = both.groupby("qid")
    parts = [((both[name] - lists[name].transform("mean")) / lists[name].transform("std")).fillna(0)
             for name in ("score", "score_teacher")]  # fmt: skip
    score = parts[0] + parts[1] + bonus * (both["label"].fillna(0) > 0)
    return pt.model.add_ranks(both.assign(score=score))[RESULT]


def bm25_samples(run: pd.DataFrame, topics: pd.DataFrame, qrels: pd.DataFrame, docs: dict[str, str], size: int,
                 teacher: LIRBiEncoder | None, bonus: float = 10.0) -> RunDataset:  # fmt: skip
    """One relevant document that BM25 found, and others that it found and that are not judged relevant.

    With a teacher, targets are the scores of `taught`.

    What BM25 does not find is left out: in nfcorpus most of it is judged by links between pages, and models learn
    nothing from it.
    """
    relevant = run.merge(qrels[qrels["label"] > 0], on=["qid", "docno"])
    found, good = run.groupby("qid").size(), relevant.groupby("qid").size()
    enough = found.index[(found - good.reindex(found.index).fillna(found)) >= size - 1]
    texts = {"queries": dict(zip(topics["qid"], topics["query"], strict=True)), "docs": docs, "qrels": qrels}
    run = run.loc[run["qid"].isin(enough), RESULT]
    if teacher is not None:
        run = taught(run, topics, qrels, docs, teacher, bonus)
    return RunDataset(run, sample_size=size, sampling_strategy="single_relevant",
                      targets="relevance" if teacher is None else "score", dataset=texts)  # fmt: skip


def nfcorpus(folder: Path) -> Task:
    """NFCorpus: 2,590 queries to train on, 323 to test on, 3,633 documents."""
    place = DATA / "nfcorpus"
    docs = dict(open_source(place).docs.stretch(0, None))
    run = pt.io.read_results(str(place / "runs" / "bm25.train.run.gz"))
    train = topics_of(place / "topics.train.tsv"), qrels_of(place / "qrels.train.txt")
    return Task(docs, topics_of(place / "topics.tsv"), qrels_of(place / "qrels.txt"),
                pt.io.read_results(str(place / "runs" / "bm25.run.gz"))[RESULT],
                lambda *chosen: bm25_samples(run, *train, docs, *chosen))  # fmt: skip


def documentation(folder: Path) -> Task:
    """First sentences of docstrings, which ask for the rest; the test has at most 300 queries."""
    dataset = DocumentationDataset()
    docs = {entry.docno: entry.text for entry in dataset.entries}
    bm25 = first_stage(dataset, folder / "bm25.pisa", 100)
    train, test = dataset.get_topics("train"), dataset.get_topics("test").sample(300, random_state=0)
    qrels = dataset.get_qrels("train")
    run = bm25(train)
    return Task(docs, test, dataset.get_qrels("test"), bm25(test)[RESULT],
                lambda *chosen: bm25_samples(run, train, qrels, docs, *chosen))  # fmt: skip


def trec_dl(folder: Path) -> Task:
    """RepLLaMA's and SPLADE++'s rankings of TREC DL 2020 to distil from; BM25's of TREC DL 2019 to re-rank."""
    train, test = DATA / "trec-dl-2020", DATA / "trec-dl-2019"
    teachers = [pt.io.read_results(str(train / "runs" / f"{name}.run.gz")) for name in ("repllama", "splade-pp-ed")]
    parts = [run.assign(qid=run["qid"] + f"-{number}") for number, run in enumerate(teachers)]
    topics = topics_of(train / "topics.tsv")
    queries = {f"{row.qid}-{n}": row.query for row in topics.itertuples() for n in range(len(teachers))}
    texts = {"queries": queries, "docs": dict(open_source(train).docs.stretch(0, None))}
    return Task(dict(open_source(test).docs.stretch(0, None)), topics_of(test / "topics.tsv"),
                qrels_of(test / "qrels.full.txt"), pt.io.read_results(str(test / "runs" / "bm25.run.gz"))[RESULT],
                lambda size, *_: RunDataset(pd.concat(parts)[RESULT], sample_size=size, sampling_strategy="random",
                                        targets="rank", dataset=texts))  # fmt: skip


TASKS: dict[str, Callable[[Path], Task]] = {
    "nfcorpus": nfcorpus, "documentation": documentation, "trec-dl": trec_dl,
}  # fmt: skip
MEASURES: dict[str, Any] = {"trec-dl": ["nDCG@10", "RR(rel=2)@10"]}
