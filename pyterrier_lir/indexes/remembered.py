"""The model that an index remembers, for queries that come as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .index import LIRIndex
    from .union import IndexUnion


def query_encoder(index: LIRIndex | IndexUnion) -> Any:
    """The transformer that encodes queries by the model that an index was made with, which it loads.

    Queries are encoded with the model's own settings; put a `query_encoder()` in front of the index for others.

    Raises:
        ValueError: if the index was made from vectors alone.
        FileNotFoundError: if the model is no longer where it was.
    """
    from ..pipeline import LIRBiEncoder  # which stands above indexes

    made_by = index.meta["model"]
    if not made_by.get("source"):
        raise ValueError(
            f"{index!r} was made from vectors alone and knows no model for queries that are text: put the "
            "query_encoder() of a LIRBiEncoder in front of it."
        )
    lengths = {name: value for name, value in made_by.get("settings", {}).items() if name == "max_length"}
    encoder = LIRBiEncoder(made_by["source"], outputs=(index.KIND,), **lengths)
    if index.KIND == "sparse":
        encoder.token_ids = not named_as(index, encoder.terms())
    return encoder.query_encoder()


def named_as(index: Any, terms: list[str]) -> bool:
    """Whether all terms of a sparse index are among these."""
    parts = getattr(index, "parts", [index])
    return all({*part.terms.names} <= {*terms} for part in parts)
