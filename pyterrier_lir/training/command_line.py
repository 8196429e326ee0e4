"""`pyterrier-lir fit | index | search | re_rank`: LightningCLI over the trainer, modules and datasets."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, set_loader, set_parsing_settings
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .. import (
    model_configs,
    training,  # what is imported can be named without its module
)
from ..indexes import configs
from .interruption import Interrupted, Interruption
from .objectives import OBJECTIVES
from .run_folder import RunFolder
from .schedulers import LR_SCHEDULERS
from .trainer import LightningIRTrainer

READY = Path(__file__).parents[1] / "configs"
_INFERENCE = {"model", "dataloaders", "datamodule", "verbose"}
COMMANDS = {"fit": LightningCLI.subcommands()["fit"], "index": _INFERENCE, "search": _INFERENCE, "re_rank": _INFERENCE}


def main(command: str, argv: Sequence[str]) -> None:
    """Run one of the `COMMANDS`.

    Raises:
        jsonargparse.ArgumentError: for keys and values that are not allowed.
        FileNotFoundError: for files that are not there.
        KeyboardInterrupt: after a signal; the message says how to go on.
    """
    set_loader("yaml_of_lightning_ir", load_yaml)
    set_parsing_settings(subclasses_enabled=[configs.IndexConfig, configs.SearchConfig])
    try:
        CommandLine(command, [command, *with_ready_files(command, argv)])
    except Interrupted as stop:
        raise KeyboardInterrupt(" ".join([*getattr(stop, "__notes__", ()), str(stop)])) from None
    except ArgumentError:
        raise
    except ValueError as error:
        if (reason := reason_of(str(error))) is None:
            raise
        raise ValueError(reason) from error


def reason_of(message: str) -> str | None:
    r"""What a constructor said, out of the many lines that jsonargparse makes of it; None if there are not.

    >>> reason_of("Errors:\n  - size=0; allowed: 1.\n  - Expected a <class 'NoneType'>\nGiven value: ...")
    'size=0; allowed: 1.'
    """
    told = r"^ *- (?!Expected an? |Does not validate)(.+?)\n *- Expected an? "
    found = re.findall(told, message, re.DOTALL | re.MULTILINE)
    return found[-1].rpartition("Errors:\n")[2].strip().removeprefix("- ") if found else None


def names() -> list[str]:
    """What may stand in a configuration: dotted names of the trainer's and command's settings, and names of classes."""
    trainer = inspect.signature(Trainer.__init__).parameters
    public = import_module(__package__.partition(".")[0]).__all__
    groups = ["trainer", "model", "data", "optimizer", "lr_scheduler", "seed_everything", "ckpt_path", "config"]
    optimizers = [f"torch.optim.{name}" for name in ("AdamW", "Adam", "SGD", "Adafactor")]
    trainers = [f"trainer.{name}" for name in trainer if name != "self"]
    return [*groups, *trainers, *public, *training.__all__, *OBJECTIVES, *optimizers]


def with_ready_files(command: str, argv: Sequence[str]) -> list[str]:
    """The arguments, with the paths of the package's own files in place of their names.

    Raises:
        FileNotFoundError: for `--config` with neither a file nor the name of one.
    """
    out = list(argv)
    for place, argument in enumerate(out):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-c") or (not equals and place + 1 == len(out)):
            continue
        given = value if equals else out[place + 1]
        found = given if Path(given).is_file() else _ready(command, given)
        out[place if equals else place + 1] = f"{flag}={found}" if equals else found
    return out


def _ready(command: str, name: str) -> str:
    names = {path.stem: path for folder in (READY, READY / command) for path in folder.glob("*.yaml")}
    if name in names:
        return str(names[name])
    near = difflib.get_close_matches(name, names, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise FileNotFoundError(
        f"--config {name}: no such file, and no ready one; those of {command} are: {', '.join(sorted(names))}.{hint}"
    )


def load_yaml(text: str) -> Any:
    """YAML in which classes of Lightning IR stand for those of this package that bear their names.

    >>> load_yaml("class_path: lightning_ir.RankNet")
    {'class_path': 'RankNet'}
    >>> load_yaml("class_path: lightning_ir.models.SpladeConfig")
    {'class_path': 'pyterrier_lir.model_configs.SpladeConfig'}
    """
    return _renamed(yaml.safe_load(text))


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if not isinstance(value, str):
        return value
    name = value.rpartition(".")[2] if value.startswith("lightning_ir.") else value
    return f"{model_configs.__name__}.{name}" if name in model_configs.__all__ else name


class CommandLine(LightningCLI):
    """LightningCLI for one command.

    Args:
        command: one of `COMMANDS`.
        args: the command and its arguments.
    """

    def __init__(self, command: str, args: Sequence[str]) -> None:
        self._command = command
        settings = {"parser_mode": "yaml_of_lightning_ir", "exit_on_error": False}
        super().__init__(
            trainer_class=LightningIRTrainer, save_config_callback=RunFolder,
            save_config_kwargs={"overwrite": True, "command": command}, seed_everything_default=0,
            trainer_defaults={"callbacks": [Interruption()]},
            parser_kwargs={**settings, command: settings}, args=list(args),
        )  # fmt: skip

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command alone, so that no others are prepared."""
        return {self._command: COMMANDS[self._command]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what is given, whatever the process was started with."""
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Learning rate schedulers that know how long training takes."""
        parser.add_lr_scheduler_args(LR_SCHEDULERS)
        parser.link_arguments("trainer.max_steps", "lr_scheduler.init_args.num_training_steps")

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: Any = None
    ) -> dict[str, Any]:
        """The optimiser that is given, with a scheduler, or with the module's own schedule."""
        module: Any = lightning_module
        if lr_scheduler is None:
            lr_scheduler = LambdaLR(optimizer, module.schedule.over(module.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}
