"""What models learn: trained from all-MiniLM-L6-v2, tested as re-rankers and first stages.

    python -m tests.benchmarks.effectiveness COLLECTION KIND --model FOLDER [--minutes 20] [--out results.csv]

KIND is cross, dense, splade or colbert; COLLECTION is nfcorpus, documentation (of installed Python modules), or trec-dl,
where a cross-encoder learns the order of RepLLaMA's and SPLADE++'s rankings of 2020 and is tested on 2019.  Elsewhere
training data are the train queries with one relevant and further documents from BM25's top 100.  Measures are those of
the test queries, with paired t-tests against BM25 and against the model before training.  The seed is 0; documents are
cut to 128 tokens.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import pyterrier as pt
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
)
from pyterrier_lir.training import Schedule
from pyterrier_lir.training.objectives import FLOPSRegularization, InBatchCrossEntropy, InfoNCE, RankNet
from tests.benchmarks.effectiveness_tasks import MEASURES, TASKS, Task

LENGTHS = {"query_length": 32, "doc_length": 128}
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
BATCHES = {"cross": (8, 8), "dense": (32, 2), "splade": (16, 2), "colbert": (32, 2)}  # queries, documents of each


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


def trained(task: Task, arguments: argparse.Namespace, folder: Path) -> float:
    """Train, and write the model before and after; returns the minutes that it took."""
    seed_everything(0)
    queries, docs = BATCHES[arguments.kind]
    if arguments.kind == "cross":
        loss = RankNet() if arguments.collection == "trec-dl" else InfoNCE()
        module: Any = CrossEncoderModule(arguments.model, CrossEncoderConfig(linear_bias=True, **LENGTHS),
                                         loss_functions=[loss], learning_rate=5e-5, head_learning_rate=1e-3,
                                         schedule=Schedule("linear", 0.1))  # fmt: skip
    else:
        module = BiEncoderModule(arguments.model, schedule=Schedule("linear", 0.1), **BI[arguments.kind])
    module.save_pretrained(folder / "before")
    trainer = LightningIRTrainer(accelerator="cpu", precision=arguments.precision, max_steps=arguments.steps,
                                 logger=False, enable_checkpointing=False, enable_progress_bar=False,
                                 enable_model_summary=False, callbacks=Clock(arguments.minutes))  # fmt: skip
    start = time.perf_counter()
    trainer.fit(module, LightningIRDataModule(train_dataset=task.samples(docs), train_batch_size=queries))
    module.save_pretrained(folder / "after")
    return (time.perf_counter() - start) / 60


def systems(task: Task, kind: str, folder: Path, depth: int) -> dict[str, pd.DataFrame]:
    """Results of BM25, and of the model before and after training."""
    bm25 = pt.Transformer.from_df(task.bm25)
    texts = pt.apply.text(lambda row: task.docs[row["docno"]])
    found = {"BM25": task.bm25}
    for when in ("before", "after"):
        model = str(folder / when)
        reranked = bm25 % depth >> texts >> LIRReRanker(model, precision="bf16")
        found[f"BM25 >> {kind} {when}"] = reranked(task.topics)
        if kind != "cross":
            LIRIndexer(model, folder / f"{when}.lir", precision="bf16").index(task.corpus)
            retriever = LIRRetriever(model, folder / f"{when}.lir", num_results=100)
            found[f"{kind} {when}, first stage"] = retriever(task.topics)
    return found


def table(task: Task, found: dict[str, pd.DataFrame], measures: list[str]) -> pd.DataFrame:
    """The measures of each system, with p-values of the first."""
    named = [ir_measures.parse_measure(name) for name in measures]
    runs = [pt.Transformer.from_df(one[["qid", "docno", "score", "rank"]]) for one in found.values()]
    tables = [
        pt.Experiment(runs, task.topics, task.qrels, named, names=list(found), baseline=baseline).set_index("name")
        for baseline in range(len(found))
    ]
    result = tables[0][measures].copy()
    p_value = f"{measures[0]} p-value"
    result["p against BM25"] = tables[0][p_value]
    for name in found:
        if " after" in name:
            before = list(found).index(name.replace("after", "before"))
            result.loc[name, "p against before"] = tables[before].loc[name, p_value]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", choices=sorted(TASKS))
    parser.add_argument("kind", choices=sorted(BATCHES))
    parser.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--depth", type=int, default=50, help="documents of a query that are re-ranked")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = TASKS[arguments.collection](folder)
        minutes = trained(task, arguments, folder)
        found = systems(task, arguments.kind, folder, arguments.depth)
        result = table(task, found, MEASURES.get(arguments.collection, ["nDCG@10", "RR@10"]))
        if arguments.kind == "splade":
            for when in ("before", "after"):
                docs = LIRBiEncoder(str(folder / when)).doc_encoder()(pd.DataFrame(task.corpus[:500]))
                print(f"terms of a document {when}: {np.mean([len(one) for one in docs['toks']]):.0f}")
    print(f"{arguments.collection}, {arguments.kind}: trained for {minutes:.1f} minutes\n{result.round(4).to_string()}")
    if arguments.out:
        result.to_csv(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
