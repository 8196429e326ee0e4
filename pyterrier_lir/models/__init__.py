"""Token ids in, numbers out: plain torch, usable alone."""

from __future__ import annotations

import os
from typing import Any

from .. import checkpoints
from ..checkpoints import Layout
from ..config import CrossEncoderConfig
from .bi_encoder import BiEncoderModel
from .cross_encoder import CrossEncoderModel

__all__ = ["BiEncoderModel", "CrossEncoderModel", "Layout", "load_model"]


def load_model(name: str | os.PathLike[str], **options: Any) -> CrossEncoderModel | BiEncoderModel:
    """The model of a folder or hub id, whatever kind it is; it can be given to every transformer in place of its name.

    Args:
        name: a folder or hub id.
        options: of `checkpoints.load`, such as `dtype`, `revision`, or `config` for another configuration.

    Raises:
        ValueError, FileNotFoundError: see `checkpoints.load`.

    >>> load_model("sentence-transformers/all-MiniLM-L6-v2").kinds  # doctest: +SKIP
    ['dense']
    """
    checkpoint = checkpoints.load(name, **options)
    if isinstance(checkpoint.config, CrossEncoderConfig):
        return CrossEncoderModel(checkpoint)
    return BiEncoderModel(checkpoint)
