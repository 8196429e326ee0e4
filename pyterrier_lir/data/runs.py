"""Queries with ranked lists of documents, whole or sampled: to re-rank, to distil, to fine-tune with judgements."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from .judgements import Judgements
from .rankings import Lists, join_judgements, keep_queries, make_lists, own_texts, read_ranking
from .samples import RankSample
from .sampling import SAMPLING, Places, choose
from .source_kinds import Source
from .sources import dataset_id_of, open_source
from .text_store import MemoryTexts, Texts, missing_message

Targets = Literal["relevance", "subtopic_relevance", "rank", "score"]
TARGETS = ("relevance", "subtopic_relevance", "rank", "score")
SamplingStrategy = Literal["single_relevant", "top", "random", "log_random", "top_and_random"]


class RunDataset(Dataset[RankSample]):
    """Queries with ranked lists of documents, or samples of these.

    Queries are in the order of their ids, as strings.  Where there are judgements, only judged queries take part.  What
    `dataset[i]` holds depends on `seed`, epoch and `i` alone.  Reading begins at the first use.

    Args:
        run_path_or_id: a run (TREC, TSV, CSV, JSON lines, Parquet, also compressed), a frame of results, or an
            ir_datasets id, or its object, with scored documents.  Without `dataset`, a name such as
            `bm25__msmarco-passage.run` says which it is of.  Columns `query`, `text` and `relevance` of a run come
            before those of the dataset.
        depth: where the ranking is cut off; -1 keeps all.
        sample_size: how many documents of a query are shown; -1 shows all.  Queries with fewer are left out.
        sampling_strategy: top; random; log_random (more likely near the top); single_relevant (one relevant document
            first, then others that are not); top_and_random (half of each).
        targets: relevance (the highest of all subtopics); subtopic_relevance (a column for each); rank, from depth (or
            the longest ranking) down to 1 and 0 for what was not ranked; score, the lowest of the list for what was not
            ranked.
        normalize_targets: bring a sample's targets between 0 and 1; all become 0 where they are equal.
        add_docs_not_in_ranking: add relevant documents that the ranking has not.
        dataset: queries, documents and judgements of the run: anything that `open_source` takes.
        seed: of the sampling.

    Raises:
        FileNotFoundError: if there is no such run or dataset.
        ValueError: for unknown settings; at first use, for an empty or contradictory run, targets or samples that need
            judgements or scores without any, ids without texts, or if no query is left.

    >>> texts = {"queries": {"q": "how tall"}, "docs": {"a": "It is tall.", "b": "Bread.", "c": "Sand."}}
    >>> run = pd.DataFrame({"qid": ["q"] * 3, "docno": ["a", "b", "c"], "score": [3.0, 2.0, 1.0]})
    >>> RunDataset(run, depth=2, targets="rank", dataset=texts)[0]
    RankSample(query_id='q', query='how tall', doc_ids=('a', 'b'), docs=('It is tall.', 'Bread.'),
        targets=tensor([2., 1.]), qrels=None)
    """

    def __init__(
        self,
        run_path_or_id: Any,
        depth: int = -1,
        sample_size: int = -1,
        sampling_strategy: SamplingStrategy = "top",
        targets: Targets | None = None,
        normalize_targets: bool = False,
        add_docs_not_in_ranking: bool = False,
        *,
        dataset: Any = None,
        seed: int = 0,
    ) -> None:
        self.run_path_or_id, self.dataset, self.seed = run_path_or_id, dataset, seed
        self.depth, self.sample_size = _size("depth", depth), _size("sample_size", sample_size)
        self.sampling_strategy = choose("sampling_strategy", sampling_strategy, tuple(SAMPLING))
        self.targets = None if targets is None else choose("targets", targets, TARGETS)
        self.normalize_targets, self.add_docs_not_in_ranking = normalize_targets, add_docs_not_in_ranking
        self.name = "the run" if isinstance(run_path_or_id, pd.DataFrame) else str(run_path_or_id)
        self._run: pd.DataFrame | Path | None = None
        if isinstance(run_path_or_id, pd.DataFrame):
            self._run = run_path_or_id
        elif isinstance(run_path_or_id, (str, Path)) and Path(run_path_or_id).is_file():
            self._run = Path(run_path_or_id)
        else:
            open_source(run_path_or_id)  # says now if there is no such dataset
        self.source = self._open_source()
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # workers that go on living see it change

    def _open_source(self) -> Source | None:
        if self.dataset is not None:
            return open_source(self.dataset)
        if self._run is None:
            return open_source(self.run_path_or_id)
        if isinstance(self._run, Path):
            dataset_id = dataset_id_of(self._run.name.split(".")[0].split("__")[-1])
            return None if dataset_id is None else open_source(dataset_id)
        return None

    def prepare_data(self) -> None:
        """Download and store what is missing, on one rank before the others ask."""
        if len(self):
            _ = self[0]

    def set_epoch(self, epoch: int) -> None:
        """Draw other samples, the same for the same epoch; workers that are running take it on."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """How many queries there are."""
        return len(self._lists.query_ids)

    def __getitem__(self, index: int) -> RankSample:
        """The sample of a query.

        Raises:
            IndexError: if there are not so many queries.
            ValueError: for a document without a text.
        """
        lists = self._lists
        count = len(lists.query_ids)
        if not -count <= index < count:
            raise IndexError(f"index {index}; there are {count} queries.")
        index %= count
        begin, end = int(lists.starts[index]), int(lists.starts[index + 1])
        rows = begin + self._sample(index, begin, end)
        doc_ids = tuple(lists.doc_names[lists.doc_codes[rows]].tolist())
        query_id = lists.query_ids[index]
        targets = None if self.targets is None else self._targets_of(rows, begin, end)
        qrels = None if self.qrels is None else self.qrels.of(query_id)
        docs = tuple(self._texts.lookup(doc_ids))
        return RankSample(query_id, self._queries[query_id], doc_ids, docs, targets, qrels)

    def _sample(self, index: int, begin: int, end: int) -> Places:
        if self.sample_size == -1:
            return np.arange(end - begin)
        rng = np.random.default_rng((self.seed, int(self._epoch), index))
        lists = self._lists
        relevance = np.zeros(end - begin) if lists.relevance is None else lists.relevance[begin:end]
        return SAMPLING[self.sampling_strategy](lists.ranks[begin:end], relevance, self.sample_size, rng)

    def _targets_of(self, rows: Places, begin: int, end: int) -> torch.Tensor:
        lists, values = self._lists, np.empty(0, dtype=np.float32)
        if self.targets == "rank":
            values = np.nan_to_num(self._deepest - lists.ranks[rows] + 1, nan=0.0)
        elif self.targets == "score" and lists.scores is not None:
            values = np.nan_to_num(lists.scores[rows], nan=float(np.nanmin(lists.scores[begin:end])))
        elif self.targets == "relevance" and lists.relevance is not None:
            values = lists.relevance[rows]
        elif lists.subtopics is not None:
            values = lists.subtopics[rows]
        return torch.from_numpy(np.array(_between_0_and_1(values) if self.normalize_targets else values))

    @cached_property
    def _frame(self) -> pd.DataFrame:
        run = self._run
        if run is None:
            run = open_source(self.run_path_or_id).scored_docs()
        if run is None:
            raise ValueError(f"{self.name} has no ranking; give a run, with dataset={self.name!r}.")
        return read_ranking(run, self.name)

    @cached_property
    def qrels(self) -> Judgements | None:
        """The judgements of the run or the dataset, None without any."""
        if "relevance" in self._frame.columns:
            return Judgements(self._frame.drop(columns="score", errors="ignore"), self.name)
        return None if self.source is None else self.source.qrels

    @cached_property
    def _deepest(self) -> float:
        return self.depth if self.depth != -1 else float(np.nanmax(self._lists.ranks))

    @cached_property
    def _lists(self) -> Lists:
        frame = self._frame
        if self.depth != -1:
            frame = frame[frame["rank"] <= self.depth]
        needs = self._needs_judgements()
        if self.qrels is not None:
            frame = join_judgements(
                frame,
                self.qrels,
                subtopics=self.targets == "subtopic_relevance",
                add_docs=self.add_docs_not_in_ranking,
            )
        elif needs:
            raise ValueError(f"{needs} needs judgements; {self.name} has none.  Give a dataset= that has some.")
        if self.targets == "score" and "score" not in frame:
            raise ValueError(f"targets='score': {self.name} has no scores; allowed: a run with a column score.")
        return self._checked(make_lists(self._sampled(frame)))

    def _needs_judgements(self) -> str | None:
        if self.targets in ("relevance", "subtopic_relevance"):
            return f"targets={self.targets!r}"
        if self.sampling_strategy == "single_relevant" and self.sample_size != -1:
            return "sampling_strategy='single_relevant'"
        return "add_docs_not_in_ranking=True" if self.add_docs_not_in_ranking else None

    def _sampled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of queries that can be sampled from."""
        if self.sample_size == -1:
            return frame
        sizes = frame.groupby("query_id")["doc_id"].transform("size")
        why, remedy = f"have fewer than {self.sample_size} documents", f"allowed: sample_size up to {sizes.max()}."
        frame = keep_queries(frame, sizes >= self.sample_size, why, remedy)
        if self.sampling_strategy != "single_relevant":
            return frame
        relevant = frame.groupby("query_id")["relevance"].transform("max") > 0
        remedy = "allowed: add_docs_not_in_ranking=True, a greater depth, or another sampling_strategy."
        frame = keep_queries(frame, relevant, "have no relevant document in the ranking", remedy)
        others = (frame["relevance"] <= 0) & frame["rank"].notna()
        enough = others.groupby(frame["query_id"]).transform("sum") >= self.sample_size - 1
        remedy = "allowed: a smaller sample_size or a greater depth."
        return keep_queries(frame, enough, "have too few documents that are not relevant", remedy)

    def _checked(self, lists: Lists) -> Lists:
        queries = self._queries
        if missing := [query_id for query_id in lists.query_ids if query_id not in queries]:
            raise ValueError(missing_message(missing, len(lists.query_ids), "query"))
        self._texts.refuse_missing(lists.doc_names.tolist())
        return lists

    @cached_property
    def _queries(self) -> Mapping[str, str]:
        return own_texts(self._frame, "query_id", "query") or self._dataset("queries").queries

    @cached_property
    def _texts(self) -> Texts:
        own = own_texts(self._frame, "doc_id", "text")
        if own is None:
            return self._dataset("documents").docs
        if self.add_docs_not_in_ranking and self.source is not None:
            return _Both(own, self.source.docs)
        return MemoryTexts(own)

    def _dataset(self, what: str) -> Source:
        if self.source is None:
            raise ValueError(f"{self.name} does not say where the texts of its {what} are; give dataset=.")
        return self.source


class _Both(MemoryTexts):
    """The texts of a run, and those of the collection for documents that are not in it."""

    def __init__(self, own: Mapping[str, str], rest: Texts) -> None:
        super().__init__(own)
        self._rest = rest

    def __getitem__(self, key: str) -> str:
        return self._texts[key] if key in self._texts else self._rest[key]

    def missing(self, ids: Any) -> list[str]:
        """Those of the ids that have no text."""
        return self._rest.missing([one for one in ids if one not in self._texts])


def _size(setting: str, given: int) -> int:
    if given != -1 and given < 1:
        raise ValueError(f"{setting}={given}; allowed: a positive number, or -1 for all.")
    return given


def _between_0_and_1(values: NDArray[np.float32]) -> NDArray[np.float32]:
    lowest, highest = values.min(), values.max()
    return (values - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(values)
