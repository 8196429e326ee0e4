"""`pyterrier-lir convert`: a checkpoint in the form of another library."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint
    from ..engine import Model

Form = Literal["sentence-transformers", "lightning-ir", "pyterrier-lir"]
TOLERANCE = 1e-5
# What both models are asked: short, long (so that they cut alike), empty, odd.
QUERIES = ("how tall is the tower", "rainfall in the mountains " * 40)
DOCS = ("The tower is 300 m high.", "Naïve café, Straße and 雨: rivers carry sand to the sea. " * 60, "", "query: x")


def convert(
    model: str,
    out: str,
    *,
    to: Form = "sentence-transformers",
    max_length: int | None = None,
    template: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write a checkpoint in the form of another library, if that computes the same scores and vectors.

    The new folder is read again and its scores and vectors are compared with the old ones (difference below 1e-5);
    where they differ, or the form has no place for what the model does, nothing is left and the reason is told.

    Args:
        model: hub id or folder.
        out: the new folder.
        to: sentence-transformers (dense models; classifiers as CrossEncoder), lightning-ir (models of its types), or
            pyterrier-lir (any).
        max_length: change the model to one that reads so many tokens of queries and of documents (of pairs), as
            sentence-transformers has one limit for both.
        template: how a generative model is asked, where its files do not say.
        trust_remote_code: whether Python files of the checkpoint may run.
    """
    from .. import checkpoints

    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{out} is not empty; delete it or choose another folder.")
    checkpoint = checkpoints.load(model, template=template, trust_remote_code=trust_remote_code)
    if max_length is not None:
        checkpoint = _limited(checkpoint, max_length)
    before = numbers(_model(checkpoint))
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write(checkpoint, part, to)
        after = numbers(_read_again(part, f"{model} as a {to} model", trust_remote_code))
        difference = float(abs(before - after).max()) if before.shape == after.shape else float("inf")
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{model} scores otherwise as a {to} model, by up to {difference:.3g}: it was not written."
            )
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"{model} -> {out}, a {to} model; scores agree to {difference:.1g}", file=sys.stderr)


def write(checkpoint: Checkpoint, folder: Path, form: Form) -> None:
    """Write a checkpoint into an empty folder.

    Raises:
        ValueError: if the form has no place for it, with the reason.
    """
    from ..checkpoints import lightning_ir, own, sentence_transformers_form

    if form == "pyterrier-lir":
        own.write(checkpoint, str(folder))
    elif form == "lightning-ir":
        if not lightning_ir.can_write(checkpoint):
            raise ValueError(f"{checkpoint.source} has no type of Lightning IR's that computes the same scores: "
                             f"{_differences(checkpoint)}.")  # fmt: skip
        lightning_ir.write(checkpoint, str(folder))
    else:
        if reason := sentence_transformers_form.why_not_write(checkpoint):
            raise ValueError(f"{checkpoint.source} has no form in sentence-transformers: {reason}.")
        sentence_transformers_form.write(checkpoint, folder)


def numbers(model: Model) -> Any:
    """The scores of some odd pairs, and of a bi-encoder the numbers of all their vectors behind them: (N,)."""
    import numpy as np

    from ..engine import Engine

    engine = Engine(model, device="cpu", precision="float32")
    queries, docs = zip(*((query, doc) for query in QUERIES for doc in DOCS), strict=True)
    found = [engine.score(queries, docs, queries)]
    if hasattr(model, "outputs"):
        encoded = [vectors for texts, query in ((QUERIES, True), (DOCS, False))
                   for vectors in engine.encode(texts, query).values()]  # fmt: skip
        found += [_plain(vectors).ravel() for vectors in encoded]
    return np.concatenate(found)


def _plain(vectors: Any) -> Any:
    """Vectors of any kind as one array."""
    return vectors.toarray() if hasattr(vectors, "toarray") else getattr(vectors, "values", vectors)


def _read_again(part: Path, what: str, trust_remote_code: bool) -> Model:
    """The model that was written, which has another name while it is looked at."""
    from ..models import load_model

    try:
        return load_model(part, trust_remote_code=trust_remote_code)
    except (ValueError, OSError) as error:
        told = str(error).replace(str(part), "the new folder")
        raise ValueError(f"{what} cannot be read again, and was not written: {told}") from error


def _limited(checkpoint: Checkpoint, max_length: int) -> Checkpoint:
    """The checkpoint with another limit of tokens.

    Raises:
        ValueError: for a limit below one, or beyond the backbone's positions.
    """
    from ..models import BiEncoderModel
    from ..pipeline.settings import check_positive

    check_positive("max_length", max_length)
    model = _model(checkpoint).with_options(max_length=max_length)
    return model.checkpoint() if isinstance(model, BiEncoderModel) else replace(checkpoint, config=model.config)


def _model(checkpoint: Checkpoint) -> Model:
    from ..config import CrossEncoderConfig
    from ..models import BiEncoderModel, CrossEncoderModel

    return (CrossEncoderModel if isinstance(checkpoint.config, CrossEncoderConfig) else BiEncoderModel)(checkpoint)


def _differences(checkpoint: Checkpoint) -> str:
    """The choices of a model that are not Lightning IR's."""
    from ..models.facts import changed, kind_of

    told = ", ".join(f"{name}={value!r}" for name, value in changed(checkpoint.config).items())
    return f"a {kind_of(checkpoint.config)} with {told or 'the usual settings'}"
