"""PyTerrier's contracts, on every transformer of the package: tables of transformers, one suite."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
import pyterrier.testing
import pytest

from pyterrier_lir import LIRBiEncoder, LIRDenseIndex, LIRMultiVectorIndex, LIRReRanker, LIRSparseIndex  # noqa: F401
from pyterrier_lir.columns import VECTOR_COLUMNS
from tests.test_indexes import KINDS as KINDS_OF_INDEXES
from tests.test_indexes import documents
from tests.tiny_bi_encoders import KINDS
from tests.tiny_checkpoints import SENTENCES

Tiny = Callable[[str], str]


@dataclass(frozen=True)
class Row:
    """A transformer of the suite: how it is made of a checkpoint, which checkpoint, what it reads and adds."""

    make: Callable[[Any], pt.Transformer]
    kind: str
    reads: tuple[str, ...]
    adds: tuple[str, ...]


_RESULTS = ("qid", "query", "docno", "text")
_RANKED = ("score", "rank")
TRANSFORMERS: dict[str, Row] = {
    "LIRReRanker": Row(LIRReRanker, "mono-bert", _RESULTS, _RANKED),
    "LIRReRanker listwise": Row(LIRReRanker, "set-encoder", _RESULTS, _RANKED),
    "LIRReRanker dense": Row(LIRReRanker, "dense", _RESULTS, _RANKED),
}
for _kind, _query, _doc in (("dense", "query_vec", "doc_vec"), ("splade", "query_toks", "toks"),
                            ("col", "query_embs", "doc_embs")):  # fmt: skip
    TRANSFORMERS |= {
        f"query encoder {_kind}": Row(lambda m: LIRBiEncoder(m).query_encoder(), _kind, ("qid", "query"), (_query,)),
        f"doc encoder {_kind}": Row(lambda m: LIRBiEncoder(m).doc_encoder(), _kind, ("docno", "text"), (_doc,)),
        f"scorer {_kind}": Row(lambda m: LIRBiEncoder(m).scorer(), _kind, _RESULTS, _RANKED),
        f"LIRBiEncoder {_kind}": Row(LIRBiEncoder, _kind, _RESULTS, _RANKED),
        f"LIRBiEncoder queries {_kind}": Row(LIRBiEncoder, _kind, ("qid", "query"), (_query,)),
        f"LIRBiEncoder docs {_kind}": Row(LIRBiEncoder, _kind, ("docno", "text"), (_doc,)),
    }


@cache
def stored(kind: str) -> Path:
    """An index of documents d0, d1, ..."""
    index = KINDS_OF_INDEXES[kind](Path(tempfile.mkdtemp()) / "x.lir")
    return index.indexer().index(documents(kind, len(SENTENCES))).folder


def loader(kind: str, model: str) -> pt.Transformer:
    return KINDS_OF_INDEXES[kind]("another.lir" if model == "another/model" else stored(kind)).vec_loader()


for _vectors, _model in (("dense", "dense"), ("sparse", "splade"), ("multi_vector", "col")):
    _adds = (VECTOR_COLUMNS[_vectors][1],)
    TRANSFORMERS[f"vec loader {_vectors}"] = Row(partial(loader, _vectors), _model, ("docno",), _adds)


@dataclass
class Case:
    transformer: pt.Transformer
    inp: pd.DataFrame
    row: Row

    def again(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self.transformer(frame)


@pytest.fixture(params=TRANSFORMERS)
def case(request: pytest.FixtureRequest, tiny: Tiny) -> Case:
    row = TRANSFORMERS[request.param]
    rows = [("q1", "rainfall in the mountains", f"d{i}", SENTENCES[i], i) for i in range(3)]
    rows += [("q2", "bread", f"d{i}", SENTENCES[i], i) for i in (2, 4)]
    frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "year"])
    if "docno" not in row.reads:
        frame = frame.drop_duplicates("qid", ignore_index=True)
    elif "qid" not in row.reads:
        frame = frame.drop_duplicates("docno", ignore_index=True)
    return Case(row.make(tiny(row.kind)), frame[[*row.reads, "year"]], row)


def equal(one: Any, other: Any) -> None:
    """Equal values of a column: numbers, arrays or dictionaries, to the rounding of other batches."""
    for a, b in zip(one, other, strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            a, b = list(a.values()), [b[name] for name in a]
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=3e-6, atol=1e-5)


def same_output(case: Case, changed: pd.DataFrame) -> None:
    out, expected = case.again(changed), case.again(case.inp)
    for name in case.row.adds:
        equal(out[name], expected[name])


def test_columns_rows_and_order_are_kept_and_the_new_columns_come_behind(case: Case) -> None:
    out = case.again(case.inp)
    pd.testing.assert_frame_equal(out[list(case.inp.columns)], case.inp)
    assert list(out.columns) == [*case.inp.columns, *case.row.adds]


def test_the_input_frame_is_not_changed(case: Case) -> None:
    before = case.inp.copy(deep=True)
    case.again(case.inp)
    pd.testing.assert_frame_equal(case.inp, before)


@pytest.mark.parametrize("labels", ["equal", "letters", "dates"])
def test_any_index_labels_are_kept(labels: str, case: Case) -> None:
    count = len(case.inp)
    index = {"equal": [7] * count, "letters": list("edcba")[:count], "dates": pd.date_range("2020", periods=count)}
    changed = case.inp.set_axis(index[labels], axis=0)
    assert case.again(changed).index.equals(changed.index)
    same_output(case, changed)


@pytest.mark.parametrize("dtype", ["object", "string", "str", "category"])
def test_every_pandas_string_type_is_read(dtype: str, case: Case) -> None:
    same_output(case, case.inp.astype(dict.fromkeys(case.row.reads, dtype)))


def test_an_empty_frame_gives_an_empty_frame_with_the_columns(case: Case) -> None:
    out = case.again(case.inp.head(0))
    assert len(out) == 0
    assert list(out.columns) == list(case.again(case.inp).columns)


def test_rows_in_another_order_get_the_same(case: Case) -> None:
    shuffled = case.inp.sample(frac=1, random_state=2)
    out, expected = case.again(shuffled).loc[case.inp.index], case.again(case.inp)
    for name in case.row.adds:
        equal(out[name], expected[name])


def test_rows_that_come_twice_get_the_same_twice(case: Case) -> None:
    if case.row.kind == "set-encoder":
        pytest.skip("a duplicate is one more document of the list, which changes the others' scores")
    out = case.again(pd.concat([case.inp, case.inp]))
    for name in set(case.row.adds) - {"rank"}:
        equal(out[name][: len(case.inp)], out[name][len(case.inp) :])


def test_one_query_or_document_at_a_time_gives_the_same_as_all_at_once(case: Case) -> None:
    by = "qid" if "qid" in case.row.reads else "docno"
    parts = pd.concat([case.again(group) for _, group in case.inp.groupby(by)]).loc[case.inp.index]
    for name in case.row.adds:
        equal(parts[name], case.again(case.inp)[name])


def test_dictionaries_in_give_dictionaries_out(case: Case) -> None:
    records, expected = case.inp.to_dict("records"), case.again(case.inp)
    for out in (case.transformer(records), list(case.transformer.transform_iter(iter(records)))):
        assert [list(row) for row in out] == [list(expected.columns)] * len(records)
        for name in case.row.adds:
            equal([row[name] for row in out], expected[name])
    assert case.transformer([]) == []


def test_settings_make_equality_hash_and_representation(case: Case, tiny: Tiny) -> None:
    case.again(case.inp)  # a loaded one is no other
    same, other = case.row.make(tiny(case.row.kind)), case.row.make("another/model")
    assert case.transformer == same
    assert hash(case.transformer) == hash(same)
    assert case.transformer != other
    assert eval(repr(case.transformer)) == case.transformer


def test_pickling_leaves_the_weights_behind(case: Case) -> None:
    expected = case.again(case.inp)
    packed = pickle.dumps(case.transformer)
    assert len(packed) < 2_000
    out = pickle.loads(packed)(case.inp)
    for name in case.row.adds:
        equal(out[name], expected[name])


def test_inspection_and_drawing_load_no_weights(case: Case, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = case.row.make(tiny(case.row.kind))
    monkeypatch.setattr("pyterrier_lir.models.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    inputs = pt.inspect.transformer_inputs(fresh)
    assert sorted(case.row.reads) in [sorted(columns) for columns in inputs]
    columns = [*case.row.reads, "extra"]
    assert pt.inspect.transformer_outputs(fresh, columns) == [*columns, *case.row.adds]
    assert pt.schematic.transformer_schematic(fresh)["help_url"] is None
    assert len(str(pt.schematic.draw(fresh))) > 100


def test_missing_columns_are_named(case: Case) -> None:
    results = case.row.reads == _RESULTS
    for name in case.row.reads:
        left = case.inp.drop(columns=name)
        if name in ("qid", "docno") and (not results or isinstance(case.transformer, LIRBiEncoder)):
            continue  # encoders read texts alone, and LIRBiEncoder encodes what is left
        with pytest.raises(pt.validate.InputValidationError, match=name):
            case.again(left)


def test_texts_that_are_missing_or_no_strings_are_refused_by_their_rows(case: Case) -> None:
    for name in {"query", "text"} & set(case.row.reads):
        null = case.inp.assign(**{name: [None, *case.inp[name][1:]]})
        with pytest.raises(ValueError, match=f"'{name}' is missing in 1 of {len(null)} rows"):
            case.again(null)
        with pytest.raises(TypeError, match=f"'{name}' holds int instead of str"):
            case.again(case.inp.assign(**{name: range(len(case.inp))}))


@cache
def splade_folder() -> str:
    folder = Path(tempfile.mkdtemp())
    KINDS["splade"](folder)
    return str(folder)


def _checks(name: str, make: Callable[[], pt.Transformer]) -> type:
    return type(name, (pyterrier.testing.TransformerTestCase,), {"get_transformer": staticmethod(make)})


TestReRankerByPyTerrier = _checks("TestReRankerByPyTerrier", lambda: LIRReRanker("webis/monoelectra-base"))
TestBiEncoderByPyTerrier = _checks("TestBiEncoderByPyTerrier", lambda: LIRBiEncoder(splade_folder()))
TestVectorLoaderByPyTerrier = _checks("TestVectorLoaderByPyTerrier", lambda: loader("sparse", "any"))
TestScorerByPyTerrier = _checks("TestScorerByPyTerrier", lambda: LIRBiEncoder("webis/splade").scorer())
