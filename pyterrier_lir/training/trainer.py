"""LightningIRTrainer: Lightning's Trainer with the defaults of ranking, and a state that resumes bit for bit."""

from __future__ import annotations

import random
import time
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class LightningIRTrainer(Trainer):
    """Lightning's Trainer.

    Every process takes its own samples (see `datamodule.Order`), gradients are clipped to the norm 1 unless told
    otherwise, checkpoints hold the state of all random numbers, and `samples/s` is logged beside the losses.

    >>> LightningIRTrainer(max_steps=10, accelerator="cpu", logger=False, enable_checkpointing=False).max_steps
    10
    """

    def __init__(self, *, gradient_clip_val: float | None = 1.0, callbacks: Any = None, **settings: Any) -> None:
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        settings.setdefault("use_distributed_sampler", False)
        replaced = any(getattr(callback, "replaces_data", False) for callback in given)
        settings.setdefault("reload_dataloaders_every_n_epochs", int(replaced))
        own = [RandomState(), Throughput()]
        super().__init__(gradient_clip_val=gradient_clip_val, callbacks=[*given, *own], **settings)


class RandomState(Callback):
    """Keeps the state of random numbers in checkpoints, so that dropout goes on as it would have."""

    _loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The states of Python's, numpy's and PyTorch's generators."""
        version, keys, position, *rest = cast("Any", np.random.get_state())
        state = {"python": list(random.getstate()[1]), "numpy": [version, keys.tolist(), position, *rest],
                 "torch": torch.get_rng_state()}  # fmt: skip
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts, as what happens before it draws random numbers."""
        self._loaded = state_dict

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the states of a checkpoint."""
        if self._loaded is None:
            return
        state, self._loaded = self._loaded, None
        random.setstate((3, tuple(state["python"]), None))
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(state["torch"].cpu())
        if "cuda" in state:
            torch.cuda.set_rng_state_all(state["cuda"])


class Throughput(Callback):
    """Logs how many queries of all processes are trained on in a second, a mean over about twenty steps."""

    _seconds: float | None = None
    _start = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the rate."""
        took, size = time.perf_counter() - self._start, len(batch.queries)
        self._seconds = took / size if self._seconds is None else 0.95 * self._seconds + 0.05 * took / size
        rate = trainer.world_size / self._seconds
        pl_module.log("samples/s", rate, prog_bar=True, batch_size=size)
