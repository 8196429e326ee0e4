"""Documents of all processes as negatives: what is gathered has gradients in the process that it is from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather

from .forward import TextVectors


def gathered(own: list[TextVectors]) -> list[TextVectors]:
    """The vectors of the other processes' texts, process by process.

    With gradients averaged over processes, as DDP does, those of a loss that is the mean over each process's queries
    are the gradients of the mean over all queries in one process.
    """
    return [_others(vectors) for vectors in own]


def gathered_ids(doc_ids: Sequence[Sequence[str]] | None, count: int) -> list[str | None]:
    """The ids of the other processes' documents, in the order of their vectors; None for padding.

    Args:
        doc_ids: of this process's queries.
        count: of this process's documents, padding included.
    """
    width = count // len(doc_ids) if doc_ids else 0
    mine = [one for own in doc_ids or () for one in (*own, *[None] * (width - len(own)))]
    parts: list[list[str | None]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, mine)
    return [one for rank, part in enumerate(parts) for one in part if rank != distributed.get_rank()]


def _others(vectors: TextVectors) -> TextVectors:
    values = _from_others(vectors.values)
    if vectors.offsets is None:
        return TextVectors(vectors.config, torch.cat(values))
    lengths = torch.cat(_from_others(vectors.offsets.diff()))
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    ids = None if vectors.ids is None else torch.cat(_from_others(vectors.ids))
    return TextVectors(vectors.config, torch.cat(values), offsets, ids)


def _from_others(tensor: Tensor) -> list[Tensor]:
    """The tensors of the other processes, which may have other numbers of rows."""
    world, rank = distributed.get_world_size(), distributed.get_rank()
    sizes = [torch.zeros(1, dtype=torch.long, device=tensor.device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor([len(tensor)], device=tensor.device))
    rows = [int(size) for size in sizes]
    padded = torch.cat([tensor, tensor.new_zeros(max(rows) - len(tensor), *tensor.shape[1:])])
    parts = all_gather(padded.contiguous())
    return [part[:count] for other, (part, count) in enumerate(zip(parts, rows, strict=True)) if other != rank]
