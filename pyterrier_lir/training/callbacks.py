"""What happens beside training: folders that pipelines open, with a model card; curves as a picture."""

from __future__ import annotations

import json
import os
import platform
import shutil
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from ..models import Layout
from .adapters import merged

PACKAGES = ("pyterrier-lir", "torch", "transformers", "lightning")


class ExportCallback(Callback):
    """Writes the model as a folder that `LIRReRanker` and `LIRBiEncoder` open, with a model card.

    Args:
        folder: where to; what an earlier run exported there is replaced, anything else is not.
        monitor: a logged value; the folder then holds the model of the best validation, or if training ends before
            there is any, the model of its end.  None writes at the end.
        mode: whether the value is to be large or small.
        layout: which other library opens the folder; see `BiEncoderModule.save_pretrained`.

    Raises:
        FileExistsError: before training, if the folder holds something else.
        KeyError: at the end, if nothing of the name `monitor` was logged in any validation; the model is written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], monitor: str | None = None, mode: Literal["max", "min"] = "max",
        layout: Layout | None = None,
    ) -> None:  # fmt: skip
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode!r}; allowed: max, min.")
        self.folder, self.monitor, self.mode, self.layout = Path(folder), monitor, mode, layout
        self.best: float | None = None
        self._validated = False

    @property
    def state_key(self) -> str:
        """Tells several exports of a training apart."""
        return self._generate_state_key(folder=str(self.folder), monitor=self.monitor)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to replace what is no export, before hours are spent."""
        if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / "training.json").is_file():
            raise FileExistsError(f"{self.folder} holds files that are no export of a training; choose another folder.")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the model if it is better than before."""
        if not trainer.sanity_checking:
            self._validated = True
            self._consider(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Values that are logged at the end of an epoch count too."""
        self._consider(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the model as it is, where nothing is monitored, or nothing of it was seen."""
        if self.best is not None:
            return
        self._write(trainer, pl_module)
        if self.monitor is None:
            return
        logged = ", ".join(sorted(trainer.callback_metrics))
        told = f"monitor={self.monitor!r} was not logged; there are: {logged}. {self.folder} holds the last model."
        if self._validated:
            raise KeyError(told)
        warnings.warn(f"Training ended before a validation: {told}", stacklevel=2)

    def _consider(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is None or self.monitor not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if self.best is None or (value > self.best if self.mode == "max" else value < self.best):
            self.best = value
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: Any) -> None:
        export(trainer, pl_module, self.folder, self.layout)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.best = state_dict["best"]


def export(trainer: Trainer, module: Any, folder: Path, layout: Layout | None = None) -> None:
    """Write a module's model with its card; what is there is replaced when the new folder is whole.

    Every process has to call this, since weights may be spread over them; the first one writes.
    """
    model = merged(module.whole())
    if not trainer.is_global_zero:
        return
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, layout)
    facts = facts_of(trainer, module)
    (part / "training.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    (part / "README.md").write_text(card(facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def facts_of(trainer: Trainer, module: Any) -> dict[str, Any]:
    """What a model was trained from, on and with."""
    data = getattr(trainer, "datamodule", None)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {
        "model": str(module.model.source),
        "config": module.config.to_dict(),
        "data": None if data is None else describe(data.train_dataset),
        "losses": [describe(loss) for loss in module.losses],
        "batch_size": getattr(data, "train_batch_size", None),
        "learning_rate": module.learning_rate,
        "schedule": repr(module.schedule),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "seed": os.environ.get("PL_GLOBAL_SEED"),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "metrics": metrics,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
    }


def describe(thing: Any) -> str:
    """How a dataset or a loss presents itself, without addresses in memory."""
    if isinstance(thing, tuple):
        loss, weight, schedule = thing
        return f"{weight} * {loss!r}" + (f" by {schedule!r}" if schedule else "") if weight != 1 else repr(loss)
    text = repr(thing)
    if " at 0x" not in text:
        return text
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in vars(thing).items()
             if not name.startswith("_") and isinstance(value, (str, int, float, Path))}  # fmt: skip
    return f"{type(thing).__name__}({', '.join(f'{name}={value!r}' for name, value in plain.items())})"


def card(facts: Mapping[str, Any]) -> str:
    """A model card: Markdown behind the front matter that the Hugging Face hub reads."""
    cross = facts["config"]["kind"] == "CrossEncoderConfig"
    use = f'LIR{"ReRanker" if cross else "Retriever"}("FOLDER"{"" if cross else ", INDEX"})'
    rows = "\n".join(f"| {name} | {_cell(facts[name])} |" for name in facts if name not in ("metrics", "config"))
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in facts["metrics"].items())
    return (
        f"---\nlibrary_name: pyterrier-lir\nbase_model: {facts['model']}\n"
        f"pipeline_tag: {'text-ranking' if cross else 'sentence-similarity'}\n---\n\n"
        f"# Fine-tuned from {facts['model']}\n\n```python\nfrom pyterrier_lir import *\n\n{use}\n```\n\n"
        f"## Training\n\n| | |\n|---|---|\n{rows}\n\n## Metrics\n\n| | |\n|---|---|\n{metrics}\n\n"
        f"## Configuration\n\n```json\n{json.dumps(facts['config'], indent=2)}\n```\n"
    )


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return "; ".join(value) if isinstance(value, list) else str(value)


class CurvesCallback(Callback):
    """Draws what was logged over the steps, as a PNG at the end (and after an interruption or an error).

    Args:
        path: of the picture.

    Raises:
        ImportError: at once, if matplotlib is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            raise ImportError("CurvesCallback needs matplotlib: pip install 'pyterrier-lir[plots]'.") from error
        self.path = Path(path)
        self.values: dict[str, list[tuple[int, float]]] = {}

    def on_train_batch_end(self, trainer: Trainer, *given: Any) -> None:
        """Remember the losses of a step."""
        self._remember(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the measures of a validation."""
        if not trainer.sanity_checking:
            self._remember(trainer)

    def _remember(self, trainer: Trainer) -> None:
        for name, value in trainer.callback_metrics.items():
            curve = self.values.setdefault(name, [])
            if not curve or curve[-1][1] != float(value):
                curve.append((trainer.global_step, float(value)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draw."""
        if not self.values or not trainer.is_global_zero:
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5 * len(self.values), 3.5), layout="constrained")
        for place, (name, curve) in zip(figure.subplots(1, len(self.values), squeeze=False)[0], self.values.items(),
                                        strict=True):  # fmt: skip
            place.plot(*zip(*curve, strict=True), marker="." if len(curve) < 20 else None)
            place.set(title=name, xlabel="step")
            place.grid(alpha=0.3)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.path, dpi=120)
