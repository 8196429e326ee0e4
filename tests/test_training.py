"""Training: models learn, runs are repeated and resumed bit for bit, checkpoints open in pipelines."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from pyterrier_lir import BiEncoderConfig, CrossEncoderConfig, LIRBiEncoder, LIRReRanker
from pyterrier_lir.data.runs import RunDataset
from pyterrier_lir.pair_tokenizer import PairTokenizer
from pyterrier_lir.text_tokenizer import TextTokenizer
from pyterrier_lir.training.datamodule import LightningIRDataModule
from pyterrier_lir.training.module import BiEncoderModule, CrossEncoderModule, RankingModule
from pyterrier_lir.training.objectives import (
    ConstantMarginMSE,
    FLOPSRegularization,
    InBatchCrossEntropy,
    InfoNCE,
    KLDivergence,
    Matryoshka,
    RankNet,
)
from pyterrier_lir.training.schedules import Schedule
from pyterrier_lir.training.trainer import LightningIRTrainer
from tests.tiny_checkpoints import SENTENCES

Tiny = Callable[[str], str]
ROOT = Path(__file__).parents[1]
WORDS = sorted({word for sentence in SENTENCES for word in sentence.lower().strip(".").split()})


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield


def collection(count: int = 24, seed: int = 0) -> RunDataset:
    """Queries of two words, with a document that has both and others that have none."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        words = rng.choice(WORDS, 12, replace=False)
        texts = [" ".join(words[:4]), " ".join(words[4:8]), " ".join(words[8:])]
        for rank, text in enumerate(texts):
            rows.append((f"q{i}", " ".join(words[:2]), f"d{i}-{rank}", text, 3.0 - rank, int(rank == 0)))
    frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "relevance"])
    return RunDataset(frame, sample_size=3, targets="score")


def trainer(folder: Path, **settings: Any) -> LightningIRTrainer:
    return LightningIRTrainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                              default_root_dir=folder, **{"enable_checkpointing": False, **settings})  # fmt: skip


def module(kind: str, tiny: Tiny, **settings: Any) -> RankingModule:
    folder = tiny("dense")
    torch.manual_seed(3)
    losses = settings.pop("loss_functions", None)
    settings = {"learning_rate": 1e-3, **settings}
    if kind == "cross":
        config: Any = CrossEncoderConfig(doc_length=64)
        return CrossEncoderModule(folder, config, loss_functions=losses or [RankNet()], **settings)
    config = {"dense": BiEncoderConfig(), "splade": BiEncoderConfig.splade(), "colbert": BiEncoderConfig.colbert()}[
        kind
    ]
    own = [InBatchCrossEntropy()] + ([(FLOPSRegularization(), 1e-3, Schedule("constant", 4, "quadratic"))]
                                     if kind == "splade" else [])  # fmt: skip
    return BiEncoderModule(folder, config, loss_functions=losses or own, **settings)


KINDS = ["cross", "dense", "splade", "colbert"]


def data(count: int = 24, **settings: Any) -> LightningIRDataModule:
    return LightningIRDataModule(train_dataset=collection(count), train_batch_size=4, **settings)


