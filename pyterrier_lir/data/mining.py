"""Hard negatives: what a pipeline finds near the top that is not relevant, checked by a teacher."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from .judgements import Judgements
from .rankings import KEYS, keep_queries, read_ranking
from .sampling import SAMPLING, choose
from .source_kinds import frame_ids
from .sources import open_source
from .text_store import MemoryTexts, Texts

Pipeline = Callable[[pd.DataFrame], pd.DataFrame]
STRATEGIES = ("top", "random", "log_random")
PYTERRIER = {"query_id": "qid", "doc_id": "docno", "relevance": "label"}


def mine_negatives(
    pipeline: Pipeline,
    topics: pd.DataFrame,
    qrels: pd.DataFrame,
    *,
    depth: int = 100,
    n: int = 8,
    skip_top: int = 0,
    teacher: Pipeline | None = None,
    margin: float | None = None,
    absolute: float | None = None,
    percent: float | None = None,
    sampling: Literal["top", "random", "log_random"] = "random",
    seed: int = 0,
    docs: Any = None,
    batch_size: int = 1000,
) -> pd.DataFrame:
    """Take documents that a pipeline finds and that are not judged relevant, `n` for each query, beside the relevant.

    The result is what `TupleDataset` takes, with the texts in it or with `dataset=`.  Where a query has several
    relevant documents, a negative has to keep below each of them.

    Args:
        pipeline: from `qid`, `query` to `qid`, `docno`, and `score` or `rank`: anything that PyTerrier retrieves with.
        topics: `qid`, `query`; those without a relevant document, or with too few negatives, are left out.
        qrels: `qid`, `docno`, `label`; relevant is what has more than 0.
        depth: how far down the ranking negatives may be.
        n: how many negatives a query gets.
        skip_top: how many documents at the top are not taken, because they are likely to be relevant.
        teacher: a re-ranker, from `qid`, `query`, `docno`, `text` to these and `score`; its scores are kept.
        margin: how much lower a negative's score has to be than those of the relevant documents.
        absolute: what a negative's score may be at most.
        percent: what share of the relevant documents' score a negative's has to be below, such as 0.95.
        sampling: which of those that are left: top, random, or log_random (more likely near the top).
        seed: of the sampling.
        docs: texts by docno, anything that `open_source` takes; without it, texts that the pipeline gives are used.
        batch_size: how many queries the pipeline is given at once.

    Returns:
        `qid`, `query`, `docno`, `text` where there are texts, `label`, and `score` with a teacher: for each query the
        relevant documents, then its negatives.

    Raises:
        ValueError: for unknown settings, limits without a teacher, columns or texts that are not there, `percent` of
            scores that are not positive, or if no query is left.

    >>> def search(topics):
    ...     found = pd.DataFrame({"docno": ["a", "b", "c"], "score": [3.0, 2.0, 1.0]})
    ...     return topics.merge(found, how="cross")
    >>> topics = pd.DataFrame({"qid": ["1"], "query": ["how tall"]})
    >>> qrels = pd.DataFrame({"qid": ["1"], "docno": ["a"], "label": [1]})
    >>> mine_negatives(search, topics, qrels, n=1, sampling="top")[["qid", "docno", "label"]].to_numpy().tolist()
    [['1', 'a', 1], ['1', 'b', 0]]
    """
    choose("sampling", sampling, STRATEGIES)
    limits = {"margin": margin, "absolute": absolute, "percent": percent}
    set_limits = [name for name, limit in limits.items() if limit is not None]
    if set_limits and teacher is None:
        raise ValueError(f"{set_limits[0]}={limits[set_limits[0]]} is a limit of a teacher's scores; give teacher=.")
    if n < 1 or depth < 1 or not 0 <= skip_top < depth:
        raise ValueError(
            f"n={n}, depth={depth}, skip_top={skip_top}; allowed: n and depth from 1, skip_top below depth."
        )
    queries = _topics(topics)
    positives = _positives(queries, Judgements(qrels, "qrels"))
    texts = None if docs is None else _texts(docs)
    found = []
    kept = queries[queries["query_id"].isin(positives["query_id"])]
    for start in range(0, len(kept), batch_size):
        batch = kept.iloc[start : start + batch_size]
        own = positives[positives["query_id"].isin(batch["query_id"])]
        ranked = _ranked(pipeline, batch, depth)
        pairs = _with_texts(_candidates(ranked, own, skip_top), ranked, texts, needed=teacher is not None)
        if teacher is not None:
            pairs = _below(_scored(teacher, pairs), margin, absolute, percent)
        found.append(pairs)
    everything = _known(pd.concat(found, ignore_index=True))
    return _drawn(everything, n, sampling, seed)


def teacher_scores(teacher: Pipeline, tuples: pd.DataFrame, docs: Any = None) -> pd.DataFrame:
    """The tuples with a re-ranker's scores in `score`: targets to distil from.

    Args:
        teacher: from `qid`, `query`, `docno`, `text` to these and `score`.
        tuples: such as `mine_negatives` gives, in any order, which is kept.
        docs: texts by docno, if the tuples have none: anything that `open_source` takes.

    Raises:
        ValueError: if columns or texts are not there, or the teacher leaves documents out.

    >>> tuples = pd.DataFrame({"qid": ["1"], "query": ["how tall"], "docno": ["a"], "text": ["It is"], "label": [1]})
    >>> teacher_scores(lambda pairs: pairs.assign(score=pairs["text"].str.len()), tuples)["score"].tolist()
    [5.0]
    """
    frame = frame_ids(tuples)
    if lacking := {"query_id", "query", "doc_id"} - set(frame.columns):
        raise ValueError(f"tuples have no {', '.join(sorted(lacking))}; allowed: qid, query, docno, text, label.")
    frame = _with_texts(frame, frame, None if docs is None else _texts(docs), needed=True)
    return _scored(teacher, frame).rename(columns=PYTERRIER)


def _topics(topics: pd.DataFrame) -> pd.DataFrame:
    frame = frame_ids(topics)
    if lacking := {"query_id", "query"} - set(frame.columns):
        raise ValueError(f"topics have no {', '.join(sorted(lacking))}; they have {', '.join(map(str, topics))}.")
    if frame["query_id"].duplicated().any():
        first = frame.loc[frame["query_id"].duplicated(), "query_id"].iloc[0]
        raise ValueError(f"topics: qid {first!r} occurs more than once; allowed: each qid once.")
    return frame[["query_id", "query"]]


def _positives(queries: pd.DataFrame, qrels: Judgements) -> pd.DataFrame:
    grades = qrels.highest()
    relevant = grades[grades["relevance"] > 0].merge(queries, on="query_id")
    has_some = queries["query_id"].isin(relevant["query_id"])
    keep_queries(queries, has_some, "have no relevant document", "allowed: qrels of these topics with labels above 0.")
    return relevant


def _texts(docs: Any) -> Texts:
    if isinstance(docs, Texts):
        return docs
    if isinstance(docs, Mapping) and "docs" not in docs:
        return MemoryTexts(docs)
    return open_source(docs).docs


def _ranked(pipeline: Pipeline, batch: pd.DataFrame, depth: int) -> pd.DataFrame:
    results = pipeline(batch.rename(columns=PYTERRIER).reset_index(drop=True))
    if len(results) == 0:
        return pd.DataFrame({"query_id": [], "doc_id": [], "rank": []}, dtype=object)
    frame = read_ranking(results, "what the pipeline found")
    return frame[frame["rank"] <= depth]


def _candidates(ranked: pd.DataFrame, positives: pd.DataFrame, skip_top: int) -> pd.DataFrame:
    """The relevant documents and, below them, what was found besides; `place` is the rank."""
    below = ranked[ranked["rank"] > skip_top][[*KEYS, "rank"]].assign(relevance=0)
    relevant = pd.MultiIndex.from_frame(below[KEYS]).isin(pd.MultiIndex.from_frame(positives[KEYS]))
    queries = positives.drop_duplicates("query_id")[["query_id", "query"]]
    below = below[~relevant].merge(queries, on="query_id")
    return pd.concat([positives.assign(rank=0), below], ignore_index=True)


def _with_texts(pairs: pd.DataFrame, found: pd.DataFrame, texts: Texts | None, *, needed: bool) -> pd.DataFrame:
    if texts is not None:
        return pairs.assign(text=texts.lookup(pairs["doc_id"].tolist()))
    if "text" not in found.columns:
        if needed:
            raise ValueError("The teacher reads texts, and the pipeline gives none; give docs=.")
        return pairs
    # by query, so that it does not matter what is found for others
    pairs = pairs.drop(columns="text", errors="ignore").merge(found[[*KEYS, "text"]], on=KEYS, how="left")
    column = pairs["text"]
    if needed and column.isna().any():
        first = pairs.loc[column.isna(), "doc_id"].iloc[0]
        count = int(column.isna().sum())
        raise ValueError(f"docno {first!r} has no text, it was not found ({count} such documents); give docs=.")
    return pairs


def _known(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose texts are known, of queries with a relevant one, where there are texts."""
    if "text" not in pairs:
        return pairs
    known = pairs["text"].notna()
    relevant = (known & (pairs["relevance"] > 0)).groupby(pairs["query_id"]).transform("any")
    why = "have no relevant document that was found with its text (docs= gives texts of others)"
    keep_queries(pairs, relevant, why, "allowed: docs=.")
    return pairs[known & relevant]


