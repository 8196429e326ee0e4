"""A configuration that is given for a checkpoint: its own layers where they fit, else new ones, and a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pyterrier_lir import (
    BiEncoderConfig,
    BiEncoderModel,
    BiEncoderModule,
    CrossEncoderConfig,
    CrossEncoderModule,
    checkpoints,
)
from pyterrier_lir.checkpoints.checkpoint import Checkpoint
from pyterrier_lir.model_configs import DprConfig, MonoConfig, SpladeConfig
from tests.tiny_bi_encoders import KINDS, save_sentence_transformer
from tests.tiny_checkpoints import SENTENCES, backbone, qwen_tokenizer, wordpiece

Tiny = Callable[[str], str]


def numbers(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """All weights but those of BERT's pooler, where nothing reads them and no file has them."""
    named = {
        **checkpoint.backbone.state_dict(),
        **checkpoint.head.state_dict(prefix="head."),
        **checkpoint.term_weights,
    }
    return {name.removeprefix("bert."): value for name, value in named.items() if not name.startswith("pooler.")}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("coil", "bge-m3")])  # which have two outputs
def test_a_checkpoint_with_other_lengths_keeps_all_its_weights(kind: str, tiny: Tiny) -> None:
    own = checkpoints.load(tiny(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = checkpoints.load(tiny(kind), config=replace(own.config, query_length=7, doc_length=9))
    assert (found.config.query_length, found.config.doc_length) == (7, 9)
    assert numbers(found).keys() == numbers(own).keys()
    assert all(torch.equal(value, numbers(own)[name]) for name, value in numbers(found).items())


@pytest.mark.parametrize("kind", ["sparse", "multi_vector"])
def test_one_of_several_outputs_keeps_its_layers(kind: Any, tiny: Tiny) -> None:
    own = checkpoints.load(tiny("bge-m3"), outputs=(kind,))
    found = checkpoints.load(tiny("bge-m3"), outputs=(kind,), config=replace(own.config, doc_length=9))
    assert found.config.kind == kind
    assert all(torch.equal(value, numbers(own)[name]) for name, value in numbers(found).items())


def test_vectors_that_are_cut_stay_cut(tmp_path: Path) -> None:
    save_sentence_transformer(tmp_path, truncate_dim=8)
    own = BiEncoderModel.from_pretrained(tmp_path)
    found = BiEncoderModel.from_pretrained(tmp_path, config=replace(own.config, doc_length=9))
    assert (found.config.embedding_dim, found.config.projection, len(found.outputs[0].head)) == (8, None, 0)


def test_a_t5_of_lightning_ir_keeps_the_words_around_its_texts(tiny: Tiny) -> None:
    own = checkpoints.load(tiny("mono-t5"))
    assert isinstance(own.config, CrossEncoderConfig)
    config = MonoConfig(query_length=10, doc_length=24, scoring_strategy=own.config.scoring_strategy)
    assert checkpoints.load(tiny("mono-t5"), config=config).config == replace(
        own.config, query_length=10, doc_length=24
    )


CHANGED: dict[str, tuple[str, Any, str]] = {
    "a re-ranker of two logits": ("bert-1", CrossEncoderConfig(scoring_strategy="mono"), "new CrossEncoder"),
    "a re-ranker without the pooler": ("bert-1", CrossEncoderConfig(), "new CrossEncoder"),
    "another width": ("col", BiEncoderConfig.colbert(embedding_dim=5), "new BiEncoder"),
    "SPLADE of ColBERT": ("col", BiEncoderConfig.splade(), "new BiEncoder"),
    "dense of SPLADE": ("splade", BiEncoderConfig(), "new BiEncoder"),
    "weights from a table": ("splade", BiEncoderConfig.splade(query_weighting="static"), "new BiEncoder"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_layers_that_a_checkpoint_has_not_are_new_and_a_warning_says_so(case: str, tiny: Tiny) -> None:
    kind, config, message = CHANGED[case]
    with pytest.warns(UserWarning, match=f"loses its own last layers, as config= asks for others: the {message} has"):
        found = checkpoints.load(tiny(kind), config=config)
    own = checkpoints.load(tiny(kind))
    assert found.config == config
    under = {name: value for name, value in numbers(found).items() if not name.startswith(("head.", "query", "doc"))}
    assert all(torch.equal(value, numbers(own)[name]) for name, value in under.items())


@pytest.mark.parametrize("kind", ["dense", "bert-1"])
def test_a_model_of_another_class_is_new_without_a_warning(kind: str, tiny: Tiny) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.load(tiny(kind), config=BiEncoderConfig.colbert(embedding_dim=6)).head[-1].out_features == 6


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("dpr-first", DprConfig(query_length=20, doc_length=40)),
        ("splade", SpladeConfig(query_length=20, doc_length=40)),
        ("pylate", BiEncoderConfig.colbert(query_length=20, doc_length=40, embedding_dim=8)),
    ],
)
def test_bi_encoders_of_other_libraries_go_on_with_their_heads(kind: str, config: BiEncoderConfig, tiny: Tiny) -> None:
    module, own = BiEncoderModule(tiny(kind), config=config), BiEncoderModel.from_pretrained(tiny(kind))
    assert module.config == config
    for name, value in own.outputs[0].head.state_dict().items():
        assert torch.equal(module.model.outputs[0].head.state_dict()[name], value), name


def test_a_cross_encoder_of_lightning_ir_scores_as_before(tiny: Tiny) -> None:
    query, docs = SENTENCES[0], SENTENCES[1:4]
    own = CrossEncoderModule(tiny("mono-bert")).score(query, docs).scores
    again = (
        CrossEncoderModule(tiny("mono-bert"), config=MonoConfig(query_length=10, doc_length=24))
        .score(query, docs)
        .scores
    )
    assert torch.equal(own, again)


def saved(folder: Path, kind: str, head: str, tokenizer: Any, **settings: Any) -> Path:
    backbone(kind, tokenizer, head, **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


NO_RERANKERS: dict[str, tuple[str, str, Callable[[], Any], dict[str, Any]]] = {
    "a language model of a family that no re-ranker is known of": (
        "Llama", "ForCausalLM", qwen_tokenizer, {"num_key_value_heads": 2}),
    "a classifier of three labels": ("Bert", "ForSequenceClassification", wordpiece, {"num_labels": 3}),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_RERANKERS)
def test_checkpoints_that_score_nothing_are_backbones_of_new_models(case: str, tmp_path: Path) -> None:
    kind, head, tokenizer, settings = NO_RERANKERS[case]
    folder = saved(tmp_path, kind, head, tokenizer(), **settings)
    dense = BiEncoderConfig(query_pooling_strategy="last", doc_pooling_strategy="last")
    assert checkpoints.load(folder, config=dense).config == dense
    assert len(checkpoints.load(folder, config=CrossEncoderConfig(pooling_strategy="last")).head) == 1
