"""Queries with documents to train on: triples, longer tuples, teacher's scores, graded labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from .samples import RankSample
from .sampling import choose
from .sharding import Shards
from .source_kinds import Source
from .sources import open_source
from .tuple_formats import Group, open_tuples, text_id

TARGETS = ("order", "score", "relevance")
Plan = tuple[Group, NDArray[np.int64]]


class TupleDataset(IterableDataset[RankSample]):
    """Queries with documents to train on, one after another; each row goes to one rank and one worker.

    A row with several relevant documents gives a sample for each of them, the relevant one first and all that are not
    relevant behind it; with `targets="relevance"` it gives one sample of all documents, the highest grade first.

    Args:
        tuples_dataset: an ir_datasets id or object with document pairs; a file (TSV of texts or ids, JSON lines,
            Parquet, also compressed); a frame, long (`qid`, `docno`, `label`, and perhaps `query`, `text`, `score`) or
            with `query`, `pos`, `neg`; or a list of samples or tuples.  The columns of sentence-transformers are read
            too: anchor, positive, negative or negative_1 and so on; a margin in label or score; sentence1, sentence2.
        targets: order (1 for the relevant document, 0 for others), score (a teacher's), or relevance (the labels).
        num_docs: how many documents a sample has, the relevant one among them; rows with fewer are left out.  Without a
            seed the first ones are taken, with a seed any.  1 is for losses whose negatives are those of the batch.
        dataset: where texts are looked up by id, anything that `open_source` takes; without it, texts are expected.
        seed: shuffles the samples within a buffer, another way in each epoch; without one they keep their order.
        buffer_size: how many samples are shuffled together.

    Raises:
        FileNotFoundError: if there is no such dataset or file.
        ValueError: for unknown settings; while reading, for rows that cannot be read, scores that are not there, ids
            without texts, or if no row has num_docs documents.

    >>> rows = [("how tall", "It is tall.", "Bread."), ("what to eat", "Bread.", "Sand.")]
    >>> sample = next(iter(TupleDataset(rows)))
    >>> sample.query, sample.docs, sample.targets
    ('how tall', ('It is tall.', 'Bread.'), tensor([1., 0.]))
    """

    def __init__(
        self,
        tuples_dataset: Any,
        targets: Literal["order", "score", "relevance"] = "order",
        num_docs: int | None = None,
        *,
        dataset: Any = None,
        seed: int | None = None,
        buffer_size: int = 10_000,
    ) -> None:
        if num_docs is not None and num_docs < 1:
            raise ValueError(f"num_docs={num_docs}; allowed: 1 or more, or None for all.")
        if buffer_size < 1:
            raise ValueError(f"buffer_size={buffer_size}; allowed: a positive number.")
        self.tuples_dataset, self.num_docs, self.dataset = tuples_dataset, num_docs, dataset
        self.targets = choose("targets", targets, TARGETS)
        self.seed, self.buffer_size = seed, buffer_size
        named = isinstance(tuples_dataset, (str, Path))
        self._path = Path(tuples_dataset) if named and Path(tuples_dataset).is_file() else None
        own = (named and self._path is None) or isinstance(tuples_dataset, (Source, Mapping))
        own = own or hasattr(tuples_dataset, "has_docpairs") or hasattr(tuples_dataset, "irds_ref")
        self._tuples: Source | None = open_source(tuples_dataset) if own else None
        self.source: Source | None = self._tuples if dataset is None else open_source(dataset)
        self._shards = Shards()
        self._shares: dict[int, list[int]] = {}
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # workers that go on living see it change

    def set_epoch(self, epoch: int) -> None:
        """Shuffle and draw in another way, the same for the same epoch; workers that are running take it on."""
        self._epoch.fill_(epoch)

    def shares(self, readers: int) -> list[int]:
        """How many samples each of so many readers gets; all rows are read for it, once, without looking texts up.

        Raises:
            ValueError: for rows that can be read only once.
        """
        if isinstance(self.tuples_dataset, Iterator):
            raise ValueError("Rows that can be read only once are not counted; give a list, or the trainer max_steps=.")
        if readers not in self._shares:
            counts = [0] * readers
            rows, parse = self._opened()
            for place, row in enumerate(rows):
                counts[place % readers] += len(self._usable(parse(row)))
            self._shares[readers] = counts
        return self._shares[readers]

    def prepare_data(self) -> None:
        """Download and store what is missing, on one rank before the others ask."""
        if self.source is not None:
            _ = self.source.queries, self.source.docs
        next(iter(self), None)

    def __iter__(self) -> Iterator[RankSample]:
        number, count = self._shards.mine()
        rng = None
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, int(self._epoch), number))
        plans = self._plans(number, count, rng)
        for group, places in plans if rng is None else self._shuffled(plans, rng):
            yield self._sample(group, places)

    def _plans(self, number: int, count: int, rng: np.random.Generator | None) -> Iterator[Plan]:
        """Groups with the places of the documents that a sample shows."""
        rows, parse = self._opened()
        kept = read = largest = 0
        for row in islice(rows, number, None, count):
            group = parse(row)
            read += 1
            chosen = self._usable(group)
            kept += bool(chosen)
            largest = max(largest, len(group.labels))
            for places in chosen:
                yield group, self._cut(places, rng)
        if not read and not number:
            raise ValueError("There are no tuples; allowed: one row at least.")
        if read and not kept:
            raise ValueError(
                f"None of {read} rows has a relevant document and {self.num_docs or 2} documents in all, the largest "
                f"has {largest}; allowed: a smaller num_docs, such as 1 where negatives are those of the batch."
            )
        if kept < read:
            warnings.warn(
                f"{read - kept} of {read} rows have no relevant document or fewer than {self.num_docs or 2} documents "
                "and are left out.",
                stacklevel=2,
            )

    def _opened(self) -> tuple[Iterator[Any], Callable[[Any], Group]]:
        return open_tuples(self._given(), ids=self.source is not None, graded=self.targets == "relevance")

    def _given(self) -> Any:
        if self._path is not None:
            return self._path
        if self._tuples is None:
            return self.tuples_dataset
        tuples = self._tuples.doc_tuples()
        if tuples is None:
            raise ValueError(f"{self._tuples.name} has no tuples; allowed: ir_datasets ids with docpairs, or files.")
        return tuples

    def _usable(self, group: Group) -> list[NDArray[np.int64]]:
        return [places for places in self._choices(group) if len(places) >= (self.num_docs or 1)]

    def _choices(self, group: Group) -> list[NDArray[np.int64]]:
        """All that a sample could show, the relevant document first; one for each sample."""
        labels = np.asarray(group.labels)
        if self.targets == "relevance":
            return [np.argsort(-labels, kind="stable")]
        others = np.flatnonzero(labels <= 0)
        if len(others) == 0 and self.num_docs != 1:
            return []
        return [np.concatenate([[place], others]) for place in np.flatnonzero(labels > 0)]

    def _cut(self, places: NDArray[np.int64], rng: np.random.Generator | None) -> NDArray[np.int64]:
        if self.num_docs is None or len(places) == self.num_docs:
            return places
        if rng is None:
            return places[: self.num_docs]
        return np.concatenate([places[:1], rng.choice(places[1:], self.num_docs - 1, replace=False)])

    def _shuffled(self, plans: Iterator[Plan], rng: np.random.Generator) -> Iterator[Plan]:
        buffer = list(islice(plans, self.buffer_size))
        rng.shuffle(buffer)  # type: ignore[arg-type]
        for plan in plans:
            at = int(rng.integers(len(buffer)))
            out, buffer[at] = buffer[at], plan
            yield out
        yield from buffer

    def _sample(self, group: Group, places: NDArray[np.int64]) -> RankSample:
        chosen = places.tolist()
        if group.docs is not None:
            docs = tuple(group.docs[place] for place in chosen)
        if group.doc_ids is not None:
            doc_ids = tuple(group.doc_ids[place] for place in chosen)
        if group.doc_ids is None:
            doc_ids = tuple(text_id(doc) for doc in docs)
        elif group.docs is None:
            docs = tuple(self._texts(group).docs.lookup(doc_ids))
        query = group.query
        if query is None:
            query = self._texts(group).query_texts([str(group.query_id)])[0]
        query_id = group.query_id if group.query_id is not None else text_id(query)
        return RankSample(query_id, query, doc_ids, docs, self._targets_of(group, chosen))

    def _texts(self, group: Group) -> Source:
        if self.source is None:
            raise ValueError(f"query {group.query_id!r}: ids without texts; give the collection of them as dataset=.")
        return self.source

    def _targets_of(self, group: Group, chosen: list[int]) -> torch.Tensor:
        if self.targets == "order":
            return torch.tensor([1.0] + [0.0] * (len(chosen) - 1))
        values = group.labels if self.targets == "relevance" else group.scores
        if values is None:
            given = self.tuples_dataset
            name = f"a {type(given).__name__}" if isinstance(given, (pd.DataFrame, list)) else given
            raise ValueError(f"targets='score': {name} has no scores; allowed: 'order', or tuples with scores.")
        return torch.tensor([values[place] for place in chosen], dtype=torch.float32)
