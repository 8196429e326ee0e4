"""From a folder or hub id to a model's parts, and back: the only road from a name to weights.

A checkpoint is recognised by its files, never by its name.  `READERS` lists the formats in the order in which they are
tried; each is a module with `why_not(files)` (None if the folder is of this format, else the reason it is not),
`kinds(files)` (of a bi-encoder's vectors; no weights are needed) and `read(files, options)`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch

from ..config import KINDS, BiEncoderConfig, CrossEncoderConfig, Kind
from . import (
    backbone,
    bge_m3,
    causal_lm,
    colbert,
    kept_layers,
    lightning_ir,
    own,
    sentence_transformers,
    sentence_transformers_form,
    sequence_classification,
    splade,
    t5,
    unicoil,
    xtr,
)
from .checkpoint import Checkpoint, ReadOptions
from .files import Files

__all__ = ["READERS", "Checkpoint", "Layout", "kinds", "load", "outline", "save"]

Layout = Literal["Lightning IR", "sentence-transformers"]

READERS: dict[str, ModuleType] = {
    "pyterrier_lir": own,
    "Lightning IR": lightning_ir,
    "ColBERT": colbert,
    "BGE-M3": bge_m3,
    "XTR": xtr,
    "sentence-transformers": sentence_transformers,
    "public backbone": backbone,
    "T5 re-ranker": t5,
    "causal language model": causal_lm,
    "sequence classification": sequence_classification,
    "SPLADE": splade,
    "UniCOIL": unicoil,
}


def load(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    template: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    outputs: Sequence[Kind] | None = None,
    config: BiEncoderConfig | CrossEncoderConfig | None = None,
    default: BiEncoderConfig | CrossEncoderConfig | None = None,
    merge_adapter: bool = True,
) -> Checkpoint:
    """Read a checkpoint: a local folder, or the id of a model on the Hugging Face hub.

    Args:
        dtype: of the weights in memory.
        template: how a generative re-ranker is prompted and read, where its files do not say:
            a key of `checkpoints.registry.TEMPLATES`, such as `"rankt5"`.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether Python files of the checkpoint may run.
        outputs: which outputs of a bi-encoder that has several, such as `("dense", "sparse")` of BGE-M3; None for
            the usual ones.
        config: another configuration than the checkpoint's.  Layers behind the backbone are kept where it asks for
            such ones, else new ones are made, which have to be trained; a warning says so.
        default: makes a new model of a backbone alone, which has to be trained; also of a masked language model, where
            that is a cross-encoder's.
        merge_adapter: whether the changes of a PEFT adapter are added to the weights of its base.

    Raises:
        FileNotFoundError: for an unknown name, missing weights or a missing tokenizer.
        ValueError: for an unknown format (with what was tried and why each said no), truncated or corrupt weights,
            checkpoints that cannot score a pair, and outputs that there are not.
        ImportError: for an adapter without the package peft.
    """
    files = Files(os.fspath(name), revision, trust_remote_code, merge_adapter)
    options = ReadOptions(dtype=dtype, template=template, outputs=tuple(outputs) if outputs else None)
    checkpoint = _load(files, options, config, default)
    _check_vocabulary(checkpoint)
    return checkpoint


def _load(
    files: Files,
    options: ReadOptions,
    config: BiEncoderConfig | CrossEncoderConfig | None,
    default: BiEncoderConfig | CrossEncoderConfig | None,
) -> Checkpoint:
    if config is not None:
        return _reconfigured(files, options, config)
    if default is not None and _is_backbone(files, default):
        kind = type(default).__name__.removesuffix("Config")
        warnings.warn(f"{files.name} is a backbone alone: the new {kind} on it has to be trained.", stacklevel=4)
        return backbone.new(files, options, default)
    reader = _reader(files)
    if reader is splade and not splade.says_so(files):
        warnings.warn(
            f"{files.name} is read as SPLADE, though nothing but its head speaks for it; a plain masked language model "
            "has to be trained first.",
            stacklevel=4,
        )
    checkpoint: Checkpoint = reader.read(files, options)
    return _chosen(checkpoint, options)


def _reconfigured(files: Files, options: ReadOptions, config: BiEncoderConfig | CrossEncoderConfig) -> Checkpoint:
    """A model of another configuration on a checkpoint's backbone."""
    reader = next((reader for reader in READERS.values() if reader.why_not(files) is None), backbone)
    if reader is backbone:
        return backbone.new(files, options, config)
    try:
        own = _chosen(reader.read(files.without_weights(), options), options)
    except ValueError:  # how the checkpoint itself would score does not matter for a new model
        return backbone.new(files, options, config)
    if kept_layers.fits(own, config):
        return kept_layers.with_config(files, _chosen(reader.read(files, options), options), config)
    if kept_layers.scores(own) and reader is not splade and type(own.config) is type(config):
        kind = type(config).__name__.removesuffix("Config")
        warnings.warn(
            f"{files.name} loses its own last layers, as config= asks for others: the new {kind} has to be trained.",
            stacklevel=5,
        )
    return backbone.new(files, options, config)


