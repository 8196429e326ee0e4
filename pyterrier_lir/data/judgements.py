"""Relevance judgements: checked once, found by query."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .file_formats import named

COLUMNS = ["query_id", "doc_id", "iteration", "relevance"]


class Judgements:
    """Grades of documents for queries.

    Args:
        frame: with query and document ids, `relevance` (or `label`), and perhaps `iteration` (or `subtopic_id`).
        name: what to call the table in errors.

    Raises:
        ValueError: if a column is missing or a grade is no whole number.

    >>> qrels = Judgements(pd.DataFrame({"qid": ["1", "1"], "docno": ["a", "b"], "label": [2, 0]}), "qrels")
    >>> qrels.of("1")[0]
    {'query_id': '1', 'doc_id': 'a', 'iteration': '0', 'relevance': 2}
    """

    def __init__(self, frame: pd.DataFrame, name: str) -> None:
        frame = named(frame)
        if "relevance" not in frame.columns and "score" in frame.columns:  # as BEIR names grades
            frame = frame.rename(columns={"score": "relevance"})
        if lacking := {"query_id", "doc_id", "relevance"} - set(frame.columns):
            raise ValueError(f"{name}: no column {', '.join(sorted(lacking))}; it has {', '.join(map(str, frame))}.")
        frame = frame.assign(**{column: frame[column].astype(str) for column in ("query_id", "doc_id")})
        frame = frame.assign(iteration=frame["iteration"].astype(str) if "iteration" in frame else "0")
        grades = pd.to_numeric(frame["relevance"], errors="coerce")
        if grades.isna().any():
            wrong = frame.loc[grades.isna(), "relevance"].iloc[0]
            raise ValueError(f"{name}: relevance {wrong!r}; allowed: whole numbers.")
        if (grades % 1 != 0).any():
            wrong = frame.loc[grades % 1 != 0, "relevance"].iloc[0]
            raise ValueError(
                f"{name}: relevance {wrong!r}; allowed: whole numbers.  Targets with fractions are scores: a column "
                "score, and targets='score'."
            )
        self.frame = _without_duplicates(frame.assign(relevance=grades.astype(int))[COLUMNS], name)

    @cached_property
    def query_ids(self) -> frozenset[str]:
        """The judged queries."""
        return frozenset(self.frame["query_id"])

    @cached_property
    def _by_query(self) -> tuple[pd.DataFrame, dict[str, tuple[int, int]]]:
        ordered = self.frame.sort_values("query_id", kind="stable", ignore_index=True)
        ids = ordered["query_id"].to_numpy(dtype=object)
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.empty(0, dtype=int)
        stops = [*starts[1:].tolist(), len(ids)]
        return ordered, {ids[start]: (start, stop) for start, stop in zip(starts.tolist(), stops, strict=False)}

    def of(self, query_id: str) -> list[dict[str, Any]]:
        """The judgements of a query as dictionaries, none if it has not been judged."""
        ordered, places = self._by_query
        start, stop = places.get(query_id, (0, 0))
        return [{str(k): v for k, v in row.items()} for row in ordered.iloc[start:stop].to_dict(orient="records")]

    def highest(self) -> pd.DataFrame:
        """One grade for each query and document: the highest of all subtopics."""
        ordered = self.frame.sort_values("relevance", ascending=False, kind="stable")
        highest = ordered.drop_duplicates(["query_id", "doc_id"]).sort_index(ignore_index=True)
        return highest[["query_id", "doc_id", "relevance"]]

    def by_subtopic(self) -> pd.DataFrame:
        """Query and document ids, and a column of grades for each subtopic."""
        wide = self.frame.pivot(index=["query_id", "doc_id"], columns="iteration", values="relevance")
        return wide.fillna(0).add_prefix("relevance_").reset_index()


def _without_duplicates(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    keys = ["query_id", "doc_id", "iteration"]
    frame = frame.drop_duplicates(ignore_index=True)
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        first = twice.iloc[0]
        warnings.warn(
            f"{name}: {len(twice)} documents are judged twice with different grades, the first {first['doc_id']!r} for "
            f"query {first['query_id']!r}; the highest grade counts.",
            stacklevel=3,
        )
        frame = frame.sort_values("relevance", ascending=False, kind="stable").drop_duplicates(keys).sort_index()
    return frame.reset_index(drop=True)
