"""The columns that transformers of this package read and write, and the checks that come before any work.

| what | columns | type |
|---|---|---|
| query / document text | `query`, `text` (another by `query_field=`, `text_field=`) | str |
| dense | `query_vec`, `doc_vec` | float32 (D,) |
| learned sparse | `query_toks`, `toks` | dict: token -> float weight |
| multi-vector | `query_embs`, `doc_embs` | float32 (tokens, D) |
| their tokens, where models compare them | `query_embs_toks`, `doc_embs_toks` | int32 (tokens,) |
| result | `qid`, `docno`, `score`, `rank` | `rank` from 0 |

Every other column is passed through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyterrier as pt
from scipy.sparse import csr_array

from .config import BiEncoderConfig, Kind
from .vectors import Encoded, TokenVectors, Vectors

# kind of vectors -> columns of queries and of documents
VECTOR_COLUMNS: dict[Kind, tuple[str, str]] = {
    "dense": ("query_vec", "doc_vec"),
    "sparse": ("query_toks", "toks"),
    "multi_vector": ("query_embs", "doc_embs"),
}
_MADE_BY = "pyterrier_lir.made_by"  # in `attrs` of a frame: column of vectors -> a `MadeBy` as a list or tuple

HINTS = {
    "text": "add the documents' text with `>> pt.text.get_text(dataset)`, or name its column with text_field=",
    "query": "a first-stage retriever keeps the query column; name another one with query_field=",
}


class MadeBy(NamedTuple):
    """The model whose vectors a column holds, and how they are compared."""

    source: str
    fingerprint: str
    similarity: str = "dot"  # a `Similarity`


def made_by(frame: pd.DataFrame, column: str) -> MadeBy | None:
    """The model that made a column of vectors; None where the frame does not tell."""
    found = frame.attrs.get(_MADE_BY, {}).get(column)
    return None if found is None else MadeBy(*found)


def tell_made_by(frame: pd.DataFrame, column: str, model: MadeBy) -> None:
    """Tell who reads the frame later which model made a column of vectors."""
    frame.attrs[_MADE_BY] = {**frame.attrs.get(_MADE_BY, {}), column: tuple(model)}


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
        ValueError: if a value is missing (which rows), or the column is there twice.
        TypeError: if a value is no string.
    """
    check_once(frame, [column])
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


