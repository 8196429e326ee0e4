"""Runs, relevance judgements and measures, as the commands are given them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from .config_errors import did_you_mean

if TYPE_CHECKING:
    import pandas as pd


def read_run(path: str) -> pd.DataFrame:
    """A run file as `qid`, `docno`, `score`, `rank`; where it has ranks alone, they make the scores.

    Args:
        path: in TREC's format, or a table (.tsv, .csv, .jsonl, .parquet), also compressed; - for standard input.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for no rows, no ids, or a document twice for a query.
    """
    import pandas as pd

    from ..data.rankings import LAYOUTS, read_ranking

    given: pd.DataFrame | Path = Path(path)
    if path == "-":
        given = pd.read_csv(sys.stdin, sep=r"\s+", header=None, dtype=str, na_filter=False)
        if given.shape[1] not in LAYOUTS:
            raise ValueError(f"standard input has {given.shape[1]} columns; allowed: {' '.join(LAYOUTS[6])}.")
        given.columns = list(LAYOUTS[given.shape[1]])
    frame = read_ranking(given, "standard input" if path == "-" else path)
    if "score" not in frame.columns:
        frame = frame.assign(score=-frame["rank"].astype(float))
    frame = frame.rename(columns={"query_id": "qid", "doc_id": "docno"})
    return frame.assign(rank=frame["rank"] - 1)[["qid", "docno", "score", "rank"]]


def read_qrels(name: str) -> pd.DataFrame:
    """Relevance judgements as `qid`, `docno`, `label`; of several subtopics the highest.

    Args:
        name: a file in TREC's format, a folder with qrels.txt, or an ir_datasets id.

    Raises:
        FileNotFoundError: if that is nothing.
        ValueError: if there are no judgements.
    """
    from ..data import open_source
    from ..data.file_formats import read_frame
    from ..data.judgements import Judgements
    from ..data.source_kinds import QRELS_LAYOUTS

    path = Path(name)
    qrels = Judgements(read_frame(path, QRELS_LAYOUTS), name) if path.is_file() else open_source(name).qrels
    if qrels is None:
        raise ValueError(f"{name} has no relevance judgements to measure by.")
    return qrels_frame(qrels.highest())


def qrels_frame(judgements: pd.DataFrame) -> pd.DataFrame:
    """Judgements under PyTerrier's names."""
    return judgements.rename(columns={"query_id": "qid", "doc_id": "docno", "relevance": "label"})


def check_measures(names: Sequence[str]) -> list[str]:
    """The names as `pt.Experiment` takes them, once they are known.

    Raises:
        ValueError: for none, or a name that neither ir_measures nor trec_eval knows.

    >>> check_measures(["nDCG@10", "map", "mrt"])
    ['nDCG@10', 'map', 'mrt']
    """
    if not names:
        raise ValueError("no measures; such as nDCG@10, RR@10, R@100.")
    for name in names:
        if name != "mrt" and not _is_measure(name):
            raise ValueError(f"ir_measures knows no {name!r}; such as nDCG@10, RR@10, R@100, AP.{_near(name)}")
    return list(names)


def parse(name: str) -> object:
    """A measure as `pt.Experiment` takes it: of ir_measures, or the name of one of trec_eval's.

    Raises:
        ValueError, NameError: for other names.
    """
    import ir_measures

    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError):
        ir_measures.parse_trec_measure(name)
        return name


def _is_measure(name: str) -> bool:
    try:
        parse(name)
    except (NameError, ValueError, KeyError, TypeError, SyntaxError):
        return False
    return True


def _near(name: str) -> str:
    import ir_measures

    stem, at, cutoff = name.partition("@")
    known = list(ir_measures.measures.registry)
    near = get_close_matches(stem, known, n=1) or [one for one in known if one.lower() == stem.lower()]
    return did_you_mean(name, [near[0] + at + cutoff]) if near and cutoff.isdigit() == bool(at) else ""


def stem(path: str) -> str:
    """A run's name by that of its file.

    >>> stem("runs/bm25.run.gz"), stem("-")
    ('bm25', 'stdin')
    """
    name = Path(path).name
    for suffix in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(suffix)
    return "stdin" if path == "-" else Path(name).stem
