"""Trainable: a model that learns inside a PyTerrier pipeline, from the results of the stages in front of it."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyterrier as pt

from ..config import BiEncoderConfig, CrossEncoderConfig
from ..data import RunDataset, TupleDataset, mine_negatives
from ..display import Drawn, chosen
from .bi_encoder import LIRBiEncoder
from .model_transformer import label
from .reranker import LIRReRanker
from .retrieval import LIRIndexer, LIRRetriever

_COLUMNS = ("qid", "query", "docno", "text")
_FIELDS = {kind: {own.name for own in dataclasses.fields(kind)[1:] if own.init} for kind in (LIRReRanker, LIRBiEncoder)}
_SEARCH = {*inspect.signature(LIRRetriever).parameters} - {"model", "index", "settings"}
_START = {"revision", "query_prompt_name", "doc_prompt_name"}  # of the checkpoint alone that training starts from


class Trainable(Drawn, pt.Estimator):
    """A re-ranker that is fitted in its place: `(bm25 >> get_text >> Trainable(...)).fit(...)`.

    `LIRReRanker(...).trainable(folder, ...)` and `LIRBiEncoder(...).trainable(folder, ...)` make one too.

    Fitting takes the documents that the stages in front find and that are not judged relevant as negatives, trains,
    writes the model to a folder, and leaves the trained model in the pipeline.  Before, the transformer scores with the
    model it starts from, or with what an earlier fit left in the folder.

    Args:
        model: a checkpoint, or a backbone with `config=`.
        folder: where the trained model is written; that of an earlier training is replaced.
        config: see `BiEncoderModule`.
        loss_functions: of `training.objectives`; None for InfoNCE of a query's documents for cross-encoders, and
            `InBatchCrossEntropy` for bi-encoders.
        n: negatives of a positive.
        skip_top: documents at the top that are no negatives, because they may be relevant without being judged.
        mining: further arguments of `mine_negatives`, such as `teacher=` and `margin=`.
        targets: what losses see of a document: `order` (1 for the relevant one, 0 for others), `relevance` (labels), or
            `score` (of a teacher in `mining`); None for the scores where a loss needs them, else the order.
        docs: texts of all documents, so that relevant ones that were not found are learned from too; anything that
            `data.open_source` takes.  Without it, texts are those of the results.
        batch_size: queries of a step.
        max_epochs: how often all positives are seen.
        learning_rate: of AdamW.
        seed: of the negatives, the order, new layers and dropout.
        monitor: a measure of the validation topics; the best epoch's model is kept.
        index, corpus: for bi-encoders, an index that is built with the trained model, of the documents that `corpus()`
            iterates over; then topics without documents are searched for.
        trainer, module: further arguments of `LightningIRTrainer` and of the Lightning module.
        settings: of `LIRReRanker` or `LIRBiEncoder`, and with an index of `LIRRetriever`.  Lengths, prompts and the
            instruction hold in training too, and those of a bi-encoder in its index.

    Raises:
        TypeError: for a loaded model instead of its name, unknown settings, or a `corpus` that is no function.
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
        targets: Literal["order", "score", "relevance"] | None = None,
        docs: Any = None,
        batch_size: int = 8,
        max_epochs: int = 1,
        learning_rate: float = 5e-5,
        seed: int = 0,
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
        if corpus is not None and not callable(corpus):
            raise TypeError(
                f"corpus={corpus!r}; it is called whenever the index is built: give dataset.get_corpus_iter without "
                "parentheses, or lambda: docs."
            )
        known = _FIELDS[LIRBiEncoder] | (_FIELDS[LIRReRanker] if index is None else _SEARCH)
        if unknown := sorted(set(settings) - known):
            theirs = "LIRReRanker and LIRBiEncoder" if index is None else "LIRBiEncoder and LIRRetriever"
            raise TypeError(f"Trainable has no setting {', '.join(unknown)}; it has its own and those of {theirs}.")
        self.model, self.folder, self.config, self.loss_functions = model, Path(folder), config, loss_functions
        self.n, self.skip_top, self.mining, self.docs = n, skip_top, mining or {}, docs
        self.targets: Any = targets
        self.batch_size, self.max_epochs, self.learning_rate = batch_size, max_epochs, learning_rate
        self.seed, self.monitor, self.index, self.corpus = seed, monitor, index, corpus
        self.trainer, self.module, self.settings = trainer or {}, module or {}, settings
        self._fitted: pt.Transformer | None = None
        self._transformer(model)  # refuses at once what no model could make right

    def _transformer(self, model: str | os.PathLike[str], trained: bool = False) -> LIRReRanker | LIRBiEncoder:
        """A model with the settings that were given."""
        given = {name: value for name, value in self.settings.items() if not trained or name not in _START}
        kind = LIRReRanker if self.index is None and set(given) <= _FIELDS[LIRReRanker] else LIRBiEncoder
        return kind(model, **{name: value for name, value in given.items() if name in _FIELDS[kind]})

    def fitted(self) -> pt.Transformer:
        """What scores: the trained model from the folder, or the model before training."""
        if self._fitted is None:
            trained = (self.folder / "training.json").is_file()
            if not trained and self.config is not None:
                raise ValueError(f"{self.model} with {type(self.config).__name__}(...) is a new model: fit it first.")
            name = str(self.folder) if trained else self.model
            own = self._transformer(name, trained)
            if self.index is not None and trained:
                search = {name: value for name, value in self.settings.items() if name in _SEARCH}
                self._fitted = LIRRetriever(name, self.index, **{**own._chosen(), **search})
            else:
                self._fitted = own.scorer() if isinstance(own, LIRBiEncoder) else own
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
        from ..training import ExportCallback, LightningIRDataModule, LightningIRTrainer, seed_everything

        topics_or_res_tr = self._read(topics_or_res_tr, "training")
        if topics_or_res_va is not None:
            topics_or_res_va = self._read(topics_or_res_va, "validation")
        seed_everything(self.seed, verbose=False)
        validate = topics_or_res_va is not None and qrels_va is not None
        datasets = [self._validation(topics_or_res_va, qrels_va)] if validate else None
        data = LightningIRDataModule(train_dataset=self._mined(topics_or_res_tr, qrels_tr),
                                     train_batch_size=self.batch_size, inference_datasets=datasets)  # fmt: skip
        export = ExportCallback(self.folder, f"the run/{self.monitor}" if validate else None)
        given = {"max_epochs": self.max_epochs, "logger": False, "enable_checkpointing": False, **self.trainer}
        more = given.pop("callbacks", None) or []
        callbacks = [export, *(more if isinstance(more, Sequence) else [more])]
        LightningIRTrainer(callbacks=callbacks, **given).fit(self._module(validate), data)
        if self.index is not None and self.corpus is not None:
            settings = self._transformer(self.folder, trained=True)._chosen()
            LIRIndexer(str(self.folder), self.index, mode="overwrite", **settings).index(self.corpus())
        self._fitted = None
        return self

    def _read(self, results: pd.DataFrame, use: str) -> pd.DataFrame:
        """The results with queries and texts in the columns `query` and `text`."""
        own = self._transformer(self.model)
        names = {own.query_field: "query", own.text_field: "text"}
        columns = ["qid", own.query_field, "docno", own.text_field]
        if lacking := [column for column in columns if column not in results.columns]:
            raise ValueError(
                f"The {use} topics come without {', '.join(lacking)}: put a first stage and its texts in front, "
                "as in bm25 >> pt.text.get_text(dataset) >> Trainable(...)."
            )
        kept = [column for column in results.columns if column in columns or column not in names.values()]
        return results[kept].rename(columns=names)

    def _mined(self, results: pd.DataFrame, qrels: pd.DataFrame) -> TupleDataset:
        """Tuples of a relevant document and negatives."""
        docs = self.docs
        if docs is None:  # what was not found has no text
            qrels = qrels[qrels["docno"].isin(results["docno"])]
            docs = dict(zip(results["docno"], results["text"], strict=True))
        topics = results[["qid", "query"]].drop_duplicates("qid")
        found = results[[column for column in ("qid", "docno", "score", "rank") if column in results.columns]]
        mined = mine_negatives(lambda asked: found[found["qid"].isin(asked["qid"])], topics, qrels, n=self.n,
                               skip_top=self.skip_top, docs=docs, **{"seed": self.seed, **self.mining})  # fmt: skip
        from ..training.ranking_module import needs_scores

        distils = "score" in mined and any(needs_scores(loss) for loss in self.loss_functions or ())
        targets: Any = self.targets or ("score" if distils else "order")
        return TupleDataset(mined, targets, num_docs=self.n + 1, seed=self.seed)

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
            start = self._transformer(self.model)
            if isinstance(start, LIRReRanker):
                start = dataclasses.replace(start, activation=None)  # losses are of raw scores
            model = start._changed(load_model(self.model, **{name: getattr(start, name) for name in start._LOADING}))
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
