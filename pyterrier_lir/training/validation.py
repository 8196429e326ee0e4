"""Effectiveness while a model is trained: rankings scored anew, and small collections that are really searched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
from lightning import Callback, Trainer
from torch import distributed

from ..data.samples import RankBatch
from ..data.sources import open_source
from ..engine import Engine
from ..models import BiEncoderModel
from .inference import build_index, search


def measures_of(names: Sequence[str]) -> list[Any]:
    """The measures of ir_measures with these names.

    >>> measures_of(["nDCG@10"])
    [nDCG@10]

    Raises:
        ValueError: for names that ir_measures does not know.
    """
    found = []
    for name in names:
        try:
            found.append(ir_measures.parse_measure(name))
        except (NameError, ValueError, SyntaxError) as error:
            raise ValueError(
                f"evaluation_metrics: ir_measures knows no {name!r}; such as nDCG@10, RR@10, R@100."
            ) from error
    return found


class Rescored:
    """Collects rankings with new scores, and their judgements, over the batches and the processes of a validation."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: list[tuple[str, str, float]] = []
        self._qrels: list[Mapping[str, Any]] = []

    def add(self, batch: RankBatch) -> None:
        """Score the documents of a batch."""
        lengths = [len(own) for own in batch.docs]
        queries = np.repeat(np.array(batch.queries, dtype=object), lengths)
        lists = np.repeat(np.arange(len(lengths)), lengths)
        docs = np.array([doc for own in batch.docs for doc in own], dtype=object)
        scores = self._engine.score(queries, docs, lists=lists)
        assert batch.query_ids is not None
        assert batch.doc_ids is not None
        names = np.repeat(np.array(batch.query_ids, dtype=object), lengths)
        ids = [doc_id for own in batch.doc_ids for doc_id in own]
        self._rows += list(zip(names.tolist(), ids, scores.tolist(), strict=True))
        self._qrels += batch.qrels or []

    def measured(self, names: Sequence[str]) -> dict[str, float]:
        """The mean of each measure.

        Raises:
            ValueError: if there are no judgements.
        """
        rows, qrels = _everyones(self._rows), _everyones(self._qrels)
        if not qrels:
            raise ValueError(f"{', '.join(names)} need relevance judgements, which the dataset does not have.")
        return measured(pd.DataFrame(rows, columns=["query_id", "doc_id", "score"]), pd.DataFrame(qrels), names)


def measured(run: pd.DataFrame, qrels: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """The mean of each measure over judged queries; frames have the columns of ir_measures."""
    found = ir_measures.calc_aggregate(measures_of(names), qrels.drop_duplicates(["query_id", "doc_id"]), run)
    return {str(measure): float(value) for measure, value in found.items()}


def judgements_of(dataset: Any) -> pd.DataFrame | None:
    """The judgements of a dataset, a grade for each query and document; None without any."""
    qrels = dataset.qrels if hasattr(dataset, "qrels") else dataset.source.qrels
    return None if qrels is None else qrels.highest()


class RetrievalValidation(Callback):
    """Indexes a small collection with the model under training, searches it, and logs how good the results are.

    The results are logged as `NAME/MEASURE`, to stop early or keep the best checkpoint by, at the end of each epoch and
    whenever validation data are validated on (`val_check_interval` of the trainer).

    Args:
        dataset: queries, documents and judgements, anything that `data.open_source` takes.
        evaluation_metrics: names that ir_measures knows.
        num_results: documents of a query.
        name: in the log.
    """

    def __init__(
        self, dataset: Any, evaluation_metrics: Sequence[str] = ("nDCG@10",), num_results: int = 100,
        name: str = "retrieval",
    ) -> None:  # fmt: skip
        measures_of(evaluation_metrics)
        self.dataset, self.evaluation_metrics = dataset, tuple(evaluation_metrics)
        self.num_results, self.name = num_results, name
        self._step = -1  # of the last time

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Index, search and measure."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._log(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Index, search and measure, if it has not been done at this step."""
        if self._step != trainer.global_step:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure in the first process, and log in all."""
        self._step = trainer.global_step
        values: list[Any] = [None]
        whole = pl_module.whole()
        if trainer.is_global_zero:
            with inference(whole) as model:
                values = [self.measure(model, str(pl_module.device))]
        if distributed.is_available() and distributed.is_initialized():
            distributed.broadcast_object_list(values)
        for name, value in values[0].items():
            pl_module.log(f"{self.name}/{name}", value, prog_bar=True, rank_zero_only=False, sync_dist=False)

    def measure(self, model: BiEncoderModel, device: str | None = None) -> dict[str, float]:
        """Index and search the collection with a model.

        Raises:
            ValueError: if the dataset has no judgements.
        """
        source = open_source(self.dataset)
        if source.qrels is None:
            raise ValueError(f"{self.dataset!r} has no relevance judgements to measure {self.evaluation_metrics} by.")
        qrels = source.qrels.highest()
        queries = {query_id: source.queries[query_id] for query_id in sorted(set(qrels["query_id"]))}
        run = searched(model, source.docs.stretch(0, None), queries, self.num_results, device)
        return measured(run, qrels, self.evaluation_metrics)


@contextmanager
def inference(model: Any) -> Iterator[Any]:
    """A model under training as it is in a pipeline, without dropout and with all shortcuts."""
    plain, training = model.plain, model.training
    model.plain = False
    model.eval()
    try:
        yield model
    finally:
        model.train(training)
        model.plain = plain


def searched(
    model: BiEncoderModel, docs: Any, queries: Mapping[str, str], num_results: int, device: str | None = None
) -> pd.DataFrame:
    """A run (query_id, doc_id, score) over documents, pairs of id and text, that are indexed for it and forgotten."""
    engine = Engine(model, device=device, precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(engine, Path(folder) / "x.lir", ({"docno": one, "text": text} for one, text in docs))
        retriever = index.retriever(num_results=num_results)
        return search(engine, retriever, list(queries), list(queries.values()))


def _everyones(own: list[Any]) -> list[Any]:
    """What all processes have."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    parts: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, own)
    return [one for part in parts for one in part]
