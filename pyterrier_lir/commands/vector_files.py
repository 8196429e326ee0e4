"""Files of vectors in the formats that others read, written a chunk at a time.

| name | of dense | of sparse | of multi-vector |
|---|---|---|---|
| .npy | (N, D) float32 | | |
| .npz | `vectors` (N, D) | as `scipy.sparse.load_npz` reads them | `values` (tokens, D), `offsets` (N + 1,), `tokens` |
| .parquet | fixed-size list | map token -> weight | list of fixed-size lists |
| .jsonl | list | object | list of lists |
"""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from typing_extensions import Self

from ..columns import VECTOR_COLUMNS, Terms, with_vectors
from ..config import Kind
from ..indexes.arrays import ArrayWriter
from ..vectors import Encoded, TokenVectors

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from ..models import BiEncoderModel
    from ..pipeline import LIRBiEncoder

SUFFIXES = (".npy", ".npz", ".parquet", ".jsonl")


def part_of(path: Path, part: tuple[int, int] | None) -> Path:
    """Where a part of a file is written.

    >>> str(part_of(Path("x/vectors.npy"), (0, 2)))
    'x/vectors.part-0-of-2.npy'
    """
    return path if part is None else path.with_name(f"{path.stem}.part-{part[0]}-of-{part[1]}{path.suffix}")


class VectorFile:
    """A file of vectors that has its name when it is whole: a context that is left by an error leaves nothing.

    Args:
        path: tells the format by its name; None for JSON lines on standard output.
        encoder: whose vectors these are.
        query: whether they are of queries.

    Raises:
        ValueError: for a name that tells no format, or a format that does not hold the model's vectors.
        ImportError: for .parquet without pyarrow.
    """

    def __init__(self, path: Path | None, encoder: LIRBiEncoder, query: bool) -> None:
        from ..pipeline.scoring import terms_of

        self.path, self.count = path, 0
        suffix = ".jsonl" if path is None else path.suffix
        if suffix not in SUFFIXES:
            raise ValueError(
                f"out={str(path)!r}; allowed: names that end in {', '.join(SUFFIXES)}, or - for JSON lines."
            )
        model = cast("BiEncoderModel", encoder.engine().model)
        fits = {".npy": model.kinds == ["dense"], ".npz": len(model.kinds) == 1}
        if not fits.get(suffix, True):
            raise ValueError(
                f"{path}: {model.source} makes {' and '.join(model.kinds)} vectors; .npy holds dense ones, .npz those "
                "of one kind (--outputs chooses), .parquet and .jsonl all."
            )
        terms = terms_of(model, encoder.token_ids) if "sparse" in model.kinds else None
        columns = Columns(query, terms)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: _Lines | _Parquet | _Arrays
        if suffix == ".jsonl":
            self._writer = _Lines(path, columns)
        elif suffix == ".parquet":
            self._writer = _Parquet(cast("Path", path), columns, lambda: encoder.engine().encode([], query))
        else:
            self._writer = _Arrays(cast("Path", path), model.kinds[0], model.size(model.kinds[0]))

    def append(self, names: Sequence[str], encoded: Encoded) -> None:
        """Write the vectors of the next texts with their ids."""
        self._writer.append(names, encoded)
        self.count += len(names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close(whole=kind is None)


class Columns:
    """How the columns are called, and how sparse vectors name their terms."""

    def __init__(self, query: bool, terms: Terms | None) -> None:
        self.query, self.terms = query, terms
        self.id = "qid" if query else "docno"

    def of(self, kind: Kind) -> str:
        """The column of a kind of vectors."""
        return VECTOR_COLUMNS[kind][0 if self.query else 1]


class _Lines:
    """JSON lines."""

    def __init__(self, path: Path | None, columns: Columns) -> None:
        self._path, self._columns = path, columns
        self._file: TextIO = sys.stdout if path is None else _beside(path).open("w", encoding="utf-8")

    def append(self, names: Sequence[str], encoded: Encoded) -> None:
        import pandas as pd

        frame = pd.DataFrame({self._columns.id: list(names)})
        frame = with_vectors(frame, encoded, np.arange(len(frame)), self._columns.query, self._columns.terms)
        for row in frame.to_dict(orient="records"):
            plain = {str(key): value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()}
            self._file.write(json.dumps(plain, ensure_ascii=False) + "\n")

    def close(self, whole: bool) -> None:
        if self._path is None:
            self._file.flush()
            return
        self._file.close()
        _name(self._path, whole)


class _Parquet:
    """A table of which each chunk is a group of rows; of no texts, one of the same columns without rows.

    Args:
        nothing: makes the vectors of no texts.
    """

    def __init__(self, path: Path, columns: Columns, nothing: Callable[[], Encoded]) -> None:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{path}: Parquet is written with pyarrow: pip install 'pyterrier-lir[parquet]'"
            ) from error
        self._path, self._columns, self._nothing = path, columns, nothing
        self._writer: Any = None
        _beside(path).unlink(missing_ok=True)

    def append(self, names: Sequence[str], encoded: Encoded) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        arrays: dict[str, Any] = {self._columns.id: pa.array(list(names), pa.string())}
        for kind, vectors in encoded.items():
            column = self._columns.of(kind)
            if isinstance(vectors, TokenVectors):
                arrays[column] = pa.ListArray.from_arrays(_int32(vectors.offsets), _fixed(vectors.values))
                if vectors.ids is not None:
                    arrays[f"{column}_toks"] = pa.ListArray.from_arrays(_int32(vectors.offsets), pa.array(vectors.ids))
            elif kind == "sparse":
                sparse = cast("csr_array", vectors)
                terms = pa.array(cast("Terms", self._columns.terms).names[sparse.indices].tolist(), pa.string())
                arrays[column] = pa.MapArray.from_arrays(_int32(sparse.indptr), terms, pa.array(sparse.data))
            else:
                arrays[column] = _fixed(cast("np.ndarray", vectors))
        table = pa.table(arrays)
        if self._writer is None:
            self._writer = parquet.ParquetWriter(_beside(self._path), table.schema)
        self._writer.write_table(table)

    def close(self, whole: bool) -> None:
        if self._writer is None and whole:
            self.append([], self._nothing())
        if self._writer is not None:
            self._writer.close()
        _name(self._path, whole)


