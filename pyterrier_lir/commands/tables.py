"""Tables of results as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

TableFormat = Literal["text", "csv", "markdown", "latex"]
SIGNIFICANT = "†"
_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", ">": "$>$", "<": "$<$", "{": r"\{", "}": r"\}",
          "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
          SIGNIFICANT: r"$^{\dagger}$"}  # fmt: skip


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns that are as wide as their widest cell; numbers stand right.

    >>> print(text_table(["name", "RR"], [["BM25", "0.5"], ["a", "0.25"]]))
    name    RR
    BM25   0.5
    a     0.25
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width) for cell, width, at in zip(row, widths, right, strict=True)
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def render(results: pd.DataFrame, form: TableFormat, alpha: float = 0.05) -> str:
    """The table of `pt.Experiment` in one of the formats.

    CSV has every column at full precision.  The others have the measures, rounded, where † says that a system differs
    from the baseline (p below `alpha`, corrected where a correction was made), and the best value is bold.
    """
    if form == "csv":
        return results.to_csv(index=False).rstrip("\n")
    header, rows = _cells(results, alpha)
    if form == "text":
        return text_table(header, rows)
    best = _best(results, header)
    if form == "markdown":
        lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        for at, row in enumerate(rows):
            marked = [f"**{c}**" if (at, i) in best else c.replace("|", r"\|") for i, c in enumerate(row)]
            lines.append("| " + " | ".join(marked) + " |")
        return "\n".join(lines)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _latex_row(header), r"\midrule"]
    for at, row in enumerate(rows):
        lines.append(_latex_row(row, {i for i in range(len(row)) if (at, i) in best}))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def ordered(results: pd.DataFrame, measures: Sequence[object]) -> pd.DataFrame:
    """The columns in the order of the measures, each with its tests behind it; ir_measures orders them by its own."""
    columns = ["name"]
    for measure in measures:
        columns += [name for name in results.columns if name == str(measure) or name.startswith(f"{measure} ")]
    return results[columns]


def _cells(results: pd.DataFrame, alpha: float) -> tuple[list[str], list[list[str]]]:
    measures = [name for name in results.columns[1:] if f"{name} p-value" in results or not _is_test(name, results)]
    rows = []
    for _, row in results.iterrows():
        cells = [str(row["name"])]
        for measure in measures:
            p = row.get(f"{measure} p-value corrected", row.get(f"{measure} p-value"))
            digits = 1 if measure == "mrt" else 3
            cells.append(f"{row[measure]:.{digits}f}{SIGNIFICANT if p is not None and p < alpha else ''}")
        rows.append(cells)
    return ["name", *("ms/query" if measure == "mrt" else measure for measure in measures)], rows


def _is_test(name: str, results: pd.DataFrame) -> bool:
    """Whether a column belongs to the significance of another."""
    return any(name.startswith(f"{other} ") for other in results.columns if other != name)


def _best(results: pd.DataFrame, header: Sequence[str]) -> set[tuple[int, int]]:
    """(row, column) of the best values."""
    found = set()
    for i, name in enumerate(header[1:], start=1):
        values = results["mrt" if name == "ms/query" else name]
        target = values.min() if name == "ms/query" else values.max()
        found |= {(at, i) for at, value in enumerate(values) if value == target}
    return found


def _latex_row(cells: Sequence[str], bold: set[int] | None = None) -> str:
    parts = [cell.split(">>") for cell in cells]
    shown = [r"$\gg$".join("".join(_LATEX.get(letter, letter) for letter in part) for part in cell) for cell in parts]
    return " & ".join(rf"\textbf{{{c}}}" if i in (bold or ()) else c for i, c in enumerate(shown)) + r" \\"


def _is_number(cell: Any) -> bool:
    try:
        float(str(cell).rstrip(SIGNIFICANT))
    except ValueError:
        return False
    return True
