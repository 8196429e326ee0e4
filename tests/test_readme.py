"""What README.md says of the package is what the package says of itself."""

from __future__ import annotations

import re

import pytest

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
