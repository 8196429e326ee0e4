"""Callbacks of `LightningIRTrainer.index`, `search` and `re_rank`; a batch of theirs is a whole dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ..data.collections import DocDataset, QueryDataset
from ..data.local_datasets import register_local_dataset
from ..data.runs import RunDataset
from ..indexes import open_index
from ..indexes.configs import IndexConfig, SearchConfig
from ..indexes.retriever import check_model
from ..indexes.storage import META
from .inference import Indexer, docs_name, name_of

Place = str | os.PathLike[str]


class StageCallback(Callback):
    """A callback for one kind of dataset.

    Attributes:
        DATASETS: what it works on.
        MODELS: the modules that it works with.
    """

    DATASETS: tuple[type, ...] = ()
    MODELS: tuple[str, ...] = ("BiEncoderModule", "CrossEncoderModule")

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse modules and datasets of other kinds, before any work is done.

        Raises:
            ValueError: naming them.
        """
        if type(pl_module).__name__ not in self.MODELS:
            raise ValueError(f"{type(self).__name__} works with a {self.MODELS[0]}, not a {type(pl_module).__name__}.")
        for dataset in getattr(trainer, "datamodule").inference_datasets:  # noqa: B009 - Lightning does not declare it
            if not isinstance(dataset, self.DATASETS):
                wanted = " or ".join(one.__name__ for one in self.DATASETS)
                raise ValueError(f"{type(self).__name__} works on a {wanted}, not a {type(dataset).__name__}.")


class IndexCallback(StageCallback):
    """Indexes each `DocDataset`, in a folder that is named like the collection.

    Args:
        index_dir: where the folders are made; None for `indexes` in the model's folder.
        index_config: how documents are stored, and for which engine.
        index_name: the folder's name instead.
        overwrite: whether indexes that are there are built anew; else they are left as they are.  A build that was
            interrupted goes on in any case.
        verbose: show a progress bar.

    Raises:
        ValueError: for models and datasets of other kinds; for an index of another model that would be kept.
    """

    DATASETS = (DocDataset,)
    MODELS = ("BiEncoderModule",)

    def __init__(
        self,
        index_dir: Place | None = None,
        index_config: IndexConfig | None = None,
        index_name: str | None = None,
        overwrite: bool = False,
        verbose: bool = False,
    ) -> None:
        if not isinstance(index_config, IndexConfig):
            raise TypeError(f"index_config={index_config!r}; allowed: one such as FaissFlatIndexConfig().")
        self.index_dir, self.index_config, self.index_name = index_dir, index_config, index_name
        self.overwrite, self.verbose = overwrite, verbose

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Also refuse vectors of another kind."""
        super().on_test_start(trainer, pl_module)
        self.index_config.engine(pl_module.model.kinds[0])

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Index the documents of a dataset."""
        folder = index_folder(self.index_dir, self.index_name, pl_module, batch)
        if (folder / META).is_file() and not self.overwrite:
            check_model(open_index(folder), str(pl_module.model.source), pl_module.model.fingerprint)
            rank_zero_info(f"{folder} is there already; overwrite=True builds it anew.")
            return
        Indexer(folder, self.index_config, pl_module, self.verbose).index(batch, self.overwrite)
        rank_zero_info(f"{folder} is built.")


def index_folder(index_dir: Place | None, index_name: str | None, module: Any, dataset: Any) -> Path:
    """Where the index of a dataset's documents is; `index_dir` may be the index itself.

    Raises:
        ValueError: without `index_dir`, for a model that is in no folder.
    """
    root = _beside_model(index_dir, "index_dir", "indexes", module)
    if (root / META).is_file() and index_name is None:
        return root
    return root / (docs_name(dataset) if index_name is None else index_name)


def _beside_model(given: Place | None, argument: str, name: str, module: Any) -> Path:
    if given is not None:
        return Path(given)
    if not os.path.isdir(str(module.model.source)):
        raise ValueError(f"{module.model.source} is in no folder of this machine: give {argument}=.")
    return Path(str(module.model.source)) / name


