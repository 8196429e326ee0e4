"""Token ids of many texts, and batches of them; `text_tokenizer` and `pair_tokenizer` make them as models want them.

Each distinct text is tokenised once, in large batches and without padding.  Knows tokenizers and configurations, no
models and no devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from .config import Kind

Ids = NDArray[np.int32]
Positions = NDArray[np.int64]

_BATCH = 2_048


@dataclass(frozen=True)
class Ragged:
    """Token ids of many texts in one array: text i is `values[offsets[i]:offsets[i + 1]]`.

    >>> Ragged.of([[5, 6], [], [7]]).lengths.tolist()
    [2, 0, 1]
    """

    values: Ids
    offsets: Positions

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | Ids]) -> Ragged:
        """One row of ids per text."""
        arrays = [np.array(row, dtype=np.int32) for row in rows]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return cls(np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32), offsets)

    @property
    def lengths(self) -> Positions:
        """Number of ids of each text."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class TokenBatch:
    """Rows of one batch, padded on the right.

    Attributes:
        ids: (B, T) token ids.
        lengths: (B,) how many ids of a row count; the rest is padding.
        types: (B, T) 1 for tokens of the second segment, None for backbones without token types.
        groups: (B,) rows with the same number belong to the same list; None for pointwise models.
        attended: (B,) how many tokens of a row others attend to, where that is less than `lengths`.
        counts: for outputs of numbers for single tokens: kind -> (B, T) True for tokens whose numbers count.
    """

    ids: Ids
    lengths: Positions
    types: Ids | None = None
    groups: Positions | None = None
    attended: Positions | None = None
    counts: Mapping[Kind, NDArray[np.bool_]] = field(default_factory=dict)

    def last(self, rows: int) -> TokenBatch:
        """The last rows as a batch of their own."""
        arrays = {name: getattr(self, name) for name in ("ids", "lengths", "types", "groups", "attended")}
        cut: dict[str, Any] = {name: None if array is None else array[-rows:] for name, array in arrays.items()}
        return TokenBatch(**cut, counts={kind: counts[-rows:] for kind, counts in self.counts.items()})


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The Rust tokenizer, without the truncation and padding that some tokenizer.json files ask for."""
    backend: Any = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def plain_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int | None = None
) -> Iterator[list[int]]:
    """The first `limit` token ids of each text without special tokens; the last where the tokenizer cuts from the left.

    Texts are tokenised in large batches, which the library spreads over its threads; what it keeps of a text beside
    its ids is large, so a batch is let go before the next.
    """
    backend, from_left = backend_of(tokenizer), tokenizer.truncation_side == "left"
    for start in range(0, len(texts), _BATCH):
        for encoding in backend.encode_batch_fast(list(texts[start : start + _BATCH]), add_special_tokens=False):
            ids: list[int] = encoding.ids
            yield ids[len(ids) - limit :] if from_left and limit is not None and len(ids) > limit else ids[:limit]


def copy_rows(
    target: Ids, start: Positions, lengths: Positions, rows: Ragged, chosen: Positions, from_left: bool = False
) -> None:
    """Write the first lengths[i] ids of row chosen[i] into target[i], from column start[i] on; or its last ids."""
    total = int(lengths.sum())
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    source = rows.offsets[chosen + 1] - lengths if from_left else rows.offsets[chosen]
    target[row, start[row] + step] = rows.values[source[row] + step]


def frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a single text."""
    encoding = backend_of(tokenizer).encode("x")
    own = [i for i, number in enumerate(encoding.sequence_ids) if number == 0]
    before, after = encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]
    if tokenizer.init_kwargs.get("add_eos_token") and tokenizer.eos_token_id not in after:
        after = [*after, tokenizer.eos_token_id]  # asked for by the checkpoint, and lost by transformers 5
    return before, after
