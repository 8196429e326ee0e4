"""The YAML files inside the package: each is checked, and run on tiny data; a run's folder repeats it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pyterrier_lir import DocDataset, cli, open_index
from pyterrier_lir.training.command_line import COMMANDS, READY, main
from pyterrier_lir.training.inference_callbacks import read_run
from tests.local_dataset import Files, write
from tests.test_training import quiet

Tiny = Callable[[str], str]
__all__ = ["quiet"]  # a fixture that is used by all tests
NAMES = [(path.parent.name, path.stem) for path in sorted(READY.glob("*/*.yaml"))]
BACKBONES = {"monot5": "monot5"}  # tiny checkpoints that stand for the files' own, else by command and name
MODELS = {"monoelectra": "mono-electra", "set-encoder": "set-encoder-extra", "dense": "dpr-first", "colbert": "col"}
QUICK = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = write(tmp_path_factory.mktemp("collection"))
    made.register("local/ready")
    return made


def tiny_model(command: str, name: str, tiny: Tiny) -> str:
    if command == "fit":
        return tiny(BACKBONES.get(name, "dense"))
    return tiny(MODELS.get(name, name))


def on_tiny_data(command: str, name: str, tiny: Tiny, folder: Path) -> list[str]:
    """The ready file, with a tiny model and collection in it."""
    config = yaml.safe_load((READY / command / f"{name}.yaml").read_text(encoding="utf-8"))
    config["model"]["init_args"]["model_name_or_path"] = tiny_model(command, name, tiny)
    data = config["data"]["init_args"]
    if command == "fit":
        data["train_dataset"]["init_args"] |= {"run_path_or_id": "local/ready", "sample_size": 4}
        config["trainer"]["max_steps"] = 2
        config["lr_scheduler"]["init_args"]["num_warmup_steps"] = 1
        data["train_batch_size"] = 2
        if "config" in config["model"]["init_args"]:
            config["model"]["init_args"]["config"]["init_args"]["doc_length"] = 64
    else:
        [own] = {json.dumps(dataset["init_args"]) for dataset in data["inference_datasets"][:1]}
        first = json.loads(own)
        first[next(iter(first))] = "local/ready"
        data["inference_datasets"] = [{**data["inference_datasets"][0], "init_args": first}]
    path = folder / f"{command}-{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return ["--config", str(path), *QUICK]


@pytest.mark.parametrize(("command", "name"), NAMES)
@pytest.mark.parametrize(
    "trainer", [[], ["--config", "trainer-gpu"], ["--config", "trainer-nodes"]], ids=["as it is", "gpu", "nodes"]
)
def test_each_file_fits_the_types(
    command: str, name: str, trainer: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(command, ["--config", name, *trainer, "--print_config"])
    assert done.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    own = yaml.safe_load((READY / command / f"{name}.yaml").read_text(encoding="utf-8"))
    assert printed["model"]["init_args"]["model_name_or_path"] == own["model"]["init_args"]["model_name_or_path"]
    if trainer:
        assert printed["trainer"]["precision"] == "bf16-mixed"


def test_there_is_a_file_for_each_model_and_command() -> None:
    cross, bi = {"monoelectra", "monot5", "set-encoder"}, {"dense", "splade", "colbert"}
    wanted = {"fit": cross | bi, "index": bi, "search": bi, "re_rank": cross | bi}
    assert {command: {name for own, name in NAMES if own == command} for command in COMMANDS} == wanted


@pytest.mark.parametrize("name", [name for command, name in NAMES if command == "fit"])
def test_each_model_is_trained_and_repeated_from_its_folder(
    name: str, files: Files, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = on_tiny_data("fit", name, tiny, tmp_path)
    main("fit", arguments)
    first, again = (tmp_path / "lightning_logs" / f"version_{number}" for number in range(2))
    facts = json.loads((first / "run.json").read_text(encoding="utf-8"))
    assert facts["command"] == "fit"
    assert facts["seed"] == 0
    assert "loss" in facts["metrics"]
    assert facts["versions"]["torch"] == torch.__version__
    if name in ("dense", "monot5"):
        main("fit", ["--config", str(first / "config.yaml")])
        one, other = (load_file(folder / "model" / "model.safetensors") for folder in (first, again))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", [name for command, name in NAMES if command == "index"])
def test_each_bi_encoder_indexes_and_searches(
    name: str, files: Files, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main("index", on_tiny_data("index", name, tiny, tmp_path))
    assert len(open_index(tmp_path / "indexes" / name / "local-ready")) > 0
    main("search", on_tiny_data("search", name, tiny, tmp_path))
    folder = tmp_path / "lightning_logs" / "version_1"
    assert set(read_run(folder / "runs" / "local-ready.run")["query_id"]) == {"1", "2", "3"}
    assert "local/ready/nDCG@10" in json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"]


@pytest.mark.parametrize("name", [name for command, name in NAMES if command == "re_rank"])
def test_each_model_re_ranks(
    name: str, files: Files, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main("re_rank", on_tiny_data("re_rank", name, tiny, tmp_path))
    folder = tmp_path / "lightning_logs" / "version_0"
    assert len(read_run(folder / "runs" / "local-ready.run")) > 3
    assert (folder / "config.yaml").is_file()


MISTAKES = {  # what is written instead of what, and what is said
    "a key at the top": ("trainer:", "traner:", "fit.yaml, line 1: unknown name 'traner'. Did you mean 'trainer'?"),
    "a setting of the trainer": ("max_steps", "max_stps", "fit.yaml, line 2: unknown name 'trainer.max_stps'. Did you mean 'max_steps'?"),
    "a setting of the model": ("evaluation_metrics", "evaluation_metric", "Did you mean 'evaluation_metrics'?"),
    "a setting of a configuration": ("doc_length", "docs_length", "fit.yaml, line 9: unknown name 'docs_length'. Did you mean 'doc_length'?"),
    "a class": ("RankNet", "RankNett", "no class 'RankNett'. Did you mean 'RankNet'?"),
    "a type": ("max_steps: 2", "max_steps: many", "fit.yaml, line 2: trainer.max_steps=many; allowed: int."),
    "a choice": ("similarity_function: dot", "similarity_function: dott", "allowed: 'dot', 'cosine', 'l2'. Did you mean 'dot'?"),
    "too long a text": ("doc_length: 64", "doc_length: 6400", "doc_length=6400;"),
    "a measure": ("nDCG@10", "nDGC@10", "ir_measures knows no 'nDGC@10'"),
    "a model": ("name_or_path: ", "name_or_path: /no", "No checkpoint folder at '/no"),
    "a dataset": ("local/ready", "local/redy", "'local/redy': no dataset, folder or file"),
}  # fmt: skip
FIT = """trainer:
  max_steps: 2
