"""What the datasets yield, one query or document at a time, and the batches that they are gathered into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class QuerySample:
    """A query and, where there are judgements, those of it.

    >>> QuerySample("q1", "how tall is it")
    QuerySample(query_id='q1', query='how tall is it', qrels=None)
    """

    query_id: str
    query: str
    qrels: list[dict[str, Any]] | None = None


@dataclass
class DocSample:
    """A document.

    >>> DocSample("d1", "It is tall.")
    DocSample(doc_id='d1', doc='It is tall.')
    """

    doc_id: str
    doc: str


@dataclass
class RankSample:
    """A query with documents, and perhaps a target for each of them.

    `targets` are (documents,), or (documents, subtopics); larger is better.

    >>> RankSample("q1", "how tall", ("d1", "d2"), ("It is tall.", "Bread."), torch.tensor([1.0, 0.0])).targets
    tensor([1., 0.])
    """

    query_id: str
    query: str
    doc_ids: Sequence[str]
    docs: Sequence[str]
    targets: torch.Tensor | None = None
    qrels: list[dict[str, Any]] | None = None


@dataclass
class RankBatch:
    """Queries, each with its documents."""

    queries: Sequence[str]
    docs: Sequence[Sequence[str]]
    query_ids: Sequence[str] | None = None
    doc_ids: Sequence[Sequence[str]] | None = None
    qrels: list[dict[str, Any]] | None = None


@dataclass
class TrainBatch(RankBatch):
    """Queries, each with its documents, and the targets of all documents one after another."""

    targets: torch.Tensor | None = None


@dataclass
class IndexBatch:
    """Documents to be indexed."""

    doc_ids: Sequence[str]
    docs: Sequence[str]


@dataclass
class SearchBatch:
    """Queries to be searched."""

    query_ids: Sequence[str]
    queries: Sequence[str]
    doc_ids: Sequence[Sequence[str]] | None = None
    qrels: list[dict[str, Any]] | None = None


Sample = RankSample | QuerySample | DocSample
Batch = RankBatch | SearchBatch | IndexBatch


def collate(samples: Sequence[Sample] | Sample) -> Batch:
    """Gather samples of one kind into a batch: a `TrainBatch` if they have targets.

    Targets are joined along the documents, since lists may differ in length: (all documents,) or
    (all documents, subtopics).  The judgements of all queries become one list.

    Args:
        samples: of one dataset, or a single one.

    Raises:
        ValueError: for no samples, for samples of different kinds, or if only some of them have targets.

    >>> collate([DocSample("d1", "It is tall."), DocSample("d2", "Bread.")])
    IndexBatch(doc_ids=['d1', 'd2'], docs=['It is tall.', 'Bread.'])
    """
    listed = [samples] if isinstance(samples, (RankSample, QuerySample, DocSample)) else list(samples)
    kinds = {type(sample).__name__ for sample in listed}
    if len(kinds) != 1:
        raise ValueError(f"Samples of {sorted(kinds) or 'nothing'}; allowed: one or more of one kind in a batch.")
    documents = [sample for sample in listed if isinstance(sample, DocSample)]
    if documents:
        return IndexBatch([sample.doc_id for sample in documents], [sample.doc for sample in documents])
    lists = [sample for sample in listed if isinstance(sample, RankSample)]
    if lists:
        return _collate_lists(lists)
    queries = [sample for sample in listed if isinstance(sample, QuerySample)]
    return SearchBatch([s.query_id for s in queries], [s.query for s in queries], qrels=_all_qrels(queries))


def _collate_lists(samples: list[RankSample]) -> RankBatch:
    queries, docs = [sample.query for sample in samples], [tuple(sample.docs) for sample in samples]
    query_ids, doc_ids = [sample.query_id for sample in samples], [tuple(sample.doc_ids) for sample in samples]
    targets = [sample.targets for sample in samples if sample.targets is not None]
    if not targets:
        return RankBatch(queries, docs, query_ids, doc_ids, _all_qrels(samples))
    if len(targets) < len(samples):
        raise ValueError(f"{len(targets)} of {len(samples)} samples have targets; allowed: all of a batch or none.")
    return TrainBatch(queries, docs, query_ids, doc_ids, _all_qrels(samples), torch.cat(targets))


def _all_qrels(samples: Sequence[QuerySample | RankSample]) -> list[dict[str, Any]] | None:
    if all(sample.qrels is None for sample in samples):
        return None
    return [judgement for sample in samples for judgement in sample.qrels or []]
