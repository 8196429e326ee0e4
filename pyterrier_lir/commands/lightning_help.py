"""The help of fit, index, search and re_rank, which answers without importing Lightning."""

from __future__ import annotations

_DOES = {
    "fit": ("fit", "--trainer.max_steps 1000 --optimizer.lr 2e-5"),
    "index": ("index", "--model.model_name_or_path FOLDER"),
    "search": ("search", "--model.model_name_or_path FOLDER"),
    "re_rank": ("re-rank", "--model.model_name_or_path FOLDER"),
}


def help_of(command: str, summary: str) -> str:
    """What `pyterrier-lir COMMAND --help` says of a command that runs a Lightning trainer.

    >>> print(help_of("fit", "fine-tune a model").splitlines()[0])
    usage: pyterrier-lir fit --config FILE [--config FILE ...] [--FLAG VALUE ...]
    """
    ready, flags = _DOES[command]
    return f"""\
usage: pyterrier-lir {command} --config FILE [--config FILE ...] [--FLAG VALUE ...]

{summary[0].upper()}{summary[1:]}, as YAML files say; flags behind them on the line win.

  --config FILE       a YAML file, or the name of a ready one of the package, such as `splade`
  --print_config      print what would run, with all defaults, and stop
  --debug             show where an error came from

  --trainer.*         LightningIRTrainer: accelerator, devices, num_nodes, precision, max_steps, callbacks, logger ...
  --model.*           the module: class_path (BiEncoderModule, CrossEncoderModule) and its init_args
  --data.*            LightningIRDataModule: train_dataset, train_batch_size, inference_datasets ...
  --optimizer.*       the optimizer: class_path and its init_args
  --lr_scheduler.*    the schedule of the learning rate: class_path and its init_args

Classes go by their short names: --model BiEncoderModule.  All settings of one: --model.help BiEncoderModule,
--data.help LightningIRDataModule, --trainer.callbacks.help CALLBACK.

    pyterrier-lir {command} --config splade {flags}
    pyterrier-lir {command} --config my-{ready}.yaml --print_config"""
