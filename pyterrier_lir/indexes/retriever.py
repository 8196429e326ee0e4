"""Retriever and IndexScorer: queries with vectors become results; results get scores from stored vectors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import pyterrier as pt
from typing_extensions import Self

from ..columns import VECTOR_COLUMNS, made_by, transform_iter
from ..display import Drawn
from ..vectors import take
from .docnos import as_fields, as_names
from .index import LIRIndex, Mask
from .remembered import query_encoder
from .search import Searcher, open_engine

if TYPE_CHECKING:
    from ..vectors import Positions, Vectors
    from .union import IndexUnion

_QUERIES = 256  # that are searched together
_PAIRS = 65_536  # that are scored together
_RESULTS = {"qid", "query", "docno", "score", "rank"}
Missing = Literal["error", "drop"]


class OnIndex(Drawn, pt.Transformer):
    """What both do: read queries' vectors, score pairs, be equal by their settings."""

    index: LIRIndex
    any_model: bool
    include_fields: tuple[str, ...]
    missing: Missing = "error"

    transform_iter = transform_iter

    def _settings(self) -> tuple[Any, ...]:
        parameters = list(inspect.signature(type(self).__init__).parameters.values())[1:]
        return tuple(_frozen(getattr(self, p.name)) for p in parameters if p.kind is not p.VAR_KEYWORD)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._settings() == cast("Self", other)._settings()

    def __hash__(self) -> int:
        return hash((type(self), self._settings()))

    @property
    def _query_column(self) -> str:
        return VECTOR_COLUMNS[self.index.KIND][0]

    def _by_text(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The results of queries that are text, by the model that the index remembers."""
        nothing = {self._query_column: pd.Series(dtype=object)}
        encoded: pd.DataFrame = inp.assign(**nothing) if inp.empty else query_encoder(self.index)(inp)
        out: pd.DataFrame = self.transform(encoded)
        return out.drop(columns=[name for name in encoded.columns if name not in inp.columns])

    def _check_model(self, inp: pd.DataFrame) -> None:
        """Refuse queries of another model than the index was made with, where both are known."""
        self.index.refresh()
        encoder = made_by(inp, self._query_column)
        if encoder is not None and not self.any_model:
            check_model(self.index, *encoder)

    def _rescored(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Results with scores from stored vectors, ranked."""
        if inp["qid"].isna().any():
            raise ValueError(f"{inp['qid'].isna().sum()} of {len(inp)} rows have no qid.")
        inp, docids = self._there(inp)
        if inp.empty:
            scored = pt.model.add_ranks(inp.assign(score=pd.Series(dtype=float)))
            return self._with_fields(scored, self.include_fields, np.empty(0, np.int64))
        codes, first = np.unique(pd.factorize(inp["qid"].astype(object))[0], return_index=True)
        query_of = pd.factorize(inp["qid"].astype(object))[0]
        queries = self.index._queries(inp.iloc[first[np.argsort(codes)]])
        scored = pt.model.add_ranks(inp.assign(score=self._scores(queries, query_of, docids)))
        if self.include_fields and pt.model.STRICT_SORT:  # rows were ordered anew
            docids = self.index.docids_of(scored["docno"].astype(object))
        return self._with_fields(scored, self.include_fields, docids)

    def _there(self, inp: pd.DataFrame) -> tuple[pd.DataFrame, Positions]:
        """The rows whose documents the index holds, and their docids."""
        docids = self.index.docids_of(inp["docno"].astype(object))
        if self.missing == "drop":
            return inp[docids >= 0], docids[docids >= 0]
        if (docids < 0).any():
            row = inp.iloc[int((docids < 0).argmax())]
            first = ", ".join(f"{name}={row[name]!r}" for name in ("qid", "docno") if name in inp.columns)
            raise ValueError(
                f"{(docids < 0).sum()} of {len(inp)} rows have a docno that {self.index!r} does not hold, "
                f"first {first}. To leave such rows out: missing='drop'."
            )
        return inp, docids

    def _scores(self, queries: Vectors, query_of: Positions, docids: Positions) -> np.ndarray:
        out = np.empty(len(docids))
        order = np.argsort(docids, kind="stable")  # reads the files from front to back
        for start in range(0, len(order), _PAIRS):
            rows = order[start : start + _PAIRS]
            out[rows] = self.index.scores_of(queries, query_of[rows], docids[rows])
        return out

    def _with_fields(self, out: pd.DataFrame, fields: Iterable[str], docids: Positions) -> pd.DataFrame:
        if taken := _RESULTS & {*fields}:
            raise ValueError(f"include_fields={sorted(taken)}: results have other values in these columns.")
        texts = {name: pd.Series(self.index.field_of(name, docids), index=out.index, dtype=object) for name in fields}
        return out.assign(**texts)


class IndexScorer(OnIndex):
    """Scores results by the stored vectors of their documents: `bm25 >> index.scorer()`.

    Queries are vectors (`bm25 >> encoder.query_encoder() >> index.scorer()`), or text, which the model that the index
    remembers encodes, as it was when the index was made.

    Args:
        index: that holds the documents.
        any_model: whether queries may be encoded by another model than the index was made with.
        include_fields: stored fields that are added to the results, such as `text`.
        missing: what is done with rows whose documents the index does not hold: `error`, or `drop` them.

    Raises:
        ValueError: for documents that the index does not hold, or queries' vectors that do not fit.
    """

    def __init__(
        self,
        index: LIRIndex,
        *,
        any_model: bool = False,
        include_fields: Iterable[str] | str = (),
        missing: Missing = "error",
    ) -> None:
        self.index, self.any_model, self.include_fields = index, any_model, as_fields(include_fields)
        self.missing = known(missing)

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Score each row's query and document, and rank anew within each query."""
        with pt.validate.any(inp, context=self) as check:
            check.result_frame(extra_columns=[self._query_column], mode="vectors")
            check.result_frame(extra_columns=["query"], mode="text")
        if check.mode == "text":
            return self._by_text(inp)
        self._check_model(inp)
        return self._rescored(inp)

    def __repr__(self) -> str:
        return f"{self.index!r}.scorer()"


class Retriever(OnIndex):
    """Finds the documents that are most similar to queries.

    Queries are vectors, or text, which the model that the index remembers encodes, as it was when the index was made.
    Results are ordered by score, equal ones by docid (HNSW's graph may miss some of many equal ones).  A frame that has
    documents already is scored instead, without further ones.

    Args:
        index: that is searched.
        engine: how; see `pyterrier_lir.indexes.search.ENGINES`.
        num_results: most documents of a query; `retriever % 10` searches for 10.
        any_model: whether queries may be encoded by another model than the index was made with.
        docnos: search these documents only.
        where: search the documents only whose stored fields are so: a function from a frame with a column for each
            field to a mask.  It is called for parts of the collection, so that each row is judged by itself.
        include_fields: stored fields that are added to the results, such as `text`.
        missing: what is done with results whose documents the index does not hold: `error`, or `drop` them.
        verbose: show a progress bar.
        options: of the engine.

    Raises:
        ValueError: for an unknown engine or option, or queries' vectors that do not fit the index.
    """

    _fused = False  # with a cutoff, which cuts results that are scored too

    def __init__(
        self,
        index: LIRIndex,
        engine: str = "exact",
        *,
        num_results: int = 1_000,
        any_model: bool = False,
        docnos: Iterable[str] | None = None,
        where: Callable[[pd.DataFrame], Any] | None = None,
        include_fields: Iterable[str] | str = (),
        missing: Missing = "error",
        verbose: bool = False,
        options: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self.index, self.engine, self.num_results, self.verbose = index, engine, checked(num_results), verbose
        self.docnos = None if docnos is None else as_names(docnos, "docnos")
        self.any_model, self.where, self.missing = any_model, where, known(missing)
        self.include_fields = as_fields(include_fields)
        self.options = {**(options or {}), **more}
        self._stamp: tuple[Any, ...] | None = None  # of the index that is searched

    def fuse_rank_cutoff(self, k: int) -> Retriever | None:
        """`retriever % k` as a retriever of k documents."""
        if not 0 < k < self.num_results:
            return None
        fused = type(self)(
            self.index, self.engine, num_results=k, any_model=self.any_model, docnos=self.docnos, where=self.where,
            include_fields=self.include_fields, missing=self.missing, verbose=self.verbose, options=self.options,
        )  # fmt: skip
        fused._fused = True
        return fused

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Search for each query; score results that are there already."""
        with pt.validate.any(inp, context=self) as check:
            check.query_frame(extra_columns=[self._query_column], mode="search")
            check.result_frame(extra_columns=[self._query_column], mode="score")
            check.query_frame(extra_columns=["query"], mode="text")
            check.result_frame(extra_columns=["query"], mode="text")
        if check.mode == "text":
            return self._by_text(inp)
        self._check_model(inp)
        if check.mode == "score":
            out = self._rescored(inp)
            return out[out["rank"] < self.num_results].reset_index(drop=True) if self._fused else out
        if inp.empty:
            return self._results(inp, np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
        codes, first = _distinct(inp[self._query_column])
        queries = self.index._queries(inp.iloc[first])
        docids, scores = self.nearest(queries)
        return self._results(inp, docids[codes], scores[codes])

    def nearest(self, queries: Vectors) -> tuple[np.ndarray, np.ndarray]:
        """(docids, scores) of the best documents, (queries, k), -1 where there are no more.

        k is `num_results`, or the number of all documents if that is less.
        """
        self._follow()
        k = min(self.num_results, max(1, self.index.docids))
        count = queries.shape[0] if hasattr(queries, "shape") else len(queries)
        parts = []
        for start in pt.tqdm(range(0, count, _QUERIES), disable=not self.verbose, desc="searching", unit="batch"):
            part = take(queries, np.arange(start, min(start + _QUERIES, count)))
            parts.append(self.searcher.search(part, k, self.candidates))
        docids, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        return docids, scores

    def _follow(self) -> None:
        """Open the engine again if the index was changed."""
        stamp = self.index.refresh()
        if stamp != self._stamp:
            self.__dict__.pop("searcher", None)
            self.__dict__.pop("candidates", None)
            self._stamp = stamp

    @cached_property
    def searcher(self) -> Searcher:
        """The search engine, opened."""
        self._stamp = self.index.refresh()
        return open_engine(self.index, self.engine, self.options)

    @cached_property
    def candidates(self) -> Mask | None:
        """Which docids may be found; None for all."""
        index = self.index
        masks = [] if index.deleted is None else [~index.deleted]
        if self.docnos is not None:
            masks.append(index.mask_of(self.docnos))
        if self.where is not None:
            masks.append(self._where())
        return np.logical_and.reduce(masks) if masks else None

    def _where(self) -> Mask:
        mask = np.zeros(self.index.docids, dtype=bool)
        for start in range(0, len(mask), 65_536):
            docids = np.arange(start, min(start + 65_536, len(mask)))
            fields = {name: self.index.field_of(name, docids) for name in self.index.meta["fields"]}
            frame = pd.DataFrame({"docno": self.index.docnos_of(docids), **fields}, index=docids)
            try:
                found = cast("Any", self.where)(frame)
            except KeyError as error:
                if (name := error.args[0]) in frame.columns:
                    raise
                self.index.field_of(str(name), docids)  # says which are stored
                raise
            mask[docids] = _mask(found, len(frame))
        return mask

    def _results(self, inp: pd.DataFrame, docids: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        """The rows of queries, once for each document found."""
        there = docids >= 0
        counts = there.sum(axis=1)
        rows = np.repeat(np.arange(len(inp)), counts)
        found = docids[there]
        ranks = (np.cumsum(there, axis=1) - 1)[there]
        out = inp.iloc[rows].reset_index(drop=True)
        out = out.assign(docno=pd.Series(self.index.docnos_of(found), dtype=object),
                         score=scores[there].astype(np.float64), rank=ranks)  # fmt: skip
        return self._with_fields(out, self.include_fields, found)

    def _label(self) -> str:
        return self.engine

    def __repr__(self) -> str:
        more = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{self.index!r}.retriever({self.engine!r}, num_results={self.num_results}{more})"

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in self.__dict__.items() if n not in ("searcher", "candidates")} | {"_stamp": None}


def check_model(index: LIRIndex | IndexUnion, source: str, fingerprint: str, similarity: str = "dot") -> None:
    """Refuse a model whose weights are not those of the model that the index was made with, where that is known.

    Args:
        similarity: what the model's vectors are compared by; an index of vectors alone does not know it.

    Raises:
        ValueError: if it is another model, or vectors are compared otherwise.
    """
    made_by = index.meta["model"]
    if not made_by and similarity != "dot" and index.config.similarity_function == "dot":
        raise ValueError(
            f"{index!r} compares vectors by the dot product, {source} by {similarity}: build it with "
            "indexer(encoder=...), which tells the index how, or give any_model=True if it is meant so."
        )
    if made_by.get("fingerprint") and made_by["fingerprint"] != fingerprint:
        raise ValueError(
            f"{index!r} was made with {made_by['source']}, whose weights are not those of {source}. Search with that "
            "model, or give any_model=True if the two fit."
        )


def _distinct(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which distinct object each row has, and the first row of each; rows of a query share their vectors."""
    values = list(column)  # alive, so that they have ids of their own
    codes, _ = pd.factorize(np.fromiter(map(id, values), dtype=np.int64, count=len(values)))
    return codes, np.unique(codes, return_index=True)[1]


def _mask(found: Any, rows: int) -> Mask:
    """What a predicate gives for so many rows; a missing value is no.

    Raises:
        ValueError: for anything else than a truth value for each row.
    """
    values = np.asarray(found)
    if values.shape == (rows,) and values.dtype == object:  # with missing values
        values = np.array([False if pd.isna(value) else value for value in values])
    if values.shape != (rows,) or (rows and values.dtype != bool):
        raise ValueError(f"where= gave {type(found).__name__} for {rows} documents; allowed: a truth value for each.")
    return values.astype(bool)


def checked(num_results: int) -> int:
    """A number of results.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(num_results, Integral) or isinstance(num_results, bool) or num_results < 1:
        raise ValueError(f"num_results={num_results!r}; allowed: a positive number.")
    return int(num_results)


def known(missing: Missing) -> Missing:
    """What is done with documents that an index does not hold.

    Raises:
        ValueError: for another word.
    """
    if missing not in ("error", "drop"):
        raise ValueError(f"missing={missing!r}; allowed: error, drop.")
    return missing


def _frozen(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value
