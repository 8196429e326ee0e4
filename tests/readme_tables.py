"""The tables of README.md that are made from the code's own: `python -m tests.readme_tables` writes them anew."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pyterrier_lir.checkpoints import READERS
from pyterrier_lir.indexes import search
from pyterrier_lir.models.facts import KIND_WORDS
from pyterrier_lir.public_models import PUBLIC_MODELS
from pyterrier_lir.training import in_batch, losses
from pyterrier_lir.training.objectives import OBJECTIVES
from pyterrier_lir.training.scored import Loss

README = Path(__file__).parents[1] / "README.md"
PAPER = re.compile(r"arXiv:[\d.]+|(?:[A-Z]\w+ et al\. |ACL )\d{4}")


def engines() -> str:
    """A row for each engine, by the kind of vectors."""
    rows = []
    for kind, title in KIND_WORDS.items():
        for number, name in enumerate(search.engines_of(kind)):  # type: ignore[arg-type]
            engine = search.ENGINES[kind, name]  # type: ignore[index]
            extra = f" (extra `{engine.extra}`)" if engine.extra else ""
            results = "exact" if engine.exact else "approximate"
            rows.append([title if not number else "", f"`{name}`{extra}", results, engine.when, _options(engine)])
    return table(["vectors", "engine", "results", "when", "options"], rows)


def _options(engine: search.Engine) -> str:
    """What a user can set: the parameters of the engine's `open`, of FAISS's families those that they have."""
    module = import_module(f"{search.__name__}.{engine.module}")
    fixed = dict(engine.options)
    allowed = module.options_of(**fixed) if fixed else None
    parameters = list(inspect.signature(module.open).parameters.values())[1:]
    return _settings((one.name, one.default) for one in parameters
                     if one.name not in fixed and (allowed is None or one.name in allowed))  # fmt: skip


def objectives() -> str:
    """A row for each loss: what it computes is the first line of the function that it calls."""
    rows = []
    for name, loss in OBJECTIVES.items():
        first, text = _documented(loss)
        settings = _settings((one.name, _default(one)) for one in dataclasses.fields(loss))
        papers = ", ".join(_link(paper) for paper in dict.fromkeys(PAPER.findall(text)))
        computes = re.sub(rf" \([^()]*(?:{PAPER.pattern}|see `)[^)]*\)", "", _without_stop(first))
        rows.append([f"`{name}`", computes, papers, settings])
    return table(["loss", "computes", "paper", "settings"], rows)


def _documented(loss: type[Any]) -> tuple[str, str]:
    """The first line that says what a loss computes, and all that is said of it."""
    text = inspect.getdoc(loss) or ""
    found = re.match(r"See `(losses|in_batch)\.(\w+)`[.:;]? ?(.*)", text)
    if not found:
        return text.splitlines()[0], text
    module: ModuleType = {"losses": losses, "in_batch": in_batch}[found[1]]
    said = inspect.getdoc(getattr(module, found[2])) or ""
    return said.splitlines()[0], f"{said}\n{text}"


def _without_stop(line: str) -> str:
    return line if line.endswith("...") else line.removesuffix(".")


def _link(paper: str) -> str:
    place, _, number = paper.partition(":")
    return f"[{paper}](https://arxiv.org/abs/{number})" if place == "arXiv" else paper


def checkpoints() -> str:
    """A row for each format, in the order in which a folder is held against them."""
    rows = []
    for name, reader in READERS.items():
        known = [row for row in PUBLIC_MODELS if row.format == name]
        first_of = {row.kind: row.id for row in reversed(known)}
        kinds = dict.fromkeys(row.kind for row in known)
        named = ", ".join(KIND_WORDS.get(kind, kind) for kind in kinds)
        examples = ", ".join(f"`{first_of[kind]}`" for kind in kinds)
        first = _without_stop((inspect.getdoc(reader) or "").splitlines()[0])
        rows.append([name, first, str(len(known) or ""), named, examples])
    return table(["format", "what it is", "public", "listed as", "such as"], rows)


def _default(one: dataclasses.Field[Any]) -> Any:
    if one.default is not dataclasses.MISSING:
        return one.default
    return inspect.Parameter.empty if one.default_factory is dataclasses.MISSING else one.default_factory()


def _settings(named: Iterable[tuple[str, Any]]) -> str:
    """`name=default`, and the name alone where the default is None or there is none."""

    def text(value: Any) -> str:
        if value is None or value is inspect.Parameter.empty:
            return ""
        return f"={type(value).__name__}()" if isinstance(value, Loss) else f"={value!r}"

    return ", ".join(f"`{name}{text(value)}`" for name, value in named)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


TABLES: dict[str, Callable[[], str]] = {"engines": engines, "losses": objectives, "checkpoints": checkpoints}


def block(name: str, text: str) -> re.Match[str]:
    """The place of a table in the README: group 1 is what stands between its marks."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    if not found:
        raise ValueError(f"README.md has no <!-- {name} --> ... <!-- /{name} -->.")
    return found


def main() -> None:
    """Write all tables into README.md."""
    text = README.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        place = block(name, text)
        text = text[: place.start(1)] + make() + text[place.end(1) :]
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
