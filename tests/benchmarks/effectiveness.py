"""What models learn: trained from all-MiniLM-L6-v2, tested as re-rankers and first stages.

    python -m tests.benchmarks.effectiveness COLLECTION KIND --model FOLDER [--steps 100] [--out results.csv]

KIND is cross, dense, splade or colbert; COLLECTION is nfcorpus, documentation (of installed Python modules), or trec-dl,
where a cross-encoder learns the order of RepLLaMA's and SPLADE++'s rankings of 2020 and is tested on 2019.  Elsewhere
training data are the train queries with one relevant and further documents from BM25's top 100; a cross-encoder learns
their order by the sum of BM25's score and the start's similarity, each standardised over the query's documents, with the
relevant one on top.  Measures are those of the test queries, with paired t-tests against BM25 and against the model
before training.  Times are of the CPU, so that they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import pyterrier as pt
import torch
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
from pyterrier_lir.indexes import open_index
from pyterrier_lir.training import Schedule
from pyterrier_lir.training.forward import encode
from pyterrier_lir.training.objectives import FLOPSRegularization, InBatchCrossEntropy, RankNet, SupervisedMarginMSE
from tests.benchmarks.effectiveness_tasks import MEASURES, TASKS, Task

BI: dict[str, dict[str, Any]] = {
    "dense": {"config": BiEncoderConfig(normalization_strategy="l2"),
              "loss_functions": [InBatchCrossEntropy(temperature=0.05)], "learning_rate": 3e-5},
    "splade": {"config": BiEncoderConfig.splade(),
               "loss_functions": [InBatchCrossEntropy(), (FLOPSRegularization(5e-2, 1e-1), 1.0,
                                                          Schedule("constant", 0.3, "quadratic"))],
               "learning_rate": 1e-4},
    "colbert": {"config": BiEncoderConfig.colbert(), "loss_functions": [InBatchCrossEntropy()],
                "learning_rate": 5e-5},
}  # fmt: skip
CROSS = {"RankNet": RankNet, "SupervisedMarginMSE": SupervisedMarginMSE}
BATCHES = {"cross": (8, 8), "dense": (32, 2), "splade": (16, 2), "colbert": (32, 2)}  # queries, documents of each


class Log(Callback):
    """Says how far it is."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % 10 == 0:
            losses = {name: round(float(value), 4) for name, value in trainer.callback_metrics.items()}
            print(f"step {trainer.global_step}, {time.process_time():.0f} s of CPU, {losses}", flush=True)


def start_sparse(module: BiEncoderModule, texts: list[str], terms: int = 200) -> None:
    """Set the decoder's bias such that a text starts with so many terms: MiniLM's embeddings know no rare ones."""
    with torch.no_grad():
        logits = encode(module.model, texts, query=False)[0].values.expm1()
        module.model.checkpoint().head[-1].bias -= logits.quantile(1 - terms / logits.shape[1], dim=0)


def trained(task: Task, arguments: argparse.Namespace, folder: Path) -> float:
    """Train, and write the model before and after; returns the minutes of CPU that it took."""
    seed_everything(arguments.seed)
    queries, docs = BATCHES[arguments.kind]
    lengths = {"query_length": 32, "doc_length": arguments.doc_length}
    schedule = Schedule("linear", 0.1)
    teacher = LIRBiEncoder(arguments.model, precision="bf16", **lengths) if arguments.kind == "cross" else None
    if arguments.kind == "cross":
        module: Any = CrossEncoderModule(arguments.model, CrossEncoderConfig(linear_bias=True, **lengths),
                                         loss_functions=[CROSS[arguments.loss]()], learning_rate=arguments.learning_rate or 1e-4,
                                         head_learning_rate=1e-3, schedule=schedule)  # fmt: skip
    else:
        chosen = BI[arguments.kind]
        config = replace(chosen["config"], **lengths)
        rate = arguments.learning_rate or chosen["learning_rate"]
        changed = {"config": config, "schedule": schedule, "learning_rate": rate}
        module = BiEncoderModule(arguments.model, **{**chosen, **changed})
    if arguments.kind == "splade":
        start_sparse(module, list(task.docs.values())[:200])
    module.save_pretrained(folder / "before")
    trainer = LightningIRTrainer(accelerator="cpu", precision=arguments.precision, max_steps=arguments.steps,
                                 logger=False, enable_checkpointing=False, enable_progress_bar=False,
                                 enable_model_summary=False, callbacks=Log())  # fmt: skip
    start = time.process_time()
    trainer.fit(
        module,
        LightningIRDataModule(train_dataset=task.samples(docs, teacher, arguments.bonus), train_batch_size=queries),
    )
    module.save_pretrained(folder / "after")
    return (time.process_time() - start) / 60


def systems(task: Task, kind: str, folder: Path, depth: int) -> dict[str, pd.DataFrame]:
    """Results of BM25, and of the model before and after training."""
    bm25 = pt.Transformer.from_df(task.bm25)
    texts = pt.apply.text(lambda row: task.docs[row["docno"]])
    found = {"BM25": task.bm25}
    for when in ("before", "after"):
        model = str(folder / when)
        if kind == "cross":
            found[f"BM25 >> cross {when}"] = (bm25 % depth >> texts >> LIRReRanker(model, precision="bf16"))(
                task.topics
            )
            continue
        LIRIndexer(model, folder / f"{when}.lir", precision="bf16").index(task.corpus)
        retriever = LIRRetriever(model, folder / f"{when}.lir", num_results=100)
        scorer = LIRBiEncoder(model).query_encoder() >> open_index(folder / f"{when}.lir").scorer()
        found[f"BM25 >> {kind} {when}"] = (bm25 % depth >> scorer)(task.topics)
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
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, help="another than the kind's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--doc-length", type=int, default=128, help="tokens of documents, which are cut")
    parser.add_argument("--loss", choices=CROSS, default="RankNet", help="of cross-encoders")
    parser.add_argument("--bonus", type=float, default=10.0, help="of relevant documents, on top of a teacher's scores")
    parser.add_argument("--keep", type=Path, help="folder to keep the models in")
    parser.add_argument("--depth", type=int, default=50, help="documents of a query that are re-ranked")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        task = TASKS[arguments.collection](folder)
        minutes = trained(task, arguments, folder)
        found = systems(task, arguments.kind, folder, arguments.depth)
        result = table(task, found, MEASURES.get(arguments.collection, ["nDCG@10", "RR@10"]))
        if arguments.kind == "splade":
            for when in ("before", "after"):
                docs = LIRBiEncoder(str(folder / when)).doc_encoder()(pd.DataFrame(task.corpus[:500]))
                print(f"terms of a document {when}: {np.mean([len(one) for one in docs['toks']]):.0f}")
    print(
        f"{arguments.collection}, {arguments.kind}: trained for {minutes:.1f} minutes of CPU\n{result.round(4).to_string()}"
    )
    if arguments.out:
        result.to_csv(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
