"""What notebooks show of models, indexes and transformers, as HTML; text in, text out, without a notebook."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

LESS, MORE = "228,87,86", "76,120,168"  # red and blue, of numbers below and above zero
_LEFT = "style='text-align:left;vertical-align:top'"
_SMALL = "style='margin:.3em 0;color:gray;font-size:90%'"


class Drawn:
    """For transformers, in front of `pt.Transformer`: their facts in the box of PyTerrier's schematic.

    Where a transformer stands alone, not in a pipeline, notebooks show the facts as a table below the schematic too.
    """

    def _label(self) -> str:
        """What the box is called; PyTerrier wants less than 20 characters."""
        return type(self).__name__

    def facts(self) -> dict[str, Any]:
        """What the display tells: names and values, known without loading anything."""
        return chosen(self)

    def subtransformers(self) -> dict[str, Any]:
        """None: what it is made of is no step of the pipeline."""
        return {}

    def schematic(self, *, input_columns: list[str] | None = None) -> dict[str, Any]:
        """How `pt.schematic` draws the transformer; what a click on its box shows."""
        # without class_name PyTerrier puts the class in place of the name, without help_url it looks for one on the web
        names = {"class_name": type(self).__name__, "name": repr(self), "help_url": None}
        return {"label": self._label(), **names, "settings": dict(rows_of(self.facts()))}

    def _repr_html_(self) -> str:
        schematic = super()._repr_html_()  # type: ignore[misc]
        return (schematic or "") + facts_table(repr(self), self.facts())


def chosen(made: object, *without: str) -> dict[str, Any]:
    """The arguments of an object that differ from their defaults, read from attributes of the same names.

    Args:
        without: names that are left out.

    >>> from types import SimpleNamespace
    >>> class Retriever(SimpleNamespace):
    ...     def __init__(self, index, num_results=1000, *, options=None, verbose=False):
    ...         super().__init__(index=index, num_results=num_results, options=options or {}, verbose=verbose)
    >>> chosen(Retriever("x.lir", 10))
    {'index': 'x.lir', 'num_results': 10}
    """
    parameters = list(inspect.signature(type(made).__init__).parameters.values())[1:]
    found = {p.name: getattr(made, p.name) for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in without}
    defaults = {p.name: p.default for p in parameters}
    return {name: value for name, value in found.items() if value != defaults[name] and value != {}}


def rows_of(facts: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Facts as rows of a table: those of a dictionary get its name in front.

    >>> rows_of({"documents": 8_841_823, "stored fields": [], "made with": {"model": "webis/splade"}})
    [('documents', '8,841,823'), ('stored fields', 'none'), ('made with: model', 'webis/splade')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            rows += rows_of(value, f"{above}{name}: ")
        else:
            rows.append((above + name, _shown(value)))
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        few = ", ".join(map(str, value[:10])) or "none"
        return few if len(value) <= 10 else f"{few}, ... ({len(value):,})"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def size_of(folder: Path) -> str:
    """The bytes of all files in a folder, in words.

    >>> import tempfile
    >>> size_of(Path(tempfile.mkdtemp()))
    '0 B'
    """
    size = float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def facts_table(title: str, facts: Mapping[str, Any]) -> str:
    """A title above a table of names and values."""
    rows = "".join(
        f"<tr><th {_LEFT}>{escape(name)}</th><td {_LEFT}>{escape(value)}</td></tr>" for name, value in rows_of(facts)
    )
    return f"<div><code>{escape(title)}</code><table><tbody>{rows}</tbody></table></div>"


def bars(names: Sequence[str], rows: Sequence[Sequence[Any]], most: int = 60) -> str:
    """A table whose last column, of numbers, stands beside bars; of more than `most` rows, the first."""
    largest = max((abs(float(row[-1])) for row in rows), default=0) or 1
    head = "".join(f"<th {_LEFT}>{escape(name)}</th>" for name in names)
    lines = []
    for *cells, number in rows[:most]:
        wide, colour = abs(float(number)) / largest * 8, MORE if number >= 0 else LESS
        bar = f"<span style='display:inline-block;height:.7em;width:{wide:.2f}em;background:rgb({colour})'></span>"
        columns = [*map(_cell, cells), f"{bar} {_cell(number)}"]
        lines.append("<tr>" + "".join(f"<td {_LEFT}>{column}</td>" for column in columns) + "</tr>")
    left_out = f"<p {_SMALL}>{len(rows) - most:,} more rows</p>" if len(rows) > most else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{left_out}"


def shaded(name: str, words: Iterable[tuple[str, float]], largest: float) -> str:
    """A paragraph of words, each the darker the larger its number; blue above zero, red below.

    Args:
        name: stands in front.
        words: with their numbers.
        largest: the number of the darkest.
    """
    spans = (f"<span title='{number:+.3f}' style='{_shade(number, largest)}'>{escape(word)}</span>"
             for word, number in words)  # fmt: skip
    return f"<p style='line-height:1.8'><b>{escape(name)}</b> {' '.join(spans)}</p>"


def matrix(rows: Sequence[str], columns: Sequence[str], numbers: Sequence[Sequence[float]]) -> str:
    """A table of shaded numbers; the largest of each row is written into its cell, all when the mouse is over them."""
    largest = max((abs(number) for row in numbers for number in row), default=0)
    head = "".join(f"<th style='writing-mode:vertical-rl;text-align:left'>{escape(name)}</th>" for name in columns)
    lines = []
    for name, row in zip(rows, numbers, strict=True):
        best = max(range(len(row)), key=row.__getitem__, default=-1)
        cells = "".join(
            f"<td title='{escape(name)} / {escape(column)}: {number:.3f}' style='{_shade(number, largest)}'>"
            f"{f'<b>{number:.2f}</b>' if i == best else ''}</td>"
            for i, (column, number) in enumerate(zip(columns, row, strict=True))
        )
        lines.append(f"<tr><th {_LEFT}>{escape(name)}</th>{cells}</tr>")
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"<div style='overflow-x:auto'>{table}</div>"


def note(text: str) -> str:
    """A line in small print."""
    return f"<p {_SMALL}>{escape(text)}</p>"


def _shade(number: float, largest: float) -> str:
    strength = abs(number) / largest if largest else 0
    return f"background:rgba({MORE if number >= 0 else LESS},{strength:.2f})"


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))