def check_once(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Check that a frame has no column of these names twice.

    Raises:
        ValueError: naming the first that it has more than once.
    """
    for name in names if not frame.columns.is_unique else ():
        if (count := int((frame.columns == name).sum())) > 1:
            raise ValueError(
                f"The frame has {count} columns {name!r}; keep the first of each with "
                "frame.loc[:, ~frame.columns.duplicated()], or rename the others."
            )


def check_qids(frame: pd.DataFrame) -> None:
    """Check that all rows of results belong to a query.

    Raises:
        ValueError: if a qid is missing.
    """
    missing = frame["qid"].isna().to_numpy()
    if missing.any():
        raise ValueError(f"{missing.sum()} of {len(frame)} rows have no qid, {_first(frame, missing)}.")


def check_scores(frame: pd.DataFrame, scores: np.ndarray) -> None:
    """Check that a model's scores (N,) of the rows can be ranked.

    Raises:
        ValueError: for NaN and infinite scores.
    """
    wrong = ~np.isfinite(scores)
    if wrong.any():
        raise ValueError(
            f"The model's scores are NaN or infinite in {wrong.sum()} of {len(frame)} rows, {_first(frame, wrong)}. "
            "With precision='fp16', take 'bf16'; in another precision, the checkpoint's weights are broken."
        )


def check_texts(texts: object, name: str) -> list[str]:
    """The strings of a list that a user gives.

    Raises:
        TypeError: for one string alone, for a table, for a set, which has no order, or for something else in the
            list.

    >>> check_texts(["a", None], "docs")
    Traceback (most recent call last):
        ...
    TypeError: docs[1] is NoneType instead of str.
    """
    if isinstance(texts, pd.DataFrame):  # an iterable of its columns' names
        raise TypeError(f"{name} is DataFrame; give frame['text'], or for `rank` a dict docno -> text.")
    if isinstance(texts, (str, Mapping, set, frozenset)) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} is {type(texts).__name__}; allowed: a list of strings, also for a single one.")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}] is {type(text).__name__} instead of str.")
    return found


def _first(frame: pd.DataFrame, chosen: np.ndarray) -> str:
    """The first chosen row, by the ids that a user knows."""
    row = frame.iloc[int(chosen.argmax())]
    return "first in " + ", ".join(f"{name}={row[name]!r}" for name in ("qid", "docno") if name in frame.columns)


def transform_iter(transformer: pt.Transformer, inp: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """As `transform`, on dictionaries; of none, none, where PyTerrier's own misses the columns."""
    rows = list(inp)
    out: list[Any] = transformer.transform(pd.DataFrame(rows)).to_dict(orient="records") if rows else []
    return iter(out)


class Terms:
    """The vocabulary of sparse vectors as strings, and back.

    Rows of the vocabulary that no token stands for (padding of the embeddings) are named `[id]` with their number.

    Args:
        vocabulary: token -> id.
        size: how many ids sparse vectors have.
    """

    def __init__(self, vocabulary: dict[str, int], size: int) -> None:
        self._ids = vocabulary
        self._size = size
        names = [f"[{i}]" for i in range(size)]
        for token, i in vocabulary.items():
            if i < size:
                names[i] = token
        self.names = np.array(names, dtype=object)

    def id_of(self, term: str | int) -> int:
        """The id of a token, of a name `[id]`, or of an id.

        Raises:
            ValueError: if the vocabulary has no such token.
        """
        found = term if isinstance(term, (int, np.integer)) else self._ids.get(term)
        if found is None and isinstance(term, str) and term[:1] == "[" and term[1:-1].isdigit():
            found = int(term[1:-1])
        if found is None or not 0 <= found < self._size:
            raise ValueError(f"Token {term!r} is not in the model's vocabulary: the weights are of another model.")
        return int(found)


def with_vectors(
    frame: pd.DataFrame, encoded: Encoded, codes: np.ndarray, query: bool, terms: Terms | None = None
) -> pd.DataFrame:
    """The frame with a column for each kind of vectors; row i gets those of text `codes[i]`.

    Args:
        terms: names the tokens of sparse vectors.
    """
    columns = {name: [rows[code] for code in codes] for name, rows in vector_columns(encoded, query, terms).items()}
    return frame.assign(
        **{name: pd.Series(values, index=frame.index, dtype=object) for name, values in columns.items()}
    )


def vector_columns(encoded: Encoded, query: bool, terms: Terms | None = None) -> dict[str, list[Any]]:
    """A column for each kind of vectors, with a value for each text; and one of token ids where those are compared."""
    columns: dict[str, list[Any]] = {}
    for kind, vectors in encoded.items():
        name = VECTOR_COLUMNS[kind][0 if query else 1]
        if isinstance(vectors, TokenVectors):
            columns[name] = vectors.rows() if len(vectors) else []
            if vectors.ids is not None:
                columns[f"{name}_toks"] = np.split(vectors.ids, vectors.offsets[1:-1]) if len(vectors) else []
        elif kind == "sparse":
            columns[name] = token_weights(cast("csr_array", vectors), cast("Terms", terms))
        else:
            columns[name] = list(cast("np.ndarray", vectors))
    return columns


def token_weights(vectors: csr_array, terms: Terms) -> list[dict[str, float]]:
    """A dictionary token -> weight for each row, the largest weight first."""
    row = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    order = np.lexsort((-vectors.data, row))
    ids, weights = vectors.indices[order], vectors.data[order].astype(float).tolist()
    names = terms.names[ids].tolist()
    bounds = vectors.indptr.tolist()
    return [dict(zip(names[start:stop], weights[start:stop], strict=True)) for start, stop in pairwise(bounds)]


def stored_vectors(frame: pd.DataFrame, config: BiEncoderConfig, query: bool, terms: Terms | None) -> Vectors:
    """The vectors in a frame's column, one for each row.

    Raises:
        ValueError: if a row has none, rows differ in size, or numbers or weights are not finite.
        TypeError: if a row holds something else.
    """
    name = VECTOR_COLUMNS[config.kind][0 if query else 1]
    values = frame[name]
    null = values.isna().to_numpy()
    if null.any():
        raise ValueError(f"{name!r} is missing in {null.sum()} of {len(frame)} rows, {_first(frame, null)}.")
    if config.kind == "sparse":
        assert terms is not None
        return _stored_tokens(frame, name, terms)
    wanted = 1 if config.kind == "dense" else 2
    rows = [np.asarray(value, dtype=np.float32) if _numeric(value) else None for value in values]
    wrong = np.array([row is None or row.ndim != wanted for row in rows])
    if wrong.any():
        shape = "(D,)" if wanted == 1 else "(tokens, D)"
        given = values.iloc[int(wrong.argmax())]
        raise TypeError(
            f"{name!r} holds {type(given).__name__} instead of an array {shape} of numbers in {wrong.sum()} of "
            f"{len(frame)} rows, {_first(frame, wrong)}."
        )
    arrays = cast("list[np.ndarray]", rows)
    sizes = np.array([row.shape[-1] for row in arrays])
    if (sizes != sizes[0]).any():
        raise ValueError(
            f"{name!r} holds vectors of {sizes[0]} and of {sizes[sizes != sizes[0]][0]} numbers, the second "
            f"{_first(frame, sizes != sizes[0])}."
        )
    infinite = np.array([not np.isfinite(row).all() for row in arrays])
    if infinite.any():
        raise ValueError(f"{name!r} holds NaN or infinite numbers in {infinite.sum()} rows, {_first(frame, infinite)}.")
    if config.kind == "dense":
        return np.stack(arrays)
    return TokenVectors.of(arrays, _token_ids(frame, name, arrays) if config.exact_match else None)


def _token_ids(frame: pd.DataFrame, name: str, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Which token each vector is of."""
    if f"{name}_toks" not in frame.columns:
        raise ValueError(
            f"The model compares vectors of equal tokens only: a column {name}_toks with their ids is needed."
        )
    ids = [np.asarray([] if given is None else given, dtype=np.int32) for given in frame[f"{name}_toks"]]
    wrong = np.array([own.shape != (len(array),) for own, array in zip(ids, arrays, strict=True)])
    if wrong.any():
        raise ValueError(
            f"'{name}_toks' does not hold a token id for each vector in {wrong.sum()} of {len(frame)} rows, "
            f"{_first(frame, wrong)}."
        )
    return ids


def _numeric(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind in "fiu")
    return isinstance(value, (list, tuple)) or hasattr(value, "__array__")


def _stored_tokens(frame: pd.DataFrame, name: str, terms: Terms) -> csr_array:
    rows = list(frame[name])
    wrong = np.array([not isinstance(row, dict) for row in rows])
    if wrong.any():
        raise TypeError(f"{name!r} holds {type(rows[int(wrong.argmax())]).__name__} instead of a dict of tokens and "
                        f"weights in {wrong.sum()} of {len(frame)} rows, {_first(frame, wrong)}.")  # fmt: skip
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    known: dict[Any, int] = {}
    ids = [known[term] if term in known else known.setdefault(term, terms.id_of(term)) for row in rows for term in row]
    weights = np.array([weight for row in rows for weight in row.values()], dtype=np.float32)
    if not np.isfinite(weights).all():
        wrong = np.array([not np.isfinite(list(row.values())).all() for row in rows])
        raise ValueError(f"{name!r} holds NaN or infinite weights in {wrong.sum()} rows, {_first(frame, wrong)}.")
    found = csr_array((weights, np.array(ids, dtype=np.int32), indptr), shape=(len(rows), len(terms.names)))
    found.sort_indices()
    return found
