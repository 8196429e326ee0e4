"""This package's own form: the files of the library that the backbone comes from, and `pyterrier_lir.json` beside them.

The JSON holds the configuration, so that nothing has to be recognised again; the layers of a head, if there are any,
lie in `head.safetensors`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from ..config import config_from_dict
from .checkpoint import Checkpoint, Normalize, ReadOptions, Residual, Scale
from .files import Files, readable

FILE = "pyterrier_lir.json"
HEAD = "head.safetensors"


def why_not(files: Files) -> str | None:
    return None if FILE in files else f"no {FILE}"


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read what `write` wrote.

    Raises:
        ValueError: if the configuration or the head is broken.
    """
    values = files.json(FILE)
    backbone_config = files.backbone_config()
    kind = getattr(transformers, values["backbone_class"], None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(f"{files.name} has a backbone of class {values['backbone_class']!r}, unknown to transformers.")
    head = nn.Sequential(*(_layer(spec) for spec in values["head"]))
    if any(True for _ in head.parameters()):
        with readable(files.folder / HEAD):
            head.load_state_dict(load_file(files.folder / HEAD))
    return Checkpoint(
        config_from_dict(values["config"]),
        files.backbone(kind, backbone_config, options.dtype),
        files.tokenizer(backbone_config),
        head.to(options.dtype),
        files.name,
    )


def write(checkpoint: Checkpoint, folder: str) -> None:
    """Write a folder that `read` opens; transformers opens the backbone in it."""
    checkpoint.backbone.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    state = {name: tensor.contiguous() for name, tensor in checkpoint.head.state_dict().items()}
    if state:
        save_file(state, Path(folder) / HEAD)
    values = {
        "config": checkpoint.config.to_dict(),
        "backbone_class": type(checkpoint.backbone).__name__,
        "head": [_spec(layer) for layer in checkpoint.head],
    }
    (Path(folder) / FILE).write_text(json.dumps(values, indent=2))  # last: its presence says that all is there


def _spec(layer: nn.Module) -> dict[str, Any]:
    """A layer's class and arguments."""
    arguments: dict[str, Any] = {}
    if isinstance(layer, nn.Linear):
        arguments = {
            "in_features": layer.in_features,
            "out_features": layer.out_features,
            "bias": layer.bias is not None,
        }
    elif isinstance(layer, nn.LayerNorm):
        arguments = {"normalized_shape": list(layer.normalized_shape), "eps": layer.eps}
    elif isinstance(layer, Scale):
        arguments = {"factor": layer.factor}
    elif isinstance(layer, Residual):
        arguments = {"layer": _spec(layer.layer), "shortcut": _spec(layer.shortcut)}
    elif isinstance(layer, nn.Sequential):
        arguments = {"layers": [_spec(part) for part in layer]}
    return {"class": type(layer).__name__, **arguments}


def _layer(spec: dict[str, Any]) -> nn.Module:
    """The layer that `_spec` described; only torch.nn and this package's own layers can be named."""
    arguments = {name: value for name, value in spec.items() if name != "class"}
    own = {"Scale": Scale, "Normalize": Normalize}
    name = spec["class"]
    if name == "Residual":
        return Residual(_layer(arguments["layer"]), _layer(arguments["shortcut"]))
    if name == "Sequential":
        return nn.Sequential(*(_layer(part) for part in arguments["layers"]))
    kind = own.get(name) or getattr(nn, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"{FILE} names a layer {name!r}, which torch.nn does not have.")
    layer: nn.Module = kind(**arguments)
    return layer.to(torch.float32)
