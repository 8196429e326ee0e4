"""Files of weights: which there are, and errors of broken ones that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file


def weight_files(folder: Path) -> list[Path]:
    """The weight files directly in `folder`: safetensors where there are any, else PyTorch's."""
    return sorted(folder.glob("*.safetensors")) or sorted(
        path for path in folder.glob("*.bin") if path.name.startswith("pytorch_model")
    )


def check_complete(path: Path) -> None:
    """Open a safetensors file's header, so that a cut-off download fails before anything else is done.

    Raises:
        ValueError: if the file is truncated or corrupt.
    """
    if path.suffix == ".safetensors":
        with readable(path), safe_open(path, framework="pt"):
            pass


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the many errors of broken weight files into one that says which file and what to do."""
    try:
        yield
    except (SafetensorError, EOFError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"The weights at {path} cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "the file is truncated, corrupt or does not fit its config.json. Download it anew."
        ) from error
    except OSError as error:
        raise FileNotFoundError(f"No weights at {path} ({str(error).splitlines()[0]}).") from error


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, safetensors or PyTorch's.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is truncated or corrupt.
    """
    with readable(path):
        if path.suffix == ".safetensors":
            state: dict[str, torch.Tensor] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    return state
