"""PEFT adapters, such as LoRA: what they save, and the weights of another checkpoint with their changes.

What an adapter is for is said by its own `task_type`, not by its base: `SEQ_CLS` is a classification head on any base.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .weight_files import load_state

if TYPE_CHECKING:
    from .files import Files

FILE = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_HEADS = ("score.weight", "classifier.weight", "out_proj.weight")  # last layers of classification heads


def config_of(files: Files, base: dict[str, Any]) -> dict[str, Any]:
    """The config.json of an adapter's base, with the architecture that the adapter was trained in."""
    classifies = files.json(FILE).get("task_type") == "SEQ_CLS"
    if not classifies or (base.get("architectures") or [""])[0].endswith("ForSequenceClassification"):
        return base
    return base | {"architectures": ["PeftModelForSequenceClassification"]}


def label_count(files: Files) -> dict[str, Any]:
    """What an adapter changes in its base's configuration: the number of labels, which its head has.

    Raises:
        ValueError: if neither the adapter nor its base has a head.
    """
    if not files.adapted() or files.json(FILE).get("task_type") != "SEQ_CLS":
        return {}
    if not any((files.folder / name).is_file() for name in _WEIGHTS):
        return {"num_labels": 1}  # its weights are not here: an outline
    for name, weight in saved_whole(files.folder).items():
        if name.endswith(_HEADS) and weight.dim() == 2:
            return {"num_labels": len(weight)}
    if not (files.base.config.get("architectures") or [""])[0].endswith("ForSequenceClassification"):
        raise ValueError(
            f"{files.name} is an adapter for classification without a head: neither it nor {files.base.name} holds "
            "one. Save it with the head: LoraConfig(task_type='SEQ_CLS', modules_to_save=[...])."
        )
    return {}


def saved_whole(folder: Path) -> dict[str, torch.Tensor]:
    """The layers that an adapter holds whole (`modules_to_save`), by their names in the base.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if they are truncated or corrupt.
    """
    settings = json.loads((folder / FILE).read_text(encoding="utf-8"))
    whole = {*(settings.get("modules_to_save") or ())}
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), folder / _WEIGHTS[0])
    return {
        name.removeprefix(_PREFIX): weight
        for name, weight in load_state(path).items()
        if whole & {*name.split(".")} and "lora_" not in name
    }


def on(model: PreTrainedModel, files: Files, folder: Path) -> PreTrainedModel:
    """The base's model with the changes of the adapter in `folder` added to its weights, or beside them.

    Raises:
        ImportError: without the package peft.
        ValueError: if the adapter changes layers that the base has not, or lacks some.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError(f"{files.name} is a PEFT adapter; pip install 'pyterrier-lir[peft]' to load it.") from error
    # adapters that were trained under a head name the backbone inside
    inside = {rf"^{model.base_model_prefix}\.": ""} if model.base_model is model else None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            wrapped = PeftModel.from_pretrained(model, str(folder), key_mapping=inside)
        except UserWarning as error:
            raise ValueError(f"The adapter {files.name} does not fit {files.base.name}: {error}") from error
    _check_placed(wrapped, files, folder, f"{model.base_model_prefix}." if inside else "")
    if files.merge_adapter:
        return wrapped.merge_and_unload().eval()  # type: ignore[no-any-return]
    return _without_copies(wrapped.base_model.model).eval()


def _check_placed(wrapped: Any, files: Files, folder: Path, prefix: str) -> None:
    """Refuse layers of an adapter that the model has no place for: peft leaves them out without a word."""
    from peft import get_peft_model_state_dict

    placed = {name.removeprefix(_PREFIX) for name in get_peft_model_state_dict(wrapped)}
    lost = [name for name in saved_whole(folder) if name.removeprefix(prefix) not in placed]
    if lost:
        raise ValueError(
            f"The adapter {files.name} holds {', '.join(sorted(lost)[:3])}, for which a "
            f"{type(wrapped.base_model.model).__name__} has no place: it was trained for another kind of model."
        )


def _without_copies(model: PreTrainedModel) -> PreTrainedModel:
    """Layers that an adapter holds whole, in the place of the base's, which peft keeps beside them."""
    for name, module in list(model.named_modules()):
        saved = getattr(module, "modules_to_save", None)
        if isinstance(saved, nn.ModuleDict):
            model.set_submodule(name, saved["default"])
    return model
