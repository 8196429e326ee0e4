"""Which part of a stream this process reads: every sample goes to one worker of one rank."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import get_worker_info


class Shards:
    """The ranks of torch.distributed and the workers of a data loader, counted through.

    A worker that is spawned does not know its rank: what is pickled says it.

    >>> Shards().mine()
    (0, 1)
    """

    def __init__(self) -> None:
        self._told: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_told": self.rank()}

    def rank(self) -> tuple[int, int]:
        """The number of this rank, and how many there are."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._told or (0, 1)

    def mine(self) -> tuple[int, int]:
        """The number of this rank's worker among those of all ranks, and how many there are."""
        rank, world = self.rank()
        worker = get_worker_info()
        if worker is None:
            return rank, world
        return rank * worker.num_workers + worker.id, world * worker.num_workers

    def share(self, count: int) -> int:
        """How many of so many samples this rank reads, without workers."""
        rank, world = self.rank()
        return max(0, -(-(count - rank) // world))
