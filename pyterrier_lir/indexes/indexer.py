"""Indexer: documents with vectors into an index of their kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pyterrier as pt

from ..columns import VECTOR_COLUMNS
from ..config import BiEncoderConfig
from ..display import Drawn, chosen
from ..vectors import Vectors
from .building import Document, Plan, as_documents, build
from .docnos import as_fields
from .storage import Mode

if TYPE_CHECKING:
    from .index import LIRIndex

_ROWS = 1_024  # documents that are checked and written together
_GONE = ("version", "docs", "shards", "deleted")  # what the metadata has beside the header


class Encoder(Protocol):
    """What makes vectors, such as a `LIRBiEncoder`."""

    def config(self) -> BiEncoderConfig:
        """How its vectors are compared."""

    def record(self) -> dict[str, Any]:
        """What an index remembers of it."""

    def terms(self) -> list[str]:
        """The names of the terms of sparse vectors."""


class Indexer(Drawn, pt.Indexer):
    """Builds an index from documents that have vectors: `(encoder.doc_encoder() >> index.indexer()).index(corpus)`.

    Args:
        index: where to.
        mode: `create`, `overwrite`, `append`, or `resume` an interrupted build.
        include_fields: strings of the documents that are stored beside their vectors, such as `text`.
        replace: with `append`, whether documents take the place of those that have their docno.
        encoder: the `LIRBiEncoder` that makes the vectors, which do not tell how they are compared, nor by what model
            they are made.  With it the index is that of `LIRIndexer`; without it vectors of any model may search.
        config: how vectors are compared, where there is no encoder to tell it; None for the dot product (for token
            vectors, MaxSim).
        model: what is recorded of the model, where there is no encoder to tell it: `source` and `fingerprint`.
        shard_docs: a shard ends with the batch that gives it at least so many documents, or enough bytes.
        verbose: show a progress bar.
        settings: of the kind of index, such as `dtype`.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: see `storage.Build` and `building.build`.
    """

    def __init__(
        self,
        index: LIRIndex,
        *,
        mode: Mode = "create",
        include_fields: Iterable[str] | str = (),
        replace: bool = False,
        encoder: Encoder | None = None,
        config: BiEncoderConfig | None = None,
        model: dict[str, Any] | None = None,
        shard_docs: int = 262_144,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        self.index_ = index
        self.mode, self.include_fields, self.replace = mode, as_fields(include_fields), replace
        self.encoder, self.config, self.model = encoder, config, model or {}
        self.shard_docs, self.verbose = shard_docs, verbose
        if encoder is not None and (config is not None or model is not None):
            raise ValueError("The encoder tells config and model; give it, or these.")
        self.settings = settings

    def index(self, iter: Iterable[Document] | pd.DataFrame, **kwargs: Any) -> LIRIndex:
        """Build the index and open it.

        Args:
            iter: documents with `docno`, the stored fields, and `doc_vec`, `toks` or `doc_embs`; dictionaries, or a
                data frame.
        """
        iter = as_documents(iter)
        column = VECTOR_COLUMNS[self.index_.KIND][1]
        stream = _Stream(iter)
        first = stream.peek()
        if first is not None and column not in first:
            raise ValueError(
                f"Documents have no {column!r} (they have: {', '.join(first)}); put a doc_encoder() in front."
            )
        config = self.encoder.config() if self.encoder else self.config or default_config(self.index_.KIND)
        size = None if first is None or self.index_.KIND == "sparse" else _size(first[column])
        made_by, own = (self.encoder.record() if self.encoder else self.model), dict(self.settings)
        if self.encoder and self.index_.KIND == "sparse":
            own["terms"] = self.encoder.terms()
        header = make_header(self.index_, config, size, made_by, self.include_fields, own)
        total = len(iter) if isinstance(iter, Sized) else None
        plan = Plan(self.index_.folder, self.mode, header, lambda folder: self.index_._writer(folder, header),
                    self.include_fields, self.replace, self.shard_docs, total, self.verbose)  # fmt: skip

        def encode(docs: Iterator[Document]) -> Iterator[tuple[list[Document], Vectors]]:
            while part := list(islice(docs, _ROWS)):
                read = ["docno", column, *([f"{column}_toks"] if config.exact_match else [])]
                frame = pd.DataFrame({name: pd.Series([doc.get(name) for doc in part], dtype=object) for name in read})
                yield part, self.index_._vectors(frame, config)

        build(plan, stream, encode)
        self.index_.reopen()
        return self.index_

    def index_inputs(self) -> list[list[str]]:
        """The columns that documents need."""
        return [["docno", VECTOR_COLUMNS[self.index_.KIND][1], *self.include_fields]]

    def facts(self) -> dict[str, Any]:
        """What the display tells."""
        return {"index": self.index_, **chosen(self, "index"), **self.settings}

    def __repr__(self) -> str:
        return f"{self.index_!r}.indexer(mode={self.mode!r})"


def _size(vectors: Any) -> int | None:
    """How many numbers a document's vectors have; None of what is no array, which is refused when it is read."""
    shape = np.shape(vectors)
    return int(shape[-1]) if shape else None


class _Stream:
    """An iterator whose first item can be looked at."""

    def __init__(self, items: Iterable[Document]) -> None:
        self._items = iter(items)

    def peek(self) -> Document | None:
        first = next(self._items, None)
        if first is not None:
            self._items = chain([first], self._items)
        return first

    def __iter__(self) -> Iterator[Document]:
        return self._items


def default_config(kind: str) -> BiEncoderConfig:
    """How vectors are compared where nothing is said."""
    if kind == "sparse":
        return BiEncoderConfig.splade()
    if kind == "multi_vector":
        return BiEncoderConfig(query_pooling_strategy=None, doc_pooling_strategy=None)
    return BiEncoderConfig()


def make_header(
    index: LIRIndex, config: BiEncoderConfig, size: int | None, model: dict[str, Any], fields: tuple[str, ...],
    settings: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """What an index is: type, model, comparison of vectors, stored fields, and the settings of its kind.

    Raises:
        TypeError: for settings that the kind does not have.
        ValueError: if the configuration is of another kind, or a field has a name that no file can have.
    """
    for name in fields:
        if not name or "/" in name or "\0" in name:
            raise ValueError(f"The field {name!r} cannot be stored: files bear the names of fields.")
    if config.kind != index.KIND:
        raise ValueError(f"{config.kind} vectors do not go into a {type(index).__name__}.")
    own = index._header(config, size, settings)
    if settings:
        there = ", ".join(index.SETTINGS)
        raise TypeError(f"{type(index).__name__} has no setting {', '.join(settings)}; it has: {there}.")
    return {
        "type": index.ARTIFACT_TYPE, "format": index.ARTIFACT_FORMAT, "package_hint": index.ARTIFACT_PACKAGE_HINT,
        "model": model, "config": config.to_dict(), "fields": list(fields), **own,
    }  # fmt: skip


def header_of(meta: dict[str, Any]) -> dict[str, Any]:
    """The header of a complete index."""
    return {name: value for name, value in meta.items() if name not in _GONE}
