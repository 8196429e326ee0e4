"""What all transformers with a model in them share: settings, loading at the first use, equality, repr, drawing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyterrier as pt

from ..columns import transform_iter
from ..config import PRECISIONS, Precision
from ..display import Drawn
from .settings import checked

if TYPE_CHECKING:
    from ..engine import Engine, Model
    from .trainable import Trainable

_LOADING_LOCK = RLock()  # one thread loads at a time: transformers changes torch's defaults while it does
_LABEL_LENGTH = 19  # PyTerrier's schematics want less than 20 characters


@dataclass(unsafe_hash=True, repr=False)
class ModelTransformer(Drawn, pt.Transformer):
    """A transformer that is told apart by its settings; the model is loaded at the first use and never pickled.

    Threads may share one: it is loaded once, and they take turns at its forward passes.
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
    token_ids: bool = False
    revision: str | None = None
    trust_remote_code: bool = False
    _loaded: Any = field(default=None, init=False, compare=False)

    # settings that can change without another engine
    _FREE: ClassVar[tuple[str, ...]] = ("text_field", "query_field", "verbose", "token_ids")
    # settings that `load_model` takes, and those that change a loaded model
    _LOADING: ClassVar[tuple[str, ...]] = ("revision", "trust_remote_code")
    _CHANGING: ClassVar[tuple[str, ...]] = ("max_length",)

    def __post_init__(self) -> None:
        """Refuse at once what no model could make right."""
        self._check()

    def _check(self) -> None:
        """Check the settings; done again before loading, as a grid search sets them later."""
        for own in dataclasses.fields(self)[1:]:
            if own.init:
                setattr(self, own.name, checked(own.name, getattr(self, own.name)))
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}; allowed: {', '.join(PRECISIONS)}.")
        if not isinstance(self.model, (str, os.PathLike)):
            if not hasattr(self.model, "backbone"):
                raise TypeError(f"model={self.model!r}; allowed: a hub id, a folder, or a loaded model.")
            if late := [name for name in self._chosen() if name in self._LOADING and name != "trust_remote_code"]:
                raise ValueError(f"{late[0]}={getattr(self, late[0])!r} is for loading, and {self.model!r} is loaded; "
                                 "give it to load_model.")  # fmt: skip

    transform_iter = transform_iter

    def engine(self) -> Engine:
        """The engine of the present settings; the model is loaded at most once for each of them.

        Raises:
            ValueError, FileNotFoundError: for what `checkpoints.load` and `Engine` refuse.
        """
        engine: Engine = kept(self, "_loaded", self._settings(), self._load)
        engine.verbose = self.verbose
        return engine

    def trainable(self, folder: str | os.PathLike[str], **training: Any) -> Trainable:
        """The same model, to be fitted in its place in a pipeline and written to a folder.

        Args:
            folder: where the trained model is written.
            training: arguments of `Trainable`, such as `loss_functions`, `trainer`, or `index` and `corpus`.

        >>> from pyterrier_lir import LIRReRanker
        >>> LIRReRanker("webis/monoelectra-base").trainable("my-reranker", max_epochs=2)
        Trainable('webis/monoelectra-base', 'my-reranker')
        """
        from .trainable import Trainable

        return Trainable(cast("Any", self.model), folder, **self._chosen(), **training)

    def _chosen(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        fields = [field for field in dataclasses.fields(self)[1:] if field.init]
        return {own.name: getattr(self, own.name) for own in fields if getattr(self, own.name) != own.default}

    def _load(self) -> Engine:
        from ..engine import Engine
        from ..models import load_model
        from ..precision import dtype_of, resolve_device, resolve_precision

        self._check()
        if self.revision is not None and os.path.isdir(cast("str", self.model)):
            raise ValueError(f"revision={self.revision!r}: {self.model} is a folder here, which has one revision only.")
        dtype = dtype_of(resolve_precision(self.precision, resolve_device(self.device)))  # refused before loading
        model = self.model
        if isinstance(model, (str, os.PathLike)):
            model = load_model(model, dtype=dtype, **{name: getattr(self, name) for name in self._LOADING})
        model = self._changed(model)
        return Engine(model, device=self.device, precision=self.precision, batch_size=self.batch_size)

    def _changed(self, model: Model) -> Model:
        """The model with the settings that were given."""
        return model.with_options(**{name: getattr(self, name) for name in self._CHANGING})

    def _settings(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.init and f.name not in self._FREE)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __repr__(self) -> str:
        arguments = [repr(self.model), *(f"{name}={value!r}" for name, value in self._chosen().items())]
        return f"{type(self).__name__}({', '.join(arguments)})"

    def _label(self) -> str:
        return label(self.model)

    def facts(self) -> dict[str, Any]:
        """What the display tells: the model, the settings, and what the model is once it is loaded."""
        facts = {"model": str(getattr(self.model, "source", self.model)), **self._chosen()}
        from ..models.facts import facts_of

        if self._loaded is not None and self._loaded[0] == self._settings():
            engine: Engine = self._loaded[1]
            return {**facts, **facts_of(engine.model), "precision": engine.precision, "device": str(engine.device)}
        if isinstance(self.model, (str, os.PathLike)):
            return {**facts, "weights": "not loaded"}
        return {**facts, **facts_of(self.model)}


def kept(owner: Any, name: str, settings: Any, make: Callable[[], Any]) -> Any:
    """What `owner.name` keeps for these settings, as (settings, thing); made by the first thread that asks for it."""
    found = getattr(owner, name)
    if found is None or found[0] != settings:
        with _LOADING_LOCK:
            found = getattr(owner, name)  # which another thread may have set meanwhile
            if found is None or found[0] != settings:
                found = (settings, make())
                setattr(owner, name, found)
    return found[1]


def label(model: Any) -> str:
    """The last part of a model's name, short enough for a box of a schematic."""
    name = str(getattr(model, "source", model)).rstrip("/").rsplit("/", 1)[-1]
    return name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "…"
