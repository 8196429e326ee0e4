"""Lightning modules: a model, what it is trained for, and how its weights move."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning import LightningModule
from torch import Tensor, distributed, nn
from typing_extensions import Self

from ..config import BiEncoderConfig, CrossEncoderConfig
from ..data.samples import RankBatch, TrainBatch
from ..engine import Engine
from ..memory import keep_freed_memory
from ..models import BiEncoderModel, CrossEncoderModel, Layout
from .across_ranks import gathered, gathered_ids
from .adapters import adapt, merged
from .cpu_functions import again
from .forward import TextVectors, encode, score_pairs
from .objectives import InBatchCrossEntropy
from .schedules import Schedule
from .scored import Loss, Scored
from .sharded import is_sharded, shard, whole
from .similarity import own_scores
from .validation import Rescored, measures_of

LossFunctions = Sequence["Loss | tuple[Loss, float] | tuple[Loss, float, Schedule]"]


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
        self.cached, self.group_tokens = cached, group_tokens
        self.stale = False  # whether training goes on with other data than those of the epoch under way
        if gradient_checkpointing:
            self.model.backbone.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})
        if lora is not None:
            adapt(self.model.backbone, lora)
        if compile is not False:
            self.model.backbone.compile(**{"dynamic": True, **({} if compile is True else compile)})
        self._optimizer: Callable[[Any], torch.optim.Optimizer] | None = None
        self._whole: tuple[Any, ...] = ()  # a copy, hidden from torch, where weights are spread

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
        """Freeze what no score depends on, such as BERT's pooler, which DDP would wait for."""
        if stage == "fit":
            check_targets([loss for loss, *_ in self.losses], getattr(self.trainer, "datamodule", None))
            state = torch.get_rng_state()
            self.scored(RankBatch(["a query"], [["a document", "another one"]])).scores.sum().backward()
            torch.set_rng_state(state)
            for parameter in self.model.parameters():
                parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
                parameter.grad = None

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
        """Dropout on; every layer on PyTorch's kernels, as shortcuts have no gradients."""
        keep_freed_memory()
        self.model.train()
        self.model.plain = True

    def on_train_end(self) -> None:
        """Back to inference."""
        self.model.plain = False
        self.model.eval()

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> int | None:
        """End the epoch where its data have been replaced."""
        stale, self.stale = self.stale, False
        return -1 if stale else None

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """The weighted sum of the losses of a batch; each is logged.

        Raises:
            FloatingPointError: if it is NaN or infinite.
        """
        if not self.losses:
            raise ValueError("Nothing to train for: give loss_functions=[...].")
        scored = self.scored(batch)
        if self.trainer.global_step == 0:
            scored.warn_of_equal_targets()
        total = scored.scores.new_zeros(())
        for loss, weight, schedule in self.losses:
            value = loss(scored)
            factor = 1.0 if schedule is None else schedule(self.trainer.global_step, self.steps)
            total = total + weight * factor * value
            self.log(type(loss).__name__, value.detach(), batch_size=len(batch.queries))
        if not torch.isfinite(total):
            ids = ", ".join(map(str, (batch.query_ids or batch.queries)[:8]))
            raise FloatingPointError(
                f"The loss is {float(total.detach())} in batch {batch_idx} of epoch {self.current_epoch} (queries "
                f"{ids}). The last checkpoint is kept; try a lower learning rate, or bf16 instead of fp16."
            )
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(batch.queries))
        return total

    def on_validation_epoch_start(self) -> None:
        """Collect rankings anew, by the model as it is used for inference."""
        self._plain, self.model.plain = self.model.plain, False
        precision: Any = "bf16" if str(self.trainer.precision).startswith("bf16") else "float32"
        self._engine = Engine(self.whole().eval(), device=str(self.device), precision=precision)
        self._rescored: dict[int, Rescored] = {}

    def validation_step(self, batch: RankBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score the rankings of a batch."""
        if self.evaluation_metrics:
            self._rescored.setdefault(dataloader_idx, Rescored(self._engine)).add(batch)

    def on_validation_epoch_end(self) -> None:
        """Log each measure of each dataset, as `DATASET/MEASURE`."""
        loaders = self.trainer.val_dataloaders
        names = [Path(str(getattr(one.dataset, "name", i))).name for i, one in enumerate(loaders or ())]
        for number, rescored in sorted(self._rescored.items()):
            for measure, value in rescored.measured(self.evaluation_metrics).items():
                self.log(f"{names[number]}/{measure}", value, prog_bar=True)
        self.model.plain = self._plain
        del self._engine, self._rescored

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return max(1, int(self.trainer.estimated_stepping_batches))

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
        backbone = {id(p) for p in self.model.backbone.parameters()}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                own_rate = None if id(parameter) in backbone else self.head_learning_rate
                rate = own_rate or self.learning_rate
                decay = self.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        return [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what kind of model it is."""
        checkpoint["config"] = self.config.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another configuration.

        Raises:
            ValueError: naming the settings that differ.
        """
        saved, own = checkpoint.get("config"), self.config.to_dict()
        if saved is not None and saved != own:
            other = [f"{name}={saved.get(name)!r} (now {own.get(name)!r})" for name in sorted({*saved, *own})
                     if saved.get(name) != own.get(name)]  # fmt: skip
            raise ValueError(f"The checkpoint was written with another configuration: {', '.join(other)}.")

    def save_pretrained(self, folder: str | os.PathLike[str], layout: Layout | None = None) -> None:
        """Write a folder that `LIRReRanker` and `LIRBiEncoder` open; adapters are merged into the weights.

        Args:
            layout: which other library opens it too: "Lightning IR" or "sentence-transformers"; None for the former
                where it has the model type.
        """
        merged(self.whole()).save_pretrained(folder, layout)


class BiEncoderModule(RankingModule):
    """A bi-encoder to be trained.

    Args:
        model_name_or_path: a checkpoint, or a backbone alone.
        config: makes a new model on the backbone; None keeps what the checkpoint is.
        model: a loaded model instead.
        loss_functions: losses, or (loss, weight), or (loss, weight, schedule of the weight).
        evaluation_metrics: names that ir_measures knows, for validation.
        model_kwargs: of `BiEncoderModel.from_pretrained`.
        learning_rate, head_learning_rate, weight_decay: of AdamW, and of the layers on top of the backbone.
        schedule: of the learning rates.
        cached: gradient caching: memory of one group of texts, for a third more computation.
        group_tokens: most tokens of texts that are encoded at once; see `training.forward`.
        gradient_checkpointing: whether each layer of the backbone is computed again in the backward pass.
        lora: a `peft.LoraConfig`, or its arguments as a dict: the backbone's own weights stay as they are, and what is
            saved has the adapters merged into them.
        compile: whether the backbone is compiled, or arguments of `torch.compile`.

    Raises:
        ImportError: for `lora=` without the package peft.
        ValueError: if neither or both of a name and a model are given.
    """

    MODEL, CONFIG = BiEncoderModel, BiEncoderConfig
    model: BiEncoderModel

    def scored(self, batch: RankBatch) -> Scored:
        """See `RankingModule.scored`; vectors of all processes come together where losses look at other queries."""
        flat, targets, mask = _filled(batch)
        queries, docs = self._encoded(list(batch.queries), True), self._encoded(flat, False)
        found = Scored(own_scores(queries, docs), queries=queries, docs=docs, query_ids=batch.query_ids,
                       doc_ids=batch.doc_ids, texts=(batch.queries, flat))  # fmt: skip
        found.targets, found.mask = (None if one is None else one.to(found.scores.device) for one in (targets, mask))
        alone = not (distributed.is_available() and distributed.is_initialized())
        if not alone and any(_in_batch(loss) for loss, *_ in self.losses):
            found.others, found.other_ids = gathered(docs), gathered_ids(batch.doc_ids, len(flat))
        return found

    def _encoded(self, texts: list[str], query: bool) -> list[TextVectors]:
        return encode(self.model, texts, query, self.cached, self.tokens)


class CrossEncoderModule(RankingModule):
    """A cross-encoder to be trained; arguments are those of `BiEncoderModule`.

    It is trained on its logits, before any activation of the checkpoint.
    """

    MODEL, CONFIG = CrossEncoderModel, CrossEncoderConfig
    model: CrossEncoderModel

    def scored(self, batch: RankBatch) -> Scored:
        """See `RankingModule.scored`."""
        flat, targets, mask = _filled(batch)
        width = len(flat) // len(batch.queries)
        lists = [flat[i : i + width] for i in range(0, len(flat), width)]
        scores = score_pairs(self.model, list(batch.queries), lists, self.cached, self.tokens, raw=True).view(-1, width)
        targets, mask = (None if one is None else one.to(scores.device) for one in (targets, mask))
        return Scored(scores, targets, mask, query_ids=batch.query_ids, doc_ids=batch.doc_ids)


def _weighted(loss: Any) -> tuple[Loss, float, Schedule | None]:
    given = loss if isinstance(loss, tuple) else (loss,)
    if isinstance(given[0], type) or not callable(given[0]):
        raise TypeError(f"{loss!r} is no loss; give an instance such as {InBatchCrossEntropy()!r}.")
    return (*given, 1.0, None)[:3] if len(given) < 2 else (*given, None)[:3]


def check_targets(losses: Sequence[Loss], data: Any) -> None:
    """Refuse losses over a teacher's scores where the data has labels or an order only.

    Raises:
        ValueError: naming the loss.
    """
    dataset = getattr(data, "train_dataset", None)
    targets = getattr(dataset, "targets", "score")
    for loss in losses:
        if targets not in ("score", "rank", None) and getattr(getattr(loss, "loss", loss), "needs_scores", False):
            raise ValueError(
                f"{loss!r} needs a teacher's scores, but the training dataset has targets={targets!r}. Take data with "
                "scores (targets='score'), or a loss of orders such as RankNet."
            )


def _in_batch(loss: Loss) -> bool:
    return isinstance(getattr(loss, "loss", loss), InBatchCrossEntropy)


def _filled(batch: RankBatch) -> tuple[list[str], Tensor | None, Tensor | None]:
    """All documents, as many for each query; their targets (Q, D); and which of them are there (Q, D)."""
    lengths = [len(own) for own in batch.docs]
    width = max(lengths)
    docs = [doc for own in batch.docs for doc in (*own, *[""] * (width - len(own)))]
    targets = getattr(batch, "targets", None)
    if targets is not None:
        flat = targets.amax(-1) if targets.ndim > 1 else targets  # the best of a document's subtopics
        targets = nn.utils.rnn.pad_sequence(list(flat.float().split(lengths)), batch_first=True)
    if min(lengths) == width:
        return docs, targets, None
    return docs, targets, torch.arange(width) < torch.tensor(lengths)[:, None]
