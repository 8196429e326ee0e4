"""The reproducibility experiment of the Lightning IR paper (section 5), on one backbone and on small collections.

    python -m tests.benchmarks.reproduce train --model FOLDER --out OUT [--kinds dense splade colbert cross]
    python -m tests.benchmarks.reproduce test --model FOLDER --out OUT [--depth 50]
    python -m tests.benchmarks.reproduce published [--table 2]

`train` makes a dense model, SPLADE, ColBERT and a cross-encoder of the backbone in FOLDER with the ready YAML files of
`pyterrier-lir fit`, over the train queries of nfcorpus, scifact and wikiqa with their candidates; what is overridden is in
OUT/local-KIND.yaml.  `test` re-ranks BM25's runs and retrieves, and writes a page with paired t-tests (OUT/page.md).  `published`
runs the models of the paper's tables 2 and 3 on MS MARCO, which are downloaded, and fails where nDCG@10 is further than
0.005 from the paper's.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyterrier as pt
import yaml
from ir_measures import nDCG

from pyterrier_lir import (
    BiEncoderConfig,
    BiEncoderModule,
    CrossEncoderModule,
    DocDataset,
    IndexCallback,
    LightningIRDataModule,
    LightningIRTrainer,
    LIRBiEncoder,
    LIRIndexer,
    LIRReRanker,
    LIRRetriever,
    QueryDataset,
    RunDataset,
    SearchCallback,
)
from pyterrier_lir.data import open_source
from pyterrier_lir.indexes import configs
from tests import shared_collections as shared
from tests.benchmarks.effectiveness import start_sparse
from tests.benchmarks.effectiveness_tasks import qrels_of, taught, topics_of

READY = {"cross": "monoelectra", "dense": "dense", "splade": "splade", "colbert": "colbert"}
IN_BATCH = {"class_path": "InBatchCrossEntropy"}
# what is overridden of the ready files, beside the data: they were made for BERT and tens of thousands of steps
KINDS: dict[str, dict[str, Any]] = {
    "cross": {"steps": 300, "queries": 8, "docs": 8, "rate": 1e-4, "config": {"linear_bias": True}},
    "dense": {"steps": 150, "queries": 32, "docs": 2, "rate": 3e-5,  # the start is of means, of length 1
              "config": {"query_pooling_strategy": "mean", "doc_pooling_strategy": "mean",
                         "normalization_strategy": "l2"},
              "losses": [IN_BATCH | {"init_args": {"temperature": 0.05}}]},
    "splade": {"steps": 150, "queries": 16, "docs": 2, "rate": 1e-4,
               "losses": [IN_BATCH, {"class_path": "FLOPSRegularization",
                                     "init_args": {"query_weight": 0.05, "doc_weight": 0.1}}]},
    "colbert": {"steps": 150, "queries": 32, "docs": 2, "rate": 5e-5, "losses": [IN_BATCH]},
}  # fmt: skip
LENGTHS = {"query_length": 32, "doc_length": 96}
TRAIN = {"nfcorpus": "bm25.train", "scifact": "bm25.train", "wikiqa": "candidates.train"}
TESTS = ("trec-dl-2019", "trec-dl-2020", "nfcorpus", "scifact", "cranfield", "vaswani")
OFFICIAL = {"trec-dl-2019": "qrels.full.txt", "trec-dl-2020": "qrels.full.txt"}  # of rankings of the whole collection
STORED = {
    "SPLADE++": "splade-pp-ed",
    "TAS-B": "tasb",
    "RepLLaMA": "repllama",
    "RankVicuna": "rerank-rankvicuna_on_splade-pp-ed",
}
MEASURE = nDCG @ 10
RUN = ["qid", "Q0", "docno", "rank", "score", "tag"]
COLUMNS = ("trec-dl-2019", "trec-dl-2020")
TOLERANCE = 0.005  # what a published number may be missed by


def training_folder(folder: Path) -> Path:
    """The train queries of all collections as one, with BM25's results; ids begin with the collection's name."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as corpus:
        for name in TRAIN:
            for docno, text in shared.documents(name).items():
                corpus.write(json.dumps({"docno": f"{name}-{docno}", "text": text}) + "\n")
    topics, qrels, runs = [], [], []
    for name, file in TRAIN.items():
        own = shared.topics(name, "topics.train.tsv"), shared.qrels(name, "qrels.train.txt")
        run = pd.read_csv(shared.DATA / name / "runs" / f"{file}.run.gz", sep=r"\s+", dtype=str, names=RUN)
        good = run.merge(own[1].query("label > 0"), on=["qid", "docno"])["qid"]
        run = run[run["qid"].isin(good) & (run.groupby("qid")["docno"].transform("size") >= 8)]
        for frame, parts in zip((*own, run), (topics, qrels, runs), strict=True):
            ids = {column: name + "-" + frame[column] for column in ("qid", "docno") if column in frame}
            parts.append(frame.assign(**ids))
    pd.concat(topics).to_csv(folder / "topics.tsv", sep="\t", header=False, index=False)
    lines = pd.concat(qrels).assign(Q0="0")[["qid", "Q0", "docno", "label"]]
    lines.to_csv(folder / "qrels.txt", sep=" ", header=False, index=False)
    pd.concat(runs).to_csv(folder / "bm25.run", sep=" ", header=False, index=False)
    return folder


