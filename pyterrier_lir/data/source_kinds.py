"""The kinds of sources of queries, documents, judgements, rankings and tuples, each behind the same few members."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from .file_formats import format_of, named, read_frame, read_rows
from .judgements import Judgements
from .text_store import MemoryTexts, Texts, TextStore, cache_folder, missing_message, text_of

DOC_IDS = ("doc_id", "docno", "docid", "id", "_id", "pid")
QUERY_IDS = ("query_id", "qid", "id", "_id")
TEXTS = ("text", "contents", "body", "passage")
QUERY_TEXTS = ("query", "text", "title", "question")
QRELS_LAYOUTS = {
    4: ("query_id", "iteration", "doc_id", "relevance"),
    3: ("query_id", "doc_id", "relevance"),
}


class Source:
    """Queries, documents, judgements, rankings and tuples of one collection, read when they are first asked for.

    Args:
        name: what errors call it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def queries(self) -> Mapping[str, str]:
        """Query texts by id."""
        raise self._lacks("queries")

    def documents(self, text_fields: Sequence[str] | None = None) -> Texts:
        """Document texts by id: title and text, or the fields that are named, joined by spaces."""
        raise self._lacks("documents")

    @cached_property
    def docs(self) -> Texts:
        """Document texts by id, of title and text."""
        return self.documents()

    @property
    def qrels(self) -> Judgements | None:
        """Judgements, None without any."""
        return None

    def scored_docs(self) -> pd.DataFrame | Path | None:
        """A ranking: a table with `query_id`, `doc_id`, `score`, or the run file it is in; None without any."""
        return None

    def doc_tuples(self) -> Iterable[Any] | None:
        """Queries with documents to train on, None without any."""
        return None

    def query_texts(self, query_ids: Sequence[str]) -> list[str]:
        """The texts of queries.

        Raises:
            ValueError: if any has none; names the first and counts them.
        """
        queries = self.queries
        if missing := [query_id for query_id in query_ids if query_id not in queries]:
            raise ValueError(missing_message(missing, len(query_ids), "query"))
        return [queries[query_id] for query_id in query_ids]

    def _lacks(self, what: str) -> ValueError:
        return ValueError(f"{self.name} has no {what}; give a source that has some (as dataset=, where there is one).")


class FrameSource(Source):
    """Parts that are in memory already.

    Args:
        parts: `queries` and `docs` as frames or dictionaries of texts by id, `qrels` and `scoreddocs` as frames,
            `docpairs` as a list.
    """

    PARTS = ("queries", "docs", "qrels", "scoreddocs", "docpairs")

    def __init__(self, parts: Mapping[str, Any], name: str = "the frames") -> None:
        super().__init__(name)
        if unknown := set(parts) - set(self.PARTS):
            raise ValueError(f"{', '.join(map(repr, sorted(unknown)))}: no part; allowed: {', '.join(self.PARTS)}.")
        self._parts = parts

    @cached_property
    def queries(self) -> Mapping[str, str]:
        """Query texts by id."""
        if "queries" not in self._parts:
            raise self._lacks("queries")
        return _texts_of(self._parts["queries"], QUERY_IDS, QUERY_TEXTS, None, f"queries of {self.name}")

    def documents(self, text_fields: Sequence[str] | None = None) -> Texts:
        """Document texts by id."""
        if "docs" not in self._parts:
            raise self._lacks("documents")
        docs = self._parts["docs"]
        return docs if isinstance(docs, Texts) else _texts_of(docs, DOC_IDS, TEXTS, text_fields, f"docs of {self.name}")

    @cached_property
    def qrels(self) -> Judgements | None:
        """Judgements, None without any."""
        frame = self._parts.get("qrels")
        return None if frame is None else Judgements(frame, f"qrels of {self.name}")

    def scored_docs(self) -> pd.DataFrame | None:
        """The ranking, None without any."""
        return self._parts.get("scoreddocs")

    def doc_tuples(self) -> Iterable[Any] | None:
        """The tuples, None without any."""
        return self._parts.get("docpairs")


