"""One query and its documents to train on, out of every form in which such tuples are kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from .file_formats import FORMATS, format_of, is_header, is_number, named, names_of, parse_json, read_lines, read_rows
from .rankings import stretches
from .samples import RankSample
from .text_store import text_of

Row = Any
LAYOUTS = (
    "query, pos, neg (each one text or a list; ids with dataset=), also as anchor, positive, negative_1 and so on; "
    "qid, docno, label, and perhaps query, text, score, in rows; or, without names, query TAB relevant TAB "
    "others, score TAB score TAB query TAB relevant TAB other, and [query, [document, score], ...]"
)


@dataclass
class Group:
    """A query and documents with labels, larger than 0 for relevant ones, and perhaps scores; texts or ids or both."""

    query_id: str | None
    query: str | None
    doc_ids: list[str] | None
    docs: list[str] | None
    labels: list[float]
    scores: list[float] | None


def text_id(text: str) -> str:
    """An id for a text that has none, the same wherever the text occurs.

    >>> text_id("Bread.") == text_id("Bread."), len(text_id("Bread."))
    (True, 16)
    """
    return hashlib.blake2b(text.encode("utf-8", errors="replace"), digest_size=8).hexdigest()


def open_tuples(given: Any, *, ids: bool, graded: bool = False) -> tuple[Iterator[Row], Callable[[Row], Group]]:
    """The rows of tuples, unread, and what makes a group of a row.

    Args:
        given: a file, a frame, or the rows themselves.
        ids: whether what stands for queries and documents are ids.
        graded: whether the targets of samples are grades, whatever their values.

    Raises:
        ValueError: for a layout that is not known.
    """
    if isinstance(given, pd.DataFrame):
        return _from_table(given, "the tuples", ids)
    if not isinstance(given, Path):
        return iter(given), lambda row: group_of(row, ids, "the tuples", graded)
    if format_of(given) == "tsv":
        first = next((line for _, line in read_lines(given)), "")
        if not is_header(first.split("\t")):
            return read_lines(given), lambda row: _from_line(row, ids, given)
    rows = read_rows(given, ("query", "pos", "neg"))
    first_row = next(rows, None)
    if first_row is None:
        raise ValueError(f"{given} holds no rows; allowed: {LAYOUTS}.")
    rows = chain([first_row], rows)
    if isinstance(first_row, Mapping) and _is_long(first_row):
        return _from_table(pd.DataFrame(list(rows)), str(given), ids)
    return rows, lambda row: group_of(row, ids, str(given))


def _is_long(columns: Iterable[Any]) -> bool:
    names = set(named(pd.DataFrame(columns=list(columns))).columns)
    return bool(names & {"doc_id", "text"}) and bool(names & {"relevance", "score"}) and "pos" not in names


def _from_table(frame: pd.DataFrame, name: str, ids: bool) -> tuple[Iterator[Row], Callable[[Row], Group]]:
    if not _is_long(frame.columns):
        rows = (dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None))
        return rows, lambda row: group_of(row, ids, name)
    frame = named(frame)
    key = "query_id" if "query_id" in frame else "query"
    if key not in frame:
        raise ValueError(f"{name}: columns {', '.join(map(str, frame.columns))}; allowed: {LAYOUTS}.")
    codes, _ = pd.factorize(frame[key])
    order = codes.argsort(kind="stable")
    frame = frame.reset_index(drop=True).iloc[order]
    starts, lengths = stretches(codes[order])
    places = ((start, start + length) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True))
    return iter(places), lambda place: _from_stretch(frame.iloc[slice(*place)], name)


def _from_stretch(part: pd.DataFrame, name: str) -> Group:
    def strings(column: str) -> list[str] | None:
        if column not in part:
            return None
        return [text_of(value, f"{name}: {column} in row {row}") for row, value in part[column].items()]

    scores = [float(score) for score in part["score"]] if "score" in part else None
    labels = [float(label) for label in part["relevance"]] if "relevance" in part else _order(len(part))
    query_id, query = ((strings(column) or [None])[0] for column in ("query_id", "query"))  # type: ignore[list-item]
    return Group(query_id, query, strings("doc_id"), strings("text"), labels, scores)


def _from_line(numbered: tuple[int, str], ids: bool, path: Path) -> Group:
    number, line = numbered
    if line.startswith("["):
        return group_of(parse_json(line, path, number), ids, f"{path}, line {number}")
    cells = line.split("\t")
    if _is_scored(cells):
        return _group(cells[2], cells[3:], [1.0, 0.0], [float(cell) for cell in cells[:2]], ids)
    if len(cells) < 3:
        raise ValueError(f"{path}, line {number}: {len(cells)} columns; allowed: {LAYOUTS}.")
    return _group(cells[0], cells[1:], _order(len(cells) - 1), None, ids)


def _is_scored(cells: list[str]) -> bool:
    """Whether two scores stand before a triple, and not the ids of a query and four documents."""
    if len(cells) != 5 or not all(is_number(cell) for cell in cells[:2]):
        return False
    return not all(cell.strip().isdigit() for cell in cells)


def _order(count: int) -> list[float]:
    return [1.0] + [0.0] * (count - 1)


def _group(query: str, docs: list[str], labels: list[float], scores: list[float] | None, ids: bool) -> Group:
    if ids:
        return Group(query, None, docs, None, labels, scores)
    return Group(None, query, None, docs, labels, scores)


def group_of(row: Row, ids: bool, where: str, graded: bool = False) -> Group:
    """The group of one row: a sample, a tuple of ir_datasets, a list, or a dictionary with `pos` and `neg`.

    Raises:
        ValueError: for anything else.

    >>> group_of({"query": "how tall", "pos": "It is tall.", "neg": ["Bread."]}, False, "here").labels
    [1.0, 0.0]
    """
    if isinstance(row, RankSample):
        return _from_sample(row, graded)
    if hasattr(row, "doc_id_a"):
        return Group(str(row.query_id), None, [str(row.doc_id_a), str(row.doc_id_b)], None, [1.0, 0.0], None)
    if hasattr(row, "doc_ids") and hasattr(row, "scores"):
        positives, count = getattr(row, "positives", 1), len(row.doc_ids)
        labels = [1.0] * positives + [0.0] * (count - positives)
        scores = None if row.scores is None else [float(score) for score in row.scores]
        return Group(str(row.query_id), None, [str(doc) for doc in row.doc_ids], None, labels, scores)
    if isinstance(row, list) and len(row) > 1 and all(isinstance(doc, list) and len(doc) == 2 for doc in row[1:]):
        docs, values = [str(doc) for doc, _ in row[1:]], [float(score) for _, score in row[1:]]
        return _group(str(row[0]), docs, _order(len(docs)), values, ids)
    if isinstance(row, (list, tuple)) and len(row) > 1 and all(isinstance(cell, str) for cell in row):
        return _group(row[0], list(row[1:]), _order(len(row) - 1), None, ids)
    if isinstance(row, Mapping):
        return _from_mapping(row, ids, where)
    raise ValueError(f"{where}: a row of {type(row).__name__}; allowed: {LAYOUTS} (files: {', '.join(FORMATS)}).")


def _from_sample(sample: RankSample, graded: bool) -> Group:
    """Targets of a sample are scores, and grades if they are whole numbers from 0 on."""
    labels, scores = _order(len(sample.docs)), None
    if sample.targets is not None:
        scores = (sample.targets.amax(-1) if sample.targets.ndim > 1 else sample.targets).tolist()
        if graded or (min(scores) == 0 < max(scores) and all(score % 1 == 0 for score in scores)):
            labels = scores
    return Group(sample.query_id, sample.query, list(sample.doc_ids), list(sample.docs), labels, scores)


def _from_mapping(row: Mapping[str, Any], ids: bool, where: str) -> Group:
    values = dict(row) if "pos" in row else {name: row[given] for given, name in names_of(row).items()}
    values.setdefault("query_id", row.get("qid"))
    numbered = [name for name in row if re.fullmatch(r"neg(ative)?_?\d+", str(name))]
    if "neg" not in values:
        values["neg"] = [row[name] for name in numbered]
    query, query_id = values.get("query"), values.get("query_id")
    if "pos" not in values or (query is None and query_id is None):
        raise ValueError(f"{where}: a row with {', '.join(map(str, row))}; allowed: {LAYOUTS}.")
    positives, negatives = _listed(values["pos"]), _listed(values["neg"])
    scores = _scores_of(row, len(positives), len(negatives))
    if scores is not None and len(scores) != len(positives) + len(negatives):
        raise ValueError(f"{where}: {len(scores)} scores of {len(positives) + len(negatives)} documents.")
    labels = [1.0] * len(positives) + [0.0] * len(negatives)
    docs = [text_of(doc, f"{where}: a document of query {query or query_id!r}") for doc in [*positives, *negatives]]
    if ids and query_id is None:
        query_id, query = query, None
    query_id, query = (None if value is None else text_of(value, f"{where}: a query") for value in (query_id, query))
    return Group(query_id, query, docs if ids else None, None if ids else docs, labels, scores)


def _scores_of(row: Mapping[str, Any], positives: int, negatives: int) -> list[float] | None:
    """Scores of all documents, or of sentence-transformers, by how much the relevant one is better than the other."""
    if row.get("pos_scores") is not None and row.get("neg_scores") is not None:
        return [float(score) for score in [*_listed(row["pos_scores"]), *_listed(row["neg_scores"])]]
    given = row.get("label") if row.get("label") is not None else row.get("score")
    if given is None:
        return None
    scores = [float(score) for score in _listed(given)]
    return [*scores, 0.0] if len(scores) == 1 and positives == negatives == 1 else scores


def _listed(value: Any) -> list[Any]:
    return [value] if value is None or isinstance(value, (str, int, float)) else list(value)