def teach(folder: Path, model: str) -> None:
    """Write teacher.run: the order of BM25's and the model's scores added up, relevant documents on top."""
    run = pd.read_csv(folder / "bm25.run", sep=" ", names=RUN, dtype={"qid": str, "docno": str})
    texts, topics = dict(open_source(folder).docs.stretch(0, None)), topics_of(folder / "topics.tsv")
    teacher = LIRBiEncoder(model, precision="bf16", **LENGTHS)
    found = taught(run, topics, qrels_of(folder / "qrels.txt"), texts, teacher)
    pt.io.write_results(found, str(folder / "teacher.run"))


def local(name: str, data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a ready file is overridden with."""
    kind = KINDS[name]
    steps = arguments.steps or kind["steps"]
    taught = name == "cross"
    model: dict[str, Any] = {
        "model_name_or_path": str(arguments.out / "splade-start") if name == "splade" else arguments.model,
        "config": {"init_args": {**LENGTHS, **kind.get("config", {})}},
    }
    if name == "splade":
        model["config"] = None  # what the start was saved with: a configuration would make its head anew
    if "losses" in kind:
        model["loss_functions"] = kind["losses"]
    trainer: dict[str, Any] = {
        "max_steps": steps, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_checkpointing": False, "default_root_dir": str(arguments.out / name),
    }  # fmt: skip
    if name == "splade":
        keys = [f"loss_functions.1.{side}_weight" for side in ("query", "doc")]
        rise = {"keys": keys, "num_warmup_steps": steps // 3}
        trainer["callbacks"] = [{"class_path": "GenericConstantSchedulerWithQuadraticWarmup", "init_args": rise}]
    samples = {"run_path_or_id": str(data / ("teacher.run" if taught else "bm25.run")), "dataset": str(data),
               "targets": "score" if taught else "relevance", "sample_size": kind["docs"],
               "sampling_strategy": "single_relevant"}  # fmt: skip
    return {
        "trainer": trainer,
        "model": {"init_args": model},
        "data": {"init_args": {"train_batch_size": kind["queries"], "train_dataset": {"init_args": samples}}},
        "optimizer": {"init_args": {"lr": kind["rate"]}},
        "lr_scheduler": {"init_args": {"num_warmup_steps": steps // 10}},
    }


def train(arguments: argparse.Namespace) -> None:
    """Train the models by the command line."""
    arguments.out = Path(arguments.out).resolve()
    data = training_folder(arguments.out / "train")
    for name in arguments.kinds:
        if name == "cross":
            teach(data, arguments.model)
        if name == "splade":
            module = BiEncoderModule(arguments.model, config=replace(BiEncoderConfig.splade(), **LENGTHS))
            start_sparse(module, list(shared.documents("nfcorpus").values())[:200])
            shutil.rmtree(arguments.out / "splade-start", ignore_errors=True)
            module.save_pretrained(arguments.out / "splade-start")
        path = arguments.out / f"local-{name}.yaml"
        path.write_text(yaml.safe_dump(local(name, data, arguments)), encoding="utf-8")
        start = time.perf_counter()
        command = [sys.executable, "-m", "pyterrier_lir", "fit", "--config", READY[name], "--config", str(path)]
        subprocess.run(command, check=True)
        print(f"{name}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


def trained(out: Path, name: str) -> str:
    """The folder of the last model of a kind."""
    found = sorted((out / name / "lightning_logs").glob("version_*/model"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{out / name} holds no model: run `train` first.")
    return str(found[-1])


def systems(
    collection: str, models: dict[str, str], depth: int, folder: Path, retrieve: bool
) -> dict[str, pd.DataFrame]:
    """Results of each system: BM25, stored runs, re-rankers on BM25 and, where models retrieve, first stages."""
    topics = shared.topics(collection)
    first = shared.run(collection, depth=max(100, depth))
    found = {"BM25": first}
    runs = shared.DATA / collection / "runs"
    found |= {
        # in the order of their ranks: scores are rounded, so that many are equal
        name: pt.io.read_results(str(runs / f"{file}.run.gz")).assign(score=lambda run: -run["rank"])
        for name, file in STORED.items()
        if (runs / f"{file}.run.gz").is_file()
    }
    candidates = set(first["docno"])
    corpus = [{"docno": docno, "text": text} for docno, text in shared.documents(collection).items()
              if retrieve or docno in candidates]  # fmt: skip
    for name, model in models.items():
        pool = first[first["rank"] < depth]
        if name == "cross":
            found[f"BM25 >> {name}"] = LIRReRanker(model, precision="bf16")(pool)
        else:
            index = LIRIndexer(model, folder / f"{collection}-{name}.lir", precision="bf16").index(corpus)
            found[f"BM25 >> {name}"] = (LIRBiEncoder(model).query_encoder() >> index.scorer())(pool)
            if retrieve:
                found[name] = LIRRetriever(model, index.path, num_results=100)(topics)
        print(f"{collection}, {name}", flush=True)
    return found


def table(collection: str, found: dict[str, pd.DataFrame], start: str) -> pd.Series:
    """nDCG@10 of each system; marked where it differs (p < 0.05) from BM25 (*) and from the start (+).

    First stages, which search those passages of TREC DL that are here, are measured with the judgements of those.
    """
    topics = shared.topics(collection)
    runs = [pt.Transformer.from_df(one[["qid", "docno", "score", "rank"]]) for one in found.values()]
    names = list(found)

    def compared(baseline: str, qrels: str) -> pd.DataFrame:
        out: pd.DataFrame = pt.Experiment(
            runs, topics, shared.qrels(collection, qrels), [MEASURE], names=names, baseline=names.index(baseline)
        ).set_index("name")
        return out

    cells = {}
    official = OFFICIAL.get(collection, "qrels.txt")
    first_stages = [name for name in names if name == start or f"BM25 >> {name}" in names]
    for rows, own, qrels in (
        ([name for name in names if name not in first_stages], f"BM25 >> {start}", official),
        (first_stages, start, "qrels.txt"),
    ):
        if not rows:
            continue
        against = {mark: compared(name, qrels) for mark, name in (("*", "BM25"), ("+", own)) if name in names}
        for name in rows:
            p_values = {mark: frame.loc[name, f"{MEASURE} p-value"] for mark, frame in against.items()}
            marks = "".join(mark for mark, p in p_values.items() if pd.notna(p) and p < 0.05)
            cells[name] = f"{against['*'].loc[name, str(MEASURE)]:.3f}{marks}"
    return pd.Series(cells, name=collection)


def test(arguments: argparse.Namespace) -> None:
    """Re-rank and retrieve, and write the page."""
    out = Path(arguments.out).resolve()
    models = {"start": arguments.model, **{name: trained(out, name) for name in arguments.kinds}}
    columns = []
    for collection in arguments.collections or TESTS:
        with tempfile.TemporaryDirectory() as folder:
            found = systems(collection, models, arguments.depth, Path(folder), collection not in arguments.rerank)
        columns.append(table(collection, found, "start"))
        page = pd.concat(columns, axis=1).fillna("")
        (out / "page.csv").write_text(page.to_csv(), encoding="utf-8")
        lines = ["| nDCG@10 | " + " | ".join(page) + " |", "|" + "---|" * (len(page.columns) + 1)]
        lines += [
            f"| {name} | " + " | ".join(row) + " |" for name, row in zip(page.index, page.to_numpy(), strict=True)
        ]
        (out / "page.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print((out / "page.md").read_text(encoding="utf-8"))


def expected(table: int | None = None) -> list[dict[str, Any]]:
    """The rows of reproduce.yaml, of one table or of both."""
    rows = yaml.safe_load((Path(__file__).parent / "reproduce.yaml").read_text(encoding="utf-8"))
    return [row for row in rows if table in (None, row["table"])]


def measured(row: dict[str, Any], judged: list[str], docs: str, folder: Path) -> list[float]:
    """nDCG@10 of a row's model on each judged dataset: table 2 re-ranks their rankings, table 3 retrieves from docs."""
    kind: Any = CrossEncoderModule if row.get("kind") == "cross" else BiEncoderModule
    module = kind(row["model"], evaluation_metrics=["nDCG@10"])
    if row["table"] == 2:
        data = LightningIRDataModule(inference_datasets=[RunDataset(one) for one in judged])
        [measures] = LightningIRTrainer(logger=False).re_rank(module, data)
    else:
        index = IndexCallback(folder, getattr(configs, f"{row['index']}IndexConfig")())
        collection = LightningIRDataModule(inference_datasets=[DocDataset(docs)])
        LightningIRTrainer(logger=False, callbacks=[index]).index(module, collection)
        search = SearchCallback(folder, getattr(configs, f"{row['index']}SearchConfig")(k=10))
        queries = LightningIRDataModule(inference_datasets=[QueryDataset(one) for one in judged])
        [measures] = LightningIRTrainer(logger=False, callbacks=[search]).search(module, queries)
    return [measures[f"{one}/nDCG@10"] for one in judged]


def published(arguments: argparse.Namespace) -> int:
    """Run the paper's models and compare; returns how many numbers are not within 0.005, or could not be had."""
    wrong = 0
    for row in expected(arguments.table):
        judged = [f"msmarco-passage/{name}/judged" for name in COLUMNS]
        try:
            values = measured(row, judged, "msmarco-passage", Path(arguments.out) / row["model"].replace("/", "-"))
        except (OSError, ValueError) as error:  # the other models are tried all the same
            print(f"table {row['table']}, {row['name']}: {error}", flush=True)
            wrong += len(judged)
            continue
        for name, value in zip(COLUMNS, values, strict=True):
            close = abs(value - row[name]) <= TOLERANCE
            wrong += not close
            verdict = "reproduced" if close else "NOT REPRODUCED"
            print(f"table {row['table']}, {row['name']}, {name}: {value:.3f}, published {row[name]:.3f}: {verdict}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("train", "test", "published"))
    parser.add_argument("--model", help="folder of the backbone")
    parser.add_argument("--out", default="reproduce")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--steps", type=int, help="other than those of each kind")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--collections", nargs="*", choices=TESTS)
    parser.add_argument("--rerank", nargs="*", choices=TESTS, default=[], help="collections without first stages")
    parser.add_argument("--table", type=int, choices=(2, 3))
    arguments = parser.parse_args()
    if arguments.job == "published":
        return published(arguments)
    {"train": train, "test": test}[arguments.job](arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
