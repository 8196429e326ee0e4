"""Fixtures: odd texts, and tiny checkpoints in every format that is read."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("PT_TEST_TRANSFORMER_REPORTS", "0")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores, and threads of several would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


import pytest
import torch

from tests.tiny_bi_encoders import KINDS
from tests.tiny_checkpoints import SENTENCES


@pytest.fixture(scope="session")
def texts() -> tuple[list[str], list[str]]:
    """Queries and documents, the odd ones included."""
    queries = [
        "measurement of rainfall in the mountains",
        "  what's\tthe height\n",
        "BREAD",
        " ".join(["height of the tower and the sand of the sea"] * 8),
        "naïve café 雨 ☂️",
    ]
    docs = [
        *SENTENCES[:4],
        SENTENCES[1],
        "",
        " \n\t ",
        "... !!! (?)",
        "x",
        "📡 雨量の測定 и реки",
        "[CLS] literal [SEP] tokens </s> <pad> [PAD] <|im_end|> <unk>",
        " ".join(SENTENCES * 3),
    ]
    return queries, docs


@pytest.fixture(scope="session")
def pairs(texts: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    """Every query with every document, as two lists of equal length."""
    queries, docs = texts
    return [q for q in queries for _ in docs], [d for _ in queries for d in docs]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`tiny(kind)`: the folder of a tiny checkpoint, made at its first use."""
    made: dict[str, str] = {}

    def make(kind: str) -> str:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            torch.manual_seed(len(kind))
            KINDS[kind](folder)
            made[kind] = str(folder)
        return made[kind]

    return make
