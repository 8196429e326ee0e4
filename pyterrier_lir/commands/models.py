"""`pyterrier-lir models`: public checkpoints that are known to load."""

from __future__ import annotations

import dataclasses
import json as json_format

from ..public_models import PUBLIC_MODELS, ModelKind
from .tables import text_table


def models(kind: ModelKind | None = None, *, name: str = "", json: bool = False) -> None:
    """List public checkpoints that are known to load, with their kind, format and source.

    Others of the same formats load too: a checkpoint is known by its files, not by its name.

    Args:
        kind: only these.
        name: only those whose id contains this.
        json: print a JSON list, with what the checkpoints' own files do not say.
    """
    rows = [row for row in PUBLIC_MODELS if kind in (None, row.kind) and name.lower() in row.id.lower()]
    if not rows:
        raise ValueError(
            f"no public model of kind {kind or 'any'} has {name!r} in its id; any checkpoint can be tried by its id."
        )
    if json:
        print(json_format.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    print(text_table(["id", "kind", "format", "source"], [[row.id, row.kind, row.format, row.source] for row in rows]))