model:
  class_path: BiEncoderModule
  init_args:
    model_name_or_path: MODEL
    config:
      similarity_function: dot
      doc_length: 64
    loss_functions: [RankNet]
    evaluation_metrics: [nDCG@10]
data:
  class_path: LightningIRDataModule
  init_args:
    train_dataset: {class_path: TupleDataset, init_args: {tuples_dataset: local/ready}}
"""


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_yaml_are_told_in_one_line(
    right: str, wrong: str, said: str, files: Files, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fit.yaml"
    path.write_text(FIT.replace("MODEL", tiny("dense")).replace(right, wrong, 1), encoding="utf-8")
    assert cli.main(["fit", "--config", str(path), *QUICK]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pyterrier-lir: ")]
    assert len(told) == 1
    assert said in told[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "spalde"], "Did you mean 'splade'"),
        (["--config", "splade", "--trainer.max_stps", "3"], "Did you mean '--trainer.max_steps'"),
        (["--config", "splade", "--model.init_args.learning_rte", "3"], "Did you mean 'learning_rate'"),
    ],
)
def test_mistakes_on_the_line_are_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fit", *arguments]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_yaml_of_lightning_ir_is_read(
    files: Files, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = on_tiny_data("re_rank", "dense", tiny, tmp_path)
    path = Path(arguments[1])
    path.write_text(path.read_text().replace("class_path: ", "class_path: lightning_ir."), encoding="utf-8")
    main("re_rank", arguments)
    assert (tmp_path / "lightning_logs" / "version_0" / "runs" / "local-ready.run").is_file()


def test_an_interrupted_training_leaves_a_checkpoint_to_go_on_from(files: Files, tiny: Tiny, tmp_path: Path) -> None:
    arguments = on_tiny_data("fit", "dense", tiny, tmp_path)
    register = {
        "class_path": "RegisterLocalDatasetCallback",
        "init_args": {"dataset_id": "local/ready", **files.__dict__},
    }
    path = Path(arguments[1])
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["trainer"] |= {"callbacks": [register], "max_steps": 100_000, "log_every_n_steps": 1}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    code = "import sys; from pyterrier_lir.cli import main; sys.exit(main(sys.argv[1:]))"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "fit", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    metrics = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    limit = time.monotonic() + 240
    while not metrics.is_file() and time.monotonic() < limit and running.poll() is None:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    checkpoint = tmp_path / "lightning_logs" / "version_0" / "interrupted.ckpt"
    assert f"--ckpt_path {checkpoint.relative_to(tmp_path)}" in said or f"--ckpt_path {checkpoint}" in said
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    assert state["global_step"] > 0


def test_an_interrupted_build_of_an_index_says_how_to_go_on(
    files: Files, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = on_tiny_data("index", "dense", tiny, tmp_path)
    real = DocDataset.__iter__

    def killed(self: DocDataset) -> Any:
        for number, sample in enumerate(real(self)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.2)
            yield sample

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(DocDataset, "__iter__", killed)
        assert cli.main(["index", *arguments]) == 130
    said = " ".join(capsys.readouterr().err.split())
    assert "are safe" not in said  # no part was whole
    assert "go on with the same command" in said
    assert signal.getsignal(signal.SIGTERM) is before
    assert cli.main(["index", *arguments]) == 0
    assert len(open_index("indexes/dense/local-ready")) == len(Path(files.docs).read_text().splitlines())


@pytest.mark.parametrize("launcher", ["torchrun", "lightning"])
def test_two_processes_train_and_index_from_the_command_line(
    launcher: str, files: Files, tiny: Tiny, tmp_path: Path
) -> None:
    command = "fit" if launcher == "lightning" else "index"
    arguments = on_tiny_data(command, "dense", tiny, tmp_path)
    register = {
        "class_path": "RegisterLocalDatasetCallback",
        "init_args": {"dataset_id": "local/ready", **files.__dict__},
    }
    path = Path(arguments[1])
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["trainer"]["callbacks"] = [register, *config["trainer"].get("callbacks", [])]
    config["trainer"] |= {"devices": 2, "strategy": "ddp"}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    start = (
        ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29613"] if launcher == "torchrun" else []
    )
    subprocess.run(
        [sys.executable, *start, "-m", "pyterrier_lir", command, *arguments], check=True, timeout=400, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}, capture_output=True,
    )  # fmt: skip
    facts = json.loads((tmp_path / "lightning_logs" / "version_0" / "run.json").read_text(encoding="utf-8"))
    assert facts["processes"] == 2
    if command == "fit":
        assert (tmp_path / "lightning_logs" / "version_0" / "model" / "model.safetensors").is_file()
    else:
        index = open_index(tmp_path / "indexes" / "dense" / "local-ready")
        assert len(index) == len(Path(files.docs).read_text().splitlines())
    assert [one.name for one in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
