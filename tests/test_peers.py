"""Scores equal sentence-transformers' and transformers' own, on tiny checkpoints made by those libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

from pyterrier_lir import load_model
from pyterrier_lir.engine import Engine
from tests.tiny_checkpoints import WIDTH, backbone, qwen_tokenizer, wordpiece

Pairs = tuple[list[str], list[str]]
Tiny = Callable[[str], str]
CLASSIFIERS = ["bert-1", "electra-1", "roberta-1", "xlm-roberta-1", "deberta-1", "modernbert-cls", "modernbert-mean"]


def peer_scores(folder: str, pairs: Pairs) -> np.ndarray:
    cross_encoder = pytest.importorskip("sentence_transformers").CrossEncoder(folder, device="cpu")
    return cross_encoder.predict(list(zip(*pairs, strict=True)), batch_size=1, show_progress_bar=False)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("batch_size", [None, 1])
def test_classification_heads_score_as_cross_encoder_does(
    kind: str, batch_size: int | None, tiny: Tiny, pairs: Pairs
) -> None:
    scores = Engine(load_model(tiny(kind)), batch_size=batch_size).score(*pairs)
    np.testing.assert_allclose(scores, peer_scores(tiny(kind), pairs), atol=1e-5)


def test_decoder_classifiers_read_the_last_token(tiny: Tiny, pairs: Pairs) -> None:
    folder = tiny("qwen3-classifier")
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for query, doc in zip(*pairs, strict=True):
        ids = tokenizer([query], [doc], truncation="longest_first", max_length=700, return_tensors="pt")["input_ids"]
        hidden = model.model(ids).last_hidden_state[:, -1]
        expected.append(float(torch.sigmoid(model.score(hidden))))
    np.testing.assert_allclose(Engine(load_model(folder)).score(*pairs), expected, atol=1e-5)


def test_two_labels_score_as_the_log_probability_of_the_second(tiny: Tiny, pairs: Pairs) -> None:
    folder = tiny("bert-2")
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for query, doc in zip(*pairs, strict=True):
        inputs = tokenizer([query], [doc], truncation="longest_first", return_tensors="pt")
        expected.append(float(model(**inputs).logits.log_softmax(-1)[0, 1].detach()))
    np.testing.assert_allclose(Engine(load_model(folder)).score(*pairs), expected, atol=1e-5)


@pytest.mark.parametrize(("activation", "labels"), [("Identity", 1), ("Sigmoid", 1), ("Identity", 2), ("Softmax", 2)])
def test_a_saved_cross_encoders_activation_applies(activation: str, labels: int, pairs: Pairs, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    tokenizer = wordpiece()
    backbone("Bert", tokenizer, "ForSequenceClassification", num_labels=labels).save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    act = torch.nn.Softmax(dim=-1) if activation == "Softmax" else getattr(torch.nn, activation)()
    peer = library.CrossEncoder(str(tmp_path / "raw"), device="cpu", activation_fn=act)
    expected = peer.predict(list(zip(*pairs, strict=True)), batch_size=1, show_progress_bar=False)
    peer.save_pretrained(str(tmp_path / "saved"))
    expected = expected if expected.ndim == 1 else expected[:, 1]
    np.testing.assert_allclose(Engine(load_model(tmp_path / "saved")).score(*pairs), expected, atol=1e-5)


def modular_folder(into: Path, pooling: str, norm: bool) -> str:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    tokenizer = wordpiece()
    backbone("Bert", tokenizer).save_pretrained(into / "raw")
    tokenizer.save_pretrained(into / "raw")
    torch.manual_seed(1)
    modules = [
        Transformer(str(into / "raw"), transformer_task="feature-extraction"),
        Pooling(WIDTH, pooling),
        Dense(WIDTH, WIDTH, activation_function=torch.nn.GELU(), use_residual=norm),
        *([LayerNorm(WIDTH)] if norm else []),
        Dense(WIDTH, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    library.CrossEncoder(modules=modules, device="cpu").save_pretrained(str(into / "saved"))
    return str(into / "saved")


@pytest.mark.parametrize(("pooling", "norm"), [("cls", False), ("mean", True), ("max", False)])
def test_modular_cross_encoders_score_as_the_library_does(
    pooling: str, norm: bool, pairs: Pairs, tmp_path: Path
) -> None:
    folder = modular_folder(tmp_path, pooling, norm)
    np.testing.assert_allclose(Engine(load_model(folder)).score(*pairs), peer_scores(folder, pairs), atol=1e-5)


def test_saved_causal_cross_encoders_score_as_the_library_does(pairs: Pairs, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    tokenizer = qwen_tokenizer()
    tokenizer.padding_side = "left"
    backbone("Qwen3", tokenizer, "ForCausalLM").save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    peer = library.CrossEncoder(str(tmp_path / "raw"), device="cpu")
    peer.save_pretrained(str(tmp_path / "saved"))
    saved = str(tmp_path / "saved")
    np.testing.assert_allclose(Engine(load_model(saved)).score(*pairs), peer_scores(saved, pairs), atol=1e-5)


def test_monot5_scores_as_one_plain_pass_for_each_pair(tiny: Tiny, pairs: Pairs) -> None:
    folder = tiny("monot5")
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    words = tokenizer.convert_tokens_to_ids(["▁false", "▁true"])
    prompt = tokenizer("Relevant:")["input_ids"]
    expected = []
    for query, doc in zip(*pairs, strict=True):
        body = tokenizer(f"Query: {query} Document: {doc}", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([body[: 64 - len(prompt)] + prompt])
        logits = model(input_ids=ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0, words]
        expected.append(float(logits.log_softmax(-1)[1].detach()))
    np.testing.assert_allclose(Engine(load_model(folder)).score(*pairs), expected, atol=1e-5)


def test_qwen3_reranker_scores_as_its_model_card_does(tiny: Tiny, pairs: Pairs) -> None:
    folder = tiny("qwen3-reranker")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    no, yes = tokenizer.convert_tokens_to_ids(["no", "yes"])
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    expected = []
    for query, doc in zip(*pairs, strict=True):
        body = f"<Instruct>: Find bread\n<Query>: {query}\n<Document>: {doc}"
        parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prefix, body, suffix)]
        parts[1] = parts[1][: 700 - len(parts[0]) - len(parts[2])]
        logits = model(torch.tensor([[*parts[0], *parts[1], *parts[2]]])).logits[0, -1]
        expected.append(float(logits[[no, yes]].softmax(-1)[1].detach()))
    model = load_model(folder).with_options(instruction="Find bread")
    np.testing.assert_allclose(Engine(model).score(*pairs), expected, atol=1e-5)


def test_dense_models_score_as_sentence_transformers_does(tiny: Tiny, pairs: Pairs) -> None:
    library = pytest.importorskip("sentence_transformers")
    peer = library.SentenceTransformer(tiny("dense"), device="cpu")
    vectors = [peer.encode(texts, show_progress_bar=False) for texts in pairs]
    expected = (vectors[0] * vectors[1]).sum(1)
    np.testing.assert_allclose(Engine(load_model(tiny("dense"))).score(*pairs), expected, atol=1e-5)
