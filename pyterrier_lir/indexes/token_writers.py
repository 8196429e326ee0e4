"""Writers of a shard's token vectors: as they are, or compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ..vectors import TokenVectors, Vectors, concatenate
from .arrays import ArrayWriter
from .residuals import PER_CENTROID, SAMPLE, CodedVectors, ResidualCodec


class TokenWriter:
    """Writes the vectors of a shard, where each document's begin, and the tokens that they are of."""

    def __init__(self, folder: Path, size: int | None, dtype: str, normalised: bool, with_ids: bool) -> None:
        self._normalised, self.size = normalised, 0
        self._offsets = ArrayWriter(folder / "offsets.npy", np.int64)
        self._offsets.append([0])
        self._ids = ArrayWriter(folder / "ids.npy", np.int32) if with_ids else None
        self._open(folder, size or 0, dtype)

    def _open(self, folder: Path, size: int, dtype: str) -> None:
        self._vectors = ArrayWriter(folder / "vectors.npy", dtype, (size,))
        self._rows = 0

    def append(self, vectors: Vectors) -> None:
        """Write the vectors of further documents."""
        rows = cast("TokenVectors", vectors)
        self._write(normalize(torch.from_numpy(rows.values), dim=-1).numpy() if self._normalised else rows.values)
        self._place(rows.offsets, rows.ids)

    def _write(self, values: NDArray[np.float32]) -> None:
        self._vectors.append(values)
        self.size += values.nbytes

    def _place(self, offsets: NDArray[np.int64], ids: NDArray[np.int32] | None) -> None:
        self._offsets.append(self._rows + offsets[1:])
        self._rows += int(offsets[-1])
        if self._ids is not None:
            if ids is None:
                raise ValueError("Vectors that meet only where their tokens are equal need a column doc_embs_toks.")
            self._ids.append(ids)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Bring the files to the disk."""
        for writer in (self._vectors, self._offsets, self._ids):
            if writer is not None:
                writer.close()


class CodedWriter(TokenWriter):
    """Writes compressed vectors.

    Without a codec the first vectors are kept until there are enough to train one; compressed vectors that come first
    bring theirs.

    Args:
        folder, size, normalised, with_ids: see `TokenWriter`.
        codec: of the index, None in its first shard, which stores it.
        bits, count, unit: of the codec that is trained.
    """

    def __init__(
        self, folder: Path, size: int | None, normalised: bool, with_ids: bool, codec: ResidualCodec | None, bits: int,
        count: int | None, unit: bool,
    ) -> None:  # fmt: skip
        self._folder, self._codec, self._stores = folder, codec, codec is None
        self._bits, self._count, self._unit, self._width = bits, count, unit, size or 0
        self._kept: list[TokenVectors] = []
        super().__init__(folder, size, "", normalised, with_ids)

    def _open(self, folder: Path, size: int, dtype: str) -> None:
        self._vectors = ArrayWriter(folder / "residuals.npy", np.uint8, (-(-size * self._bits // 8),))
        self._codes = ArrayWriter(folder / "codes.npy", np.int32)
        self._rows = 0

    def append(self, vectors: Vectors) -> None:
        """Write the vectors of further documents, compressed or not."""
        if isinstance(vectors, CodedVectors):
            self._copy(vectors)
        elif self._codec is not None:
            super().append(vectors)
        else:
            rows = cast("TokenVectors", vectors)
            self._kept.append(rows)
            self.size += len(rows.values) * (4 + self._vectors_width)
            if sum(len(part.values) for part in self._kept) >= max(SAMPLE, PER_CENTROID * (self._count or 0)):
                self._train()

    @property
    def _vectors_width(self) -> int:
        return -(-self._width * self._bits // 8)

    def _train(self) -> None:
        """Train the codec on what was kept, and write that."""
        kept, self._kept = self._kept, []
        empty = np.empty((0, self._width), np.float32)
        values = np.concatenate([part.values for part in kept]) if kept else empty
        if self._normalised:
            values = normalize(torch.from_numpy(values), dim=-1).numpy()
        self._codec = ResidualCodec.train(values, self._bits, self._count, self._unit)
        self.size = 0
        if kept:
            super().append(concatenate(kept))

    def _write(self, values: NDArray[np.float32]) -> None:
        assert self._codec is not None
        for start in range(0, len(values), SAMPLE):
            codes, residuals = self._codec.encode(values[start : start + SAMPLE])
            self._store(codes, residuals)

    def _store(self, codes: NDArray[np.int32], residuals: NDArray[np.uint8]) -> None:
        self._codes.append(codes)
        self._vectors.append(residuals)
        self.size += codes.nbytes + residuals.nbytes

    def _copy(self, coded: CodedVectors) -> None:
        if self._codec is None and not self._kept:
            self._codec = coded.codec
        if self._codec is None or not (coded.codec is self._codec or coded.codec.same(self._codec)):
            self.append(coded.decoded())
            return
        self._store(coded.codes, coded.residuals)
        self._place(coded.offsets, coded.ids)

    def __exit__(self, *error: Any) -> None:
        if self._codec is None and error[0] is None:
            self._train()
        self.close()

    def close(self) -> None:
        """Bring the files to the disk, and the codec with the first shard."""
        if self._stores and self._codec is not None:
            self._codec.write(self._folder)
        self._codes.close()
        super().close()
