"""What training may be told: adapters, layers computed again, other objectives, refreshed negatives, streams on ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from pyterrier_lir import (
    BiEncoderConfig,
    CrossEncoderConfig,
    LIRBiEncoder,
    LIRIndexer,
    LIRReRanker,
    LIRRetriever,
    TupleDataset,
    load_model,
    mine_negatives,
)
from pyterrier_lir.data.samples import RankBatch
from pyterrier_lir.training import BiEncoderModule, CrossEncoderModule, LightningIRDataModule, RefreshNegatives
from pyterrier_lir.training.objectives import (
    ApproxNDCG,
    ContrastiveLocalLoss,
    EmbeddingDistillation,
    FLOPSRegularization,
    InfoNCE,
    Matryoshka,
    RankNet,
    SupervisedMarginMSE,
)
from pyterrier_lir.training.resuming import refuse_other_optimizers
from pyterrier_lir.training.schedulers import GenericConstantSchedulerWithLinearWarmup
from tests.test_training import ROOT, collection, data, module, quiet, trainer

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]}


@pytest.mark.parametrize("kind", ["cross", "splade"])
def test_adapters_alone_are_trained_and_merged_into_what_is_saved(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    model = module(kind, tiny, lora=LORA, learning_rate=3e-2)
    before = {name: value.clone() for name, value in model.model.backbone.state_dict().items()}
    trainer(tmp_path, max_epochs=4).fit(model, data(16))
    after = model.model.backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    expected = model.score("tower river", ["the tower", "bread"]).scores
    model.save_pretrained(tmp_path / "out")
    assert changed <= set(model.model.backbone.state_dict())  # training can go on
    opened = load_model(tmp_path / "out")
    assert not any("lora" in name for name, _ in opened.named_parameters())
    frame = pd.DataFrame({"qid": ["1", "1"], "query": ["tower river"] * 2, "docno": ["a", "b"],
                          "text": ["the tower", "bread"]})  # fmt: skip
    found = LIRReRanker(str(tmp_path / "out"))(frame).sort_values("docno")["score"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    batch = RankBatch(["tower river", "bread"], [["the tower", "bread in the oven"], ["bread", "a river"]])
    model.on_train_start()
    model.model.train()  # as layers are computed again only then
    model.scored(batch).scores.square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["cross", "colbert"])
def test_layers_computed_again_have_the_same_gradients(kind: str, tiny: Tiny) -> None:
    expected = gradients(module(kind, tiny))
    found = gradients(module(kind, tiny, gradient_checkpointing=True))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["set-encoder", "set-encoder-extra"])
def test_a_listwise_models_layers_are_computed_again_as_they_were(kind: str, cached: bool, tiny: Tiny) -> None:
    expected = gradients(CrossEncoderModule(tiny(kind)))
    found = gradients(CrossEncoderModule(tiny(kind), gradient_checkpointing=True, cached=cached))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"cached": True}, {"gradient_checkpointing": True}], ids=str)
@pytest.mark.parametrize("kind", ["cross", "splade"])
def test_packed_training_has_the_gradients_of_padded_training(kind: str, settings: dict[str, bool], tiny: Tiny) -> None:
    found = []
    for packed in (False, True):
        model = module(kind, tiny, packed=packed, **settings)
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in found[0].values())  # keys' biases have its rounding only
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-6 * largest)


def test_packed_training_and_a_compiled_backbone_exclude_each_other(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="packed=True: compile= has kernels of its own; leave packed= out"):
        module("cross", tiny, packed=True, compile=True)


@pytest.mark.parametrize("again", [False, True])
def test_a_compiled_backbone_has_the_same_gradients(again: bool, tiny: Tiny) -> None:
    found = []
    for compile in (False, {"backend": "aot_eager"}):
        model = module("cross", tiny, compile=compile, gradient_checkpointing=again)
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            if hasattr(part, "attention_dropout"):
                part.attention_dropout = 0.0
        found.append(gradients(model))
    for name, gradient in found[1].items():  # of what no score depends on, the compiled one has zeros
        torch.testing.assert_close(
            gradient, found[0].get(name, torch.zeros(1)).expand_as(gradient), rtol=1e-4, atol=1e-6
        )
    assert found[0].keys() <= found[1].keys()


def test_a_student_takes_on_its_teachers_vectors(tiny: Tiny, tmp_path: Path) -> None:
    teacher = module("dense", tiny).model
    torch.manual_seed(9)
    student = module("dense", tiny, loss_functions=[EmbeddingDistillation(teacher)], learning_rate=1e-3)
    for parameter in student.model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    texts = pd.DataFrame({"docno": ["1", "2"], "text": ["the tower", "bread in the oven"]})

    def distance() -> float:
        one, other = (np.stack(LIRBiEncoder(m).doc_encoder()(texts)["doc_vec"]) for m in (teacher, student.model))
        return float(((one - other) ** 2).mean())

    before = distance()
    frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
    trainer(tmp_path, max_epochs=4).fit(student, data(16))
    assert distance() < 0.5 * before
    assert all(torch.equal(frozen[name], value) for name, value in teacher.state_dict().items())


def test_one_vector_of_a_document_answers(tiny: Tiny) -> None:
    model = module("colbert", tiny, loss_functions=[ContrastiveLocalLoss()])
    batch = RankBatch(["tower river"], [["the tower by the river", "bread"]])
    scored = model.scored(batch)
    scored.targets = torch.tensor([[1.0, 0.0]])
    queries, docs = (one[0] for one in scored.vectors())
    doc = docs.values[: docs.offsets[1]]
    similarities = queries.values @ doc.T
    expected = -(similarities.max(1).values - similarities.logsumexp(1)).mean()
    torch.testing.assert_close(ContrastiveLocalLoss()(scored), expected)


def test_negatives_are_refreshed_by_the_models_own_ranking(tiny: Tiny, tmp_path: Path) -> None:
    frame: Any = collection(12).run_path_or_id
    docs = dict(zip(frame["docno"], frame["text"], strict=True))
    topics = frame[["qid", "query"]].drop_duplicates()
    qrels = frame[["qid", "docno", "relevance"]].rename(columns={"relevance": "label"})
    texts = {"queries": dict(zip(topics["qid"], topics["query"], strict=True)), "docs": docs}
    first = TupleDataset([(q, f"{q} and more", "sand") for q in topics["query"]])
    made = LightningIRDataModule(train_dataset=first, train_batch_size=4)
    refresh = RefreshNegatives(3, topics, qrels, texts, tmp_path / "mined", n=2, depth=10, sampling="top")
    seen: list[tuple[int, int]] = []
    model = module("dense", tiny, learning_rate=1e-3)
    model.on_train_batch_end = lambda out, batch, i: seen.append((model.global_step, len(batch.docs[0])))
    run = trainer(tmp_path, max_steps=6, callbacks=refresh)
    run.fit(model, made)
    assert seen == [(1, 2), (2, 2), (3, 2), (4, 3), (5, 3), (6, 3)]  # a negative each, then the two that were mined
    assert [path.name for path in (tmp_path / "mined").iterdir()] == ["step-3.jsonl.gz"]
    LIRIndexer(model.model, tmp_path / "x.lir").index([{"docno": d, "text": t} for d, t in docs.items()])
    pipeline = LIRRetriever(model.model, tmp_path / "x.lir", num_results=10)
    expected = mine_negatives(pipeline, topics, qrels, n=2, depth=10, sampling="top", docs=docs)
    pd.testing.assert_frame_equal(refresh.mine(model.model), expected, check_dtype=False)


def test_refreshed_negatives_have_the_targets_that_the_data_had(tiny: Tiny, tmp_path: Path) -> None:
    frame: Any = collection(12).run_path_or_id
    docs = dict(zip(frame["docno"], frame["text"], strict=True))
    topics = frame[["qid", "query"]].drop_duplicates()
    qrels = frame[["qid", "docno", "relevance"]].rename(columns={"relevance": "label"})
    given: Any = (2, topics, qrels, {"docs": docs}, tmp_path / "mined")
    rows = [{"query": q, "pos": q, "neg": ["sea", "sand"], "pos_scores": [4.0], "neg_scores": [3.0, 2.0]}
            for q in topics["query"]]  # fmt: skip
    made = LightningIRDataModule(train_dataset=TupleDataset(rows, "score"), train_batch_size=4)
    seen: list[list[float]] = []
    model = module("dense", tiny, loss_functions=[SupervisedMarginMSE()])
    model.on_train_batch_end = lambda out, batch, i: seen.append(batch.targets[:3].tolist())
    refresh = RefreshNegatives(*given, n=2, depth=10, teacher=lambda found: found.assign(score=7.5))
    trainer(tmp_path, max_steps=4, callbacks=refresh).fit(model, made)
    assert seen == [[4, 3, 2], [4, 3, 2], [7.5, 7.5, 7.5], [7.5, 7.5, 7.5]]
    with pytest.raises(ValueError, match=r"give RefreshNegatives\(\.\.\., teacher=\) too"):
        trainer(tmp_path, max_steps=4, callbacks=RefreshNegatives(*given, n=2)).fit(model, made)


def test_what_was_mined_is_used_after_an_interruption(tiny: Tiny, tmp_path: Path) -> None:
    frame: Any = collection(12).run_path_or_id
    docs = dict(zip(frame["docno"], frame["text"], strict=True))
    topics = frame[["qid", "query"]].drop_duplicates()
    qrels = frame[["qid", "docno", "relevance"]].rename(columns={"relevance": "label"})
    texts = {"queries": dict(zip(topics["qid"], topics["query"], strict=True)), "docs": docs}

    def run(steps: int, checkpoint: Path | None = None) -> Any:
        first = TupleDataset([(q, f"{q} and more", "sand") for q in topics["query"]])
        made = LightningIRDataModule(train_dataset=first, train_batch_size=4)
        refresh = RefreshNegatives(3, topics, qrels, texts, tmp_path / "mined", n=2, depth=10)
        own = trainer(tmp_path, max_steps=steps, callbacks=refresh)
        model = module("dense", tiny)
        widths: list[int] = []
        model.on_train_batch_end = lambda out, batch, i: widths.append(len(batch.docs[0]))
        own.fit(model, made, ckpt_path=checkpoint, weights_only=False)
        return own, widths

    half, widths = run(5)
    assert widths == [2, 2, 2, 3, 3]
    half.save_checkpoint(tmp_path / "half.ckpt")
    assert run(7, tmp_path / "half.ckpt")[1] == [3, 3]


LENGTH_ONE = BiEncoderConfig(normalization_strategy="l2")
BAD: dict[str, tuple[Callable[[Tiny, Path], Any], type[Exception], str]] = {
    "another configuration": (
        lambda tiny, p: resumed(tiny, p, now=BiEncoderConfig()), ValueError,
        r"written with normalization_strategy='l2' \(now None\); allowed: the same",
    ),
    "another learning rate": (
        lambda tiny, p: resumed(tiny, p, learning_rate=0.5), ValueError,
        r"written with learning rate=2e-05 \(now 0.5\); allowed: the same.  To begin a new training",
    ),
    "another rate of the head": (
        lambda tiny, p: resumed(tiny, p, BiEncoderConfig.colbert(), head_learning_rate=0.5), ValueError,
        r"written with parameters=\[16, 22\] \(now \[15, 22, 1\]\), learning rate=2e-05 \(now \[2e-05, 0.5\]\); allowed",
    ),
    "another backbone": (
        lambda tiny, p: resumed(tiny, p, backbone="dpr-max"), ValueError,
        r"written with model_type='bert' \(now 'roberta'\).*Another model has other weights",
    ),
    "negatives for a cross-encoder": (
        lambda tiny, p: trainer(p, max_steps=2, callbacks=refreshing(p)).fit(module("cross", tiny), data(8)),
        ValueError, "A cross-encoder indexes nothing",
    ),
    "negatives for ever": (
        lambda tiny, p: trainer(p, max_epochs=2, callbacks=refreshing(p)).fit(module("dense", tiny), data(8)),
        ValueError, "needs a LightningIRTrainer with max_steps=",
    ),
    "more tokens than positions": (
        lambda tiny, p: BiEncoderModule(tiny("dense"), BiEncoderConfig(doc_length=9_999)), ValueError, "doc_length=9999; ",
    ),
    "local contrast of one vector": (
        lambda tiny, p: trainer(p, max_steps=1).fit(module("dense", tiny, loss_functions=[ContrastiveLocalLoss()]), data(8)),
        ValueError, "for multi-vector models; this one is dense",
    ),
}  # fmt: skip


def refreshing(folder: Path) -> RefreshNegatives:
    frame: Any = collection(8).run_path_or_id
    return RefreshNegatives(1, frame[["qid", "query"]], frame[["qid", "docno"]], {}, folder)


def resumed(
    tiny: Tiny, folder: Path, config: BiEncoderConfig = LENGTH_ONE, now: BiEncoderConfig | None = None,
    backbone: str = "dense", **settings: Any,
) -> None:  # fmt: skip
    """Train a step, and go on with another configuration, backbone or other settings."""
    own = trainer(folder, max_steps=1)
    own.fit(BiEncoderModule(tiny("dense"), config, loss_functions=[RankNet()]), data(8))
    own.save_checkpoint(folder / "x.ckpt")
    other = BiEncoderModule(tiny(backbone), now or config, loss_functions=[RankNet()], **settings)
    trainer(folder, max_steps=2).fit(other, data(8), ckpt_path=folder / "x.ckpt", weights_only=False)


def test_a_refused_resumption_leaves_the_module_to_be_trained_anew(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learning rate=2e-05"):
        resumed(tiny, tmp_path, learning_rate=0.5)
    model = BiEncoderModule(tiny("dense"), LENGTH_ONE, loss_functions=[RankNet()], learning_rate=0.5)
    with pytest.raises(ValueError, match="learning rate=2e-05"):
        trainer(tmp_path, max_steps=2).fit(model, data(8), ckpt_path=tmp_path / "x.ckpt", weights_only=False)
    run = trainer(tmp_path, max_steps=1)
    run.fit(model, data(8))
    assert run.global_step == 1


def test_strategies_that_restore_late_refuse_another_rate_too(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those do that spread weights over processes."""
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", True)
    with pytest.raises(ValueError, match=r"written with learning rate=2e-05 \(now 0.5\)"):
        resumed(tiny, tmp_path, learning_rate=0.5)
    resumed(tiny, tmp_path)


