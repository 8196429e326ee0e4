"""Adapters, and the head above them: what learns, how fast, and what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pyterrier_lir.training import CrossEncoderModule, Schedule
from pyterrier_lir.training.objectives import RankNet
from tests.test_training import data, quiet, trainer

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests


def module(folder: str | Path, **settings: Any) -> CrossEncoderModule:
    torch.manual_seed(0)
    return CrossEncoderModule(folder, loss_functions=[RankNet()], learning_rate=1e-2, schedule=Schedule("constant"),
                              weight_decay=0.0, **settings)  # fmt: skip


def changed(model: CrossEncoderModule, folder: Path) -> set[str]:
    """Names of the weights that training changes."""
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    trainer(folder, max_steps=2).fit(model, data(8))
    return {name for name, value in model.model.state_dict().items() if not torch.equal(before[name], value)}


def saved(model: CrossEncoderModule, folder: Path) -> None:
    """Check that what is saved scores as the model does."""
    docs = ["the tower", "bread"]
    model.save_pretrained(folder)
    opened = CrossEncoderModule(folder)
    assert not any("lora" in name or "original" in name for name, _ in opened.model.named_parameters())
    expected = model.score("tower river", docs).scores
    torch.testing.assert_close(opened.score("tower river", docs).scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["bert-1", "roberta-1", "deberta-1", "modernbert-cls", "mono-bert", "qwen3-classifier"]
)
def test_the_head_above_adapters_is_trained_too(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    model = module(tiny(kind), lora={"r": 2})
    names = changed(model, tmp_path)
    base = (
        f"backbone.{model.model.backbone.base_model_prefix}." if kind in ("bert-1", "roberta-1", "deberta-1") else "?"
    )
    head = {name for name in names if "lora_" not in name}
    assert len(names) > len(head) > 0
    assert not any(name.startswith(base) for name in head)
    assert all(any(part in name for part in ("classifier", "head", "pooler")) for name in head)
    saved(model, tmp_path / "out")


def test_modules_that_peft_trains_whole_are_saved(tiny: Tiny, tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])
    model = module(tiny("bert-1"), lora=config)
    names = changed(model, tmp_path)
    assert {"backbone.classifier.modules_to_save.default.weight"} <= names
    assert not any("original_module" in name for name in names)
    saved(model, tmp_path / "out")


def test_layers_of_backbones_that_peft_does_not_know_are_all_adapted_but_the_head(tiny: Tiny, tmp_path: Path) -> None:
    model = module(tiny("modernbert-mean"), lora={"r": 2})
    names = [name for name, _ in model.model.backbone.named_modules() if name.endswith("lora_A.default")]
    assert {name.split(".")[3] for name in names} == {"attn", "mlp"}
    assert changed(model, tmp_path)
    saved(model, tmp_path / "out")


@pytest.mark.parametrize("lora", [True, "all", 8])
def test_adapters_without_settings_are_refused(lora: Any, tiny: Tiny) -> None:
    with pytest.raises(TypeError, match=r"lora=.*; allowed: None, a peft.LoraConfig, or its arguments"):
        module(tiny("bert-1"), lora=lora)


@pytest.mark.parametrize("kind", ["bert-1", "electra-1", "mono-bert", "modernbert-cls"])
def test_a_head_learns_at_its_own_rate_and_not_at_0(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    names = changed(module(tiny(kind), head_learning_rate=0.0), tmp_path)
    assert names
    assert not any(name.startswith(("head", "backbone.classifier", "backbone.head")) for name in names)
    groups = module(tiny(kind), head_learning_rate=0.5)._groups()
    assert {group["lr"] for group in groups} == {1e-2, 0.5}
