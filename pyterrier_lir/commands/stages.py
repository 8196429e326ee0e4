"""The stages that an experiment's pipelines are made of: a table from a name to a function of its settings.

A stage in YAML is a name (`text`), a name with its first setting (`cutoff: 50`), a name with settings
(`reranker: {model: FOLDER, precision: bf16}`), or any transformer (`class_path: package.Class`, `init_args: {...}`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyterrier as pt

from ..config import Kind, Precision
from ..data.source_kinds import Source
from ..pipeline import LIRIndexer, LIRReRanker, LIRRetriever
from .arguments import checked
from .config_errors import ConfigError, did_you_mean
from .runs import read_run

Keys = tuple[str | int, ...]
MISTAKES = (ValueError, TypeError, KeyError, ImportError, OSError, AttributeError)


@dataclass
class Collection:
    """What stages are made over.

    Attributes:
        source: queries, documents and judgements.
        indexes: folder of indexes that stages build for themselves.
        made: stages by their settings, so that systems share them.
    """

    source: Source
    indexes: Path
    made: dict[str, pt.Transformer] = field(default_factory=dict)

    def topics(self) -> pd.DataFrame:
        """The queries as `qid`, `query`."""
        return pd.DataFrame(list(self.source.queries.items()), columns=["qid", "query"])

    def corpus(self) -> Any:
        """The documents as dictionaries."""
        return ({"docno": docno, "text": text} for docno, text in self.source.docs.stretch(0, None))


@dataclass(frozen=True, eq=False)
class Texts(pt.Transformer):
    """Adds `text` to results."""

    source: Source
    fields: tuple[str, ...] | None

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The frame with the documents' texts."""
        with pt.validate.any(inp, context=self) as check:
            check.columns(includes=["docno"])
        texts = self.source.docs if self.fields is None else self.source.documents(self.fields)
        return inp.assign(text=pd.Series(texts.lookup(inp["docno"].tolist()), index=inp.index, dtype=object))


@dataclass(frozen=True, eq=False)
class StoredRun(pt.Transformer):
    """Gives queries the documents that a run file has for them."""

    frame: pd.DataFrame

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The queries with their documents."""
        with pt.validate.any(inp, context=self) as check:
            check.query_frame()
        return inp.merge(self.frame, on="qid").reset_index(drop=True)


def run(collection: Collection, path: str, depth: int | None = None) -> pt.Transformer:
    """A stored run, or its first `depth` documents of each query."""
    frame = read_run(path)
    stage = StoredRun(frame if depth is None else frame[frame["rank"] < depth])
    topics = collection.topics()
    if not len(stage(topics)):
        raise ValueError(f"{path} has none of the {len(topics)} queries. Do run and dataset belong together?")
    return stage


def bm25(
    collection: Collection, num_results: int = 1_000, k1: float = 0.9, b: float = 0.4, stemmer: str = "porter2",
    index: str | None = None,
) -> pt.Transformer:  # fmt: skip
    """BM25 by PISA; its index is built where it is not there."""
    from ..demo import quiet_libraries, require

    require("pyterrier_pisa", "bm25")
    from pyterrier_pisa import PisaIndex

    path = Path(index) if index else collection.indexes / f"bm25-{stemmer}.pisa"
    with quiet_libraries():
        built = PisaIndex(str(path), stemmer=stemmer, text_field=["text"])
        if not built.built():
            path.parent.mkdir(parents=True, exist_ok=True)
            built.index(collection.corpus())
        stage = built.bm25(num_results=num_results, k1=k1, b=b)
        stage.search("warm up")  # the index is compressed at the first search, which is not to be timed
    return stage


def retriever(
    collection: Collection, model: str, index: str | None = None, engine: str = "exact", num_results: int = 1_000,
    precision: Precision = "auto", device: str | None = None, batch_size: int | None = None,
    max_length: int | None = None, outputs: list[Kind] | None = None, any_model: bool = False,
    options: dict[str, Any] | None = None, build: dict[str, Any] | None = None,
) -> pt.Transformer:  # fmt: skip
    """A bi-encoder over an index, which is built where it is not there, with the settings `build` of `LIRIndexer`."""
    settings = _settings(precision, device, batch_size, max_length, outputs)
    path = _index(collection, model, index, settings, build or {})
    return LIRRetriever(model, path, engine, num_results=num_results, any_model=any_model, options=options, **settings)


def scorer(
    collection: Collection, model: str, index: str | None = None, precision: Precision = "auto",
    device: str | None = None, batch_size: int | None = None, max_length: int | None = None,
    outputs: list[Kind] | None = None, any_model: bool = False, build: dict[str, Any] | None = None,
) -> pt.Transformer:  # fmt: skip
    """Scores of results from the vectors of an index, which is built where it is not there; no texts are needed."""
    settings = _settings(precision, device, batch_size, max_length, outputs)
    path = _index(collection, model, index, settings, build or {})
    # a retriever scores results that have documents already
    return LIRRetriever(model, path, any_model=any_model, **settings)


def reranker(
    collection: Collection, model: str, precision: Precision = "auto", device: str | None = None,
    batch_size: int | None = None, max_length: int | None = None, template: str | None = None,
    instruction: str | None = None, activation: str | None = None, outputs: list[Kind] | None = None,
    text_field: str = "text",
) -> pt.Transformer:  # fmt: skip
    """A cross-encoder or bi-encoder over results with texts."""
    return LIRReRanker(
        model, template=template, instruction=instruction, activation=activation, text_field=text_field,
        **_settings(precision, device, batch_size, max_length, outputs),
    )  # fmt: skip


def cutoff(collection: Collection, k: int) -> pt.Transformer:
    """The first `k` documents of each query."""
    if k < 1:
        raise ValueError(f"k={k}; allowed: a positive number.")
    return pt.RankCutoff(k)


def text(collection: Collection, fields: list[str] | None = None) -> pt.Transformer:
    """The documents' texts: title and text, or the fields that are named."""
    return Texts(collection.source, tuple(fields) if fields else None)


