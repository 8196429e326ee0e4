"""The columns that transformers of this package read and write, and the checks that come before any work.

| what | columns | type |
|---|---|---|
| query / document text | `query`, `text` (another by `query_field=`, `text_field=`) | str |
| result | `qid`, `docno`, `score`, `rank` | `rank` from 0 |

Every other column is passed through.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyterrier as pt

HINTS = {
    "text": "add the documents' text with `>> pt.text.get_text(dataset)`, or name its column with text_field=",
    "query": "a first-stage retriever keeps the query column; name another one with query_field=",
}


def check_results(frame: pd.DataFrame, texts: dict[str, str], transformer: pt.Transformer) -> None:
    """Check that a result frame has the columns that a re-ranker reads, through `pt.validate`.

    Args:
        texts: what is read -> its column, such as `{"text": "body"}`.

    Raises:
        pt.validate.InputValidationError: naming the missing columns and the step that adds them.
    """
    try:
        with pt.validate.any(frame, context=transformer) as check:
            check.result_frame(extra_columns=list(texts.values()))
    except pt.validate.InputValidationError as error:
        missing = [what for what, column in texts.items() if column not in frame.columns]
        advice = "".join(f" No column {texts[what]!r}: {HINTS[what]}." for what in missing)
        raise pt.validate.InputValidationError(f"{error.args[0]}{advice}", error.modes) from None


def text_values(frame: pd.DataFrame, column: str) -> np.ndarray:
    """The strings of a column as an object array.

    Raises:
        ValueError: if a value is missing (which rows).
        TypeError: if a value is no string.
    """
    values = frame[column]
    null = values.isna().to_numpy()
    if null.any():
        raise ValueError(f"{column!r} is missing in {null.sum()} of {len(frame)} rows, {_first(frame, null)}; "
                         "drop these rows or fill them, for instance with fillna('').")  # fmt: skip
    array = values.to_numpy(dtype=object)
    wrong = np.fromiter((not isinstance(value, str) for value in array), dtype=bool, count=len(array))
    if wrong.any():
        kind = type(array[wrong.argmax()]).__name__
        raise TypeError(
            f"{column!r} holds {kind} instead of str in {wrong.sum()} of {len(frame)} rows, {_first(frame, wrong)}."
        )
    return array


def _first(frame: pd.DataFrame, chosen: np.ndarray) -> str:
    """The first chosen row, by the ids that a user knows."""
    row = frame.iloc[int(chosen.argmax())]
    return "first in " + ", ".join(f"{name}={row[name]!r}" for name in ("qid", "docno") if name in frame.columns)
