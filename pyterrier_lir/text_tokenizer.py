"""Single texts as a bi-encoder wants them: special tokens, markers, a prompt, the text, expansion; and what counts."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from .config import BiEncoderConfig
from .tokenization import Ids, Positions, Ragged, TokenBatch, copy_rows, frame, plain_ids


class TextTokenizer:
    """Tokenises the queries or the documents of a bi-encoder: special tokens, markers, a prompt, the text, expansion.

    Args:
        tokenizer: a fast tokenizer.
        outputs: configurations of what the model makes of a text; the first says how texts become tokens, each says
            which tokens count for it.
        query: whether queries are tokenised, else documents.
        positions: most tokens that the backbone has positions for, None for no limit.

    Raises:
        ValueError: if the tokenizer lacks a marker or a token to expand with, or if the length leaves no room for text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        outputs: Sequence[BiEncoderConfig],
        query: bool,
        positions: int | None = None,
    ) -> None:
        config = outputs[0]
        self.tokenizer = tokenizer
        self.prompt: str = config.of(query, "prompt")
        self._strip = config.strip_text
        self.markers = [_known_id(tokenizer, token) for token in config.of(query, "markers")]
        before, self._after = frame(tokenizer) if config.special_tokens[0 if query else 1] else ([], [])
        self._before = [*before[:1], *self.markers, *before[1:]]
        limits = [limit for limit in (config.of(query, "length"), positions) if limit is not None]
        self._length = min(limits, default=None)
        room = None if self._length is None else self._length - len(self._before) - len(self._after)
        if room is not None and room < 1:
            raise ValueError(f"max_length={self._length} leaves no room for text beside the special tokens.")
        self._room = room
        self._expansion = _expansion_id(tokenizer, config) if config.of(query, "expansion") else None
        self._attended = config.attend_to_expansion(query) if self._expansion is not None else True
        self._floor = config.expansion_length or self._length or 0
        if self._expansion is not None and not self._floor:
            raise ValueError("Expansion fills texts up to a length: give the configuration one.")
        self.masked = masked_ids(tokenizer, config.of(query, "mask_scoring_tokens"))
        self._choices = {output.kind: self._choice(output, query) for output in outputs if _chooses(output, query)}

    def _choice(self, output: BiEncoderConfig, query: bool) -> tuple[int, int | None, Ids]:
        """The first column that counts, the one behind the last, and ids that do not count."""
        masked = masked_ids(self.tokenizer, output.of(query, "mask_scoring_tokens"))
        if output.of(query, "pooling_strategy") == ("markers",):
            start = len(self._before[:1]) if len(self._before) > len(self.markers) else 0
            return start, start + len(self.markers), masked
        return output.skip_first, None, masked

    @property
    def prompt_length(self) -> int:
        """How many tokens at a text's start are not its own: special tokens, markers and the prompt."""
        return len(self._before) + len(next(plain_ids(self.tokenizer, [self.prompt])))

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Token ids of each text, cut to the maximum length; expansion is added in `batch`."""
        if self._strip:
            texts = [text.strip() for text in texts]
        rows = plain_ids(self.tokenizer, [self.prompt + text for text in texts] if self.prompt else texts, self._room)
        return Ragged.of([*self._before, *row, *self._after] for row in rows)

    def batch(self, rows: Ragged, chosen: Positions, pad_id: int) -> TokenBatch:
        """The chosen rows as one padded batch."""
        kept = rows.lengths[chosen]
        lengths = np.maximum(kept, 1)  # a text without any token is one padding token, alone or in company
        attended = None
        if self._expansion is not None:
            attended = None if self._attended else lengths
            lengths, pad_id = np.maximum(lengths, self._floor), self._expansion
        ids = np.full((len(chosen), int(lengths.max(initial=0))), pad_id, dtype=np.int32)
        copy_rows(ids, np.zeros_like(kept), kept, rows, chosen)
        counts = {kind: _count(ids, lengths, *choice) for kind, choice in self._choices.items()}
        return TokenBatch(ids, lengths, attended=attended, counts=counts)

    def batch_lengths(self, rows: Ragged) -> Positions:
        """Number of tokens that each row has in a batch."""
        return rows.lengths if self._expansion is None else np.maximum(rows.lengths, self._floor)

    def terms(self, rows: Ragged) -> Ragged:
        """The rows without tokens that do not count: the terms of texts that need no forward pass."""
        keep = ~np.isin(rows.values, self.masked)
        offsets = np.concatenate([[0], np.cumsum(keep)])[rows.offsets]
        return Ragged(rows.values[keep], offsets)


def _chooses(output: BiEncoderConfig, query: bool) -> bool:
    """Whether an output consists of numbers for single tokens, of which some may not count."""
    if output.kind == "multi_vector":
        return output.of(query, "pooling_strategy") in (None, ("markers",))
    return output.projection == "term_weight"


def _count(ids: Ids, lengths: Positions, start: int, stop: int | None, masked: Ids) -> NDArray[np.bool_]:
    columns = np.arange(ids.shape[1])
    counts: NDArray[np.bool_] = (columns >= start) & (columns < lengths[:, None])
    if stop is not None:
        counts &= columns < stop
    return counts & ~np.isin(ids, masked) if len(masked) else counts


def masked_ids(tokenizer: PreTrainedTokenizerBase, tokens: str | Sequence[str | int] | None) -> Ids:
    """The ids of tokens that do not count; words that are not in the vocabulary are left out.

    A word that is unknown would otherwise stand for every unknown token of a text.
    """
    words = list(string.punctuation) if tokens == "punctuation" else tokens or ()
    ids = (word if isinstance(word, int) else tokenizer.convert_tokens_to_ids(word) for word in words)
    known = {
        i
        for word, i in zip(words, ids, strict=True)
        if isinstance(word, int) or i != tokenizer.unk_token_id or word == tokenizer.unk_token
    }
    return np.array(sorted(i for i in known if i is not None), dtype=np.int32)


def _known_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or found == tokenizer.unk_token_id:
        raise ValueError(f"The tokenizer has no marker token {token!r}; add it, or name another one.")
    return int(found)


def _expansion_id(tokenizer: PreTrainedTokenizerBase, config: BiEncoderConfig) -> int:
    if config.expansion_token is not None:
        return _known_id(tokenizer, config.expansion_token)
    found = tokenizer.eos_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    if found is None:
        raise ValueError("Texts are expanded with the mask token, which the tokenizer lacks; name an expansion_token.")
    return int(found)
