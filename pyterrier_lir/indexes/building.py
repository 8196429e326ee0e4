"""Documents in, shards out: the stream that every kind of index is built by."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..vectors import Vectors
from .docnos import Docnos, Strings, hash_of
from .storage import Build, Mode, read_meta

Document = dict[str, Any]
# documents -> parts of them with their vectors, in order
Encode = Callable[[Iterator[Document]], Iterator[tuple[list[Document], Vectors]]]
SHARD_DOCS, SHARD_BYTES = 262_144, 1 << 29


class ShardWriter(Protocol):
    """Writes the vectors of one shard."""

    size: int  # bytes of vectors so far

    def append(self, vectors: Vectors) -> None:
        """Write the vectors of further documents."""

    def close(self) -> None:
        """Write what is missing."""


@dataclass
class Plan:
    """What is built, and how.

    Attributes:
        path, mode, header: see `storage.Build`.
        writer: opens a shard's folder to be written.
        fields: names of the documents' strings that are stored too.
        replace: whether documents take the place of those that have their docno; otherwise that is an error.
        shard_docs: a shard ends with the part of the stream that makes it this long.
        total: number of documents, if it is known, for the progress bar.
        copies: see `storage.Build`.
        deleted: tells at the end which of the documents are no more; None if all are.
    """

    path: Path
    mode: Mode
    header: dict[str, Any]
    writer: Callable[[Path], AbstractContextManager[ShardWriter]]
    fields: tuple[str, ...] = ()
    replace: bool = False
    shard_docs: int = SHARD_DOCS
    total: int | None = None
    verbose: bool = False
    copies: bool = False
    deleted: Callable[[], NDArray[np.bool_] | None] | None = None


def build(plan: Plan, docs: Iterable[Document], encode: Encode) -> None:
    """Build an index from a stream of documents with `docno`.

    The documents of complete shards are passed over, not encoded again.  A shard ends where a part of the encoded
    stream ends, so that an interrupted build that goes on ends in the same bytes as one that was not.

    Raises:
        ValueError: for missing, empty or repeated docnos, or a stream that does not begin as it did before the
            interruption.
        TypeError: for docnos that are no strings.
    """
    work = Build(plan.path, plan.mode, plan.header, plan.copies, plan.replace)
    if work.complete:
        warnings.warn(f"{plan.path} is complete: nothing was indexed. To add documents: mode='append'.", stacklevel=3)
        return
    stream = iter(docs)
    with tqdm(total=plan.total, unit="doc", desc="indexing", disable=not plan.verbose) as bar:
        try:
            _skip(stream, work)
            bar.update(work.docs)
            parts = encode(stream)
            while _shard(plan, work, parts, bar):
                pass
            deleted = plan.deleted() if plan.deleted else _replaced(work) if work.replace else None
        except BaseException as error:
            if plan.copies or not work.docs:  # nothing is lost
                work.abandon()
            elif hasattr(error, "add_note"):
                error.add_note(
                    f"{work.docs} documents are safe in {work.work}: index again with mode='resume' to go on, or "
                    f"{work.instead()}."
                )
            raise
    work.finish(deleted)


def as_documents(docs: Iterable[Document] | pd.DataFrame) -> Iterable[Document]:
    """Documents as dictionaries, of a data frame its rows.

    Raises:
        TypeError: for what is one document, or a text.
    """
    if isinstance(docs, (str, bytes, dict, pd.Series)):
        raise TypeError(f"Documents are an iterable of dictionaries or a data frame, not a {type(docs).__name__}.")
    return cast("list[Document]", docs.to_dict("records")) if isinstance(docs, pd.DataFrame) else docs


def _shard(plan: Plan, work: Build, parts: Iterator[tuple[list[Document], Vectors]], bar: tqdm[None]) -> bool:
    """Write the next shard; whether there may be another."""
    docnos: dict[str, None] = {}  # in their order
    texts: dict[str, list[str]] = {name: [] for name in plan.fields}
    with work.shard() as (folder, whole):
        more, text_bytes = False, 0
        names: list[str] = []
        with plan.writer(folder) as writer:
            for docs, vectors in parts:
                fresh = [_docno(doc, len(names) + i + work.docs) for i, doc in enumerate(docs)]
                names += fresh
                docnos.update(dict.fromkeys(fresh))
                if len(docnos) < len(names) and not work.replace:
                    repeated_docno = Counter(names).most_common(1)[0][0]
                    raise ValueError(f"docno {repeated_docno!r} comes twice; {_ONCE}")
                for name in plan.fields:
                    fresh_texts = [_field(doc, name) for doc in docs]
                    text_bytes += sum(map(len, fresh_texts))
                    texts[name] += fresh_texts
                writer.append(vectors)
                bar.update(len(docs))
                if len(names) >= plan.shard_docs or writer.size + text_bytes >= SHARD_BYTES:
                    more = True
                    break
        if names:
            Docnos.write(folder, names)
            for name in plan.fields:
                Strings.write(folder, f"field.{name}", texts[name])
            if not work.replace:
                _check_new(names, work, plan)
            whole(len(names))
    return more


_ONCE = "every document needs a docno of its own. To let later documents take the place of earlier ones: replace=True."


def _docno(doc: Document, number: int) -> str:
    docno = doc.get("docno")
    if docno is None or docno == "":
        raise ValueError(f"Document {number} of the stream has no docno.")
    if not isinstance(docno, str):
        raise TypeError(f"Document {number} of the stream has docno {docno!r}; a docno is a string.")
    _check_utf8(docno, docno, "docno")
    return docno


def _field(doc: Document, name: str) -> str:
    value = doc.get(name)
    if not isinstance(value, str):
        raise ValueError(f"Document {doc['docno']!r} has {name}={value!r}; stored fields are strings.")
    _check_utf8(value, doc["docno"], name)
    return value


def _check_utf8(value: str, docno: str, name: str) -> None:
    """Refuse strings that cannot be stored."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"Document {docno!r} has {name}={value!r}, which is no Unicode text ({error}).") from error


