"""Hard negatives by the model under training, found anew again and again (ANCE, arXiv:2007.00808)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
from lightning import Callback, LightningModule, Trainer
from torch import distributed

from ..data.mining import mine_negatives
from ..data.sources import open_source
from ..data.tuples import TupleDataset
from .validation import inference, searched


class RefreshNegatives(Callback):
    """Every few steps, indexes the collection with the bi-encoder under training and takes its mistakes as negatives.

    Training goes on with a new epoch of the queries with these negatives, so that its length is to be given as
    `max_steps`.  What was mined stays in the folder, for inspection and for resuming.

    Args:
        every_n_steps: optimiser steps between two minings.
        topics: `qid`, `query`, to train on.
        qrels: `qid`, `docno`, `label`.
        docs: the collection, anything that `data.open_source` takes.
        folder: where `step-N.jsonl.gz` is written.
        depth: how far down the model's ranking negatives may be.
        n: negatives of a positive.
        seed: of the order of samples, and of mining.
        mining: further arguments of `mine_negatives`.

    Raises:
        ValueError: at the start of training, if the number of steps is not given, the model is a cross-encoder, or the
            data have a teacher's scores and `mining` no teacher.
    """

    replaces_data = True

    def __init__(
        self,
        every_n_steps: int,
        topics: pd.DataFrame,
        qrels: pd.DataFrame,
        docs: Any,
        folder: str | os.PathLike[str],
        *,
        depth: int = 100,
        n: int = 7,
        seed: int = 0,
        **mining: Any,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}; allowed: a positive number.")
        self.every_n_steps, self.topics, self.qrels, self.docs = every_n_steps, topics, qrels, docs
        self.folder, self.depth, self.n, self.seed, self.mining = Path(folder), depth, n, seed, mining
        self._step = 0  # of the last mining
        self._targets: str | None = None  # of the data that are replaced

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that it can be done; go on with what was mined before an interruption."""
        if not hasattr(pl_module.model, "kinds"):
            raise ValueError("A cross-encoder indexes nothing: RefreshNegatives is for bi-encoders.")
        reloads = getattr(trainer, "reload_dataloaders_every_n_epochs", 0)
        if trainer.max_steps < 1 or reloads != 1:
            raise ValueError("RefreshNegatives needs a LightningIRTrainer with max_steps=, as it starts epochs anew.")
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._targets = getattr(data.train_dataset, "targets", None)
        if self._targets == "score" and "teacher" not in self.mining:
            raise ValueError(
                "The training data have a teacher's scores, which new negatives would not have: give "
                "RefreshNegatives(..., teacher=) too, or train on data with targets='order'."
            )
        if self._step:
            self._replace(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *given: Any) -> None:
        """Mine, and go on with what was found."""
        step = trainer.global_step
        if step % self.every_n_steps or step in (self._step, 0, trainer.max_steps):
            return
        self._step = step
        whole = pl_module.whole()
        if trainer.is_global_zero:
            with inference(whole) as model:
                mined = self.mine(model, str(pl_module.device))
            self.folder.mkdir(parents=True, exist_ok=True)
            mined.to_json(self._path(), orient="records", lines=True)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
        self._replace(trainer)
        pl_module.stale = True

    def mine(self, model: Any, device: str | None = None) -> pd.DataFrame:
        """What `mine_negatives` takes from the model's own ranking of all documents."""
        queries = dict(zip(self.topics["qid"].astype(str), self.topics["query"], strict=True))
        docs = open_source(self.docs).docs
        found = searched(model, docs.stretch(0, None), queries, self.depth, device)
        found = found.rename(columns={"query_id": "qid", "doc_id": "docno"})
        return mine_negatives(lambda asked: found[found["qid"].isin(asked["qid"])], self.topics, self.qrels,
                              depth=self.depth, n=self.n, docs=docs, seed=self.seed, **self.mining)  # fmt: skip

    def _path(self) -> Path:
        return self.folder / f"step-{self._step}.jsonl.gz"

    def _replace(self, trainer: Trainer) -> None:
        types = {"qid": str, "docno": str, "query": str, "text": str}
        mined = pd.read_json(self._path(), lines=True, dtype=types)  # type: ignore[call-overload]
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        targets = self._targets if self._targets in ("score", "relevance") else "order"
        data.replace(TupleDataset(mined, targets, num_docs=self.n + 1, seed=self.seed))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The step of the last mining."""
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self._step = state_dict["step"]
