"""This package's own form: the files of the library that the backbone comes from, and `pyterrier_lir.json` beside them.

The JSON holds the configuration, so that nothing has to be recognised again; the layers of a head, if there are any,
lie in `head.safetensors`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from ..config import BiEncoderConfig, CrossEncoderConfig, Kind, config_from_dict
from .checkpoint import Checkpoint, Normalize, Output, ReadOptions, Residual, Scale
from .files import Files
from .weight_files import readable

FILE = "pyterrier_lir.json"
HEAD = "head.safetensors"


def why_not(files: Files) -> str | None:
    return None if FILE in files else f"no {FILE}"


def kinds(files: Files) -> tuple[Kind, ...]:
    configs = [config_from_dict(entry["config"]) for entry in files.json(FILE)["outputs"]]
    return tuple(config.kind for config in configs if isinstance(config, BiEncoderConfig))


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
    backbone = files.backbone(kind, backbone_config, options.dtype)
    outputs = [_output(files, i, entry, backbone, options.dtype) for i, entry in enumerate(values["outputs"])]
    (config, head, term_weights), *also = outputs
    return Checkpoint(
        config, backbone, files.tokenizer(backbone_config), head, files.name, term_weights,
        tuple(Output(cast("BiEncoderConfig", config), head, table) for config, head, table in also),
    )  # fmt: skip


_Parts: TypeAlias = "tuple[CrossEncoderConfig | BiEncoderConfig, nn.Sequential, dict[str, nn.Parameter]]"


def _output(
    files: Files, number: int, values: dict[str, Any], backbone: transformers.PreTrainedModel, dtype: torch.dtype
) -> _Parts:
    """Configuration, layers and term weights of one output."""
    head = nn.Sequential(*(_layer(spec) for spec in values["head"]))
    names = [f"{number}.{name}" for name in head.state_dict()]
    tables = {name: f"{number}.term_weights.{name}" for name in values["term_weights"]}
    state: dict[str, torch.Tensor] = {}
    if names or tables:
        with readable(files.folder / HEAD):
            state = load_file(files.folder / HEAD)
    tied = f"{number}.{len(head) - 1}.weight"
    if values["tied"]:
        cast("nn.Linear", head[-1]).weight = cast("nn.Parameter", backbone.get_input_embeddings().weight)
        state[tied] = backbone.get_input_embeddings().weight.detach()
    with readable(files.folder / HEAD):
        head.load_state_dict(
            {name: state[f"{number}.{name}"] for name in head.state_dict() if f"{number}.{name}" in state}
        )
    head = head.to(dtype)
    weights = {name: nn.Parameter(state[key].to(dtype)) for name, key in tables.items()}
    return config_from_dict(values["config"]), head, weights


def write(checkpoint: Checkpoint, folder: str) -> None:
    """Write a folder that `read` opens; transformers opens the backbone in it."""
    checkpoint.backbone.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    embeddings = checkpoint.backbone.get_input_embeddings().weight
    state: dict[str, torch.Tensor] = {}
    entries = []
    first = (checkpoint.config, checkpoint.head, checkpoint.term_weights)
    also = [(output.config, output.head, output.term_weights) for output in checkpoint.also]
    for number, (config, head, tables) in enumerate([first, *also]):
        tied = len(head) > 0 and getattr(head[-1], "weight", None) is embeddings
        named = head.state_dict() | {f"term_weights.{name}": table.detach() for name, table in tables.items()}
        if tied:
            del named[f"{len(head) - 1}.weight"]
        state |= {f"{number}.{name}": tensor.contiguous() for name, tensor in named.items()}
        specs = [_spec(layer) for layer in head]
        entries.append({"config": config.to_dict(), "head": specs, "tied": tied, "term_weights": sorted(tables)})
    if state:
        save_file(state, Path(folder) / HEAD)
    values = {"backbone_class": type(checkpoint.backbone).__name__, "outputs": entries}
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
        biased = layer.bias is not None
        arguments = {"normalized_shape": list(layer.normalized_shape), "eps": layer.eps, "bias": biased}
    elif isinstance(layer, nn.GELU):
        arguments = {"approximate": layer.approximate}
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
