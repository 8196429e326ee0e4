"""Arrays on disk that grow while they are written and are memory-mapped when they are read, as ordinary .npy files."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self


class ArrayWriter:
    """Appends rows to a .npy file; its length is filled in when it is closed.

    Args:
        path: the file, which is made anew.
        dtype, shape: of one row; `()` for numbers.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.npy"
    >>> with ArrayWriter(path, np.float32, (2,)) as rows:
    ...     rows.append(np.ones((3, 2)))
    >>> np.load(path).shape
    (3, 2)
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self._dtype, self._shape, self.rows = np.dtype(dtype), shape, 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        """Write rows behind those that are there."""
        array = np.ascontiguousarray(fitting(np.asarray(rows), self._dtype))
        if array.shape[1:] != self._shape:
            raise ValueError(f"Rows of shape {array.shape[1:]} do not fit into {self._file.name} of {self._shape}.")
        self._file.write(array.data if array.size else b"")
        self.rows += len(array)

    def close(self) -> None:
        """Fill in the length and make sure that the file is on the disk."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        sync(self._file)
        self._file.close()

    def _write_header(self) -> None:
        # numpy pads the header so that the first axis can grow in place
        values = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


def fitting(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """The array as another type.

    Raises:
        ValueError: for finite numbers that are infinite in float16.
    """
    with np.errstate(over="ignore"):
        out = array.astype(dtype, copy=False)
    if out.dtype == np.float16 and out.dtype != array.dtype and np.isinf(out).any() and np.isfinite(array).all():
        raise ValueError(f"{np.abs(array).max():.0f} does not fit into float16 (at most 65504); give dtype='float32'.")
    return out


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a whole array, on the disk when this returns."""
    with ArrayWriter(path, array.dtype, array.shape[1:]) as writer:
        writer.append(array)


def map_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file, read from the disk as it is used."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: the index is damaged.")
    array = np.lib.format.open_memmap(path, mode="r") if _has_rows(path) else np.load(path)
    return cast("NDArray[Any]", array)


def kept_arrays(
    folder: Path, names: Sequence[str], write: Callable[[Path], None], check: Callable[[], None]
) -> dict[str, NDArray[Any]]:
    """The arrays in a folder, memory-mapped; if there is none, it is made once, beside it and renamed.

    Args:
        folder, names: `name.npy` in the folder.
        write: makes the files in the folder that it is given; where none can be made, in a temporary one, from which
            they are read into memory.
        check: raises OSError if what was made is not to be kept.
    """
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            write(part)
            check()
            with contextlib.suppress(OSError):  # another process was faster
                part.rename(folder)
            shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            warnings.warn(f"{folder} cannot be written ({error}); it is made anew in each process.", stacklevel=2)
            shutil.rmtree(part, ignore_errors=True)
            with tempfile.TemporaryDirectory() as place:
                write(Path(place))
                return {name: np.array(map_array(Path(place) / f"{name}.npy")) for name in names}
    return {name: np.asarray(map_array(folder / f"{name}.npy")) for name in names}


def _has_rows(path: Path) -> bool:
    """Whether the array has any number, without which a file cannot be mapped."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape = reader(file)[0]
    return 0 not in shape


def sync(file: BinaryIO) -> None:
    """Wait until a file's bytes are on the disk."""
    os.fsync(file.fileno())
