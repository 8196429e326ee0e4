"""Re-ranking speed and memory, side by side with sentence-transformers and Lightning IR in one run.

    python -m tests.benchmarks.rerank cpu --tokenizer FOLDER [--collection FOLDER] [--lightning-ir PYTHON]
    python -m tests.benchmarks.rerank memory
    python -m tests.benchmarks.rerank cuda [--tokenizer FOLDER]

`cpu` re-ranks pairs of a collection (topics.tsv, corpus.jsonl.gz, runs/bm25.run.gz) with a randomly initialised
cross-encoder of MiniLM-L6's shape.  Every system is timed in turn, `--repeats` times; medians and ranges are printed,
as pairs/s and as a share of the machine's own matrix multiplication rate, which is measured in between.  A system that
skips work by exact algebra is credited with the work of the standard computation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from pyterrier_lir.cpu_kernels import PackedLinear, packs
from pyterrier_lir.engine import Engine
from pyterrier_lir.memory import keep_freed_memory
from pyterrier_lir.models import CrossEncoderModel

SHARED = Path(__file__).parents[3] / "shared" / "data" / "trec-dl-2019"
SHAPES = {"MiniLM-L6": (384, 6, 12, 1536), "BERT-base": (768, 12, 12, 3072)}
LIGHTNING_IR_LOOP = """
import json, sys, time, torch
from lightning_ir import CrossEncoderModule
folder, batch_size, pairs = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3]))
module = CrossEncoderModule(folder).eval()
def run(pairs):
    with torch.inference_mode():
        return [s for i in range(0, len(pairs), batch_size) for s in module.score(
            [q for q, _ in pairs[i:i + batch_size]], [[d] for _, d in pairs[i:i + batch_size]]).scores.tolist()]
run(pairs[:64])
start = time.perf_counter()
scores = run(pairs)
print(json.dumps({"seconds": time.perf_counter() - start, "scores": scores}))
"""


def model_folder(shape: str, tokenizer: str, into: Path) -> str:
    """A randomly initialised sequence classifier of that shape with a real tokenizer."""
    width, layers, heads, inner = SHAPES[shape]
    torch.manual_seed(0)
    tok = AutoTokenizer.from_pretrained(tokenizer, model_max_length=512)
    config = BertConfig(
        vocab_size=len(tok), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(into)
    tok.save_pretrained(into)
    return str(into)


def read_pairs(folder: Path, count: int) -> list[tuple[str, str]]:
    """A sample of (query, document) pairs of BM25's top 100, the same at every run."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        docs = {row["docno"]: row["text"] for row in map(json.loads, lines)}
    topics = dict(line.rstrip("\n").split("\t") for line in (folder / "topics.tsv").open(encoding="utf-8"))
    with gzip.open(folder / "runs" / "bm25.run.gz", "rt") as lines:
        run = [line.split() for line in lines]
    pairs = [(topics[qid], docs[docno]) for qid, _, docno, *_ in run if qid in topics and docno in docs]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:count]
    return [pairs[i] for i in chosen]


def gemm_rates() -> dict[str, float]:
    """FLOP/s of a (1024, 384) x (384, 1536) float32 product: PyTorch's own, and with weights packed for oneDNN."""
    x, layer = torch.randn(1024, 384), torch.nn.Linear(384, 1536)
    calls: dict[str, Callable[[], object]] = {"torch": lambda: layer(x)}
    if packs(torch.float32):
        packed = PackedLinear(layer)
        calls["oneDNN"] = lambda: packed(x)
    rates = {}
    with torch.inference_mode():
        for name, call in calls.items():
            for _ in range(5):
                call()
            start = time.perf_counter()
            for _ in range(50):
                call()
            rates[name] = 50 * 2 * 1024 * 384 * 1536 / (time.perf_counter() - start)
    return rates


def work(lengths: np.ndarray, shape: str) -> float:
    """FLOP of the standard computation: 2 P n + 4 n^2 d L for the P parameters of L layers of width d."""
    width, layers, _, inner = SHAPES[shape]
    parameters = layers * (4 * width * width + 2 * width * inner)
    return float((2 * parameters * lengths + 4 * lengths**2 * width * layers).sum())


