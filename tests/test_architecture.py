"""The rooms know only the rooms below them, and the README's tree is the folder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyterrier_lir

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyterrier_lir"
# room -> rooms of this package that it may import
MAY_IMPORT = {
    "config": set(),
    "model_configs": {"config"},
    "display": set(),
    "public_models": set(),
    "checkpoints": {"config", "public_models"},
    "tokenization": {"config"},
    "text_tokenizer": {"config", "tokenization"},
    "pair_tokenizer": {"config", "tokenization"},
    "vectors": {"config"},
    "models": {
        "config",
        "checkpoints",
        "tokenization",
        "text_tokenizer",
        "pair_tokenizer",
        "vectors",
        "cpu_kernels",
        "display",
        "token_kernels",
    },
    "encoding": {"config", "models", "tokenization", "vectors"},
    "cpu_kernels": set(),
    "token_kernels": set(),
    "memory": set(),
    "precision": {"config", "models", "cpu_kernels"},
    "engine": {"config", "models", "encoding", "tokenization", "precision", "memory", "vectors"},
    "columns": {"config", "vectors"},
    "indexes": {
        "config",
        "columns",
        "cpu_kernels",
        "display",
        "models",
        "pipeline",  # in a function: the model that an index remembers
        "precision",
        "token_kernels",
        "vectors",
    },
    "pipeline": {
        "config",
        "checkpoints",
        "columns",
        "data",
        "display",
        "engine",
        "indexes",
        "models",
        "precision",
        "training",
        "vectors",
    },
    "data": set(),
    "training": {
        "columns",
        "config",
        "cpu_kernels",
        "data",
        "engine",
        "indexes",
        "memory",
        "model_configs",
        "models",
        "tokenization",
        "vectors",
    },
    "demo": {"data", "pipeline"},
    "commands": {
        "checkpoints",
        "columns",
        "config",
        "data",
        "demo",
        "display",
        "engine",
        "indexes",
        "models",
        "pipeline",
        "public_models",
        "vectors",
    },
    "cli": {"commands", "training"},
    "__main__": {"cli"},
    "__init__": {"config", "data", "indexes", "model_configs", "models", "pipeline", "training"},
}
PYTERRIER_ROOMS = {
    "columns",
    "pipeline",
    "indexes",
    "demo",
    "commands",
}  # the demo and the commands are users of PyTerrier, as notebooks are


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> tuple[set[str], set[str]]:
    """(rooms of this package, top-level names of others) that a module imports anywhere but for type checking."""
    rooms, others = set(), set()
    tree = ast.parse(path.read_text())
    typing_only = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
                   for n in ast.walk(node)}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = [*path.relative_to(PACKAGE).parts[:-1]]
            base = base[: len(base) - node.level + 1]
            parts = [*base, *(node.module or "").split(".")] if node.module else base
            rooms |= {parts[0]} if parts else {alias.name for alias in node.names}
    return rooms - {room(path)}, others


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_the_rooms_below_them(path: Path) -> None:
    rooms, others = imported(path)
    assert rooms <= MAY_IMPORT[room(path)]
    assert "lightning_ir" not in others
    if room(path) not in PYTERRIER_ROOMS and path.name != "documentation.py":  # its text_loader makes a transformer
        assert "pyterrier" not in others
    if room(path) != "training":
        assert not others & {"lightning", "pytorch_lightning"}


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, pyterrier_lir; print(sorted({'torch', 'transformers', 'pyterrier'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported() -> None:
    for name in pyterrier_lir.__all__:
        assert getattr(pyterrier_lir, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pyterrier_lir.nothing


def test_the_readmes_tree_is_the_folder() -> None:
    tree = re.search(r"```\npyterrier_lir/\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree
    named: set[str] = set()
    folders: list[str] = []
    for line in tree[1].splitlines():
        name = line.split()[0]
        folders = folders[: (len(line) - len(line.lstrip())) // 2 - 1]
        if name.endswith("/"):
            folders.append(name)
        else:
            named.add("".join(folders) + name)
    assert named == {str(path.relative_to(PACKAGE)) for path in modules()}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