class FileSource(Source):
    """Files: a folder with `corpus.jsonl.gz`, `topics.tsv` and `qrels.txt`, or one file of documents or queries.

    Args:
        path: the folder or file.
        variant: `train` stands for `topics.train.tsv` and `qrels.train.txt`.
    """

    def __init__(self, path: Path, variant: str | None = None) -> None:
        super().__init__(f"{path}:{variant}" if variant else str(path))
        self.path, self.variant = path, variant

    def _file(self, stem: str) -> Path | None:
        if self.path.is_file():
            return self.path
        found = [path for path in sorted(self.path.glob(f"{stem}.*")) if _stem(path) == stem and path.is_file()]
        return found[0] if found else None

    @property
    def _suffix(self) -> str:
        return f".{self.variant}" if self.variant else ""

    @cached_property
    def queries(self) -> Mapping[str, str]:
        """Query texts by id."""
        path = self._file(f"topics{self._suffix}") or self._file(f"queries{self._suffix}")
        if path is None:
            raise self._lacks("queries")
        rows = read_rows(path, ("query_id", "query"))
        return MemoryTexts(_unique(id_text_pairs(rows, QUERY_IDS, QUERY_TEXTS, None, str(path)), str(path)))

    def documents(self, text_fields: Sequence[str] | None = None) -> Texts:
        """Document texts by id, out of a store in the cache folder that is written at first use."""
        path = self._file("corpus") or self._file("docs")
        if path is None:
            raise self._lacks("documents")
        stat = path.stat()
        known = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {list(text_fields or ())}"
        folder = cache_folder() / "texts" / f"{_stem(path)}-{hashlib.sha256(known.encode()).hexdigest()[:16]}"
        if (folder / "store.json").is_file():
            return TextStore(folder)
        rows = read_rows(path, ("doc_id", "text"))
        return TextStore.build(folder, id_text_pairs(rows, DOC_IDS, TEXTS, text_fields, str(path)))

    @cached_property
    def qrels(self) -> Judgements | None:
        """Judgements, None without any."""
        path = None if self.path.is_file() else self._file(f"qrels{self._suffix}")
        return None if path is None else Judgements(read_frame(path, QRELS_LAYOUTS), str(path))


class PyTerrierSource(Source):
    """A PyTerrier dataset, or anything with its methods.

    Args:
        dataset: with `get_topics`, `get_qrels` and `get_corpus_iter`, as far as they are needed.
        variant: which topics and judgements, as the dataset names them.
        text_fields: what a document's text is joined of; title and text without any.
    """

    def __init__(self, dataset: Any, variant: str | None = None, text_fields: Sequence[str] | None = None) -> None:
        super().__init__(repr(dataset))
        self._dataset, self._text_fields = dataset, text_fields
        self._arguments = [] if variant is None else [variant]

    @cached_property
    def queries(self) -> Mapping[str, str]:
        """Query texts by id."""
        if not hasattr(self._dataset, "get_topics"):
            raise self._lacks("queries")
        topics = self._dataset.get_topics(*self._arguments)
        return _texts_of(topics, QUERY_IDS, QUERY_TEXTS, None, f"topics of {self.name}")

    def documents(self, text_fields: Sequence[str] | None = None) -> Texts:
        """Document texts by id, read into memory."""
        if not hasattr(self._dataset, "get_corpus_iter"):
            raise self._lacks("documents")
        rows = self._dataset.get_corpus_iter(verbose=False)
        pairs = id_text_pairs(rows, DOC_IDS, TEXTS, text_fields or self._text_fields, self.name)
        return MemoryTexts(_unique(pairs, self.name))

    @cached_property
    def qrels(self) -> Judgements | None:
        """Judgements, None without any."""
        if not hasattr(self._dataset, "get_qrels"):
            return None
        frame = self._dataset.get_qrels(*self._arguments)
        return None if frame is None else Judgements(frame, f"qrels of {self.name}")


class IrDatasetsSource(Source):
    """A dataset of ir_datasets.

    Args:
        dataset: as `ir_datasets.load` gives it.
        name: its id.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        super().__init__(name)
        self.dataset = dataset

    @cached_property
    def queries(self) -> Mapping[str, str]:
        """Query texts by id."""
        if not self.dataset.has_queries():
            raise self._lacks("queries")
        return {str(query.query_id): query.default_text() for query in self.dataset.queries_iter()}

    def documents(self, text_fields: Sequence[str] | None = None) -> Texts:
        """Document texts by id, out of the dataset's own store."""
        if not self.dataset.has_docs():
            raise self._lacks("documents")
        return _IrTexts(self.dataset, text_fields)

    @cached_property
    def qrels(self) -> Judgements | None:
        """Judgements, None without any."""
        if not self.dataset.has_qrels():
            return None
        frame = pd.DataFrame(self.dataset.qrels_iter(), columns=list(self.dataset.qrels_cls()._fields))
        return Judgements(frame, f"qrels of {self.name}")

    def scored_docs(self) -> pd.DataFrame | Path | None:
        """The ranking: the run file where there is one, since a table of millions of tuples takes minutes."""
        if not self.dataset.has_scoreddocs():
            return None
        handler = self.dataset.scoreddocs_handler()
        if not getattr(handler, "_negate_score", False):
            try:
                path = Path(handler.scoreddocs_path())
                format_of(path)
            except (NotImplementedError, AttributeError, TypeError, ValueError):
                pass
            else:
                return path
        return pd.DataFrame(self.dataset.scoreddocs_iter(), columns=["query_id", "doc_id", "score"])

    def doc_tuples(self) -> Iterable[Any] | None:
        """The pairs or tuples of documents, None without any."""
        return self.dataset.docpairs_iter() if self.dataset.has_docpairs() else None