class RankCallback(StageCallback):
    """Writes the run of each dataset in TREC's format, as `SAVE_DIR/DATASET.run`.

    Args:
        save_dir: where to; None for `runs` in the model's folder.
        run_name: the file's name instead.
        overwrite: whether a run that is there is replaced; else it is kept, and the dataset is not searched again.

    Raises:
        ValueError: without `save_dir`, for a model that is in no folder.
    """

    DATASETS: tuple[type, ...] = (QueryDataset, RunDataset)

    def __init__(self, save_dir: Place | None = None, run_name: str | None = None, overwrite: bool = False) -> None:
        self.save_dir, self.run_name, self.overwrite = save_dir, run_name, overwrite

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take the run that is there."""
        path = self.path_of(pl_module, batch)
        if path.is_file() and not self.overwrite:
            rank_zero_info(f"{path} is there already; overwrite=True makes it anew.")
            pl_module.found = read_run(path)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write the run."""
        path = self.path_of(pl_module, batch)
        if trainer.is_global_zero and (self.overwrite or not path.is_file()):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_run(outputs["run"], path, Path(str(pl_module.model.source)).name)
            rank_zero_info(f"{path} is written.")

    def path_of(self, module: Any, dataset: Any) -> Path:
        """Where the run of a dataset is."""
        name = self.run_name or f"{name_of(dataset).replace('/', '-')}.run"
        return _beside_model(self.save_dir, "save_dir", "runs", module) / name


class ReRankCallback(RankCallback):
    """Writes the run of each re-ranked `RunDataset`; arguments are those of `RankCallback`."""

    DATASETS = (RunDataset,)


class SearchCallback(RankCallback):
    """Searches an index for each `QueryDataset`, and writes the runs.

    Args:
        index_dir: where `IndexCallback` made the index, or the index itself; None for `indexes` in the model's folder.
        search_config: how the index is searched.
        index_name: the index's name, where it is not that of the collection.
        save_dir, run_name, overwrite: see `RankCallback`; without `save_dir`, for a model that is in no folder, no run
            is written.
        use_gpu: kept for Lightning IR's files; engines take the GPU where they can use one.

    Raises:
        FileNotFoundError: if there is no index.
        ValueError: if it is of another kind or model.
    """

    DATASETS = (QueryDataset,)
    MODELS = ("BiEncoderModule",)

    def __init__(
        self,
        index_dir: Place | None = None,
        search_config: SearchConfig | None = None,
        index_name: str | None = None,
        save_dir: Place | None = None,
        run_name: str | None = None,
        overwrite: bool = False,
        use_gpu: bool = True,
    ) -> None:
        super().__init__(save_dir, run_name, overwrite)
        if not isinstance(search_config, SearchConfig):
            raise TypeError(f"search_config={search_config!r}; allowed: one such as FaissSearchConfig(k=10).")
        self.index_dir, self.search_config, self.index_name = index_dir, search_config, index_name

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Also open all indexes, so that what is wrong is told before any search."""
        super().on_test_start(trainer, pl_module)
        for dataset in getattr(trainer, "datamodule").inference_datasets:  # noqa: B009
            self._retriever(pl_module, dataset)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Open the index for the module."""
        pl_module.retriever = self._retriever(pl_module, batch)
        if self._writes(pl_module):
            super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write the run."""
        pl_module.retriever = None
        if self._writes(pl_module):
            super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def _writes(self, module: Any) -> bool:
        return self.save_dir is not None or os.path.isdir(str(module.model.source))

    def _retriever(self, module: Any, dataset: QueryDataset) -> Any:
        index = open_index(index_folder(self.index_dir, self.index_name, module, dataset))
        check_model(index, str(module.model.source), module.model.fingerprint)
        return self.search_config.retriever(index)


class RegisterLocalDatasetCallback(Callback):
    """Makes local files known to ir_datasets under an id, as soon as it is made; see `register_local_dataset`."""

    def __init__(
        self,
        dataset_id: str,
        docs: str | None = None,
        queries: str | None = None,
        qrels: str | None = None,
        docpairs: str | None = None,
        scoreddocs: str | None = None,
        qrels_defs: Mapping[int, str] | None = None,
    ) -> None:
        self.dataset_id = dataset_id
        register_local_dataset(dataset_id, docs, queries, qrels, docpairs, scoreddocs, qrels_defs)


def write_run(run: pd.DataFrame, path: Path, system: str) -> None:
    """Write a run in TREC's format: query, Q0, document, rank, score, system."""
    rows = run.assign(q0="Q0", system=system.replace(" ", "-") or "run")
    rows = rows[["query_id", "q0", "doc_id", "rank", "score", "system"]]
    part = path.with_name(path.name + ".part")
    rows.to_csv(part, sep=" ", header=False, index=False, compression=None)
    part.replace(path)


def read_run(path: Path) -> pd.DataFrame:
    """A run in TREC's format."""
    names = ["query_id", "q0", "doc_id", "rank", "score", "system"]
    types = {"query_id": str, "doc_id": str}
    frame = pd.read_csv(path, sep=r"\s+", names=names, dtype=types, keep_default_na=False, quoting=3)
    return frame[["query_id", "doc_id", "score", "rank"]]
