"""The columns are those of PyTerrier's other packages: each is used here for real, unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_lir import LIRBiEncoder, LIRDenseIndex, LIRReRanker
from tests.tiny_checkpoints import SENTENCES

Tiny = Callable[[str], str]
SPARSE = ["splade", "splade-roberta", "inference-free", "unicoil"]


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    words = " ".join(SENTENCES).split()
    texts = [*SENTENCES, *(" ".join(words[i : i + 9]) for i in range(0, len(words) - 9, 2))]
    return [{"docno": f"d{i}", "text": text} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def topics() -> pd.DataFrame:
    return pd.DataFrame([("q1", "rainfall in the mountains"), ("q2", "a hot oven for bread")], columns=["qid", "query"])


def brute_force(encoder: LIRBiEncoder, topics: pd.DataFrame, corpus: list[dict[str, str]]) -> pd.DataFrame:
    """Scores of every query with every document, ranked."""
    return encoder.scorer()(topics.merge(pd.DataFrame(corpus), how="cross"))


def same_ranking(found: pd.DataFrame, expected: pd.DataFrame, tolerance: float = 1e-4) -> None:
    """The same documents for each query with near scores; documents of near scores may swap."""
    scores = expected.set_index(["qid", "docno"])["score"]
    for qid, group in found.groupby("qid"):
        own = scores[qid].reindex(group["docno"]).to_numpy()
        np.testing.assert_allclose(group["score"], own, rtol=tolerance, atol=tolerance)
        best = np.sort(scores[qid].to_numpy())[::-1][: len(group)]
        np.testing.assert_allclose(np.sort(own)[::-1], best, rtol=3 * tolerance, atol=3 * tolerance)


@pytest.mark.parametrize("kind", ["dense", "dpr-first"])
def test_flex_index_stores_and_searches_dense_vectors(
    kind: str, tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    dr = pytest.importorskip("pyterrier_dr")
    encoder = LIRBiEncoder(tiny(kind))
    index = dr.FlexIndex(str(tmp_path / "flex"))
    (encoder.doc_encoder() >> index).index(corpus)
    found = (encoder.query_encoder() >> index.np_retriever(num_results=10))(topics)
    same_ranking(found, brute_force(encoder, topics, corpus))
    # stored vectors are scored without texts, by our own scorer and re-ranker
    results = (encoder.query_encoder() >> index.np_retriever(num_results=10) >> index.vec_loader())(topics)
    for scorer in (encoder.scorer(), LIRReRanker(tiny(kind))):
        np.testing.assert_allclose(scorer(results)["score"], found["score"], rtol=1e-5)


def test_feedback_and_diversification_read_our_vectors(
    tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    dr = pytest.importorskip("pyterrier_dr")
    encoder = LIRBiEncoder(tiny("dense"))
    index = dr.FlexIndex(str(tmp_path / "flex"))
    (encoder.doc_encoder() >> index).index(corpus)
    first = encoder.query_encoder() >> index.np_retriever(num_results=8) >> index.vec_loader()
    vectors = {doc["docno"]: vec for doc, vec in zip(corpus, encoder(pd.DataFrame(corpus))["doc_vec"], strict=True)}
    for prf, own, fed in ((dr.VectorPrf(alpha=0.6, beta=0.4, k=3), 0.6, 0.4), (dr.AveragePrf(k=3), 0.25, 0.75)):
        refined = (first >> prf)(topics)
        for row in refined.itertuples():
            top = first(topics).query("qid == @row.qid and rank < 3")["docno"]
            query = encoder(topics).set_index("qid")["query_vec"][row.qid]
            expected = own * query + fed * np.mean([vectors[docno] for docno in top], axis=0)
            np.testing.assert_allclose(row.query_vec, expected, atol=1e-5)
        again = (prf >> index.np_retriever(num_results=5))(first(topics))
        assert again.groupby("qid").size().tolist() == [5, 5]
    diverse = (first >> dr.MmrScorer(Lambda=0.1))(topics)
    assert set(diverse["docno"]) == set(first(topics)["docno"])
    assert diverse.sort_values(["qid", "rank"])["docno"].tolist() != first(topics)["docno"].tolist()
    # our own index gives them as theirs does
    own = LIRDenseIndex(tmp_path / "own")
    (encoder.doc_encoder() >> own.indexer(encoder=encoder)).index(corpus)
    ours = encoder.query_encoder() >> own.retriever(num_results=8) >> own.vec_loader()
    for stage, name in ((dr.MmrScorer(Lambda=0.1), "score"), (dr.VectorPrf(alpha=0.6, beta=0.4, k=3), "query_vec")):
        found, expected = (stage(start(topics)) for start in (ours, first))
        assert found["qid"].tolist() == expected["qid"].tolist()
        np.testing.assert_allclose(np.stack(found[name]), np.stack(expected[name]), atol=1e-5)
    # documents that a lexical first stage found need only the document encoder in front
    encoded = (encoder.scorer() % 6 >> encoder.doc_encoder() >> dr.MmrScorer())(
        topics.merge(pd.DataFrame(corpus), how="cross")
    )
    assert encoded.groupby("qid").size().tolist() == [6, 6]


@pytest.mark.parametrize("kind", SPARSE)
def test_pisa_indexes_token_weights_and_retrieves_by_them(
    kind: str, tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    pisa = pytest.importorskip("pyterrier_pisa")
    encoder = LIRBiEncoder(tiny(kind), token_ids=True)  # PISA lower-cases the tokens of queries
    index = pisa.PisaIndex(str(tmp_path / "pisa"), stemmer="none", stops="none")
    (encoder.doc_encoder() >> index.toks_indexer(scale=100)).index(corpus)
    found = (encoder.query_encoder() >> index.quantized(num_results=10, toks_scale=100))(topics)
    assert len(found) > 10
    # PISA keeps whole hundredths of document weights, and scales queries by 100 too
    expected = brute_force(encoder, topics, corpus)
    weights = encoder.query_encoder()(topics).set_index("qid")["query_toks"]
    scores = expected.set_index(["qid", "docno"])["score"]
    for row in found.itertuples():
        rounding = 0.01 * sum(weights[row.qid].values()) + 0.01 * len(corpus)
        assert row.score / 10_000 == pytest.approx(scores[row.qid, row.docno], abs=rounding)
    agreement = found["score"].to_numpy() / 10_000, [scores[row.qid, row.docno] for row in found.itertuples()]
    assert np.corrcoef(*agreement)[0, 1] > 0.99


def test_terrier_indexes_token_weights(
    tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    try:
        pt.java.init()
    except (URLError, OSError, RuntimeError) as error:
        pytest.skip(f"Terrier's jar files cannot be had here: {error}")
    encoder = LIRBiEncoder(tiny("splade"))
    scaled = pt.apply.toks(lambda row: {t: round(100 * w) for t, w in row["toks"].items() if round(100 * w) > 0})
    indexer = pt.IterDictIndexer(str(tmp_path / "terrier"), pretokenised=True)
    index = (encoder.doc_encoder() >> scaled >> indexer).index(corpus)
    found = (encoder.query_encoder() >> pt.terrier.Retriever(index, wmodel="Tf", num_results=10))(topics)
    same_ranking(found.assign(score=found["score"] / 100), brute_force(encoder, topics, corpus), tolerance=0.05)


@pytest.mark.parametrize("kind", ["dense", "splade", "col"])
def test_scorer_caches_around_the_scorer_give_the_same(
    kind: str, tiny: Tiny, corpus: list[dict[str, str]], topics: pd.DataFrame, tmp_path: Path
) -> None:
    caching = pytest.importorskip("pyterrier_caching")
    scorer = LIRBiEncoder(tiny(kind)).scorer()
    results = topics.merge(pd.DataFrame(corpus), how="cross")
    cached = caching.ScorerCache(str(tmp_path / "scores"), scorer)
    for _ in range(2):
        np.testing.assert_allclose(cached(results)["score"], scorer(results)["score"], atol=1e-6)


def test_an_indexer_cache_replays_encoded_documents(tiny: Tiny, corpus: list[dict[str, str]], tmp_path: Path) -> None:
    caching = pytest.importorskip("pyterrier_caching")
    encoder = LIRBiEncoder(tiny("splade")).doc_encoder()
    cache = caching.IndexerCache(str(tmp_path / "docs"))
    (encoder >> cache).index(corpus)
    expected = encoder(pd.DataFrame(corpus))
    replayed = pd.DataFrame(list(cache))
    assert replayed["docno"].tolist() == expected["docno"].tolist()
    for one, other in zip(replayed["toks"], expected["toks"], strict=True):
        assert one == pytest.approx(other, rel=1e-3)
