"""LIRReRanker: any cross-encoder or bi-encoder as a PyTerrier re-ranker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import pyterrier as pt

from ..columns import check_results, check_scores, check_texts, text_values
from ..config import Kind
from .model_transformer import ModelTransformer
from .scoring import check_scorable, scored
from .settings import check_activation, check_positive

if TYPE_CHECKING:
    from ..engine import Engine
    from .explanation import Explanation

_RANKED = {"qid", "docno", "score", "rank"}  # columns of results that are no texts


@dataclass(unsafe_hash=True, repr=False, kw_only=True)
class LIRReRanker(ModelTransformer):
    """Re-rank results with a cross-encoder, or with a bi-encoder.

    Reads `qid`, `query`, `docno` and `text`; writes `score` and `rank` and keeps every other column and the order of
    rows.  Equal scores rank in the order of the rows.  Weights are loaded at the first use, not when a pipeline is
    built, drawn or inspected, and are not pickled.

    A listwise model (set-encoder) sees all documents of a query at once.  A list longer than the model's `depth` is
    cut, along its incoming rank (or its rows, if there is none), into the fewest windows of at most `depth`
    documents, as equal in size as can be; each window is scored alone.  Within a window the order does not matter.

    A bi-encoder takes the vectors of documents from a column `doc_vec` (dense), `toks` (sparse) or `doc_embs`
    (multi-vector) where the results have it, those of queries from `query_vec`, `query_toks` or `query_embs`, and
    encodes the texts otherwise.

    Args:
        model: a hub id, a folder, or a loaded model.
        text_field, query_field: the columns that are read.
        batch_size: rows of a batch; None batches by a budget of tokens, which is faster.  A listwise
            model's lists are never split.
        device: such as `cpu` or `cuda:0`; None takes the GPU if there is one.
        precision: `float32`, `bf16`, `fp16`, `int8`, or `auto` (float32 on CPU, bf16 on CUDA).
        max_length: most tokens of a pair (of a text, for bi-encoders, whose queries are not filled up further with
            `[MASK]` by it), None for the model's own limit.
        verbose: show a progress bar.
        token_ids: tokens of stored sparse vectors are named by their ids, as by `LIRBiEncoder(token_ids=True)`.
        template: how a generative model is asked, where its files do not say; see `checkpoints.load`.
        instruction: the task that a generative model is told, None for its own; for bi-encoders, text in front of
            queries.
        activation: what the score goes through, such as `"Identity"` for raw logits; None for the model's own.
        outputs: which outputs of a bi-encoder that has several are added up; see `checkpoints.load`.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether Python files of the checkpoint may run.

    Raises:
        ValueError, FileNotFoundError: at the first use, for what `checkpoints.load` and `Engine` refuse.
        pt.validate.InputValidationError: for missing columns.

    >>> LIRReRanker("webis/monoelectra-base", batch_size=32)
    LIRReRanker('webis/monoelectra-base', batch_size=32)
    """

    template: str | None = None
    instruction: str | None = None
    activation: str | None = None
    outputs: tuple[Kind, ...] | None = None

    _LOADING: ClassVar[tuple[str, ...]] = ("revision", "trust_remote_code", "template", "outputs")
    _CHANGING: ClassVar[tuple[str, ...]] = ("max_length", "instruction", "activation")

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Score each row's query and document, and rank anew within each query."""
        texts = {"query": self.query_field, "text": self.text_field}
        check_scorable(inp, texts, self)
        if inp.empty:
            return ranked(inp.assign(score=pd.Series(dtype=float)))
        return with_scores(inp, self._scores(inp, self.engine(), texts))

    def rank(self, query: str, docs: Sequence[str] | Mapping[str, str], num_results: int | None = None) -> pd.DataFrame:
        """Rank texts for a query, without a pipeline.

        Args:
            docs: the texts, or docno -> text; without docnos, their positions in the list are these.
            num_results: keep so many, the best; None for all.

        Returns:
            `rank`, `score`, `docno` and `text`, the best first.

        Raises:
            TypeError: for what are no strings.
            ValueError: if the texts' columns are named as one that ranking needs for itself.

        >>> LIRReRanker("webis/monoelectra-base").rank("fox", ["The fox.", "A dog."], num_results=1)  # doctest: +SKIP
           rank  score docno      text
        0     0   4.32     0  The fox.
        """
        check_positive("num_results", num_results)
        [query] = check_texts([query], "query")
        texts = check_texts(docs.values() if isinstance(docs, Mapping) else docs, "docs")
        docnos = [str(docno) for docno in (docs if isinstance(docs, Mapping) else range(len(texts)))]
        for name, taken in (("text_field", {self.query_field}), ("query_field", set())):
            if (column := getattr(self, name)) in _RANKED | taken:
                raise ValueError(f"{name}={column!r}; rank() has other values in that column, give another name.")
        frame = pd.DataFrame({"qid": "1", self.query_field: query, "docno": docnos, self.text_field: texts})
        found = self.transform(frame.astype(object)).sort_values("rank", ignore_index=True).iloc[:num_results]
        return found[["rank", "score", "docno", self.text_field]].set_axis(["rank", "score", "docno", "text"], axis=1)

    def explain(self, query: str, text: str) -> Explanation:
        """What a score reacts to: how much it falls when one word of the query or of the document is left out.

        Works with every model, and takes a forward pass for each word.  Where scores go through a sigmoid, near 0 and
        1 nothing seems to matter: `activation="Identity"` shows the logits' falls.  A listwise model sees each
        document alone.  Words of the document beyond what the model reads fall by about 0, which says nothing of
        them: `unread` counts these, and the display tells it.

        Returns:
            `side` (`query` or `doc`), `word` and `fall`, in the order of the texts, and the attributes `score` and
            `unread`; a DataFrame that notebooks show as the texts with their words shaded.

        Raises:
            TypeError: for what are no strings.
        """
        from .explanation import leave_out, unread_words

        query, text = check_texts([query, text], "explain's texts")
        engine = self.engine()
        table = leave_out(lambda queries, docs: engine.score(queries, docs, np.arange(len(docs))), query, text)
        table.unread = unread_words(engine.model, query, text)
        return table

    def _load(self) -> Engine:
        if self.activation is not None:
            check_activation(self.activation)
        engine = super()._load()
        if self.template is not None and getattr(engine.model.config, "head", None) != "tokens":
            raise ValueError(
                f"template={self.template!r}: {engine.model.source} is no generative model, which a template asks; "
                "leave it out."
            )
        return engine

    def _scores(self, inp: pd.DataFrame, engine: Engine, texts: dict[str, str]) -> np.ndarray:
        if hasattr(engine.model, "outputs"):
            return scored(inp, engine, texts, self, self.token_ids)
        check_results(inp, texts, self)
        queries, docs = (text_values(inp, column) for column in texts.values())
        depth = engine.model.config.depth  # type: ignore[union-attr]
        return engine.score(queries, docs, None if depth is None else windows(inp, depth))


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `rank` by falling score within each query."""
    out: pd.DataFrame = pt.model.add_ranks(frame)
    return out


def with_scores(frame: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    """The frame with a model's scores (N,) and the ranks that they make.

    Raises:
        ValueError: for NaN and infinite scores.
    """
    check_scores(frame, scores)
    return ranked(frame.assign(score=scores.astype(np.float64)))


def windows(frame: pd.DataFrame, depth: int) -> np.ndarray:
    """Number the lists that a listwise model sees: one for each query, or more for one with over `depth` documents.

    >>> frame = pd.DataFrame({"qid": ["a"] * 5 + ["b"], "docno": list("vwxyzv"), "rank": [4, 3, 2, 1, 0, 0]})
    >>> windows(frame, 4).tolist()
    [1, 1, 0, 0, 0, 2]
    """
    queries = pd.factorize(frame["qid"])[0]
    by = frame["rank"].to_numpy() if "rank" in frame.columns else np.arange(len(frame))
    order = np.lexsort((by, queries))
    counts = np.bincount(queries)
    place = np.empty(len(frame), dtype=np.int64)
    place[order] = np.arange(len(frame)) - np.repeat(np.cumsum(counts) - counts, counts)
    parts = -(-counts // depth)
    window = place * parts[queries] // counts[queries]
    return (np.cumsum(parts) - parts)[queries] + window  # type: ignore[no-any-return]
