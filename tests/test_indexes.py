"""Indexes of every kind: built in parts, killed, resumed, changed, and searched by every engine of the table."""

from __future__ import annotations

import importlib.util
import json
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from lz4.frame import LZ4FrameFile

from pyterrier_lir import BiEncoderConfig, LIRDenseIndex, LIRRetriever
from pyterrier_lir.columns import VECTOR_COLUMNS
from pyterrier_lir.indexes import INDEXES, LIRIndex, open_index
from pyterrier_lir.indexes.search import ENGINES, engines_of, open_engine

KINDS = {index.KIND: index for index in INDEXES.values()}
RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((12, 16)).astype(np.float32)
WORDS = [f"w{i}" for i in range(60)]


def vector_of(kind: str, seed: int) -> Any:
    """A vector of that kind near one of a few centres, so that approximate engines have something to find."""
    rng = np.random.default_rng(seed)
    if kind == "sparse":
        chosen = np.unique(np.minimum(rng.zipf(1.4, 9), len(WORDS)) - 1)
        return {WORDS[i]: float(rng.uniform(0.1, 2)) for i in chosen}
    rows = 1 if kind == "dense" else int(rng.integers(2, 6))
    vectors = CENTRES[rng.integers(0, len(CENTRES), rows)] + 0.3 * rng.standard_normal((rows, 16)).astype(np.float32)
    return vectors[0] if kind == "dense" else vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def documents(kind: str, count: int, start: int = 0) -> list[dict[str, Any]]:
    column = VECTOR_COLUMNS[kind][1]
    return [{"docno": f"d{i}", column: vector_of(kind, i), "text": f"text of {i}", "year": str(1990 + i % 30)}
            for i in range(start, start + count)]  # fmt: skip


def queries(kind: str, count: int = 4) -> pd.DataFrame:
    vectors = pd.Series([vector_of(kind, 10_000 + i) for i in range(count)], dtype=object)
    return pd.DataFrame({"qid": [f"q{i}" for i in range(count)], "query": "any", VECTOR_COLUMNS[kind][0]: vectors})


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def index(kind: str, tmp_path: Path) -> LIRIndex:
    made = KINDS[kind](tmp_path / "x.lir")
    return made.indexer(shard_docs=1_024, include_fields=["text", "year"]).index(documents(kind, 2_500))


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


# Building


def test_an_index_holds_what_was_given(kind: str, index: LIRIndex) -> None:
    docs = documents(kind, 2_500)
    assert len(index) == 2_500
    assert len(index.shards) == 3
    for doc, stored in zip(docs, index.get_corpus_iter(), strict=True):
        assert stored["docno"] == doc["docno"]
        assert stored["text"] == doc["text"]
        one, other = doc[VECTOR_COLUMNS[kind][1]], stored[VECTOR_COLUMNS[kind][1]]
        if kind == "sparse":
            assert other == pytest.approx(one)
        else:
            np.testing.assert_allclose(other, one, atol=2e-3)


def test_docnos_and_docids_lead_to_each_other(index: LIRIndex) -> None:
    docids = np.array([2_400, 0, 1_024, 7])
    assert index.docnos_of(docids).tolist() == ["d2400", "d0", "d1024", "d7"]
    assert index.docids_of(["d7", "nobody", "d2400"]).tolist() == [7, -1, 2_400]


def test_artifacts_are_found_by_their_metadata(kind: str, index: LIRIndex) -> None:
    loaded = pt.Artifact.load(str(index.path))
    assert type(loaded) is KINDS[kind]
    assert loaded == open_index(str(index.path)) == index
    assert pickle.loads(pickle.dumps(index)) == index
    meta = json.loads((Path(str(index.path)) / "pt_meta.json").read_text())
    assert (meta["type"], meta["format"]) == (KINDS[kind].ARTIFACT_TYPE, "lir")


def test_packages_of_indexes_open_elsewhere(kind: str, index: LIRIndex, tmp_path: Path) -> None:
    package = index.build_package(str(tmp_path / "x.tar.lz4"), verbose=False)
    with LZ4FrameFile(package) as stream, tarfile.open(fileobj=stream) as archive:  # as the hub's readers do
        archive.extractall(tmp_path / "copy", filter="data")
    copy = pt.Artifact.load(str(tmp_path / "copy"))
    found, expected = copy.retriever(num_results=5)(queries(kind)), index.retriever(num_results=5)(queries(kind))
    pd.testing.assert_frame_equal(found, expected)


def test_no_documents_make_an_empty_index(kind: str, tmp_path: Path) -> None:
    empty = KINDS[kind](tmp_path / "x.lir").indexer().index([])
    assert len(empty) == 0
    if kind == "sparse":
        assert len(empty.retriever()(queries(kind))) == 0


def test_modes_refuse_what_would_lose_something(kind: str, index: LIRIndex) -> None:
    docs = documents(kind, 10, start=5_000)
    with pytest.raises(FileExistsError, match="choose mode='overwrite' or 'append'"):
        index.indexer().index(docs)
    with pytest.raises(FileNotFoundError, match="is no index"):
        KINDS[kind](str(index.path) + "2").indexer(mode="append").index(docs)
    with pytest.raises(ValueError, match="mode='add'; allowed: 'create', 'overwrite', 'append', 'resume'"):
        index.indexer(mode="add").index(docs)
    other = Path(str(index.path)).parent / "other"
    other.mkdir()
    (other / "precious.txt").write_text("x")
    for mode in ("create", "overwrite"):
        with pytest.raises((FileExistsError, FileNotFoundError), match="is no index"):
            KINDS[kind](other).indexer(mode=mode).index(docs)
    assert (other / "precious.txt").exists()


def test_overwriting_replaces_all(kind: str, index: LIRIndex) -> None:
    index.indexer(mode="overwrite").index(documents(kind, 3))
    assert len(open_index(str(index.path))) == 3


def test_appending_equals_building_at_once(kind: str, tmp_path: Path) -> None:
    whole = KINDS[kind](tmp_path / "whole").indexer(shard_docs=1_024).index(documents(kind, 2_048))
    part = KINDS[kind](tmp_path / "part").indexer(shard_docs=1_024).index(documents(kind, 1_024))
    part.indexer(mode="append", shard_docs=1_024).index(documents(kind, 1_024, start=1_024))
    assert files_of(tmp_path / "part") == files_of(tmp_path / "whole")
    assert len(part) == len(whole) == 2_048


