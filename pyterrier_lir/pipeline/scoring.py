"""A bi-encoder's scores for the rows of a result frame: by stored vectors where there are any, else by texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import pyterrier as pt

from ..columns import HINTS, VECTOR_COLUMNS, Terms, check_once, check_qids, made_by, stored_vectors, text_values
from ..config import KINDS, BiEncoderConfig, Kind
from ..vectors import Encoded, TokenVectors, Vectors

if TYPE_CHECKING:
    from ..engine import Engine
    from ..models import BiEncoderModel


def check_scorable(
    frame: pd.DataFrame, texts: dict[str, str], transformer: pt.Transformer, kinds: Sequence[Kind] = KINDS
) -> None:
    """Check that a result frame has texts, or vectors of one of the kinds, through `pt.validate`.

    Args:
        texts: `query` and `text` -> their columns.

    Raises:
        pt.validate.InputValidationError: naming the missing columns and the step that adds them.
        ValueError: for rows without qid, and columns that are there twice.
    """
    query, text = texts["query"], texts["text"]
    try:
        with pt.validate.any(frame, context=transformer) as check:
            check.result_frame(extra_columns=[query, text])
            for kind in kinds:
                query_vectors, doc_vectors = VECTOR_COLUMNS[kind]
                check.result_frame(extra_columns=[query, doc_vectors])
                check.result_frame(extra_columns=[query_vectors, doc_vectors])
                check.result_frame(extra_columns=[query_vectors, text])
    except pt.validate.InputValidationError as error:
        missing = [what for what, column in texts.items() if column not in frame.columns]
        advice = "".join(f" No column {texts[what]!r}: {HINTS[what]}." for what in missing)
        raise pt.validate.InputValidationError(f"{error.args[0]}{advice}", error.modes) from None
    check_once(frame, ["qid", "docno", "score", "rank", query, text])
    check_qids(frame)


def scored(
    frame: pd.DataFrame, engine: Engine, texts: dict[str, str], transformer: pt.Transformer, token_ids: bool
) -> np.ndarray:
    """Scores (N,) of the rows; those of several outputs are added.

    Args:
        token_ids: stored sparse vectors name tokens by their ids.

    Raises:
        pt.validate.InputValidationError: if there are only vectors of another kind than the model's.
        ValueError: if stored vectors are not the model's.
    """
    model = cast("BiEncoderModel", engine.model)
    if not any(set(columns) & set(frame.columns) for columns in VECTOR_COLUMNS.values()):
        queries, docs = (text_values(frame, texts[what]) for what in ("query", "text"))
        return engine.score(queries, docs)
    check_scorable(frame, texts, transformer, model.kinds)
    (encoded_queries, query_of), (encoded_docs, doc_of) = (
        _sides(frame, engine, texts["query" if query else "text"], query, token_ids) for query in (True, False)
    )
    return engine.pair_scores(encoded_queries, encoded_docs, query_of, doc_of)


def _sides(
    frame: pd.DataFrame, engine: Engine, text_field: str, query: bool, token_ids: bool
) -> tuple[Encoded, np.ndarray]:
    """Vectors of the queries or documents, and which of them each row has."""
    model = cast("BiEncoderModel", engine.model)
    columns = {kind: VECTOR_COLUMNS[kind][0 if query else 1] for kind in model.kinds}
    if not set(columns.values()) <= set(frame.columns):
        codes, distinct = pd.factorize(text_values(frame, text_field))
        return engine.encode(list(distinct), query), codes
    for column in columns.values():
        _check_maker(frame, column, model)
    key = "qid" if query else "docno"
    codes = pd.factorize(frame[key].astype(object))[0]
    first = np.unique(codes, return_index=True)[1]
    if any(frame[name].isna().any() or not _same(frame[name], codes, first) for name in columns.values()):
        codes, first = np.arange(len(frame)), np.arange(len(frame))  # rows of one docno have vectors of their own
    chosen = frame.iloc[first]
    terms = terms_of(model, token_ids) if "sparse" in model.kinds else None
    encoded = {config.kind: stored_vectors(chosen, config, query, terms) for config in model.configs}
    for config, vectors in zip(model.configs, encoded.values(), strict=True):
        _check_size(model, config, vectors, columns[config.kind])
    return encoded, codes


def _same(column: pd.Series, codes: np.ndarray, first: np.ndarray) -> bool:
    """Whether all rows of a query (document) hold the very same object, as first stages leave it."""
    values = column.to_numpy(dtype=object)
    return all(value is values[first[code]] for value, code in zip(values, codes, strict=True))


def _check_maker(frame: pd.DataFrame, column: str, model: BiEncoderModel) -> None:
    maker = made_by(frame, column)
    if maker is not None and maker.fingerprint != model.fingerprint:
        raise ValueError(
            f"{column!r} was made with {maker.source}, whose weights are not those of {model.source}. Score with that "
            "model, drop the column to have the texts encoded, or empty the frame's attrs if the two fit."
        )


def _check_size(model: BiEncoderModel, config: BiEncoderConfig, vectors: Vectors, column: str) -> None:
    if config.kind == "sparse":
        return
    size = (vectors.values if isinstance(vectors, TokenVectors) else vectors).shape[1]
    wanted = model.size(config.kind)
    if size != wanted:
        raise ValueError(
            f"{column!r} holds vectors of {size} numbers; those of {model.source} have {wanted}. They are of another "
            "model, or were cut to another size (truncate_dim=)."
        )


_TERMS: WeakKeyDictionary[BiEncoderModel, dict[bool, Terms]] = WeakKeyDictionary()  # made once for each model


def terms_of(model: BiEncoderModel, token_ids: bool = False) -> Terms:
    """The names of the terms of a sparse model: the vocabulary's strings, or their ids as strings."""
    made = _TERMS.setdefault(model, {})
    if token_ids not in made:
        size = model.vocabulary_size
        vocabulary = {str(i): i for i in range(size)} if token_ids else model.tokenizers[0].tokenizer.get_vocab()
        made[token_ids] = Terms(vocabulary, size)
    return made[token_ids]