STAGES: dict[str, Callable[..., pt.Transformer]] = {
    "run": run, "bm25": bm25, "retriever": retriever, "scorer": scorer, "reranker": reranker, "cutoff": cutoff,
    "text": text,
}  # fmt: skip


def make(collection: Collection, spec: Any, keys: Keys) -> pt.Transformer:
    """The transformer that a stage's YAML describes; equal ones are made once.

    Args:
        keys: where in the file it is.

    Raises:
        ConfigError: for an unknown stage or setting, a value of another type, and all that the stage itself refuses.
    """
    name, settings = _read(spec, keys)
    known = json.dumps([name, settings], sort_keys=True, default=str)
    if known not in collection.made:
        try:
            if name == "class_path":
                collection.made[known] = _any_class(settings)
            else:
                function = STAGES[name]
                values = checked(function, settings, skip=["collection"])
                collection.made[known] = function(collection, **values)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}", (*keys, name, *error.keys)) from error
        except MISTAKES as error:
            raise ConfigError(f"{name}: {error}", (*keys, name)) from error
    return collection.made[known]


def warm(stage: pt.Transformer) -> None:
    """Load a stage's model and open its index, so that a mistake is told at once and loading is not timed."""
    if isinstance(stage, LIRReRanker):
        stage.engine()
    elif isinstance(stage, LIRRetriever):
        opened = stage.retriever()
        if hasattr(opened, "searcher"):
            _ = opened.searcher


def _read(spec: Any, keys: Keys) -> tuple[str, dict[str, Any]]:
    """A stage's name and its settings."""
    if isinstance(spec, str):
        spec = {spec: {}}
    if isinstance(spec, dict) and "class_path" in spec:
        return "class_path", spec
    if not isinstance(spec, dict) or len(spec) != 1:
        raise ConfigError(f"a stage is a name with its settings, such as cutoff: 50, not {spec!r}.", keys)
    [(name, settings)] = spec.items()
    if name not in STAGES:
        known = ", ".join([*STAGES, "class_path"])
        raise ConfigError(
            f"no stage {name!r}.{did_you_mean(str(name), STAGES)} There are: {known}.", (*keys, str(name))
        )
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):  # the first setting alone
        settings = {list(inspect.signature(STAGES[name]).parameters)[1]: settings}
    return name, settings


def _any_class(spec: dict[str, Any]) -> pt.Transformer:
    """A transformer of any package.

    Raises:
        ConfigError: if it is none.
    """
    if unknown := set(spec) - {"class_path", "init_args"}:
        raise ConfigError(f"unknown name {sorted(unknown)[0]!r}; allowed: class_path, init_args.", [sorted(unknown)[0]])
    module, _, name = str(spec["class_path"]).rpartition(".")
    kind = getattr(import_module(module), name, None) if module else None
    if kind is None:
        raise ValueError(f"no class {spec['class_path']!r}.")
    made = kind(**(spec.get("init_args") or {}))
    if not isinstance(made, pt.Transformer):
        raise TypeError(f"{spec['class_path']} makes a {type(made).__name__}, which is no pt.Transformer.")
    return made


def _settings(
    precision: Precision,
    device: str | None,
    batch_size: int | None,
    max_length: int | None,
    outputs: Sequence[Kind] | None,
) -> dict[str, Any]:
    """Settings that all models have."""
    chosen = tuple(outputs) if outputs else None
    return {
        "precision": precision,
        "device": device,
        "batch_size": batch_size,
        "max_length": max_length,
        "outputs": chosen,
    }


def _index(
    collection: Collection, model: str, index: str | None, settings: dict[str, Any], build: dict[str, Any]
) -> Path:
    """The folder of the model's index, built if it is not there."""
    path = Path(index) if index else collection.indexes / f"{Path(model).name}.lir"
    if not (path / "pt_meta.json").is_file():
        if unknown := set(build) & {"mode", "shard"}:
            raise ConfigError(f"build: {', '.join(unknown)} is not for an experiment.", ["build", *unknown])
        indexer = LIRIndexer(model, path, mode="resume", verbose=True, **settings, **build)
        path.parent.mkdir(parents=True, exist_ok=True)
        indexer.index(cast("Any", collection.corpus()))
    return path
