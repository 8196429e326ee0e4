"""`pyterrier-lir evaluate`: runs measured by relevance judgements."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from .config_errors import did_you_mean
from .runs import check_measures, parse, read_qrels, read_run, stem
from .tables import TableFormat, ordered, render

if TYPE_CHECKING:
    import pandas as pd

Correction = Literal["bonferroni", "holm", "holm-sidak", "sidak", "hommel", "fdr_bh", "fdr_by"]


def evaluate(
    runs: list[str],
    *,
    qrels: str,
    measures: tuple[str, ...] = ("nDCG@10", "RR@10", "R@100"),
    baseline: str | None = None,
    correction: Correction | None = None,
    test: Literal["t", "wilcoxon"] = "t",
    alpha: float = 0.05,
    table: TableFormat = "text",
    per_query: bool = False,
) -> None:
    """Measure runs by relevance judgements, with tests of significance against a baseline.

    Judged queries that a run lacks count as zero.

    Args:
        runs: files in TREC's format or tables, also compressed; - for standard input.
        qrels: a file in TREC's format, a folder with qrels.txt, or an ir_datasets id.
        measures: names of ir_measures, such as nDCG@10, or of trec_eval, such as ndcg_cut_10.
        baseline: one of the runs; the others are compared with it by a paired test.
        correction: for several tests, as statsmodels names it.
        test: which paired test.
        alpha: below which p a difference is marked.
        table: text, csv (with numbers of queries, p-values and what was rejected), markdown or latex.
        per_query: print every query's values as CSV instead.
    """
    check_measures(measures)
    if "mrt" in measures:
        raise ValueError("a run file does not say how long its system took: no mrt.")
    names = _names(runs)
    place = _place(baseline, runs, names)
    if correction is not None and place is None:
        raise ValueError(f"correction={correction!r} needs --baseline.")
    if per_query and place is not None:
        raise ValueError("--per_query prints values, not tests; leave --baseline out.")
    judged = read_qrels(qrels)
    frames = [read_run(run) for run in runs]

    import pandas as pd
    import pyterrier as pt

    for name, frame in zip(names, frames, strict=True):
        _warn_missing(name, frame, judged)
    wanted = [parse(name) for name in measures]
    results = pt.Experiment(
        frames, pd.DataFrame({"qid": judged["qid"].unique()}), judged, wanted, names=names,
        baseline=place, correction=correction, correction_alpha=alpha, test=test, perquery=per_query, validate="ignore",
    )  # fmt: skip
    print(results.to_csv(index=False).rstrip("\n") if per_query else render(ordered(results, wanted), table, alpha))


def _names(runs: Sequence[str]) -> list[str]:
    """A name for each run, with its folder where files are called alike."""
    if not runs:
        raise ValueError("evaluate needs at least one run.")
    stems = [stem(run) for run in runs]
    names = [run if stems.count(name) > 1 else name for run, name in zip(runs, stems, strict=True)]
    if len(set(names)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is given twice.")
    return names


def _place(baseline: str | None, runs: Sequence[str], names: Sequence[str]) -> int | None:
    if baseline is None:
        return None
    for known in (runs, names):
        if baseline in known:
            return list(known).index(baseline)
    near = did_you_mean(baseline, [*runs, *names])
    raise ValueError(f"baseline={baseline!r} is none of the runs: {', '.join(names)}.{near}")


def _warn_missing(name: str, frame: pd.DataFrame, judged: pd.DataFrame) -> None:
    queries = set(judged["qid"])
    missing = queries - set(frame["qid"])
    if len(missing) == len(queries):
        raise ValueError(f"{name} has none of the {len(queries)} judged queries. Do run and qrels belong together?")
    if missing:
        print(f"{name} lacks {len(missing)} of {len(queries)} judged queries; they count as zero.", file=sys.stderr)
