"""Samples out of every form that text is kept in: whole results compared, on tiny files and real collections."""

from __future__ import annotations

import gzip
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ir_datasets
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from pyterrier_lir.data import (
    DocDataset,
    DocSample,
    DocumentationDataset,
    QueryDataset,
    QuerySample,
    RankBatch,
    RankSample,
    RunDataset,
    SearchBatch,
    TextStore,
    TrainBatch,
    TupleDataset,
    collate,
    mine_negatives,
    open_source,
    teacher_scores,
)
from pyterrier_lir.data.registered import REGISTERED, read_hard_negatives, register
from pyterrier_lir.data.sampling import SAMPLING
from tests import shared_collections as collections

DOCS = {"a": "It is tall.", "b": "Bread.", "c": "Sand and sea.", "d": "Rain in the mountains."}
QUERIES = {"q1": "how tall", "q10": "what to eat", "q2": "where does it rain"}
QRELS = pd.DataFrame(
    [("q1", "a", 2), ("q1", "b", 0), ("q10", "b", 1), ("q2", "d", 1)], columns=["qid", "docno", "label"]
)
RUN = pd.DataFrame(
    [(q, d, 4.0 - i, i) for q in QUERIES for i, d in enumerate("cba")], columns=["qid", "docno", "score", "rank"]
)
PARTS = {"queries": QUERIES, "docs": DOCS, "qrels": QRELS}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTERRIER_LIR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection as files, with a title, a line separator within a text, and a second set of topics."""
    home = tmp_path / "collection"
    home.mkdir()
    rows = [{"docno": docno, "text": text} for docno, text in DOCS.items()]
    rows[2] = {"docno": "c", "title": "Sand", "text": "and sea."}
    with gzip.open(home / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (home / "topics.tsv").write_text("".join(f"{qid}\t{query}\n" for qid, query in QUERIES.items()))
    (home / "topics.train.tsv").write_text("t1\tonly\u0085 one\n")
    (home / "qrels.txt").write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in QRELS.itertuples(index=False)))
    return home


def plain(sample: RankSample) -> tuple[Any, ...]:
    targets = None if sample.targets is None else sample.targets.tolist()
    return sample.query_id, sample.query, tuple(sample.doc_ids), tuple(sample.docs), targets


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def register_local(folder: Path) -> str:
    """A dataset of ir_datasets that is made of files; the same id for all tests, since there is no way to take it back."""
    from ir_datasets.formats import GenericDocPair, GenericScoredDoc, TrecQrels, TsvDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    docs, queries, qrels = (folder / name for name in ("docs.tsv", "queries.tsv", "qrels.txt"))
    docs.write_text("".join(f"{docno}\t{text}\n" for docno, text in DOCS.items()))
    queries.write_text("".join(f"{qid}\t{query}\n" for qid, query in QUERIES.items()))
    scored = [GenericScoredDoc(*row[:3]) for row in RUN.itertuples(index=False, name=None)]

    class Scored(ir_datasets.formats.BaseScoredDocs):
        def scoreddocs_iter(self) -> Any:
            return iter(scored)

    class Pairs(ir_datasets.formats.BaseDocPairs):
        def docpairs_iter(self) -> Any:
            return iter([GenericDocPair("q1", "a", "b"), GenericDocPair("q2", "d", "c")])

        def docpairs_cls(self) -> Any:
            return GenericDocPair

    parts = [TsvDocs(LocalDownload(docs)), TsvQueries(LocalDownload(queries)), TrecQrels(LocalDownload(qrels), {})]
    name = "lir-local/tiny/judged"
    ir_datasets.registry._registered[name] = ir_datasets.Dataset(*parts, Scored(), Pairs())
    return name


# documents and queries


@pytest.mark.parametrize("kind", ["folder", "file", "tsv", "csv", "frame", "dictionary", "PyTerrier", "ir_datasets"])
def test_documents_are_the_same_from_every_source(kind: str, folder: Path, tmp_path: Path) -> None:
    rows = [{"docno": docno, "text": text} for docno, text in DOCS.items()]
    (tmp_path / "docs.tsv").write_text("".join(f"{docno}\t{text}\n" for docno, text in DOCS.items()))
    pd.DataFrame(rows).to_csv(tmp_path / "docs.csv", index=False)

    class Collection:
        def get_corpus_iter(self, verbose: bool = True) -> Any:
            return iter(rows)

    sources: dict[str, Callable[[], Any]] = {
        "folder": lambda: str(folder),
        "file": lambda: folder / "corpus.jsonl.gz",
        "tsv": lambda: tmp_path / "docs.tsv",
        "csv": lambda: tmp_path / "docs.csv",
        "frame": lambda: {"docs": pd.DataFrame(rows)},
        "dictionary": lambda: {"docs": DOCS},
        "PyTerrier": Collection,
        "ir_datasets": lambda: register_local(folder),
    }
    dataset = DocDataset(sources[kind]())
    dataset.prepare_data()
    assert list(dataset) == [DocSample(docno, text) for docno, text in DOCS.items()]
    if kind != "ir_datasets":  # which counts only what is in a store
        assert len(dataset) == 4
    assert [sample.doc_id for sample in DocDataset(sources[kind](), num_docs=3)] == ["a", "b", "c"]


def test_fields_of_a_document_can_be_chosen(folder: Path) -> None:
    rows = [{"docno": "a", "title": "T", "text": "X", "url": "U"}]
    path = write_jsonl(folder / "fields.jsonl", rows)
    assert [sample.doc for sample in DocDataset(path)] == ["T X"]
    assert [sample.doc for sample in DocDataset(path, text_fields=["url", "title"])] == ["U T"]
    with pytest.raises(ValueError, match=r"needed: .*missing"):
        list(DocDataset(path, text_fields=["missing"]))
    with pytest.raises(TypeError, match=r"allowed: a list"):
        DocDataset(path, text_fields="url")


def test_queries_come_with_their_judgements(folder: Path) -> None:
    first = QuerySample(
        "q1",
        "how tall",
        [
            {"query_id": "q1", "doc_id": "a", "iteration": "0", "relevance": 2},
            {"query_id": "q1", "doc_id": "b", "iteration": "0", "relevance": 0},
        ],
    )
    for given in (folder, PARTS, register_local(folder)):
        dataset = QueryDataset(given)
        assert next(iter(dataset)) == first
        assert len(dataset) == 3
        assert [sample.query for sample in dataset] == list(QUERIES.values())
    assert list(QueryDataset(f"{folder}:train")) == [QuerySample("t1", "only\u0085 one", None)]
    assert len(QueryDataset(folder, num_queries=2)) == len(list(QueryDataset(folder, num_queries=2))) == 2


def test_the_installed_documentation_is_a_source() -> None:
    dataset = DocumentationDataset(["stdlib"])
    entry = dataset.entries[0]
    assert next(iter(DocDataset(dataset))) == DocSample(entry.docno, entry.text)
    topics = dataset.get_topics("train")
    assert [sample.query_id for sample in QueryDataset((dataset, "train"))] == topics["qid"].tolist()


def with_worker(sample: Any) -> tuple[int, str]:
    info = get_worker_info()
    assert info is not None
    return info.id, sample[0].doc_id if isinstance(sample[0], DocSample) else sample[0].query_id


def test_two_workers_share_the_samples_without_duplicates(folder: Path) -> None:
    tuples = [(f"query {i}", "yes", "no") for i in range(7)]
    for dataset, expected in (
        (DocDataset(folder), list(DOCS)),
        (QueryDataset(folder), list(QUERIES)),
        (TupleDataset(tuples), [sample.query_id for sample in TupleDataset(tuples)]),
    ):
        found = list(DataLoader(dataset, batch_size=1, num_workers=2, collate_fn=with_worker))
        assert {worker for worker, _ in found} == {0, 1}
        assert sorted(key for _, key in found) == sorted(expected)


def test_ranks_share_the_samples_without_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    found, lengths, pickled = [], [], []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        dataset = DocDataset({"docs": DOCS})
        lengths.append(len(dataset))
        found.append([sample.doc_id for sample in dataset])
        pickled.append(pickle.dumps(dataset))
    assert found == [["a", "d"], ["b"], ["c"]]
    assert lengths == [2, 1, 1]
    monkeypatch.undo()  # a worker that was spawned knows nothing of the ranks
    assert [[sample.doc_id for sample in pickle.loads(one)] for one in pickled] == found


# stores


def test_a_store_is_written_once_and_opened_after_a_pickle(folder: Path, cache: Path) -> None:
    store = open_source(folder).docs
    assert isinstance(store, TextStore)
    (only,) = (cache / "texts").iterdir()
    written = (only / "store.json").stat().st_mtime_ns
    again = pickle.loads(pickle.dumps(open_source(folder).docs))
    assert dict(again) == DOCS
    assert (only / "store.json").stat().st_mtime_ns == written
    assert again.lookup(["d", "a", "d"]) == [DOCS["d"], DOCS["a"], DOCS["d"]]
    assert "e" not in again
    with pytest.raises(ValueError, match=r"'e' is not in the document texts \(2 of 3"):
        again.lookup(["e", "a", "f"])


def test_a_store_with_a_duplicate_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'x' occurs more than once \(1 such"):
        TextStore.build(tmp_path / "store", [("x", "1"), ("y", "2"), ("x", "3")])
    assert not list(tmp_path.glob("*store*"))
    empty = TextStore.build(tmp_path / "store", [])
    assert (len(empty), list(empty), empty.missing(["x"])) == (0, [], ["x"])


def test_texts_of_all_kinds_survive_a_store(tmp_path: Path) -> None:
    texts = {"1": "", "2": "naïve café ☂️", "ü": "a\nb\tc", "4": "x" * 100_000}
    assert dict(TextStore.build(tmp_path / "store", texts.items())) == texts


# rankings

FIRST = ("q1", "how tall", ("c", "b", "a"), (DOCS["c"], DOCS["b"], DOCS["a"]), None)


@pytest.mark.parametrize(
    "file", ["run.run", "run.run.gz", "run.tsv", "headed.tsv", "four.tsv", "three.tsv", "run.csv", "run.jsonl", "frame"]
)
def test_a_run_is_the_same_from_every_file(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    trec = RUN.assign(Q0="Q0", rank=RUN["rank"] + 1, tag="bm25")[["qid", "Q0", "docno", "rank", "score", "tag"]]
    shuffled = trec.sample(frac=1, random_state=1)
    if file in ("run.run", "run.run.gz"):
        shuffled.to_csv(path, sep=" ", index=False, header=False)
    elif file == "run.tsv":
        shuffled.to_csv(path, sep="\t", index=False, header=False)
    elif file == "headed.tsv":
        shuffled.drop(columns="Q0").to_csv(path, sep="\t", index=False)
    elif file == "four.tsv":
        shuffled[["qid", "docno", "rank", "score"]].to_csv(path, sep="\t", index=False, header=False)
    elif file == "three.tsv":
        shuffled[["qid", "docno", "rank"]].to_csv(path, sep="\t", index=False, header=False)
    elif file == "run.csv":
        shuffled.to_csv(path, index=False)
    elif file == "run.jsonl":
        shuffled.to_json(path, orient="records", lines=True)
    dataset = RunDataset(shuffled if file == "frame" else path, dataset=PARTS)
    assert [sample.query_id for sample in dataset] == ["q1", "q10", "q2"]
    assert plain(dataset[0]) == FIRST
    assert plain(dataset[-1])[0] == "q2"


def test_parquet_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    RUN.to_parquet(tmp_path / "run.parquet")
    assert plain(RunDataset(tmp_path / "run.parquet", dataset=PARTS)[0]) == FIRST
    rows = pd.DataFrame([{"query": "how tall", "pos": ["It is tall."], "neg": ["Bread.", "Sand."]}])
    rows.to_parquet(tmp_path / "tuples.parquet")
    (sample,) = TupleDataset(tmp_path / "tuples.parquet")
    assert sample.docs == ("It is tall.", "Bread.", "Sand.")


def test_a_runs_name_says_which_dataset_it_is_of(folder: Path, tmp_path: Path) -> None:
    name = register_local(folder)
    path = tmp_path / f"bm25__{name.replace('/', '-')}.run"
    RUN.assign(Q0="Q0", tag="x")[["qid", "Q0", "docno", "rank", "score", "tag"]].to_csv(
        path, sep=" ", header=False, index=False
    )
    assert plain(RunDataset(path)[0]) == FIRST
    assert plain(RunDataset(name)[0]) == FIRST
    sample = RunDataset(name, depth=2)[0]
    assert (sample.doc_ids, sample.qrels) == (("c", "b"), open_source(name).qrels.of("q1"))  # type: ignore[union-attr]


def test_a_run_may_bring_its_own_texts_and_labels() -> None:
    run = RUN.assign(query=RUN["qid"].map(QUERIES), text=RUN["docno"].map(DOCS), label=[0, 1, 2] * 3)
    assert plain(RunDataset(run, targets="relevance")[0]) == (*FIRST[:4], [0.0, 1.0, 2.0])


def test_targets_are_larger_for_better_documents() -> None:
    def targets(kind: Any, **options: Any) -> Any:
        found = RunDataset(RUN, targets=kind, dataset=PARTS, **options)[0].targets
        assert found is not None
        return found.tolist()

    assert targets("relevance") == [0, 0, 2]
    assert targets("score") == [4, 3, 2]
    assert targets("rank") == [3, 2, 1]
    assert targets("rank", depth=2) == [2, 1]
    assert targets("rank", normalize_targets=True) == [1, 0.5, 0]
    assert targets("relevance", depth=2, normalize_targets=True) == [0, 0]
    qrels = pd.DataFrame(
        [("q1", "a", "x", 2), ("q1", "a", "y", 1), ("q1", "c", "y", 3)],
        columns=["query_id", "doc_id", "subtopic_id", "relevance"],
    )
    dataset = RunDataset(RUN, targets="subtopic_relevance", dataset={**PARTS, "qrels": qrels})
    with pytest.warns(UserWarning, match=r"2 of 3 queries have no judgements"):
        subtopics = dataset[0].targets
    assert torch.equal(subtopics, torch.tensor([[0.0, 3.0], [0, 0], [2, 1]]))
    with pytest.warns(UserWarning, match="no judgements"):
        highest = RunDataset(RUN, targets="relevance", dataset={**PARTS, "qrels": qrels})[0].targets
    assert torch.equal(highest, torch.tensor([3.0, 0, 2]))


def test_relevant_documents_that_were_not_ranked_are_added_behind() -> None:
    options: dict[str, Any] = {"dataset": PARTS, "add_docs_not_in_ranking": True}
    sample = RunDataset(RUN, targets="rank", **options)[2]
    assert (sample.doc_ids, sample.docs[-1]) == (("c", "b", "a", "d"), DOCS["d"])
    assert sample.targets is not None
    assert sample.targets.tolist() == [3, 2, 1, 0]
    assert RunDataset(RUN, targets="score", **options)[2].targets.tolist() == [4, 3, 2, 2]  # type: ignore[union-attr]
    assert RunDataset(RUN, depth=1, **options)[0].doc_ids == ("c", "a")  # b is judged, but not relevant
    assert len(RunDataset(RUN, depth=1, sample_size=2, sampling_strategy="single_relevant", **options)) == 3


@pytest.mark.parametrize("strategy", SAMPLING)
def test_the_same_seed_gives_the_same_samples(strategy: Any) -> None:
    docs = {f"d{i}": f"text {i}" for i in range(50)}
    run = pd.DataFrame({"qid": "q", "docno": list(docs), "score": np.arange(50, 0, -1.0)})
    qrels = pd.DataFrame({"qid": "q", "docno": ["d7", "d30"], "label": [1, 2]})
    parts = {"queries": {"q": "query"}, "docs": docs, "qrels": qrels}

    def sample(seed: int, epoch: int) -> tuple[str, ...]:
        dataset = RunDataset(run, sample_size=10, sampling_strategy=strategy, dataset=parts, seed=seed)
        dataset.set_epoch(epoch)
        shown = tuple(dataset[0].doc_ids)
        assert shown == dataset[0].doc_ids
        assert len(set(shown)) == 10
        return shown

    assert sample(1, 0) == sample(1, 0)
    distinct = {sample(1, 0), sample(1, 1), sample(2, 0)}
    assert len(distinct) == (1 if strategy == "top" else 3)
    for shown in distinct:
        if strategy == "top":
            assert shown == tuple(docs)[:10]
        if strategy == "top_and_random":
            assert shown[:5] == tuple(docs)[:5]
        if strategy == "single_relevant":
            assert [doc in ("d7", "d30") for doc in shown] == [True] + [False] * 9


def test_log_random_prefers_the_top() -> None:
    rng, ranks = np.random.default_rng(0), np.arange(1, 101, dtype=float)
    places = np.concatenate([SAMPLING["log_random"](ranks, np.zeros(100), 10, rng) for _ in range(500)])
    weights = 1 / np.log1p(ranks)
    assert (places < 10).mean() > 2 * (places >= 90).mean()
    first = np.concatenate([SAMPLING["log_random"](ranks, np.zeros(100), 1, rng) for _ in range(20_000)])
    np.testing.assert_allclose(
        np.bincount(first, minlength=100)[:3] / 20_000, (weights / weights.sum())[:3], atol=0.006
    )


def test_running_workers_see_the_next_epoch() -> None:
    dataset = RunDataset(RUN, sample_size=1, sampling_strategy="random", dataset=PARTS)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
    drawn = []
    for epoch in range(8):
        dataset.set_epoch(epoch)
        drawn.append([sample.doc_ids for sample in loader])
        assert drawn[-1] == [sample.doc_ids for sample in dataset]
    assert len({str(one) for one in drawn}) > 1


# tuples

TRIPLE = ("how tall", (DOCS["a"], DOCS["b"]))
LONG = pd.DataFrame(
    [("q1", "b", 0, 0.5), ("q1", "a", 2, 9.0), ("q1", "c", 0, 1.0), ("q2", "d", 1, 7.0), ("q2", "a", 0, 2.0)],
    columns=["qid", "docno", "label", "score"],
)


@pytest.mark.parametrize(
    "kind",
    ["tsv", "headed", "ids", "jsonl", "json ids", "wide frame", "list", "ir_datasets", "scored triple", "scored list"],
)
def test_a_triple_is_the_same_from_every_form(kind: str, folder: Path, tmp_path: Path) -> None:
    path, dataset = tmp_path / "triples.tsv", None
    given: Any = path
    texts = "\t".join((TRIPLE[0], *TRIPLE[1]))
    if kind == "tsv":
        path.write_text(texts + "\n\n")
    elif kind == "headed":
        path.write_text(f"anchor\tpositive\tnegative\n{texts}\n")
    elif kind in ("ids", "scored triple"):
        path.write_text("q1\ta\tb\n" if kind == "ids" else "9.5\t1.0\tq1\ta\tb\n")
        dataset = folder
    elif kind == "jsonl":
        row = {"query": TRIPLE[0], "pos": [TRIPLE[1][0]], "neg": [TRIPLE[1][1]]}
        given = write_jsonl(tmp_path / "triples.jsonl", [row])
    elif kind in ("json ids", "scored list"):
        row = {"qid": "q1", "query": "how tall", "pos": ["a"], "neg": ["b"]}
        given = write_jsonl(tmp_path / "t.jsonl", [row if kind == "json ids" else ["q1", ["a", 9.5], ["b", 1.0]]])
        dataset = PARTS
    elif kind == "wide frame":
        given = pd.DataFrame({"query": [TRIPLE[0]], "pos": [TRIPLE[1][0]], "neg": [TRIPLE[1][1]]})
    elif kind == "list":
        given = [RankSample("q1", TRIPLE[0], ("a", "b"), TRIPLE[1])]
    elif kind == "ir_datasets":
        given = register_local(folder)
    sample = next(iter(TupleDataset(given, dataset=dataset)))
    assert (sample.query, sample.docs) == TRIPLE
    assert sample.targets is not None
    assert sample.targets.tolist() == [1, 0]
    if kind in ("ids", "json ids", "list", "ir_datasets", "scored triple", "scored list"):
        assert (sample.query_id, sample.doc_ids) == ("q1", ("a", "b"))
    if kind.startswith("scored"):
        scored = next(iter(TupleDataset(given, "score", dataset=dataset)))
        assert scored.targets is not None
        assert scored.targets.tolist() == [9.5, 1.0]


def test_long_tables_give_scores_order_and_grades(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    LONG.to_csv(path, index=False)
    for given in (LONG, path):
        assert [plain(sample)[2:] for sample in TupleDataset(given, dataset=PARTS)] == [
            (("a", "b", "c"), (DOCS["a"], DOCS["b"], DOCS["c"]), [1, 0, 0]),
            (("d", "a"), (DOCS["d"], DOCS["a"]), [1, 0]),
        ]
        targets = [plain(sample)[4] for sample in TupleDataset(given, "score", dataset=PARTS)]
        assert targets == [[9.0, 0.5, 1.0], [7.0, 2.0]]
        assert [plain(sample)[4] for sample in TupleDataset(given, "relevance", dataset=PARTS)] == [[2, 0, 0], [1, 0]]


def test_each_relevant_document_gives_a_sample(tmp_path: Path) -> None:
    row = {"query": "x", "pos": ["p1", "p2"], "neg": ["n1", "n2"], "pos_scores": [9, 8], "neg_scores": [1, 2]}
    samples = list(TupleDataset(write_jsonl(tmp_path / "rows.jsonl", [row]), "score"))
    assert [plain(sample)[3:] for sample in samples] == [
        (("p1", "n1", "n2"), [9, 1, 2]),
        (("p2", "n1", "n2"), [8, 1, 2]),
    ]


def test_tuples_are_cut_to_a_fixed_number_of_documents() -> None:
    rows = [("x", "p", *[f"n{i}" for i in range(20)]), ("y", "p", "n0")]
    with pytest.warns(UserWarning, match=r"1 of 2 rows have no relevant document or fewer than 4"):
        assert [sample.docs for sample in TupleDataset(rows, num_docs=4)] == [("p", "n0", "n1", "n2")]
    dataset = TupleDataset(rows[:1], num_docs=4, seed=1)
    drawn = []
    for epoch in (0, 0, 1):
        dataset.set_epoch(epoch)
        drawn.append([sample.docs for sample in dataset])
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(docs[0] == "p" and len(set(docs)) == 4 for (docs,) in drawn)


def test_tuples_are_shuffled_within_a_buffer() -> None:
    rows = [(f"query {i}", "yes", "no") for i in range(100)]

    def order(seed: int, **options: Any) -> list[str]:
        return [sample.query for sample in TupleDataset(rows, seed=seed, **options)]

    assert order(1) == order(1) != order(2)
    assert order(1) != sorted(order(1)) == sorted(row[0] for row in rows)
    assert set(order(3, buffer_size=7)) == {row[0] for row in rows}


def test_batches_join_targets_and_judgements() -> None:
    samples = list(RunDataset(RUN, targets="relevance", dataset=PARTS))
    batch = collate(samples)
    assert isinstance(batch, TrainBatch)
    assert torch.equal(batch.targets, torch.tensor([0.0, 0, 2, 0, 1, 0, 0, 0, 0]))
    assert (batch.query_ids, batch.doc_ids) == (["q1", "q10", "q2"], [("c", "b", "a")] * 3)
    assert batch.qrels is not None
    assert len(batch.qrels) == 4
    assert type(collate(RankSample("q", "x", ["a"], ["A"]))) is RankBatch
    assert collate(list(QueryDataset({"queries": {"q": "x"}}))) == SearchBatch(["q"], ["x"])
    with pytest.raises(ValueError, match=r"1 of 2 samples have targets"):
        collate([samples[0], RankSample("q", "x", ["a"], ["A"])])
    with pytest.raises(ValueError, match=r"one or more of one kind"):
        collate([samples[0], DocSample("a", "A")])


# registered sets


def test_registered_sets_are_known_to_ir_datasets_at_first_use() -> None:
    assert len(REGISTERED) == 10
    for dataset_id, row in REGISTERED.items():
        source = open_source(dataset_id.replace("/", "-"))
        assert source.name == dataset_id
        assert ir_datasets.load(dataset_id).has(("docpairs", "scoreddocs")[row.layout == "ranking"])
        register(dataset_id)  # a second time changes nothing


def test_downloaded_sets_are_read_with_texts_of_any_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    for dataset_id in REGISTERED:  # as at first use, with the cache in this folder
        monkeypatch.delitem(ir_datasets.registry._registered, dataset_id, raising=False)
    cached = tmp_path / "msmarco-passage/train"
    cached.mkdir(parents=True)
    write_jsonl(cached / "colbert_64way.json", [["q1", ["a", 9.5], ["b", 1.0]]])
    (cached / "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv").write_text("9.5\t1.0\tq1\ta\tb\n")
    row = {"qid": "q1", "pos": [{"pid": "a", "ce-score": 9.5}], "neg": {"bm25": [{"pid": "b", "ce-score": 1.0}]}}
    write_jsonl(cached / "sbert-docpairs.jsonl", [row])
    for name in ("colbert-docpairs", "kd-docpairs", "sbert-bm25-docpairs"):
        (sample,) = TupleDataset(f"msmarco-passage/train/{name}", "score", dataset=PARTS)
        assert plain(sample) == ("q1", "how tall", ("a", "b"), (DOCS["a"], DOCS["b"]), [9.5, 1.0])
        ir_datasets.registry._registered.pop(f"msmarco-passage/train/{name}")
    pytest.importorskip("pyarrow")
    RUN.to_parquet(cached / "rank-distillm-colbert.parquet")
    dataset = RunDataset("msmarco-passage/train/rank-distillm-colbert", targets="score", dataset=PARTS)
    assert plain(dataset[0]) == (*FIRST[:4], [4, 3, 2])
    ir_datasets.registry._registered.pop("msmarco-passage/train/rank-distillm-colbert")


def test_hard_negatives_are_those_of_one_system() -> None:
    row = {
        "qid": 3,
        "pos": [{"pid": 1, "ce-score": 9.5}],
        "neg": {"bm25": [{"pid": 2, "ce-score": -1}], "tas": [{"pid": 4, "ce-score": 0}]},
    }
    assert read_hard_negatives(json.dumps(row), "bm25") == ("3", ("1", "2"), (9.5, -1.0), 1)


# hard negatives


def search(topics: pd.DataFrame) -> pd.DataFrame:
    """All documents for all queries, in the order of their ids, as a PyTerrier pipeline gives them."""
    docs = pd.DataFrame({"docid": range(6), "docno": list("abcdef"), "score": np.arange(6, 0, -1.0), "rank": range(6)})
    return topics.merge(docs, how="cross")


TEXTS = {docno: f"text of {docno}" for docno in "abcdef"}
TOPICS = pd.DataFrame({"qid": ["q1", "q2"], "query": ["one", "two"]})
SCORES = dict(zip("abcdef", [5.0, 10.0, 9.0, 4.0, 2.0, 1.0], strict=True))
LABELS = pd.DataFrame({"qid": ["q1", "q2", "q2"], "docno": ["b", "b", "c"], "label": [1, 1, 0]})


def rerank(pairs: pd.DataFrame) -> pd.DataFrame:
    assert pairs["text"].tolist() == [TEXTS[docno] for docno in pairs["docno"]]
    return pairs.assign(score=pairs["docno"].map(SCORES)).sort_values("score")


def test_mined_negatives_are_not_relevant_and_go_into_tuples() -> None:
    mined = mine_negatives(search, TOPICS, LABELS, n=3, depth=5, sampling="top", docs=TEXTS)
    assert mined.columns.tolist() == ["qid", "query", "docno", "text", "label"]
    assert mined["docno"].tolist() == ["b", "a", "c", "d"] * 2
    assert mined["label"].tolist() == [1, 0, 0, 0] * 2
    samples = list(TupleDataset(mined))
    assert [plain(sample)[:3] for sample in samples] == [
        ("q1", "one", ("b", "a", "c", "d")),
        ("q2", "two", ("b", "a", "c", "d")),
    ]
    assert samples[0].docs[0] == "text of b"
    skipped = mine_negatives(search, TOPICS, LABELS, n=2, depth=5, skip_top=3, sampling="top")
    assert skipped["docno"].tolist() == ["b", "d", "e"] * 2


@pytest.mark.parametrize(
    ("limit", "left"),
    [({}, "acdef"), ({"margin": 2.0}, "adef"), ({"absolute": 4.0}, "def"), ({"percent": 0.5}, "def")],
)
def test_a_teacher_filters_false_negatives(limit: dict[str, float], left: str) -> None:
    n = len(left)
    mined = mine_negatives(search, TOPICS, LABELS, n=n, teacher=rerank, docs=TEXTS, sampling="random", **limit)
    assert mined["docno"].tolist() == ["b", *left] * 2
    assert mined["score"].tolist() == [SCORES[docno] for docno in "b" + left] * 2
    with pytest.raises(ValueError, match=rf"allowed: n up to {n}"):
        mine_negatives(search, TOPICS, LABELS, n=n + 1, teacher=rerank, docs=TEXTS, **limit)


def test_mining_draws_the_same_for_a_query_whatever_others_are_asked() -> None:
    mined = mine_negatives(search, TOPICS, LABELS, n=2, seed=3)
    pd.testing.assert_frame_equal(mined, mine_negatives(search, TOPICS, LABELS, n=2, seed=3, batch_size=1))
    alone = mine_negatives(search, TOPICS.tail(1), LABELS, n=2, seed=3)
    assert alone["docno"].tolist() == mined.loc[mined["qid"] == "q2", "docno"].tolist()
    others = {tuple(mine_negatives(search, TOPICS, LABELS, n=2, seed=seed)["docno"]) for seed in range(8)}
    assert len(others) > 1


def test_queries_that_cannot_be_mined_are_counted() -> None:
    topics = pd.concat([TOPICS, pd.DataFrame({"qid": ["q3"], "query": ["three"]})], ignore_index=True)
    with pytest.warns(UserWarning, match=r"1 of 3 queries have no relevant document and are left out"):
        assert set(mine_negatives(search, topics, LABELS, n=2)["qid"]) == {"q1", "q2"}

    def fewer(topics: pd.DataFrame) -> pd.DataFrame:
        found = search(topics)
        return found[(found["qid"] == "q1") | (found["rank"] < 2)]

    with pytest.warns(UserWarning, match=r"1 of 2 queries have fewer than 2 negatives"):
        assert set(mine_negatives(fewer, TOPICS, LABELS, n=2)["qid"]) == {"q1"}


def test_teacher_scores_keep_the_order() -> None:
    mined = mine_negatives(search, TOPICS, LABELS, n=3, sampling="top")
    scored = teacher_scores(rerank, mined, docs=TEXTS)
    assert scored["docno"].tolist() == mined["docno"].tolist()
    assert scored["score"].tolist() == [10.0, 5, 9, 4] * 2
    (first, _) = TupleDataset(scored, "score")
    assert first.targets is not None
    assert first.targets.tolist() == [10, 5, 9, 4]


# errors


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.head(1)])


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "an unknown dataset": (lambda: DocDataset("msmarco-pasage"), FileNotFoundError, "Did you mean 'msmarco-passage'"),
    "a frame that does not say what it is": (lambda: DocDataset(RUN), TypeError, "{'docs': frame}"),
    "an unknown part": (lambda: open_source({"doc": DOCS}), ValueError, "allowed: queries, docs"),
    "no documents": (lambda: list(DocDataset({"queries": QUERIES})), ValueError, "has no documents"),
    "a strategy": (lambda: RunDataset(RUN, sampling_strategy="log-random"), ValueError, "Did you mean 'log_random'"),  # type: ignore[arg-type]
    "targets": (lambda: RunDataset(RUN, targets="relevanc"), ValueError, "Did you mean 'relevance'"),  # type: ignore[arg-type]
    "tuples' targets": (lambda: TupleDataset([], targets="scores"), ValueError, "Did you mean 'score'"),  # type: ignore[arg-type]
    "a depth": (lambda: RunDataset(RUN, depth=0), ValueError, "or -1 for all"),
    "an empty run": (lambda: len(RunDataset(RUN.head(0), dataset=PARTS)), ValueError, "is empty"),
    "a document twice": (lambda: len(RunDataset(twice(RUN), dataset=PARTS)), ValueError, r"'c' occurs more .*\(1 such"),
    "no dataset": (lambda: len(RunDataset(RUN)), ValueError, "give dataset="),
    "no ranking": (lambda: len(RunDataset(PARTS and "vaswani")), ValueError, "has no ranking"),
    "missing documents": (
        lambda: len(RunDataset(RUN.replace("c", "z"), dataset=PARTS)),
        ValueError,
        r"document id 'z' .*\(1 of 3",
    ),
    "missing queries": (
        lambda: len(RunDataset(RUN, dataset={"queries": {"q1": "x"}, "docs": DOCS})),
        ValueError,
        r"query id 'q10' .*\(2 of 3",
    ),
    "samples larger than lists": (
        lambda: len(RunDataset(RUN, sample_size=9, dataset=PARTS)),
        ValueError,
        "size up to 3",
    ),
    "no judgements": (
        lambda: len(RunDataset(RUN, targets="relevance", dataset={"queries": QUERIES, "docs": DOCS})),
        ValueError,
        "needs judgements",
    ),
    "judgements of other queries": (
        lambda: len(RunDataset(RUN, dataset={**PARTS, "qrels": QRELS.head(1).assign(qid="other")})),
        ValueError,
        "None of the 3 queries",
    ),
    "a run without scores": (
        lambda: len(RunDataset(RUN.drop(columns="score"), targets="score", dataset=PARTS)),
        ValueError,
        "has no scores",
    ),
    "tuples without scores": (lambda: list(TupleDataset([("q", "p", "n")], "score")), ValueError, "has no scores"),
    "too many documents": (lambda: list(TupleDataset([("q", "p", "n")], num_docs=3)), ValueError, "largest has 2"),
    "no tuples": (lambda: list(TupleDataset("vaswani")), ValueError, "has no tuples"),
    "ids without texts": (lambda: list(TupleDataset(LONG)), ValueError, "ids without texts"),
    "a row of nothing": (lambda: list(TupleDataset([{"query": "x"}])), ValueError, "a row with query"),
    "a limit without a teacher": (
        lambda: mine_negatives(search, TOPICS, LABELS, margin=1),
        ValueError,
        "give teacher=",
    ),
    "a teacher without texts": (
        lambda: mine_negatives(search, TOPICS, LABELS, teacher=rerank),
        ValueError,
        "give docs=",
    ),
    "a share of negative scores": (
        lambda: mine_negatives(
            search, TOPICS, LABELS, docs=TEXTS, teacher=lambda pairs: pairs.assign(score=-1.0), percent=0.9
        ),
        ValueError,
        "Use margin=",
    ),
    "a teacher that leaves documents out": (
        lambda: mine_negatives(search, TOPICS, LABELS, docs=TEXTS, teacher=lambda pairs: rerank(pairs).head(2)),
        ValueError,
        "without a cut-off",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_with_what_is_allowed(mistake: str) -> None:
    call, kind, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message):
        call()


def test_broken_files_are_told_with_their_lines(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"docno": "a", "text": "x"}\n{"docno"\n')
    with pytest.raises(ValueError, match=r"broken.jsonl, line 2: no JSON"):
        list(DocDataset(broken))
    (tmp_path / "empty.run").write_text("")
    with pytest.raises(ValueError, match=r"empty.run is empty"):
        len(RunDataset(tmp_path / "empty.run", dataset=PARTS))
    (tmp_path / "odd.run").write_text("q1 Q0 a x 3.0 tag\n")
    with pytest.raises(ValueError, match=r"rank 'x'; allowed: numbers"):
        len(RunDataset(tmp_path / "odd.run", dataset=PARTS))
    (tmp_path / "run.docx").write_text("q1 Q0 a 1 3.0 tag\n")
    with pytest.raises(ValueError, match=r"allowed: names that end in"):
        len(RunDataset(tmp_path / "run.docx", dataset=PARTS))
    (tmp_path / "pairs.tsv").write_text("x\ty\n")
    with pytest.raises(ValueError, match=r"pairs.tsv, line 1: 2 columns"):
        list(TupleDataset(tmp_path / "pairs.tsv"))


def test_contradictory_judgements_count_as_the_highest() -> None:
    qrels = pd.concat([QRELS, QRELS.head(1).assign(label=3)])
    with pytest.warns(UserWarning, match=r"1 documents are judged twice .*'a'"):
        assert RunDataset(RUN, targets="relevance", dataset={**PARTS, "qrels": qrels})[0].targets.tolist() == [0, 0, 3]  # type: ignore[union-attr]


# real collections

real = [
    pytest.mark.shared,
    pytest.mark.skipif(not collections.DATA.is_dir(), reason=f"no collections in {collections.DATA}"),
]


def marked(function: Any) -> Any:
    for mark in real:
        function = mark(function)
    return function


@marked
def test_a_real_run_is_what_the_files_say() -> None:
    folder = collections.DATA / "scifact"
    dataset = RunDataset(folder / "runs/bm25.run.gz", depth=10, targets="relevance", dataset=folder)
    expected = collections.run("scifact", depth=10)
    texts, judged = collections.documents("scifact"), collections.qrels("scifact")
    assert len(dataset) == expected["qid"].nunique() == 300
    for sample in (dataset[0], dataset[123], dataset[-1]):
        rows = expected[expected["qid"] == sample.query_id].sort_values("rank")
        relevant = set(judged.loc[judged["qid"] == sample.query_id, "docno"])
        assert list(sample.doc_ids) == rows["docno"].tolist()
        assert sample.query == rows["query"].iloc[0]
        assert list(sample.docs) == [texts[docno] for docno in sample.doc_ids]
        assert sample.targets is not None
        assert sample.targets.tolist() == [float(docno in relevant) for docno in sample.doc_ids]


@marked
def test_real_documents_and_queries_are_all_there() -> None:
    for name in ("cranfield", "nfcorpus"):
        assert {s.doc_id: s.doc.strip() for s in DocDataset(collections.DATA / name)} == collections.documents(name)
        topics = collections.topics(name)
        assert [sample.query_id for sample in QueryDataset(collections.DATA / name)] == topics["qid"].tolist()


@marked
def test_real_hard_negatives_are_read_in_every_form() -> None:
    home = collections.DATA
    triples = list(TupleDataset(home / "triples/msmarco-train-small.100.triples.tsv.gz"))
    assert len(triples) == 100
    assert all(len(sample.docs) == 2 and all(sample.docs) for sample in triples)
    (batch,) = DataLoader(
        TupleDataset(home / "triples/msmarco-bge-hardneg.10q.jsonl.gz", "score", num_docs=8), 10, collate_fn=collate
    )
    assert isinstance(batch, TrainBatch)
    assert batch.targets.shape == (80,)  # type: ignore[union-attr]
    assert batch.targets[:2].tolist() == [96.6875, 90.5625]  # type: ignore[index]
    scifact = TupleDataset(
        home / "scifact/train.hardneg.jsonl.gz", num_docs=8, dataset=f"{home / 'scifact'}:train", seed=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = list(scifact)
    qrels = collections.qrels("scifact", "qrels.train.txt")
    assert len(samples) == len(qrels)
    assert {(s.query_id, s.doc_ids[0]) for s in samples} == set(zip(qrels["qid"], qrels["docno"], strict=True))


@marked
def test_real_negatives_are_mined_from_a_stored_run() -> None:
    found = collections.run("cranfield")
    topics, qrels = collections.topics("cranfield"), collections.qrels("cranfield")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mined = mine_negatives(
            lambda asked: found[found["qid"].isin(asked["qid"])],
            topics,
            qrels,
            n=5,
            docs=collections.DATA / "cranfield",
        )
    relevant = set(zip(*qrels.loc[qrels["label"] > 0, ["qid", "docno"]].to_numpy().T, strict=True))
    assert [(q, d) in relevant for q, d in zip(mined["qid"], mined["docno"], strict=True)] == (
        mined["label"] > 0
    ).tolist()
    assert (mined[mined["label"] == 0].groupby("qid").size() == 5).all()
    assert len(list(TupleDataset(mined, num_docs=6))) == (mined["label"] > 0).sum()
