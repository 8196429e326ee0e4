"""LIRReRanker: any cross-encoder (or bi-encoder over texts) as a PyTerrier re-ranker."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyterrier as pt

from ..columns import check_results, text_values
from ..config import PRECISIONS, Precision

if TYPE_CHECKING:
    from ..engine import Engine, Model

_LABEL_LENGTH = 19  # PyTerrier's schematics want less than 20 characters


@dataclass(unsafe_hash=True, repr=False)
class LIRReRanker(pt.Transformer):
    """Re-rank results with a cross-encoder, or with a bi-encoder over their texts.

    Reads `qid`, `query`, `docno` and `text`; writes `score` and `rank` and keeps every other column and the order of
    rows.  Equal scores rank in the order of the rows.  Weights are loaded at the first use, not when a pipeline is
    built, drawn or inspected, and are not pickled.

    A listwise model (set-encoder) sees all documents of a query at once.  A list longer than the model's `depth` is
    cut, along its incoming rank (or its rows, if there is none), into the fewest windows of at most `depth`
    documents, as equal in size as can be; each window is scored alone.  Within a window the order does not matter.

    Args:
        model: a hub id, a folder, or a loaded model.
        text_field, query_field: the columns that are read.
        batch_size: rows of a batch; None batches by a budget of tokens, which is faster.  A listwise
            model's lists are never split.
        device: such as `cpu` or `cuda:0`; None takes the GPU if there is one.
        precision: `float32`, `bf16`, `fp16`, `int8`, or `auto` (float32 on CPU, bf16 on CUDA).
        max_length: most tokens of a pair (of a text, for bi-encoders), None for the model's own limit.
        verbose: show a progress bar.
        template: how a generative model is asked, where its files do not say; see `checkpoints.load`.
        instruction: the task that a generative model is told, None for its own.
        activation: what the score goes through, such as `"Identity"` for raw logits; None for the model's own.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether Python files of the checkpoint may run.

    Raises:
        ValueError, FileNotFoundError: at the first use, for what `checkpoints.load` and `Engine` refuse.
        pt.validate.InputValidationError: for missing columns.

    >>> LIRReRanker("webis/monoelectra-base", batch_size=32)
    LIRReRanker('webis/monoelectra-base', batch_size=32)
    """

    model: str | os.PathLike[str] | Model
    _: KW_ONLY
    text_field: str = "text"
    query_field: str = "query"
    batch_size: int | None = None
    device: str | None = None
    precision: Precision = "auto"
    max_length: int | None = None
    verbose: bool = False
    template: str | None = None
    instruction: str | None = None
    activation: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    _loaded: Any = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse at once what no model could make right."""
        for name in ("batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name}={value!r}; allowed: a positive number, or None.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}; allowed: {', '.join(PRECISIONS)}.")
        if not isinstance(self.model, (str, os.PathLike)) and not hasattr(self.model, "backbone"):
            raise TypeError(f"model={self.model!r}; allowed: a hub id, a folder, or a loaded model.")

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Score each row's query and document, and rank anew within each query."""
        check_results(inp, {"query": self.query_field, "text": self.text_field}, self)
        if inp.empty:
            return ranked(inp.assign(score=pd.Series(dtype=float)))
        queries, docs = (text_values(inp, column) for column in (self.query_field, self.text_field))
        engine = self._engine()
        depth = getattr(engine.model.config, "depth", None)
        scores = engine.score(queries, docs, None if depth is None else windows(inp, depth))
        return ranked(inp.assign(score=scores.astype(np.float64)))

    def transform_iter(self, inp: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """As `transform`, on dictionaries."""
        rows = list(inp)
        out: list[Any] = self.transform(pd.DataFrame(rows)).to_dict(orient="records") if rows else []
        return iter(out)

    def _engine(self) -> Engine:
        """The engine of the present settings; the model is loaded at most once for each of them."""
        if self._loaded is None or self._loaded[0] != self._settings():
            self._loaded = (self._settings(), self._load())
        engine: Engine = self._loaded[1]
        engine.verbose = self.verbose
        return engine

    def _load(self) -> Engine:
        from ..engine import Engine, resolve_device
        from ..models import load_model
        from ..precision import dtype_of, resolve_precision

        dtype = dtype_of(resolve_precision(self.precision, resolve_device(self.device)))  # refused before loading
        model = self.model
        if isinstance(model, (str, os.PathLike)):
            model = load_model(
                model,
                dtype=dtype,
                template=self.template,
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
            )
        model = model.with_options(max_length=self.max_length, instruction=self.instruction, activation=self.activation)
        return Engine(model, device=self.device, precision=self.precision, batch_size=self.batch_size)

    def _settings(self) -> tuple[Any, ...]:
        free = ("text_field", "query_field", "verbose")  # can change without another engine
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.init and f.name not in free)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __repr__(self) -> str:
        changed = [f for f in dataclasses.fields(self)[1:] if f.init and getattr(self, f.name) != f.default]
        arguments = [repr(self.model), *(f"{f.name}={getattr(self, f.name)!r}" for f in changed)]
        return f"LIRReRanker({', '.join(arguments)})"

    def schematic(self, *, input_columns: list[str] | None = None) -> dict[str, Any]:
        """How `pt.schematic` draws the transformer: the last part of the model's name."""
        name = str(getattr(self.model, "source", self.model)).rstrip("/").rsplit("/", 1)[-1]
        label = name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "…"
        return {"label": label, "name": repr(self), "help_url": None}


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `rank` by falling score within each query."""
    out: pd.DataFrame = pt.model.add_ranks(frame)
    return out


def windows(frame: pd.DataFrame, depth: int) -> np.ndarray:
    """Number the lists that a listwise model sees: one for each query, or more for one with over `depth` documents.

    >>> frame = pd.DataFrame({"qid": ["a"] * 5 + ["b"], "docno": list("vwxyzv"), "rank": [4, 3, 2, 1, 0, 0]})
    >>> windows(frame, 4).tolist()
    [1, 1, 0, 0, 0, 2]
    """
    queries = pd.factorize(frame["qid"])[0]
    by = frame["rank"].to_numpy() if "rank" in frame.columns else np.arange(len(frame))
    order = np.lexsort((by, queries))
    counts = np.bincount(queries)
    place = np.empty(len(frame), dtype=np.int64)
    place[order] = np.arange(len(frame)) - np.repeat(np.cumsum(counts) - counts, counts)
    parts = -(-counts // depth)
    window = place * parts[queries] // counts[queries]
    return (np.cumsum(parts) - parts)[queries] + window  # type: ignore[no-any-return]
