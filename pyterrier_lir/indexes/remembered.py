"""The model that an index remembers, for queries that come as text."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from .index import LIRIndex
    from .union import IndexUnion


_ENCODERS: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()  # what an index was made with, its encoder


def query_encoder(index: LIRIndex | IndexUnion) -> Any:
    """The transformer that encodes queries by the model that an index was made with, which is loaded once.

    Raises:
        ValueError: if the index was made from vectors alone, or by the model with settings that are not its own.
        FileNotFoundError: if the model is no longer where it was.
    """
    index.refresh()
    made_with = index.meta["model"], index.config
    if index not in _ENCODERS or _ENCODERS[index][0] != made_with:
        _ENCODERS[index] = made_with, _opened(index)
    return _ENCODERS[index][1]


def _opened(index: LIRIndex | IndexUnion) -> Any:
    from ..pipeline import LIRBiEncoder  # which stands above indexes
    from .retriever import check_model

    made_by = index.meta["model"]
    if not made_by.get("source"):
        raise ValueError(
            f"{index!r} was made from vectors alone and knows no model for queries that are text: put the "
            "query_encoder() of a LIRBiEncoder in front of it."
        )
    made = index.config
    encoder = LIRBiEncoder(made_by["source"], outputs=(index.KIND,), query_length=made.query_length,
                           query_prompt=made.query_prompt, truncate_dim=made.embedding_dim)  # fmt: skip
    check_model(index, *(encoder.record()[name] for name in ("source", "fingerprint")))
    own = encoder.config()
    other = [f"{field.name}={getattr(made, field.name)!r}" for field in fields(made)
             if field.name[:4] != "doc_" and getattr(made, field.name) != getattr(own, field.name)]  # fmt: skip
    if other:
        raise ValueError(
            f"{index!r} was made with {', '.join(other)}, other than {made_by['source']} has by itself: put the "
            "query_encoder() of that model in front of it."
        )
    if index.KIND == "sparse":
        encoder.token_ids = not named_as(index, encoder.terms())
    return encoder.query_encoder()


def named_as(index: Any, terms: list[str]) -> bool:
    """Whether all terms of a sparse index are among these."""
    parts = getattr(index, "parts", [index])
    return all({*part.terms.names} <= {*terms} for part in parts)
