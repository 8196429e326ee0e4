"""What a training that goes on has to have in common with the one that a checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

ANEW = "To begin a new training with its weights, load them into the module and leave ckpt_path= out."
_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")


def refuse_other(saved: Mapping[str, Any], own: Mapping[str, Any], why: str) -> None:
    """Refuse settings that are not those of the checkpoint.

    Raises:
        ValueError: naming the settings that differ.

    >>> refuse_other({"seed": 1}, {"seed": 2}, "Batches would be others.")
    Traceback (most recent call last):
    ...
    ValueError: The checkpoint was written with seed=1 (now 2); allowed: the same.  Batches would be others.
    """
    other = [
        f"{name}={saved.get(name)!r} (now {own.get(name)!r})"
        for name in dict.fromkeys([*saved, *own])
        if saved.get(name) != own.get(name)
    ]
    if other:
        raise ValueError(f"The checkpoint was written with {', '.join(other)}; allowed: the same.  {why}")


def shape_of(backbone: nn.Module) -> dict[str, Any]:
    """What tells a backbone from one whose weights do not fit."""
    config: Any = backbone.config
    return {name: getattr(config, name, None) for name in _SHAPE}


def settings_of(groups: Sequence[Mapping[str, Any]], scheduled: bool) -> dict[str, Any]:
    """Sizes of an optimiser's groups of parameters, and their settings; rates are those that schedules begin with.

    Args:
        scheduled: whether rates change in training; those that do not say what they begin with are left out then.

    >>> settings_of([{"params": [0, 1], "lr": 0.1, "initial_lr": 0.5}, {"params": [2], "lr": 0.1}], scheduled=False)
    {'parameters': [2, 1], 'learning rate': [0.5, 0.1]}
    """
    found: dict[str, list[Any]] = {"parameters": [len(group["params"]) for group in groups]}
    for group in groups:
        rate = group.get("initial_lr", None if scheduled else group.get("lr"))
        for name, value in (("learning rate", rate), ("weight_decay", group.get("weight_decay"))):
            own = found.setdefault(name, [])
            if value is not None and value not in own:
                own.append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items() if values}


def refuse_other_optimizers(checkpoint: Mapping[str, Any], made: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Refuse optimisers with other settings, which the checkpoint's would silently take the place of.

    Args:
        checkpoint: with the states of its optimisers and schedulers.
        made: the groups of parameters of each optimiser, as it was made for this training.

    Raises:
        ValueError: naming the settings that differ.
    """
    scheduled = bool(checkpoint.get("lr_schedulers"))
    for state, groups in zip(checkpoint.get("optimizer_states", ()), made, strict=False):
        refuse_other(settings_of(state["param_groups"], scheduled), settings_of(groups, scheduled), ANEW)
