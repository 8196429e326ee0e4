"""From a folder or hub id to a model's parts, and back: the only road from a name to weights.

A checkpoint is recognised by its files, never by its name.  `READERS` lists the formats in the order in which they are
tried; each is a module with `why_not(files)` (None if the folder is of this format, else the reason it is not) and
`read(files, options)`.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch

from . import causal_lm, lightning_ir, own, sentence_transformers, sequence_classification, t5
from .checkpoint import Checkpoint, ReadOptions
from .files import Files

__all__ = ["READERS", "Checkpoint", "load", "save"]

READERS: dict[str, ModuleType] = {
    "pyterrier_lir": own,
    "Lightning IR": lightning_ir,
    "sentence-transformers": sentence_transformers,
    "T5 re-ranker": t5,
    "causal language model": causal_lm,
    "sequence classification": sequence_classification,
}


def load(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    template: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Read a checkpoint: a local folder, or the id of a model on the Hugging Face hub.

    Args:
        dtype: of the weights in memory.
        template: how a generative re-ranker is prompted and read, where its files do not say:
            a key of `checkpoints.registry.TEMPLATES`, such as `"rankt5"`.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether Python files of the checkpoint may run.

    Raises:
        FileNotFoundError: for an unknown name, missing weights or a missing tokenizer.
        ValueError: for an unknown format (with what was tried and why each said no), truncated or corrupt weights,
            and checkpoints that cannot score a pair.
    """
    files = Files(os.fspath(name), revision, trust_remote_code)
    options = ReadOptions(dtype=dtype, template=template)
    reasons: dict[str, str] = {}
    for format_name, reader in READERS.items():
        reason = reader.why_not(files)
        if reason is None:
            checkpoint: Checkpoint = reader.read(files, options)
            return checkpoint
        reasons[format_name] = reason
    tried = "\n".join(f"  {format_name}: {reason}" for format_name, reason in reasons.items())
    raise ValueError(f"{files.name} is a checkpoint of no known format. Tried:\n{tried}")


def save(checkpoint: Checkpoint, folder: str | os.PathLike[str]) -> None:
    """Write what `load` reads: Lightning IR's own format where that has the model type, else the format it came in.

    Raises:
        FileExistsError: if `folder` already holds files.
    """
    target = os.fspath(folder)
    if os.path.isdir(target) and os.listdir(target):
        raise FileExistsError(f"{target} is not empty; delete it or choose another folder.")
    os.makedirs(target, exist_ok=True)
    if lightning_ir.can_write(checkpoint.config):
        lightning_ir.write(checkpoint, target)
    else:
        own.write(checkpoint, target)
