"""LightningIRDataModule: datasets as batches, in an order that a seed decides and an interruption does not change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from lightning import LightningDataModule
from torch import distributed
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ..data.collections import DocDataset, QueryDataset
from ..data.runs import RunDataset
from ..data.samples import collate
from ..data.tuples import TupleDataset


class LightningIRDataModule(LightningDataModule):
    """Datasets for training, validation and inference.

    Args:
        num_workers: processes that read and tokenise ahead.
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
        self._done = 0  # batches of the epoch under way that an interrupted run has had
        self._replaced = False  # whether that epoch is of samples that were replaced

    def prepare_data(self) -> None:
        """Download what is missing."""
        given: list[Any] = [self.train_dataset, *self.inference_datasets]
        for dataset in given:
            if hasattr(dataset, "prepare_data"):
                dataset.prepare_data()

    def train_dataloader(self) -> Any:
        """Batches of the current epoch; after an interruption, those that were not trained on."""
        dataset = self.train_dataset
        if dataset is None:
            raise ValueError("There is no train_dataset= to fit on.")
        done, self._done, self._replaced = self._done * self.train_batch_size, 0, False
        settings: dict[str, Any] = {
            "batch_size": self.train_batch_size, "num_workers": self.num_workers, "collate_fn": collate,
            "generator": torch.Generator().manual_seed(self.seed),  # draws nothing from what dropout draws from
        }  # fmt: skip
        if isinstance(dataset, IterableDataset):
            epoch = self.trainer.current_epoch if self.trainer else 0
            loader = DataLoader(Stream(dataset, done, epoch), **settings)
            return loader if _rank()[1] == 1 else InStep(loader)
        order = Order(dataset, self.shuffle_train, self.seed, done)
        return DataLoader(dataset, sampler=order, drop_last=len(order) >= self.train_batch_size, **settings)

    def replace(self, train_dataset: TupleDataset | RunDataset) -> None:
        """Train on other samples, from the next epoch on."""
        self.train_dataset, self._replaced = train_dataset, True

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Batches of the datasets that are validated on: those with rankings."""
        return [self._inference(dataset) for dataset in self.inference_datasets if isinstance(dataset, RunDataset)]

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
        """How much of the epoch is done."""
        if self.trainer is None:
            return {}
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        done = 0 if progress.is_last_batch or self._replaced else int(progress.current.ready)
        return {"batches": done, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the batches that are done."""
        self._done = int(state.get("batches", 0))


def _same(dataset: Any) -> Any:
    return dataset


class Order(Sampler[int]):
    """Which samples this process takes, in which order; every process takes others.

    Args:
        dataset: whose samples; it is told the epoch too, where it draws others in each.
        shuffle: whether the order is another in each epoch.
        seed: decides it, with the epoch.
        start: samples of this process that are passed over in the first epoch.

    >>> order = Order([5, 6, 7, 8, 9], shuffle=False, start=2)
    >>> list(order), list(order), len(order)
    ([2, 3, 4], [0, 1, 2, 3, 4], 5)
    """

    def __init__(self, dataset: Any, shuffle: bool, seed: int = 0, start: int = 0) -> None:
        self._dataset, self._shuffle, self._seed, self._start = dataset, shuffle, seed, start
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch = epoch
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        start, self._start = self._start, 0
        order = torch.arange(len(self._dataset))
        if self._shuffle:
            random = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
            order = torch.randperm(len(order), generator=random)
        rank, world = _rank()
        return iter(order[rank::world][: len(self)].tolist()[start:])

    def __len__(self) -> int:
        rank, world = _rank()
        # as many for each process, which must take the same number of steps; all of them where nothing is trained
        return len(self._dataset) // world if self._shuffle else len(range(rank, len(self._dataset), world))


class Stream(IterableDataset[Any]):
    """An iterable dataset, epoch after epoch, without its first samples in the first.

    Args:
        dataset: which is told the epoch, where it draws other samples in each.
        start: samples of this process that are passed over.
        epoch: the first.
    """

    def __init__(self, dataset: IterableDataset[Any], start: int = 0, epoch: int = 0) -> None:
        self._dataset, self._start, self._epoch = dataset, start, epoch

    def __iter__(self) -> Iterator[Any]:
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(self._epoch)
        info = torch.utils.data.get_worker_info()
        workers, number = (1, 0) if info is None else (info.num_workers, info.id)
        own = (self._start - number + workers - 1) // workers
        self._start, self._epoch = 0, self._epoch + 1
        return islice(iter(self._dataset), own, None)


class InStep:
    """Batches of a stream until one of the processes has none left, so that none waits for another.

    Args:
        loader: of this process's batches.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.dataset = loader.dataset

    def __iter__(self) -> Iterator[Any]:
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        batches = iter(self.loader)
        while True:
            batch = next(batches, None)
            there = torch.tensor(batch is not None, dtype=torch.int32, device=device)
            distributed.all_reduce(there, distributed.ReduceOp.MIN)
            if batch is None or not there:
                return
            yield batch


def _rank() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