def _check_new(names: Sequence[str], work: Build, plan: Plan) -> None:
    """Refuse docnos that earlier shards have."""
    docnos, hashes = np.array(names, dtype=object), hash_of(names)
    deleted = deleted_of(plan.path) if work.start else None
    for shard in work.shards():
        rows = Docnos(shard.folder).find(docnos, hashes)
        there = rows >= 0
        if deleted is not None:
            there &= ~_at(deleted, shard.start + rows)
        if there.any():
            raise ValueError(f"docno {docnos[there.argmax()]!r} is in the index already; {_ONCE}")


def _replaced(work: Build) -> NDArray[np.bool_]:
    """Documents that are no more: those deleted before, and those whose docno comes again."""
    shards = work.shards()
    deleted = np.zeros(work.start + work.docs, dtype=bool)
    if work.start and (before := deleted_of(work.path)) is not None:
        deleted[: len(before)] = before
    for at, shard in enumerate(shards):
        if shard.start < work.start:
            continue
        names = Docnos(shard.folder).strings[np.arange(shard.docs)]
        last = dict(zip(names, range(shard.docs), strict=True))
        deleted[shard.start : shard.start + shard.docs] |= np.array([last[n] != i for i, n in enumerate(names)])
        hashes = hash_of(names)
        for earlier in shards[:at]:
            rows = Docnos(earlier.folder).find(names, hashes)
            deleted[earlier.start + rows[rows >= 0]] = True
    return deleted


def deleted_of(path: Path) -> NDArray[np.bool_] | None:
    """The mask of deleted documents of a complete index."""
    name = read_meta(path).get("deleted")
    return None if name is None else np.load(path / name)


def _at(mask: NDArray[np.bool_], docids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The mask's values; False for docids behind its end."""
    inside = docids < len(mask)
    out = np.zeros(len(docids), dtype=bool)
    out[inside] = mask[docids[inside]]
    return out


def _skip(stream: Iterator[Document], work: Build) -> None:
    """Pass over the documents that complete shards hold, and compare the last of each."""
    done = 0
    for shard in work.shards():
        if shard.start < work.start:
            continue
        passed = list(islice(stream, shard.docs))
        done += len(passed)
        last = Docnos(shard.folder).strings[np.array([shard.docs - 1])][0]
        if len(passed) < shard.docs or str(passed[-1].get("docno")) != last:
            raise ValueError(
                f"The documents are not those of the interrupted build: document {done} was {last!r} then. Give the "
                f"same stream, or {work.instead()}."
            )
