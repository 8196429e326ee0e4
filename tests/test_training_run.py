"""A run of training: validation, exported folders with cards, curves, early stopping, and what stops it."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ir_measures import calc_aggregate, nDCG
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from pyterrier_lir import BiEncoderConfig, LIRBiEncoder, LIRReRanker, load_model
from pyterrier_lir.data import DocDataset, RunDataset, TupleDataset
from pyterrier_lir.data.samples import TrainBatch
from pyterrier_lir.training import (
    BiEncoderModule,
    CrossEncoderModule,
    CurvesCallback,
    ExportCallback,
    LightningIRDataModule,
    LightningIRTrainer,
    RetrievalValidation,
    Schedule,
)
from pyterrier_lir.training.objectives import (
    OBJECTIVES,
    BinaryCrossEntropy,
    FLOPSRegularization,
    InBatchCrossEntropy,
    KLDivergence,
    Matryoshka,
    RankNet,
    SupervisedMarginMSE,
)
from tests.test_training import collection, data, module, quiet, trainer

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests


def validation() -> RunDataset:
    frame = collection(8, seed=5).run_path_or_id
    assert isinstance(frame, pd.DataFrame)
    return RunDataset(frame)


@pytest.mark.parametrize("kind", ["cross", "dense"])
def test_measures_are_those_of_the_model_in_a_pipeline(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    model = module(kind, tiny, evaluation_metrics=["nDCG@10", "RR@10"])
    made = LightningIRDataModule(train_dataset=collection(12), train_batch_size=4, inference_datasets=[validation()])
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, made)
    frame = validation().run_path_or_id
    assert isinstance(frame, pd.DataFrame)
    found = LIRReRanker(model.model)(frame[["qid", "query", "docno", "text"]])
    names = {"qid": "query_id", "docno": "doc_id"}
    expected = calc_aggregate([nDCG @ 10], frame.rename(columns=names), found.rename(columns=names))[nDCG @ 10]
    assert float(run.callback_metrics["the run/nDCG@10"]) == pytest.approx(expected, abs=1e-6)
    assert "the run/RR@10" in run.callback_metrics
    assert not model.model.training


@pytest.mark.parametrize("kind", ["dense", "splade", "colbert"])
def test_a_small_collection_is_searched_while_training(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    frame = collection(10, seed=5).run_path_or_id
    assert isinstance(frame, pd.DataFrame)
    parts = {"queries": dict(zip(frame["qid"], frame["query"], strict=True)),
             "docs": dict(zip(frame["docno"], frame["text"], strict=True)),
             "qrels": frame[["qid", "docno", "relevance"]]}  # fmt: skip
    watch = RetrievalValidation(parts, ["nDCG@10", "R@5"], num_results=10)
    run = trainer(tmp_path, max_epochs=1, callbacks=watch)
    model = module(kind, tiny)
    run.fit(model, data(8))
    everything = frame[["qid", "query"]].drop_duplicates().merge(frame[["docno", "text"]], how="cross")
    found = LIRBiEncoder(model.model).scorer()(everything)
    names = {"qid": "query_id", "docno": "doc_id"}
    best = found[found["rank"] < 10].rename(columns=names)
    expected = calc_aggregate([nDCG @ 10], frame.rename(columns=names), best)[nDCG @ 10]
    assert float(run.callback_metrics["retrieval/nDCG@10"]) == pytest.approx(expected, abs=1e-6)


def test_searches_are_as_frequent_as_validations_and_exports_see_them(tiny: Tiny, tmp_path: Path) -> None:
    frame: Any = collection(6, seed=5).run_path_or_id
    parts = {"queries": dict(zip(frame["qid"], frame["query"], strict=True)),
             "docs": dict(zip(frame["docno"], frame["text"], strict=True)),
             "qrels": frame[["qid", "docno", "relevance"]]}  # fmt: skip
    steps: list[int] = []

    class Counted(RetrievalValidation):
        def measure(self, *given: Any) -> dict[str, float]:
            steps.append(run.global_step)
            return super().measure(*given)

    monitor = "retrieval/nDCG@10"
    exports = [
        ExportCallback(tmp_path / "a", monitor=monitor),
        ExportCallback(tmp_path / "b", monitor="loss", mode="min"),
    ]
    stop = EarlyStopping(monitor, patience=50, mode="max")
    model = module("dense", tiny, evaluation_metrics=["nDCG@10"])
    made = data(16, inference_datasets=[validation(), validation()])
    run = trainer(tmp_path, max_epochs=2, val_check_interval=2, callbacks=[*exports, stop, Counted(parts)])
    run.fit(model, made)
    assert steps == [2, 4, 6, 8]
    assert {"the run/nDCG@10", "the run 2/nDCG@10"} <= {*run.callback_metrics}
    for export in exports:
        assert json.loads((export.folder / "training.json").read_text())["metrics"][export.monitor] == export.best
    facts = json.loads((tmp_path / "a" / "training.json").read_text())
    assert facts["data"].startswith("RunDataset(")
    assert "sample_size=3" in facts["data"]
    assert "targets='score'" in facts["data"]


def test_a_monitor_that_is_not_seen_costs_no_model(tiny: Tiny, tmp_path: Path) -> None:
    model = module("cross", tiny, evaluation_metrics=["nDCG@10"])
    made = data(16, inference_datasets=[validation()])
    with pytest.raises(KeyError, match=r"'the run/nDCG@1O' was not logged.* holds the last model"):
        trainer(tmp_path, max_epochs=1, callbacks=ExportCallback(tmp_path / "x", "the run/nDCG@1O")).fit(model, made)
    with pytest.warns(UserWarning, match="Training ended before a validation"):
        trainer(tmp_path, max_steps=2, callbacks=ExportCallback(tmp_path / "y", "the run/nDCG@10")).fit(model, made)
    for name in ("x", "y"):
        assert (tmp_path / name / "training.json").is_file()


def test_the_best_model_is_exported_with_a_card_and_curves(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = module("cross", tiny, evaluation_metrics=["nDCG@10"])
    made = LightningIRDataModule(train_dataset=collection(12), train_batch_size=4, inference_datasets=[validation()])
    export = ExportCallback(tmp_path / "best", monitor="the run/nDCG@10")
    stop = EarlyStopping("the run/nDCG@10", patience=50, mode="max")
    trainer(tmp_path, max_epochs=2, callbacks=[export, stop, CurvesCallback(tmp_path / "curves.png")]).fit(model, made)
    facts = json.loads((tmp_path / "best" / "training.json").read_text())
    assert facts["metrics"]["the run/nDCG@10"] == export.best
    assert facts["losses"] == ["RankNet(temperature=1.0)"]
    assert (tmp_path / "best" / "README.md").read_text().startswith("---\nlibrary_name: pyterrier-lir\n")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    frame = pd.DataFrame([("1", "tower", "a", "the tower")], columns=["qid", "query", "docno", "text"])
    assert math.isfinite(LIRReRanker(str(tmp_path / "best"))(frame)["score"].iloc[0])
    trainer(tmp_path, max_epochs=1, callbacks=ExportCallback(tmp_path / "best")).fit(model, data(8))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(FileExistsError, match="no export of a training"):
        trainer(tmp_path, max_epochs=1, callbacks=ExportCallback(tmp_path / "mine")).fit(model, data(8))


@pytest.mark.parametrize(
    "name", sorted(set(OBJECTIVES) - {"Matryoshka", "ContrastiveLocalLoss", "EmbeddingDistillation"})
)
def test_every_objective_trains_a_bi_encoder(name: str, tiny: Tiny, tmp_path: Path) -> None:
    model = module("dense", tiny, loss_functions=[OBJECTIVES[name]()])
    before = model.model.state_dict()["backbone.encoder.layer.0.output.dense.weight"].clone()
    trainer(tmp_path, max_steps=2).fit(model, data(12))
    after = model.model.state_dict()["backbone.encoder.layer.0.output.dense.weight"]
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


def test_losses_are_weighted_and_scheduled(tiny: Tiny, tmp_path: Path) -> None:
    schedule = Schedule("constant", warmup=2)
    model = module("dense", tiny, loss_functions=[InBatchCrossEntropy(), (FLOPSRegularization(1, 1), 0.5, schedule)])
    logged: list[dict[str, float]] = []
    made = trainer(tmp_path, max_steps=3)
    model.on_train_batch_end = lambda *given: logged.append({k: float(v) for k, v in made.callback_metrics.items()})
    made.fit(model, data(12))
    for step, values in enumerate(logged):
        expected = values["InBatchCrossEntropy"] + 0.5 * min(1, step / 2) * values["FLOPSRegularization"]
        assert values["loss"] == pytest.approx(expected, rel=1e-5)


class Broken(torch.nn.Module):
    def forward(self, scored: Any) -> torch.Tensor:
        return scored.scores.sum() * float("nan")


BAD: dict[str, tuple[Callable[[Tiny, Path], Any], type[Exception], str]] = {
    "no loss": (lambda tiny, p: trainer(p, max_steps=1).fit(module("dense", tiny, loss_functions=[Nothing()]), data(8)),
                TypeError, "is no loss"),
    "a loss's class": (lambda tiny, p: module("dense", tiny, loss_functions=[RankNet]), TypeError, "give an instance"),
    "NaN": (lambda tiny, p: trainer(p, max_steps=1).fit(module("dense", tiny, loss_functions=[Broken()]), data(8)),
            FloatingPointError, "loss is nan in batch 0 of epoch 0"),
    "an unknown metric": (lambda tiny, p: module("dense", tiny, evaluation_metrics=["nDCGG@10"]), ValueError,
                          "ir_measures knows no 'nDCGG@10'"),
    "in-batch for cross-encoders": (
        lambda tiny, p: trainer(p, max_steps=1).fit(module("cross", tiny, loss_functions=[InBatchCrossEntropy()]), data(8)),
        ValueError, "cross-encoder scores no query with other"),
    "regularised cross-encoders": (
        lambda tiny, p: trainer(p, max_steps=1).fit(module("cross", tiny, loss_functions=[FLOPSRegularization()]), data(8)),
        ValueError, "for bi-encoders"),
    "no targets": (lambda tiny, p: trainer(p, max_steps=1).fit(
        module("dense", tiny), LightningIRDataModule(train_dataset=RunDataset(collection(8).run_path_or_id, sample_size=3),
                                                     train_batch_size=2)), ValueError, "needs targets"),
    "scores of labels": (lambda tiny, p: trainer(p, max_steps=1).fit(
        module("dense", tiny, loss_functions=[KLDivergence()]),
        LightningIRDataModule(train_dataset=RunDataset(collection(8).run_path_or_id, sample_size=3, targets="relevance"),
                              train_batch_size=2)), ValueError, "needs a teacher's scores"),
    "scores of an order": (lambda tiny, p: trainer(p, max_steps=1).fit(
        module("dense", tiny, loss_functions=[(SupervisedMarginMSE(), 0.5)]),
        LightningIRDataModule(train_dataset=TupleDataset(pd.DataFrame({"query": ["a"] * 4, "pos": ["b"] * 4, "neg": ["c"] * 4})),
                              train_batch_size=2)), ValueError, "needs a teacher's scores"),
    "dims above the size": (
        lambda tiny, p: trainer(p, max_steps=1).fit(module("dense", tiny, loss_functions=[Matryoshka(dims=(4096,))]), data(8)),
        ValueError, "the model's vectors have"),
    "two models": (lambda tiny, p: BiEncoderModule(tiny("dense"), model=load_model(tiny("dense"))), ValueError,
                   "either model_name_or_path= or model="),
    "no data": (lambda tiny, p: LightningIRDataModule(), ValueError, "Give train_dataset="),
    "nothing to train on": (lambda tiny, p: trainer(p, max_steps=1).fit(
        module("dense", tiny), LightningIRDataModule(inference_datasets=[validation()])), ValueError, "no train_dataset="),
    "a limit above the positions": (lambda tiny, p: BiEncoderModule(tiny("dense"), BiEncoderConfig(doc_length=100_000)),
                                    ValueError, "positions"),
    "another kind of model": (lambda tiny, p: CrossEncoderModule(tiny("splade")), ValueError, "is a bi-encoder"),
    "an unknown monitor": (
        lambda tiny, p: trainer(p, max_epochs=1, callbacks=ExportCallback(p / "x", monitor="nothing")).fit(
            module("dense", tiny, evaluation_metrics=["nDCG@10"]),
            LightningIRDataModule(train_dataset=collection(8), train_batch_size=4, inference_datasets=[validation()])),
        KeyError, "'nothing' was not logged"),
    "another schedule": (lambda tiny, p: Schedule("linnear"), ValueError, "allowed: linear, cosine, constant"),
}  # fmt: skip


class Nothing:
    pass


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_a_clear_error(case: str, tiny: Tiny, tmp_path: Path) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call(tiny, tmp_path)


def test_labels_above_zero_are_relevant_to_binary_cross_entropy(tiny: Tiny) -> None:
    model = module("cross", tiny, loss_functions=[BinaryCrossEntropy()])
    batch = TrainBatch(["a", "b"], [["c", "d"], ["e", "f"]], targets=torch.tensor([2.0, 0.0, 0.0, 1.0]))
    scored = model.scored(batch)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scored.scores, labels)
    torch.testing.assert_close(model.losses[0][0](scored), expected)


def test_the_best_checkpoint_is_kept_and_training_stops_early(tiny: Tiny, tmp_path: Path) -> None:
    """At a learning rate of 0 nothing gets better, so that the first epoch is the best and the third the last."""
    best = ModelCheckpoint(tmp_path, filename="best", monitor="the run/nDCG@10", mode="max")
    stop = EarlyStopping("the run/nDCG@10", patience=2, mode="max")
    model = module("cross", tiny, evaluation_metrics=["nDCG@10"], learning_rate=0.0)
    made = LightningIRDataModule(train_dataset=collection(8), train_batch_size=4, inference_datasets=[validation()])
    run = trainer(tmp_path, max_epochs=9, callbacks=[best, stop], enable_checkpointing=True)
    run.fit(model, made)
    assert (run.current_epoch, best.best_model_score) == (3, run.callback_metrics["the run/nDCG@10"])
    assert torch.load(tmp_path / "best.ckpt", weights_only=False)["epoch"] == 0


def test_losses_and_speed_are_logged_to_a_file(tiny: Tiny, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, "log")
    run = LightningIRTrainer(accelerator="cpu", logger=logger, max_steps=3, log_every_n_steps=1,
                             enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    run.fit(module("dense", tiny), data(12))
    table = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert table[["InBatchCrossEntropy", "loss", "samples/s"]].notna().all(axis=None)
    assert table["step"].tolist() == [0, 1, 2]


class Breaking(RankNet):
    """RankNet, until it is asked for the fourth time."""

    count = 0

    def __call__(self, scored: Any) -> torch.Tensor:
        type(self).count += 1
        return super().__call__(scored) * (math.nan if self.count > 3 else 1.0)


def test_a_loss_that_is_nan_stops_training_and_leaves_the_last_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    run = trainer(tmp_path, max_epochs=2, callbacks=keep, enable_checkpointing=True)
    with pytest.raises(FloatingPointError, match=r"nan in batch 1 of epoch 1 \(queries q"):
        run.fit(module("dense", tiny, loss_functions=[Breaking()]), data(8))
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=1.ckpt", "step=2.ckpt", "step=3.ckpt"]
    state = torch.load(tmp_path / "step=3.ckpt", weights_only=False)["state_dict"]
    assert all(torch.isfinite(one).all() for one in state.values())


def test_targets_that_are_all_equal_are_told(tiny: Tiny, tmp_path: Path) -> None:
    frame: Any = collection(8).run_path_or_id
    dataset = RunDataset(frame.assign(relevance=1), sample_size=3, targets="relevance")
    with pytest.warns(UserWarning, match="each of the 4 queries of the first batch have equal targets"):
        trainer(tmp_path, max_steps=1).fit(
            module("cross", tiny), LightningIRDataModule(train_dataset=dataset, train_batch_size=4)
        )


def test_accumulated_batches_have_the_gradients_of_one(tiny: Tiny, tmp_path: Path) -> None:
    found = []
    for size, times in ((8, 1), (4, 2)):
        model = module("cross", tiny, schedule=Schedule("constant"))
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        model.model.backbone.config.attention_probs_dropout_prob = 0.0
        made = LightningIRDataModule(train_dataset=collection(8), train_batch_size=size, shuffle_train=False)
        trainer(tmp_path, max_epochs=1, accumulate_grad_batches=times, gradient_clip_val=None).fit(
            model.set_optimizer(torch.optim.SGD, lr=0.1), made
        )
        found.append(model.model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["cross", "splade", "colbert"])
def test_models_are_trained_in_bf16_and_kept_in_float32(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    model = module(kind, tiny, evaluation_metrics=["nDCG@10"])
    made = LightningIRDataModule(train_dataset=collection(12), train_batch_size=4, inference_datasets=[validation()])
    run = trainer(tmp_path, max_epochs=2, precision="bf16-mixed")
    run.fit(model, made)
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert math.isfinite(float(run.callback_metrics["loss"]))
    frame = validation().run_path_or_id
    assert isinstance(frame, pd.DataFrame)
    found = LIRReRanker(model.model, precision="bf16")(frame[["qid", "query", "docno", "text"]])
    names = {"qid": "query_id", "docno": "doc_id"}
    expected = calc_aggregate([nDCG @ 10], frame.rename(columns=names), found.rename(columns=names))[nDCG @ 10]
    assert float(run.callback_metrics["the run/nDCG@10"]) == pytest.approx(expected, abs=1e-6)


def test_throughput_counts_the_reading_of_data(tiny: Tiny, tmp_path: Path) -> None:
    class Slow(RunDataset):
        def __getitem__(self, number: int) -> Any:
            time.sleep(0.05)
            return super().__getitem__(number)

    rows = collection(16)
    made = LightningIRDataModule(
        train_dataset=Slow(rows.run_path_or_id, sample_size=3, targets="score"), train_batch_size=4
    )
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module("dense", tiny), made)
    assert float(run.callback_metrics["samples/s"]) < 20


@pytest.mark.parametrize("datasets", [None, [{"docs": {"d": "a text"}}]], ids=["none", "documents"])
def test_training_without_rankings_says_nothing_of_validation(datasets: Any, tiny: Tiny, tmp_path: Path) -> None:
    inference = None if datasets is None else [DocDataset(one) for one in datasets]
    made = LightningIRDataModule(train_dataset=collection(4), train_batch_size=4, inference_datasets=inference)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer(tmp_path, max_epochs=1).fit(module("dense", tiny), made)
    assert not [one for one in told if "Total length" in str(one.message) or "val_dataloader" in str(one.message)]
