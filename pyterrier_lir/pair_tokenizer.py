"""A query and a document joined as a cross-encoder wants it: templates, truncation, and joining by copying ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from transformers import PreTrainedTokenizerBase

from .config import CrossEncoderConfig
from .tokenization import Ids, Positions, Ragged, TokenBatch, backend_of, copy_rows, plain_ids

_GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")


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
        declared = "token_type_ids" in tokenizer.model_input_names or type(tokenizer).__name__ in _GENERIC_TOKENIZERS
        told_apart = use_types and declared and len({*types}) > 1
        self._query_text, self._doc_text = "{query}", "{doc}"
        if template is not None:
            own = [self._constant(piece) for piece in template]
            types = [int(number >= own.index("doc")) for number in range(len(own))]
            self._query_text = next(piece for piece in template if "{query}" in piece)
            self._doc_text = next(piece for piece in template if "{doc}" in piece)
        self._pieces = own
        self._types = types if told_apart else None  # of each piece
        self._constants = sum(len(piece) for piece in own if not isinstance(piece, str))
        limits = [limit for limit in (config.max_length, positions) if limit is not None]
        self._max_length = min(limits, default=None)
        # the ends of both texts stay where the tokenizer cuts from the left; `tail` and `separate` cut a pair's end
        self._from_left = tokenizer.truncation_side == "left" and config.truncation == "longest_first"
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
        return next(plain_ids(self.tokenizer, [self._fill(piece)]))

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
        queries = [self.config.query_prompt + query for query in queries] if self.config.query_prompt else queries
        return self._encode(queries, self._query_text.split("{query}"), self.config.query_length)

    def encode_docs(self, docs: Sequence[str]) -> Ragged:
        """Token ids of the documents' pieces, without what stands around them."""
        return self._encode(docs, self._doc_text.split("{doc}"), self.config.doc_length)

    def _encode(self, texts: Sequence[str], around: list[str], limit: int | None) -> Ragged:
        before, after = (self._fill(part) for part in around)
        rows = plain_ids(self.tokenizer, [before + text + after for text in texts], limit)
        if self.config.truncation == "separate" and limit is not None:
            rows = plain_ids(self.tokenizer, [_decode(self.tokenizer, row) for row in rows])
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
        starts = [np.zeros(len(query_of), dtype=np.int64)]
        for piece in self._pieces:
            start = starts[-1]
            if isinstance(piece, str):
                rows, chosen = (queries, query_of) if piece == "query" else (docs, doc_of)
                copy_rows(ids, start, kept[piece], rows, chosen, self._from_left)
                starts.append(start + kept[piece])
            else:
                ids[np.arange(len(ids))[:, None], start[:, None] + np.arange(len(piece))] = piece
                starts.append(start + len(piece))
        types = None if self._types is None else _types(self._types, starts, ids.shape[1])
        return TokenBatch(ids, lengths, types)


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


def _types(pieces: Sequence[int], starts: Sequence[Positions], width: int) -> Ids:
    """Token types (B, width) of rows whose pieces begin in the columns `starts`, of which the last are the ends."""
    columns, types = np.arange(width), np.zeros((len(starts[0]), width), dtype=np.int32)
    for kind, start, end in zip(pieces, starts[:-1], starts[1:], strict=True):
        if kind:
            types[(columns >= start[:, None]) & (columns < end[:, None])] = kind
    return types


def _pair_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[str | list[int]], list[int]]:
    """The pieces of the tokenizer's own pair, and the token type of each."""
    encoding = backend_of(tokenizer).encode("x", "y")
    pieces: list[str | list[int]] = []
    types: list[int] = []
    tokens = zip(encoding.sequence_ids, encoding.type_ids, encoding.ids, strict=True)
    for (text, kind), group in groupby(tokens, key=itemgetter(0, 1)):
        pieces.append([token for *_, token in group] if text is None else ("query", "doc")[text])
        types.append(kind)
    return pieces, types
