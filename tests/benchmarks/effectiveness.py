"""What models learn: trained on nfcorpus from all-MiniLM-L6-v2, tested as re-rankers and first stages.

    python -m tests.benchmarks.effectiveness KIND --model FOLDER [--minutes 20] [--out results.csv]

KIND is cross, dense, splade or colbert.  Training data are the train queries with negatives from BM25's top 100, the
best epoch is chosen on the dev queries, and measures are those of the test queries, with paired t-tests against BM25
and against the model before training.  The seed is 0; documents are cut to 160 tokens while training.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
from ir_measures import RR, nDCG
from lightning import Callback, seed_everything

from pyterrier_lir import (
    BiEncoderConfig,
    BiEncoderModule,
    CrossEncoderConfig,
    CrossEncoderModule,
    LightningIRDataModule,
    LightningIRTrainer,
    LIRBiEncoder,
    LIRIndexer,
    LIRReRanker,
    LIRRetriever,
    TupleDataset,
)
from pyterrier_lir.data import open_source
from pyterrier_lir.training import Schedule
from pyterrier_lir.training.objectives import FLOPSRegularization, InBatchCrossEntropy, InfoNCE
from tests.benchmarks.encode import DATA

LENGTHS = {"query_length": 32, "doc_length": 160}
BI: dict[str, dict[str, Any]] = {
    "dense": {"config": BiEncoderConfig(doc_pooling_strategy=("mean",), query_pooling_strategy=("mean",),
                                        normalization_strategy="l2", **LENGTHS),
              "loss_functions": [InBatchCrossEntropy(temperature=0.05)], "learning_rate": 3e-5},
    "splade": {"config": BiEncoderConfig.splade(**LENGTHS),
               "loss_functions": [InBatchCrossEntropy(), (FLOPSRegularization(3e-3, 3e-3), 1.0,
                                                          Schedule("constant", 0.3, "quadratic"))],
               "learning_rate": 1e-4},
    "colbert": {"config": BiEncoderConfig.colbert(**LENGTHS), "loss_functions": [InBatchCrossEntropy()],
                "learning_rate": 5e-5},
}  # fmt: skip
# queries of a batch, documents of each, samples/s on two cores with which the number of steps is chosen
BATCHES = {"cross": (8, 8), "dense": (32, 2), "splade": (16, 2), "colbert": (32, 2)}


class Clock(Callback):
    """Stops in time, and says how fast it went."""

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        seconds = time.perf_counter() - self._start
        if trainer.global_step % 20 == 0:
            loss = float(trainer.callback_metrics["loss"])
            print(f"step {trainer.global_step}, {seconds:.0f} s, loss {loss:.4f}", flush=True)
        if seconds > 60 * self._minutes:
            trainer.should_stop = True


def frame(path: Path, names: list[str]) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else r"\s+", names=names, dtype=dict.fromkeys(names, str),
                       quoting=3)  # fmt: skip


def trained(arguments: argparse.Namespace, folder: Path) -> float:
    """Train, and write the model; returns the minutes that it took."""
    seed_everything(0)
    queries, docs = BATCHES[arguments.kind]
    if arguments.kind == "cross":
        config = CrossEncoderConfig(linear_bias=True, **LENGTHS)
        module: Any = CrossEncoderModule(arguments.model, config, loss_functions=[InfoNCE()], learning_rate=5e-5,
                                         head_learning_rate=1e-3, schedule=Schedule("linear", 0.1))  # fmt: skip
    else:
        module = BiEncoderModule(arguments.model, schedule=Schedule("linear", 0.1), **BI[arguments.kind])
    module.save_pretrained(folder / "before")
    data = TupleDataset(DATA / "nfcorpus" / "train.hardneg.jsonl.gz", num_docs=docs, dataset=DATA / "nfcorpus", seed=0)
    trainer = LightningIRTrainer(accelerator="cpu", precision=arguments.precision, max_steps=arguments.steps,
                                 logger=False, enable_checkpointing=False, enable_progress_bar=False,
                                 enable_model_summary=False, callbacks=Clock(arguments.minutes))  # fmt: skip
    start = time.perf_counter()
    trainer.fit(module, LightningIRDataModule(train_dataset=data, train_batch_size=queries))
    module.save_pretrained(folder / "after")
    return (time.perf_counter() - start) / 60


def systems(kind: str, folder: Path, bm25: Any, texts: Any, corpus: list[dict[str, str]]) -> dict[str, Any]:
    """Pipelines of the model before and after training."""
    found = {}
    for when in ("before", "after"):
        model = str(folder / when)
        found[f"BM25 >> {kind} {when}"] = bm25 % 50 >> texts >> LIRReRanker(model, precision="bf16")
        if kind != "cross":
            LIRIndexer(model, folder / f"{when}.lir", precision="bf16").index(corpus)
            found[f"{kind} {when}, first stage"] = LIRRetriever(model, folder / f"{when}.lir", num_results=100)
    return found


def terms(model: str, corpus: list[dict[str, str]]) -> float:
    """Mean number of terms of documents."""
    docs = LIRBiEncoder(model).doc_encoder()(pd.DataFrame(corpus[:500]))
    return float(np.mean([len(one) for one in docs["toks"]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(BATCHES))
    parser.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    place = DATA / "nfcorpus"
    source = open_source(place)
    corpus = [{"docno": docno, "text": text} for docno, text in source.docs.stretch(0, None)]
    known = {doc["docno"]: doc["text"] for doc in corpus}
    topics = frame(place / "topics.tsv", ["qid", "query"])
    qrels = frame(place / "qrels.txt", ["qid", "_", "docno", "label"]).astype({"label": int})
    run = pt.io.read_results(str(place / "runs" / "bm25.run.gz"))
    bm25 = pt.Transformer.from_df(run[["qid", "docno", "score", "rank"]])
    texts = pt.apply.text(lambda row: known[row["docno"]])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minutes = trained(arguments, folder)
        named = {"BM25": bm25, **systems(arguments.kind, folder, bm25, texts, corpus)}
        if arguments.kind == "splade":
            print(f"terms of a document: {terms(str(folder / 'before'), corpus):.0f} before, "
                  f"{terms(str(folder / 'after'), corpus):.0f} after")  # fmt: skip
        found = [pt.Transformer.from_df(system(topics)[["qid", "docno", "score", "rank"]]) for system in named.values()]
        tables = []
        for baseline in range(len(named)):
            table = pt.Experiment(found, topics, qrels, [nDCG @ 10, RR @ 10], names=list(named), baseline=baseline)
            tables.append(table.set_index("name"))
        result = tables[0][["nDCG@10", "RR@10"]].copy()
        result["p against BM25"] = tables[0]["nDCG@10 p-value"]
        for one in named:
            if " after" in one:
                before = list(named).index(one.replace("after", "before"))
                result.loc[one, "p against before"] = tables[before].loc[one, "nDCG@10 p-value"]
    print(f"{arguments.kind}: trained for {minutes:.1f} minutes\n{result.round(4).to_string()}")
    if arguments.out:
        result.to_csv(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
