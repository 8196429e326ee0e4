"""The pages for PyTerrier's documentation site: reStructuredText without a warning, about classes that there are."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pyterrier_lir import cli

PAGES = sorted((Path(__file__).parents[1] / "pyterrier_lir" / "pt_docs").glob("*.rst"))


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", page.read_text(), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.fixture
def sphinx() -> None:
    """The directives and roles of Sphinx that the pages use, for docutils."""
    directives = pytest.importorskip("docutils.parsers.rst.directives")
    from docutils import nodes
    from docutils.parsers.rst import Directive, roles

    class Known(Directive):
        optional_arguments, final_argument_whitespace, has_content = 1, True, True
        option_spec = dict.fromkeys(("members", "inherited-members", "maxdepth"), directives.unchanged)

        def run(self) -> list[nodes.Node]:
            return []

    for name in ("autoclass", "autofunction", "toctree"):
        directives.register_directive(name, Known)
    roles.register_local_role("class", lambda name, raw, text, line, inliner, **_: ([nodes.literal(raw, text)], []))


@pytest.mark.usefixtures("sphinx")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_read_without_a_warning(page: Path) -> None:
    from docutils.core import publish_doctree

    settings = {"report_level": 5, "halt_level": 1, "syntax_highlight": "none"}
    tree = publish_doctree(page.read_text(), settings_overrides=settings)
    assert tree.attributes["title"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_classes_that_are_named_are_there_and_documented(page: Path) -> None:
    text = page.read_text()
    for path in [
        *re.findall(r"^\.\. autoclass:: (\S+)$", text, re.MULTILINE),
        *re.findall(r":class:`~?([\w.]+)`", text),
    ]:
        assert isinstance(named(path), type), path
        assert named(path).__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_is_python_and_imports_what_there_is(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert all(named(f"{node.module}.{one.name}") for one in node.names)


def test_commands_are_those_of_the_program() -> None:
    lines = [line for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    commands = {line.split()[2] for line in lines if line.startswith("$ pyterrier-lir ")}
    assert len(commands) > 5
    assert commands <= set(cli.COMMANDS)


def test_the_first_page_leads_to_all_others() -> None:
    first = next(page for page in PAGES if page.stem == "index").read_text()
    toctree = re.search(r"\.\. toctree::\n(?:   :.*\n)*\n((?:   \S+\n)+)", first)
    assert toctree
    assert sorted(toctree[1].split()) == [page.stem for page in PAGES if page.stem != "index"]
