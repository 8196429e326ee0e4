"""Rows and tables out of files: TSV, CSV, JSON lines, JSON, Parquet and TREC, plain or compressed."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

COMPRESSIONS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
FORMATS = {
    ".tsv": "tsv", ".txt": "tsv", ".run": "tsv", ".trec": "tsv", ".res": "tsv", ".qrels": "tsv", ".csv": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
}  # fmt: skip
# Every name that a column goes by, after the one that is used here.
ALIASES = {
    "query_id": ("query_id", "qid", "query-id", "query_ids"),
    "doc_id": ("doc_id", "docno", "docid", "corpus-id", "pid", "did", "passage_id"),
    "query": ("query", "anchor", "question", "sentence1"),
    "text": ("text", "contents", "body", "passage", "sentence2"),
    "relevance": ("relevance", "label", "rel", "grade"),
    "iteration": ("iteration", "subtopic_id", "subtopic", "Q0", "q0"),
    "score": ("score",),
    "rank": ("rank",),
    "pos": ("pos", "positive", "positives"),
    "neg": ("neg", "negative", "negatives"),
}
_NAMED = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


def format_of(path: Path) -> str:
    """Which of the formats a file has, by its name; what compresses it is left aside.

    Raises:
        ValueError: for a name that tells none.

    >>> format_of(Path("train.triples.tsv.gz"))
    'tsv'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise ValueError(
            f"{path}: no format that is read; allowed: names that end in {', '.join(FORMATS)}, "
            f"and behind these {', '.join(COMPRESSIONS)}."
        )
    return FORMATS[suffixes[-1]]


def open_text(path: Path) -> io.TextIOBase:
    """The lines of a file as UTF-8, parted at line feeds only."""
    opener = COMPRESSIONS.get(path.suffix.lower(), open)
    return cast("io.TextIOBase", opener(path, "rt", encoding="utf-8", newline="\n"))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def parse_json(line: str, path: Path, number: int) -> Any:
    """The value of a line.

    Raises:
        ValueError: if it is no JSON; names file and line.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: no JSON ({error}); allowed: one JSON value in a line.") from error


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file one after another, keyed by their own names where the file has some.

    Args:
        columns: the names of a TSV's or CSV's columns if its first line does not name them.

    Raises:
        ValueError: for an unreadable format or line.
    """
    kind = format_of(path)
    if kind == "parquet":
        yield from _parquet_rows(path)
    elif kind == "json":
        with open_text(path) as file:
            yield from parse_json(file.read(), path, 1)
    elif kind == "jsonl":
        for number, line in read_lines(path):
            yield parse_json(line, path, number)
    else:
        yield from _separated_rows(path, columns, "," if kind == "csv" else "\t")


def _separated_rows(path: Path, columns: Sequence[str], separator: str) -> Iterator[dict[str, Any]]:
    for place, (number, line) in enumerate(read_lines(path)):
        cells = next(csv.reader([line])) if separator == "," else line.split("\t")
        if place == 0 and is_header(cells):
            columns = cells
            continue
        if len(cells) < len(columns):
            raise ValueError(f"{path}, line {number}: {len(cells)} columns; allowed: {', '.join(columns)}.")
        if separator == "\t" and len(cells) > len(columns):  # a text with tabs in it
            cells = [*cells[: len(columns) - 1], " ".join(cells[len(columns) - 1 :])]
        yield dict(zip(columns, cells, strict=False))


def is_header(cells: Sequence[str]) -> bool:
    """Whether a first line names columns: two of its cells at least are names of columns, and none is a number."""
    if any(is_number(cell) for cell in cells):
        return False
    return sum(cell.strip() in _NAMED or cell.strip() in ("_id", "id", "title") for cell in cells) >= min(2, len(cells))


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number.

    >>> [is_number(cell) for cell in ("8", "-9.5", "1e-05", "d1", "nan", "")]
    [True, True, True, False, False, False]
    """
    return re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", cell, re.IGNORECASE) is not None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError(f"{path}: Parquet is read with pyarrow: pip install 'pyterrier-lir[parquet]'") from error
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def names_of(columns: Iterable[Any]) -> dict[Any, str]:
    """Column -> the name that is used here, for those that have another."""
    columns = list(columns)
    mapping: dict[Any, str] = {}
    for column in columns:  # the first of several names for the same wins, as `docno` and `docid` of PyTerrier
        name = _NAMED.get(column)
        if name and name not in mapping.values() and (name == column or name not in columns):
            mapping[column] = name
    if "docno" in columns and "doc_id" not in columns:
        mapping = {old: new for old, new in mapping.items() if new != "doc_id"} | {"docno": "doc_id"}
    return mapping


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its columns under the names that are used here, `docno` as `doc_id` and so on.

    >>> named(pd.DataFrame({"qid": ["1"], "docno": ["a"], "label": [1]})).columns.tolist()
    ['query_id', 'doc_id', 'relevance']
    """
    return frame.rename(columns=names_of(frame.columns))


def read_frame(path: Path, layouts: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """The whole table of a file, its columns named as here.

    Args:
        layouts: number of columns -> their names, for TSV and CSV whose first line does not name them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unreadable format, another number of columns, or no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    kind = format_of(path)
    if kind in ("json", "jsonl"):
        frame = pd.DataFrame(list(read_rows(path, [])))
    elif kind == "parquet":
        try:
            frame = pd.read_parquet(path)
        except ImportError as error:
            raise ImportError(f"{path}: Parquet is read with pyarrow: pip install 'pyterrier-lir[parquet]'") from error
    else:
        frame = _read_separated(path, layouts, kind)
    if frame.empty:
        raise ValueError(f"{path} holds no rows; was it written to its end?")
    return named(frame)


def _read_separated(path: Path, layouts: Mapping[int, Sequence[str]], kind: str) -> pd.DataFrame:
    first = next((line for _, line in read_lines(path)), None)
    if first is None:
        raise ValueError(f"{path} is empty; was it written to its end?")
    cells = next(csv.reader([first])) if kind == "csv" else first.split("\t")
    options: dict[str, Any] = {"dtype": str, "na_filter": False, "encoding": "utf-8"}
    if kind != "csv":
        options["quoting"] = csv.QUOTE_NONE
    separator = "," if kind == "csv" else "\t"
    if is_header(cells):
        return cast("pd.DataFrame", pd.read_csv(path, sep=separator, **options))
    if len(cells) == 1:  # TREC parts its columns by any white space
        separator, cells = r"\s+", first.split()
    if len(cells) not in layouts:
        known = "; ".join(" ".join(names) for names in layouts.values())
        raise ValueError(
            f"{path}: {len(cells)} columns in the first line; allowed: a line of column names, or {known}."
        )
    names = list(layouts[len(cells)])
    return cast("pd.DataFrame", pd.read_csv(path, sep=separator, header=None, names=names, **options))