def test_rates_that_a_scheduler_has_changed_are_no_others() -> None:
    """ReduceLROnPlateau keeps no rate that it began with, others change the momentum too."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    group = {"params": [0], "lr": 0.1, "weight_decay": 0.01, "betas": (0.8, 0.9)}
    saved: dict[str, Any] = {"optimizer_states": [{"param_groups": [group]}]}
    refuse_other_optimizers(saved | {"lr_schedulers": [{"best": 1.0}]}, [optimizer.param_groups])
    with pytest.raises(ValueError, match=r"written with learning rate=0.1 \(now 0.5\); allowed: the same"):
        refuse_other_optimizers(saved, [optimizer.param_groups])


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_is_refused(case: str, tiny: Tiny, tmp_path: Path) -> None:
    act, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        act(tiny, tmp_path)


def gpt(folder: Path) -> Path:
    """A decoder alone, without a pad token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    from tests.tiny_checkpoints import SENTENCES

    raw = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel()
    raw.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"]))
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", bos_token="<|endoftext|>",
                            unk_token="<|endoftext|>").save_pretrained(folder / "gpt")  # fmt: skip
    torch.manual_seed(0)
    GPT2Model(GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=128)).save_pretrained(
        folder / "gpt"
    )
    return folder / "gpt"


def test_a_backbone_without_a_pad_token_is_trained_as_it_scores(tmp_path: Path) -> None:
    config = CrossEncoderConfig(pooling_strategy="last", query_length=16, doc_length=32)
    made: Any = CrossEncoderModule(gpt(tmp_path), config, loss_functions=[InfoNCE()], learning_rate=1e-3)
    trainer(tmp_path, max_steps=3).fit(made, data(12))
    texts = ["the tower by the river", "bread"]
    made.model.eval()
    scored = made.scored(RankBatch(["tower"], [texts])).scores[0].detach()
    torch.testing.assert_close(made.score("tower", texts).scores, scored, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (CrossEncoderConfig(), "CrossEncoderConfig.pooling_strategy='last'"),
        (BiEncoderConfig(query_pooling_strategy="first", doc_pooling_strategy="first"),
         "BiEncoderConfig.query_pooling_strategy='last', doc_pooling_strategy='last'"),
        (BiEncoderConfig(doc_pooling_strategy="first"), "BiEncoderConfig.doc_pooling_strategy='last'"),
    ],
)  # fmt: skip
def test_no_new_model_reads_the_first_token_of_a_decoder(config: Any, settings: str, tmp_path: Path) -> None:
    kind: Any = CrossEncoderModule if isinstance(config, CrossEncoderConfig) else BiEncoderModule
    with pytest.raises(ValueError, match=f"is a decoder.* so take {settings}"):
        kind(gpt(tmp_path), config)


