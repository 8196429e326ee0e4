"""LightningIRTrainer: Lightning's Trainer with the defaults of ranking, and a state that resumes bit for bit."""

from __future__ import annotations

import random
import time
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer

from ..data.runs import RunDataset
from .callbacks import ExportCallback
from .datamodule import LightningIRDataModule
from .inference_callbacks import IndexCallback, SearchCallback


class LightningIRTrainer(Trainer):
    """Lightning's Trainer.

    Every process takes its own samples (see `datamodule.Order`), gradients are clipped to the norm 1 unless told
    otherwise, checkpoints hold the state of all random numbers, and `samples/s` is logged beside the losses.

    >>> LightningIRTrainer(max_steps=10, accelerator="cpu", logger=False, enable_checkpointing=False).max_steps
    10
    """

    def __init__(
        self,
        *,
        gradient_clip_val: float | None = 1.0,
        callbacks: Callback | list[Callback] | None = None,
        use_distributed_sampler: bool = False,
        reload_dataloaders_every_n_epochs: int = 0,
        **settings: Any,
    ) -> None:
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        given.sort(key=lambda callback: isinstance(callback, ExportCallback))  # behind those that log what it monitors
        replaced = any(getattr(callback, "replaces_data", False) for callback in given)
        super().__init__(
            gradient_clip_val=gradient_clip_val,
            callbacks=[*given, RandomState(), Throughput()],
            use_distributed_sampler=use_distributed_sampler,
            reload_dataloaders_every_n_epochs=reload_dataloaders_every_n_epochs or int(replaced),
            **settings,
        )

    def index(
        self, model: Any = None, dataloaders: Any = None, ckpt_path: Any = None, verbose: bool = True,
        datamodule: Any = None,
    ) -> list[dict[str, float]]:  # fmt: skip
        """Index collections with a bi-encoder, by an `IndexCallback`.

        Args:
            model: a `BiEncoderModule`.
            dataloaders, datamodule: a `LightningIRDataModule` with a `DocDataset` for each collection.
            ckpt_path: a checkpoint of a training, whose weights are taken.
            verbose: whether to print what was measured.

        Raises:
            ValueError: without an `IndexCallback`, or for other models and datasets.
        """
        return self._infer("index", IndexCallback, model, dataloaders, ckpt_path, verbose, datamodule)

    def search(
        self, model: Any = None, dataloaders: Any = None, ckpt_path: Any = None, verbose: bool = True,
        datamodule: Any = None,
    ) -> list[dict[str, float]]:  # fmt: skip
        """Search for each query of a `QueryDataset`, by a `SearchCallback`; arguments are those of `index`.

        Returns:
            one dictionary with the module's `evaluation_metrics`, as `DATASET/MEASURE`.

        Raises:
            ValueError: without a `SearchCallback`, or for other models and datasets.
        """
        return self._infer("search", SearchCallback, model, dataloaders, ckpt_path, verbose, datamodule)

    def re_rank(
        self, model: Any = None, dataloaders: Any = None, ckpt_path: Any = None, verbose: bool = True,
        datamodule: Any = None,
    ) -> list[dict[str, float]]:  # fmt: skip
        """Score the rankings of each `RunDataset` anew; arguments and result are those of `search`.

        A `ReRankCallback` writes the runs; without one they are only measured.
        """
        return self._infer("re_rank", None, model, dataloaders, ckpt_path, verbose, datamodule)

    def _infer(
        self, stage: str, needed: type[Callback] | None, model: Any, dataloaders: Any, ckpt_path: Any, verbose: bool,
        datamodule: Any,
    ) -> list[dict[str, float]]:  # fmt: skip
        data = datamodule if datamodule is not None else dataloaders
        if not isinstance(data, LightningIRDataModule) or not data.inference_datasets:
            raise ValueError(f"{stage} needs a LightningIRDataModule with inference_datasets=, not {data!r}.")
        if needed is not None and not any(isinstance(one, needed) for one in self.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                f"{stage} needs a {needed.__name__}: LightningIRTrainer(callbacks=[{needed.__name__}(...)])."
            )
        wrong = [one for one in data.inference_datasets if needed is None and not isinstance(one, RunDataset)]
        if wrong:
            raise ValueError(f"re_rank works on a RunDataset, not a {type(wrong[0]).__name__}.")
        self.test(model, datamodule=data, ckpt_path=ckpt_path, verbose=False)
        measures = getattr(self.lightning_module, "measured", {})
        if verbose and measures and self.is_global_zero:
            print(pd.DataFrame(measures).T.round(4).to_string())
        return [{f"{name}/{measure}": value for name, own in measures.items() for measure, value in own.items()}]


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

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, in front of the reading of the first batch."""
        self._start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validations do not count."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the rate."""
        took, size = time.perf_counter() - self._start, len(batch.queries)
        self._seconds = took / size if self._seconds is None else 0.95 * self._seconds + 0.05 * took / size
        rate = trainer.world_size / self._seconds
        pl_module.log("samples/s", rate, prog_bar=True, batch_size=size)
        self._start = time.perf_counter()
