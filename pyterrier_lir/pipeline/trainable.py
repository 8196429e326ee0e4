"""Trainable: a model that learns inside a PyTerrier pipeline, from the results of the stages in front of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyterrier as pt

from ..config import BiEncoderConfig, CrossEncoderConfig
from ..data import RunDataset, TupleDataset, mine_negatives
from ..display import Drawn, chosen
from .model_transformer import label
from .reranker import LIRReRanker
from .retrieval import LIRIndexer, LIRRetriever

_COLUMNS = ("qid", "query", "docno", "text")


class Trainable(Drawn, pt.Estimator):
    """A re-ranker that is fitted in its place: `(bm25 >> get_text >> Trainable(...)).fit(...)`.

    `LIRReRanker(...).trainable(folder, ...)` and `LIRBiEncoder(...).trainable(folder, ...)` make one too.

    Fitting takes the documents that the stages in front find and that are not judged relevant as negatives, trains,
    writes the model to a folder, and leaves the trained model in the pipeline.  Before, the transformer scores with the
    model it starts from, or with what an earlier fit left in the folder.

    Args:
        model: a checkpoint, or a backbone with `config=`.
        folder: where the trained model is written; that of an earlier training is replaced.
        config: makes a new model on the backbone.
        loss_functions: of `training.objectives`; None for InfoNCE of a query's documents for cross-encoders, and
            `InBatchCrossEntropy` for bi-encoders.
        n: negatives of a positive.
        skip_top: documents at the top that are no negatives, because they may be relevant without being judged.
        mining: further arguments of `mine_negatives`, such as `teacher=` and `margin=`.
        docs: texts of all documents, so that relevant ones that were not found are learned from too; anything that
            `data.open_source` takes.  Without it, texts are those of the results.
        batch_size: queries of a step.
        max_epochs: how often all positives are seen.
        learning_rate: of AdamW.
        monitor: a measure of the validation topics; the best epoch's model is kept.
        index, corpus: for bi-encoders, an index that is built with the trained model, of the documents that `corpus()`
            iterates over; then topics without documents are searched for.
        trainer, module: further arguments of `LightningIRTrainer` and of the Lightning module.
        settings: of `LIRReRanker` (or `LIRRetriever`); `max_length` and `instruction` hold in training too.

    Raises:
        TypeError: for a loaded model instead of its name.
        ValueError: at fitting, for topics without documents, or where no query has both positives and negatives.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        config: BiEncoderConfig | CrossEncoderConfig | None = None,
        loss_functions: Sequence[Any] | None = None,
        n: int = 7,
        skip_top: int = 0,
        mining: dict[str, Any] | None = None,
        docs: Any = None,
        batch_size: int = 8,
        max_epochs: int = 1,
        learning_rate: float = 5e-5,
        monitor: str = "nDCG@10",
        index: str | os.PathLike[str] | None = None,
        corpus: Callable[[], Iterable[dict[str, Any]]] | None = None,
        trainer: dict[str, Any] | None = None,
        module: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(model, (str, os.PathLike)):
            raise TypeError(f"model={model!r}; allowed: a hub id or a folder, which training starts from anew.")
        if (index is None) != (corpus is None):
            raise ValueError("index= and corpus= belong together: where the index is, and what is in it.")
        if index is None:
            LIRReRanker(model, **settings)  # refuses settings that it does not have
        self.model, self.folder, self.config, self.loss_functions = model, Path(folder), config, loss_functions
        self.n, self.skip_top, self.mining, self.docs = n, skip_top, mining or {}, docs
        self.batch_size, self.max_epochs, self.learning_rate = batch_size, max_epochs, learning_rate
        self.monitor, self.index, self.corpus = monitor, index, corpus
        self.trainer, self.module, self.settings = trainer or {}, module or {}, settings
        self._fitted: pt.Transformer | None = None

    def fitted(self) -> pt.Transformer:
        """What scores: the trained model from the folder, or the model before training."""
        if self._fitted is None:
            trained = (self.folder / "training.json").is_file()
            if not trained and self.config is not None:
                raise ValueError(f"{self.model} with {type(self.config).__name__}(...) is a new model: fit it first.")
            name = str(self.folder) if trained else self.model
            if self.index is not None and trained:
                self._fitted = LIRRetriever(name, self.index, **self.settings)
            else:
                self._fitted = LIRReRanker(name, **self.settings)
        return self._fitted

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Score and rank, with the model as it is."""
        out: pd.DataFrame = self.fitted().transform(inp)
        return out

    def fit(
        self,
        topics_or_res_tr: pd.DataFrame,
        qrels_tr: pd.DataFrame,
        topics_or_res_va: pd.DataFrame | None = None,
        qrels_va: pd.DataFrame | None = None,
    ) -> Trainable:
        """Mine, train, write, and use what was trained.

        Args:
            topics_or_res_tr, qrels_tr: results to learn from, and what is relevant.
            topics_or_res_va, qrels_va: results whose re-ranking decides which epoch is kept; None keeps the last.
        """
        from ..training import ExportCallback, LightningIRDataModule, LightningIRTrainer

        for name, frame in (("training", topics_or_res_tr), ("validation", topics_or_res_va)):
            lacking = [] if frame is None else [column for column in _COLUMNS if column not in frame.columns]
            if lacking:
                raise ValueError(
                    f"The {name} topics come without {', '.join(lacking)}: put a first stage and its texts in front, "
                    "as in bm25 >> pt.text.get_text(dataset) >> Trainable(...)."
                )
        validate = topics_or_res_va is not None and qrels_va is not None
        datasets = [self._validation(topics_or_res_va, qrels_va)] if validate else None
        data = LightningIRDataModule(train_dataset=self._mined(topics_or_res_tr, qrels_tr),
                                     train_batch_size=self.batch_size, inference_datasets=datasets)  # fmt: skip
        export = ExportCallback(self.folder, f"the run/{self.monitor}" if validate else None)
        given = {"max_epochs": self.max_epochs, "logger": False, "enable_checkpointing": False, **self.trainer}
        callbacks = [export, *given.pop("callbacks", [])]
        LightningIRTrainer(callbacks=callbacks, **given).fit(self._module(validate), data)
        if self.index is not None and self.corpus is not None:
            LIRIndexer(str(self.folder), self.index, mode="overwrite").index(self.corpus())
        self._fitted = None
        return self

    def _mined(self, results: pd.DataFrame, qrels: pd.DataFrame) -> TupleDataset:
        """Tuples of a relevant document and negatives."""
        docs = self.docs
        if docs is None:  # what was not found has no text
            qrels = qrels[qrels["docno"].isin(results["docno"])]
            docs = dict(zip(results["docno"], results["text"], strict=True))
        topics = results[["qid", "query"]].drop_duplicates("qid")
        found = results[[column for column in ("qid", "docno", "score", "rank") if column in results.columns]]
        mined = mine_negatives(lambda asked: found[found["qid"].isin(asked["qid"])], topics, qrels, n=self.n,
                               skip_top=self.skip_top, docs=docs, **self.mining)  # fmt: skip
        return TupleDataset(mined, num_docs=self.n + 1, seed=0)

    def _validation(self, results: pd.DataFrame | None, qrels: pd.DataFrame | None) -> RunDataset:
        assert results is not None
        columns = [column for column in (*_COLUMNS, "score", "rank") if column in results.columns]
        texts = {"queries": dict(zip(results["qid"], results["query"], strict=True)),
                 "docs": dict(zip(results["docno"], results["text"], strict=True)), "qrels": qrels}  # fmt: skip
        return RunDataset(results[columns], dataset=texts)

    def _module(self, validate: bool) -> Any:
        from ..models import BiEncoderModel, load_model
        from ..training import BiEncoderModule, CrossEncoderModule
        from ..training.objectives import InBatchCrossEntropy, InfoNCE

        kinds = {BiEncoderConfig: BiEncoderModule, CrossEncoderConfig: CrossEncoderModule}
        settings: dict[str, Any] = {"learning_rate": self.learning_rate, **self.module}
        settings["evaluation_metrics"] = [self.monitor] if validate else None
        if self.config is not None:
            kind: Any = kinds[type(self.config)]
            settings |= {"model_name_or_path": self.model, "config": self.config}
        else:
            changes = {name: self.settings[name] for name in ("max_length", "instruction") if name in self.settings}
            model = load_model(self.model).with_options(**changes)
            kind = BiEncoderModule if isinstance(model, BiEncoderModel) else CrossEncoderModule
            settings["model"] = model
        usual = [InfoNCE()] if kind is CrossEncoderModule else [InBatchCrossEntropy()]
        return kind(loss_functions=self.loss_functions or usual, **settings)

    def _label(self) -> str:
        return label(self.model)

    def facts(self) -> dict[str, Any]:
        """What the display tells: the model, the folder, the settings, and whether there is a trained model."""
        trained = (self.folder / "training.json").is_file()
        return {**chosen(self), **self.settings, "trained": trained}

    def __repr__(self) -> str:
        return f"Trainable({str(self.model)!r}, {str(self.folder)!r})"

    def _settings(self) -> tuple[Any, ...]:
        values = {name: value for name, value in self.__dict__.items() if name != "_fitted"}
        return tuple((name, repr(value)) for name, value in sorted(values.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trainable) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_fitted": None}