def _check_vocabulary(checkpoint: Checkpoint) -> None:
    """Warn of tokens that the backbone has no embeddings for: texts with one fail, and on a GPU all that come after."""
    embeddings: Any = checkpoint.backbone.get_input_embeddings()
    size = len(embeddings.weight)
    if len(checkpoint.tokenizer) > size:
        beyond = [token for token, i in checkpoint.tokenizer.get_vocab().items() if i >= size]
        warnings.warn(
            f"The tokenizer of {checkpoint.source} has {len(checkpoint.tokenizer)} tokens, its backbone embeddings for "
            f"{size}: texts with {', '.join(map(repr, sorted(beyond)[:5]))} cannot be computed. Is the tokenizer of "
            "another checkpoint?",
            stacklevel=4,
        )


def kinds(
    name: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool = False
) -> tuple[Kind, ...]:
    """What kinds of vectors a checkpoint makes, by its small files, without its weights; none for cross-encoders.

    Raises:
        FileNotFoundError: for an unknown name.
        ValueError: for an unknown format.
    """
    files = Files(os.fspath(name), revision, trust_remote_code, weights=False)
    found: tuple[Kind, ...] = _reader(files).kinds(files)
    return found


def _is_backbone(files: Files, default: BiEncoderConfig | CrossEncoderConfig) -> bool:
    """Whether a backbone has nothing that a model of the default's class scores by."""
    if not files.config.get("model_type"):
        return False
    reader = next((reader for reader in READERS.values() if reader.why_not(files) is None), None)
    return reader is None or (reader is splade and isinstance(default, CrossEncoderConfig))


def outline(
    name: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool = False
) -> tuple[str, Checkpoint]:
    """The format of a checkpoint, and its parts as `load` returns them, but without the numbers of the backbone.

    Its configurations, its tokenizer and the layers of a head are there; the backbone is on the device `meta`.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    files = Files(os.fspath(name), revision, trust_remote_code, weights=False)
    reader = _reader(files)
    format_name = next(known for known, module in READERS.items() if module is reader)
    return format_name, _all_outputs(reader, files)


def _all_outputs(reader: ModuleType, files: Files) -> Checkpoint:
    """The checkpoint with all outputs that it has."""
    every: Checkpoint = reader.read(files, ReadOptions(outputs=KINDS))
    return every


def _reader(files: Files) -> ModuleType:
    reasons: dict[str, str] = {}
    for format_name, reader in READERS.items():
        reason = reader.why_not(files)
        if reason is None:
            return reader
        reasons[format_name] = reason
    tried = "\n".join(f"  {format_name}: {reason}" for format_name, reason in reasons.items())
    raise ValueError(f"{files.name} is a checkpoint of no known format. Tried:\n{tried}")


def _chosen(checkpoint: Checkpoint, options: ReadOptions) -> Checkpoint:
    if options.outputs is None:
        return checkpoint
    if isinstance(checkpoint.config, CrossEncoderConfig):
        raise ValueError(f"outputs={options.outputs!r}: {checkpoint.source} is a cross-encoder, which has one score.")
    return checkpoint.only(options.outputs)


def save(checkpoint: Checkpoint, folder: str | os.PathLike[str], layout: Layout | None = None) -> None:
    """Write what `load` reads.

    Args:
        layout: of which library; None for Lightning IR's where that has the model type, else for this package's own,
            which sentence-transformers opens too where it can: dense bi-encoders and sequence classification.

    Raises:
        FileExistsError: if `folder` already holds files.
        ValueError: if the library has no such model, naming why.
    """
    target = os.fspath(folder)
    if layout not in (None, "Lightning IR", "sentence-transformers"):
        raise ValueError(f"layout={layout!r}; allowed: None, 'Lightning IR', 'sentence-transformers'.")
    lir = lightning_ir.can_write(checkpoint)
    if layout == "Lightning IR" and not lir:
        raise ValueError(f"layout={layout!r}: Lightning IR has no model type that does what this one does.")
    why_not = sentence_transformers_form.why_not_write(checkpoint, one_length=False)
    if layout == "sentence-transformers" and why_not:
        raise ValueError(f"layout={layout!r}: {why_not}.")
    if os.path.isdir(target) and os.listdir(target):
        raise FileExistsError(f"{target} is not empty; delete it or choose another folder.")
    os.makedirs(target, exist_ok=True)
    if lir and layout != "sentence-transformers":
        lightning_ir.write(checkpoint, target)
        return
    if why_not is None and isinstance(checkpoint.config, BiEncoderConfig):
        sentence_transformers_form.write_modules(checkpoint, Path(target))
    own.write(checkpoint, target)
