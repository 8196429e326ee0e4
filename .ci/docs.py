"""The API reference, built from the docstrings into build/docs; a warning or a dotted reference to nothing is an error.

It needs the extra `docs`: pip install -c tests/constraints.txt -e ".[docs]" && python .ci/docs.py
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pdoc
import tqdm.auto
from pdoc.doc import Class, Doc, Module, Namespace
from pdoc.render_helpers import relative_link

import pyterrier_lir
from pyterrier_lir.config import Precision
from pyterrier_lir.engine import Model
from pyterrier_lir.pipeline import bi_encoder, reranker

OUT = Path(__file__).parents[1] / "build" / "docs"
CODE = re.compile(r"<code>((?!\d)\w+(?:\.(?!\d)\w+)*)(\(\))?</code>")  # what pdoc has made no link of
FILE = re.compile(r".+\.(json|yaml|npy|txt|tsv|gz|pt|safetensors|ckpt)")


def main() -> int:
    """Build all pages; 1 if a reference leads nowhere."""
    found = pkgutil.walk_packages(pyterrier_lir.__path__, "pyterrier_lir.")
    names = ["pyterrier_lir", *(module.name for module in found if not module.name.endswith("__main__"))]
    prepare(names)
    warnings.simplefilter("error", UserWarning)
    warnings.filterwarnings("ignore", message=r"Error parsing type annotation .* for pandas\.")  # a base class's
    pdoc.render.configure(docformat="google", show_source=False)
    modules = {name: Module.from_name(name) for name in names}
    pages = {name: pdoc.render.html_module(module, modules) for name, module in modules.items()}
    places = targets(modules, pages)
    unknown = []
    for name, written in pages.items():
        page, lost = linked(written, name, places)
        unknown += [f"{name}: `{one}` is nothing that is documented" for one in lost]
        path = OUT / f"{name.replace('.', '/')}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    (OUT / "index.html").write_text(pdoc.render.html_index(modules), encoding="utf-8")
    (OUT / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")
    print(*unknown, f"{len(modules)} pages in {OUT}", sep="\n")
    return bool(unknown)


def prepare(names: list[str]) -> None:
    """Let pdoc see what is there only when it is asked for, or for type checkers."""
    for name in names:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            setattr(module, public, getattr(module, public))  # names that are imported at their first use
    for module in (bi_encoder, reranker):  # the types of inherited settings are looked up where they are inherited
        vars(module).update(Model=Model, Precision=Precision)
    for generic in (pd.Series, tqdm.auto.tqdm):
        generic.__class_getitem__ = classmethod(lambda cls, item: cls)


def targets(modules: dict[str, Module], pages: dict[str, str]) -> dict[str, tuple[str, str]]:
    """By each dotted end of a name, and by the names of classes and of what is public alone: the page and the place."""
    places: dict[str, tuple[str, str]] = {}
    anchors = {name: set(re.findall(r'id="([^"]+)"', page)) for name, page in pages.items()}
    for module in modules.values():
        for one in (module, *members(module)):
            if one.qualname and one.qualname not in anchors[one.modulename]:
                continue
            parts = one.fullname.split(".")
            alone = isinstance(one, Class) or one.fullname == f"pyterrier_lir.{one.name}"
            for start in range(len(parts) - (not alone)):
                places.setdefault(".".join(parts[start:]), (one.modulename, one.qualname))
    return places


def members(of: Namespace) -> Iterator[Doc]:
    """What a module or a class has, and what its classes have."""
    for one in of.members.values():
        if not isinstance(one, Module):
            yield one
        if isinstance(one, Class):
            yield from members(one)


def linked(page: str, name: str, places: dict[str, tuple[str, str]]) -> tuple[str, list[str]]:
    """A page with links where pdoc has made none, and the references in it that lead nowhere."""
    rooms = {part for place in places for part in place.split(".")[:-1]}
    lost: list[str] = []

    def link(found: re.Match[str]) -> str:
        text = found[1]
        if text in places:
            module, qualname = places[text]
            address = relative_link(name, module) + (f"#{qualname}" if qualname else "")
            return f'<code><a href="{address}">{text}{found[2] or ""}</a></code>'
        if "." in text and text.split(".")[0] in rooms and not FILE.fullmatch(text):
            lost.append(text)
        return found[0]

    return CODE.sub(link, page), sorted(set(lost))


if __name__ == "__main__":
    sys.exit(main())
