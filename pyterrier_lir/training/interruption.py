"""An interruption ends in a checkpoint or a whole part of an index, not in lost hours."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Interrupted(Exception):
    """Work was stopped by a signal; the message says how to go on."""


class Interruption(Callback):
    """Ends the process at SIGINT or SIGTERM so that work can go on later.

    Training finishes the step under way and writes `interrupted.ckpt`; a second signal ends it at once.  A build of an
    index keeps its whole parts, behind which the same command goes on.

    Raises:
        Interrupted: afterwards.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        self._listen(self._ask)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        self._listen(self._stop)

    def _listen(self, handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, handler) for one in self.SIGNALS}

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True
        self._restore()

    def _stop(self, number: int, frame: Any) -> None:
        self._restore()
        raise Interrupted("go on with the same command.")

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
        raise Interrupted(f"go on with the same command and --ckpt_path {path}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._restore()
