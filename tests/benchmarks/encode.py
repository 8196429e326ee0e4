"""Encoding speed and memory, side by side with sentence-transformers, Lightning IR and PyLate in one run.

    python -m tests.benchmarks.encode dense --model FOLDER
    python -m tests.benchmarks.encode sparse --model FOLDER [--lightning-ir PYTHON]
    python -m tests.benchmarks.encode multi --model FOLDER [--pylate PYTHON]
    python -m tests.benchmarks.encode memory

`--model` is the folder of all-MiniLM-L6-v2.  `dense` encodes documents of the collections with it; `sparse` with a
SPLADE model of its size and vocabulary, `multi` with a ColBERT of its size (128 numbers a token), both randomly
initialised on its weights.  Every system is timed in turn, `--repeats` times; medians and ranges are printed, and the
share of the machine's own matrix multiplication rate.  Peers run at their best of several batch sizes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

from pyterrier_lir import BiEncoderModel, load_model
from pyterrier_lir.engine import Engine
from pyterrier_lir.memory import keep_freed_memory
from tests.benchmarks.rerank import time_in_turn, work

DATA = Path(__file__).parents[3] / "shared" / "data"
SIZES = (8, 32)
LIGHTNING_IR = """
import json, sys, time, torch
from lightning_ir import BiEncoderModule
folder, size, docs = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3]))
module = BiEncoderModule(folder).eval()
def run(docs):
    with torch.inference_mode():
        return [e.detach() for i in range(0, len(docs), size)
                for e in module.score([""], [docs[i:i + size]]).doc_embeddings.embeddings]
run(docs[:32])
start = time.perf_counter()
vectors = run(docs)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "numbers": torch.stack(vectors).reshape(len(docs), -1)[:8].tolist()}))
"""
PYLATE = """
import json, sys, time
import numpy as np
from pylate import models
folder, size, docs = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3]))
model = models.ColBERT(folder, device="cpu")
model.encode(docs[:32], batch_size=size, is_query=False, show_progress_bar=False)
start = time.perf_counter()
vectors = model.encode(docs, batch_size=size, is_query=False, show_progress_bar=False)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "numbers": [v.tolist() for v in vectors[:8]]}))
"""


def documents(name: str, count: int) -> list[str]:
    """A sample of a collection's documents, the same at every run."""
    with gzip.open(DATA / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [f"{row.get('title', '')} {row['text']}".strip() for row in map(json.loads, lines)]
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]


def report(
    times: dict[str, list[float]], rates: list[dict[str, float]], docs: int, flop: float, notes: dict[str, str]
) -> None:
    """A row for each system: documents/s, against the best peer, share of the GEMM rates, difference of vectors."""
    speed = {name: docs / median(seconds) for name, seconds in times.items()}
    peer = max(rate for name, rate in speed.items() if not name.startswith("pyterrier_lir"))
    gemm = {name: median(rate[name] for rate in rates) for name in rates[0]}
    print("GEMM float32: " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in gemm.items()))
    print("| system | documents/s | x | share of GEMM | difference |\n|---|---|---|---|---|")
    for name, seconds in times.items():
        shares = " / ".join(f"{flop / median(seconds) / rate:.2f}" for rate in gemm.values())
        print(
            f"| {name} | {speed[name]:.1f} ({docs / max(seconds):.1f}-{docs / min(seconds):.1f}) | "
            f"{speed[name] / peer:.2f} | {shares} | {notes.get(name, '')} |",
            flush=True,
        )


def lengths_of(model: Any, docs: list[str]) -> np.ndarray:
    tokenizer = model.tokenizers[1]
    return np.asarray(tokenizer.batch_lengths(tokenizer.encode(docs)))


