"""Schedules: factors over the steps of training, for learning rates and for the weights of losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Decay = Literal["linear", "cosine", "constant"]
Rise = Literal["linear", "quadratic"]


@dataclass(frozen=True)
class Schedule:
    """A factor that rises from 0 to 1, and then stays or falls to 0.

    Args:
        decay: `linear` and `cosine` fall to 0 at the last step, `constant` stays.
        warmup: how long it rises: steps, or (below 1) a share of all steps.
        rise: `linear`, or `quadratic` as SPLADE's weights of FLOPS do (arXiv:2109.10086, section 3).

    Raises:
        ValueError: for other names, or a negative warm-up.

    >>> [Schedule("linear", warmup=2)(step, 6) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    >>> [Schedule("constant", warmup=0.5, rise="quadratic")(step, 4) for step in range(4)]
    [0.0, 0.25, 1.0, 1.0]
    """

    decay: Decay = "linear"
    warmup: float = 0.0
    rise: Rise = "linear"

    def __post_init__(self) -> None:
        for name, given, allowed in (("decay", self.decay, get_args(Decay)), ("rise", self.rise, get_args(Rise))):
            if given not in allowed:
                raise ValueError(f"{name}={given!r}; allowed: {', '.join(allowed)}.")
        if self.warmup < 0:
            raise ValueError(f"warmup={self.warmup}; allowed: steps, or a share of them between 0 and 1.")

    def __call__(self, step: int, steps: int) -> float:
        """The factor at a step of so many."""
        warmup = round(self.warmup * steps) if self.warmup < 1 else round(self.warmup)
        if step < warmup:
            return float((step / warmup) ** (2 if self.rise == "quadratic" else 1))
        if self.decay == "constant":
            return 1.0
        left = max(0.0, (steps - step) / max(1, steps - warmup))
        return left if self.decay == "linear" else (1 - math.cos(math.pi * left)) / 2

    def over(self, steps: int) -> Callable[[int], float]:
        """The factor as a function of the step, as `torch.optim.lr_scheduler.LambdaLR` takes it."""
        return lambda step: self(step, steps)
