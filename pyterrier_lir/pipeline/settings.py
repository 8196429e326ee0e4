"""What the settings of transformers may be, whatever the model is: mistakes are told before anything is loaded."""

from __future__ import annotations

import difflib
from numbers import Integral, Real
from typing import Any

_POSITIVE = {"batch_size", "max_length", "query_length", "doc_length", "truncate_dim", "query_top_k", "doc_top_k"}
_COLUMNS = {"text_field", "query_field"}
_SWITCHES = {"verbose", "token_ids", "trust_remote_code", "merge_adapter"}
_NUMBERS = {"query_threshold", "doc_threshold"}
_STRINGS = {"template", "instruction", "activation", "revision", "query_prompt", "doc_prompt", "query_prompt_name",
            "doc_prompt_name"}  # fmt: skip


def checked(name: str, value: Any) -> Any:
    """The value of a setting; a whole number of NumPy as Python's own, a list of outputs as a tuple.

    >>> checked("outputs", ["dense"])
    ('dense',)

    Raises:
        TypeError, ValueError: with the name, what was given and what is allowed.
    """
    allowed = None
    if name in _POSITIVE:
        return check_positive(name, value)
    if name == "outputs":
        return _outputs(value)
    if name in _COLUMNS and not isinstance(value, str):
        allowed = ("the name of a column. Join several in front: "
                   "pt.apply.text(lambda row: row['title'] + ' ' + row['text']) >> ...")  # fmt: skip
    elif name in _SWITCHES and not isinstance(value, bool):
        allowed = "True or False."
    elif name in _NUMBERS and not (value is None or (isinstance(value, Real) and not isinstance(value, bool))):
        allowed = "a number, or None."
    elif name in _STRINGS and not (value is None or isinstance(value, str)):
        kind = "the name of a class of torch.nn, such as 'Sigmoid'" if name == "activation" else "a string"
        allowed = f"{kind}, or None."
    if allowed is not None:
        raise TypeError(f"{name}={value!r}; allowed: {allowed}")
    return value


def check_positive(name: str, value: Any) -> int | None:
    """A positive whole number as Python's own, or None.

    Raises:
        ValueError: for anything else, with what was given.
    """
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}; allowed: a positive number, or None.")
    return int(value)


def _outputs(value: Any) -> tuple[Any, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, (list, tuple)) or not value:
        example = value if isinstance(value, str) else "dense"
        raise TypeError(f"outputs={value!r}; allowed: a tuple, such as ({example!r},).")
    return tuple(value)


def check_activation(name: str) -> None:
    """Check that torch.nn has an activation of that name, which may be dotted.

    Raises:
        ValueError: with the nearest name.
    """
    from torch import nn

    from ..checkpoints.checkpoint import activation

    try:
        activation(name)
    except (ValueError, TypeError) as error:  # TypeError: a layer that needs arguments, such as Linear
        lower = {one.lower(): one for one in dir(nn.modules.activation) if isinstance(getattr(nn, one, None), type)}
        near = difflib.get_close_matches(name.rsplit(".", 1)[-1].lower(), lower, n=1)
        hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
        raise ValueError(
            f"activation={name!r}; allowed: the name of an activation of torch.nn, such as 'Sigmoid'.{hint}"
        ) from error
