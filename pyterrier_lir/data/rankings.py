"""Rankings as arrays: read from files and frames, ordered by query and rank, joined with judgements."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .file_formats import read_frame
from .judgements import Judgements
from .source_kinds import frame_ids
from .text_store import text_of

LAYOUTS = {
    6: ("query_id", "iteration", "doc_id", "rank", "score", "tag"),
    5: ("query_id", "iteration", "doc_id", "rank", "score"),
    4: ("query_id", "doc_id", "rank", "score"),
    3: ("query_id", "doc_id", "third"),
    2: ("query_id", "doc_id"),
}
KEYS = ["query_id", "doc_id"]


def read_ranking(given: pd.DataFrame | Path, name: str) -> pd.DataFrame:
    """The rows of a ranking in the order of queries and ranks; ranks are counted from 1.

    Ranks order the documents if they tell all of a query's apart, else scores do, else the order of the rows.

    Raises:
        ValueError: for no rows, no query or document ids, numbers that are none, or a document twice for a query.

    >>> frame = pd.DataFrame({"qid": ["2", "1", "1"], "docno": ["c", "b", "a"], "score": [1.0, 2.0, 3.0]})
    >>> read_ranking(frame, "run")[["query_id", "doc_id", "rank"]].to_numpy().tolist()
    [['1', 'a', 1], ['1', 'b', 2], ['2', 'c', 1]]
    """
    frame = frame_ids(read_frame(given, LAYOUTS) if isinstance(given, Path) else given)
    if lacking := set(KEYS) - set(frame.columns):
        raise ValueError(f"{name}: no column {', '.join(sorted(lacking))}; it has {', '.join(map(str, frame))}.")
    if frame.empty:
        raise ValueError(f"{name} is empty; allowed: a ranking of at least one document.")
    frame = _numbers(frame.drop(columns=["tag"], errors="ignore").reset_index(drop=True), name)
    twice = frame.duplicated(KEYS)
    if twice.any():
        first = frame[twice].iloc[0]
        raise ValueError(
            f"{name}: document {first['doc_id']!r} occurs more than once for query {first['query_id']!r} "
            f"({int(twice.sum())} such rows); allowed: each document once for a query."
        )
    return _ordered(frame)


def _numbers(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    for column in ("rank", "score", "third"):
        if column in frame:
            numbers = pd.to_numeric(frame[column], errors="coerce")
            if numbers.isna().any():
                raise ValueError(f"{name}: {column} {frame.loc[numbers.isna(), column].iloc[0]!r}; allowed: numbers.")
            frame[column] = numbers
    if "third" in frame:  # query, document, and either of two numbers
        frame = frame.rename(columns={"third": "rank" if _are_ranks(frame, name) else "score"})
    return frame


def _are_ranks(frame: pd.DataFrame, name: str) -> bool:
    """Whether the third column counts documents, or has scores, which fall within each query."""
    third, queries = frame["third"], frame.groupby("query_id")["third"]
    whole = (third % 1 == 0).all() and queries.min().isin([0, 1]).all()
    if not whole or frame.duplicated(["query_id", "third"]).any():
        return False
    steps = queries.diff().dropna()
    if len(steps) and (steps < 0).all():
        return False
    counted = (queries.max() - queries.min() + 1 == queries.size()).all()
    if (steps < 0).any() and not counted:
        raise ValueError(
            f"{name}: the third column neither rises nor falls within queries, and may be ranks or scores; allowed: "
            "rows in the order of one of them, or a first line with the columns' names."
        )
    return True


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    queries, _ = pd.factorize(frame["query_id"], sort=True)
    if "rank" in frame and not frame.duplicated(["query_id", "rank"]).any():
        key = frame["rank"].to_numpy()
    elif "score" in frame:
        key = -frame["score"].to_numpy(dtype=np.float64)
    else:
        key = np.arange(len(frame))
    order = np.lexsort((key, queries))  # which is stable
    frame = frame.iloc[order].reset_index(drop=True)
    starts, lengths = stretches(queries[order])
    return frame.assign(rank=np.arange(len(frame)) - np.repeat(starts, lengths) + 1)


def stretches(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each stretch of equal values begins, and how long it is.

    >>> starts, lengths = stretches(np.array([7, 7, 9]))
    >>> starts.tolist(), lengths.tolist()
    ([0, 2], [2, 1])
    """
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.empty(0, dtype=np.int64)
    return starts, np.diff(np.r_[starts, len(values)])


