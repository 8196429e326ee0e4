"""Runs of an experiment that are kept: written when a system has finished, read where the same one has run before."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import pandas as pd
import pyterrier as pt

from .runs import read_run


class Timed(pt.Transformer):
    """A stage that knows how long it took; equal if its stage is, so that systems share it.

    Attributes:
        milliseconds: of the last call.
    """

    def __init__(self, stage: pt.Transformer) -> None:
        self.stage, self.milliseconds = stage, 0.0

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """What the stage makes of the frame."""
        start = perf_counter()
        out = cast("pd.DataFrame", self.stage.transform(inp))
        self.milliseconds = (perf_counter() - start) * 1000
        return out

    def __repr__(self) -> str:
        return repr(self.stage)


@dataclass(eq=False)
class Keep(pt.Transformer):
    """The end of a pipeline, which writes its results."""

    runs: KeptRuns
    system: str
    recipe: str
    stages: Sequence[Timed]

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The frame as it is."""
        self.runs.write(self.system, self.recipe, inp, sum(stage.milliseconds for stage in self.stages))
        return inp


class KeptRuns:
    """The runs of an experiment's systems, with what they were made by and how long they took.

    Args:
        folder: of the results; runs are in runs/, what they were made by in runs.json.
        dataset: its name.
        topics: the queries; runs over others are not taken.
    """

    def __init__(self, folder: Path, dataset: str, topics: pd.DataFrame) -> None:
        self._folder, self._dataset, self._topics = folder, dataset, topics
        self._file = folder / "runs.json"
        self._records: dict[str, dict[str, Any]] = {}
        if self._file.is_file():
            self._records = json.loads(self._file.read_text(encoding="utf-8"))
        self._timed: dict[int, Timed] = {}

    def has(self, name: str, stages: list[Any]) -> bool:
        """Whether there is a run of this system, made by the same settings and files from the same queries."""
        record = self._records.get(name)
        return bool(record and record["recipe"] == self._recipe(stages) and (self._folder / record["run"]).is_file())

    def stored(self, name: str) -> pt.Transformer:
        """The run as a transformer."""
        return pt.Transformer.from_df(read_run(str(self._folder / self._records[name]["run"])))

    def milliseconds(self, name: str) -> float:
        """How long a query took the system, when it ran."""
        return float(self._records[name]["milliseconds per query"])

    def keeping(self, name: str, stages: list[Any], made: Sequence[pt.Transformer]) -> pt.Transformer:
        """A pipeline of the stages that writes its results when it has run."""
        timed = [self._timed.setdefault(id(stage), Timed(stage)) for stage in made]
        return self.join([*timed, Keep(self, name, self._recipe(stages), timed)])

    @staticmethod
    def join(stages: Sequence[pt.Transformer]) -> pt.Transformer:
        """One behind the other."""
        pipeline = stages[0]
        for stage in stages[1:]:
            pipeline = pipeline >> stage
        return pipeline

    def write(self, name: str, recipe: str, results: pd.DataFrame, milliseconds: float) -> None:
        """Write a run, then its record."""
        path = self._folder / "runs" / f"{file_name(name)}.run.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part-{path.name}")
        pt.io.write_results(results, str(part), run_name=re.sub(r"\s+", "", name))
        part.replace(path)
        each = milliseconds / len(self._topics)
        record = {"recipe": recipe, "run": str(path.relative_to(self._folder)), "milliseconds per query": each}
        self._records[name] = record
        self._file.write_text(json.dumps(self._records, indent=2) + "\n", encoding="utf-8")

    def _recipe(self, stages: list[Any]) -> str:
        """What tells a system from another: its settings, the files that they name, and the queries."""
        topics = self._topics.to_csv(index=False)
        parts = [self._dataset, stages, [_stamp(Path(text)) for text in _strings(stages)], topics]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def file_name(name: str) -> str:
    """A system's name as a file may be called; the names of two systems stay apart.

    >>> file_name("BM25"), file_name("BM25 >> mono")
    ('BM25', 'BM25_mono-e64bf6')
    """
    plain = re.sub(r"[^\w.+-]+", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _strings(spec: Any) -> list[str]:
    """All strings in a part of a YAML file."""
    if isinstance(spec, str):
        return [spec]
    children = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    return [text for child in children for text in _strings(child)]


def _stamp(path: Path) -> list[tuple[str, int, int]]:
    """Sizes and times of a file, or of those in a folder; of an index, of the file that is written last."""
    meta = path / "pt_meta.json"
    files = [meta] if meta.is_file() else sorted(path.iterdir()) if path.is_dir() else [path]
    return [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files if one.is_file()]
