"""Known-item search in the documentation of installed Python modules: real text that is on every machine.

Docstrings are read from source files, nothing is imported.  The query is the first sentence of a docstring, the
document is the rest under its qualified name, and that document is the only relevant one.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.util
import platform
import re
import sys
import sysconfig
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from tqdm.auto import tqdm

if TYPE_CHECKING:
    import pyterrier as pt

STDLIB = "stdlib"
# The standard library and what this package's own dependencies bring along.  transformers and sympy are left out:
# together they are larger than all others, and thousands of their docstrings follow one pattern.
MODULES = (
    STDLIB, "numpy", "pandas", "scipy", "statsmodels", "networkx", "torch", "lightning", "faiss", "pyterrier",
    "ir_datasets", "ir_measures", "huggingface_hub", "fsspec", "jinja2", "more_itertools", "requests", "bs4", "tqdm",
)  # fmt: skip
_SKIPPED = re.compile(
    r"^(_.*(?<!__init__)|tests?|testing|conftest|site-packages|dist-packages|idlelib|lib2to3|turtledemo|externals|f2py)$"
)
_SENTENCE_END = re.compile(r"(?<=[^.A-Z\s][.!?])\s+(?=[^a-z])")
_WORD = re.compile(r"[A-Za-z][A-Za-z]+")
MIN_QUERY_WORDS, MAX_QUERY_WORDS, MIN_DOC_WORDS = 4, 40, 20
_BOILERPLATE = re.compile(r"deprecated|alias (of|for)|^see (also )?:|^base class for|^test ", re.IGNORECASE)
# A first paragraph that is no sentence about the thing: who wrote it, a doctest, a directive, the heading of a section.
_NO_SENTENCE = re.compile(
    r"^(author|created|license|copyright|note|args)\w*\b.{0,2}:|^created on|>>>|\.\. \w|-----|^\*overload",
    re.IGNORECASE,
)
_ROLE = re.compile(r":\w+(?::\w+)?:`[~!]?([^`<]+?)(?: <[^`>]*>)?`")

Variant = Literal["train", "dev", "test"]
_SHARES: dict[str, range] = {"train": range(8), "dev": range(8, 9), "test": range(9, 10)}


@dataclass(frozen=True)
class Entry:
    """One docstring: the first sentence asks for the rest."""

    docno: str
    query: str
    text: str


class DocumentationDataset:
    """A test collection of docstrings, with the methods of a PyTerrier dataset.

    A docstring takes part if its name has no private part, its first sentence has 4 to 40 words of which at least three
    are not in its name, the rest has at least 20 words, and it is not marked deprecated or an alias.  A first paragraph
    that is no sentence (an author's line, a doctest, a directive, a section) asks for nothing and is dropped with its
    document.  First sentences whose words occur more than once are dropped altogether, since no single document
    answers them; of equal rests the first name stays; where the rest repeats the first sentence, in whatever case, it
    is removed there.  Queries lose Sphinx's roles: ``:func:`~os.walk` `` asks for `os.walk`.  Topics are split into
    train, dev and test (80, 10, 10 %) by a checksum of the name.  What is found depends on the installed versions: see
    `versions`.

    Args:
        modules: names of importable top-level modules, or `"stdlib"`; those that are not installed are skipped.

    Raises:
        TypeError: for a string in place of a list.
        ValueError: if none of the modules is installed with its sources, or for a dotted name.

    >>> dataset = DocumentationDataset(["stdlib"])
    >>> next(doc["text"] for doc in dataset.get_corpus_iter() if doc["docno"] == "textwrap.dedent")[:44]
    'textwrap.dedent\\nThis can be used to make tri'
    """

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        if isinstance(modules, str):
            raise TypeError(f"modules={modules!r}; allowed: a list of names, such as [{modules!r}].")
        if dotted := [name for name in modules if "." in name]:  # to find one would import its parent
            raise ValueError(f"modules={dotted}; allowed: top-level names, such as {dotted[0].split('.')[0]!r}.")
        self.modules = tuple(modules)
        if not any(_sources(name) for name in self.modules):
            raise ValueError(f"modules={list(self.modules)}; none of these is installed with Python sources.")

    def __repr__(self) -> str:
        return "DocumentationDataset()" if self.modules == MODULES else f"DocumentationDataset({list(self.modules)})"

    @property
    def versions(self) -> dict[str, str]:
        """Installed module -> its version; Python's own for the standard library."""
        distributions = metadata.packages_distributions()
        found = {name: distributions.get(name, [name])[0] for name in self.modules if _sources(name)}
        own = {STDLIB, *sys.stdlib_module_names}
        return {n: platform.python_version() if n in own else metadata.version(d) for n, d in found.items()}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries in the order of modules, files and lines; read once in a process."""
        return _entries(self.modules)

    def get_corpus_iter(self, verbose: bool = False) -> Iterator[dict[str, str]]:
        """Documents as dictionaries of `docno`, `title` (the qualified name) and `text` (title and rest)."""
        for entry in tqdm(self.entries, disable=not verbose, desc="documentation", unit="doc"):
            yield {"docno": entry.docno, "title": entry.docno, "text": entry.text}

    def get_topics(self, variant: Variant = "test") -> pd.DataFrame:
        """Queries of a split: `qid`, `query`.

        Raises:
            ValueError: for an unknown split.
        """
        rows = [(f"q-{entry.docno}", entry.query) for entry in self._split(variant)]
        return pd.DataFrame(rows, columns=["qid", "query"])

    def get_qrels(self, variant: Variant = "test") -> pd.DataFrame:
        """Judgements of a split: `qid`, `docno`, `label`, one relevant document each.

        Raises:
            ValueError: for an unknown split.
        """
        rows = [(f"q-{entry.docno}", entry.docno, 1) for entry in self._split(variant)]
        return pd.DataFrame(rows, columns=["qid", "docno", "label"])

    def text_loader(self, fields: list[str] | str = "*", *, verbose: bool = False) -> pt.Transformer:
        """A transformer that adds `title` and `text` to results; what `pt.text.get_text(dataset)` asks for.

        Raises:
            ValueError: for an unknown field.
        """
        import pyterrier as pt

        wanted = ["title", "text"] if fields == "*" else [fields] if isinstance(fields, str) else list(fields)
        if unknown := set(wanted) - {"title", "text"}:
            raise ValueError(f"No field {', '.join(sorted(unknown))}; there are title and text.")
        texts = {entry.docno: {"title": entry.docno, "text": entry.text} for entry in self.entries}

        def load(results: pd.DataFrame) -> pd.DataFrame:
            if missing := [docno for docno in results["docno"] if docno not in texts]:
                raise ValueError(f"docno={missing[0]!r} is not in this collection; did versions change?")
            return results.assign(**{name: [texts[docno][name] for docno in results["docno"]] for name in wanted})

        return pt.apply.generic(load, required_columns=["docno"])

    def _split(self, variant: str) -> list[Entry]:
        if variant not in _SHARES:
            raise ValueError(f"variant={variant!r}; allowed: {', '.join(_SHARES)}.")
        return [entry for entry in self.entries if zlib.crc32(entry.docno.encode()) % 10 in _SHARES[variant]]


@cache
def _entries(modules: tuple[str, ...]) -> tuple[Entry, ...]:
    with _no_collection():
        candidates = [entry for module in modules for entry in _read_module(module)]
    asked = Counter(_bare(entry.query) for entry in candidates)
    seen_names: set[str] = set()
    seen_rests: set[str] = set()
    kept = []
    for entry in candidates:
        rest = entry.text.partition("\n")[2]
        if asked[_bare(entry.query)] == 1 and entry.docno not in seen_names and rest not in seen_rests:
            kept.append(entry)
        seen_names.add(entry.docno)
        seen_rests.add(rest)
    return tuple(kept)


def _bare(query: str) -> str:
    """The words of a query alone, so that case and punctuation make no difference."""
    return " ".join(re.findall(r"\w+", query.lower()))  # digits count: 1-D is not 2-D


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the search for reference cycles: syntax trees have none, and looking for them takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sources(module: str) -> tuple[Path, list[Path]] | None:
    """The folder that names count from and the module's files, None without sources; the module is not imported."""
    if module == STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
        return root, sorted(root.rglob("*.py"))
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None  # not installed, a namespace, or compiled
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:  # one file, beside those of other modules
        return origin.parent, [origin]
    return origin.parent.parent, sorted(origin.parent.rglob("*.py"))


def _read_module(module: str) -> Iterator[Entry]:
    root, paths = _sources(module) or (Path(), [])
    for path in paths:
        parts = path.relative_to(root).with_suffix("").parts
        if any(_SKIPPED.match(part) for part in parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates and deliberately broken sources
            continue
        name = ".".join(part for part in parts if part != "__init__")
        yield from _read_node(tree, name)


def _read_node(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[Entry]:
    """The docstring of a node, and those of the public classes and functions in it."""
    docstring = ast.get_docstring(node)
    entry = make_entry(name, docstring) if docstring else None
    if entry:
        yield entry
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for child in node.body:
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and child.name[0] != "_":
                yield from _read_node(child, f"{name}.{child.name}")


def make_entry(name: str, docstring: str) -> Entry | None:
    """The entry of one docstring; None if it is trivial.

    >>> make_entry("os.rename", "Rename it.") is None
    True
    """
    paragraph, _, rest = docstring.strip().partition("\n\n")
    first, *more = _SENTENCE_END.split(" ".join(paragraph.split()), maxsplit=1)
    rest = "\n".join(line.strip() for line in rest.splitlines() if line.strip())
    rest = " ".join(more) + ("\n" if more and rest else "") + rest
    query = first.rstrip(".!? :")
    rest = re.sub(f"{re.escape(query)}[.!?]?", "", rest, flags=re.IGNORECASE).strip()
    query = " ".join(_ROLE.sub(r"\1", query).split())
    own = {word.lower() for word in _WORD.findall(name.replace("_", " "))}
    words = _WORD.findall(query)
    telling = {word.lower() for word in words} - own
    wordy = MIN_QUERY_WORDS <= len(words) <= MAX_QUERY_WORDS and len(telling) >= 3
    if not wordy or len(rest.split()) < MIN_DOC_WORDS or _NO_SENTENCE.search(query):
        return None
    if _BOILERPLATE.search(query) or _BOILERPLATE.search(rest[:60]):
        return None
    return Entry(name, query, f"{name}\n{rest}")
