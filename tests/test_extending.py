"""What the page on extending the package adds works, and is in the tables: its diffs, applied to a copy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "pyterrier_lir" / "pt_docs" / "extending.rst"
Results = dict[str, Any]


def diffs() -> list[str]:
    blocks = re.findall(r"^\.\. code-block:: diff\n\n((?:   .*\n|\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def apply(diff: str, root: Path) -> None:
    """Apply a diff by the lines of its hunks, which have to be in the file once; their numbers are not looked at."""
    for name, hunks in re.findall(r"^\+\+\+ b/(.+)\n((?:(?!--- ).*\n)+)", diff, re.MULTILINE):
        path = root / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE)[1:]:
            lines = hunk.rstrip("\n").split("\n")
            old, new = ("".join(line[1:] + "\n" for line in lines if line[:1] != sign) for sign in "+-")
            assert text.count(old) == 1, f"{name} has this {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What `results` finds in a copy of the package with all diffs of the page."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "pyterrier_lir", root / "pyterrier_lir", ignore=shutil.ignore_patterns("__pycache__"))
    for diff in diffs():
        apply(diff, root)
    command = [sys.executable, "-m", "tests.test_extending", str(root / "work")]  # the copy is first on the path
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: Results = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("package") == str(root / "pyterrier_lir")
    return found


def test_the_page_has_a_diff_for_each_question() -> None:
    assert len(diffs()) == 4


def test_a_checkpoint_is_added_by_a_row(extended: Results, tmp_path: Path) -> None:
    assert checkpoint(tmp_path) == {"kinds": ["sparse"], "listed": False}  # without the row
    assert extended["checkpoint"] == {"kinds": ["dense"], "listed": True, "pooling": ["first"]}


def test_a_family_is_added_by_a_reader(extended: Results, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint of no known format"):
        family(tmp_path)
    assert extended["family"] == {"as transformers": True, "row": True}


def test_an_engine_is_added_by_a_file_and_a_row(extended: Results, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No engine 'first-numbers'"):
        engine(tmp_path)
    assert extended["engine"] == {"all numbers": True, "half of them": True, "row": True}


def test_a_loss_is_added_by_a_function_and_a_class(extended: Results) -> None:
    with pytest.raises(KeyError, match="Hinge"):
        loss()
    assert extended["loss"] == {"value": 0.5, "repr": "Hinge(margin=1.0)", "row": True}


def checkpoint(folder: Path) -> Results:
    """A masked language model that remembers to be the public one."""
    from transformers import BertConfig, BertForMaskedLM

    from pyterrier_lir import checkpoints
    from pyterrier_lir.public_models import PUBLIC_MODELS
    from tests.tiny_checkpoints import LAYERS, wordpiece, write_json

    name, tokenizer = "OpenMatch/cocodr-base-msmarco", wordpiece()
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **LAYERS)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "config.json", {**json.loads((folder / "config.json").read_text()), "_name_or_path": name})
    kinds = list(checkpoints.kinds(folder))
    found: Results = {"kinds": kinds, "listed": name in {row.id for row in PUBLIC_MODELS}}
    return found | (
        {"pooling": list(checkpoints.load(folder).config.doc_pooling_strategy)} if kinds == ["dense"] else {}
    )


def family(folder: Path) -> Results:
    """Vectors of a tiny DPR, here and in transformers."""
    import torch
    from transformers import DPRConfig, DPRContextEncoder

    from pyterrier_lir import load_model
    from pyterrier_lir.engine import Engine
    from tests.readme_tables import checkpoints as table
    from tests.tiny_checkpoints import LAYERS, SENTENCES, wordpiece

    tokenizer = wordpiece()
    theirs = DPRContextEncoder(DPRConfig(vocab_size=len(tokenizer), **LAYERS)).eval()
    theirs.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ours = Engine(load_model(folder)).encode(SENTENCES, query=False)["dense"]
    with torch.inference_mode():
        vectors = theirs(**tokenizer(SENTENCES, return_tensors="pt", padding=True)).pooler_output
    row = (
        "| DPR | DPR of Facebook (arXiv:2004.04906): a BERT for queries or one for documents, of which the first token"
    )
    return {"as transformers": np.allclose(ours, vectors, atol=1e-5), "row": row in table()}


def engine(folder: Path) -> Results:
    """What it finds by all numbers and by half of them, next to exact search."""
    import pandas as pd

    from pyterrier_lir import BiEncoderConfig, LIRDenseIndex
    from tests.readme_tables import engines as table

    vectors = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float32)
    vectors[:, 16:] /= 10  # the first numbers say most
    index = LIRDenseIndex(folder / "x.lir")
    index.indexer(config=BiEncoderConfig()).index({"docno": f"d{i}", "doc_vec": one} for i, one in enumerate(vectors))
    queries = pd.DataFrame(
        [(f"q{i}", "", one) for i, one in enumerate(vectors[:20] * 1.1)], columns=["qid", "query", "query_vec"]
    )
    exact = index.retriever(num_results=10)(queries)
    all_numbers, half = (index.retriever("first-numbers", num_results=10, numbers=n)(queries) for n in (32, 16))
    shared = exact.merge(half, on=["qid", "docno"])
    return {
        "all numbers": list(all_numbers["docno"]) == list(exact["docno"])
        and np.allclose(all_numbers["score"], exact["score"]),
        "half of them": len(shared) >= 0.95 * len(exact) and np.allclose(shared["score_x"], shared["score_y"]),
        "row": "`numbers=64`, `k_factor=4` |" in table(),
    }


def loss() -> Results:
    """Its value for one pair that is half the margin apart."""
    import torch

    from pyterrier_lir.training.objectives import OBJECTIVES
    from pyterrier_lir.training.scored import Scored
    from tests.readme_tables import objectives as table

    made = OBJECTIVES["Hinge"]()
    value = float(made(Scored(torch.tensor([[1.5, 1.0]]), torch.tensor([[1.0, 0.0]]))))
    row = "| `Hinge` | Pairwise hinge"
    return {"value": value, "repr": repr(made), "row": row in table()}


def results(folder: Path) -> Results:
    import pyterrier_lir

    places = {name: folder / name for name in ("checkpoint", "family", "engine")}
    for place in places.values():
        place.mkdir(parents=True)
    return {
        "package": str(Path(pyterrier_lir.__file__).parent),
        "checkpoint": checkpoint(places["checkpoint"]),
        "family": family(places["family"]),
        "engine": engine(places["engine"]),
        "loss": loss(),
    }


if __name__ == "__main__":
    print(json.dumps(results(Path(sys.argv[1])), default=bool))