BAD = {
    "a repeated docno": (lambda docs: docs[5].update(docno="d1"), ValueError, "docno 'd1' comes twice"),
    "a docno of an earlier shard": (lambda docs: docs[1_500].update(docno="d1"), ValueError, "docno 'd1' is in the index already"),
    "an empty docno": (lambda docs: docs[7].update(docno=""), ValueError, "Document 7 of the stream has no docno"),
    "a number as docno": (lambda docs: docs[7].update(docno=7), TypeError, "has docno 7; a docno is a string"),
    "a docno that is no Unicode": (lambda docs: docs[7].update(docno="d\ud800"), ValueError, r"Document 'd\\ud800' has docno="),
    "a field that is no Unicode": (lambda docs: docs[9].update(text="a\ud800"), ValueError, "Document 'd9' has text="),
    "a missing field": (lambda docs: docs[9].pop("text"), ValueError, "Document 'd9' has text=None"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_documents_are_named(case: str, kind: str, tmp_path: Path) -> None:
    spoil, error, message = BAD[case]
    docs = documents(kind, 1_600)
    spoil(docs)
    index = KINDS[kind](tmp_path / "x.lir")
    with pytest.raises(error, match=message):
        index.indexer(shard_docs=1_024, include_fields=["text"]).index(docs)
    assert not index.built()
    with pytest.raises(FileNotFoundError, match=r"is incomplete.*mode='resume'|is no index"):
        len(index)


@pytest.mark.parametrize("docs", ["text", {"docno": "d1"}, pd.Series(["d1"])], ids=["text", "dict", "Series"])
def test_what_is_no_stream_of_documents_is_refused(docs: Any, kind: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"an iterable of dictionaries or a data frame, not a {type(docs).__name__}"):
        KINDS[kind](tmp_path / "x.lir").indexer().index(docs)


def test_vectors_may_be_lists(kind: str, tmp_path: Path) -> None:
    docs, column = documents(kind, 20), VECTOR_COLUMNS[kind][1]
    expected = KINDS[kind](tmp_path / "x.lir").indexer().index(docs).folder
    lists = [{**doc, column: doc[column] if kind == "sparse" else doc[column].tolist()} for doc in docs]
    found = KINDS[kind](tmp_path / "y.lir").indexer().index(lists).folder
    assert files_of(found) == files_of(expected)


def test_a_first_document_without_vectors_is_named(kind: str, tmp_path: Path) -> None:
    docs = documents(kind, 3)
    docs[0][VECTOR_COLUMNS[kind][1]] = None
    with pytest.raises((ValueError, TypeError), match="'d0'"):
        KINDS[kind](tmp_path / "x.lir").indexer().index(docs)


def test_the_names_of_stored_fields_are_checked(kind: str, tmp_path: Path) -> None:
    made = KINDS[kind](tmp_path / "x.lir")
    docs = [{**doc, "a/b": "c"} for doc in documents(kind, 3)]
    with pytest.raises(ValueError, match="The field 'a/b' cannot be stored"):
        made.indexer(include_fields=["a/b"]).index(docs)
    assert made.indexer(include_fields="text").index(docs).meta["fields"] == ["text"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_named(value: float, kind: str, tmp_path: Path) -> None:
    docs = documents(kind, 20)
    column = VECTOR_COLUMNS[kind][1]
    docs[11][column] = {"w1": value} if kind == "sparse" else np.full_like(docs[11][column], value)
    with pytest.raises(ValueError, match="d11"):
        KINDS[kind](tmp_path / "x.lir").indexer().index(docs)


def test_a_failing_stream_keeps_whole_shards_and_resumes_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    docs = documents(kind, 2_500)

    def broken() -> Iterator[dict[str, Any]]:
        yield from docs[:1_700]
        raise ConnectionError("the line is cut")

    index = KINDS[kind](tmp_path / "x.lir")
    with pytest.raises(ConnectionError, match="the line is cut") as caught:
        index.indexer(shard_docs=1_024).index(broken())
    if hasattr(caught.value, "__notes__"):
        assert "1024 documents are safe" in caught.value.__notes__[0]
    with pytest.raises(FileExistsError, match="interrupted build"):
        index.indexer(shard_docs=1_024).index(docs)
    with pytest.raises(ValueError, match="not those of the interrupted build"):
        index.indexer(mode="resume", shard_docs=1_024).index(docs[1:])
    index.indexer(mode="resume", shard_docs=1_024).index(docs)
    KINDS[kind](tmp_path / "whole").indexer(shard_docs=1_024).index(docs)
    assert files_of(tmp_path / "x.lir") == files_of(tmp_path / "whole")


def test_a_full_disk_loses_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyterrier_lir.indexes import arrays

    written = 0
    append = arrays.ArrayWriter.append

    def fill(self: Any, rows: Any) -> None:
        nonlocal written
        written += 1
        if written == 30:
            raise OSError(28, "No space left on device")
        append(self, rows)

    index = KINDS[kind](tmp_path / "x.lir")
    monkeypatch.setattr(arrays.ArrayWriter, "append", fill)
    with pytest.raises(OSError, match="No space left"):
        index.indexer(shard_docs=1_024).index(documents(kind, 9_000))
    monkeypatch.undo()
    index.indexer(mode="resume", shard_docs=1_024).index(documents(kind, 9_000))
    assert len(index) == 9_000


KILLED = """
import sys, time
sys.path[:0] = {path!r}
from tests.test_indexes import KINDS, documents
def slowly():
    for doc in documents({kind!r}, 6_000):
        if int(doc["docno"][1:]) % 50 == 0:
            time.sleep(0.002)
        yield doc
print("ready", flush=True)
KINDS[{kind!r}]({folder!r}).indexer(mode="resume", shard_docs=1_024).index(slowly())
print("done", flush=True)
"""


def test_builds_killed_at_any_moment_resume_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    docs = documents(kind, 6_000)
    KINDS[kind](tmp_path / "whole").indexer(shard_docs=1_024).index(docs)
    program = KILLED.format(path=sys.path, kind=kind, folder=str(tmp_path / "x.lir"))
    chance = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        index = KINDS[kind](tmp_path / "x.lir")
        if index.built():
            break
        with pytest.raises(FileNotFoundError, match=r"is incomplete|is no index"):
            len(index)
    if not index.built():
        index.indexer(mode="resume", shard_docs=1_024).index(docs)
    assert files_of(tmp_path / "x.lir") == files_of(tmp_path / "whole")


# Changing


def test_deleted_documents_are_found_no_more_until_they_come_again(kind: str, index: LIRIndex) -> None:
    retrieve = index.retriever(num_results=3)
    best = retrieve(queries(kind))
    gone = best[best["rank"] == 0]["docno"].unique()
    assert index.delete(gone) == len(gone)
    assert index.delete(gone) == 0
    assert len(index) == 2_500 - len(gone)
    again = index.retriever(num_results=3)(queries(kind))
    assert not set(gone) & set(again["docno"])
    second = best[best["rank"] == 1].set_index("qid")["docno"]
    for qid, docno in again[again["rank"] == 0].set_index("qid")["docno"].items():
        assert docno == second[qid] or second[qid] in gone
    numbers = [int(docno[1:]) for docno in gone]
    index.indexer(mode="append", include_fields=["text", "year"]).index([documents(kind, 1, n)[0] for n in numbers])
    found = index.retriever(num_results=3)(queries(kind))
    assert found["docno"].tolist() == best["docno"].tolist()


def test_documents_take_the_place_of_those_with_their_docno(kind: str, index: LIRIndex) -> None:
    column = VECTOR_COLUMNS[kind][1]
    changed = [{**documents(kind, 1, 2_000 + i)[0], "docno": f"d{i}"} for i in range(5)]
    with pytest.raises(ValueError, match="replace=True"):
        index.indexer(mode="append", include_fields=["text", "year"]).index(changed)
    index.indexer(mode="overwrite", include_fields=["text", "year"], shard_docs=1_024).index(documents(kind, 2_500))
    index.indexer(mode="append", include_fields=["text", "year"], replace=True).index(changed)
    assert len(index) == 2_500
    stored = {doc["docno"]: doc for doc in index.get_corpus_iter()}
    for doc in changed:
        assert stored[doc["docno"]]["text"] == doc["text"]
        assert len(stored[doc["docno"]][column]) == len(doc[column])


def test_compacting_leaves_what_is_there(kind: str, index: LIRIndex) -> None:
    index.delete(f"d{i}" for i in range(0, 2_500, 3))
    before, count = index.retriever(num_results=20)(queries(kind)), len(index)
    index.compact()
    assert index.docids == len(index) == count
    after = index.retriever(num_results=20)(queries(kind))
    assert after["docno"].tolist() == before["docno"].tolist()
    np.testing.assert_allclose(after["score"], before["score"], rtol=1e-3)


def test_merged_parts_search_as_the_whole(kind: str, index: LIRIndex, tmp_path: Path) -> None:
    parts = []
    for i in range(3):
        part = KINDS[kind](tmp_path / f"part{i}").indexer(include_fields=["text", "year"])
        parts.append(part.index(documents(kind, 2_500)[i::3]))
    merged = KINDS[kind].merge(parts, tmp_path / "merged")
    assert len(merged) == 2_500
    found, expected = (one.retriever(num_results=30)(queries(kind)) for one in (merged, index))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=2e-3)
    with pytest.raises(ValueError, match=r"comes twice|is in the index already"):
        KINDS[kind].merge([parts[0], parts[0]], tmp_path / "twice")


def test_of_documents_with_one_docno_the_last_stays(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyterrier_lir.indexes.indexer._ROWS", 16)
    docs = documents(kind, 20)
    docs[15] = {**docs[15], "docno": "d3"}  # in one shard
    docs[18] = {**docs[18], "docno": "d1"}  # in another
    made = KINDS[kind](tmp_path / "x.lir")
    with pytest.raises(ValueError, match="docno 'd3' comes twice"):
        made.indexer(shard_docs=16).index(docs)
    made.indexer(mode="overwrite", replace=True, shard_docs=16).index(docs)
    assert len(made.shards) == 2
    assert len(made) == 18
    assert made.docids_of(["d3", "d1", "d0", "d15"]).tolist() == [15, 18, 0, -1]
    assert [doc["docno"] for doc in made.get_corpus_iter()].count("d3") == 1
    assert made.delete(["d3"]) == 1
    assert made.docids_of(["d3"]).tolist() == [-1]
    assert KINDS[kind].merge([made], tmp_path / "merged").docids == 17


def test_retrievers_see_what_changes_behind_them(kind: str, index: LIRIndex) -> None:
    topics, retrieve = queries(kind, 1), index.retriever(num_results=1, include_fields=["text"])
    first = retrieve(topics)["docno"][0]
    index.delete([first])
    second = retrieve(topics)["docno"][0]
    open_index(str(index.path)).delete([second])  # as another process would
    third = retrieve(topics)["docno"][0]
    assert len({first, second, third}) == 3
    best = {**documents(kind, 1, int(first[1:]))[0], "docno": "back", "text": "again"}
    settings: dict[str, Any] = {"mode": "append", "include_fields": ["text", "year"]}
    open_index(str(index.path)).indexer(**settings).index([best])
    assert retrieve(topics)[["docno", "text"]].to_numpy().tolist() == [["back", "again"]]
    assert len(index.scorer()(topics.assign(docno="back"))) == 1
    open_index(str(index.path)).indexer(**settings, replace=True).index([best])
    assert (len(index), index.delete(["back"])) == (2_499, 1)  # the one that came last
    assert retrieve(topics)["docno"][0] == third


def test_builds_killed_before_their_last_steps_are_whole(kind: str, tmp_path: Path) -> None:
    index = KINDS[kind](tmp_path / "x.lir").indexer(shard_docs=16).index(documents(kind, 40))
    expected = files_of(index.folder)
    building = tmp_path / "x.lir.building"
    index.folder.rename(building)  # killed between the two renames
    (building / "build.json").write_text('{"base": [], "copies": false, "shards": []}')
    assert len(KINDS[kind](tmp_path / "x.lir")) == 40
    (index.folder / ".replaced-by-build").mkdir()  # killed before what was replaced was removed
    assert files_of(index.compact().folder) == expected
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.lir"]


def test_what_lies_beside_an_index_is_never_removed(kind: str, index: LIRIndex, tmp_path: Path) -> None:
    backup = tmp_path / "x.lir.old"
    shutil.copytree(index.folder, backup)
    before = files_of(backup)
    index.delete(["d1"])
    index.compact()
    with pytest.raises(FileExistsError, match="already holds an index"):
        index.indexer().index(documents(kind, 3))
    index.indexer(mode="overwrite").index(documents(kind, 3))
    assert files_of(backup) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.lir", "x.lir.old"]


def test_an_index_killed_while_it_is_replaced_is_the_new_one(kind: str, index: LIRIndex, tmp_path: Path) -> None:
    new = KINDS[kind](tmp_path / "new.lir").indexer().index(documents(kind, 7)).folder
    new.rename(tmp_path / "x.lir.building")
    index.folder.rename(tmp_path / "x.lir.building" / ".replaced-by-build")  # killed between the two renames
    again = KINDS[kind](tmp_path / "x.lir")
    assert len(again) == 7
    again.delete(["d1"])
    assert not (again.folder / ".replaced-by-build").exists()


def broken_off(docs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from docs
    raise ConnectionError("the line is cut")


def test_an_append_that_goes_on_still_replaces(kind: str, index: LIRIndex) -> None:
    settings: dict[str, Any] = {"include_fields": ["text", "year"], "shard_docs": 1_024}
    changed = documents(kind, 2_048)
    with pytest.raises(ConnectionError):
        index.indexer(mode="append", replace=True, **settings).index(broken_off(changed[:1_500]))
    index.indexer(mode="resume", **settings).index(changed)
    assert len(index) == 2_500
    assert len({doc["docno"] for doc in index.get_corpus_iter()}) == 2_500


def test_an_interrupted_append_is_given_up_without_losing_what_was_there(kind: str, index: LIRIndex) -> None:
    settings: dict[str, Any] = {"include_fields": ["text", "year"], "shard_docs": 1_024}
    before = files_of(index.folder)
    more = documents(kind, 1_600, start=5_000)
    with pytest.raises(ConnectionError) as caught:
        index.indexer(mode="append", **settings).index(broken_off(more))
    if hasattr(caught.value, "__notes__"):
        assert "discard(), which keeps the 2500 documents" in caught.value.__notes__[0]
    with pytest.raises(FileExistsError, match=r"discard\(\), which keeps the 2500 .*'overwrite' drops them"):
        index.indexer(mode="append", **settings).index(more)
    with pytest.raises(ValueError, match=r"same stream, or give it up by the index's discard\(\)"):
        index.indexer(mode="resume", **settings).index(more[1:])
    (index.folder.with_name("x.lir.building") / "00003").rename(index.folder / "00003")  # killed at its end
    assert len(index.discard()) == 2_500
    assert files_of(index.folder) == before
    assert len(index.indexer(mode="append", **settings).index(more)) == 4_100


def test_bad_documents_are_counted_in_their_own_stream(kind: str, index: LIRIndex) -> None:
    more = documents(kind, 20, start=5_000)
    more[7]["docno"] = ""
    with pytest.raises(ValueError, match="Document 7 of the stream has no docno"):
        index.indexer(mode="append", include_fields=["text", "year"]).index(more)


def test_what_is_deleted_while_an_index_is_compacted_stays_deleted(
    kind: str, index: LIRIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.delete(["d3"])
    copied, done = KINDS[kind]._from, []

    def slowly(self: LIRIndex, source: LIRIndex, docids: Any) -> Any:
        if not done:
            done.append(KINDS[kind](index.folder).delete(["d9", "d2000"]))
        return copied(self, source, docids)

    monkeypatch.setattr(KINDS[kind], "_from", slowly)
    index.compact()
    assert (done, len(index), index.docids) == ([2], 2_497, 2_499)
    assert index.docids_of(["d3", "d9", "d2000", "d10"]).tolist() == [-1, -1, -1, 9]
    monkeypatch.undo()
    assert index.compact().docids == 2_497


def test_an_index_that_is_replaced_while_it_is_compacted_is_the_new_one(
    kind: str, index: LIRIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.delete(["d3"])
    alive = KINDS[kind]._alive

    def slowly(self: LIRIndex, count: int) -> Iterator[Any]:
        docids = list(alive(self, count))
        yield from docids
        monkeypatch.undo()
        new = KINDS[kind](index.folder.with_name("new")).indexer().index(documents(kind, 5))
        shutil.rmtree(index.folder)
        new.folder.rename(index.folder)

    monkeypatch.setattr(KINDS[kind], "_alive", slowly)
    with pytest.raises(OSError, match="was changed meanwhile"):
        index.compact()
    assert len(KINDS[kind](index.folder)) == 5
    assert not index.folder.with_name("x.lir.building").exists()


def test_interrupted_copies_are_begun_anew(kind: str, index: LIRIndex, tmp_path: Path) -> None:
    index.delete(["d1"])
    state = json.dumps({"header": {}, "base": [], "copies": True, "shards": []})
    for name in ("x.lir", "merged.lir"):
        (tmp_path / f"{name}.building").mkdir()
        (tmp_path / f"{name}.building" / "build.json").write_text(state)
    assert index.compact().docids == 2_499
    assert len(KINDS[kind].merge([index], tmp_path / "merged.lir")) == 2_499
    (tmp_path / "x.lir.building").mkdir()  # but not what was encoded
    (tmp_path / "x.lir.building" / "build.json").write_text(state.replace("true", "false"))
    index.delete(["d2"])
    with pytest.raises(FileExistsError, match="interrupted build"):
        index.compact()


def test_empty_parts_combine_with_others(kind: str, tmp_path: Path) -> None:
    empty, part = (KINDS[kind](tmp_path / name).indexer() for name in ("empty", "part"))
    empty, part = empty.index([]), part.index(documents(kind, 20))
    expected = part.retriever(num_results=5)(queries(kind))
    for parts in ([empty, part], [part, empty]):
        merged = KINDS[kind].merge(parts, tmp_path / "merged")
        for one in (merged, open_index(parts)):
            pd.testing.assert_frame_equal(one.retriever(num_results=5)(queries(kind)), expected)
        shutil.rmtree(tmp_path / "merged")
    part.indexer(mode="append").index([])
    pd.testing.assert_frame_equal(part.retriever(num_results=5)(queries(kind)), expected)
    empty.indexer(mode="append").index(documents(kind, 20))
    pd.testing.assert_frame_equal(empty.retriever(num_results=5)(queries(kind)), expected)
    assert files_of(empty.folder) == files_of(part.folder)


def test_parts_are_merged_by_the_class_of_all_indexes(kind: str, tmp_path: Path) -> None:
    parts = [KINDS[kind](tmp_path / str(i)).indexer().index(documents(kind, 10, 10 * i)).folder for i in range(2)]
    merged = LIRIndex.merge(parts, tmp_path / "both")
    assert (type(merged), len(merged)) == (KINDS[kind], 20)


def test_a_link_to_an_index_stays_a_link(kind: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real = KINDS[kind](tmp_path / "there" / "y.lir").indexer().index(documents(kind, 20)).folder
    (tmp_path / "x.lir").symlink_to(real)
    linked = KINDS[kind](tmp_path / "x.lir")
    with pytest.raises(ConnectionError):
        linked.indexer(mode="append", shard_docs=1_024).index(broken_off(documents(kind, 1_030, start=50)))
    assert [file.name for file in tmp_path.glob("*.building")] == []  # a link may lead to another file system
    assert len(linked.indexer(mode="resume", shard_docs=1_024).index(documents(kind, 1_030, start=50))) == 1_050
    linked.delete(["d1"])
    assert linked.compact().docids == 1_049
    assert linked.folder.is_symlink()
    assert len(KINDS[kind](real)) == 1_049
    assert sorted(file.name for file in tmp_path.iterdir()) == ["there", "x.lir"]


def test_resuming_a_complete_index_changes_nothing(kind: str, index: LIRIndex) -> None:
    before = files_of(index.folder)
    again = index.indexer(mode="resume", include_fields=["text", "year"])
    with pytest.warns(UserWarning, match="is complete: nothing was indexed"):
        assert len(again.index(documents(kind, 2_500))) == 2_500
    assert files_of(index.folder) == before
    with pytest.raises(ValueError, match="begun with other settings"):
        index.indexer(mode="resume").index(documents(kind, 2_500))


def test_only_settings_that_differ_are_told(kind: str, tmp_path: Path) -> None:
    made = KINDS[kind](tmp_path / "x.lir")
    made.indexer(model={"source": "a", "fingerprint": "1"}).index(documents(kind, 3))
    with pytest.raises(ValueError, match=r"settings \(model's fingerprint: '1' there, '2' now\)\."):
        made.indexer(mode="append", model={"source": "b", "fingerprint": "2"}).index(documents(kind, 3, 9))


def test_a_model_is_known_by_its_weights_wherever_it_lies(kind: str, tmp_path: Path) -> None:
    parts = [KINDS[kind](tmp_path / str(i)).indexer(model={"source": f"/{i}/model", "fingerprint": "1"})
             .index(documents(kind, 10, 10 * i)) for i in range(2)]  # fmt: skip
    assert len(KINDS[kind].merge(parts, tmp_path / "both")) == len(open_index(parts)) == 20
    more = parts[0].indexer(mode="append", model={"source": "/2/model", "fingerprint": "1"})
    assert len(more.index(documents(kind, 5, 50))) == 15
    with pytest.raises(ValueError, match="begun with other settings"):
        parts[0].indexer(mode="append", model={"source": "/0/model", "fingerprint": "2"}).index(documents(kind, 5, 70))


def test_long_texts_end_a_part_of_the_index(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyterrier_lir.indexes.building.SHARD_BYTES", 1_000_000)
    monkeypatch.setattr("pyterrier_lir.indexes.indexer._ROWS", 16)
    docs = ({**doc, "text": "x" * 50_000} for doc in documents(kind, 64))
    assert len(KINDS[kind](tmp_path / "x.lir").indexer(include_fields=["text"]).index(docs).shards) == 2


def test_indexes_go_to_the_hub_and_come_back(
    kind: str, index: LIRIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    for name in ("create_repo", "create_branch"):
        monkeypatch.setattr(huggingface_hub, name, lambda *_, **__: None)

    def upload(repo_id: str, folder_path: str, **_: Any) -> str:
        shutil.copytree(folder_path, tmp_path / "hub")
        return repo_id

    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    monkeypatch.setenv("PYTERRIER_HOME", str(tmp_path / "home"))
    index.to_hf("me/x")
    assert (tmp_path / "hub" / "README.md").is_file()
    download = pt.io.open_or_download_stream

    def from_hub(url: str, **options: Any) -> Any:
        assert url.startswith("https://huggingface.co/datasets/me/x/resolve/main/")
        return download(str(tmp_path / "hub" / url.rpartition("/")[2]), **(options | {"headers": None}))

    monkeypatch.setattr(pt.io, "open_or_download_stream", from_hub)
    copy = KINDS[kind].from_hf("me/x")
    assert type(copy) is KINDS[kind]
    found, expected = (one.retriever(num_results=5)(queries(kind)) for one in (copy, index))
    pd.testing.assert_frame_equal(found, expected)
    assert Path(str(copy.path)) != index.folder


# Searching


def engines() -> list[Any]:
    return [pytest.param(kind, name, id=f"{kind}-{name}") for kind, name in ENGINES if kind in KINDS]


def open_or_skip(kind: str, name: str) -> None:
    needs = ENGINES[kind, name].needs
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LIRIndex]:
    return {kind: KINDS[kind](tmp_path_factory.mktemp(kind) / "x.lir").indexer(shard_docs=1_024, include_fields=["text", "year"])
            .index(documents(kind, 3_000)) for kind in KINDS}  # fmt: skip


def all_scores(index: LIRIndex, topics: pd.DataFrame) -> pd.DataFrame:
    """Every query with every document, scored from the stored vectors."""
    pairs = topics.merge(pd.DataFrame({"docno": index.docnos_of(np.arange(index.docids))}), how="cross")
    return index.scorer()(pairs)


@pytest.mark.parametrize(("kind", "name"), [one for one in engines() if one.values[1] not in ("exact", "flat")])
def test_an_engine_that_is_made_while_the_index_changes_is_not_kept(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_or_skip(kind, name)
    path = tmp_path / "x.lir"
    index = KINDS[kind](path).indexer().index(documents(kind, 1_500))
    index.delete(["d0", "d1", "d2"])
    read, done = KINDS[kind].vectors_of if kind != "dense" else KINDS[kind].blocks, []

    def slowly(self: LIRIndex, *args: Any) -> Any:
        result = list(read(self, *args)) if kind == "dense" else read(self, *args)
        if not done:
            done.append(True)
            KINDS[kind](path).compact()
        return result

    opened = KINDS[kind](path)
    assert len(opened) == 1_497
    monkeypatch.setattr(KINDS[kind], "blocks" if kind == "dense" else "vectors_of", slowly)
    with pytest.warns(UserWarning, match="it is made anew"):
        open_engine(opened, name, {})
    monkeypatch.undo()
    assert not [file.name for file in (path / "engines").glob("*")]


@pytest.mark.parametrize(("kind", "name"), engines())
def test_engines_find_the_best(kind: str, name: str, built: dict[str, LIRIndex]) -> None:
    open_or_skip(kind, name)
    index, topics = built[kind], queries(kind, 12)
    settings = {"n_ivf_probe": 64} if name == "fast-plaid" else {}  # for queries of few vectors
    found = index.retriever(name, num_results=20, **settings)(topics)
    everything = all_scores(index, topics).sort_values(["qid", "rank"])
    everything = everything[(everything["score"] > 0) | (kind != "sparse")]
    expected = everything[everything["rank"] < 20]
    scores = everything.set_index(["qid", "docno"])["score"]
    own = [scores[row.qid, row.docno] for row in found.itertuples()]
    np.testing.assert_allclose(found["score"], own, rtol=1e-4, atol=1e-4)
    for _, group in found.groupby("qid"):
        assert group["rank"].tolist() == list(range(len(group)))
        assert (np.diff(group["score"]) <= 0).all()
    hits = len(found.merge(expected, on=["qid", "docno"])) / len(expected)
    assert hits >= (0.999 if ENGINES[kind, name].exact else 0.8), hits


@pytest.mark.parametrize(("kind", "name"), engines())
def test_engines_keep_to_the_candidates(kind: str, name: str, built: dict[str, LIRIndex]) -> None:
    open_or_skip(kind, name)
    index, topics = built[kind], queries(kind)
    allowed = [f"d{i}" for i in range(0, 3_000, 7)]
    restricted = index.retriever(name, num_results=10, docnos=[*allowed, "unknown"])(topics)
    assert set(restricted["docno"]) <= set(allowed)
    assert restricted.groupby("qid").size().tolist() == [10] * 4
    recent = index.retriever(name, num_results=10, where=lambda docs: docs["year"] == "2001", include_fields=["year"])
    assert set(recent(topics)["year"]) == {"2001"}


@pytest.mark.parametrize(("kind", "name"), engines())
def test_engines_give_no_more_than_there_are(kind: str, name: str, tmp_path: Path) -> None:
    open_or_skip(kind, name)
    small = KINDS[kind](tmp_path / "small").indexer().index(documents(kind, 9))
    found = small.retriever(name, num_results=50)(queries(kind))
    assert found.groupby("qid").size().max() <= 9
    if kind != "sparse" and ENGINES[kind, name].exact:
        assert found.groupby("qid").size().tolist() == [9] * 4


@pytest.mark.parametrize(("kind", "name"), engines())
def test_equal_scores_are_in_the_order_of_docids(kind: str, name: str, tmp_path: Path) -> None:
    open_or_skip(kind, name)
    if not ENGINES[kind, name].exact:
        pytest.skip("an approximate engine may miss some of many equal ones")
    column, one = VECTOR_COLUMNS[kind][1], vector_of(kind, 10_000)
    docs = [{"docno": f"d{i}", column: one} for i in range(40)]
    found = (
        KINDS[kind](tmp_path / "equal")
        .indexer(shard_docs=16)
        .index(docs)
        .retriever(name, num_results=15)(queries(kind, 1))
    )
    assert found["docno"].tolist() == [f"d{i}" for i in range(15)]


@pytest.mark.parametrize(("kind", "name"), engines())
def test_another_process_finds_the_same(kind: str, name: str, built: dict[str, LIRIndex]) -> None:
    open_or_skip(kind, name)
    index = built[kind]
    expected = index.retriever(name, num_results=5)(queries(kind))["docno"].tolist()
    folder = Path(str(index.path))
    made = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\nfrom tests.test_indexes import KINDS, queries\n"
        f"found = KINDS[{kind!r}]({str(folder)!r}).retriever({name!r}, num_results=5)(queries({kind!r}))\n"
        "print(found['docno'].tolist())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert eval(out.splitlines()[-1]) == expected
    assert made == {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}  # made once


@pytest.mark.parametrize(("kind", "name"), engines())
def test_folders_that_cannot_be_written_are_searched(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_or_skip(kind, name)
    index = KINDS[kind](tmp_path / "x").indexer().index(documents(kind, 1_200))
    (tmp_path / "x" / "engines").write_text("a file where the folder of engines would be")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(index.retriever(name, num_results=5)(queries(kind)))
    elsewhere = KINDS[kind](tmp_path / "y").indexer().index(documents(kind, 1_200))
    elsewhere.retriever(name, num_results=5)(queries(kind))
    written = (tmp_path / "y" / "engines").is_dir()
    assert any("cannot be written" in str(one.message) for one in told) == written


def test_retrievers_keep_query_columns_and_add_fields(kind: str, built: dict[str, LIRIndex]) -> None:
    topics = queries(kind).assign(user=list("abcd"))
    found = built[kind].retriever(num_results=3, include_fields=["text"])(topics)
    pd.testing.assert_frame_equal(found, built[kind].retriever(num_results=3, include_fields="text")(topics))
    assert list(found.columns) == [*topics.columns, "docno", "score", "rank", "text"]
    assert found["user"].tolist() == [user for user in "abcd" for _ in range(3)]
    for docno, text in zip(found["docno"], found["text"], strict=True):
        assert text == f"text of {docno[1:]}"


def test_no_queries_give_no_results_with_the_columns(kind: str, built: dict[str, LIRIndex]) -> None:
    topics = queries(kind)
    assert built[kind].retriever()([]) == built[kind].scorer()([]) == []
    found = built[kind].retriever()(topics.head(0))
    assert list(found.columns) == [*topics.columns, "docno", "score", "rank"]
    assert len(found) == 0


def test_a_cutoff_is_searched_for(kind: str, built: dict[str, LIRIndex]) -> None:
    retrieve = built[kind].retriever(num_results=100)
    cut = (retrieve % 7).compile()
    assert cut == built[kind].retriever(num_results=7)
    pd.testing.assert_frame_equal(
        cut(queries(kind)), (retrieve(queries(kind)).query("rank < 7").reset_index(drop=True))
    )


def test_results_are_scored_from_stored_vectors(kind: str, built: dict[str, LIRIndex]) -> None:
    index = built[kind]
    found = index.retriever(num_results=10)(queries(kind))
    first_stage = found.sample(frac=1, random_state=1).drop(columns="score")
    for scorer in (index.scorer(), index.retriever(num_results=2)):  # a retriever scores what is there
        scored = scorer(first_stage).loc[found.index]
        np.testing.assert_allclose(scored["score"], found["score"], rtol=1e-4, atol=1e-5)
        assert scored["rank"].tolist() == found["rank"].tolist()
    with pytest.raises(ValueError, match=r"does not hold.*docno='nobody'"):
        index.scorer()(first_stage.assign(docno="nobody"))


@pytest.mark.parametrize(("kind", "name"), engines())
def test_restricted_searches_find_as_many_as_there_are(kind: str, name: str, built: dict[str, LIRIndex]) -> None:
    open_or_skip(kind, name)
    allowed = [f"d{i}" for i in range(0, 3_000, 8)]  # more than are compared one by one
    for restriction, k, most in (({"docnos": allowed}, 90, 375), ({}, 2_000, 3_000)):
        found = built[kind].retriever(name, num_results=k, **restriction)(queries(kind))
        expected = (
            built[kind].retriever(num_results=most, **restriction)(queries(kind)).groupby("qid").size().clip(upper=k)
        )
        assert found.groupby("qid").size().to_dict() == expected.to_dict()


def test_fields_come_with_results_and_with_scores(kind: str, built: dict[str, LIRIndex]) -> None:
    index = built[kind]
    found = index.retriever(num_results=4, include_fields=["text"])(queries(kind))
    first_stage = found.drop(columns=["score", "rank", "text"])
    for scorer in (index.scorer(include_fields=["text"]), index.retriever(include_fields=["text"])):
        assert scorer(first_stage)["text"].tolist() == found["text"].tolist()
        assert "text" in scorer(first_stage.head(0)).columns
    loaded = pt.text.get_text(index, ["text"])(first_stage)
    assert loaded["text"].tolist() == found["text"].tolist()
    assert {"text", "year"} <= set(pt.text.get_text(index)(first_stage).columns)
    with pytest.raises(ValueError, match=r"does not hold, first qid='q0', docno='nobody'"):
        index.text_loader()(first_stage.assign(docno="nobody"))


def test_stored_vectors_come_with_documents_and_results(kind: str, built: dict[str, LIRIndex]) -> None:
    index, column = built[kind], VECTOR_COLUMNS[kind][1]
    rows = pd.DataFrame({"docno": ["d7", "d2900", "d7"], "year": [1, 2, 3]}, index=[5, 5, 9])
    loaded = index.vec_loader()(rows)
    pd.testing.assert_frame_equal(loaded[["docno", "year"]], rows)
    assert list(loaded.columns) == ["docno", "year", column]
    stored = {doc["docno"]: doc[column] for doc in index.get_corpus_iter() if doc["docno"] in ("d7", "d2900")}
    for docno, vector in zip(loaded["docno"], loaded[column], strict=True):
        np.testing.assert_equal(vector, stored[docno])
    assert loaded[column].iloc[0] is loaded[column].iloc[2]
    assert list(index.vec_loader()(rows.head(0)).columns) == list(loaded.columns)
    found = index.retriever(num_results=9)(queries(kind))
    cut = (index.vec_loader() % 2)(found)
    pd.testing.assert_frame_equal(cut, index.vec_loader()(found.query("rank < 2")).reset_index(drop=True))
    assert (index.vec_loader() % 2).compile() == pt.RankCutoff(2) >> index.vec_loader()
    with pytest.raises(ValueError, match=r"1 of 3 rows have a docno that .* does not hold, first docno='nobody'"):
        index.vec_loader()(rows.assign(docno=["d7", "nobody", "d8"]))
    with pytest.raises(pt.validate.InputValidationError, match="docno"):
        index.vec_loader()(rows[["year"]])


def test_engines_and_options_are_checked(kind: str, built: dict[str, LIRIndex]) -> None:
    with pytest.raises(ValueError, match=r"No engine 'exakt'.*Did you mean 'exact'\?"):
        built[kind].retriever("exakt")(queries(kind))
    with pytest.raises(ValueError, match="has no option depth"):
        built[kind].retriever("exact", depth=3)(queries(kind))
    if kind == "dense":
        with pytest.raises(
            ValueError, match=r"The engine 'hnsw' has no option nlist; it has: M, efConstruction, efSearch\."
        ):
            built[kind].retriever("hnsw", nlist=3)(queries(kind))
        with pytest.raises(ValueError, match="device='cuda:9' is not there"):
            built[kind].retriever(device="cuda:9")(queries(kind))
    with pytest.raises(ValueError, match=r"does not store 'yaer'; it stores: 'text', 'year'"):
        built[kind].retriever(where=lambda docs: docs["yaer"] > "2000")(queries(kind))
    with pytest.raises(ValueError, match="num_results=0"):
        built[kind].retriever(num_results=0)
    assert "exact" in engines_of(kind)


def test_indexes_of_another_kind_are_refused(built: dict[str, LIRIndex]) -> None:
    for kind, index in built.items():
        for other in set(KINDS) - {kind}:
            with pytest.raises(ValueError, match=f"opens a {KINDS[other].ARTIFACT_TYPE}"):
                len(KINDS[other](str(index.path)))


def test_queries_of_another_size_are_refused(built: dict[str, LIRIndex]) -> None:
    for kind in set(KINDS) - {"sparse"}:
        column = VECTOR_COLUMNS[kind][0]
        shape = (5,) if kind == "dense" else (2, 5)
        topics = queries(kind, 1).assign(**{column: pd.Series([np.ones(shape, np.float32)], dtype=object)})
        for run in (built[kind].retriever(),):
            with pytest.raises(ValueError, match=r"5 numbers|have 5"):
                run(topics)


def test_columns_of_arrow_give_each_query_its_own_results(built: dict[str, LIRIndex], tmp_path: Path) -> None:
    asked = queries("dense")
    lists = asked.assign(query_vec=[vector.tolist() for vector in asked["query_vec"]])
    lists.to_parquet(tmp_path / "q.parquet")
    arrow = pd.read_parquet(tmp_path / "q.parquet", dtype_backend="pyarrow")
    retriever = built["dense"].retriever(num_results=3)
    assert retriever(arrow)["docno"].tolist() == retriever(asked)["docno"].tolist()


def test_a_compiled_cutoff_cuts_results_that_are_scored(kind: str, built: dict[str, LIRIndex]) -> None:
    index = built[kind]
    results = index.retriever(num_results=9)(queries(kind)).drop(columns=["score", "rank"])
    cut = index.retriever() % 2
    assert set(cut.compile()(results)["docno"]) == set(cut(results)["docno"])
    assert len(cut.compile()(results)) == 2 * results["qid"].nunique()
    assert len(index.retriever(num_results=2)(results)) == len(results)


def test_documents_that_an_index_does_not_hold_are_dropped_on_request(kind: str, built: dict[str, LIRIndex]) -> None:
    index = built[kind]
    results = index.retriever(num_results=5)(queries(kind)).drop(columns=["score", "rank"])
    more = pd.concat([results.head(2).assign(docno="nobody"), results], ignore_index=True)
    for scorer in (index.scorer, index.retriever):
        with pytest.raises(ValueError, match=r"2 of .* does not hold.*missing='drop'"):
            scorer()(more)
        dropped = scorer(missing="drop")(more).reset_index(drop=True)
        pd.testing.assert_frame_equal(dropped, scorer()(results), check_like=True)
        assert scorer(missing="drop")(more.head(2)).empty
        with pytest.raises(ValueError, match="missing='keep'; allowed: error, drop"):
            scorer(missing="keep")
    with pytest.raises(ValueError, match=r"2 of \d+ rows have no qid"):
        index.scorer()(results.assign(qid=[None, None, *results["qid"][2:]]))


def test_names_are_several_strings(kind: str, built: dict[str, LIRIndex]) -> None:
    index = built[kind]
    for call in (index.delete, index.docids_of, lambda names: index.retriever(docnos=names)):
        with pytest.raises(TypeError, match=r"docnos='12'; allowed: several strings, such as \['12'\]"):
            call("12")
        with pytest.raises(TypeError, match="docnos has 4, int; allowed: strings"):
            call([4, 5])
        with pytest.raises(TypeError, match="docnos has 0, int; allowed: strings"):
            call(["d1", 0])
    with pytest.raises(TypeError, match="include_fields has 4, int; allowed: strings"):
        index.retriever(include_fields=[4])
    with pytest.raises(ValueError, match="results have other values in these columns"):
        index.retriever(include_fields=["score"])(queries(kind))


def test_fields_stay_with_their_documents_where_rows_are_sorted(
    kind: str, built: dict[str, LIRIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built[kind]
    results = index.retriever(num_results=9)(queries(kind)).sample(frac=1, random_state=1)
    monkeypatch.setattr(pt.model, "STRICT_SORT", True)
    scored = index.scorer(include_fields=["year"])(results)
    assert scored["year"].tolist() == index.field_of("year", index.docids_of(scored["docno"])).tolist()


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (lambda docs: None, "gave NoneType"),
        (lambda docs: docs[docs["year"] > "2000"], "gave DataFrame"),
        (lambda docs: [True], "gave list"),
        (lambda docs: docs["year"], "a truth value for each"),
    ],
)
def test_predicates_give_a_truth_value_for_each_document(where: Any, told: str, built: dict[str, LIRIndex]) -> None:
    with pytest.raises(ValueError, match=told):
        built["dense"].retriever(where=where)(queries("dense"))


def test_missing_truth_values_are_no(built: dict[str, LIRIndex]) -> None:
    def where(docs: pd.DataFrame) -> Any:
        assert docs.index.is_unique
        return pd.Series([True, None] + [False] * (len(docs) - 2), index=docs.index, dtype=object)

    index = built["dense"]
    assert set(index.retriever(where=where)(queries("dense"))["docno"]) == {index.docnos_of(np.array([0]))[0]}


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "3"])
def test_numbers_of_results_are_positive(number: Any, built: dict[str, LIRIndex]) -> None:
    with pytest.raises(ValueError, match="allowed: a positive number"):
        built["dense"].retriever(num_results=number)
    with pytest.raises(ValueError, match="allowed: a positive number"):
        LIRRetriever("a-model", "x.lir", num_results=number)
    assert built["dense"].retriever(num_results=np.int64(3)).num_results == 3
    assert (built["dense"].retriever() % 0).compile()(queries("dense")).empty


def test_more_results_than_documents_take_no_more_memory(kind: str, built: dict[str, LIRIndex]) -> None:
    index = built[kind]
    docids, scores = index.retriever(num_results=10**9).nearest(index._queries(queries(kind)))
    assert docids.shape == scores.shape == (len(queries(kind)), index.docids)


def test_long_vectors_near_each_other_are_searched_exactly_by_l2(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((1_000, 64)) + 1_000).astype(np.float32)
    config = BiEncoderConfig(similarity_function="l2")
    docs = [{"docno": f"{i:04}", "doc_vec": vector} for i, vector in enumerate(vectors)]
    index = LIRDenseIndex(tmp_path / "x.lir").indexer(config=config).index(docs)
    asked = (rng.standard_normal((4, 64)) + 1_000).astype(np.float32)
    distances = ((asked[:, None].astype(np.float64) - vectors) ** 2).sum(-1)
    for k, rounded in ((200, None), (10, False), (10, True)):
        found = index.retriever(num_results=k, rounded=rounded).nearest(asked)[0]
        for own, expected in zip(found, distances.argsort(1)[:, :k], strict=True):
            assert len({*own.tolist()} & {*expected.tolist()}) >= 0.99 * k


@pytest.mark.parametrize("kind", ["dense", "multi_vector"])
def test_numbers_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    column, vector = {"dense": ("doc_vec", [1e5, 1.0]), "multi_vector": ("doc_embs", [[1e5, 1.0]])}[kind]
    with pytest.raises(ValueError, match="100000 does not fit into float16"):
        KINDS[kind](tmp_path / "x.lir").indexer(dtype="float16").index(
            [{"docno": "a", column: np.array(vector, dtype=np.float32)}]
        )
