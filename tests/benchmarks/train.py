"""Training speed, side by side with sentence-transformers' trainers and Lightning IR; and gradient caching.

    python -m tests.benchmarks.train dense --model FOLDER [--lightning-ir PYTHON] [--precision 32-true]
    python -m tests.benchmarks.train cross --model FOLDER [--lightning-ir PYTHON]
    python -m tests.benchmarks.train cached --model FOLDER

`--model` is the folder of all-MiniLM-L6-v2; the peers' packages are needed (`pip install sentence-transformers
accelerate datasets`), Lightning IR in an environment of its own.  Samples are queries with two passages of MS MARCO each,
cut to 256 tokens.  `dense` trains with in-batch negatives (32 queries), `cross` with binary cross-entropy (16 queries,
32 pairs; Lightning IR, which lacks it, with RankNet), all with AdamW, dropout and clipping.  Every system trains in turn,
in a process of its own, `--rounds` times; medians of a step and ranges over all rounds are printed.  Times are those of
the CPU, so that other work on the machine does not count; compare with `--threads 1` where there is much of it.  `cached` trains on a batch of 1,024 queries with gradient
caching, and on the same samples in batches of 32.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROWS = list[tuple[str, str, str]]
BATCHES = {"dense": 32, "cross": 16}
LIGHTNING_IR = """
import json, sys, time, warnings, torch
warnings.filterwarnings("ignore")
from lightning import Callback
from lightning_ir import BiEncoderModule, CrossEncoderModule, InBatchCrossEntropy, LightningIRTrainer, RankNet
from lightning_ir.models import DprConfig, MonoConfig
from lightning_ir.data import TrainBatch
folder, kind, precision, size, rows = *sys.argv[1:4], int(sys.argv[4]), json.load(open(sys.argv[5]))
times = []
class Clock(Callback):
    def on_train_batch_start(self, *given): self.start = time.process_time()
    def on_train_batch_end(self, *given): times.append(time.process_time() - self.start)
batches = [TrainBatch(queries=[r[0] for r in rows[i:i + size]], docs=[r[1:] for r in rows[i:i + size]],
                      query_ids=[r[0] for r in rows[i:i + size]], targets=torch.tensor([[1.0, 0.0]] * size)) for i in range(0, len(rows), size)]
if kind == "dense":
    config = DprConfig(query_length=32, doc_length=256, similarity_function="cosine")
    module = BiEncoderModule(folder, config=config, loss_functions=[InBatchCrossEntropy()])
else:
    module = CrossEncoderModule(folder, config=MonoConfig(query_length=32, doc_length=256),
                                loss_functions=[RankNet()])
module.set_optimizer(torch.optim.AdamW, lr=2e-5)
trainer = LightningIRTrainer(accelerator="cpu", precision=precision, max_epochs=1, logger=False, callbacks=[Clock()],
                             enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                             gradient_clip_val=1.0)
trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
print(json.dumps(times))
"""


def samples(count: int) -> ROWS:
    """Queries with two passages, the same at every run."""
    from tests.benchmarks.effectiveness_tasks import topics_of
    from tests.benchmarks.encode import DATA, documents

    queries = topics_of(DATA / "msmarco-passage-mini" / "topics.dev-small.tsv")["query"].tolist()[:count]
    docs = documents("msmarco-passage-mini", 2 * count)
    return list(zip(queries, docs[:count], docs[count:], strict=True))


def ours(kind: str, folder: str, precision: str, rows: ROWS, size: int, **settings: Any) -> list[float]:
    """Seconds of each step of LightningIRTrainer."""
    from lightning import Callback, seed_everything

    from pyterrier_lir import (
        BiEncoderConfig,
        BiEncoderModule,
        CrossEncoderConfig,
        CrossEncoderModule,
        LightningIRDataModule,  # fmt: skip
        LightningIRTrainer,
        TupleDataset,
    )
    from pyterrier_lir.training.objectives import BinaryCrossEntropy, InBatchCrossEntropy

    times: list[float] = []

    class Clock(Callback):
        def on_train_batch_start(self, *given: Any) -> None:
            self.start = time.process_time()

        def on_train_batch_end(self, *given: Any) -> None:
            times.append(time.process_time() - self.start)

    seed_everything(0, verbose=False)
    lengths = {"query_length": 32, "doc_length": 256}
    if kind == "dense":
        config = BiEncoderConfig(query_pooling_strategy=("mean",), doc_pooling_strategy=("mean",),
                                 normalization_strategy="l2", **lengths)  # fmt: skip
        module: Any = BiEncoderModule(
            folder, config, loss_functions=[InBatchCrossEntropy(temperature=0.05)], **settings
        )
    else:
        config = CrossEncoderConfig(**lengths)
        module = CrossEncoderModule(folder, config, loss_functions=[BinaryCrossEntropy()], **settings)
    trainer = LightningIRTrainer(accelerator="cpu", precision=precision, max_epochs=1, logger=False, callbacks=Clock(),
                                 enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    data = LightningIRDataModule(train_dataset=TupleDataset(rows), train_batch_size=size)
    trainer.fit(module, data)
    return times


def sentence_transformers(kind: str, folder: str, precision: str, rows: ROWS, size: int) -> list[float]:
    """Seconds of each step of sentence-transformers' trainers."""
    from datasets import Dataset
    from sentence_transformers import (
        CrossEncoder,
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,  # fmt: skip
    )
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *given: Any, **more: Any) -> None:
            self.start = time.process_time()

        def on_step_end(self, *given: Any, **more: Any) -> None:
            times.append(time.process_time() - self.start)

    with tempfile.TemporaryDirectory() as out:
        given = {"output_dir": out, "num_train_epochs": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True,
                 "disable_tqdm": True, "logging_strategy": "no", "bf16": precision.startswith("bf16")}  # fmt: skip
        if kind == "dense":
            model: Any = SentenceTransformer(folder, device="cpu")
            data = Dataset.from_dict(
                dict(zip(("anchor", "positive", "negative"), zip(*rows, strict=True), strict=True))
            )
            settings: Any = SentenceTransformerTrainingArguments(per_device_train_batch_size=size, **given)
            trainer: Any = SentenceTransformerTrainer(model, settings, data, loss=MultipleNegativesRankingLoss(model))
        else:
            model = CrossEncoder(folder, num_labels=1, device="cpu", max_length=256)
            pairs = [(query, doc, label) for query, *docs in rows for doc, label in zip(docs, (1.0, 0.0), strict=True)]
            data = Dataset.from_dict(dict(zip(("query", "text", "label"), zip(*pairs, strict=True), strict=True)))
            settings = CrossEncoderTrainingArguments(per_device_train_batch_size=2 * size, **given)
            trainer = CrossEncoderTrainer(model, settings, data, loss=BinaryCrossEntropyLoss(model))
        trainer.add_callback(Clock())
        trainer.train()
    return times


