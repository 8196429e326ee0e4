"""Schedulers under Lightning IR's names: of learning rates, and of the weights inside losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from lightning import Callback, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .schedules import Rise, Schedule


class ConstantLRSchedulerWithLinearWarmup(LambdaLR):
    """A learning rate that rises over so many steps, and stays.

    Args:
        optimizer: whose learning rates are scaled.
        num_warmup_steps: steps in which they rise.
        num_training_steps: not needed; the command line gives it.
        num_delay_steps: steps at 0 before.
    """

    interval = "step"

    def __init__(
        self, optimizer: Optimizer, num_warmup_steps: int = 0, num_training_steps: int = -1, num_delay_steps: int = 0
    ) -> None:
        warmup = Schedule("constant", warmup=num_warmup_steps)
        super().__init__(optimizer, lambda step: delayed(warmup, step, num_delay_steps, 1))


class LinearLRSchedulerWithLinearWarmup(LambdaLR):
    """A learning rate that rises over so many steps, and then falls until the last.

    Args:
        optimizer: whose learning rates are scaled.
        num_warmup_steps: steps in which they rise.
        num_training_steps: the last step; on the command line it is the trainer's `max_steps`.
        final_value: what they fall to, as a share of the largest.
        num_delay_steps: steps at 0 before.
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        num_warmup_steps: int = 0,
        num_training_steps: int = -1,
        final_value: float = 0.0,
        num_delay_steps: int = 0,
    ) -> None:
        if num_training_steps < 1:
            raise ValueError(f"num_training_steps={num_training_steps}; allowed: 1 or more, as trainer.max_steps.")
        shape = Schedule("linear", warmup=num_warmup_steps)

        def factor(step: int) -> float:
            value = delayed(shape, step, num_delay_steps, num_training_steps)
            return value if step < num_warmup_steps + num_delay_steps else final_value + (1 - final_value) * value

        super().__init__(optimizer, factor)


LR_SCHEDULERS = (ConstantLRSchedulerWithLinearWarmup, LinearLRSchedulerWithLinearWarmup)


def delayed(schedule: Schedule, step: int, delay: int, steps: int) -> float:
    """The factor of a schedule that begins after a delay."""
    return 0.0 if step < delay else schedule(step - delay, max(1, steps - delay))


class GenericConstantSchedulerWithLinearWarmup(Callback):
    """Scales settings of losses over the steps of training: they rise to their values, and stay.

    Args:
        keys: such as `loss_functions.1.query_weight`: the setting of the second loss.
        num_warmup_steps: steps in which they rise.
        num_delay_steps: steps at 0 before.

    Raises:
        ValueError: before training, for keys that name no number of a loss.
    """

    RISE: Rise = "linear"

    def __init__(self, keys: Sequence[str], num_warmup_steps: int, num_delay_steps: int = 0) -> None:
        self.keys, self.num_delay_steps = tuple(keys), num_delay_steps
        self.schedule = Schedule("constant", warmup=num_warmup_steps, rise=self.RISE)
        self._values: dict[tuple[int, str], float] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Remember the values."""
        self._values = {place: _setting(pl_module.losses, *place) for place in map(_place, self.keys)}

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Set them for the step."""
        factor = delayed(self.schedule, trainer.global_step, self.num_delay_steps, 1)
        self._set(pl_module.losses, factor)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Set them back."""
        self._set(pl_module.losses, 1.0)
        self._values = {}

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Set them back where training ends early."""
        self.on_train_end(trainer, pl_module)

    def _set(self, losses: list[Any], factor: float) -> None:
        for (number, name), value in self._values.items():
            loss, *rest = losses[number]
            losses[number] = (replace(loss, **{name: factor * value}), *rest)


class GenericConstantSchedulerWithQuadraticWarmup(GenericConstantSchedulerWithLinearWarmup):
    """As `GenericConstantSchedulerWithLinearWarmup`, but rising quadratically, as SPLADE's regularisation does."""

    RISE: Rise = "quadratic"


def _place(key: str) -> tuple[int, str]:
    parts = key.split(".")
    if len(parts) != 3 or parts[0] != "loss_functions" or not parts[1].isdigit():
        raise ValueError(f"key {key!r}; allowed: loss_functions.NUMBER.SETTING, such as loss_functions.1.query_weight.")
    return int(parts[1]), parts[2]


def _setting(losses: Sequence[Any], number: int, name: str) -> float:
    if number >= len(losses):
        raise ValueError(f"loss_functions.{number}: there are {len(losses)} losses, counted from 0.")
    loss = losses[number][0]
    value = getattr(loss, name, None)
    if not isinstance(value, (int, float)):
        numbers = [field.name for field in fields(loss) if isinstance(getattr(loss, field.name), (int, float))]
        raise ValueError(f"loss_functions.{number}.{name}: no number of {loss!r}; it has: {', '.join(numbers)}.")
    return float(value)
