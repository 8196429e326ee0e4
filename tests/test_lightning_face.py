"""trainer.index, search and re_rank give what the transformers of a pipeline give."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from ir_measures import calc_aggregate, nDCG, read_trec_qrels, read_trec_run

from pyterrier_lir import (
    BiEncoderModule,
    CrossEncoderModule,
    DocDataset,
    FaissFlatIndexConfig,
    FaissSearchConfig,
    IndexCallback,
    LightningIRDataModule,
    LightningIRTrainer,
    LIRIndexer,
    LIRReRanker,
    LIRRetriever,
    QueryDataset,
    ReRankCallback,
    RunDataset,
    SearchCallback,
    TorchDenseIndexConfig,
    TorchDenseSearchConfig,
    TorchSparseIndexConfig,
    TorchSparseSearchConfig,
    open_index,
)
from pyterrier_lir.indexes.configs import INDEX_CONFIGS, SEARCH_CONFIGS, PlaidSearchConfig, SeismicIndexConfig
from pyterrier_lir.training.inference_callbacks import read_run
from tests.local_dataset import QUERIES, Files, write
from tests.test_training import quiet

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests
MODELS = {"dense": "dense", "sparse": "splade", "multi_vector": "col"}
TOPICS = pd.DataFrame({"qid": list(QUERIES), "query": list(QUERIES.values())})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = write(tmp_path_factory.mktemp("collection"))
    made.register("local/face")
    return made


def trainer(*callbacks: Any) -> LightningIRTrainer:
    return LightningIRTrainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=list(callbacks),
                              enable_progress_bar=False, enable_model_summary=False)  # fmt: skip


def of(*datasets: Any) -> LightningIRDataModule:
    return LightningIRDataModule(inference_datasets=datasets)


def corpus(files: Files) -> list[dict[str, str]]:
    rows = (line.split("\t") for line in Path(files.docs).read_text(encoding="utf-8").splitlines())
    return [{"docno": docno, "text": text} for docno, text in rows]


def assert_same_run(path: Path, expected: pd.DataFrame) -> None:
    found = read_run(path).rename(columns={"query_id": "qid", "doc_id": "docno"})
    both = expected[["qid", "docno", "score", "rank"]].merge(found, on=["qid", "docno"], how="outer")
    np.testing.assert_allclose(both["score_x"], both["score_y"], rtol=1e-5)
    assert (both["rank_x"] + 1).tolist() == both["rank_y"].tolist()


PAIRS = [
    pytest.param(index(), search(k=4), kind, id=f"{kind}-{index.__name__}-{search.__name__}")
    for index in INDEX_CONFIGS for search in SEARCH_CONFIGS for kind in MODELS
    if kind in index.ENGINES and index.ENGINES[kind] in search.ENGINES.get(kind, ())
]  # fmt: skip


@pytest.mark.parametrize(("index_config", "search_config", "kind"), PAIRS)
def test_indexing_and_searching_equal_those_of_a_pipeline(
    index_config: Any, search_config: Any, kind: str, files: Files, tiny: Tiny, tmp_path: Path
) -> None:
    if isinstance(index_config, SeismicIndexConfig):
        pytest.importorskip("seismic")
    model = tiny(MODELS[kind])
    module = BiEncoderModule(model, evaluation_metrics=["nDCG@10"])
    trainer(IndexCallback(tmp_path / "index", index_config)).index(module, of(DocDataset("local/face")))
    search = SearchCallback(tmp_path / "index", search_config, save_dir=tmp_path / "runs")
    [measures] = trainer(search).search(module, of(QueryDataset("local/face")))
    settings = index_config.settings(kind)
    LIRIndexer(model, tmp_path / "own", **{name: value for name, value in settings.items() if value}).index(
        corpus(files)
    )
    exact = isinstance(index_config, (FaissFlatIndexConfig, TorchDenseIndexConfig, TorchSparseIndexConfig))
    index = open_index(tmp_path / "index" / "local-face")
    options = {} if exact else search_config.retriever(index).options
    engine = "exact" if exact else index_config.engine(kind)
    found = LIRRetriever(model, tmp_path / "own", engine, num_results=4, options=options)(TOPICS)
    assert_same_run(tmp_path / "runs" / "local-face.run", found)
    run = read_trec_run(str(tmp_path / "runs" / "local-face.run"))
    expected = calc_aggregate([nDCG @ 10], read_trec_qrels(files.qrels), run)[nDCG @ 10]
    assert measures == {"local/face/nDCG@10": pytest.approx(expected)}


def test_every_engine_has_configurations() -> None:
    from pyterrier_lir.indexes.search import ENGINES

    named = {(kind, engine) for config in INDEX_CONFIGS for kind, engine in config.ENGINES.items()}
    assert set(ENGINES) - named <= {("dense", "rabitq"), ("multi_vector", "fast-plaid")}


@pytest.mark.parametrize(
    ("kind", "model"), [("cross", "mono-bert"), ("cross", "set-encoder"), ("bi", "dense"), ("bi", "col")]
)
def test_re_ranking_equals_that_of_a_pipeline(kind: str, model: str, files: Files, tiny: Tiny, tmp_path: Path) -> None:
    module = (CrossEncoderModule if kind == "cross" else BiEncoderModule)(tiny(model), evaluation_metrics=["RR@10"])
    data = of(RunDataset("local/face", depth=5))
    [measures] = trainer(ReRankCallback(tmp_path)).re_rank(module, data)
    assert list(measures) == ["local/face/RR@10"]
    first = pt.io.read_results(files.scoreddocs).merge(TOPICS, on="qid").merge(pd.DataFrame(corpus(files)), on="docno")
    found = LIRReRanker(tiny(model))(pt.model.add_ranks(first).query("rank < 5"))
    assert_same_run(tmp_path / "local-face.run", found)


def test_runs_and_indexes_that_are_there_are_kept_unless_told_otherwise(
    files: Files, tiny: Tiny, tmp_path: Path
) -> None:
    module = BiEncoderModule(tiny("dense"), evaluation_metrics=["RR@10"])
    for _ in range(2):
        trainer(IndexCallback(tmp_path, FaissFlatIndexConfig())).index(module, of(DocDataset("local/face")))
    kept = "1 Q0 d1 1 1.0 other\n2 Q0 d2 1 1.0 other\n3 Q0 d9 1 1.0 other\n"
    (tmp_path / "local-face.run").write_text(kept)
    for overwrite, expected in ((False, 2 / 3), (True, None)):
        search = SearchCallback(tmp_path, FaissSearchConfig(k=3), save_dir=tmp_path, overwrite=overwrite)
        [measures] = trainer(search).search(module, of(QueryDataset("local/face")))
        assert expected is None or measures["local/face/RR@10"] == pytest.approx(expected)
        assert ((tmp_path / "local-face.run").read_text() == kept) is not overwrite
    other = BiEncoderModule(tiny("dpr-mean"))
    with pytest.raises(ValueError, match="was made with"):
        trainer(IndexCallback(tmp_path, FaissFlatIndexConfig())).index(other, of(DocDataset("local/face")))
    trainer(IndexCallback(tmp_path, FaissFlatIndexConfig(), overwrite=True)).index(other, of(DocDataset("local/face")))
    assert open_index(tmp_path / "local-face").meta["model"]["source"] == tiny("dpr-mean")


def test_an_interrupted_build_goes_on(
    files: Files, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyterrier_lir.training import inference

    module = BiEncoderModule(tiny("dense"))
    callback = IndexCallback(tmp_path, TorchDenseIndexConfig())
    real = DocDataset.__iter__

    def broken(self: DocDataset) -> Any:
        for number, sample in enumerate(real(self)):
            if number == 3:
                raise OSError("the disk is gone")
            yield sample

    with monkeypatch.context() as patch:
        patch.setattr(DocDataset, "__iter__", broken)
        with pytest.raises(OSError, match="the disk is gone"):
            trainer(callback).index(module, of(DocDataset("local/face")))
    with pytest.raises(FileNotFoundError, match="is no index"):
        open_index(tmp_path / "local-face")
    trainer(callback).index(module, of(DocDataset("local/face")))
    assert len(open_index(tmp_path / "local-face")) == len(corpus(files))
    assert inference.ranks() == (0, 1)


def test_two_processes_give_the_run_of_one(files: Files, tiny: Tiny, tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        textwrap.dedent(f"""
        from pyterrier_lir import *
        from pyterrier_lir.data.local_datasets import register_local_dataset
        if __name__ == "__main__":
            register_local_dataset("local/face", **{files.__dict__!r})
            def trainer(*callbacks):
                return LightningIRTrainer(accelerator="cpu", devices=2, strategy="ddp", logger=False,
                    enable_checkpointing=False, callbacks=list(callbacks), enable_progress_bar=False)
            module = BiEncoderModule({tiny("dense")!r}, evaluation_metrics=["nDCG@10"])
            data = lambda dataset: LightningIRDataModule(inference_datasets=[dataset])
            trainer(IndexCallback({str(tmp_path / "index")!r}, FaissFlatIndexConfig())).index(module, data(DocDataset("local/face")))
            search = SearchCallback({str(tmp_path / "index")!r}, FaissSearchConfig(k=4), save_dir={str(tmp_path / "search")!r})
            trainer(search).search(module, data(QueryDataset("local/face")))
            trainer(ReRankCallback({str(tmp_path / "rerank")!r})).re_rank(module, data(RunDataset("local/face", depth=5)))
    """)
    )
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True, timeout=300)
    LIRIndexer(tiny("dense"), tmp_path / "own").index(corpus(files))
    assert_same_run(
        tmp_path / "search" / "local-face.run", LIRRetriever(tiny("dense"), tmp_path / "own", num_results=4)(TOPICS)
    )
    assert read_run(tmp_path / "rerank" / "local-face.run").groupby("query_id").size().tolist() == [5, 5, 5]
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["local-face"]


def mistakes(tiny: Tiny, files: Files, folder: Path) -> dict[str, tuple[Callable[[], Any], type[Exception], str]]:
    bi, cross, sparse = BiEncoderModule(tiny("dense")), CrossEncoderModule(tiny("mono-bert")), tiny("splade")
    docs, queries, run = DocDataset("local/face"), QueryDataset("local/face"), RunDataset("local/face")
    flat = IndexCallback(folder / "flat", FaissFlatIndexConfig())
    unjudged = QueryDataset({"queries": QUERIES})
    return {
        "no callback": (lambda: trainer().index(bi, of(docs)), ValueError, "IndexCallback"),
        "no data": (lambda: trainer(flat).index(bi), ValueError, "inference_datasets"),
        "a cross-encoder for an index": (lambda: trainer(flat).index(cross, of(docs)), ValueError, "not a CrossEncoderModule"),
        "queries for an index": (lambda: trainer(flat).index(bi, of(queries)), ValueError, "not a QueryDataset"),
        "documents to re-rank": (lambda: trainer().re_rank(cross, of(docs)), ValueError, "not a DocDataset"),
        "a dense configuration for a sparse model": (
            lambda: trainer(flat).index(BiEncoderModule(sparse), of(docs)), ValueError, "take TorchSparseIndexConfig"),
        "an index of another kind than the search": (
            lambda: trainer(SearchCallback(folder / "there", TorchSparseSearchConfig())).search(bi, of(queries)),
            ValueError, "take FaissSearchConfig or TorchDenseSearchConfig"),
        "no index": (
            lambda: trainer(SearchCallback(folder / "none", TorchDenseSearchConfig())).search(bi, of(queries)),
            FileNotFoundError, "is no index"),
        "an index of another model": (
            lambda: trainer(SearchCallback(folder / "there", TorchDenseSearchConfig())).search(
                BiEncoderModule(tiny("dpr-mean")), of(queries)), ValueError, "was made with"),
        "no judgements": (
            lambda: trainer(SearchCallback(folder / "there" / "local-face", TorchDenseSearchConfig())).search(
                BiEncoderModule(tiny("dense"), evaluation_metrics=["nDCG@10"]), of(unjudged)),
            ValueError, "no relevance judgements"),
        "unknown measures": (lambda: BiEncoderModule(tiny("dense"), evaluation_metrics=["nDGC@10"]), ValueError, "nDGC@10"),
        "the arguments in the other order": (lambda: SearchCallback(FaissSearchConfig(), "index"), TypeError, "search_config"),
        "no results wanted": (lambda: PlaidSearchConfig(k=0), ValueError, "k=0"),
        "a run for search": (lambda: trainer(SearchCallback("x", TorchDenseSearchConfig())).search(bi, of(run)), ValueError,
                             "works on a QueryDataset"),
    }  # fmt: skip


def test_mistakes_are_told_before_any_work(files: Files, tiny: Tiny, tmp_path: Path) -> None:
    there = IndexCallback(tmp_path / "there", TorchDenseIndexConfig())
    trainer(there).index(BiEncoderModule(tiny("dense")), of(DocDataset("local/face")))
    for name, (call, kind, message) in mistakes(tiny, files, tmp_path).items():
        with pytest.raises(kind) as told:
            call()
        assert message in str(told.value), name
        assert "\n" not in str(told.value), name
    assert not (tmp_path / "flat").exists()


def test_runs_of_a_model_from_the_hub_need_a_folder(files: Files, tiny: Tiny) -> None:
    module = CrossEncoderModule(tiny("mono-bert"))
    module.model.source = "webis/monoelectra-base"
    with pytest.raises(ValueError, match="give save_dir="):
        trainer(ReRankCallback()).re_rank(module, of(RunDataset("local/face")))
