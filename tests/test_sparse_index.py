"""LIRSparseIndex: storage, exact search on the CPU and by PyTorch, Seismic; against brute force on synthetic data."""

from __future__ import annotations

import filecmp
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from pyterrier_lir.config import BiEncoderConfig
from pyterrier_lir.indexes import LIRSparseIndex, open_index, postings
from pyterrier_lir.indexes.building import Plan, build
from pyterrier_lir.indexes.indexer import make_header
from pyterrier_lir.indexes.search import sparse_kernels

TERMS = [f"t{i}" for i in range(300)]
COSINE = BiEncoderConfig.splade(similarity_function="cosine")
DEVICES = [None, "cpu"]


def some_docs(count: int, seed: int = 0, terms: list[str] = TERMS, prefix: str = "d") -> list[dict[str, Any]]:
    """Documents of up to 20 terms, frequent ones more often."""
    rng = np.random.default_rng(seed)
    chosen = (rng.random((count, 20)) ** 3 * len(terms)).astype(int)
    weights = rng.lognormal(0, 0.5, (count, 20))
    return [
        {"docno": f"{prefix}{i}", "toks": {terms[t]: float(w) for t, w in zip(ids, ws, strict=True)}, "text": f"text {i}"}
        for i, (ids, ws) in enumerate(zip(chosen.tolist(), weights.tolist(), strict=True))
    ]  # fmt: skip


def some_queries(count: int, seed: int = 9) -> pd.DataFrame:
    docs = some_docs(count, seed)
    return pd.DataFrame({"qid": [f"q{i}" for i in range(count)], "query_toks": [doc["toks"] for doc in docs]})


def built(path: Path, docs: list[dict[str, Any]], **settings: Any) -> LIRSparseIndex:
    return LIRSparseIndex(path / "x.lir").indexer(**settings).index(docs)


def length(toks: dict[str, float]) -> float:
    return float(np.sqrt(sum(w * w for w in toks.values() if w > 0)))


def brute_force(docs: list[dict[str, Any]], queries: pd.DataFrame, cosine: bool = False) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for qid, query in zip(queries["qid"], queries["query_toks"], strict=True):
        scores = {doc["docno"]: sum(w * query.get(t, 0.0) for t, w in doc["toks"].items()) for doc in docs}
        if cosine:
            scores = {d["docno"]: scores[d["docno"]] / length(d["toks"]) / length(query) for d in docs if d["toks"]}
        found[qid] = {docno: score for docno, score in scores.items() if score > 0}
    return found


