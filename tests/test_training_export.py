"""What training leaves behind opens in the libraries that users know, with the same vectors and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyterrier_lir import BiEncoderConfig, CrossEncoderConfig, LIRBiEncoder, LIRReRanker
from pyterrier_lir.training import BiEncoderModule, CrossEncoderModule, ExportCallback
from pyterrier_lir.training.objectives import InBatchCrossEntropy, RankNet
from tests.test_training import data, quiet, trainer

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests
DOCS = ["the tower by the river", "bread in the oven"]
DENSE = {
    "as it came": None,
    "normalised": BiEncoderConfig(normalization_strategy="l2", doc_length=64),
    "projected": BiEncoderConfig(query_pooling_strategy="first", doc_pooling_strategy="first", projection="linear",
                                 embedding_dim=8, similarity_function="dot"),
    "cut, with prompts": BiEncoderConfig(query_prompt="query: ", doc_prompt="passage: ", similarity_function="l2"),
}  # fmt: skip


@pytest.mark.parametrize("case", DENSE)
def test_dense_models_open_in_sentence_transformers(case: str, tiny: Tiny, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    model: Any = BiEncoderModule(tiny("dense"), DENSE[case], loss_functions=[InBatchCrossEntropy()], learning_rate=1e-3)
    if case.startswith("cut"):
        model.model = model.model.with_options(embedding_dim=16)
    export = ExportCallback(tmp_path / "out", layout="sentence-transformers")
    trainer(tmp_path, max_steps=2, callbacks=export).fit(model, data(8))
    own = LIRBiEncoder(str(tmp_path / "out"))
    peer = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    frame = pd.DataFrame({"qid": ["1", "2"], "query": ["tower river", "bread"], "docno": ["a", "b"], "text": DOCS})
    queries, docs = (np.stack(one(frame)[name]) for one, name in
                     ((own.query_encoder(), "query_vec"), (own.doc_encoder(), "doc_vec")))  # fmt: skip
    np.testing.assert_allclose(peer.encode_query(frame["query"].tolist()), queries, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(peer.encode_document(DOCS), docs, rtol=1e-4, atol=1e-5)
    expected = [float(peer.similarity(queries[i : i + 1], docs[i : i + 1])) for i in range(2)]
    found = own.scorer()(frame).sort_values("qid")["score"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sequence_classification_opens_in_cross_encoder(tiny: Tiny, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = CrossEncoderModule(tiny("bert-1"), loss_functions=[RankNet()], learning_rate=1e-3)
    trainer(tmp_path, max_steps=2, callbacks=ExportCallback(tmp_path / "out")).fit(model, data(8))
    frame = pd.DataFrame({"qid": "1", "query": "tower river", "docno": ["a", "b"], "text": DOCS})
    peer = library.CrossEncoder(str(tmp_path / "out"), device="cpu").predict([("tower river", doc) for doc in DOCS])
    found = LIRReRanker(str(tmp_path / "out"))(frame).sort_values("docno")["score"]
    np.testing.assert_allclose(found, peer, rtol=1e-4, atol=1e-5)


BAD: dict[str, tuple[Any, str]] = {
    "colbert": (BiEncoderConfig.colbert(), "only dense models with one output"),
    "markers": (BiEncoderConfig(add_marker_tokens=True), "add_marker_tokens=True"),
    "poolings": (BiEncoderConfig(query_pooling_strategy="first"), "is not doc_pooling_strategy"),
    "sum": (BiEncoderConfig(query_pooling_strategy="sum", doc_pooling_strategy="sum"), "no pooling sum"),
    "cross": (CrossEncoderConfig(), "only sequence classifiers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_library_has_no_layout_for_is_refused(case: str, tiny: Tiny, tmp_path: Path) -> None:
    config, message = BAD[case]
    module = CrossEncoderModule if case == "cross" else BiEncoderModule
    model: Any = module(tiny("dense"), config)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(tmp_path / "out", "sentence-transformers")
    with pytest.raises(ValueError, match="allowed: None, 'Lightning IR'"):
        model.save_pretrained(tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_what_lightning_ir_has_no_type_for_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = BiEncoderConfig(query_pooling_strategy="last", doc_pooling_strategy="last")
    with pytest.raises(ValueError, match="Lightning IR has no model type"):
        BiEncoderModule(tiny("dense"), config).save_pretrained(tmp_path / "out", "Lightning IR")