def _scored(teacher: Pipeline, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with the teacher's scores, in their order."""
    if pairs.empty:
        return pairs.assign(score=pd.Series(dtype=float))
    asked = pairs.rename(columns=PYTERRIER)[["qid", "query", "docno", "text"]].drop_duplicates(["qid", "docno"])
    answer = teacher(asked)
    if lacking := {"qid", "docno", "score"} - set(answer.columns):
        raise ValueError(
            f"The teacher gives no {', '.join(sorted(lacking))}; allowed: a re-ranker of qid, docno, text."
        )
    answer = frame_ids(answer[["qid", "docno", "score"]]).drop_duplicates(KEYS)
    scored = pairs.drop(columns="score", errors="ignore").merge(answer, on=KEYS, how="left")
    if scored["score"].isna().any():
        first = scored[scored["score"].isna()].iloc[0]
        raise ValueError(
            f"The teacher gives no score for {int(scored['score'].isna().sum())} of {len(scored)} documents, the first "
            f"{first['doc_id']!r} for query {first['query_id']!r}; allowed: a re-ranker without a cut-off."
        )
    return scored.assign(score=scored["score"].astype(float))


def _below(pairs: pd.DataFrame, margin: float | None, absolute: float | None, percent: float | None) -> pd.DataFrame:
    """The relevant documents, and the others that keep to the limits."""
    relevant = pairs["relevance"] > 0
    lowest = pairs["query_id"].map(pairs[relevant].groupby("query_id")["score"].min())
    fine = pd.Series(True, index=pairs.index)
    if margin is not None:
        fine &= pairs["score"] <= lowest - margin
    if absolute is not None:
        fine &= pairs["score"] <= absolute
    if percent is not None:
        if (lowest <= 0).any():
            first = pairs.loc[lowest <= 0, "query_id"].iloc[0]
            raise ValueError(
                f"percent={percent}: a relevant document of query {first!r} has the score "
                f"{lowest[lowest <= 0].iloc[0]}; allowed: a teacher with positive scores.  Use margin= for any other."
            )
        fine &= pairs["score"] < percent * lowest
    return pairs[relevant | fine]


def _drawn(pairs: pd.DataFrame, n: int, sampling: str, seed: int) -> pd.DataFrame:
    """The relevant documents and n others of each query that has so many."""
    negatives = (pairs["relevance"] <= 0).groupby(pairs["query_id"]).transform("sum")
    why, remedy = (
        f"have fewer than {n} negatives",
        f"allowed: n up to {negatives.max()}, a greater depth, or wider limits.",
    )
    pairs = keep_queries(pairs, negatives >= n, why, remedy)
    order = pairs.groupby("query_id", sort=False).ngroup()
    pairs = pairs.assign(_query=order).sort_values(["_query", "rank"], kind="stable", ignore_index=True)
    others = np.flatnonzero(pairs["relevance"] <= 0)
    ranks = pairs["rank"].to_numpy(dtype=np.float64)
    kept = [np.flatnonzero(pairs["relevance"] > 0)]
    for query_id, rows in pairs.iloc[others].groupby("query_id", sort=False).indices.items():
        places = others[rows]
        # what a query gets does not depend on which others are asked
        rng = np.random.default_rng((seed, zlib.crc32(str(query_id).encode())))
        drawn = SAMPLING[sampling](ranks[places], np.zeros(len(places)), n, rng)
        kept.append(places[np.sort(drawn)])
    chosen = pairs.iloc[np.sort(np.concatenate(kept))].rename(columns=PYTERRIER)
    columns = [column for column in ("qid", "query", "docno", "text", "label", "score") if column in chosen]
    return chosen[columns].reset_index(drop=True)
