"""Training on streams of tuples: their order in every epoch, their length, and runs that are interrupted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import IterableDataset

from pyterrier_lir import CrossEncoderConfig, Trainable
from pyterrier_lir.data import RankSample, RunDataset, TupleDataset
from pyterrier_lir.training import LightningIRDataModule, RefreshNegatives, Schedule
from tests.test_training import ROOT, assert_equal, collection, module, quiet, trainer, weights

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests


def tuples(count: int = 12, **settings: Any) -> TupleDataset:
    frame: Any = collection(count).run_path_or_id
    return TupleDataset(frame, **{"num_docs": 2, "seed": 5, **settings})


class Watch(lightning.Callback):
    """What was trained on, and at which rates."""

    def __init__(self) -> None:
        self.batches: dict[int, list[Any]] = {}
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.setdefault(trainer.current_epoch, []).append((batch.query_ids, batch.doc_ids))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(tiny: Tiny, folder: Path, checkpoint: Path | None = None, **settings: Any) -> tuple[Any, Watch]:
    own = {name: settings.pop(name) for name in ("num_workers", "train_batch_size", "seed") if name in settings}
    given = {"train_dataset": tuples(), "train_batch_size": 2, **own}
    model, watch = module("cross", tiny, schedule=Schedule("constant")), Watch()
    keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    callbacks = [watch, *([] if checkpoint else [keep])]
    run = trainer(folder, callbacks=callbacks, enable_checkpointing=checkpoint is None, **settings)
    run.fit(model, LightningIRDataModule(**given), ckpt_path=checkpoint)
    return model, watch


def listed(watch: Watch) -> list[Any]:
    return [(epoch, batch) for epoch, batches in watch.batches.items() for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_has_all_samples_in_another_order_with_other_negatives(
    workers: int, tiny: Tiny, tmp_path: Path
) -> None:
    _, watch = train(tiny, tmp_path, num_workers=workers, max_epochs=3)
    queries = [[one for ids, _ in watch.batches[epoch] for one in ids] for epoch in range(3)]
    assert [sorted(one) for one in queries] == [sorted(f"q{i}" for i in range(12))] * 3
    assert len({str(one) for one in queries}) == 3
    negatives = [{one[1] for _, docs in watch.batches[epoch] for one in docs} for epoch in range(3)]
    assert negatives[0] != negatives[1] != negatives[2]


@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_steps": 18}])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [3, 6, 8, 12])
def test_an_interrupted_stream_resumes_bit_for_bit(
    stop: int, workers: int, limit: dict[str, int], tiny: Tiny, tmp_path: Path
) -> None:
    """An epoch has six batches: stopped within the first and the second, and at the end of both."""
    whole, seen = train(tiny, tmp_path, num_workers=workers, **limit)
    resumed, rest = train(tiny, tmp_path, tmp_path / f"step={stop}.ckpt", num_workers=workers, **limit)
    assert listed(rest) == listed(seen)[stop:]
    assert_equal(weights(whole), weights(resumed))


def test_a_run_that_was_resumed_at_the_end_of_an_epoch_can_be_resumed_again(tiny: Tiny, tmp_path: Path) -> None:
    whole, seen = train(tiny, tmp_path, max_epochs=3)
    data = LightningIRDataModule(train_dataset=tuples(), train_batch_size=2)
    again = tmp_path / "again"
    keep = ModelCheckpoint(again, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer(tmp_path, max_epochs=3, callbacks=keep, enable_checkpointing=True).fit(
        module("cross", tiny, schedule=Schedule("constant")), data, ckpt_path=tmp_path / "step=6.ckpt"
    )
    resumed, rest = train(tiny, tmp_path, again / "step=8.ckpt", max_epochs=3)
    assert listed(rest) == listed(seen)[8:]
    assert_equal(weights(whole), weights(resumed))


def test_workers_of_a_resumed_run_read_the_epoch_that_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    """Workers read ahead, before Lightning tells the epoch."""
    found = []
    for checkpoint in (None, tmp_path / "step=8.ckpt"):
        frame: Any = collection(12).run_path_or_id
        dataset = RunDataset(frame, sample_size=2, sampling_strategy="random", targets="score")
        model = module("cross", tiny)
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer(tmp_path, max_epochs=2, enable_checkpointing=True, callbacks=keep).fit(
            model, LightningIRDataModule(1, 2, train_dataset=dataset), ckpt_path=checkpoint
        )
        found.append(weights(model))
    assert_equal(*found)


@pytest.mark.parametrize("stop", [3, 4, 6, 7])
def test_a_run_with_refreshed_negatives_resumes_with_them(stop: int, tiny: Tiny, tmp_path: Path) -> None:
    """Four batches an epoch; negatives are found within an epoch (at 3), and an epoch of them is all trained on."""
    frame: Any = collection(8).run_path_or_id
    topics = frame[["qid", "query"]].drop_duplicates()
    qrels = frame[["qid", "docno", "relevance"]].rename(columns={"relevance": "label"})
    docs = {"docs": dict(zip(frame["docno"], frame["text"], strict=True))}
    found = []
    for checkpoint in (None, tmp_path / f"step={stop}.ckpt"):
        watch = Watch()
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        refresh = RefreshNegatives(3, topics, qrels, docs, tmp_path / "mined", depth=20, n=2)
        trainer(tmp_path, max_steps=9, enable_checkpointing=True, callbacks=[watch, refresh, keep]).fit(
            module("dense", tiny, schedule=Schedule()),
            LightningIRDataModule(train_dataset=tuples(8), train_batch_size=2),
            ckpt_path=checkpoint,
        )  # fmt: skip
        found.append([batch for _, batch in listed(watch)])
    assert found[1] == found[0][-len(found[1]) :]
    assert len(found[1]) >= 9 - stop


def test_negatives_that_are_found_at_the_end_of_an_epoch_are_all_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    frame: Any = collection(8).run_path_or_id
    qrels = frame[["qid", "docno", "relevance"]].rename(columns={"relevance": "label"})
    docs = {"docs": dict(zip(frame["docno"], frame["text"], strict=True))}
    watch = Watch()
    refresh = RefreshNegatives(4, frame[["qid", "query"]].drop_duplicates(), qrels, docs, tmp_path / "mined", n=2)
    trainer(tmp_path, max_steps=12, callbacks=[watch, refresh]).fit(
        module("dense", tiny, schedule=Schedule()), LightningIRDataModule(train_dataset=tuples(8), train_batch_size=2)
    )
    assert {epoch: len(batches) for epoch, batches in watch.batches.items()} == {0: 4, 1: 4, 2: 4}
    assert watch.rates == pytest.approx([1e-3 * (12 - step) / 12 for step in range(12)])


@pytest.mark.parametrize("setting", [{"train_batch_size": 3}, {"seed": 9}, {"num_workers": 1}])
def test_resuming_with_other_batches_is_refused(setting: dict[str, int], tiny: Tiny, tmp_path: Path) -> None:
    train(tiny, tmp_path, max_steps=2)
    [(name, value)] = setting.items()
    with pytest.raises(ValueError, match=rf"was written with {name}=\d \(now {value}\); allowed: the same"):
        train(tiny, tmp_path, tmp_path / "step=2.ckpt", max_steps=4, **setting)


class Unsized(IterableDataset[RankSample]):
    def __iter__(self) -> Any:
        return iter(tuples())


def test_rates_fall_over_all_epochs_of_a_stream(tiny: Tiny, tmp_path: Path) -> None:
    """12 samples in batches of 5, of which two at a time: two steps an epoch, and rates of 4/4, 3/4, 2/4, 1/4."""
    model, watch = module("cross", tiny, schedule=Schedule()), Watch()
    data = LightningIRDataModule(train_dataset=tuples(), train_batch_size=5)
    run = trainer(tmp_path, max_epochs=2, accumulate_grad_batches=2, callbacks=watch)
    run.fit(model, data)
    assert (model.steps, run.global_step) == (4, 4)
    expected = [1e-3 * factor for factor in (1, 1, 0.75, 0.5, 0.5, 0.25)]
    assert watch.rates == pytest.approx(expected)


def test_the_steps_of_a_stream_are_those_of_its_workers(tiny: Tiny, tmp_path: Path) -> None:
    """12 samples for two workers are two batches of 5 and 1 each."""
    model, watch = module("cross", tiny), Watch()
    run = trainer(tmp_path, max_epochs=2, callbacks=watch)
    run.fit(model, LightningIRDataModule(num_workers=2, train_dataset=tuples(), train_batch_size=5))
    assert model.steps == run.global_step == len(watch.rates) == 8


def test_the_fewer_of_steps_and_epochs_ends_the_schedule(tiny: Tiny, tmp_path: Path) -> None:
    for limit, steps in (({"max_epochs": 2, "max_steps": 5}, 5), ({"max_epochs": 1, "max_steps": 50}, 6)):
        model = module("cross", tiny)
        run = trainer(tmp_path, **limit)
        run.fit(model, LightningIRDataModule(train_dataset=tuples(), train_batch_size=2))
        assert model.steps == run.global_step == steps


def test_samples_are_counted_as_readers_get_them(tmp_path: Path) -> None:
    rows = [{"query": f"{i}", "pos": ["a"] * (i % 3), "neg": ["b"]} for i in range(7)]
    for readers in (1, 2, 3):
        assert sum(TupleDataset(rows).shares(readers)) == sum(i % 3 for i in range(7))
    assert TupleDataset(rows).shares(2) == [0 + 2 + 1 + 0, 1 + 0 + 2]


@pytest.mark.parametrize("dataset", [iter([("x", "y", "z")] * 9), Unsized()], ids=["an iterator", "another class"])
def test_a_stream_that_cannot_be_counted_needs_a_number_of_steps(dataset: Any, tiny: Tiny, tmp_path: Path) -> None:
    given = dataset if isinstance(dataset, Unsized) else TupleDataset(dataset)
    with pytest.raises(ValueError, match=r"give .*max_steps="):
        trainer(tmp_path, max_epochs=2).fit(module("cross", tiny), LightningIRDataModule(train_dataset=given))


def test_a_training_without_an_end_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Training has no end; give the trainer max_steps="):
        trainer(tmp_path, max_epochs=-1, max_steps=-1).fit(
            module("cross", tiny), LightningIRDataModule(train_dataset=tuples())
        )


def test_a_pipeline_is_trained_at_rates_that_fall(tiny: Tiny, tmp_path: Path) -> None:
    frame: Any = collection(24).run_path_or_id
    watch = Watch()
    pipeline = Trainable(
        tiny("dense"), tmp_path / "out", config=CrossEncoderConfig(), n=2, batch_size=4, max_epochs=2,
        trainer={"accelerator": "cpu", "callbacks": [watch], "enable_progress_bar": False},
    )  # fmt: skip
    qrels = frame[["qid", "docno", "relevance"]].rename(columns={"relevance": "label"})
    pipeline.fit(frame[["qid", "query", "docno", "text", "score"]], qrels)
    assert len(watch.rates) == 12
    rates = watch.rates[1:]  # after the warm-up
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < rates[0]


EVEN = """
import sys, warnings
sys.path[:0] = {path!r}
warnings.filterwarnings("ignore")
from tests.test_training import collection, module
from pyterrier_lir.training import LightningIRDataModule, LightningIRTrainer
trainer = LightningIRTrainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False,
                             enable_checkpointing=False, max_epochs=1)
data = LightningIRDataModule(train_dataset=collection(5), train_batch_size=1, shuffle_train=False)
trainer.fit(module("cross", lambda kind: {folder!r}), data)
print("steps", trainer.global_step)
"""


def test_two_processes_take_as_many_steps_of_an_odd_number_of_queries(tiny: Tiny, tmp_path: Path) -> None:
    program = tmp_path / "even.py"
    program.write_text(EVEN.format(path=sys.path, folder=tiny("dense")))
    done = subprocess.run([sys.executable, program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "steps 2" in done.stdout


def test_fewer_queries_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyterrier_lir.training.datamodule._rank", lambda: (0, 9))
    with pytest.raises(ValueError, match="5 samples for 9 processes"):
        LightningIRDataModule(train_dataset=collection(5)).train_dataloader()


@pytest.mark.parametrize("given", [pd.DataFrame(columns=["query", "pos", "neg"]), []], ids=["frame", "list"])
def test_empty_tuples_are_refused(given: Any, tiny: Tiny, tmp_path: Path) -> None:
    data = LightningIRDataModule(train_dataset=TupleDataset(given))
    with pytest.raises(ValueError, match="There are no tuples"):
        trainer(tmp_path, max_steps=2).fit(module("cross", tiny), data)
