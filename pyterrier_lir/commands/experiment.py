"""`pyterrier-lir experiment`: systems compared as a YAML file says."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config_errors import ConfigError, did_you_mean
from .evaluate import Correction
from .runs import check_measures, parse, qrels_frame
from .tables import ordered, render

if TYPE_CHECKING:
    import pandas as pd
    import pyterrier as pt

    from .kept_runs import KeptRuns
    from .stages import Collection

_PACKAGES = ("pyterrier-lir", "python-terrier", "pyterrier", "torch", "transformers", "tokenizers", "numpy", "pandas",
             "scipy", "ir-measures", "ir-datasets", "faiss-cpu", "numba")  # fmt: skip


def experiment(
    *,
    dataset: str,
    systems: dict[str, Any],
    out: str,
    metrics: tuple[str, ...] = ("nDCG@10", "RR@10", "R@100", "mrt"),
    baseline: str | None = None,
    correction: Correction | None = None,
    test: Literal["t", "wilcoxon"] = "t",
    alpha: float = 0.05,
    reuse: bool = True,
) -> None:
    """Compare systems on a collection, as a YAML file names them.

        dataset: vaswani                                    # or a folder, or documentation
        systems:
          BM25: [bm25]
          BM25 >> mono: [bm25, cutoff: 50, text, reranker: {model: webis/monoelectra-base}]
          dense: [retriever: {model: sentence-transformers/all-MiniLM-L6-v2}]
        metrics: [nDCG@10, RR@10, mrt]
        baseline: BM25
        correction: holm
        out: results/vaswani

    Stages: run (path, depth), bm25 (num_results, k1, b, stemmer, index), retriever and scorer (model, index, engine,
    num_results ...; an index that is not there is built), reranker (model, precision ...), cutoff (k), text (fields),
    or class_path and init_args of any pt.Transformer.  What systems have in common at their start runs once.  Written:
    table.csv, table.md, table.tex, plot.png, runs/ (TREC), config.yaml (as it ran) and versions.json.

    Args:
        dataset: an ir_datasets id, a folder with corpus.jsonl.gz, topics.tsv and qrels.txt (folder:dev for
            topics.dev.tsv), or documentation for that of the installed Python modules.
        systems: name -> list of stages.
        out: folder of the results.
        metrics: names of ir_measures, or mrt for milliseconds per query.
        baseline: a system that the others are compared with.
        correction: for several tests, as statsmodels names it.
        test: which paired test.
        alpha: below which p a difference is marked.
        reuse: take runs that are in the folder already, if their system is as it was then.
    """
    resolved = dict(locals())
    _check(systems, metrics, baseline, correction)

    from .kept_runs import KeptRuns

    folder = Path(out)
    collection, judged = _open(dataset, folder)
    topics = _judged_topics(collection.topics(), judged)
    kept = KeptRuns(folder, dataset, topics)
    pipelines = {name: _pipeline(name, stages, collection, kept, reuse, topics) for name, stages in systems.items()}
    folder.mkdir(parents=True, exist_ok=True)
    _write_record(folder, resolved)

    import pyterrier as pt

    wanted = [parse(name) for name in metrics if name != "mrt"]
    try:
        results = pt.Experiment(
            list(pipelines.values()), topics, judged, wanted, names=list(pipelines),
            baseline=None if baseline is None else list(pipelines).index(baseline), correction=correction,
            correction_alpha=alpha, test=test, plan="tree", verbose=False, validate="ignore",
        )  # fmt: skip
    except KeyboardInterrupt:
        again = f"Runs that were finished are in {folder}/runs; the same command takes them and goes on."
        raise KeyboardInterrupt(again) from None
    results = ordered(results.assign(mrt=[kept.milliseconds(name) for name in pipelines]), [*wanted, "mrt"])
    _plot(results, str(wanted[0]), folder / "plot.png")
    shown = results if "mrt" in metrics else results.drop(columns="mrt")
    for name, form in (("table.csv", "csv"), ("table.md", "markdown"), ("table.tex", "latex")):
        (folder / name).write_text(render(shown, form, alpha) + "\n", encoding="utf-8")  # type: ignore[arg-type]
    print(render(shown, "text", alpha))
    print(f"Results are in {folder}/", file=sys.stderr)


def _check(systems: dict[str, Any], metrics: Sequence[str], baseline: str | None, correction: str | None) -> None:
    """Refuse at once what needs no files to be seen as a mistake."""
    if not systems:
        raise ConfigError("systems: there are none; allowed: names with lists of stages.", ["systems"])
    for name, stages in systems.items():
        if not isinstance(stages, list) or not stages:
            raise ConfigError(f"system {name!r} is {stages!r}; allowed: a list of stages.", ["systems", name])
    for at, name in enumerate(metrics):
        try:
            check_measures([name])
        except ValueError as error:
            raise ConfigError(f"metrics: {error}", ["metrics", at]) from error
    if not set(metrics) - {"mrt"}:
        raise ConfigError("metrics: none of effectiveness; such as nDCG@10.", ["metrics"])
    if baseline is not None and baseline not in systems:
        near = did_you_mean(baseline, systems)
        raise ConfigError(f"baseline={baseline!r} is none of the systems: {', '.join(systems)}.{near}", ["baseline"])
    if correction is not None and baseline is None:
        raise ConfigError(f"correction={correction!r} needs a baseline.", ["correction"])


def _open(dataset: str, folder: Path) -> tuple[Collection, pd.DataFrame]:
    """The collection, and its judgements."""
    from ..data import DocumentationDataset, open_source
    from .stages import Collection

    given: Any = dataset
    name, _, variant = dataset.partition(":")
    if name == "documentation":
        given = (DocumentationDataset(), variant) if variant else DocumentationDataset()
    try:
        source = open_source(given)
        qrels = source.qrels
    except (ValueError, OSError) as error:
        raise ConfigError(f"dataset: {error}", ["dataset"]) from error
    if qrels is None:
        raise ConfigError(f"dataset: {dataset} has no relevance judgements to measure by.", ["dataset"])
    return Collection(source, folder / "indexes"), qrels_frame(qrels.highest())


def _judged_topics(topics: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """The queries that are judged; others would take time and count for nothing."""
    chosen = topics[topics["qid"].isin(set(judged["qid"]))].reset_index(drop=True)
    if chosen.empty:
        raise ConfigError(f"dataset: none of its {len(topics)} queries is judged.", ["dataset"])
    if len(chosen) < len(topics):
        print(f"{len(topics) - len(chosen)} of {len(topics)} queries are not judged and left out.", file=sys.stderr)
    return chosen


def _pipeline(
    name: str, stages: list[Any], collection: Collection, kept: KeptRuns, reuse: bool, topics: pd.DataFrame
) -> pt.Transformer:
    """A system's transformer, or its run where that is there."""
    import pyterrier as pt

    from .stages import MISTAKES, make, warm

    made = [make(collection, stage, ("systems", name, at)) for at, stage in enumerate(stages)]
    if reuse and kept.has(name, stages):
        print(f"{name}: its run is there already.", file=sys.stderr)
        return kept.stored(name)
    for at, stage in enumerate(made):
        try:
            warm(stage)
        except MISTAKES as error:
            raise ConfigError(f"{name}: {error}", ("systems", name, at)) from error
    try:
        columns = kept.join(made)(topics.head(0)).columns
    except pt.validate.InputValidationError as error:
        raise ConfigError(f"{name}: {error.args[0]}", ("systems", name)) from error
    if lacking := {"qid", "docno", "score", "rank"} - set(columns):
        raise ConfigError(f"{name} makes no ranking: no {', '.join(sorted(lacking))}.", ("systems", name))
    return kept.keeping(name, stages, made)


def _write_record(folder: Path, resolved: dict[str, Any]) -> None:
    """config.yaml, which repeats the experiment, and versions.json."""
    import platform
    import subprocess

    import yaml

    plain = json.loads(json.dumps(resolved))
    (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")
    installed = {name: metadata.version(name) for name in _PACKAGES if _is_installed(name)}
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    facts = {
        "python": platform.python_version(), "platform": platform.platform(), **installed,
        "git revision of the working folder": git.stdout.strip() if git.returncode == 0 else None,
    }  # fmt: skip
    (folder / "versions.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _plot(results: pd.DataFrame, measure: str, path: Path) -> None:
    """Effectiveness against milliseconds per query, a point for each system."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"{path} is not drawn: pip install 'pyterrier-lir[plots]'", file=sys.stderr)
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for _, row in results.iterrows():
        axes.scatter(row["mrt"], row[measure])
        axes.annotate(row["name"], (row["mrt"], row[measure]), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds per query", ylabel=measure)
    axes.margins(x=0.25, y=0.15)
    figure.savefig(path, dpi=150)
