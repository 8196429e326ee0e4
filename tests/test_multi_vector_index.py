"""Multi-vector indexes: storage, residual compression, exact search and PLAID against brute force."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyterrier_lir.config import BiEncoderConfig
from pyterrier_lir.indexes import LIRMultiVectorIndex
from pyterrier_lir.indexes.residuals import ResidualCodec
from pyterrier_lir.models.scores import late_interaction
from pyterrier_lir.vectors import TokenVectors

SIZE = 16
CENTRES = np.random.default_rng(0).standard_normal((40, SIZE)).astype(np.float32)
CONFIG = BiEncoderConfig(query_pooling_strategy=None, doc_pooling_strategy=None)
COSINE = replace(CONFIG, similarity_function="cosine")
STORED = [{"dtype": "float32"}, {"dtype": "float16"}, {"bits": 1}, {"bits": 2}, {"bits": 4}]
Docs = list[dict[str, Any]]


def vectors(seed: int, least: int = 2, most: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(least, most))
    noise = 0.3 * rng.standard_normal((rows, SIZE))
    return (CENTRES[rng.integers(0, len(CENTRES), rows)] + noise).astype(np.float32)


def documents(count: int, start: int = 0, empty: int = 0) -> Docs:
    """Documents around the centres; the first `empty` have no vectors."""
    docs = [{"docno": f"d{i}", "doc_embs": vectors(i)} for i in range(start, start + count)]
    for doc in docs[:empty]:
        doc["doc_embs"] = np.empty((0, SIZE), np.float32)
    return docs


def topics(count: int = 5) -> pd.DataFrame:
    rows = pd.Series([vectors(100_000 + i) for i in range(count)], dtype=object)
    return pd.DataFrame({"qid": [f"q{i}" for i in range(count)], "query_embs": rows})


def built(path: Path, docs: Docs, **settings: Any) -> LIRMultiVectorIndex:
    index = LIRMultiVectorIndex(path)
    index.indexer(**{"config": COSINE, "shard_docs": 1_024, **settings}).index(docs)
    return index


def brute_force(index: LIRMultiVectorIndex, queries: pd.DataFrame) -> np.ndarray:
    """Scores (queries, documents) by late interaction with the stored vectors."""
    given = index.prepared(index._queries(queries))
    docs = index.vectors_of(np.arange(index.docids))
    query_of, doc_of = (a.ravel() for a in np.indices((len(given), len(docs))))
    return late_interaction(index.stored_config, given, docs, query_of, doc_of).reshape(len(given), len(docs))


def check(index: LIRMultiVectorIndex, found: pd.DataFrame, scores: np.ndarray, k: int) -> None:
    """The k best of the scores (queries, docids), equal ones by docid; rounding may exchange neighbours."""
    for row, (_, group) in zip(scores, found.groupby("qid"), strict=True):
        docids = index.docids_of(group["docno"])
        assert len(set(docids)) == len(docids) == min(k, int((~np.isneginf(row)).sum()))
        np.testing.assert_allclose(group["score"], np.sort(row)[::-1][: len(docids)], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(row[docids], group["score"], rtol=1e-5, atol=1e-5)


# Storage


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_exact_search_finds_what_brute_force_over_stored_vectors_does(stored: dict[str, Any], tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(2_500, empty=3), **stored)
    assert len(index.shards) == 3
    check(index, index.retriever(num_results=50)(topics()), brute_force(index, topics()), 50)
    check(
        index, LIRMultiVectorIndex(tmp_path / "x").retriever(num_results=50)(topics()), brute_force(index, topics()), 50
    )


def test_errors_of_stored_vectors_fall_with_the_bits(tmp_path: Path) -> None:
    docs = documents(800)
    whole = TokenVectors.of([doc["doc_embs"] / np.linalg.norm(doc["doc_embs"], axis=1, keepdims=True) for doc in docs])
    errors, sizes = [], []
    for stored in ({"bits": 1}, {"bits": 2}, {"bits": 4}, {"dtype": "float16"}, {"dtype": "float32"}):
        index = built(tmp_path / str(stored), docs, **stored)
        values = index.vectors_of(np.arange(800)).values
        errors.append(float(np.abs(values - whole.values).mean()))
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=2e-3)
        sizes.append(sum((index.shards[0].folder / f"{name}.npy").stat().st_size for name in
                         (("codes", "residuals") if "bits" in stored else ("vectors",))))  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.1
    assert errors[2] < 0.02
    assert errors[4] < 1e-6
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("size", "bits"), [(5, 1), (9, 2), (3, 4), (16, 2)])
def test_residuals_of_odd_sizes_come_back(size: int, bits: int) -> None:
    values = np.random.default_rng(1).standard_normal((600, size)).astype(np.float32)
    codec = ResidualCodec.train(values, bits, 8, unit=False)
    codes, residuals = codec.encode(values)
    assert residuals.shape == (600, -(-size * bits // 8))
    buckets = np.searchsorted(codec.cutoffs, values - codec.centroids[codes], side="left")
    expected = codec.centroids[codes] + codec.weights[buckets]
    np.testing.assert_allclose(codec.decoded(codes, residuals), expected, atol=1e-6)
    distances = ((values[:, None] - codec.centroids) ** 2).sum(-1)
    np.testing.assert_allclose(distances[np.arange(600), codes], distances.min(1), rtol=1e-4)


@pytest.mark.parametrize("stored", [{"dtype": "float32"}, {"bits": 2}], ids=str)
def test_corpus_iterators_give_what_was_stored(stored: dict[str, Any], tmp_path: Path) -> None:
    docs = documents(1_300, empty=1)
    index = built(tmp_path / "x", docs, **stored, config=CONFIG)
    vectors = index.vectors_of(np.arange(1_300)).rows()
    for doc, row, given in zip(index.get_corpus_iter(), vectors, docs, strict=True):
        assert doc["docno"] == given["docno"]
        np.testing.assert_array_equal(doc["doc_embs"], row)
        assert row.shape == given["doc_embs"].shape
        assert np.abs(row - given["doc_embs"]).sum() <= (1e-6 if "dtype" in stored else 0.4) * row.size
    again = built(tmp_path / "y", list(index.get_corpus_iter()), dtype="float32", config=CONFIG)
    np.testing.assert_array_equal(again.vectors_of(np.array([7, 5])).values, index.vectors_of(np.array([7, 5])).values)


def test_smallest_and_largest_halves_are_read_exactly(tmp_path: Path) -> None:
    values = np.array([[6e-8, -6e-8, 65504.0, -65504.0, 0.0, -0.0, 1e-5, 1.0]], np.float32)
    index = built(tmp_path / "x", [{"docno": "a", "doc_embs": values}], config=CONFIG)
    np.testing.assert_array_equal(index.vectors_of(np.array([0])).values, values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("settings", [{"bits": 3}, {"bits": 2, "dtype": "float16"}, {"dtype": "int4"}, {"ncentroids": 9},
                                      {"bits": 2, "ncentroids": 0}], ids=str)  # fmt: skip
def test_unknown_ways_of_storing_are_named(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed"):
        built(tmp_path / "x", documents(3), **settings)


# Changing a compressed index


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def codes_of(index: LIRMultiVectorIndex, docids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    coded = index.coded(docids)
    return coded.codes, coded.residuals


def test_interrupted_compressed_builds_resume_to_the_same_bytes(tmp_path: Path) -> None:
    docs = documents(2_200)

    def broken() -> Iterator[dict[str, Any]]:
        yield from docs[:1_500]
        raise ConnectionError

    index = LIRMultiVectorIndex(tmp_path / "x")
    with pytest.raises(ConnectionError):
        index.indexer(bits=2, config=COSINE, shard_docs=1_024).index(broken())
    index.indexer(bits=2, config=COSINE, shard_docs=1_024, mode="resume").index(docs)
    built(tmp_path / "whole", docs, bits=2)
    assert files_of(tmp_path / "x") == files_of(tmp_path / "whole")


def test_added_and_replaced_documents_are_coded_as_the_first(tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(1_024), bits=2)
    before, codec = codes_of(index, np.arange(1_024)), index.codec
    index.indexer(bits=2, config=COSINE, mode="append").index(documents(300, start=1_024))
    whole = built(tmp_path / "whole", documents(1_324), bits=2)
    assert codec is not None
    assert index.codec is not None
    assert index.codec.same(codec)
    for one, other in zip(codes_of(index, np.arange(1_324)), codes_of(whole, np.arange(1_324)), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(codes_of(index, np.arange(1_024))[1], before[1])
    changed = [{**documents(1, start=5_000)[0], "docno": "d7"}]
    index.indexer(bits=2, config=COSINE, mode="append", replace=True).index(changed)
    assert len(index) == 1_324
    stored = {doc["docno"]: doc["doc_embs"] for doc in index.get_corpus_iter()}
    assert len(stored["d7"]) == len(changed[0]["doc_embs"])
    scores = brute_force(index, topics())
    scores[:, 7] = -np.inf
    check(index, index.retriever(num_results=20)(topics()), scores, 20)


def test_compacting_copies_codes(tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(1_500), bits=2)
    gone = np.arange(0, 1_500, 3)
    kept = np.setdiff1d(np.arange(1_500), gone)
    before, scores = codes_of(index, kept), brute_force(index, topics())[:, kept]
    index.delete([f"d{i}" for i in gone])
    index.compact()
    assert index.docids == len(kept)
    for one, other in zip(codes_of(index, np.arange(len(kept))), before, strict=True):
        np.testing.assert_array_equal(one, other)
    check(index, index.retriever(num_results=20)(topics()), scores, 20)


def test_merging_keeps_the_first_codec_and_codes_others_anew(tmp_path: Path) -> None:
    first = built(tmp_path / "a", documents(900), bits=4)
    second = built(tmp_path / "b", documents(700, start=900), bits=4)
    merged = LIRMultiVectorIndex.merge([first, second], tmp_path / "c")
    assert first.codec is not None
    assert second.codec is not None
    assert merged.codec is not None
    assert merged.codec.same(first.codec)
    assert not second.codec.same(first.codec)
    for one, other in zip(codes_of(merged, np.arange(900)), codes_of(first, np.arange(900)), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = merged.vectors_of(np.arange(900, 1_600)).values - second.vectors_of(np.arange(700)).values
    assert np.abs(moved).mean() < 0.03
    with pytest.raises(ValueError, match="differ in"):
        LIRMultiVectorIndex.merge([first, built(tmp_path / "d", documents(5, start=9_000))], tmp_path / "e")


# Exact search


def test_equal_scores_are_in_the_order_of_docids_and_k_may_exceed_the_size(tmp_path: Path) -> None:
    docs = [{"docno": f"d{i}", "doc_embs": vectors(i % 2)} for i in range(40)]
    index = built(tmp_path / "x", docs, shard_docs=16)
    found = index.retriever(num_results=60)(topics(1))
    assert len(found) == 40
    ties = found.assign(docid=index.docids_of(found["docno"]))
    for _, group in ties.groupby("score"):
        assert (np.diff(group["docid"]) > 0).all()


def test_documents_without_vectors_score_nothing(tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(30, empty=4))
    found = index.retriever(num_results=30)(topics(2))
    scores = found.set_index(["qid", "docno"])["score"]
    assert (scores.loc[[("q0", f"d{i}") for i in range(4)]] == 0).all()
    empty = pd.DataFrame({"qid": ["q"], "query_embs": pd.Series([np.empty((0, SIZE), np.float32)], dtype=object)})
    for engine in ("exact", "plaid"):
        found = index.retriever(engine, num_results=3)(empty)
        assert found["docno"].tolist() == ["d0", "d1", "d2"]
        assert (found["score"] == 0).all()


@pytest.mark.parametrize("engine", ["exact", "plaid"])
def test_only_candidates_are_found(engine: str, tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(2_000))
    scores = brute_force(index, topics())
    allowed = np.arange(5, 2_000, 9)
    scores[:, np.setdiff1d(np.arange(2_000), allowed)] = -np.inf
    for k in (10, 300):
        found = index.retriever(engine, num_results=k, docnos=[f"d{i}" for i in allowed])(topics())
        check(index, found, scores, k)


@pytest.mark.parametrize("doc", ["max", "sum", "mean"])
@pytest.mark.parametrize("query", ["max", "sum", "mean"])
@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
def test_all_ways_of_aggregation_are_searched(query: str, doc: str, similarity: str, tmp_path: Path) -> None:
    config = replace(
        CONFIG, query_aggregation_function=query, doc_aggregation_function=doc, similarity_function=similarity
    )
    index = built(tmp_path / "x", documents(300, empty=2), config=config, dtype="float32")
    check(index, index.retriever(num_results=300)(topics()), brute_force(index, topics()), 300)


def with_tokens(docs: Docs) -> Docs:
    rng = np.random.default_rng(3)
    return [{**doc, "doc_embs_toks": rng.integers(0, 6, len(doc["doc_embs"]))} for doc in docs]


def test_models_that_match_tokens_compare_vectors_of_equal_ones(tmp_path: Path) -> None:
    config, docs = replace(CONFIG, exact_match=True), with_tokens(documents(1_200, empty=2))
    index = built(tmp_path / "x", docs, config=config, dtype="float32")
    queries = topics()
    queries["query_embs_toks"] = [np.arange(len(row)) % 6 for row in queries["query_embs"]]
    expected = [
        [sum(max([0.0 if t != s else float(v @ w) for w, s in zip(doc["doc_embs"], doc["doc_embs_toks"], strict=True)], default=0)
             for v, t in zip(q, toks, strict=True)) for doc in docs]
        for q, toks in zip(queries["query_embs"], queries["query_embs_toks"], strict=True)
    ]  # fmt: skip
    found = index.retriever(num_results=1_200)(queries)
    check(index, found, np.array(expected), 1_200)
    np.testing.assert_allclose(
        index.scorer()(found.drop(columns=["score", "rank"]))["score"], found["score"], rtol=1e-5
    )
    for doc, given in zip(index.get_corpus_iter(), docs, strict=True):
        assert doc["doc_embs_toks"].tolist() == given["doc_embs_toks"].tolist()
    coded = built(tmp_path / "y", docs, config=config, bits=4)
    merged = LIRMultiVectorIndex.merge([coded], tmp_path / "z")
    check(merged, merged.retriever(num_results=9)(queries), brute_force(coded, queries), 9)
    with pytest.raises(ValueError, match="doc_embs_toks"):
        built(tmp_path / "w", documents(3), config=config)
    with pytest.raises(ValueError, match="PLAID is for"):
        index.retriever("plaid")(queries)


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_scorers_give_the_scores_of_retrievers(stored: dict[str, Any], tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(1_500, empty=1), **stored)
    found = index.retriever(num_results=1_500)(topics(3))
    pairs = found[["qid", "query_embs", "docno"]].sample(frac=1, random_state=1)
    scored = index.scorer()(pd.concat([pairs, pairs.head(7)]))  # rows may come twice
    expected = found.set_index(["qid", "docno"])["score"].loc[list(zip(scored["qid"], scored["docno"], strict=True))]
    np.testing.assert_allclose(scored["score"], expected.to_numpy(), rtol=1e-4, atol=1e-4)


# PLAID


def clustered(count: int, seed: int, noise: float = 0.3) -> list[np.ndarray]:
    """Texts of 12 vectors around 500 centres, those of each text from one of 100 overlapping topics of 40 centres."""
    centres = np.random.default_rng(1).standard_normal((500, SIZE))
    rng = np.random.default_rng(seed)
    chosen = (5 * rng.integers(0, 100, (count, 1)) + rng.integers(0, 40, (count, 12))) % 500
    return list((centres[chosen] + noise * rng.standard_normal((count, 12, SIZE))).astype(np.float32))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LIRMultiVectorIndex]:
    docs = [{"docno": f"d{i}", "doc_embs": row} for i, row in enumerate(clustered(5_000, 2))]
    return {str(stored): built(tmp_path_factory.mktemp("plaid") / "x", docs, shard_docs=4_096, **stored)
            for stored in ({"dtype": "float16"}, {"bits": 2})}  # fmt: skip


def near_documents(count: int) -> pd.DataFrame:
    """Queries whose vectors are those of documents, changed a little."""
    rng = np.random.default_rng(5)
    rows = [row + (0.3 * rng.standard_normal(row.shape)).astype(np.float32) for row in clustered(count, 2)]
    return pd.DataFrame({"qid": [f"q{i}" for i in range(count)], "query_embs": pd.Series(rows, dtype=object)})


def recall(found: pd.DataFrame, expected: pd.DataFrame) -> float:
    return len(found.merge(expected, on=["qid", "docno"])) / len(expected)


@pytest.mark.parametrize("stored", [{"dtype": "float16"}, {"bits": 2}], ids=str)
def test_plaid_finds_most_of_what_exact_search_does(
    stored: dict[str, Any], large: dict[str, LIRMultiVectorIndex]
) -> None:
    index, queries = large[str(stored)], near_documents(20)
    for k, least in ((10, 0.85), (100, 0.95)):
        exact = index.retriever(num_results=k)(queries)
        assert recall(index.retriever("plaid", num_results=k)(queries), exact) >= least
    assert (index.folder / "engines" / "plaid-codec").is_dir() == ("bits" in stored)


@pytest.mark.parametrize("stored", [{"dtype": "float16"}, {"bits": 2}], ids=str)
def test_plaid_with_generous_settings_equals_exact_search(
    stored: dict[str, Any], large: dict[str, LIRMultiVectorIndex]
) -> None:
    index, queries = large[str(stored)], near_documents(6)
    exact = index.retriever(num_results=30)(queries)
    settings = {"nprobe": 10_000, "t_cs": -1e9, "ndocs": 24_000}
    for more in ({}, {"ncentroids": 7}):
        found = index.retriever("plaid", num_results=30, **settings, **more)(queries)
        assert found["docno"].tolist() == exact["docno"].tolist()
        np.testing.assert_allclose(found["score"], exact["score"], rtol=1e-5)


def test_plaid_finds_as_many_as_there_are(tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(50, empty=5))
    assert index.retriever("plaid", num_results=100, nprobe=1)(topics(2)).groupby("qid").size().tolist() == [50, 50]
    none = built(tmp_path / "y", documents(3, empty=3))
    assert len(none.retriever("plaid", num_results=5)(topics(1))) == 3
    with pytest.raises(ValueError, match="ndocs=0; allowed"):
        index.retriever("plaid", ndocs=0)(topics(1))


# Imputation


def imputed(index: LIRMultiVectorIndex, query: np.ndarray, count: int) -> np.ndarray:
    """Scores (documents,) by the `count` most similar tokens of each vector (arXiv:2304.01982, equations 4 and 5)."""
    docs = index.vectors_of(np.arange(index.docids))
    doc_of, scores = np.repeat(np.arange(len(docs)), docs.lengths), np.zeros(len(docs))
    seen = np.zeros(len(docs), bool)
    for vector in query:
        similar = docs.values @ vector
        least = np.sort(similar)[::-1][:count].min()
        best = np.full(len(docs), -np.inf)
        np.maximum.at(best, doc_of, similar)
        seen |= best >= least
        scores += np.maximum(best, least)
    return np.where(seen, scores / len(query), -np.inf)


@pytest.mark.parametrize("stored", [{"dtype": "float32"}, {"dtype": "float16"}, {"bits": 4}], ids=str)
def test_missing_similarities_are_imputed_where_the_model_says_so(stored: dict[str, Any], tmp_path: Path) -> None:
    config = replace(CONFIG, imputation_strategy="min", query_aggregation_function="mean")
    index = built(tmp_path / "x", documents(2_500, empty=3), config=config, **stored)
    given = index._queries(topics())
    for count in (200, 50):
        expected = np.stack([imputed(index, row, count) for row in given.rows()])
        options = {"candidate_k": count, "nprobe": 10_000}
        check(index, index.retriever("plaid", num_results=20, **options)(topics()), expected, 20)
    allowed = np.arange(0, 2_500, 2)
    part = built(tmp_path / "part", documents(2_500, empty=3)[::2], config=config, dtype="float32")
    wanted = np.full((5, 2_500), -np.inf)
    wanted[:, allowed] = [imputed(part, row, 200) for row in given.rows()]
    if stored == {"dtype": "float32"}:
        found = index.retriever("plaid", num_results=20, docnos=[f"d{i}" for i in allowed], candidate_k=200,
                                nprobe=10_000)(topics())  # fmt: skip
        check(index, found, wanted, 20)
    everything = {"candidate_k": 10**6, "nprobe": 10_000}  # nothing is missing
    exact = brute_force(index, topics())
    exact[:, :3] = -np.inf
    check(index, index.retriever("plaid", num_results=30, **everything)(topics()), exact, 30)
    gathered = index.retriever("plaid", num_results=30, imputation_strategy="gather", nprobe=10_000, ndocs=10_000)
    check(index, gathered(topics()), exact, 30)


def test_retrieval_by_tokens_finds_most_with_few_centroids(large: dict[str, LIRMultiVectorIndex]) -> None:
    queries = near_documents(20)
    for index in large.values():
        every = {"imputation_strategy": "min", "candidate_k": 300}
        expected = index.retriever("plaid", num_results=20, **every, nprobe=10_000)(queries)
        found = index.retriever("plaid", num_results=20, **every)(queries)
        assert recall(found, expected) >= 0.9
        again = LIRMultiVectorIndex(index.path).retriever("plaid", num_results=20, **every)(queries)
        pd.testing.assert_frame_equal(again, found)
    assert any(folder.name.endswith("-tokens") for folder in (index.folder / "engines").iterdir())


def test_imputation_is_named_where_it_is_wrong(tmp_path: Path) -> None:
    index = built(tmp_path / "x", documents(20, empty=20))
    with pytest.raises(ValueError, match="imputation_strategy='zero'; allowed: 'gather', 'min'"):
        index.retriever("plaid", imputation_strategy="zero")(topics(1))
    with pytest.raises(ValueError, match="candidate_k is an option of"):
        index.retriever("plaid", candidate_k=9)(topics(1))
    assert len(index.retriever("plaid", num_results=5, imputation_strategy="min")(topics(1))) == 5


# fast-plaid


def test_fast_plaid_scores_exactly_what_it_finds(tmp_path: Path) -> None:
    pytest.importorskip("fast_plaid")
    docs, allowed = documents(3_000, empty=4), [f"d{i}" for i in range(0, 3_000, 2)]
    for stored in ({"dtype": "float16"}, {"bits": 4}):
        index = built(tmp_path / str(stored), docs, **stored)
        scores = brute_force(index, topics())
        for restriction in ({}, {"docnos": allowed}):
            settings = {"num_results": 20, "n_full_scores": 1_000, "n_ivf_probe": 64, **restriction}
            found = index.retriever("fast-plaid", **settings)(topics())
            exact = index.retriever(num_results=20, **restriction)(topics())
            assert recall(found, exact) >= 0.9
            own = [
                scores[int(qid[1:]), int(docno[1:])] for qid, docno in zip(found["qid"], found["docno"], strict=True)
            ]
            np.testing.assert_allclose(found["score"], own, rtol=1e-4)
    assert len(index.retriever("fast-plaid", num_results=4_000)(topics(1))) == 3_000
    plain = built(tmp_path / "plain", docs, config=CONFIG)
    with pytest.raises(ValueError, match="for vectors of length 1"):
        plain.retriever("fast-plaid")(topics(1))


def test_fast_plaid_is_named_where_it_is_missing_or_of_another_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built(tmp_path / "x", documents(30))
    with monkeypatch.context() as patched:
        patched.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"pip install 'pyterrier-lir\[fast-plaid\]'"):
            index.retriever("fast-plaid")(topics(1))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)  # installed, but of no use
    monkeypatch.setitem(sys.modules, "fast_plaid.search", None)
    with pytest.raises(ImportError, match=r"cannot be loaded with torch .*pyterrier-lir\[fast-plaid\]"):
        index.retriever("fast-plaid")(topics(1))
