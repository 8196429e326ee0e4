"""Documents to index and queries to search, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset

from .samples import DocSample, QuerySample
from .sharding import Shards
from .source_kinds import Source
from .sources import open_source
from .text_store import Texts


class DocDataset(IterableDataset[DocSample]):
    """The documents of a collection; each goes to one rank and one worker.

    Args:
        doc_dataset: an ir_datasets id or anything else that `open_source` takes.
        num_docs: how many to read at most; all without it.
        text_fields: what a document's text is joined of; title and text without any.

    Raises:
        ValueError: if num_docs is not positive, or there are no documents.

    >>> docs = DocDataset({"docs": {"d1": "It is tall.", "d2": "Bread."}})
    >>> next(iter(docs)), len(docs)
    (DocSample(doc_id='d1', doc='It is tall.'), 2)
    """

    def __init__(self, doc_dataset: Any, num_docs: int | None = None, text_fields: Sequence[str] | None = None) -> None:
        if isinstance(text_fields, str):
            raise TypeError(f"text_fields={text_fields!r}; allowed: a list of names, such as [{text_fields!r}].")
        self.doc_dataset, self.num_docs, self.text_fields = doc_dataset, _positive("num_docs", num_docs), text_fields
        self.source: Source = open_source(doc_dataset)
        self._shards = Shards()

    @cached_property
    def texts(self) -> Texts:
        """The documents' texts by id."""
        return self.source.documents(self.text_fields)

    def prepare_data(self) -> None:
        """Download and store what is missing, on one rank before the others ask."""
        next(iter(self.texts.stretch(0, 1)), None)

    def __len__(self) -> int:
        """How many documents this rank reads, with all its workers.

        Raises:
            TypeError: if the collection does not say how many it has.
        """
        count = self.texts.count() if self.num_docs is None else self.num_docs
        if count is None:
            raise TypeError(f"{self.source.name} does not say how many documents it has; give num_docs=.")
        if self.num_docs is not None:
            count = min(self.num_docs, self.texts.count() or self.num_docs)
        return self._shards.share(count)

    def __iter__(self) -> Iterator[DocSample]:
        number, count = self._shards.mine()
        for doc_id, doc in self.texts.stretch(number, self.num_docs, count):
            yield DocSample(doc_id, doc)


class QueryDataset(IterableDataset[QuerySample]):
    """The queries of a collection, with their judgements; each goes to one rank and one worker.

    Args:
        query_dataset: an ir_datasets id or anything else that `open_source` takes.
        num_queries: how many to read at most; all without it.

    Raises:
        ValueError: if num_queries is not positive, or there are no queries.

    >>> queries = QueryDataset({"queries": {"q1": "how tall"}})
    >>> next(iter(queries))
    QuerySample(query_id='q1', query='how tall', qrels=None)
    """

    def __init__(self, query_dataset: Any, num_queries: int | None = None) -> None:
        self.query_dataset, self.num_queries = query_dataset, _positive("num_queries", num_queries)
        self.source: Source = open_source(query_dataset)
        self._shards = Shards()

    def prepare_data(self) -> None:
        """Download what is missing, on one rank before the others ask."""
        _ = self.source.queries, self.source.qrels

    def __len__(self) -> int:
        """How many queries this rank reads, with all its workers."""
        count = len(self.source.queries)
        return self._shards.share(count if self.num_queries is None else min(count, self.num_queries))

    def __iter__(self) -> Iterator[QuerySample]:
        number, count = self._shards.mine()
        qrels = self.source.qrels
        for query_id, query in islice(self.source.queries.items(), number, self.num_queries, count):
            yield QuerySample(query_id, query, None if qrels is None else qrels.of(query_id))


def _positive(setting: str, given: int | None) -> int | None:
    if given is not None and given < 1:
        raise ValueError(f"{setting}={given}; allowed: a positive number, or None for all.")
    return given