def test_a_saved_model_that_reads_the_first_token_of_a_decoder_is_opened(tmp_path: Path) -> None:
    made = CrossEncoderModule(gpt(tmp_path), CrossEncoderConfig(pooling_strategy="last", doc_length=64))
    made.model.config = CrossEncoderConfig(pooling_strategy="first", doc_length=64)
    made.save_pretrained(tmp_path / "out")
    assert CrossEncoderModule(tmp_path / "out").config == made.config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": (8, 4), "weights": (1.0,)}, "weights=.*; allowed: None, or 2"),
        ({"dims": (0,)}, "dims=.*; allowed: one or more positive numbers"),
        ({"dims": ()}, "dims=.*; allowed: one or more positive numbers"),
    ],
)
def test_sizes_and_weights_of_cut_vectors_are_checked_where_they_are_given(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Matryoshka(**settings)


def test_losses_of_one_class_are_logged_under_names_of_their_own(tiny: Tiny, tmp_path: Path) -> None:
    model = module("cross", tiny, loss_functions=[ApproxNDCG(1.0), RankNet(), ApproxNDCG(0.1)])
    run = trainer(tmp_path, max_steps=1)
    run.fit(model, data(8))
    logged = {name: float(value) for name, value in run.logged_metrics.items()}
    assert {"ApproxNDCG", "ApproxNDCG_2", "RankNet"} <= set(logged)
    assert logged["ApproxNDCG"] != logged["ApproxNDCG_2"]


def test_scheduled_settings_of_losses_are_set_back_after_an_error(tiny: Tiny, tmp_path: Path) -> None:
    model = module("splade", tiny, loss_functions=[RankNet(), FLOPSRegularization(query_weight=0.5)])
    seen: list[float] = []

    def stop(out: Any, batch: Any, number: int) -> None:
        seen.append(model.losses[1][0].query_weight)
        if len(seen) == 2:
            raise RuntimeError("out of memory")

    model.on_train_batch_end = stop
    rise = GenericConstantSchedulerWithLinearWarmup(["loss_functions.1.query_weight"], num_warmup_steps=4)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(tmp_path, max_steps=6, callbacks=rise).fit(model, data(24))
    assert max(seen) < 0.5
    assert model.losses[1][0].query_weight == 0.5


UNEVEN = """
import sys, json, torch, warnings
warnings.filterwarnings("ignore")
from pyterrier_lir import TupleDataset
from pyterrier_lir.training import BiEncoderModule, LightningIRDataModule, LightningIRTrainer
from pyterrier_lir.training.objectives import RankNet
folder, out = sys.argv[1:]
rows = [(f"query {i}", "the tower", "bread") for i in range(9)]  # 5 rows for one process, 4 for the other
steps = []
module = BiEncoderModule(folder, loss_functions=[RankNet()])
module.on_train_batch_end = lambda *given: steps.append(module.global_step)
trainer = LightningIRTrainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False,
                             enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(module, LightningIRDataModule(train_dataset=TupleDataset(rows), train_batch_size=2))
with open(f"{out}/{trainer.global_rank}.json", "w") as file:
    json.dump(steps, file)
"""


def test_processes_with_unlike_numbers_of_samples_end_together(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "uneven.py").write_text(UNEVEN)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, tmp_path / "uneven.py", tiny("dense"), tmp_path], env=environment,
                          capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [[1, 2, 3, 4]] * 2