def cpu(arguments: argparse.Namespace) -> None:
    """Every system in turn on the same pairs."""
    from sentence_transformers import CrossEncoder

    pairs = read_pairs(Path(arguments.collection), arguments.pairs)
    queries, docs = [q for q, _ in pairs], [d for _, d in pairs]
    with tempfile.TemporaryDirectory() as work_folder:
        folder = model_folder("MiniLM-L6", arguments.tokenizer, Path(work_folder) / "model")
        model = CrossEncoderModel.from_pretrained(folder)
        tokens = model.tokenizer.encode_queries(queries), model.tokenizer.encode_docs(docs)
        lengths = model.tokenizer.pair_lengths(tokens[0].lengths, tokens[1].lengths)
        flop = work(lengths, "MiniLM-L6")
        print(
            f"{len(pairs)} pairs of {lengths.mean():.0f} tokens, {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        peer = CrossEncoder(folder, device="cpu")
        systems: dict[str, Callable[[], np.ndarray]] = {}
        for precision in ("float32", "bf16", "int8"):
            engine = Engine(model, precision=precision)
            systems[f"pyterrier_lir {precision}"] = lambda engine=engine: engine.score(queries, docs)
        for size in (8, 16, 32):
            systems[f"sentence-transformers float32, batches of {size}"] = lambda size=size: peer.predict(
                pairs, batch_size=size, show_progress_bar=False
            )
        times, scores, rates = time_in_turn(systems, arguments.repeats)
        report(times, scores, rates, len(pairs), flop)
        if arguments.lightning_ir:
            lightning_ir(arguments, pairs, Path(work_folder))


def time_in_turn(
    systems: dict[str, Callable[[], np.ndarray]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray], list[dict[str, float]]]:
    """Seconds of every call, its last output, and the machine's rates before each round."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    scores, rates = {}, []
    for call in systems.values():
        call()  # warm
    for _ in range(repeats):
        rates.append(gemm_rates())
        for name, call in systems.items():
            start = time.perf_counter()
            scores[name] = call()
            times[name].append(time.perf_counter() - start)
    return times, scores, rates


def report(
    times: dict[str, list[float]], scores: dict[str, np.ndarray], rates: list[dict[str, float]], rows: int, flop: float
) -> None:
    """One line a system: median pairs/s (range), against the best peer, against the GEMM rates, score difference."""
    speed = {name: rows / median(seconds) for name, seconds in times.items()}
    best_peer = max((name for name in speed if name.startswith("sentence")), key=speed.__getitem__)
    gemm = {name: median(rate[name] for rate in rates) for name in rates[0]}
    print("GEMM float32: " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in gemm.items()))
    for name, seconds in times.items():
        shares = ", ".join(f"{flop / median(seconds) / rate:.2f} of {kind}" for kind, rate in gemm.items())
        difference = float(np.abs(scores[name] - scores[best_peer]).max())
        print(
            f"{name:<48} {speed[name]:6.1f} pairs/s ({rows / max(seconds):.1f}-{rows / min(seconds):.1f})  "
            f"x{speed[name] / speed[best_peer]:.2f}  {shares}  max difference {difference:.1e}"
        )


def lightning_ir(arguments: argparse.Namespace, pairs: list[tuple[str, str]], folder: Path) -> None:
    """Lightning IR in its own interpreter (it pins an older transformers), on a checkpoint in its own format."""
    mono = mono_folder(arguments.tokenizer, folder)
    sample = pairs[: max(64, len(pairs) // 2)]
    listing = folder / "pairs.json"
    listing.write_text(json.dumps(sample))
    engine = Engine(CrossEncoderModel.from_pretrained(mono))
    queries, docs = [q for q, _ in sample], [d for _, d in sample]
    engine.score(queries[:64], docs[:64])
    for size in (8, 32):
        ours, theirs, difference = [], [], 0.0
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            scores = engine.score(queries, docs)
            ours.append(time.perf_counter() - start)
            command = [arguments.lightning_ir, "-c", LIGHTNING_IR_LOOP, mono, str(size), str(listing)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            result = json.loads(output)
            theirs.append(result["seconds"])
            difference = float(np.abs(np.array(result["scores"]) - scores).max())
        print(
            f"Lightning IR float32, batches of {size}: {len(sample) / median(theirs):.1f} pairs/s; pyterrier_lir "
            f"{len(sample) / median(ours):.1f} pairs/s, x{median(theirs) / median(ours):.2f}, "
            f"max difference {difference:.1e}"
        )


def mono_folder(tokenizer: str, folder: Path) -> str:
    """A randomly initialised `mono` model of MiniLM-L6's shape, as Lightning IR saves it."""
    from transformers import BertModel

    from pyterrier_lir import CrossEncoderConfig, checkpoints
    from pyterrier_lir.checkpoints import Checkpoint

    width, layers, heads, inner = SHAPES["MiniLM-L6"]
    tok = AutoTokenizer.from_pretrained(tokenizer, model_max_length=512)
    torch.manual_seed(0)
    backbone = BertModel(
        BertConfig(
            vocab_size=len(tok), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=inner,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    head = torch.nn.Sequential(torch.nn.Linear(width, 1, bias=False))
    config = CrossEncoderConfig(query_length=32, doc_length=256)
    checkpoints.save(Checkpoint(config, backbone, tok, head, "new"), folder / "mono")
    return str(folder / "mono")


def memory(arguments: argparse.Namespace) -> None:
    """Peak memory while many rows of short pairs go through a tiny model: it must not grow with their number."""
    import resource

    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from pyterrier_lir import CrossEncoderConfig
    from pyterrier_lir.checkpoints import Checkpoint

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{i}" for i in range(500))]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $0 [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, num_labels=1)  # fmt: skip
    choices = CrossEncoderConfig(query_length=None, doc_length=None, truncation="longest_first", head="classification")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    checkpoint = Checkpoint(choices, BertForSequenceClassification(config), tokenizer, torch.nn.Sequential(), "tiny")
    engine = Engine(CrossEncoderModel(checkpoint))
    rng = np.random.default_rng(0)
    pool = np.array([" ".join(f"w{i}" for i in rng.integers(0, 500, 8)) for _ in range(100_000)], dtype=object)

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    for rows in (10_000, 100_000, 1_000_000):
        queries, docs = pool[rng.integers(0, 1_000, rows)], pool[rng.integers(0, len(pool), rows)]
        before, start = peak(), time.perf_counter()
        engine.score(queries, docs)
        seconds = time.perf_counter() - start
        print(
            f"{rows:>9,} rows: peak {peak():.0f} MiB (+{peak() - before:.0f}), {rows / seconds:,.0f} pairs/s",
            flush=True,
        )


def cuda(arguments: argparse.Namespace) -> None:
    """Pairs/s from token ids on a GPU, as a share of its bf16 GEMM rate; packed and padded."""
    from pyterrier_lir.tokenization import TokenBatch

    x, y = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rng = np.random.default_rng(0)
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for shape, (width, layers, heads, inner) in SHAPES.items():
        torch.manual_seed(0)
        config = BertConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                            intermediate_size=inner, num_labels=1)  # fmt: skip
        model = model_from(config)
        lengths = np.clip(rng.lognormal(np.log(86), 0.4, arguments.pairs * 50).astype(np.int64), 12, 512)
        ids = rng.integers(1000, 30000, (len(lengths), 512), dtype=np.int32)

        def join(chosen: np.ndarray, ids: np.ndarray = ids, lengths: np.ndarray = lengths) -> TokenBatch:
            longest = int(lengths[chosen].max())
            return TokenBatch(ids[chosen, :longest], lengths[chosen], np.zeros((len(chosen), longest), np.int32))

        for packed in (True, False):
            for budget in (65_536, 131_072, 262_144):
                engine = Engine(model, device="cuda", precision="bf16", packed=packed)
                engine.budget = budget
                seconds, rates = [], []
                for turn in range(arguments.repeats + 1):
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    for _ in range(20):
                        x @ y
                    torch.cuda.synchronize()
                    rates.append(20 * 2 * 8192**3 / (time.perf_counter() - start))
                    start = time.perf_counter()
                    engine._run(lengths, join, engine.model, lambda rows: None)
                    torch.cuda.synchronize()
                    seconds += [time.perf_counter() - start] if turn else []
                rate = work(lengths, shape) / median(seconds)
                print(
                    f"{shape} {'packed' if packed else 'padded'} budget {budget}: {len(lengths) / median(seconds):,.0f} "
                    f"pairs/s ({len(lengths) / max(seconds):,.0f}-{len(lengths) / min(seconds):,.0f}), "
                    f"{rate / 1e12:.0f} TFLOP/s, {rate / median(rates):.2f} of GEMM ({median(rates) / 1e12:.0f})",
                    flush=True,
                )


def model_from(config: BertConfig) -> CrossEncoderModel:
    """A model without a tokenizer of its own: token ids are given."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    from pyterrier_lir import CrossEncoderConfig
    from pyterrier_lir.checkpoints import Checkpoint

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"[UNK]": 0, "x": 1, "y": 2}, "[UNK]")))
    choices = CrossEncoderConfig(query_length=None, doc_length=None, truncation="longest_first", head="classification")
    backbone = BertForSequenceClassification(config)
    return CrossEncoderModel(Checkpoint(choices, backbone, tokenizer, torch.nn.Sequential(), "random"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cpu", "memory", "cuda"))
    parser.add_argument("--tokenizer", help="folder of a BERT tokenizer")
    parser.add_argument("--collection", default=str(SHARED))
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lightning-ir", metavar="PYTHON", help="interpreter of an environment with lightning-ir")
    arguments = parser.parse_args()
    keep_freed_memory()
    {"cpu": cpu, "memory": memory, "cuda": cuda}[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