class _IrTexts(Texts):
    def __init__(self, dataset: Any, text_fields: Sequence[str] | None) -> None:
        self._dataset, self._fields = dataset, text_fields

    @cached_property
    def _store(self) -> Any:
        return self._dataset.docs_store()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_store"}  # it holds open files

    def _text(self, doc: Any) -> str:
        if self._fields is None:
            return str(doc.default_text())
        if lacking := [field for field in self._fields if not hasattr(doc, field)]:
            raise ValueError(f"text_fields={lacking}: no such fields; allowed: {', '.join(doc._fields)}.")
        return " ".join(str(getattr(doc, field)) for field in self._fields)

    def __getitem__(self, key: str) -> str:
        return self._text(self._store.get(key))

    def refuse_missing(self, ids: Sequence[str]) -> None:
        """Nothing: a store of ir_datasets finds millions of ids in no less time than it takes to read them."""

    def lookup(self, ids: Sequence[str]) -> list[str]:
        found = self._store.get_many(list(ids))
        if missing := [one for one in ids if one not in found]:
            raise ValueError(missing_message(missing, len(ids), "document"))
        return [self._text(found[one]) for one in ids]

    def stretch(self, start: int, stop: int | None, step: int = 1) -> Iterator[tuple[str, str]]:
        for doc in islice(self._dataset.docs_iter(), start, stop, step):
            yield str(doc.doc_id), self._text(doc)

    def count(self) -> int | None:
        counted = self._dataset.docs_count()
        return None if counted is None else int(counted)

    def __len__(self) -> int:
        return self.count() or sum(1 for _ in self._dataset.docs_iter())

    def __iter__(self) -> Iterator[str]:
        return (str(doc.doc_id) for doc in self._dataset.docs_iter())


def _stem(path: Path) -> str:
    """A file's name without what tells its format.

    >>> _stem(Path("topics.train.tsv.gz"))
    'topics.train'
    """
    name = path.name
    while Path(name).suffix.lower() in (".gz", ".bz2", ".xz"):
        name = Path(name).stem
    return Path(name).stem


def _texts_of(
    texts: Any, ids: Sequence[str], names: Sequence[str], text_fields: Sequence[str] | None, where: str
) -> MemoryTexts:
    if isinstance(texts, pd.DataFrame):
        rows = (dict(zip(texts.columns, row, strict=True)) for row in texts.itertuples(index=False, name=None))
        return MemoryTexts(_unique(id_text_pairs(rows, ids, names, text_fields, where), where))
    return MemoryTexts({str(key): text_of(text, f"{where}: the text of {key!r}") for key, text in texts.items()})


def _unique(pairs: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, text in pairs:
        if texts.setdefault(key, text) != text:
            raise ValueError(f"{where}: id {key!r} occurs more than once, with different texts; allowed: each id once.")
    return texts


def id_text_pairs(
    rows: Iterable[Mapping[str, Any]],
    ids: Sequence[str],
    names: Sequence[str],
    text_fields: Sequence[str] | None,
    where: str,
) -> Iterator[tuple[str, str]]:
    """Ids and texts of rows, whatever their columns are called."""
    for row in rows:
        key = next((row[name] for name in ids if name in row), None)
        text_name = next((name for name in names if name in row), None)
        fields = text_fields or ([] if text_name is None else [text_name])
        if key is None or not fields or any(field not in row for field in fields):
            wanted = f"{' or '.join(ids)}, and {' and '.join(text_fields) if text_fields else ' or '.join(names)}"
            raise ValueError(f"{where}: a row with {', '.join(map(str, row))}; needed: {wanted}.")
        text = " ".join(text_of(row[field], f"{where}: {field} of {key!r}") for field in fields)
        title = row.get("title") if text_fields is None and text_name == "text" and names is TEXTS else None
        yield text_of(key, f"{where}: an id"), f"{title} {text}" if title and isinstance(title, str) else text


def frame_ids(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns named as here and ids as strings."""
    frame = named(frame)
    return frame.assign(**{c: frame[c].astype(str) for c in ("query_id", "doc_id") if c in frame.columns})
