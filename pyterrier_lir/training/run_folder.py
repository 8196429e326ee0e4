"""What a run from the command line leaves behind: everything that is needed to repeat it, and what came out."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info

from .callbacks import PACKAGES, ExportCallback, export
from .inference_callbacks import RankCallback


class RunFolder(SaveConfigCallback):
    """Writes `config.yaml` (which repeats the run), `run.json` (versions, seed, revision, metrics) into one folder.

    The folder is that of the logger, or the next `lightning_logs/version_N`.  Runs of search and re-ranking, and the
    model that was trained (`model/`), go there too, where no callback says otherwise.

    Args:
        command: that is run.
        given: of Lightning's SaveConfigCallback.
    """

    def __init__(self, *args: Any, command: str = "fit", **given: Any) -> None:
        given["save_to_log_dir"] = False  # this class knows the folder better
        super().__init__(*args, **given)
        self.command, self._start = command, time.time()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration before the work begins."""
        folder = trainer.strategy.broadcast(folder_of(trainer))
        self.folder = Path(folder)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RankCallback) and callback.save_dir is None:
                callback.save_dir = self.folder / "runs"
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(
            self.config, str(self.folder / self.config_filename), skip_none=False, overwrite=self.overwrite,
            multifile=self.multifile, format="yaml",
        )  # fmt: skip

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write what came out."""
        exported = any(isinstance(one, ExportCallback) for one in trainer.callbacks)  # type: ignore[attr-defined]
        if stage == "fit" and not exported:
            export(trainer, pl_module, self.folder / "model")
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        facts = {
            "command": self.command,
            "arguments": sys.argv[1:],
            "seed": self.config.get("seed_everything"),
            "git_revision": revision(),
            "seconds": round(time.time() - self._start, 1),
            "processes": trainer.world_size,
            "metrics": metrics,
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        }
        (self.folder / "run.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
        rank_zero_info(f"{self.folder} holds the configuration and the results of this run.")


def folder_of(trainer: Trainer) -> str:
    """The logger's folder, or the next one of those that a logger would make."""
    if trainer.logger is not None and trainer.log_dir is not None:
        return str(trainer.log_dir)
    return CSVLogger(trainer.default_root_dir, name="lightning_logs").log_dir


def revision() -> str | None:
    """The git revision of the working folder, with `+` behind it where files are changed; None where there is none."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
