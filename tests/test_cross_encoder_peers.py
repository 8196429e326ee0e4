"""Modular cross-encoders of sentence-transformers: every pooling and several backbones; what test_peers.py leaves out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from pyterrier_lir import BiEncoderConfig, load_model
from pyterrier_lir.engine import Engine
from tests.tiny_checkpoints import (
    WIDTH,
    backbone,
    modernbert_tokenizer,
    qwen_tokenizer,
    roberta_tokenizer,
    save_classifier,
    t5_tokenizer,
    wordpiece,
    wordpiece_file,
    write_json,
)

Pairs = tuple[list[str], list[str]]
Tiny = Callable[[str], str]
TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "Bert": wordpiece,
    "Electra": wordpiece,
    "Roberta": roberta_tokenizer,
    "ModernBert": modernbert_tokenizer,
    "Qwen3": qwen_tokenizer,
}
SHAPES = [
    ("Bert", "cls"),
    ("Bert", "mean_sqrt_len_tokens"),
    ("Bert", "weightedmean"),
    ("Bert", "lasttoken"),
    ("Electra", "cls"),
    ("Roberta", "mean"),
    ("ModernBert", "max"),
    ("Qwen3", "lasttoken"),
]


def modular(into: Path, kind: str, pooling: str, *, residual: bool, **transformer: Any) -> str:
    """Transformer, Pooling, Dense(GELU), Dense(Tanh), LayerNorm and a Dense to the score, saved by the library."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    torch.manual_seed(1)
    tokenizer = TOKENIZERS[kind]()
    settings = {"embedding_size": WIDTH} if kind == "Electra" else {}
    backbone(kind, tokenizer, **settings).save_pretrained(into / "raw")
    tokenizer.save_pretrained(into / "raw")
    modules = [
        Transformer(str(into / "raw"), transformer_task="feature-extraction", **transformer),
        Pooling(WIDTH, pooling),
        Dense(WIDTH, 16, activation_function=torch.nn.GELU()),
        Dense(16, 24, activation_function=torch.nn.Tanh(), use_residual=residual),
        LayerNorm(24),
        Dense(24, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    library.CrossEncoder(modules=modules, device="cpu").save_pretrained(str(into / "made"))
    return str(into / "made")


def library_scores(folder: str, pairs: Pairs) -> np.ndarray:
    peer = pytest.importorskip("sentence_transformers").CrossEncoder(folder, device="cpu")
    scores: np.ndarray = peer.predict(list(zip(*pairs, strict=True)), batch_size=1, show_progress_bar=False)
    return scores


@pytest.mark.parametrize(("kind", "pooling"), SHAPES)
def test_every_pooling_and_backbone_scores_as_the_library_does(
    kind: str, pooling: str, pairs: Pairs, tmp_path: Path
) -> None:
    folder = modular(tmp_path, kind, pooling, residual=True)
    expected = library_scores(folder, pairs)
    assert expected.std() > 1e-3  # the pairs can be told apart
    np.testing.assert_allclose(Engine(load_model(folder)).score(*pairs), expected, rtol=0, atol=1e-5)


def test_a_modular_folders_own_maximum_length_cuts_the_longer_text_first(pairs: Pairs, tmp_path: Path) -> None:
    folder = modular(tmp_path, "Bert", "mean", residual=False, max_seq_length=17)
    model = load_model(folder)
    assert model.config.max_length == 17
    np.testing.assert_allclose(Engine(model).score(*pairs), library_scores(folder, pairs), rtol=0, atol=1e-5)


def check_same(again: Any, model: Any, pairs: Pairs) -> None:
    """Equal settings, bit for bit equal weights; scores may differ in the last bit, by where the weights lie in memory."""
    assert again.config == model.config
    weights, expected = again.state_dict(), model.state_dict()
    assert weights.keys() == expected.keys()
    assert [name for name in weights if not torch.equal(weights[name], expected[name])] == []
    np.testing.assert_allclose(Engine(again).score(*pairs), Engine(model).score(*pairs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("residual", [False, True])
def test_modular_cross_encoders_survive_saving(residual: bool, pairs: Pairs, tmp_path: Path) -> None:
    model = load_model(modular(tmp_path, "Bert", "mean", residual=residual))
    model.save_pretrained(tmp_path / "saved")
    check_same(load_model(tmp_path / "saved"), model, pairs)


def test_causal_cross_encoders_survive_saving(pairs: Pairs, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    tokenizer = qwen_tokenizer()
    tokenizer.padding_side = "left"
    backbone("Qwen3", tokenizer, "ForCausalLM").save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    library.CrossEncoder(str(tmp_path / "raw"), device="cpu").save_pretrained(str(tmp_path / "made"))
    model = load_model(tmp_path / "made")
    model.save_pretrained(tmp_path / "saved")
    check_same(load_model(tmp_path / "saved"), model, pairs)


def classifier(into: Path, **settings: Any) -> Path:
    """A sequence classifier that the library saved."""
    library = pytest.importorskip("sentence_transformers")
    save_classifier(into / "raw", "Bert", wordpiece(), num_labels=1)
    library.CrossEncoder(str(into / "raw"), device="cpu", **settings).save_pretrained(str(into / "made"))
    return into / "made"


def check_library(folder: Path, pairs: Pairs, plain: Path | None = None) -> None:
    """Scores are the library's, and others than those of `plain`."""
    expected = library_scores(str(folder), pairs)
    assert plain is None or np.abs(expected - library_scores(str(plain), pairs)).max() > 1e-4
    np.testing.assert_allclose(Engine(load_model(folder)).score(*pairs), expected, rtol=0, atol=1e-5)


PROMPTS = {"prompts": {"web": "the {query} of [SEP] "}, "default_prompt_name": "web"}


def test_the_default_prompt_stands_before_queries(pairs: Pairs, tmp_path: Path) -> None:
    folder = classifier(tmp_path, **PROMPTS)
    check_library(folder, pairs, plain=tmp_path / "raw")
    model = load_model(folder)
    model.save_pretrained(tmp_path / "saved")
    check_same(load_model(tmp_path / "saved"), model, pairs)
    with pytest.raises(ValueError, match="holds no prompts"):
        model.save_pretrained(tmp_path / "other", layout="sentence-transformers")


def test_prompts_that_are_not_the_default_are_left_out(pairs: Pairs, tmp_path: Path) -> None:
    check_library(classifier(tmp_path, prompts=PROMPTS["prompts"]), pairs)


def test_the_default_prompt_stands_before_queries_of_modular_models(pairs: Pairs, tmp_path: Path) -> None:
    folder = Path(modular(tmp_path, "Bert", "mean", residual=False))
    shutil.copytree(folder, tmp_path / "prompted")
    path = tmp_path / "prompted" / "config_sentence_transformers.json"
    write_json(path, json.loads(path.read_text()) | PROMPTS)
    check_library(tmp_path / "prompted", pairs, plain=folder)


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("chat", [None, {}, {"add_generation_prompt": True}], ids=str)
@pytest.mark.parametrize("prompted", [False, True])
def test_causal_cross_encoders_take_prompts_and_arguments_of_the_chat_template(
    chat: dict[str, bool] | None, prompted: bool, pairs: Pairs, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    tokenizer = qwen_tokenizer()
    tokenizer.padding_side, tokenizer.chat_template = "left", None if chat is None else CHAT
    backbone("Qwen3", tokenizer, "ForCausalLM").save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    settings = PROMPTS if prompted else {}
    library.CrossEncoder(str(tmp_path / "raw"), device="cpu", **settings).save_pretrained(str(tmp_path / "made"))
    path = tmp_path / "made" / "sentence_bert_config.json"
    write_json(path, json.loads(path.read_text()) | {"processing_kwargs": {"chat_template": chat or {}}})
    check_library(tmp_path / "made", pairs)


@pytest.mark.parametrize(
    "settings",
    [{"max_seq_length": 12}, {"processor_kwargs": {"truncation_side": "left"}, "max_seq_length": 15},
     {"do_lower_case": True}, {"config_args": {"hidden_act": "relu"}}],
    ids=str,
)  # fmt: skip
def test_the_transformers_settings_apply_to_classifiers(settings: Any, pairs: Pairs, tmp_path: Path) -> None:
    folder = classifier(tmp_path)
    path = folder / "sentence_bert_config.json"
    write_json(path, json.loads(path.read_text()) | settings)
    check_library(folder, pairs, plain=None if "do_lower_case" in settings else tmp_path / "raw")


@pytest.mark.parametrize("limit", [16, 17, 30])
def test_a_tokenizer_that_cuts_from_the_left_keeps_the_ends_of_both_texts(
    limit: int, pairs: Pairs, tmp_path: Path
) -> None:
    tokenizer = wordpiece()
    save_classifier(tmp_path / "raw", "Bert", tokenizer, num_labels=1)
    tokenizer.truncation_side, tokenizer.model_max_length = "left", limit
    shutil.copytree(tmp_path / "raw", tmp_path / "left")
    tokenizer.save_pretrained(tmp_path / "left")
    check_library(tmp_path / "left", pairs, plain=tmp_path / "raw")


@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_encoder_decoders_with_a_classification_head_are_cross_encoders(
    kind: str, pairs: Pairs, tmp_path: Path
) -> None:
    if kind == "T5":
        save_classifier(tmp_path / "made", "T5", t5_tokenizer(), num_labels=1)
    else:
        tokenizer, width = roberta_tokenizer(), {"d_model": WIDTH, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
        config = transformers.BartConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=1,
                                         init_std=0.2, **width, **layers)  # fmt: skip
        transformers.BartForSequenceClassification(config).save_pretrained(tmp_path / "made")
        tokenizer.save_pretrained(tmp_path / "made")
    check_library(tmp_path / "made", pairs)
    model = load_model(tmp_path / "made")
    model.save_pretrained(tmp_path / "saved")
    check_same(load_model(tmp_path / "saved"), model, pairs)


def funnel_tokenizer(**settings: Any) -> PreTrainedTokenizerFast:
    """A tokenizer with three token types, the first token having one of its own, which it gives where it is told to."""
    vocabulary = json.loads(wordpiece_file())["model"]["vocab"]
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return transformers.FunnelTokenizer(vocab=vocabulary, mask_token="[MASK]", model_max_length=64, **names, **settings)


TYPED = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}


@pytest.mark.parametrize("make", [funnel_tokenizer, partial(funnel_tokenizer, **TYPED), wordpiece])
def test_funnels_get_the_token_types_of_their_tokenizer(make: Any, pairs: Pairs, tmp_path: Path) -> None:
    tokenizer = make()
    types = tokenizer(["sand"], ["sea"]).get("token_type_ids", [None])[0]
    assert types == {funnel_tokenizer: None, wordpiece: [0, 0, 0, 1, 1]}.get(make, [2, 0, 0, 1, 1])
    config = transformers.FunnelConfig(
        vocab_size=len(tokenizer), block_sizes=[1, 1], d_model=WIDTH, n_head=2, d_head=16, d_inner=64, num_labels=1,
        pad_token_id=0, initializer_std=0.5,
    )  # fmt: skip
    transformers.FunnelForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    check_library(tmp_path, pairs)


def test_xlnets_are_refused(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    config = transformers.XLNetConfig(
        vocab_size=len(tokenizer), d_model=WIDTH, n_layer=1, n_head=2, d_inner=64, num_labels=1
    )
    transformers.XLNetForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has an XLNet, which reads texts that are padded on the left"):
        load_model(tmp_path)


def classifier_adapter(into: Path, kind: str, head: str, labels: int) -> tuple[Any, Any]:
    """An adapter for classification on a base without that head, saved in `into / "lora"`; and what it is made of."""
    peft = pytest.importorskip("peft")
    tokenizer = TOKENIZERS[kind]()
    backbone(kind, tokenizer, head).save_pretrained(into / "base")
    tokenizer.save_pretrained(into / "base")
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(into / "base", num_labels=labels)
    targets = ["q_proj", "v_proj"] if kind == "Qwen3" else ["query", "value"]
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=targets)).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(into / "lora")
    return model, tokenizer


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize(("kind", "head"), [("Bert", "Model"), ("Roberta", "ForMaskedLM"), ("Qwen3", "ForCausalLM")])
def test_adapters_for_classification_score_as_peft_does(
    kind: str, head: str, labels: int, merge: bool, pairs: Pairs, tmp_path: Path
) -> None:
    peer, tokenizer = classifier_adapter(tmp_path, kind, head, labels)
    expected = []
    for query, doc in zip(*pairs, strict=True):
        inputs = tokenizer([query], [doc], truncation="longest_first", return_tensors="pt")
        with torch.inference_mode():
            logits = peer(**inputs).logits
        expected.append(float(logits.sigmoid()[0, 0] if labels == 1 else logits.log_softmax(-1)[0, 1]))
    model = load_model(tmp_path / "lora", merge_adapter=merge)
    np.testing.assert_allclose(Engine(model).score(*pairs), expected, rtol=0, atol=1e-5)


def test_an_adapter_for_classification_without_a_head_is_refused(tmp_path: Path) -> None:
    classifier_adapter(tmp_path, "Qwen3", "ForCausalLM", 1)
    path = tmp_path / "lora" / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "score" not in name}, path)
    with pytest.raises(ValueError, match="adapter for classification without a head"):
        load_model(tmp_path / "lora")


def test_layers_of_an_adapter_without_a_place_are_refused(tmp_path: Path) -> None:
    classifier_adapter(tmp_path, "Bert", "Model", 1)
    path = tmp_path / "lora" / "adapter_config.json"
    write_json(path, json.loads(path.read_text()) | {"task_type": "FEATURE_EXTRACTION"})
    with pytest.raises(
        ValueError, match=r"holds classifier\.bias, classifier\.weight, for which a BertModel has no place"
    ):
        load_model(tmp_path / "lora", config=BiEncoderConfig())


def test_decoder_classifiers_score_as_cross_encoder_does(tiny: Tiny, pairs: Pairs) -> None:
    folder = tiny("qwen3-classifier")
    np.testing.assert_allclose(
        Engine(load_model(folder)).score(*pairs), library_scores(folder, pairs), rtol=0, atol=1e-5
    )


def test_rankt5_scores_as_one_plain_pass_for_each_pair(tiny: Tiny, pairs: Pairs) -> None:
    folder = tiny("monot5")
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    word = tokenizer.convert_tokens_to_ids("<extra_id_10>")
    expected = []
    for query, doc in zip(*pairs, strict=True):
        body = tokenizer(f"Query: {query} Document: {doc}", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*body[:63], tokenizer.eos_token_id]])
        with torch.inference_mode():
            logits = model(input_ids=ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits
        expected.append(float(logits[0, 0, word]))
    scores = Engine(load_model(folder, template="rankt5")).score(*pairs)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
