"""RankingModule: what is trained for what, how weights move, what is validated and tested."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import pandas as pd
import torch
from lightning import LightningModule
from torch import Tensor, nn
from typing_extensions import Self

from ..config import BiEncoderConfig, CrossEncoderConfig
from ..data.collections import QueryDataset
from ..data.runs import RunDataset
from ..data.samples import RankBatch, TrainBatch
from ..engine import Engine
from ..memory import keep_freed_memory
from ..models import BiEncoderModel, CrossEncoderModel, Layout
from ..models.bi_encoder import fingerprint_of
from .adapters import adapt, head_of, merged
from .cpu_functions import again
from .datamodule import steps_of
from .inference import engine_of, everyones, name_of, re_rank, search
from .objectives import InBatchCrossEntropy
from .resuming import refuse_other, refuse_other_optimizers, shape_of
from .schedules import Schedule
from .scored import Loss, Scored
from .sharded import is_sharded, shard, whole
from .validation import Rescored, judgements_of, measured, measures_of

LossFunctions = Sequence[Loss | tuple[Loss, float] | tuple[Loss, float, Schedule]]


@dataclass(frozen=True)
class Output:
    """Scores of queries' documents.

    Attributes:
        scores: (documents,) of one query, (Q, D) of several.
    """

    scores: Tensor


class RankingModule(LightningModule):
    """What both modules share; use `BiEncoderModule` or `CrossEncoderModule`."""

    MODEL: ClassVar[Any]
    CONFIG: ClassVar[Any]
    model: BiEncoderModel | CrossEncoderModel

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        config: Any = None,
        model: Any = None,
        loss_functions: LossFunctions | None = None,
        evaluation_metrics: Sequence[str] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        *,
        learning_rate: float = 2e-5,
        head_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        schedule: Schedule = Schedule(warmup=0.1),  # noqa: B008 - frozen
        cached: bool = False,
        group_tokens: int | None = None,
        packed: bool = False,
        gradient_checkpointing: bool = False,
        lora: Any = None,
        compile: bool | Mapping[str, Any] = False,
    ) -> None:
        super().__init__()
        if (model is None) == (model_name_or_path is None):
            raise ValueError("Give either model_name_or_path= or model=.")
        if model is None:
            model = self.MODEL.from_pretrained(model_name_or_path, config=config, **(model_kwargs or {}))
        self.model = model
        self.losses = [_weighted(loss) for loss in loss_functions or ()]
        self.evaluation_metrics = tuple(evaluation_metrics or ())
        measures_of(self.evaluation_metrics)
        self.learning_rate, self.head_learning_rate = learning_rate, head_learning_rate
        self.weight_decay, self.schedule = weight_decay, schedule
        if packed and (compile is not False or not model.packable):
            why = "compile= has kernels of its own" if compile is not False else f"{model.source} runs padded"
            raise ValueError(f"packed=True: {why}; leave packed= out.")
        self.cached, self.group_tokens, self.packed = cached, group_tokens, packed
        self.stale = False  # whether training goes on with other data than those of the epoch under way
        self._passed_over = False  # whether the batch under way is of data that were replaced
        self._restored: Mapping[str, Any] = {}  # the checkpoint that is gone on from, until training begins
        self._made: Sequence[Sequence[Mapping[str, Any]]] = ()  # groups of the optimisers as they were made
        if gradient_checkpointing:
            own = {"context_fn": partial(again, self.model.backbone)} if compile is False else {}  # else it has kernels
            self.model.backbone.gradient_checkpointing_enable({"use_reentrant": False, **own})
        if lora is not None:
            adapt(self.model, lora)
        if compile is not False:
            self.model.backbone.compile(**{"dynamic": True, **({} if compile is True else compile)})
        self._optimizer: Callable[[Any], torch.optim.Optimizer] | None = None
        self._whole: tuple[Any, ...] = ()  # a copy, hidden from torch, where weights are spread
        self.found: Any = None  # the run of the dataset under way, where it was made before
        self.retriever: Any = None  # of the index that is searched

    @property
    def config(self) -> BiEncoderConfig | CrossEncoderConfig:
        """The model's configuration."""
        return self.model.config

    def score(self, queries: str | Sequence[str], docs: Sequence[str] | Sequence[Sequence[str]]) -> Output:
        """Scores of one query's documents, or of several queries with as many documents each; without gradients.

        >>> CrossEncoderModule("webis/monoelectra-base").score("a query", ["a", "b"]).scores  # doctest: +SKIP
        tensor([1.2345, 0.1234])
        """
        one = isinstance(queries, str)
        rows = cast("list[str]", [queries] if one else list(queries))
        lists = cast("list[list[str]]", [list(docs)] if one else [list(own) for own in docs])
        if len(rows) != len(lists) or len({len(own) for own in lists}) > 1:
            raise ValueError(f"{len(rows)} queries have lists of {[len(own) for own in lists]} documents.")
        training = self.model.training
        engine = Engine(self.model.eval(), device=str(self.device), precision="float32")
        flat = [query for query, own in zip(rows, lists, strict=True) for _ in own]
        groups = [number for number, own in enumerate(lists) for _ in own]
        found = torch.from_numpy(engine.score(flat, [doc for own in lists for doc in own], lists=groups))
        self.model.train(training)
        return Output(found if one else found.view(len(rows), -1))

    def scored(self, batch: RankBatch) -> Scored:
        """A batch behind the model, with gradients."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Dropout on; freeze what no score depends on, such as BERT's pooler, which DDP would wait for."""
        self._restored = {}
        if stage == "fit":
            check_targets([loss for loss, *_ in self.losses], getattr(self.trainer, "datamodule", None))
            state = torch.get_rng_state()
            self.scored(RankBatch(["a query"], [["a document", "another one"]])).scores.sum().backward()
            torch.set_rng_state(state)
            for parameter in self.model.parameters():
                parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
                parameter.grad = None
            self.model.train()  # here, so that Lightning's summary says so

    def configure_model(self) -> None:
        """Spread the weights over the processes, where the trainer's strategy is Lightning's ModelParallelStrategy."""
        if self._device_mesh is not None and not is_sharded(self.model):
            self._whole = (shard(self.model, self._device_mesh["data_parallel"]),)

    def whole(self) -> BiEncoderModel | CrossEncoderModel:
        """The model; where its weights are spread over processes a copy, which every process has to ask for."""
        return whole(self.model, *self._whole) if self._whole else self.model

    @property
    def tokens(self) -> int | None:
        """Most tokens of a group; with spread weights all are one, as processes take the same number of steps."""
        return 1 << 40 if self._whole else self.group_tokens

    def on_train_start(self) -> None:
        """Every layer on PyTorch's kernels, as shortcuts have no gradients."""
        keep_freed_memory()
        self.model.plain = True

    def on_train_end(self) -> None:
        """Back to inference, with weights that are told apart from those before."""
        self.model.plain = False
        self.model.eval()
        if isinstance(self.model, BiEncoderModel):
            self.model.fingerprint = fingerprint_of(merged(self.whole()))

    def on_train_epoch_start(self) -> None:
        """The data are those of this epoch, also where they were replaced at the end of the last."""
        self.stale = False

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> int | None:
        """End the epoch where its data have been replaced."""
        self._passed_over, self.stale = self.stale, False
        return -1 if self._passed_over else None

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step, but not for a batch that was passed over."""
        interval = next(one.interval for one in self.trainer.lr_scheduler_configs if one.scheduler is scheduler)
        if not (self._passed_over and interval == "step"):
            super().lr_scheduler_step(scheduler, metric)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """The weighted sum of the losses of a batch; each is logged by its class, the second of a class with `_2`.

        Raises:
            FloatingPointError: if it is NaN or infinite.
        """
        if not self.losses:
            raise ValueError("Nothing to train for: give loss_functions=[...].")
        scored = self.scored(batch)
        if self.trainer.global_step == 0:
            scored.warn_of_equal_targets()
        total = scored.scores.new_zeros(())
        names = numbered([type(loss).__name__ for loss, *_ in self.losses], "_")
        for name, (loss, weight, schedule) in zip(names, self.losses, strict=True):
            value = loss(scored)
            factor = 1.0 if schedule is None else schedule(self.trainer.global_step, self.steps)
            total = total + weight * factor * value
            self.log(name, value.detach(), batch_size=len(batch.queries))
        if not torch.isfinite(total):
            ids = ", ".join(map(str, (batch.query_ids or batch.queries)[:8]))
            raise FloatingPointError(
                f"The loss is {float(total.detach())} in batch {batch_idx} of epoch {self.current_epoch} (queries "
                f"{ids}). The last checkpoint is kept; try a lower learning rate, or bf16 instead of fp16."
            )
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(batch.queries))
        return total

    def _by_the_engine(self) -> Any:
        """Without autocast: the engine has a precision of its own, and vectors are compared in float32."""
        return torch.autocast(self.device.type, enabled=False)

    def on_validation_epoch_start(self) -> None:
        """Collect rankings anew, by the model as it is used for inference."""
        self._plain, self.model.plain = self.model.plain, False
        precision: Any = "bf16" if str(self.trainer.precision).startswith("bf16") else "float32"
        self._engine = Engine(self.whole().eval(), device=str(self.device), precision=precision)
        self._rescored: dict[int, Rescored] = {}

    def validation_step(self, batch: RankBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score the rankings of a batch."""
        if self.evaluation_metrics:
            with self._by_the_engine():
                self._rescored.setdefault(dataloader_idx, Rescored(self._engine)).add(batch)

    def on_validation_epoch_end(self) -> None:
        """Log each measure of each dataset, as `DATASET/MEASURE`."""
        loaders = self.trainer.val_dataloaders
        names = numbered([name_of(one.dataset) for one in loaders or ()])
        for number, rescored in sorted(self._rescored.items()):
            for measure, value in rescored.measured(self.evaluation_metrics).items():
                self.log(f"{names[number]}/{measure}", value, prog_bar=True)
        self.model.plain = self._plain
        del self._engine, self._rescored

    def on_test_start(self) -> None:
        """Refuse measures where there are no judgements, before any work is done.

        Raises:
            ValueError: naming the dataset.
        """
        self.found = self.retriever = None
        self.measured: dict[str, dict[str, float]] = {}
        for dataset in getattr(self.trainer, "datamodule").inference_datasets:  # noqa: B009 - Lightning says nothing of it
            ranked = isinstance(dataset, (QueryDataset, RunDataset))
            if ranked and self.evaluation_metrics and judgements_of(dataset) is None:
                raise ValueError(
                    f"evaluation_metrics={list(self.evaluation_metrics)}: {name_of(dataset)} has no relevance "
                    "judgements; leave evaluation_metrics out, or give qrels."
                )

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Search or re-rank a whole dataset, and measure the run; `IndexCallback` indexes.

        Raises:
            ValueError: for queries without an index to search.
        """
        found, self.found = self.found, None
        if isinstance(batch, RunDataset):
            with self._by_the_engine():
                run = everyones(re_rank(engine_of(self), batch)) if found is None else found
        elif isinstance(batch, QueryDataset):
            if self.retriever is None:
                raise ValueError("Queries are searched in an index: add a SearchCallback to the trainer.")
            own = list(batch)
            ids, queries = [one.query_id for one in own], [one.query for one in own]
            with self._by_the_engine():
                run = everyones(search(engine_of(self), self.retriever, ids, queries)) if found is None else found
        else:
            return {}
        if self.evaluation_metrics:
            values = measured(run, cast("pd.DataFrame", judgements_of(batch)), self.evaluation_metrics)
            self.measured[name_of(batch)] = values
            for name, value in values.items():
                self.log(f"{name_of(batch)}/{name}", value, batch_size=1, rank_zero_only=False, sync_dist=False)
        return {"run": run}

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return max(1, steps_of(self.trainer))

    def set_optimizer(self, optimizer: type[torch.optim.Optimizer], **settings: Any) -> Self:
        """Take another optimiser than AdamW, over all parameters, at a constant rate."""
        self._optimizer = partial(optimizer, **settings)
        return self

    def configure_optimizers(self) -> Any:
        """AdamW, without weight decay for biases and norms; the head may learn faster than the backbone."""
        if self._optimizer is not None:
            return self._optimizer(self.parameters())
        optimizer = torch.optim.AdamW(self._groups(), lr=self.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.over(self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        head = {id(p) for p in head_of(self.model)}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                own_rate = self.head_learning_rate if id(parameter) in head else None
                rate = self.learning_rate if own_rate is None else own_rate
                decay = self.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        return [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what kind of model it is."""
        checkpoint |= {"config": self.config.to_dict(), "backbone": shape_of(self.model.backbone)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another backbone or configuration.

        Raises:
            ValueError: naming the settings that differ.
        """
        for name, own in (("backbone", shape_of(self.model.backbone)), ("config", self.config.to_dict())):
            refuse_other(checkpoint.get(name, own), own, "Another model has other weights.")
        if self._trainer is None or not self.trainer.training:
            return
        if self.trainer.strategy.restore_checkpoint_after_setup:  # whose optimisers are restored already
            refuse_other_optimizers(checkpoint, self._made)
        else:
            self._restored = checkpoint

    def on_fit_start(self) -> None:
        """Refuse to go on with another optimiser than the checkpoint's, before its state is loaded.

        Raises:
            ValueError: naming the settings that differ.
        """
        restored, self._restored = self._restored, {}
        self._made = [[dict(group) for group in one.param_groups] for one in self.trainer.optimizers]
        refuse_other_optimizers(restored, self._made)

    def save_pretrained(self, folder: str | os.PathLike[str], layout: Layout | None = None) -> None:
        """Write a folder that `LIRReRanker` and `LIRBiEncoder` open; adapters are merged into the weights.

        Args:
            layout: which other library opens it too: "Lightning IR" or "sentence-transformers"; None for the former
                where it has the model type.
        """
        merged(self.whole()).save_pretrained(folder, layout)


def numbered(names: Sequence[str], mark: str = " ") -> list[str]:
    """Names that tell all apart, of which several may be the same.

    >>> numbered(["the run", "vaswani", "the run"])
    ['the run', 'vaswani', 'the run 2']
    """
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}{mark}{seen[name]}")
    return out


def _weighted(loss: Any) -> tuple[Loss, float, Schedule | None]:
    given = loss if isinstance(loss, tuple) else (loss,)
    if isinstance(given[0], type) or not callable(given[0]):
        raise TypeError(f"{loss!r} is no loss; give an instance such as {InBatchCrossEntropy()!r}.")
    return (*given, 1.0, None)[:3] if len(given) < 2 else (*given, None)[:3]


def needs_scores(loss: Any) -> bool:
    """Whether a loss, perhaps with its weight, is of a teacher's scores."""
    loss = loss[0] if isinstance(loss, tuple) else loss
    return bool(getattr(getattr(loss, "loss", loss), "needs_scores", False))


def check_targets(losses: Sequence[Loss], data: Any) -> None:
    """Refuse losses over a teacher's scores where the data has labels or an order only.

    Raises:
        ValueError: naming the loss.
    """
    dataset = getattr(data, "train_dataset", None)
    targets = getattr(dataset, "targets", "score")
    for loss in losses:
        if targets not in ("score", "rank", None) and needs_scores(loss):
            raise ValueError(
                f"{loss!r} needs a teacher's scores, but the training dataset has targets={targets!r}. Take data with "
                "scores (targets='score'), or a loss of orders such as RankNet."
            )