def dense(arguments: argparse.Namespace) -> None:
    """all-MiniLM-L6-v2 against SentenceTransformer.encode."""
    from sentence_transformers import SentenceTransformer

    model, peer = load_model(arguments.model), SentenceTransformer(arguments.model, device="cpu")
    for name in ("vaswani", "scifact"):
        docs = documents(name, arguments.docs // (1 if name == "vaswani" else 3))
        lengths = lengths_of(model, docs)
        print(f"\n{name}: {len(docs)} documents of {lengths.mean():.0f} tokens, {torch.get_num_threads()} threads")
        systems: dict[str, Callable[[], np.ndarray]] = {}
        for precision in ("float32", "bf16", "int8"):
            engine = Engine(load_model(arguments.model), precision=precision)
            systems[f"pyterrier_lir {precision}"] = lambda e=engine, d=docs: e.encode(d, query=False)["dense"]
        for size in SIZES:
            systems[f"sentence-transformers, batches of {size}"] = lambda s=size, d=docs: peer.encode(d, batch_size=s)
        times, vectors, rates = time_in_turn(systems, arguments.repeats)
        reference = vectors[f"sentence-transformers, batches of {SIZES[0]}"]
        notes = {n: f"{np.abs(v - reference).max():.1e}, least cosine {(v * reference).sum(1).min():.5f}"
                 for n, v in vectors.items()}  # fmt: skip
        report(times, rates, len(docs), work(lengths, "MiniLM-L6"), notes)


def sparse_folder(source: str, into: Path) -> str:
    """A SPLADE of MiniLM's size as SparseEncoder saves it; its bias leaves about 150 terms in a document."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    backbone = BertModel.from_pretrained(source, add_pooling_layer=False)
    masked = BertForMaskedLM(backbone.config)
    masked.bert.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        masked.cls.predictions.transform.dense.weight.normal_(std=0.05)
        masked.cls.predictions.decoder.weight.copy_(backbone.embeddings.word_embeddings.weight)
        tokenizer = AutoTokenizer.from_pretrained(source, model_max_length=256)
        sample = tokenizer(documents("vaswani", 20), padding=True, return_tensors="pt")
        logits = masked.eval()(**sample).logits.masked_fill(~sample["attention_mask"].bool()[..., None], -torch.inf)
        masked.cls.predictions.decoder.bias.fill_(-float(logits.amax(1).topk(150).values[:, -1].mean()))
        masked.cls.predictions.bias = masked.cls.predictions.decoder.bias
    masked.save_pretrained(into / "masked")
    tokenizer.save_pretrained(into / "masked")
    modules = [MLMTransformer(str(into / "masked"), max_seq_length=256), SpladePooling("max")]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(into / "sparse"))
    return str(into / "sparse")


def sparse(arguments: argparse.Namespace) -> None:
    """SPLADE's shape against SparseEncoder and Lightning IR's model."""
    from sentence_transformers import SparseEncoder

    docs = documents("vaswani", arguments.docs)
    with tempfile.TemporaryDirectory() as work_folder:
        folder = sparse_folder(arguments.model, Path(work_folder))
        model, peer = BiEncoderModel.from_pretrained(folder), SparseEncoder(folder, device="cpu")
        lengths = lengths_of(model, docs)
        systems: dict[str, Callable[[], Any]] = {}
        for precision in ("float32", "bf16"):
            engine = Engine(load_model(folder), precision=precision)
            systems[f"pyterrier_lir {precision}"] = lambda e=engine: e.encode(docs, query=False)["sparse"]
        for size in SIZES:
            systems[f"sentence-transformers, batches of {size}"] = lambda s=size: peer.encode_document(
                docs, batch_size=s, convert_to_sparse_tensor=True, show_progress_bar=False
            )
        times, vectors, rates = time_in_turn(systems, arguments.repeats)
        ours = vectors["pyterrier_lir float32"].toarray()
        theirs = vectors[f"sentence-transformers, batches of {SIZES[0]}"].to_dense().numpy()
        print(f"{len(docs)} documents of {lengths.mean():.0f} tokens, {(ours > 0).sum(1).mean():.0f} terms each")
        notes = {"pyterrier_lir float32": f"{np.abs(ours - theirs).max():.1e}"}
        model.with_options(prompts=()).save_pretrained(Path(work_folder) / "lightning_ir")
        rename_head(Path(work_folder) / "lightning_ir" / "model.safetensors")
        for size in SIZES if arguments.lightning_ir else ():
            name = f"Lightning IR, batches of {size}"
            found = apart(
                arguments.lightning_ir, LIGHTNING_IR, Path(work_folder) / "lightning_ir", size, docs, arguments
            )
            times[name] = [one["seconds"] for one in found]
            notes[name] = f"{np.abs(np.array(found[0]['numbers']) - ours[:8]).max():.1e}"
        flop = work(lengths, "MiniLM-L6") + float(2 * lengths.sum() * 384 * (30_522 + 384))
        report(times, rates, len(docs), flop, notes)


def rename_head(path: Path) -> None:
    """Give the head's weights the names that version 0.0.6 of Lightning IR knows; later ones know those we write."""
    from safetensors.torch import load_file, save_file

    names = {
        "dense": "predictions.transform.dense",
        "norm": "predictions.transform.LayerNorm",
        "decoder": "predictions.decoder",
    }
    weights = load_file(path)
    for name in [name for name in weights if name.startswith("projection.")]:
        layer, kind = name.removeprefix("projection.").split(".")
        weights[f"projection.{names[layer]}.{kind}"] = weights.pop(name)
    if "projection.predictions.decoder.bias" in weights:
        weights["projection.predictions.bias"] = weights["projection.predictions.decoder.bias"].clone()
    save_file(weights, path, metadata={"format": "pt"})


def apart(
    python: str, program: str, folder: Path, size: int, docs: list[str], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """What a program that times itself prints, `--repeats` times, in an interpreter of another environment."""
    listing = folder.with_suffix(".docs.json")
    listing.write_text(json.dumps(docs))
    command = [python, "-c", program, str(folder), str(size), str(listing)]
    found = []
    for _ in range(arguments.repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-2_000:])
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def colbert_folder(source: str, into: Path) -> str:
    """A ColBERT of MiniLM's size in PyLate's format."""
    from tests.tiny_bi_encoders import save_dense_module, save_modules

    tokenizer = AutoTokenizer.from_pretrained(source, model_max_length=180)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    backbone = BertModel.from_pretrained(source, add_pooling_layer=False)
    torch.manual_seed(0)
    backbone.resize_token_embeddings(len(tokenizer))
    backbone.save_pretrained(into)
    tokenizer.save_pretrained(into)
    (into / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 179, "do_lower_case": False}))
    modules = [("sentence_transformers.models.Transformer", "", {}),
               ("pylate.models.Dense.Dense", "1_Dense", save_dense_module(into / "1_Dense", 128, width=384))]  # fmt: skip
    settings = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 32, "document_length": 180}
    save_modules(into, modules, model_type="ColBERT", similarity_fn_name="MaxSim", **settings)
    return str(into)


