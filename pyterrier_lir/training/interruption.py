"""An interruption of training ends in a checkpoint, not in lost hours."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Interruption(Callback):
    """At SIGINT or SIGTERM finishes the step under way, writes `interrupted.ckpt` and ends the process.

    A second signal ends it at once.

    Raises:
        KeyboardInterrupt: when the checkpoint is written; the message says how to go on.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._ask) for one in self.SIGNALS}

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True
        self._restore()

    def _restore(self) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        """Write the checkpoint."""
        if not trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            return
        path = Path(trainer.log_dir or trainer.default_root_dir) / "interrupted.ckpt"
        trainer.save_checkpoint(path)
        raise KeyboardInterrupt(f"training was interrupted; go on with the same command and --ckpt_path {path}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._restore()
