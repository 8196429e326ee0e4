"""Which docstrings make up the documentation collection, and how they are read."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_lir.data.documentation import STDLIB, DocumentationDataset, make_entry

_NUMBER = itertools.count()


def rest(number: int) -> str:
    """Twenty-five words that no other rest has."""
    return " ".join(f"Word{number}n{i}" for i in range(25))


SOURCE = f'''
"""Measures the depth of rivers in northern mountains.

{rest(0)}
"""

def flow(x):
    """Compute how much water passes a bridge. {rest(1)}"""

def _private(x):
    """Compute how much sand passes a tunnel. {rest(2)}"""

class Sea:
    """Hold all of the water that rivers carry.

    {rest(3)} Hold all of the water that rivers carry.
    """

    def tide(self):
        """Return what the moon does at noon.

        Deprecated: {rest(4)}
        """

    def wave(self):
        """Return how high it is today in metres.

        {rest(5)}
        """

def first():
    """Tell apart what is the same everywhere. {rest(6)}"""

def second():
    """Tell apart what is the same everywhere. {rest(7)}"""

def third():
    """Say something else about this very flow. {rest(1)}"""

raise RuntimeError("imported")
'''


@pytest.fixture(scope="module")
def dataset() -> DocumentationDataset:
    return DocumentationDataset([STDLIB])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DocumentationDataset:
    """A package that raises when it is imported; under a new name each time, as entries are kept by name."""
    name = f"rivers{next(_NUMBER)}"
    (tmp_path / name / "tests").mkdir(parents=True)
    (tmp_path / name / "__init__.py").write_text(SOURCE)
    (tmp_path / name / "broken.py").write_text("def (:")
    (tmp_path / name / "tests" / "test_it.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return DocumentationDataset([name])


def test_of_a_package_exactly_the_public_unambiguous_sentences_are_kept(package: DocumentationDataset) -> None:
    (name,) = package.modules
    assert [(entry.docno, entry.query, entry.text) for entry in package.entries] == [
        (name, "Measures the depth of rivers in northern mountains", f"{name}\n{rest(0)}"),
        (f"{name}.flow", "Compute how much water passes a bridge", f"{name}.flow\n{rest(1)}"),
        (f"{name}.Sea", "Hold all of the water that rivers carry", f"{name}.Sea\n{rest(3)}"),
        (f"{name}.Sea.wave", "Return how high it is today in metres", f"{name}.Sea.wave\n{rest(5)}"),
    ]


def test_another_process_with_another_hash_seed_reads_the_same_without_torch_or_pyterrier(
    dataset: DocumentationDataset,
) -> None:
    program = (
        "import sys, zlib; from pyterrier_lir.data.documentation import DocumentationDataset as D; d = D(['stdlib'])\n"
        "print(zlib.crc32(repr((d.entries, d.get_topics('dev').values.tolist())).encode()))\n"
        "print([name for name in ('torch', 'pyterrier') if name in sys.modules])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": path()},
                       capture_output=True, text=True, check=True).stdout.split("\n")
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1]
    assert runs[0][1] == "[]"


def path() -> str:
    return str(Path(__file__).parents[1])


def test_get_text_adds_the_fields_in_the_rows_order_and_keeps_the_index(dataset: DocumentationDataset) -> None:
    results = pd.DataFrame({"qid": ["1", "1"], "docno": ["shutil.copytree", "textwrap.dedent"]}, index=[5, 5])
    loaded = pt.text.get_text(dataset)(results)
    texts = {doc["docno"]: doc["text"] for doc in dataset.get_corpus_iter()}
    expected = results.assign(title=results["docno"], text=[texts[docno] for docno in results["docno"]])
    pd.testing.assert_frame_equal(loaded, expected)
    assert list(pt.text.get_text(dataset, "text")(results).columns) == ["qid", "docno", "text"]
    assert list(pt.text.get_text(dataset)(results.iloc[:0]).columns) == ["qid", "docno", "title", "text"]


def test_versions_name_what_is_installed_and_only_that() -> None:
    versions = DocumentationDataset([STDLIB, "pandas", "no_such_module"]).versions
    assert versions == {STDLIB: ".".join(map(str, sys.version_info[:3])), "pandas": pd.__version__}


@pytest.mark.parametrize(
    "docstring",
    [
        f"Author: Some Body License: BSD-3 of Rivers.\n\n{rest(0)}",
        f"Created on Mon Mar 18 by Some Body.\n\n{rest(0)}",
        f".. warning:: This flag is subject to change.\n\n{rest(0)}",
        f">>> import rivers >>> rivers.depth(of=water)\n\n{rest(0)}",
    ],
)
def test_a_first_paragraph_that_is_no_sentence_takes_no_part(docstring: str) -> None:
    assert make_entry("hydro.graph", docstring) is None


def test_queries_lose_sphinx_roles() -> None:
    docstring = f"Walk like :func:`~os.walk` and :class:`the reader <csv.reader>` do here. {rest(0)}"
    entry = make_entry("hydro.graph", docstring)
    assert entry is not None
    assert entry.query == "Walk like os.walk and the reader do here"


def test_a_module_of_one_file_is_read_alone_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lonely.py").write_text(f'"""Measures the depth of rivers in mountains. {rest(0)}"""')
    (tmp_path / "neighbour.py").write_text(f'"""Counts every fish of the northern sea. {rest(1)}"""')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [entry.docno for entry in DocumentationDataset(["lonely"]).entries] == ["lonely"]


def test_modules_that_cannot_be_read_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(TypeError, match=r"'stdlib'.*\['stdlib'\]"):
        DocumentationDataset("stdlib")
    with pytest.raises(ValueError, match="none of these is installed"):
        DocumentationDataset(["sys", "no_such_module"])
    with pytest.raises(ValueError, match="allowed: top-level names, such as 'os'"):
        DocumentationDataset(["os.path"])


def test_the_text_of_a_document_of_another_collection_is_refused(dataset: DocumentationDataset) -> None:
    with pytest.raises(ValueError, match="docno='elsewhere' is not in this collection"):
        dataset.text_loader()(pd.DataFrame({"qid": ["1"], "docno": ["elsewhere"]}))