def multi(arguments: argparse.Namespace) -> None:
    """ColBERT's shape against PyLate and sentence-transformers' MultiVectorEncoder."""
    from sentence_transformers import MultiVectorEncoder

    docs = documents("vaswani", arguments.docs)
    with tempfile.TemporaryDirectory() as work_folder:
        folder = colbert_folder(arguments.model, Path(work_folder) / "colbert")
        model, peer = BiEncoderModel.from_pretrained(folder), MultiVectorEncoder(folder, device="cpu")
        lengths = lengths_of(model, docs)
        print(f"{len(docs)} documents of {lengths.mean():.0f} tokens")
        systems: dict[str, Callable[[], Any]] = {}
        for precision in ("float32", "bf16"):
            engine = Engine(load_model(folder), precision=precision)
            systems[f"pyterrier_lir {precision}"] = lambda e=engine: e.encode(docs, query=False)["multi_vector"]
        for size in SIZES:
            systems[f"sentence-transformers, batches of {size}"] = lambda s=size: peer.encode_document(
                docs, batch_size=s, show_progress_bar=False
            )
        times, vectors, rates = time_in_turn(systems, arguments.repeats)
        ours = vectors["pyterrier_lir float32"].rows()
        theirs = vectors[f"sentence-transformers, batches of {SIZES[0]}"]
        notes = {"pyterrier_lir float32": f"{largest_difference(ours, theirs):.1e}"}
        for size in SIZES if arguments.pylate else ():
            name = f"PyLate, batches of {size}"
            found = apart(arguments.pylate, PYLATE, Path(folder), size, docs, arguments)
            times[name] = [one["seconds"] for one in found]
            notes[name] = f"{largest_difference(ours[:8], found[0]['numbers']):.1e}"
        report(times, rates, len(docs), work(lengths, "MiniLM-L6"), notes)


def largest_difference(ours: list[np.ndarray], theirs: list[Any]) -> float:
    pairs = [(one, np.asarray(other)) for one, other in zip(ours, theirs, strict=True)]
    return max(float(np.abs(a - b).max()) if a.shape == b.shape else float("inf") for a, b in pairs)


def memory(arguments: argparse.Namespace) -> None:
    """Peak memory of processes that stream ever more short documents: it must not grow with their number."""
    program = "import sys; from tests.benchmarks.encode import stream_many; stream_many(sys.argv[1], int(sys.argv[2]))"
    for kind in ("dense", "splade", "col"):
        for count in (10_000, 100_000, arguments.docs * 1_000):
            command = [sys.executable, "-c", program, kind, str(count)]
            print(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1], flush=True
            )


def stream_many(kind: str, count: int) -> None:
    """Stream `count` documents of eight words through a tiny model and print the peak."""
    import resource

    from tests.tiny_bi_encoders import KINDS
    from tests.tiny_checkpoints import SENTENCES

    folder = Path(tempfile.mkdtemp())
    KINDS[kind](folder)
    words, rng = " ".join(SENTENCES).split(), np.random.default_rng(0)

    def texts() -> Iterator[str]:
        for _ in range(count):
            yield " ".join(words[i] for i in rng.integers(0, len(words), 8))

    start = time.perf_counter()
    for _ in Engine(load_model(folder)).stream(texts(), query=False):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{kind}: {count:,} documents, peak {peak:.0f} MiB, {count / (time.perf_counter() - start):,.0f} documents/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("dense", "sparse", "multi", "memory"))
    parser.add_argument("--model", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--docs", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lightning-ir", metavar="PYTHON", help="interpreter of an environment with lightning-ir")
    parser.add_argument("--pylate", metavar="PYTHON", help="interpreter of an environment with pylate")
    arguments = parser.parse_args()
    keep_freed_memory()
    {"dense": dense, "sparse": sparse, "multi": multi, "memory": memory}[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