@dataclass
class Lists:
    """The ranked lists of all queries, one after another.

    `starts` has one place more than there are queries.  `ranks` and `scores` are NaN for documents that were not
    ranked.  `relevance` is (documents,), `subtopics` (documents, subtopics); both None without judgements.
    """

    query_ids: list[str]
    starts: NDArray[np.int64]
    doc_names: NDArray[np.object_]
    doc_codes: NDArray[np.int32]
    ranks: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    relevance: NDArray[np.float32] | None
    subtopics: NDArray[np.float32] | None


def make_lists(frame: pd.DataFrame) -> Lists:
    """The lists of a table that is in the order of queries, with `rank` and perhaps `score` and `relevance...`."""
    queries, query_ids = pd.factorize(frame["query_id"])
    starts, _ = stretches(queries)
    codes, names = pd.factorize(frame["doc_id"])
    subtopics = [column for column in frame.columns if str(column).startswith("relevance_")]

    def floats(column: str) -> NDArray[np.float32] | None:
        return frame[column].to_numpy(dtype=np.float32, na_value=np.nan) if column in frame else None

    ranks = floats("rank")
    assert ranks is not None  # read_ranking counts them
    return Lists(
        query_ids=[str(one) for one in query_ids],
        starts=np.r_[starts, len(frame)].astype(np.int64),
        doc_names=np.asarray(names, dtype=object),
        doc_codes=codes.astype(np.int32),
        ranks=ranks,
        scores=floats("score"),
        relevance=floats("relevance"),
        subtopics=frame[subtopics].to_numpy(dtype=np.float32) if subtopics else None,
    )


def join_judgements(frame: pd.DataFrame, qrels: Judgements, *, subtopics: bool, add_docs: bool) -> pd.DataFrame:
    """The ranking of judged queries with `relevance`, 0 where a document has not been judged.

    Args:
        subtopics: whether to add `relevance_...` for each subtopic.
        add_docs: whether to add, behind the ranking, relevant documents that are not in it.

    Raises:
        ValueError: if no query of the ranking is judged.
    """
    judged = frame[frame["query_id"].isin(qrels.query_ids)]
    unjudged = frame["query_id"].nunique() - judged["query_id"].nunique()
    if judged.empty:
        raise ValueError(
            f"None of the {unjudged} queries of the ranking is judged, the first is {frame['query_id'].iloc[0]!r}; "
            "allowed: judgements of these queries.  Do run and dataset belong together?"
        )
    warn_left_out(unjudged, frame["query_id"].nunique(), "have no judgements")
    columns = ["relevance"]
    grades = qrels.highest()
    if subtopics:
        wide = qrels.by_subtopic()
        columns += [column for column in wide.columns if column not in KEYS]
        grades = grades.merge(wide, on=KEYS)
    how: Any = "left"
    if add_docs:
        how = "outer"
        relevant = grades["relevance"] > 0
        ranked = pd.MultiIndex.from_frame(grades[KEYS]).isin(pd.MultiIndex.from_frame(judged[KEYS]))
        grades = grades[(relevant | ranked) & grades["query_id"].isin(judged["query_id"])]
    joined = judged.drop(columns=columns, errors="ignore").merge(grades, on=KEYS, how=how)
    joined = joined.fillna(dict.fromkeys(columns, 0))
    return joined.sort_values(["query_id", "rank"], kind="stable", na_position="last", ignore_index=True)


def keep_queries(frame: pd.DataFrame, kept: pd.Series, why: str, remedy: str) -> pd.DataFrame:
    """The rows that are kept, a whole query or none of it.

    Raises:
        ValueError: if none is.
    """
    total, remaining = frame["query_id"].nunique(), frame[kept]
    left = remaining["query_id"].nunique()
    if not left:
        raise ValueError(f"All {total} queries {why}; {remedy}")
    warn_left_out(total - left, total, why)
    return remaining.reset_index(drop=True)


def warn_left_out(count: int, total: int, why: str) -> None:
    """Say how many queries are not used."""
    if count:
        warnings.warn(f"{count} of {total} queries {why} and are left out.", stacklevel=2)


def own_texts(frame: pd.DataFrame, key: str, text: str) -> Mapping[str, str] | None:
    """The texts that a table brings along, None if it does not."""
    if text not in frame.columns:
        return None
    first = frame.drop_duplicates(key)
    pairs = zip(first[key], first[text], strict=True)
    return {one: text_of(value, f"{text} of {key} {one!r}") for one, value in pairs}
