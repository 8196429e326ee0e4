"""Each listing of the Lightning IR paper (SIGIR 2025) on local data, with only the import changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pyterrier_lir import BiEncoderConfig, CrossEncoderConfig
from pyterrier_lir.training.command_line import main
from pyterrier_lir.training.inference_callbacks import read_run
from tests.local_dataset import Files, write
from tests.test_training import quiet
from tests.tiny_checkpoints import backbone as make_backbone
from tests.tiny_checkpoints import wordpiece

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = write(tmp_path_factory.mktemp("collection"))
    made.register("local/paper")
    return made


@pytest.fixture(scope="module")
def backbone(tiny: Tiny) -> str:
    return tiny("dense")


def test_section_3_1_new_models_on_a_backbone(tmp_path: Path) -> None:
    from pyterrier_lir import BiEncoderModel, CrossEncoderModel

    tokenizer = wordpiece()
    tokenizer.save_pretrained(tmp_path)
    make_backbone("Bert", tokenizer).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="a backbone alone"):
        bi_encoder = BiEncoderModel.from_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="a backbone alone"):
        cross_encoder = CrossEncoderModel.from_pretrained(tmp_path)
    assert (bi_encoder.config, cross_encoder.config) == (BiEncoderConfig(), CrossEncoderConfig())


def test_section_3_1_a_colbert_from_a_configuration(backbone: str) -> None:
    from pyterrier_lir import BiEncoderConfig, BiEncoderModel

    config = BiEncoderConfig(
        similarity_function="dot",
        query_pooling_strategy=None,
        doc_pooling_strategy=None,
        embedding_dim=128,
    )
    colbert = BiEncoderModel.from_pretrained(backbone, config=config)
    assert (colbert.kinds, colbert.size("multi_vector")) == (["multi_vector"], 128)


def test_section_3_1_scoring_two_documents(tiny: Tiny) -> None:
    from pyterrier_lir import BiEncoderModule, CrossEncoderModule

    bi_encoder = BiEncoderModule(tiny("dpr-mean"))
    cross_encoder = CrossEncoderModule(tiny("mono-bert"))
    query = "What is the capital of Germany?"
    docs = ["Berlin is the capital of Germany.", "Paris is the capital of France."]
    for module in (bi_encoder, cross_encoder):
        scores = module.score(query, docs).scores.numpy().round(2)
        assert scores.shape == (2,)
        assert np.isfinite(scores).all()


def test_section_3_2_iterating_datasets(files: Files) -> None:
    from pyterrier_lir import DocDataset, QueryDataset, RunDataset

    doc, query = next(iter(DocDataset("local/paper"))), next(iter(QueryDataset("local/paper")))
    assert (type(doc).__name__, doc.doc_id, type(query).__name__, query.query_id) == (
        "DocSample",
        "d0",
        "QuerySample",
        "1",
    )
    sample = RunDataset("local/paper", depth=3)[0]
    assert (type(sample).__name__, sample.query_id, sample.doc_ids) == ("RankSample", "1", ("d0", "d1", "d2"))


def test_sections_3_2_and_3_3_fit_index_and_search(backbone: str, files: Files, tmp_path: Path) -> None:
    from pyterrier_lir import (
        BiEncoderConfig,
        BiEncoderModule,
        DocDataset,
        FaissFlatIndexConfig,
        FaissFlatIndexer,
        FaissSearchConfig,
        IndexCallback,
        LightningIRDataModule,
        LightningIRTrainer,
        QueryDataset,
        RunDataset,
        SearchCallback,
        TupleDataset,
    )
    from pyterrier_lir.training.objectives import RankNet

    module = BiEncoderModule(backbone, config=BiEncoderConfig(), loss_functions=[RankNet()])
    data_module = LightningIRDataModule(
        module=module,
        train_dataset=TupleDataset("local/paper"),
        train_batch_size=4,
        inference_datasets=[RunDataset("local/paper"), RunDataset("local/paper", depth=3)],
    )
    quietly = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    before = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    trainer = LightningIRTrainer(max_steps=2, **quietly)
    trainer.fit(module, data_module)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in module.model.state_dict().items())
    module.save_pretrained(tmp_path / "model")

    module = BiEncoderModule(str(tmp_path / "model"))
    data_module = LightningIRDataModule(inference_datasets=[DocDataset("local/paper")])
    index_callback = IndexCallback(index_dir=tmp_path / "index", index_config=FaissFlatIndexConfig())
    trainer = LightningIRTrainer(callbacks=[index_callback], **quietly)
    trainer.index(module, data_module)
    assert FaissFlatIndexer.__name__ == "Indexer"

    module = BiEncoderModule(str(tmp_path / "model"), evaluation_metrics=["nDCG@10"])
    search_callback = SearchCallback(str(tmp_path / "index"), FaissSearchConfig(k=10))
    data_module = LightningIRDataModule(inference_datasets=[QueryDataset("local/paper")])
    trainer = LightningIRTrainer(callbacks=[search_callback], **quietly)
    [measures] = trainer.search(module, data_module)
    assert 0 <= measures["local/paper/nDCG@10"] <= 1
    assert (tmp_path / "model" / "runs" / "local-paper.run").is_file()


TRAINER = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def test_section_3_4_train_yaml(backbone: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({
        "trainer": {"max_steps": 2, **TRAINER},
        "model": {
            "class_path": "BiEncoderModule",
            "init_args": {
                "model_name_or_path": backbone,
                "config": {"class_path": "BiEncoderConfig", "init_args": {"embedding_dim": 8}},
                "loss_functions": [{"class_path": "RankNet"}],
            },
        },
        "data": {
            "class_path": "LightningIRDataModule",
            "init_args": {
                "train_dataset": {"class_path": "TupleDataset", "init_args": {"tuples_dataset": "local/paper"}},
                "train_batch_size": 4,
            },
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}},
    }))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    main("fit", ["--config", "train.yaml"])
    run = tmp_path / "lightning_logs" / "version_0"
    assert {"config.yaml", "run.json", "model", "checkpoints"} <= {path.name for path in run.iterdir()}


def test_section_3_4_index_yaml_and_its_sibling_for_searching(
    backbone: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def config(callback: dict[str, object], dataset: dict[str, object], **model: object) -> str:
        return yaml.safe_dump({
            "trainer": {"logger": False, "callbacks": [callback], **TRAINER},
            "model": {"class_path": "BiEncoderModule", "init_args": {"model_name_or_path": backbone, **model}},
            "data": {"class_path": "LightningIRDataModule", "init_args": {"inference_datasets": [dataset]}},
        })  # fmt: skip

    monkeypatch.chdir(tmp_path)
    index = {"index_dir": "index", "index_config": {"class_path": "FaissFlatIndexConfig"}}
    docs = {"class_path": "DocDataset", "init_args": {"doc_dataset": "local/paper"}}
    Path("index.yaml").write_text(config({"class_path": "IndexCallback", "init_args": index}, docs))
    main("index", ["--config", "index.yaml"])
    assert (tmp_path / "index" / "local-paper" / "pt_meta.json").is_file()
    search = {"index_dir": "index", "search_config": {"class_path": "FaissSearchConfig", "init_args": {"k": 3}}}
    queries = {"class_path": "QueryDataset", "init_args": {"query_dataset": "local/paper"}}
    callback: dict[str, object] = {"class_path": "SearchCallback", "init_args": search}
    Path("search.yaml").write_text(config(callback, queries, evaluation_metrics=["nDCG@10"]))
    main("search", ["--config", "search.yaml"])
    assert "nDCG@10" in capsys.readouterr().out
    assert len(read_run(tmp_path / "lightning_logs" / "version_1" / "runs" / "local-paper.run")) == 9


def test_section_4_re_rank_yaml(
    tiny: Tiny, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [
        {"class_path": "RunDataset", "init_args": {"run_path_or_id": place}}
        for place in ("local/paper", files.scoreddocs)
    ]
    runs[1]["init_args"]["dataset"] = "local/paper"  # type: ignore[index]
    Path("re-rank.yaml").write_text(yaml.safe_dump({
        "trainer": {"logger": False, **TRAINER},
        "model": {
            "class_path": "CrossEncoderModule",
            "init_args": {"model_name_or_path": tiny("mono-bert"), "evaluation_metrics": ["nDCG@10"]},
        },
        "data": {"class_path": "LightningIRDataModule", "init_args": {"inference_datasets": runs}},
    }))  # fmt: skip
    main("re_rank", ["--config", "re-rank.yaml"])
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert [row[0] for row in table if row[0] in ("nDCG@10", "local/paper", "bm25")] == [
        "nDCG@10",
        "local/paper",
        "bm25",
    ]
