"""Token ids of texts that come again and again, as in every epoch of a training."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np

from ..tokenization import Ids, Ragged

_BESIDE = 290  # bytes of an entry, without its ids


class TokenMemory:
    """Keeps the ids of the texts that were seen last, so that each is tokenised once.

    Args:
        tokenize: gives the ids of texts.
        limit: most bytes that are kept; the texts that were not seen for longest are forgotten first.

    >>> memory = TokenMemory(lambda texts: Ragged.of([ord(letter) for letter in text] for text in texts), limit=700)
    >>> memory(["ab", "c", "ab"]).values.tolist(), len(memory)
    ([97, 98, 99, 97, 98], 2)
    >>> memory(["de"]).values.tolist(), len(memory)  # "c" is forgotten
    ([100, 101], 2)
    """

    def __init__(self, tokenize: Callable[[Sequence[str]], Ragged], limit: int = 1 << 28) -> None:
        self.tokenize, self.limit = tokenize, limit
        self._rows: OrderedDict[bytes, Ids] = OrderedDict()  # by a digest, which is shorter than a text
        self._size = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, texts: Sequence[str]) -> Ragged:
        """The ids of each text."""
        names = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        unknown = {name: text for name, text in zip(names, texts, strict=True) if name not in self._rows}
        new: dict[bytes, Ids] = {}
        if unknown:
            found = self.tokenize(list(unknown.values()))
            new = dict(zip(unknown, np.split(found.values, found.offsets[1:-1]), strict=True))
        rows = [new[name] if name in new else self._rows[name] for name in names]
        self._keep(names, new)
        return Ragged.of(rows)

    def _keep(self, names: Sequence[bytes], new: dict[bytes, Ids]) -> None:
        for name in names:
            if name not in self._rows:
                self._rows[name] = new[name].copy()  # not a part of the array of a whole batch
                self._size += new[name].nbytes + _BESIDE
            self._rows.move_to_end(name)
        while self._size > self.limit:
            self._size -= self._rows.popitem(last=False)[1].nbytes + _BESIDE