SYSTEMS: dict[str, Callable[..., list[float]]] = {
    "pyterrier_lir": ours, "sentence-transformers": sentence_transformers,
}  # fmt: skip


def cached(kind: str, folder: str, precision: str, rows: ROWS, size: int) -> list[float]:
    """The last step of gradient caching, all rows in one batch."""
    return ours("dense", folder, precision, rows, len(rows) // 2, cached=True)[-1:]


def small(kind: str, folder: str, precision: str, rows: ROWS, size: int) -> list[float]:
    """All steps over half of the rows, in small batches."""
    return [sum(ours("dense", folder, precision, rows, 32)[-len(rows) // 64 :])]


def alone(name: str, arguments: argparse.Namespace, rows: Path, size: int) -> tuple[list[float], float]:
    """Seconds of steps in a process of its own, and its largest memory in GiB."""
    if name == "Lightning IR":
        command = [arguments.lightning_ir, "-c", LIGHTNING_IR]
    else:
        command = [sys.executable, "-m", "tests.benchmarks.train", "--run", name]
    given = [arguments.model, arguments.kind, arguments.precision, str(size), str(rows)]
    environment = os.environ | ({"OMP_NUM_THREADS": str(arguments.threads)} if arguments.threads else {})
    done = subprocess.run([*command, *given], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    times: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return times, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def run_one(name: str, folder: str, kind: str, precision: str, size: str, rows: str) -> None:
    """Train with one system, and print the seconds of its steps."""
    warnings.filterwarnings("ignore")
    read = [tuple(row) for row in json.loads(Path(rows).read_text(encoding="utf-8"))]
    times = {**SYSTEMS, "cached": cached, "small": small}[name](kind, folder, precision, read, int(size))
    print(json.dumps(times))


def compare(arguments: argparse.Namespace, rows: Path) -> None:
    """A line for each system."""
    size = BATCHES[arguments.kind]
    names = [*SYSTEMS, *(["Lightning IR"] if arguments.lightning_ir else [])]
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            times[name].append(alone(name, arguments, rows, size)[0][1:])
    own = median(np.concatenate(times["pyterrier_lir"]))
    for name, rounds in times.items():
        rates = [size / median(one) for one in rounds]
        step = median(np.concatenate(rounds))
        print(
            f"{name:24} {size / step:7.1f} samples/s of CPU ({min(rates):.1f}-{max(rates):.1f})   {step / own:.2f}x our time"
        )


def compare_cached(arguments: argparse.Namespace, rows: Path) -> None:
    """Gradient caching against small batches."""
    arguments.kind = "dense"
    ratios = []
    for _ in range(arguments.rounds):
        (whole,), memory = alone("cached", arguments, rows, 0)
        (parts,), most = alone("small", arguments, rows, 0)
        ratios.append(whole / parts)
        print(
            f"a batch of {arguments.batch} cached: {whole:.1f} s; in batches of 32: {parts:.1f} s; {whole / parts:.2f}"
        )
    print(f"median ratio {median(ratios):.2f}; most memory cached {memory:.2f} GiB, of both {most:.2f} GiB")


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run_one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=(*BATCHES, "cached"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--lightning-ir", help="Python of an environment with Lightning IR")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, help="of each system; all cores without it")
    parser.add_argument("--batch", type=int, default=1024, help="queries of the cached batch")
    arguments = parser.parse_args()
    count = 2 * arguments.batch if arguments.kind == "cached" else arguments.steps * BATCHES[arguments.kind]
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        rows.write_text(json.dumps(samples(count)), encoding="utf-8")
        (compare_cached if arguments.kind == "cached" else compare)(arguments, rows)


if __name__ == "__main__":
    sys.exit(main())
