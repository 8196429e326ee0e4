"""From texts to token ids: templates, truncation, and the joining of pairs as ids.

Each distinct text is tokenised once, in large batches and without padding; pairs are then joined by copying ids.  Knows
tokenizers and configurations, no models and no devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from .config import BiEncoderConfig, CrossEncoderConfig

Ids = NDArray[np.int32]
Positions = NDArray[np.int64]

_BATCH = 2_048
_GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")


@dataclass(frozen=True)
class Ragged:
    """Token ids of many texts in one array: text i is `values[offsets[i]:offsets[i + 1]]`.

    >>> Ragged.of([[5, 6], [], [7]]).lengths.tolist()
    [2, 0, 1]
    """

    values: Ids
    offsets: Positions

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Ragged:
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
    """

    ids: Ids
    lengths: Positions
    types: Ids | None = None
    groups: Positions | None = None


class TextTokenizer:
    """Tokenises single texts: the tokenizer's special tokens around a prompt and the text.

    Args:
        tokenizer: a fast tokenizer.
        prompt: put in front of every text.
        max_length: most tokens of a text, special tokens included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str = "", max_length: int | None = None) -> None:
        self.prompt = prompt
        self.tokenizer = tokenizer
        self._before, self._after = _frame(tokenizer)
        room = None if max_length is None else max_length - len(self._before) - len(self._after)
        if room is not None and room < 1:
            raise ValueError(f"max_length={max_length} leaves no room for text beside the special tokens.")
        self._room = room

    @property
    def prompt_length(self) -> int:
        """How many tokens at a text's start are not its own: special tokens and the prompt."""
        return len(self._before) + len(next(_plain_ids(self.tokenizer, [self.prompt])))

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Token ids of each text, cut to the maximum length."""
        rows = _plain_ids(self.tokenizer, [self.prompt + text for text in texts], self._room)
        return Ragged.of([*self._before, *row, *self._after] for row in rows)

    @staticmethod
    def batch(rows: Ragged, chosen: Positions, pad_id: int) -> TokenBatch:
        """The chosen rows as one padded batch."""
        kept = rows.lengths[chosen]
        lengths = np.maximum(kept, 1)  # a text without any token is one padding token, alone or in company
        ids = np.full((len(chosen), int(lengths.max(initial=0))), pad_id, dtype=np.int32)
        _copy(ids, np.zeros_like(kept), kept, rows, chosen)
        return TokenBatch(ids, lengths)


class PairTokenizer:
    """Joins queries and documents as a checkpoint wants it.

    A pair is a row of pieces: constant ids, the query's ids, the document's ids.  Which pieces, comes from the
    configuration's template, else from how the tokenizer itself joins a pair.

    Args:
        tokenizer: a fast tokenizer.
        config: lengths, truncation and template.
        use_types: whether the backbone tells segments apart by token types.
        positions: most tokens that the backbone has positions for, None for no limit.

    Raises:
        ValueError: if the maximum length leaves no room for texts or is beyond the backbone's positions.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: CrossEncoderConfig,
        use_types: bool = False,
        positions: int | None = None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        template = config.template
        own, types = _pair_frame(tokenizer)
        self._query_text, self._doc_text = "{query}", "{doc}"
        if template is not None:
            own = [self._constant(piece) for piece in template]
            self._query_text = next(piece for piece in template if "{query}" in piece)
            self._doc_text = next(piece for piece in template if "{doc}" in piece)
        self._pieces = own
        self._query_at = own.index("query")
        self._doc_at = own.index("doc")
        declared = "token_type_ids" in tokenizer.model_input_names or type(tokenizer).__name__ in _GENERIC_TOKENIZERS
        self._types = use_types and declared and types
        self._constants = sum(len(piece) for piece in own if not isinstance(piece, str))
        limits = [limit for limit in (config.max_length, positions) if limit is not None]
        self._max_length = min(limits, default=None)
        if self._max_length is not None and self._max_length <= self._constants:
            raise ValueError(
                f"max_length={self._max_length} leaves no room for a query and a document: "
                f"the tokens around them take {self._constants}."
            )

    def _constant(self, piece: str) -> str | list[int]:
        """The name of a slot, or the ids of a piece without one."""
        if "{query}" in piece:
            return "query"
        if "{doc}" in piece:
            return "doc"
        if "{instruction}" in piece and not self.config.instruction:
            return []  # a piece of its own is left out where there is no instruction
        return next(_plain_ids(self.tokenizer, [self._fill(piece)]))

    def _fill(self, piece: str) -> str:
        names = {
            "bos": self.tokenizer.bos_token,
            "eos": self.tokenizer.eos_token,
            "instruction": self.config.instruction,
        }
        for name, text in names.items():
            piece = piece.replace("{" + name + "}", text or "")
        return piece

    def encode_queries(self, queries: Sequence[str]) -> Ragged:
        """Token ids of the queries' pieces, without what stands around them."""
        return self._encode(queries, self._query_text.split("{query}"), self.config.query_length)

    def encode_docs(self, docs: Sequence[str]) -> Ragged:
        """Token ids of the documents' pieces, without what stands around them."""
        return self._encode(docs, self._doc_text.split("{doc}"), self.config.doc_length)

    def _encode(self, texts: Sequence[str], around: list[str], limit: int | None) -> Ragged:
        before, after = (self._fill(part) for part in around)
        rows = _plain_ids(self.tokenizer, [before + text + after for text in texts], limit)
        if self.config.truncation == "separate" and limit is not None:
            rows = _plain_ids(self.tokenizer, [_decode(self.tokenizer, row) for row in rows])
        return Ragged.of(rows)

    def fit(self, query_lengths: Positions, doc_lengths: Positions) -> tuple[Positions, Positions]:
        """How many of its query's and its document's tokens each pair keeps: two arrays (N,) of at most those given."""
        if self._max_length is None:
            return query_lengths, doc_lengths
        room = self._max_length - self._constants
        if self.config.truncation == "longest_first":
            return _longest_first(query_lengths, doc_lengths, room)
        docs = np.minimum(doc_lengths, np.maximum(room - query_lengths, 0))
        return np.minimum(query_lengths, room), docs

    def pair_lengths(self, query_lengths: Positions, doc_lengths: Positions) -> Positions:
        """Number of tokens of each joined pair (N,)."""
        kept_query, kept_doc = self.fit(query_lengths, doc_lengths)
        lengths: Positions = np.maximum(kept_query + kept_doc + self._constants, 1)
        return lengths

    def join(self, queries: Ragged, docs: Ragged, query_of: Positions, doc_of: Positions, pad_id: int) -> TokenBatch:
        """Pairs (query_of[i], doc_of[i]) as one padded batch."""
        kept = dict(zip(("query", "doc"), self.fit(queries.lengths[query_of], docs.lengths[doc_of]), strict=True))
        lengths = np.maximum(kept["query"] + kept["doc"] + self._constants, 1)  # as for single texts
        ids = np.full((len(query_of), int(lengths.max(initial=0))), pad_id, dtype=np.int32)
        start = np.zeros(len(query_of), dtype=np.int64)
        second = start
        for number, piece in enumerate(self._pieces):
            if number == self._doc_at:
                second = start
            if isinstance(piece, str):
                rows, chosen = (queries, query_of) if piece == "query" else (docs, doc_of)
                _copy(ids, start, kept[piece], rows, chosen)
                start = start + kept[piece]
            else:
                columns = start[:, None] + np.arange(len(piece))
                ids[np.arange(len(ids))[:, None], columns] = piece
                start = start + len(piece)
        types = None
        if self._types:
            columns = np.arange(ids.shape[1])
            types = ((columns >= second[:, None]) & (columns < lengths[:, None])).astype(np.int32)
        return TokenBatch(ids, lengths, types)


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The Rust tokenizer, without the truncation and padding that some tokenizer.json files ask for."""
    backend: Any = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def _plain_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int | None = None
) -> Iterator[list[int]]:
    """The first `limit` token ids of each text, without special tokens.

    Texts are tokenised in large batches, which the library spreads over its threads; what it keeps of a text beside
    its ids is large, so a batch is let go before the next.
    """
    backend = _backend(tokenizer)
    for start in range(0, len(texts), _BATCH):
        for encoding in backend.encode_batch_fast(list(texts[start : start + _BATCH]), add_special_tokens=False):
            yield encoding.ids[:limit]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Ids as text, without blanks before punctuation where the tokenizer asks for that, as Lightning IR's cut does."""
    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return str(tokenizer.clean_up_tokenization(text)) if tokenizer.clean_up_tokenization_spaces else text


