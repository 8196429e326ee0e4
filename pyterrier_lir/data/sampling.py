"""Which documents of a ranking a training step sees: pure functions of arrays.

Each takes the ranks (N,) from 1 on, in rising order, NaN for a relevant document that was not ranked; the relevance
(N,); how many to take; and a generator.  Each returns the places that were taken, in the order to show them in.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Places = NDArray[np.int64]
Strategy = Callable[[Floats, Floats, int, np.random.Generator], Places]


def top(ranks: Floats, relevance: Floats, size: int, rng: np.random.Generator) -> Places:
    """The first of the ranking."""
    return np.arange(min(size, len(ranks)))


def random(ranks: Floats, relevance: Floats, size: int, rng: np.random.Generator) -> Places:
    """Any, each with the same chance."""
    return rng.choice(len(ranks), size, replace=False)


def log_random(ranks: Floats, relevance: Floats, size: int, rng: np.random.Generator) -> Places:
    """Any, with chances that fall as 1 / log(1 + rank); what was not ranked has the lowest of these."""
    weights = 1 / np.log1p(np.asarray(ranks, dtype=np.float64))
    lowest = np.nanmin(weights) if np.isfinite(weights).any() else 1.0
    weights = np.where(np.isnan(weights), lowest, weights)
    return rng.choice(len(ranks), size, replace=False, p=weights / weights.sum())


def single_relevant(ranks: Floats, relevance: Floats, size: int, rng: np.random.Generator) -> Places:
    """One of the relevant first, then ranked documents that are not relevant."""
    relevant = np.flatnonzero(relevance > 0)
    others = np.flatnonzero((relevance <= 0) & ~np.isnan(ranks))
    chosen = rng.choice(others, min(size - 1, len(others)), replace=False)
    return np.concatenate([rng.choice(relevant, 1), chosen])


def top_and_random(ranks: Floats, relevance: Floats, size: int, rng: np.random.Generator) -> Places:
    """The first of the ranking for half of the places, any of the rest for the others."""
    first = size // 2
    rest = rng.choice(np.arange(first, len(ranks)), size - first, replace=False)
    return np.concatenate([np.arange(first), rest])


SAMPLING: dict[str, Strategy] = {
    "top": top,
    "random": random,
    "log_random": log_random,
    "single_relevant": single_relevant,
    "top_and_random": top_and_random,
}


def choose(setting: str, given: object, allowed: tuple[str, ...]) -> str:
    """The value of a setting that has to be one of a few names.

    Raises:
        ValueError: for another; names the nearest.

    >>> choose("sampling_strategy", "log_randm", tuple(SAMPLING))
    Traceback (most recent call last):
    ValueError: sampling_strategy='log_randm'; allowed: top, random, log_random, single_relevant, top_and_random. \
Did you mean 'log_random'?
    """
    if isinstance(given, str) and given in allowed:
        return given
    near = difflib.get_close_matches(str(given), allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{setting}={given!r}; allowed: {', '.join(allowed)}.{hint}")
