"""Checkpoints load by their files, save in a form that loads again, and fail with words that help."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers

from pyterrier_lir import BiEncoderConfig, CrossEncoderConfig, CrossEncoderModel, checkpoints, load_model
from pyterrier_lir.checkpoints.registry import DENSE, GENERATIVE, TEMPLATES
from pyterrier_lir.config import config_from_dict
from pyterrier_lir.engine import Engine
from tests.tiny_bi_encoders import KINDS
from tests.tiny_checkpoints import CROSS_ENCODERS, backbone, wordpiece, write_json

Tiny = Callable[[str], str]
Pairs = tuple[list[str], list[str]]
# kinds that Lightning IR has no model type for
OTHERS = {
    *(kind for kind in CROSS_ENCODERS if not kind.startswith(("mono-", "set-encoder"))), "dense-mixed", "opensearch",
    "splade-own-embeddings", "unicoil-castorini", "pylate", "pylate-modernbert", "multi-vector-encoder",
    "multi-vector-encoder-min", "colbert", "xtr",  # whose imputation Lightning IR has no word for
}  # fmt: skip
KNOWN = "opensearch-project/opensearch-neural-sparse-encoding-v1"
LISTS = [i // 12 * 3 + i % 3 for i in range(60)]  # lists of four documents


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_loads_with_identical_scores(kind: str, tiny: Tiny, pairs: Pairs, tmp_path: Path) -> None:
    model = load_model(tiny(kind))
    model.save_pretrained(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.config == model.config
    np.testing.assert_allclose(
        Engine(again).score(*pairs, LISTS), Engine(model).score(*pairs, LISTS), rtol=1e-6, atol=1e-6
    )
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert ("backbone_model_type" in written) == (kind not in OTHERS)


def test_another_folder_name_changes_nothing(tiny: Tiny, pairs: Pairs, tmp_path: Path) -> None:
    shutil.copytree(tiny("mono-electra"), tmp_path / "bert-base-uncased")
    renamed = Engine(load_model(tmp_path / "bert-base-uncased")).score(*pairs)
    np.testing.assert_array_equal(renamed, Engine(load_model(tiny("mono-electra"))).score(*pairs))


@pytest.mark.parametrize("way", ["relative", "dotted", "absolute", "cache", "remembered"])
@pytest.mark.parametrize(
    ("kind", "known", "field", "value"),
    [
        ("bert-2", "castorini/monoelectra-base", "scoring_strategy", "rank"),
        ("monot5", "Soyoung97/RankT5-base", "scoring_strategy", "rank"),
        ("naver-splade", "naver/splade-v3-lexical", "query_weighting", "lexical"),
    ],
)
def test_a_local_copy_of_a_public_model_is_read_as_the_hubs(
    way: str, kind: str, known: str, field: str, value: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"cache": f"models--{known.replace('/', '--')}/snapshots/0123", "remembered": "somewhere/else"}
    folder = tmp_path / places.get(way, known)
    shutil.copytree(tiny(kind), folder)
    if way == "remembered":
        write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"_name_or_path": known})
    monkeypatch.chdir(tmp_path)
    name = {"relative": known, "dotted": f"./{known}"}.get(way, str(folder))
    assert getattr(load_model(name).config, field) == value
    assert getattr(load_model(tiny(kind)).config, field) != value


def test_a_classifier_made_of_a_public_backbone_is_a_classifier(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(tiny("bert-1"), folder)
    values = json.loads((folder / "config.json").read_text()) | {"_name_or_path": "facebook/contriever"}
    write_json(folder / "config.json", values)
    assert "facebook/contriever" in DENSE
    assert isinstance(load_model(folder).config, CrossEncoderConfig)


def test_older_weight_files_load_too(tiny: Tiny, pairs: Pairs, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    shutil.copytree(tiny("bert-1"), tmp_path / "old")
    torch.save(load_file(tmp_path / "old" / "model.safetensors"), tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "model.safetensors").unlink()
    old = Engine(load_model(tmp_path / "old")).score(*pairs)
    np.testing.assert_array_equal(old, Engine(load_model(tiny("bert-1"))).score(*pairs))


def test_saving_never_overwrites(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        load_model(tiny("bert-1")).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def broken(name: str, folder: Path) -> None:
    """Damage a copy of a sound checkpoint."""
    if name == "truncated":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif name == "not safetensors":
        (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 100)
    elif name == "no tokenizer":
        for path in folder.glob("*token*"):
            path.unlink()
        (folder / "vocab.txt").unlink(missing_ok=True)
    elif name == "no weights":
        (folder / "model.safetensors").unlink()
    elif name == "no JSON":
        (folder / "config.json").write_text("{")
    elif name == "other shape":
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", config | {"intermediate_size": 48})
    elif name == "more layers":
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", config | {"num_hidden_layers": 3})
    elif name == "no head":
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", config | {"linear_bias": True})


DAMAGE = {
    "truncated": ("bert-1", ValueError, "truncated, corrupt"),
    "not safetensors": ("mono-bert", ValueError, "truncated, corrupt"),
    "no tokenizer": ("bert-1", FileNotFoundError, "has no tokenizer.*save_pretrained"),
    "no weights": ("bert-1", FileNotFoundError, "No weights"),
    "no JSON": ("bert-1", ValueError, "not valid JSON"),
    "other shape": (
        "bert-1",
        ValueError,
        r"bert.encoder.layer.0.intermediate.dense.bias is of shape \(64,\), which does not fit .* it is \(48,\)",
    ),
    "more layers": ("bert-1", ValueError, "lacks 16 weights"),
    "no head": ("mono-bert", ValueError, "lacks linear.bias"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_broken_folders_say_what_is_broken(damage: str, tiny: Tiny, tmp_path: Path) -> None:
    kind, error, message = DAMAGE[damage]
    shutil.copytree(tiny(kind), tmp_path / "copy")
    broken(damage, tmp_path / "copy")
    with pytest.raises(error, match=message):
        load_model(tmp_path / "copy")


def test_a_tokenizer_with_more_tokens_than_the_backbone_has_embeddings_is_named(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert-1"), tmp_path / "copy")
    tokenizer = wordpiece()
    tokenizer.add_tokens(["[FIRST]", "[SECOND]"])
    tokenizer.save_pretrained(folder)
    size = len(wordpiece())
    with pytest.warns(UserWarning, match=rf"has {size + 2} tokens, its backbone embeddings for {size}: .*'\[SECOND\]'"):
        load_model(folder)


@pytest.mark.parametrize("name", ["no/such-model", "/no/such/folder", "./nowhere", "a b c", "one/two/three"])
def test_unknown_names_say_so(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        load_model(name)


def test_an_unknown_format_lists_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="no known format") as caught:
        checkpoints.load(tmp_path)
    for format_name in checkpoints.READERS:
        assert (
            f"  {format_name}: no" in str(caught.value)
            or f"  {format_name}: a" in str(caught.value)
            or (f"  {format_name}: config.json names no" in str(caught.value))
        )


def test_a_plain_encoder_without_a_head_is_no_reranker(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    backbone("Bert", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BertModel has no sequence classification head"):
        load_model(tmp_path)


def test_three_labels_are_refused(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    backbone("Bert", tokenizer, "ForSequenceClassification", num_labels=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has 3 labels"):
        load_model(tmp_path)


def test_a_generative_model_of_unknown_family_asks_for_a_template(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"generative gpt2 model.*template=, one of monot5"):
        load_model(tmp_path)


def test_a_misspelt_template_suggests_the_near_one(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="Did you mean 'rankt5'"):
        load_model(tiny("monot5"), template="rangt5")


def test_a_template_overrides_what_the_backbone_suggests(tiny: Tiny) -> None:
    default, chosen = (load_model(tiny("monot5"), template=name).config for name in (None, "rankt5"))
    assert isinstance(default, CrossEncoderConfig)
    assert isinstance(chosen, CrossEncoderConfig)
    assert (default.scoring_strategy, chosen.scoring_strategy) == ("mono", "rank")
    assert default.template != chosen.template


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_has_one_query_and_then_one_document_and_a_source(name: str) -> None:
    template = TEMPLATES[name]
    text = "".join(template.pieces)
    assert text.count("{query}") == text.count("{doc}") == 1
    assert text.index("{query}") < text.index("{doc}")
    assert len(template.words) == (1 if template.scoring_strategy == "rank" else 2)
    assert template.source.startswith("https://")


def test_every_row_of_the_table_names_a_template() -> None:
    assert set(GENERATIVE.values()) <= set(TEMPLATES)


def test_a_plain_masked_language_model_is_read_as_splade_with_a_warning(tiny: Tiny, tmp_path: Path) -> None:
    plain = shutil.copytree(tiny("naver-splade"), tmp_path / "plain")
    with pytest.warns(UserWarning, match="plain is read as SPLADE, .* has to be trained first"):
        load_model(plain)
    named = shutil.copytree(tiny("naver-splade"), tmp_path / "my-SPLADE")
    public = shutil.copytree(tiny("naver-splade"), tmp_path / "public")
    write_json(public / "config.json", json.loads((public / "config.json").read_text()) | {"_name_or_path": KNOWN})
    tables = shutil.copytree(tiny("opensearch"), tmp_path / "tables")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in (named, public, tables):
            load_model(folder)
        load_model(plain, config=BiEncoderConfig.splade())
        assert checkpoints.kinds(plain) == ("sparse",)


def test_a_sparse_model_without_its_head_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    shutil.copytree(tiny("dense"), tmp_path / "sparse")
    types = ["sentence_transformers.models.MLMTransformer", "sentence_transformers.models.SpladePooling"]
    write_json(tmp_path / "sparse" / "modules.json", [{"path": "", "type": name} for name in types])
    write_json(tmp_path / "sparse" / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    with pytest.raises(ValueError, match=r"lacks .* weights of a BertForMaskedLM"):
        load_model(tmp_path / "sparse")


def test_a_module_without_its_weights_is_named(tmp_path: Path, tiny: Tiny) -> None:
    shutil.copytree(tiny("dense"), tmp_path / "dense")
    modules = json.loads((tmp_path / "dense" / "modules.json").read_text())
    write_json(tmp_path / "dense" / "modules.json", [*modules, {"path": "3_Dense", "type": "pylate.models.Dense"}])
    with pytest.raises(ValueError, match=r"lacks 3_Dense/config\.json"):
        load_model(tmp_path / "dense")


@pytest.mark.parametrize("at", [0, 1])
def test_modules_of_a_checkpoints_own_code_are_refused(at: int, tmp_path: Path, tiny: Tiny) -> None:
    shutil.copytree(tiny("dense"), tmp_path / "dense")
    modules = json.loads((tmp_path / "dense" / "modules.json").read_text())
    modules[at]["type"] = "custom_st." + modules[at]["type"].rpartition(".")[2]
    write_json(tmp_path / "dense" / "modules.json", modules)
    with pytest.raises(ValueError, match=r"its own class 'custom_st\.\w+', whose code is not run"):
        load_model(tmp_path / "dense")


def test_modules_that_are_not_known_are_named(tmp_path: Path, tiny: Tiny) -> None:
    shutil.copytree(tiny("dense"), tmp_path / "dense")
    first, *others = json.loads((tmp_path / "dense" / "modules.json").read_text())
    cnn = {"path": "1_CNN", "type": "sentence_transformers.models.CNN"}  # whose settings have a name of their own
    write_json(tmp_path / "dense" / "modules.json", [first, cnn, *others])
    with pytest.raises(ValueError, match=r"of Transformer \+ CNN \+ Pooling \+ Normalize; what can be read is"):
        load_model(tmp_path / "dense")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"word_weights": {"a": 1}}, "settings that are not known: word_weights"),
        ({"model_args": {"hidden_act": "relu"}}, "not known: model_kwargs.hidden_act"),
        ({"processing_kwargs": {"text": {"stride": 2}}}, "not known: processing_kwargs.stride"),
        ({"processing_kwargs": {"text": {"truncation": "only_first"}}}, "processing_kwargs.truncation='only_first'"),
        ({"modality_config": {"text": {}, "message": {}}}, "puts every text into a chat template"),
    ],
)
def test_settings_of_a_transformer_that_are_not_known_are_named(
    settings: dict[str, object], message: str, tmp_path: Path, tiny: Tiny
) -> None:
    shutil.copytree(tiny("dense"), tmp_path / "dense")
    write_json(tmp_path / "dense" / "sentence_bert_config.json", settings)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "dense")


def test_a_bi_encoder_is_no_cross_encoder(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="is a bi-encoder"):
        CrossEncoderModel.from_pretrained(tiny("dense"))


@pytest.mark.parametrize("config", [CrossEncoderConfig(depth=7, template=("{query}", "{doc}")), BiEncoderConfig()])
def test_configurations_survive_json(config: CrossEncoderConfig | BiEncoderConfig) -> None:
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling_strategy": "median"}, "allowed: 'first'"),
        ({"scoring_strategy": "pair"}, "allowed: 'rank', 'mono'"),
        ({"query_length": 0}, "positive"),
        ({"colour": "red"}, "no field colour"),
    ],
)
def test_configurations_refuse_what_they_do_not_know(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossEncoderConfig.from_dict(values)


def test_multi_vector_models_name_their_modules(tmp_path: Path, tiny: Tiny) -> None:
    shutil.copytree(tiny("dense"), tmp_path / "multi")
    types = ["sentence_transformers.models.Transformer", "TokenPooling"]
    write_json(tmp_path / "multi" / "modules.json", [{"path": "", "type": name} for name in types])
    write_json(tmp_path / "multi" / "config_sentence_transformers.json", {"model_type": "ColBERT"})
    with pytest.raises(ValueError, match=r"multi-vector model of Transformer \+ TokenPooling; what can be read is"):
        load_model(tmp_path / "multi")


@pytest.mark.parametrize(
    ("kind", "weight", "message"),
    [
        ("mono-bert", "linear.weight", "lacks linear.weight, the scoring layer of a Lightning IR model"),
        ("mono-bert-pool", "bert_pool.0.bias", "lacks bert_pool.0.bias"),
        (
            "bert-1",
            "classifier.weight",
            "lacks 1 weights of a BertForSequenceClassification, among them classifier.weight",
        ),
    ],
)
def test_a_head_without_its_weights_is_refused(
    kind: str, weight: str, message: str, tiny: Tiny, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny(kind), tmp_path / "copy")
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    del weights[weight]
    save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "copy")


@pytest.mark.parametrize("kind", ["mono-bert", "mono-t5", "bert-1", "qwen3-reranker"])
def test_a_changed_maximum_length_survives_saving(kind: str, tiny: Tiny, pairs: Pairs, tmp_path: Path) -> None:
    length = 400 if kind == "qwen3-reranker" else 24
    model = load_model(tiny(kind)).with_options(max_length=length)
    model.save_pretrained(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.config == model.config
    np.testing.assert_allclose(Engine(again).score(*pairs), Engine(model).score(*pairs), rtol=1e-6, atol=1e-6)