def _longest_first(queries: Positions, docs: Positions, room: int) -> tuple[Positions, Positions]:
    """Cut the longer of the two until the pair fits; what both must give is shared evenly, the odd token to the longer.

    The closed form of the tokenizers library's `LongestFirst`.
    """
    short, long = np.minimum(queries, docs), np.maximum(queries, docs)
    fits = short + long <= room
    kept_short = np.where(fits, short, np.minimum(short, room // 2))
    kept_long = np.where(fits, long, room - kept_short)
    swap = queries > docs
    return np.where(swap, kept_long, kept_short), np.where(swap, kept_short, kept_long)


def _copy(target: Ids, start: Positions, lengths: Positions, rows: Ragged, chosen: Positions) -> None:
    """Write the first lengths[i] ids of row chosen[i] into target[i], from column start[i] on."""
    total = int(lengths.sum())
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    target[row, start[row] + step] = rows.values[rows.offsets[chosen][row] + step]


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a single text."""
    encoding = _backend(tokenizer).encode("x")
    own = [i for i, number in enumerate(encoding.sequence_ids) if number == 0]
    return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]


def _pair_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[str | list[int]], bool]:
    """The pieces of the tokenizer's own pair, and whether it gives the second text another token type."""
    encoding = _backend(tokenizer).encode("x", "y")
    numbers = encoding.sequence_ids
    first = [i for i, number in enumerate(numbers) if number == 0]
    second = [i for i, number in enumerate(numbers) if number == 1]
    ids = encoding.ids
    between = ids[first[-1] + 1 : second[0]]
    return [ids[: first[0]], "query", between, "doc", ids[second[-1] + 1 :]], 1 in encoding.type_ids


def query_tokenizer(tokenizer: PreTrainedTokenizerBase, config: BiEncoderConfig) -> TextTokenizer:
    """The tokenizer of a bi-encoder's queries."""
    return TextTokenizer(tokenizer, config.query_prompt, config.query_length)


def doc_tokenizer(tokenizer: PreTrainedTokenizerBase, config: BiEncoderConfig) -> TextTokenizer:
    """The tokenizer of a bi-encoder's documents."""
    return TextTokenizer(tokenizer, config.doc_prompt, config.doc_length)