def accuracy(model: RankingModule, dataset: RunDataset) -> float:
    """How often the first document has the best score."""
    samples = [dataset[i] for i in range(len(dataset))]
    scores = model.score([s.query for s in samples], [s.docs for s in samples]).scores
    return float((scores.argmax(1) == 0).float().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_models_learn_and_their_folders_open_in_pipelines(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    model = module(kind, tiny, learning_rate=3e-3)
    before = accuracy(model, collection(48))
    trainer(tmp_path, max_epochs=12).fit(model, data(48))
    assert accuracy(model, collection(48)) > max(0.8, before)
    model.save_pretrained(tmp_path / "trained")
    frame = pd.DataFrame({"qid": ["1", "1"], "query": ["tower river"] * 2, "docno": ["a", "b"],
                          "text": ["the tower by the river", "bread in the oven"]})  # fmt: skip
    opened = LIRReRanker(str(tmp_path / "trained"))(frame).sort_values("docno")["score"]
    expected = model.score("tower river", list(frame["text"])).scores
    np.testing.assert_allclose(opened, expected, rtol=1e-4, atol=1e-5)
    if kind != "cross":
        vectors = [
            LIRBiEncoder(one).query_encoder()(frame).iloc[0, -1] for one in (str(tmp_path / "trained"), model.model)
        ]
        assert type(vectors[0]) is type(vectors[1])
        if kind != "splade":
            np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-5)


def weights(model: RankingModule) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        model = module(kind, tiny)
        trainer(tmp_path, max_epochs=2).fit(model, data())
        found.append(weights(model))
    assert_equal(*found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [3, 6, 8])
def test_interrupted_training_resumes_bit_for_bit(kind: str, stop: int, tiny: Tiny, tmp_path: Path) -> None:
    """An epoch has six steps: in the middle, at the end, and in the middle of the second."""
    whole = module(kind, tiny)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer(tmp_path, max_epochs=2, callbacks=keep, enable_checkpointing=True).fit(whole, data())
    [path] = tmp_path.glob(f"step={stop}.ckpt")
    resumed = module(kind, tiny)
    trainer(tmp_path, max_epochs=2).fit(resumed, data(), ckpt_path=path)
    assert_equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("kind", KINDS)
def test_cached_training_gives_the_same_weights(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    found = []
    for cached in (False, True):
        model = module(kind, tiny, cached=cached, group_tokens=32)
        trainer(tmp_path, max_steps=4).fit(model, data())
        found.append(weights(model))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_the_head_learns_at_its_own_rate_and_norms_do_not_decay(tiny: Tiny, tmp_path: Path) -> None:
    model = module("cross", tiny, head_learning_rate=1e-2, schedule=Schedule("constant"))
    trainer(tmp_path, max_steps=1).fit(model, data())
    groups = model.optimizers().param_groups
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(1e-3, 0.01), (1e-3, 0.0), (1e-2, 0.01)}
    head = next(group for group in groups if group["lr"] == 1e-2)["params"]
    assert [p.shape for p in head] == [p.shape for p in model.model.head.parameters()]


def test_matryoshka_sums_the_losses_of_cut_vectors(tiny: Tiny, tmp_path: Path) -> None:
    model = module("dense", tiny, loss_functions=[Matryoshka(InfoNCE(), dims=(16, 8), weights=(1.0, 0.5))])
    batch = next(iter(data().train_dataloader()))
    scored = model.scored(batch)
    loss = model.losses[0][0](scored)
    parts = []
    for size in (16, 8):
        queries = scored.queries[0].values[:, :size]
        docs = scored.docs[0].values[:, :size].view(4, 3, size)
        scores = torch.einsum("qd,qnd->qn", queries, docs)
        parts.append(torch.nn.functional.cross_entropy(scores, torch.zeros(4, dtype=torch.long)))
    torch.testing.assert_close(loss, parts[0] + 0.5 * parts[1])


def test_lists_of_unequal_lengths_are_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    frame = collection().run_path_or_id
    short = frame[~((frame["score"] == 1.0) & frame["qid"].isin(["q0", "q5", "q7"]))]
    for kind in KINDS:
        model = module(kind, tiny, loss_functions=[KLDivergence(), ConstantMarginMSE()])
        dataset = RunDataset(short, targets="score")
        trainer(tmp_path, max_epochs=1).fit(model, LightningIRDataModule(train_dataset=dataset, train_batch_size=24))


PROCESSES = """
import json, sys, warnings
sys.path[:0] = {path!r}
warnings.filterwarnings("ignore")
import torch
from tests.test_training import collection, module
from pyterrier_lir.training import LightningIRDataModule, LightningIRTrainer, Schedule
model = module({kind!r}, lambda kind: {folder!r}, schedule=Schedule("constant"), cached={cached})
for part in model.modules():
    if isinstance(part, torch.nn.Dropout):
        part.p = 0.0
for config in (model.model.backbone.config,):
    config.attention_probs_dropout_prob = config.hidden_dropout_prob = 0.0
strategy = {strategy!r}
if strategy == "fsdp":
    from lightning.pytorch.strategies import ModelParallelStrategy
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
trainer = LightningIRTrainer(accelerator="cpu", devices={devices}, strategy=strategy, logger=False,
                             enable_progress_bar=False, enable_checkpointing=False, max_steps=2, gradient_clip_val=None)
model.set_optimizer(torch.optim.SGD, lr=0.1)
trainer.fit(model, LightningIRDataModule(train_dataset=collection(8), train_batch_size=8 // {devices}, shuffle_train=False))
whole = model.whole()
if trainer.is_global_zero:
    torch.save(whole.state_dict(), {out!r})
"""
SPREAD = [("dense", False, "ddp"), ("splade", False, "ddp"), ("colbert", True, "ddp"), ("cross", False, "ddp"),
          ("splade", False, "fsdp"), ("colbert", True, "fsdp"), ("cross", False, "fsdp")]  # fmt: skip


@pytest.mark.parametrize(("kind", "cached", "spread"), SPREAD)
def test_two_processes_have_the_gradients_of_one(
    kind: str, cached: bool, spread: str, tiny: Tiny, tmp_path: Path
) -> None:
    found = []
    for devices in (1, 2):
        out, strategy = str(tmp_path / f"{devices}.pt"), "auto" if devices == 1 else spread
        program = tmp_path / f"{devices}.py"
        program.write_text(
            PROCESSES.format(
                path=sys.path,
                kind=kind,
                folder=tiny("dense"),
                cached=cached,
                devices=devices,
                out=out,
                strategy=strategy,
            )
        )
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        done = subprocess.run([sys.executable, program], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2_000:]
        found.append(torch.load(out, weights_only=True))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["cross", "dense"])
def test_texts_are_tokenised_once_in_all_epochs(
    kind: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    tokenizer, name = (PairTokenizer, "_encode") if kind == "cross" else (TextTokenizer, "encode")
    own: Any = getattr(tokenizer, name)

    def watched(self: Any, texts: Sequence[str], *given: Any) -> Any:
        seen.extend(texts)
        return own(self, texts, *given)

    monkeypatch.setattr(tokenizer, name, watched)
    model, samples = module(kind, tiny), data(12)
    trainer(tmp_path, max_epochs=3).fit(model, samples)
    dataset: Any = samples.train_dataset
    texts = {text for sample in map(dataset.__getitem__, range(12)) for text in (sample.query, *sample.docs)}
    assert sorted(text for text in seen if text in texts) == sorted(texts)