class _Arrays:
    """NumPy's files; the arrays of an .npz grow in a folder beside it."""

    def __init__(self, path: Path, kind: Kind, size: int) -> None:
        self._path, self._kind, self._size = path, kind, size
        self._ids_path = path.with_suffix(".ids.txt")
        _check_ids_are_own(self._ids_path, path)
        self._work = path.with_name(path.name + ".building")
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        self._arrays: dict[str, ArrayWriter] = {}
        self._ids = (self._work / "ids.txt").open("w", encoding="utf-8")
        starts = {"sparse": "indptr", "multi_vector": "offsets"}
        if kind == "dense":
            self._append("vectors", np.empty((0, size), np.float32))
        else:
            self._append(starts[kind], np.zeros(1, np.int64))
        self._last = 0

    def append(self, names: Sequence[str], encoded: Encoded) -> None:
        if broken := next((name for name in names if "\n" in name), None):
            raise ValueError(f"id {broken!r} has a line break; ids beside a .npy are one a line. Write .parquet.")
        self._ids.writelines(f"{name}\n" for name in names)
        [vectors] = encoded.values()
        if isinstance(vectors, TokenVectors):
            self._append("values", vectors.values)
            self._append("offsets", self._last + vectors.offsets[1:])
            if vectors.ids is not None:
                self._append("tokens", vectors.ids)
            self._last += int(vectors.offsets[-1])
        elif self._kind == "sparse":
            sparse = cast("csr_array", vectors)
            self._append("data", sparse.data)
            self._append("indices", sparse.indices.astype(np.int64))
            self._append("indptr", self._last + sparse.indptr[1:].astype(np.int64))
            self._last += int(sparse.indptr[-1])
        else:
            self._append("vectors", cast("np.ndarray", vectors))

    def _append(self, name: str, rows: np.ndarray) -> None:
        if name not in self._arrays:
            self._arrays[name] = ArrayWriter(self._work / f"{name}.npy", rows.dtype, rows.shape[1:])
        self._arrays[name].append(rows)

    def close(self, whole: bool) -> None:
        self._ids.close()
        for array in self._arrays.values():
            array.close()
        if whole:
            if self._path.suffix == ".npz":
                self._zip()
            else:
                (self._work / "vectors.npy").replace(_beside(self._path))
            (self._work / "ids.txt").replace(self._ids_path)
            _name(self._path, whole)
        shutil.rmtree(self._work)

    def _zip(self) -> None:
        if self._kind == "sparse":
            rows = self._arrays["indptr"].rows - 1
            for name in ("data", "indices"):
                self._append(
                    name, np.empty(0, np.float32 if name == "data" else np.int64)
                ) if name not in self._arrays else None
            extra = {"shape": np.array([rows, self._size]), "format": np.array(b"csr"), "_is_array": np.array(True)}
            for name, value in extra.items():
                np.save(self._work / f"{name}.npy", value)
        with zipfile.ZipFile(_beside(self._path), "w", zipfile.ZIP_STORED, allowZip64=True) as file:
            for path in sorted(self._work.glob("*.npy")):
                file.write(path, path.name)


def _check_ids_are_own(ids: Path, path: Path) -> None:
    """Refuse to write the ids of `path` over those of another output, or over what is no output's."""
    other = path.with_suffix(".npz" if path.suffix == ".npy" else ".npy")
    if ids.exists() and (other.exists() or not path.exists()):
        whose = f"holds the ids of {other}" if other.exists() else "is there already"
        raise FileExistsError(f"{ids} {whose}; the ids of {path} would go there: choose another name, or delete it.")


def _int32(offsets: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(np.asarray(offsets, dtype=np.int32))


def _fixed(rows: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])


def _beside(path: Path) -> Path:
    """What a file is called while it is written."""
    return path.with_name(path.name + ".part")


def _name(path: Path, whole: bool) -> None:
    """Give a whole file its name; drop another."""
    if whole:
        _beside(path).replace(path)
    else:
        _beside(path).unlink(missing_ok=True)
