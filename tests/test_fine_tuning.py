"""Trainable: fitting a pipeline mines from the stages in front, trains, and leaves the trained model in its place."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_lir import (
    BiEncoderConfig,
    CrossEncoderConfig,
    LIRBiEncoder,
    LIRReRanker,
    LIRRetriever,
    Trainable,
    load_model,
    open_index,
)
from pyterrier_lir.training.objectives import SupervisedMarginMSE
from tests.test_training import collection, quiet

Tiny = Callable[[str], str]
__all__ = ["quiet"]
TRAINER = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


class Searched:
    """A small collection, and a first stage that finds everything in no good order."""

    def __init__(self) -> None:
        frame = collection(30).run_path_or_id
        assert isinstance(frame, pd.DataFrame)
        self.texts = dict(zip(frame["docno"], frame["text"], strict=True))
        self.topics = frame[["qid", "query"]].drop_duplicates("qid").reset_index(drop=True)
        self.qrels = frame[["qid", "docno", "relevance"]].rename(columns={"relevance": "label"})
        run = frame.assign(score=frame["docno"].str[-1].astype(float))[["qid", "docno", "score"]]
        self.first_stage = pt.Transformer.from_df(pt.model.add_ranks(run))
        self.get_text = pt.apply.text(lambda row: self.texts[row["docno"]])

    def corpus(self) -> list[dict[str, str]]:
        return [{"docno": docno, "text": text} for docno, text in self.texts.items()]


@pytest.fixture(scope="module")
def searched() -> Searched:
    return Searched()


CONFIGS = {"cross": CrossEncoderConfig(), "dense": BiEncoderConfig(), "colbert": BiEncoderConfig.colbert()}


def trainable(tiny: Tiny, folder: Path, kind: str = "cross", **settings: Any) -> Trainable:
    settings = {"config": CONFIGS[kind], "n": 2, "max_epochs": 3, "learning_rate": 2e-3, "trainer": TRAINER, **settings}
    return Trainable(tiny("dense"), folder, **settings)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_fitted_pipeline_ranks_better_and_its_model_is_on_the_disk(
    kind: str, searched: Searched, tiny: Tiny, tmp_path: Path
) -> None:
    model = trainable(tiny, tmp_path / "model", kind)
    front = searched.first_stage >> searched.get_text
    pipeline = front >> model
    pipeline.fit(searched.topics, searched.qrels, searched.topics, searched.qrels)
    found = pt.Experiment([searched.first_stage, pipeline], searched.topics, searched.qrels, ["recip_rank"])
    assert found["recip_rank"][1] > found["recip_rank"][0] + 0.1
    results = pipeline(searched.topics)
    again = (front >> LIRReRanker(str(tmp_path / "model")))(searched.topics)
    pd.testing.assert_frame_equal(results, again)
    copied = pickle.loads(pickle.dumps(trainable(tiny, tmp_path / "model", kind)))
    assert copied == trainable(tiny, tmp_path / "model", kind)
    pd.testing.assert_frame_equal((front >> copied)(searched.topics), results)


def test_a_checkpoint_scores_before_it_is_fitted(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    front = searched.first_stage >> searched.get_text
    model = trainable(tiny, tmp_path / "model", config=None)
    expected = (front >> LIRReRanker(tiny("dense")))(searched.topics)
    pd.testing.assert_frame_equal((front >> model)(searched.topics), expected)
    model.fit(front(searched.topics), searched.qrels)
    assert not (front >> model)(searched.topics)["score"].equals(expected["score"])
    with pytest.raises(ValueError, match="is a new model: fit it first"):
        (front >> trainable(tiny, tmp_path / "other"))(searched.topics)


def test_a_bi_encoder_searches_its_own_index_once_it_is_fitted(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    model = trainable(tiny, tmp_path / "model", "dense", index=tmp_path / "x.lir", corpus=searched.corpus)
    (searched.first_stage >> searched.get_text >> model).fit(searched.topics, searched.qrels)
    found = model(searched.topics)
    assert len(found) == len(searched.topics) * len(searched.texts)
    relevant = found.merge(searched.qrels[searched.qrels["label"] > 0], on=["qid", "docno"])
    assert relevant["rank"].mean() < 30  # by chance, 45


def test_relevant_documents_that_were_not_found_are_learned_from_with_their_texts(
    searched: Searched, tiny: Tiny, tmp_path: Path
) -> None:
    results = (searched.first_stage >> searched.get_text)(searched.topics)
    missed = results[~results["docno"].str.endswith("-0")]
    with pytest.raises(ValueError, match="relevant"):
        trainable(tiny, tmp_path / "x").fit(missed, searched.qrels)
    model = trainable(tiny, tmp_path / "y", docs=searched.texts, max_epochs=1)
    assert len(list(model._mined(missed, searched.qrels))) == 30
    model.fit(missed, searched.qrels)


def test_topics_without_a_first_stage_are_refused(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"come without docno, text: put a first stage"):
        trainable(tiny, tmp_path / "x").fit(searched.topics, searched.qrels)
    with pytest.raises(ValueError, match="belong together"):
        Trainable(tiny("dense"), tmp_path / "x", index=tmp_path / "y")


def test_a_transformer_becomes_trainable_with_its_settings(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    given: Any = {"n": 2, "trainer": TRAINER}
    model = LIRReRanker(tiny("bert-1"), max_length=24, batch_size=8).trainable(tmp_path / "model", **given)
    assert model == Trainable(tiny("bert-1"), tmp_path / "model", max_length=24, batch_size=8, **given)
    front = searched.first_stage >> searched.get_text
    (front >> model).fit(searched.topics, searched.qrels)
    expected = (front >> LIRReRanker(str(tmp_path / "model"), batch_size=8))(searched.topics)  # max_length is saved
    pd.testing.assert_frame_equal((front >> model)(searched.topics), expected)


def test_a_bi_encoder_becomes_trainable_with_its_index(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    place: Any = {"index": tmp_path / "x.lir", "corpus": searched.corpus}
    model = LIRBiEncoder(tiny("dense"), doc_length=16).trainable(tmp_path / "model", n=2, trainer=TRAINER, **place)
    (searched.first_stage >> searched.get_text >> model).fit(searched.topics, searched.qrels)
    expected = LIRRetriever(str(tmp_path / "model"), tmp_path / "x.lir", doc_length=16)(searched.topics)
    pd.testing.assert_frame_equal(model(searched.topics), expected)
    assert open_index(tmp_path / "x.lir").config.doc_length == 16
    with pytest.raises(TypeError, match="allowed: a hub id or a folder"):
        LIRReRanker(load_model(tiny("bert-1"))).trainable(tmp_path / "other")


def test_settings_of_a_bi_encoder_hold_before_during_and_after_training(
    searched: Searched, tiny: Tiny, tmp_path: Path
) -> None:
    settings: Any = {"doc_length": 8, "doc_prompt": "text: ", "text_field": "body", "query_field": "asked"}
    front = searched.first_stage >> searched.get_text >> pt.apply.generic(
        lambda found: found.rename(columns={"text": "body", "query": "asked"}).assign(text="something else")
    )  # fmt: skip
    model = LIRBiEncoder(tiny("dense"), **settings).trainable(tmp_path / "model", n=2, trainer=TRAINER)
    results = front(searched.topics)
    expected = LIRBiEncoder(tiny("dense"), **settings).scorer()(results)
    pd.testing.assert_frame_equal(model(results), expected)
    model.fit(results, searched.qrels, results, searched.qrels)
    trained = LIRBiEncoder(str(tmp_path / "model"), text_field="body", query_field="asked")
    assert (trained.config().doc_length, trained.config().doc_prompt) == (8, "text: ")
    pd.testing.assert_frame_equal(model(results), trained.scorer()(results))
    assert not model(results)["score"].equals(expected["score"])


def test_settings_for_the_search_are_not_those_of_scoring(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    place: Any = {"index": tmp_path / "x.lir", "corpus": searched.corpus, "num_results": 3, "batch_size": 4}
    model = Trainable(tiny("dense"), tmp_path / "model", n=2, trainer=TRAINER, **place)
    results = (searched.first_stage >> searched.get_text)(searched.topics)
    assert len(model(results)) == len(results)
    model.fit(results, searched.qrels)
    assert len(model(searched.topics)) == 3 * len(searched.topics)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"doc_lenght": 8}, "has no setting doc_lenght"),
        ({"num_results": 8}, "has no setting num_results"),
        ({"text_field": ["title", "text"]}, "allowed: the name of a column"),
        ({"index": "x.lir", "corpus": [{"docno": "d", "text": "t"}]}, "without parentheses"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_training(given: Any, told: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=told):
        Trainable(tiny("dense"), tmp_path / "x", **given)


def test_a_teacher_is_distilled_where_a_loss_needs_its_scores(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    results = (searched.first_stage >> searched.get_text)(searched.topics)
    given: Any = {"n": 2, "trainer": TRAINER, "mining": {"teacher": LIRReRanker(tiny("dense"))}}
    model = Trainable(tiny("bert-1"), tmp_path / "x", loss_functions=[SupervisedMarginMSE()], **given)
    assert next(iter(model._mined(results, searched.qrels))).targets.min() not in (0, 1)
    model.fit(results, searched.qrels)
    plain = Trainable(tiny("bert-1"), tmp_path / "y", **given)
    assert next(iter(plain._mined(results, searched.qrels))).targets.tolist() == [1, 0, 0]
    graded = searched.qrels.assign(label=searched.qrels["label"] * 3)
    chosen = Trainable(tiny("bert-1"), tmp_path / "z", targets="relevance", **given)
    assert next(iter(chosen._mined(results, graded))).targets[0] == 3


def test_training_that_ends_before_a_validation_keeps_its_model(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    results = (searched.first_stage >> searched.get_text)(searched.topics)
    model = Trainable(tiny("bert-1"), tmp_path / "x", n=2, batch_size=4, trainer={**TRAINER, "max_steps": 2})
    with pytest.warns(UserWarning, match="Training ended before a validation"):
        model.fit(results, searched.qrels, results, searched.qrels)
    assert model.fitted() == LIRReRanker(str(tmp_path / "x"))


def test_fits_of_one_seed_are_equal(searched: Searched, tiny: Tiny, tmp_path: Path) -> None:
    results = (searched.first_stage >> searched.get_text)(searched.topics)
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model = trainable(tiny, tmp_path / name, max_epochs=1, seed=seed).fit(results, searched.qrels)
        found.append(model(results)["score"])
    assert found[0].equals(found[1])
    assert not found[0].equals(found[2])
