"""Configurations under Lightning IR's names are what its checkpoints of these types are read as."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import pyterrier_lir
from pyterrier_lir import BiEncoderConfig, BiEncoderModule, CrossEncoderConfig, CrossEncoderModule, model_configs
from pyterrier_lir.checkpoints import lightning_ir, lightning_ir_bi_encoders
from pyterrier_lir.training.command_line import main
from pyterrier_lir.training.objectives import OBJECTIVES

Tiny = Callable[[str], str]
TYPES = {
    "DprConfig": "lir-dpr", "SpladeConfig": "splade", "ColConfig": "col", "MvrConfig": "mvr", "UniCoilConfig": "unicoil",
    "MonoConfig": "mono", "SetEncoderConfig": "set-encoder",
}  # fmt: skip
CHANGES: dict[str, list[dict[str, Any]]] = {
    "DprConfig": [
        {"normalize": True, "query_pooling_strategy": "mean"},
        {"sparsification": "relu", "projection": None},
    ],
    "SpladeConfig": [
        {"pooling_strategy": "sum", "query_expansion": False},
        {"query_weighting": "static", "query_expansion": False, "doc_weighting": None},
    ],
    "ColConfig": [
        {
            "query_expansion": True,
            "add_marker_tokens": True,
            "normalization_strategy": "l2",
            "doc_mask_scoring_tokens": "punctuation",
        }
    ],
    "MvrConfig": [{"num_viewer_tokens": 3, "add_marker_tokens": True}],
    "UniCoilConfig": [{"query_length": 8}],
    "MonoConfig": [{"pooling_strategy": "mean", "linear_bias": True, "scoring_strategy": "mono"}],
    "SetEncoderConfig": [{"depth": 10, "add_extra_token": True}],
}
CASES = [(name, given) for name, cases in CHANGES.items() for given in ({}, *cases)]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_a_configuration_is_that_of_a_checkpoint_with_these_values(name: str, given: dict[str, Any]) -> None:
    made = getattr(pyterrier_lir, name)(**given)
    defaults = {p.name: p.default for p in inspect.signature(getattr(model_configs, name)).parameters.values()}
    values = {"model_type": TYPES[name], **defaults, **given}
    reader: Any = lightning_ir if isinstance(made, CrossEncoderConfig) else lightning_ir_bi_encoders
    if isinstance(made, BiEncoderConfig):
        made = replace(made, embedding_dim=None)  # weights tell it
    assert made == reader._config(values)


@pytest.mark.parametrize("name", TYPES)
def test_a_new_model_of_each_type_scores(name: str, tiny: Tiny) -> None:
    config = getattr(pyterrier_lir, name)()
    kind: Any = CrossEncoderModule if isinstance(config, CrossEncoderConfig) else BiEncoderModule
    assert kind(tiny("dense"), config=config).score("bread", ["an oven", "rain"]).scores.shape == (2,)


def test_every_type_and_loss_is_had_from_the_package() -> None:
    assert set(TYPES) == set(model_configs.__all__)
    assert {*TYPES, *OBJECTIVES} <= set(pyterrier_lir.__all__)
    for name in OBJECTIVES:
        assert getattr(pyterrier_lir, name) is OBJECTIVES[name]


@pytest.mark.parametrize("name", ["lightning_ir.models.SpladeConfig", "SpladeConfig"])
def test_yaml_files_name_model_types(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = {
        "model_name_or_path": "a/backbone", "config": {"class_path": name, "init_args": {"query_length": 24}},
        "loss_functions": [{"class_path": "lightning_ir.ContrastiveLocalLoss"}],
    }  # fmt: skip
    path = tmp_path / "fit.yaml"
    path.write_text(yaml.safe_dump({"model": {"class_path": "BiEncoderModule", "init_args": model}}), encoding="utf-8")
    with pytest.raises(SystemExit) as done:
        main("fit", ["--config", str(path), "--print_config"])
    assert done.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert printed["config"]["class_path"] == "pyterrier_lir.model_configs.SpladeConfig"
    assert printed["config"]["init_args"]["query_length"] == 24
    assert printed["loss_functions"][0]["class_path"].endswith(".ContrastiveLocalLoss")


def test_an_extra_token_is_in_the_template_of_set_encoders() -> None:
    config = CrossEncoderConfig(depth=10, add_extra_token=True)
    assert config.template is not None
    assert "[INT]" in config.template
    assert CrossEncoderConfig.from_dict(config.to_dict()) == config
