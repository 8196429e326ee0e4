"""Weights spread over processes (FSDP, arXiv:2304.11277), under Lightning's ModelParallelStrategy."""

from __future__ import annotations

import copy
from typing import Any

from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard

from ..models import BiEncoderModel, CrossEncoderModel

Model = BiEncoderModel | CrossEncoderModel


def shard(model: Model, mesh: Any) -> Model:
    """Spread the weights of each layer of the backbone, and of the rest, over the processes of a mesh, in place.

    All processes start from the weights of the first, as under DDP.

    Returns:
        a copy that is whole, for `whole`.
    """
    for parameter in model.parameters():
        distributed.broadcast(parameter.detach(), 0)
    copied = copy.deepcopy(model).cpu()
    layers = set(getattr(model.backbone, "_no_split_modules", None) or ())
    embeddings = model.backbone.get_input_embeddings()  # which may be tied to a decoder in the rest
    for module in model.backbone.modules():
        if type(module).__name__ in layers and embeddings not in module.modules():
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return copied


def is_sharded(model: Any) -> bool:
    """Whether a process holds a part of the weights only."""
    return isinstance(model, FSDPModule)


def whole(model: Model, copied: Model) -> Model:
    """The copy with the weights as they are now; every process has to ask for it."""
    copied.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    return copied.eval()
