"""What README.md says of the package is what the package says of itself."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from pyterrier_lir.config import PRECISIONS
from pyterrier_lir.public_models import PUBLIC_MODELS
from tests.readme_tables import README, TABLES, block


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name: str) -> None:
    written = block(name, README.read_text(encoding="utf-8"))[1]
    assert written == TABLES[name](), "write it anew: python -m tests.readme_tables"


def test_checkpoints_named_under_what_loads_are_known_to_load() -> None:
    text = README.read_text(encoding="utf-8")
    section = text[text.index("## What loads") : text.index("## Precision")]
    named = set(re.findall(r"`([\w.-]+/[\w.-]+)`", section))
    assert len(named) > 30
    assert named <= {row.id for row in PUBLIC_MODELS}


def test_the_table_of_precisions_has_all_that_there_are() -> None:
    text = README.read_text(encoding="utf-8")
    section = text[text.index("## Precision") : text.index("## Speed")]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [one for one in PRECISIONS if one != "auto"]


def test_the_commands_behind_the_numbers_are_there() -> None:
    named = set(re.findall(r"^    python -m (tests\.[\w.]+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(named) >= 6
    assert [name for name in named if find_spec(name) is None] == []
