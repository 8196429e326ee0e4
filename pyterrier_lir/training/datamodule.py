"""LightningIRDataModule: datasets as batches, in an order that a seed decides and an interruption does not change."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.fabric.utilities.data import sized_len
from torch import distributed
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ..data.collections import DocDataset, QueryDataset
from ..data.runs import RunDataset
from ..data.samples import collate
from ..data.tuples import TupleDataset
from .resuming import ANEW, refuse_other

MAX_STEPS = "give the trainer max_steps=, which learning rates and schedules are laid out over."


class LightningIRDataModule(LightningDataModule):
    """Datasets for training, validation and inference.

    Args:
        num_workers: processes that read ahead.
        train_batch_size: queries of a batch of training.
        shuffle_train: whether samples come in another order in each epoch.
        train_dataset: samples to train on, such as `TupleDataset` or `RunDataset`.
        inference_batch_size: queries (or documents) of a batch otherwise.
        inference_datasets: what is validated on, indexed, searched or re-ranked.
        seed: of the order.
        module: accepted as in the paper's listings; it is not needed, since the module itself tokenises texts.

    Raises:
        ValueError: for batch sizes below one, or no dataset at all.
    """

    def __init__(
        self,
        num_workers: int = 0,
        train_batch_size: int | None = None,
        shuffle_train: bool = True,
        train_dataset: TupleDataset | RunDataset | None = None,
        inference_batch_size: int | None = None,
        inference_datasets: Sequence[DocDataset | QueryDataset | RunDataset | TupleDataset] | None = None,
        *,
        seed: int = 0,
        module: Any = None,
    ) -> None:
        super().__init__()
        for name, size in (("train_batch_size", train_batch_size), ("inference_batch_size", inference_batch_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name}={size}; allowed: a positive number.")
        if train_dataset is None and not inference_datasets:
            raise ValueError("Give train_dataset= or inference_datasets=.")
        self.num_workers, self.shuffle_train, self.seed = num_workers, shuffle_train, seed
        self.train_batch_size, self.inference_batch_size = train_batch_size or 8, inference_batch_size or 8
        self.train_dataset, self.inference_datasets = train_dataset, list(inference_datasets or ())
        # own counts: Lightning restores its own after it has made loaders, and counts on behind a stream's last batch
        self._epoch = self._done = 0  # the epoch under way, and how many of its batches were trained on
        self._begun = self._replaced = False  # whether this process has had any of them; whether its samples are old

    def setup(self, stage: str) -> None:
        """Count from the trainer's epoch on."""
        if stage == "fit":
            self._epoch, self._done = self.trainer.current_epoch if self.trainer else 0, 0
            self._begun = self._replaced = False

    def prepare_data(self) -> None:
        """Download what is missing."""
        given: list[Any] = [self.train_dataset, *self.inference_datasets]
        for dataset in given:
            if hasattr(dataset, "prepare_data"):
                dataset.prepare_data()

    def train_dataloader(self) -> Batches:
        """Batches of the current epoch; after an interruption, those that were not trained on.

        Raises:
            ValueError: without a dataset to train on, or for one with fewer samples than processes.
        """
        dataset = self.train_dataset
        if dataset is None:
            raise ValueError("There is no train_dataset= to fit on.")
        self._turn()
        settings: dict[str, Any] = {
            "batch_size": self.train_batch_size, "num_workers": self.num_workers, "collate_fn": collate,
            "generator": torch.Generator().manual_seed(self.seed),  # draws nothing from what dropout draws from
        }  # fmt: skip
        if isinstance(dataset, IterableDataset):
            return Batches(DataLoader(dataset, **settings), self._place, self._turn)
        order = Order(dataset, self.shuffle_train, self.seed, even=True)
        if not len(order):
            raise ValueError(f"train_dataset= has {len(dataset)} samples for {_rank()[1]} processes; allowed: more.")
        settings["drop_last"] = len(order) >= self.train_batch_size
        return Batches(DataLoader(dataset, sampler=order, **settings), self._place, self._turn)

    def replace(self, train_dataset: TupleDataset | RunDataset) -> None:
        """Train on other samples, from the next epoch on."""
        self.train_dataset, self._replaced = train_dataset, self._begun

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the batches of training."""
        if self.trainer is not None and self.trainer.training and not self._replaced:
            self._done, self._begun = self._done + 1, True
        module = getattr(self.trainer, "lightning_module", None)  # whose own hook Lightning leaves out for this one
        return batch if module is None else module.on_before_batch_transfer(batch, dataloader_idx)

    def _place(self) -> tuple[int, int]:
        return self._epoch, self._done

    def _turn(self) -> None:
        """An epoch begins: another one if there were batches of this one."""
        if self._begun:
            self._epoch, self._done = self._epoch + 1, 0
        self._begun = self._replaced = False

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Batches of the datasets that are validated on: those with rankings."""
        found = [self._inference(dataset) for dataset in self.inference_datasets if isinstance(dataset, RunDataset)]
        if not found:  # which is as it should be, and Lightning would ask at each fit whether it is
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
        return found

    def inference_dataloader(self) -> list[DataLoader[Any]]:
        """Batches of all datasets for inference."""
        return [self._inference(dataset) for dataset in self.inference_datasets]

    predict_dataloader = inference_dataloader

    def test_dataloader(self) -> DataLoader[Any]:
        """The datasets themselves, one after another: the engine orders and batches their texts."""
        datasets: Any = self.inference_datasets
        return DataLoader(datasets, batch_size=None, collate_fn=_same)

    def _inference(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        settings: dict[str, Any] = {"batch_size": self.inference_batch_size, "num_workers": self.num_workers,
                                    "collate_fn": collate}  # fmt: skip
        if isinstance(dataset, IterableDataset):
            return DataLoader(dataset, **settings)
        return DataLoader(dataset, sampler=Order(dataset, False), **settings)

    def state_dict(self) -> dict[str, Any]:
        """The epoch to go on with, how much of it is done, and what its batches depend on."""
        if self.trainer is None:
            return {}
        ended = self._replaced or self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        epoch, batches = (self._epoch + 1, 0) if self._begun and ended else self._place()
        return {"epoch": epoch, "batches": batches, "settings": self._settings(batches > 0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the batches that are done.

        Raises:
            ValueError: if training would go on with other batches than those that are left.
        """
        if self.trainer is not None and not self.trainer.training:
            return
        self._epoch, self._done = int(state.get("epoch", 0)), int(state.get("batches", 0))
        own = self._settings(self._done > 0)
        refuse_other(state.get("settings", own), own, f"Batches would be others than those that are left.  {ANEW}")

    def _settings(self, within: bool) -> dict[str, Any]:
        """What the order of samples depends on, and within an epoch also who reads which of them."""
        settings: dict[str, Any] = {"train_batch_size": self.train_batch_size, "seed": self.seed,
                                    "shuffle_train": self.shuffle_train}  # fmt: skip
        if within:
            settings["processes"] = _rank()[1]
            if isinstance(self.train_dataset, IterableDataset):
                settings["num_workers"] = self.num_workers
        return settings


def _same(dataset: Any) -> Any:
    return dataset


class Order(Sampler[int]):
    """Which samples this process takes, in which order; every process takes others.

    Args:
        dataset: whose samples; it is told the epoch too, where it draws others in each.
        shuffle: whether the order is another in each epoch.
        seed: decides it, with the epoch.
        even: whether every process takes as many, so that all have as many steps; samples may be left out for it.

    >>> order = Order([5, 6, 7, 8, 9], shuffle=False)
    >>> order.start = 2
    >>> list(order), len(order)
    ([2, 3, 4], 5)
    """

    def __init__(self, dataset: Any, shuffle: bool, seed: int = 0, *, even: bool = False) -> None:
        self._dataset, self._shuffle, self._seed, self._even = dataset, shuffle, seed, even
        self._epoch = 0
        self.start = 0  # how many samples of this process are passed over

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch = epoch
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(len(self._dataset))
        if self._shuffle:
            random = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
            order = torch.randperm(len(order), generator=random)
        rank, world = _rank()
        return iter(order[rank::world][: len(self)].tolist()[self.start :])

    def __len__(self) -> int:
        rank, world = _rank()
        return len(self._dataset) // world if self._even else len(range(rank, len(self._dataset), world))


class Batches:
    """The batches of training, epoch after epoch, from a place within one on.

    Args:
        loader: of this process's batches.
        place: says the epoch that is asked for, and how many of its batches are passed over.
        turn: called before each epoch.
    """

    def __init__(self, loader: DataLoader[Any], place: Callable[[], tuple[int, int]], turn: Callable[[], None]) -> None:
        self.loader, self.dataset, self._place, self._turn = loader, loader.dataset, place, turn
        self.sampler = self  # which Lightning tells that an epoch begins

    def set_epoch(self, epoch: int) -> None:
        """An epoch begins; which one is counted by the data module."""
        self._turn()

    def __len__(self) -> int:
        """How many batches an epoch has.

        Raises:
            TypeError: for a stream, whose samples are not counted beforehand.
        """
        count: int = len(self.loader)
        return count

    def __iter__(self) -> Iterator[Any]:
        epoch, done = self._place()
        order: Any = self.loader.sampler
        if isinstance(order, Order):
            order.set_epoch(epoch)
            order.start = done * int(self.loader.batch_size or 1)
            yield from self.loader
            return
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        batches = islice(self.loader, done, None)  # workers take turns with whole batches
        yield from batches if _rank()[1] == 1 else in_step(batches)

    def counted(self) -> int:
        """How many batches an epoch of a stream has on each process, read once for it.

        Raises:
            ValueError: if that cannot be told beforehand.
        """
        world, workers = _rank()[1], max(1, self.loader.num_workers)
        if not hasattr(self.dataset, "shares"):
            raise ValueError(f"A {type(self.dataset).__name__} does not say how many samples it has; {MAX_STEPS}")
        shares: list[int] = self.dataset.shares(world * workers)
        batches = [-(-share // int(self.loader.batch_size or 1)) for share in shares]
        return min(sum(batches[rank * workers :][:workers]) for rank in range(world))


def in_step(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches of a stream until one of the processes has none left, so that none waits for another."""
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    while True:
        batch = next(batches, None)
        there = torch.tensor(batch is not None, dtype=torch.int32, device=device)
        distributed.all_reduce(there, distributed.ReduceOp.MIN)
        if batch is None or not there:
            return
        yield batch


def steps_of(trainer: Any) -> int:
    """Optimiser steps of a whole training, for which the samples of a stream are counted.

    Raises:
        ValueError: if it has no end, or that of a stream cannot be told beforehand.
    """
    steps = trainer.estimated_stepping_batches
    if steps == math.inf:
        raise ValueError(f"Training has no end; {MAX_STEPS}")
    loader = trainer.train_dataloader
    if trainer.max_epochs == -1 or sized_len(loader) is not None:
        return int(steps)
    if not isinstance(loader, Batches):
        raise ValueError(f"The batches of a {type(loader).__name__} are not counted beforehand; {MAX_STEPS}")
    batches = min(loader.counted(), trainer.num_training_batches)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * max(1, trainer.max_epochs)
    return int(steps if trainer.max_steps == -1 else min(steps, trainer.max_steps))


def _rank() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