def check(results: pd.DataFrame, expected: dict[str, dict[str, float]], k: int) -> None:
    """Results are the k best of what is expected, in order."""
    for qid, scores in expected.items():
        rows = results[results["qid"] == qid].sort_values("rank")
        best = sorted(scores.values(), reverse=True)[:k]
        np.testing.assert_allclose(rows["score"], best, rtol=1e-5)
        np.testing.assert_allclose(rows["score"], [scores[docno] for docno in rows["docno"]], rtol=1e-5)
        assert list(rows["rank"]) == list(range(len(best)))
    assert set(results["qid"]) <= set(expected)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that tiny collections have several."""
    monkeypatch.setattr(postings, "BLOCK", 64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("impacts", postings.IMPACTS)
@pytest.mark.parametrize("cosine", [False, True])
def test_exact_results_are_those_of_brute_force_on_the_stored_weights(
    tmp_path: Path, impacts: str, cosine: bool, device: str | None
) -> None:
    index = built(tmp_path, some_docs(300), impacts=impacts, config=COSINE if cosine else None, shard_docs=100)
    stored = list(index.get_corpus_iter())
    queries = some_queries(7)
    norms = {qid: length(toks) for qid, toks in zip(queries["qid"], queries["query_toks"], strict=True)}
    expected = brute_force(stored, queries)
    if cosine:  # stored vectors have length 1 but for rounding
        expected = {qid: {d: s / norms[qid] for d, s in scores.items()} for qid, scores in expected.items()}
    for k in (1, 10, 1_000):
        check(index.retriever(num_results=k, device=device)(queries), expected, k)


def test_stored_weights_are_close_to_those_given(tmp_path: Path) -> None:
    docs = some_docs(200)
    for impacts, most in {"float32": 1e-7, "float16": 2e-3}.items():
        index = built(tmp_path / impacts, docs, impacts=impacts)
        for doc, stored in zip(docs, index.get_corpus_iter(), strict=True):
            assert stored["toks"] == pytest.approx(doc["toks"], rel=most)
    index = built(tmp_path / "uint8", docs, impacts="uint8")
    step = max(max(doc["toks"].values()) for doc in docs) / 255
    for doc, stored in zip(docs, index.get_corpus_iter(), strict=True):
        assert stored["toks"] == pytest.approx(doc["toks"], abs=step * 0.501)
    merged = LIRSparseIndex.merge([index], tmp_path / "again.lir")
    for one, other in zip(index.get_corpus_iter(), merged.get_corpus_iter(), strict=True):
        assert one["toks"] == other["toks"]


def test_no_weight_is_rounded_to_nothing(tmp_path: Path) -> None:
    docs = [{"docno": "a", "toks": {"x": 1e-9, "y": 100.0}}]
    for impacts in postings.IMPACTS:
        index = built(tmp_path / impacts, docs, impacts=impacts)
        assert len(index.retriever()([{"qid": "1", "query_toks": {"x": 1.0}}])) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_equal_scores_are_ordered_by_docid(tmp_path: Path, device: str | None) -> None:
    docs = [{"docno": f"d{i}", "toks": {"x": 1.0 + (i % 2)}} for i in range(500)]
    index = built(tmp_path, docs, shard_docs=200)
    found = index.retriever(num_results=300, device=device)([{"qid": "1", "query_toks": {"x": 1.0}}])
    expected = [f"d{i}" for i in range(1, 500, 2)] + [f"d{i}" for i in range(0, 100, 2)]
    assert [row["docno"] for row in found] == expected


@pytest.mark.parametrize("device", DEVICES)
def test_queries_without_known_terms_find_nothing(tmp_path: Path, device: str | None) -> None:
    index = built(tmp_path, [*some_docs(100), {"docno": "empty", "toks": {}}])
    queries = pd.DataFrame(
        {"qid": ["1", "2", "3", "4"], "query_toks": [{}, {"unknown": 1.0}, {"t0": -1.0}, {"t0": 1.0, "unknown": 2.0}]}
    )
    found = index.retriever(device=device)(queries)
    assert set(found["qid"]) == {"4"}
    check(found, {"4": brute_force(some_docs(100), queries)["4"]}, 1_000)
    assert index.retriever(device=device)(queries[:2]).empty
    assert list(index.retriever(device=device)(queries[:0]).columns) == ["qid", "query_toks", "docno", "score", "rank"]


def test_unknown_terms_count_for_the_length_of_a_query(tmp_path: Path) -> None:
    index = built(tmp_path, [{"docno": "a", "toks": {"x": 3.0}}], config=COSINE)
    query = [{"qid": "1", "query_toks": {"x": 3.0, "unknown": 4.0, "dropped": -5.0}}]
    assert index.retriever()(query)[0]["score"] == pytest.approx(0.6)
    assert index.scorer()([{**query[0], "docno": "a"}])[0]["score"] == pytest.approx(0.6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_search_can_be_restricted(tmp_path: Path, device: str | None) -> None:
    docs = some_docs(300)
    index = built(tmp_path, docs, include_fields=["text"], shard_docs=128)
    queries = some_queries(3)
    allowed = [doc["docno"] for doc in docs[::7]]
    expected = brute_force(docs[::7], queries)
    check(index.retriever(docnos=[*allowed, "unknown"], device=device)(queries), expected, 1_000)
    check(index.retriever(docnos=allowed, num_results=5, device=device)(queries), expected, 5)
    where = index.retriever(where=lambda frame: frame["text"].str.endswith("7"), device=device)(queries)
    check(where, brute_force([doc for doc in docs if doc["text"].endswith("7")], queries), 1_000)
    assert index.retriever(docnos=[], device=device)(queries).empty


def test_threads_and_batches_do_not_change_results(tmp_path: Path) -> None:
    index = built(tmp_path, some_docs(500), shard_docs=150)
    queries = some_queries(5)
    expected = index.retriever(num_results=20, threads=1)(queries)
    for threads in (2, 3, 8):
        pd.testing.assert_frame_equal(index.retriever(num_results=20, threads=threads)(queries), expected)
        for i in range(5):
            one = index.retriever(num_results=20, threads=threads)(queries[i : i + 1])
            pd.testing.assert_frame_equal(one, expected[expected["qid"] == f"q{i}"].reset_index(drop=True))


@pytest.mark.parametrize("count", [1, 2, 3, 100, 5_000])
def test_the_compiled_selection_keeps_the_smallest(count: int) -> None:
    rng = np.random.default_rng(count)
    for keys in (rng.permutation(count), np.arange(count), np.arange(count)[::-1]):
        for k in {1, 2, count // 2 + 1, count - 1 or 1, count, count + 5}:
            kept = keys.astype(np.uint64)
            number = sparse_kernels.keep_best(kept, count, k)
            assert sorted(kept[:number].tolist()) == list(range(min(k, count)))


def test_many_results_overflow_the_room_that_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    docs = [{"docno": str(i), "toks": {"x": float(w)}} for i, w in enumerate(rng.random(20_000) + 0.1)]
    index = built(tmp_path, docs)
    found = index.retriever(num_results=10)([{"qid": "1", "query_toks": {"x": 2.0}}])
    best = sorted(docs, key=lambda doc: -doc["toks"]["x"])[:10]
    assert [row["docno"] for row in found] == [doc["docno"] for doc in best]


def test_the_scorer_gives_the_scores_of_the_retriever(tmp_path: Path) -> None:
    for config in (None, COSINE):
        index = built(tmp_path / str(config is None), some_docs(200), config=config)
        found = index.retriever(num_results=30)(some_queries(3))
        again = index.scorer()(found.drop(columns=["score", "rank"]))
        np.testing.assert_allclose(again["score"], found["score"], rtol=1e-5)
        assert list(again["rank"]) == list(found["rank"])


def with_matrix(path: Path, docs: list[dict[str, Any]], names: list[str], **settings: Any) -> LIRSparseIndex:
    """An index of a csr array over terms that are known beforehand, as an encoder gives it."""
    ids = {name: i for i, name in enumerate(names)}
    matrix = matrix_of([doc["toks"] for doc in docs], ids)
    index = LIRSparseIndex(path)
    header = make_header(index, BiEncoderConfig.splade(), len(names), {}, (), {"terms": names, **settings})

    def encode(stream: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], csr_array]]:
        for start in range(0, len(docs), 32):
            part = matrix[start : start + 32]
            yield [next(stream) for _ in range(part.shape[0])], part

    build(Plan(path, "create", header, lambda folder: index._writer(folder, header), shard_docs=100), docs, encode)
    index.reopen()
    return index


def matrix_of(rows: list[dict[str, float]], ids: dict[str, int]) -> csr_array:
    triples = [(i, ids[term], weight) for i, row in enumerate(rows) for term, weight in row.items()]
    row, column, weight = zip(*triples, strict=True)
    return csr_array((np.array(weight, np.float32), (row, column)), shape=(len(rows), len(ids)))


def test_arrays_over_given_terms_are_as_good_as_dictionaries(tmp_path: Path) -> None:
    docs, queries = some_docs(250), some_queries(4)
    from_dicts = built(tmp_path, docs)
    from_arrays = with_matrix(tmp_path / "m.lir", docs, TERMS)
    given = built(tmp_path / "given", docs, terms=TERMS)
    assert from_arrays.terms.names.tolist() == given.terms.names.tolist() == TERMS
    assert from_dicts.terms.names.tolist() != TERMS  # but as they come
    expected = from_dicts.retriever(num_results=50)(queries)
    for index in (from_arrays, given):
        pd.testing.assert_frame_equal(index.retriever(num_results=50)(queries), expected, rtol=1e-5)
    matrix = matrix_of(list(queries["query_toks"]), {name: i for i, name in enumerate(TERMS)})
    docids, scores = from_arrays.retriever(num_results=50).nearest(matrix)
    assert from_arrays.docnos_of(docids.ravel()).tolist() == expected["docno"].tolist()
    np.testing.assert_allclose(scores.ravel(), expected["score"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"200 terms.* has 300"):
        from_arrays.retriever().nearest(matrix[:, :200])
    assert '"t7"' not in (tmp_path / "m.lir" / "pt_meta.json").read_text()


def test_given_terms_are_the_only_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'b' has the term 'y', which is not among"):
        built(tmp_path, [{"docno": "a", "toks": {"x": 1.0}}, {"docno": "b", "toks": {"x": 1.0, "y": 1.0}}], terms=["x"])
    with pytest.raises(ValueError, match="'x' comes twice"):
        built(tmp_path / "2", [{"docno": "a", "toks": {"x": 1.0}}], terms=["x", "x"])
    index = built(tmp_path / "3", [{"docno": "a", "toks": {"x": 1.0}}], terms=["x", "y"])
    with pytest.raises(ValueError, match="other settings"):
        index.indexer(mode="append", terms=["y", "x"]).index([{"docno": "b", "toks": {"y": 1.0}}])
    index.indexer(mode="append", terms=["x", "y"]).index([{"docno": "b", "toks": {"y": 1.0}}])
    assert index.terms.names.tolist() == ["x", "y"]
    index.delete(["b"])
    assert index.compact().terms.names.tolist() == ["x", "y"]


def test_the_corpus_comes_back_and_makes_the_same_index(tmp_path: Path) -> None:
    docs = some_docs(200)
    index = built(tmp_path, docs, include_fields=["text"], shard_docs=64)
    stored = list(index.get_corpus_iter())
    assert [doc["docno"] for doc in stored] == [doc["docno"] for doc in docs]
    assert [doc["text"] for doc in stored] == [doc["text"] for doc in docs]
    for doc, other in zip(stored, docs, strict=True):
        assert doc["toks"] == pytest.approx(other["toks"])
    again = built(tmp_path / "again", stored)
    queries = some_queries(3)
    assert again.retriever()(queries)["docno"].tolist() == index.retriever()(queries)["docno"].tolist()


def test_an_index_opens_again_pickles_and_tells_what_it_is(tmp_path: Path) -> None:
    index = built(tmp_path, some_docs(50), impacts="uint8")
    again = open_index(index.folder)
    assert again == index
    assert isinstance(again, LIRSparseIndex)
    assert again.impacts == "uint8"
    retriever = pickle.loads(pickle.dumps(again.retriever(num_results=5)))
    pd.testing.assert_frame_equal(retriever(some_queries(2)), index.retriever(num_results=5)(some_queries(2)))
    assert "sparse" in index._repr_html_()


def test_documents_are_appended_replaced_deleted_and_compacted(tmp_path: Path) -> None:
    first, new = some_docs(120), some_docs(40, 1, [f"n{i}" for i in range(50)] + TERMS[:50], "n")
    index = built(tmp_path, first, shard_docs=50)
    before = index.terms.names.tolist()
    index.indexer(mode="append").index(new)
    assert index.terms.names[: len(before)].tolist() == before
    assert any(name.startswith("n") for name in index.terms.names)
    changed = [{**doc, "docno": f"d{i}"} for i, doc in enumerate(some_docs(20, 2, TERMS[:9]))]
    index.indexer(mode="append", replace=True).index(changed)
    queries = pd.concat(
        [some_queries(3), pd.DataFrame({"qid": ["n"], "query_toks": [{"n1": 1.0, "n2": 0.5, "t3": 1.0}]})]
    )
    assert index.delete([f"d{i}" for i in range(20, 60)] + ["n3"]) == 41
    left = [*changed, *first[60:], *[doc for doc in new if doc["docno"] != "n3"]]
    assert len(index) == len(left)
    check(index.retriever()(queries), brute_force(left, queries), 1_000)
    index.compact()
    assert index.docids == len(left)
    check(index.retriever()(queries), brute_force(left, queries), 1_000)
    assert sorted(doc["docno"] for doc in index.get_corpus_iter()) == sorted(doc["docno"] for doc in left)


@pytest.mark.parametrize("impacts", postings.IMPACTS)
def test_indexes_with_other_terms_are_merged(tmp_path: Path, impacts: str) -> None:
    parts, docs = [], []
    for i, terms in enumerate((TERMS, TERMS[::-1], [f"n{i}" for i in range(30)] + TERMS[100:130])):
        part = some_docs(80, i, terms, f"p{i}-")
        parts.append(built(tmp_path / str(i), part, impacts=impacts, shard_docs=32))
        docs += part
    parts[1].delete(["p1-5"])
    merged = LIRSparseIndex.merge(parts, tmp_path / "merged.lir")
    left = [doc for doc in docs if doc["docno"] != "p1-5"]
    whole = built(tmp_path / "whole", left, impacts=impacts)
    assert merged.terms.names.tolist() == whole.terms.names.tolist() or impacts != "float32"
    queries = some_queries(4)
    check(merged.retriever()(queries), brute_force(list(merged.get_corpus_iter()), queries), 1_000)
    tolerance = {"float32": 1e-6, "float16": 1e-3, "uint8": 0.2}[impacts]
    for doc, other in zip(merged.get_corpus_iter(), left, strict=True):
        assert doc["toks"] == pytest.approx(other["toks"], rel=tolerance, abs=0.05 if impacts == "uint8" else 0)


def test_an_interrupted_build_ends_in_the_same_bytes(tmp_path: Path) -> None:
    docs = some_docs(3_000)
    whole = built(tmp_path / "whole", docs, shard_docs=1_024, impacts="uint8")
    index = LIRSparseIndex(tmp_path / "x.lir")

    def broken() -> Iterator[dict[str, Any]]:
        yield from docs[:2_500]
        raise OSError("the disk of the corpus")

    with pytest.raises(OSError, match="the disk"):
        index.indexer(shard_docs=1_024, impacts="uint8").index(broken())
    LIRSparseIndex(tmp_path / "x.lir").indexer(mode="resume", shard_docs=1_024, impacts="uint8").index(docs)
    names = sorted(str(file.relative_to(whole.folder)) for file in whole.folder.rglob("*") if file.is_file())
    assert names == sorted(str(file.relative_to(index.folder)) for file in index.folder.rglob("*") if file.is_file())
    assert filecmp.cmpfiles(whole.folder, index.folder, names, shallow=False)[0] == names


def test_the_same_object_goes_on_after_a_failure(tmp_path: Path) -> None:
    docs = some_docs(2_100)
    index = LIRSparseIndex(tmp_path / "x.lir")
    with pytest.raises(ValueError, match="'bad'"):
        index.indexer(shard_docs=1_024).index([*docs, {"docno": "bad", "toks": {"new": float("nan")}}])
    index.indexer(mode="resume", shard_docs=1_024).index(docs)
    assert "new" not in index.terms.names.tolist()
    queries = some_queries(2)
    check(index.retriever(num_results=9)(queries), brute_force(docs, queries), 9)


@pytest.mark.parametrize(
    ("toks", "error", "message"),
    [
        ({"x": float("nan")}, ValueError, "NaN.*docno='bad'"),
        ({"x": float("inf")}, ValueError, "infinite.*docno='bad'"),
        ({"x": 1e39}, ValueError, "too large.*docno='bad'"),
        ({"x": "1"}, TypeError, "no numbers.*docno='bad'"),
        ({"x": None}, TypeError, "no numbers.*docno='bad'"),
        ({3: 1.0}, TypeError, "Term 3"),
        (["x"], TypeError, "list instead of a dict.*docno='bad'"),
        (None, ValueError, "missing.*docno='bad'"),
    ],
)
def test_wrong_weights_are_refused_by_name(tmp_path: Path, toks: Any, error: type[Exception], message: str) -> None:
    docs = [{"docno": "good", "toks": {"x": 1.0}}, {"docno": "bad", "toks": toks}]
    with pytest.raises(error, match=message):
        built(tmp_path, docs)
    index = built(tmp_path / "good", docs[:1])
    if toks != {3: 1.0}:  # which no document has
        with pytest.raises(error):
            index.retriever()(pd.DataFrame({"qid": ["1"], "query_toks": [toks]}))


def test_weights_of_zero_and_less_are_dropped(tmp_path: Path) -> None:
    index = built(tmp_path, [{"docno": "a", "toks": {"x": 1.0, "y": 0.0, "z": -2}}])
    assert next(index.get_corpus_iter())["toks"] == {"x": 1.0}


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    docs = some_docs(3)
    with pytest.raises(ValueError, match="float32, float16, uint8"):
        built(tmp_path, docs, impacts="int4")
    with pytest.raises(TypeError, match="no setting dtype"):
        built(tmp_path, docs, dtype="float16")
    with pytest.raises(ValueError, match="too large for float16"):
        built(tmp_path, [{"docno": "a", "toks": {"x": 1e6}}], impacts="float16")
    with pytest.raises(ValueError, match="no option rounded"):
        built(tmp_path / "2", docs).retriever(rounded=True)(some_queries(1))


def test_an_index_may_be_empty(tmp_path: Path) -> None:
    index = built(tmp_path, [])
    assert len(index) == 0
    for device in DEVICES:
        assert index.retriever(device=device)(some_queries(2)).empty
    index.indexer(mode="append").index([{"docno": "a", "toks": {"t0": 1.0}}])
    assert len(index.retriever()([{"qid": "1", "query_toks": {"t0": 1.0}}])) == 1


def test_seismic_finds_most_of_the_best_with_exact_scores(tmp_path: Path) -> None:
    pytest.importorskip("seismic")
    docs, queries = some_docs(2_000), some_queries(10)
    index = built(tmp_path, docs, shard_docs=1_000)
    exact = index.retriever(num_results=10)(queries)
    retriever = index.retriever("seismic", num_results=10, query_cut=20, heap_factor=0.9)
    found = retriever(queries)
    common = exact.merge(found, on=["qid", "docno"])
    assert len(common) >= 0.9 * len(exact)
    np.testing.assert_allclose(common["score_x"], common["score_y"], rtol=1e-5)
    [folder] = (index.folder / "engines").iterdir()
    made = folder.stat().st_mtime_ns
    pd.testing.assert_frame_equal(
        index.retriever("seismic", num_results=10, query_cut=20, heap_factor=0.9)(queries), found
    )
    assert folder.stat().st_mtime_ns == made
    assert retriever(pd.DataFrame({"qid": ["1"], "query_toks": [{}]})).empty


def test_seismic_searches_exactly_where_few_documents_may_be_found(tmp_path: Path) -> None:
    pytest.importorskip("seismic")
    docs, queries = some_docs(500), some_queries(4)
    index = built(tmp_path, docs)
    allowed = [doc["docno"] for doc in docs[::50]]
    found = index.retriever("seismic", num_results=20, docnos=allowed)(queries)
    check(found, brute_force(docs[::50], queries), 20)
    index.delete(["d0", "d1"])
    assert not set(index.retriever("seismic", num_results=100)(queries)["docno"]) & {"d0", "d1"}


def test_seismic_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(tmp_path, some_docs(3))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'pyterrier-lir\[seismic\]'"):
        index.retriever("seismic")(some_queries(1))
    pd.testing.assert_frame_equal(index.retriever()(some_queries(2)), index.retriever(device="cpu")(some_queries(2)))
