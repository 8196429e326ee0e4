"""From texts to numbers: de-duplicate, tokenise once, order by length, batch by a token budget, run, put back in order.

Knows models through two calls (`CrossEncoderModel.forward`, `BiEncoderModel.forward`) and nothing of PyTerrier.  Peak
memory beside the model is bounded by the token budget and the size of a chunk, not by the number of rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PretrainedConfig

from .config import Precision
from .encoding import compact, empty, gather, without_forward
from .memory import keep_freed_memory
from .models import BiEncoderModel, CrossEncoderModel
from .models.backbone import Inputs, to_device, varlen_attn
from .models.scores import pair_scores
from .precision import Model, prepare, resolve_device, resolve_precision
from .tokenization import Positions, Ragged, TokenBatch
from .vectors import Encoded, concatenate, take

Scores = NDArray[np.float32]
Strings = Sequence[str] | NDArray[np.object_]
Done = Callable[[int], object]  # told how many rows were run

CHUNK = 32_768  # rows (or lists) that are tokenised and ordered together
_CHARACTERS = {"cpu": 1 << 21, "cuda": 1 << 24}  # of the texts that are tokenised and ordered together for encoding
_TOKENS = {"cpu": 2_048, "cuda": 131_072, "mps": 16_384}  # CPU: activations of a layer stay in the cache


class Engine:
    """Runs a model over many texts on one device.

    Args:
        model: a loaded model; it is moved to the device and, for `int8`, copied.
        device: such as `cpu` or `cuda:1`; None takes the GPU if there is one.
        precision: `float32`, `bf16`, `fp16`, `int8` (CPU), or `auto`: float32 on CPU, bf16 on CUDA.
        batch_size: rows of a batch; None budgets tokens instead.
        packed: whether to leave padding out; None does so on CUDA where the backbone is known to allow it.
        verbose: show a progress bar.

    Raises:
        ValueError: for an unknown precision, a batch size below one, or a device that is not there.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
        packed: bool | None = None,
        verbose: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        whole = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
        if batch_size is not None and (not whole or batch_size < 1):
            raise ValueError(
                f"batch_size={batch_size!r}; allowed: a positive number of rows, or None to budget tokens."
            )
        self.batch_size = None if batch_size is None else int(batch_size)
        self.budget = _TOKENS.get(self.device.type, 16_384)
        self.verbose = verbose
        self.model: Model = prepare(model, self.device, self.precision)
        kernel = self.device.type == "cuda" and self.precision in ("bf16", "fp16") and varlen_attn is not None
        wanted = kernel if packed is None else packed
        self.packed = wanted and self.model.packable
        self._checked = packed is True  # who asks for packed input by name gets it unchecked
        if self.device.type == "cpu":
            keep_freed_memory()

    def score(self, queries: Strings, docs: Strings, lists: Sequence[object] | Positions | None = None) -> Scores:
        """Scores of pairs (queries[i], docs[i]).

        Args:
            lists: for listwise models, which list a pair belongs to; pairs of a list see each other, and a list must
                not be longer than the model's `depth`.  Other models ignore it.

        Returns:
            (N,) float32, in the order given.
        """
        query_array, doc_array = (np.asarray(texts, dtype=object) for texts in (queries, docs))
        if len(query_array) != len(doc_array):
            raise ValueError(f"{len(query_array)} queries and {len(doc_array)} documents: a pair has one of each.")
        numbers = None if lists is None else pd.factorize(np.asarray(lists, dtype=object))[0]
        out = np.empty(len(query_array), dtype=np.float32)
        with self._progress(len(out), "pair") as bar:
            if isinstance(self.model, BiEncoderModel):
                return self._similarities(query_array, doc_array, bar)
            for rows in self._chunks(len(out), numbers):
                query_of, distinct_queries = pd.factorize(query_array[rows])
                doc_of, distinct_docs = pd.factorize(doc_array[rows])
                local = None if numbers is None else numbers[rows]
                out[rows] = self._chunk(list(distinct_queries), list(distinct_docs), query_of, doc_of, local, bar)
        return out

    def encode(self, texts: Strings, query: bool) -> Encoded:
        """What the model makes of queries or documents, in the order given; equal texts are encoded once.

        Returns:
            kind of output -> vectors of all texts; see `vectors`.
        """
        array = np.asarray(texts, dtype=object)
        with self._progress(len(array), "text", "encoding") as bar:
            return self._encode_all(array, query, bar)

    def stream(self, texts: Iterable[str], query: bool) -> Iterator[Encoded]:
        """What the model makes of any number of texts, in their order, some thousands at a time.

        The next texts are read and tokenised while the model runs, so at most two chunks are in memory.
        """
        with self._progress(None, "text", "encoding") as bar:
            for tokens in self._tokenized(texts, query):
                yield self._encode_chunk(*tokens, query, bar)

    def _encode_all(self, texts: Strings, query: bool, bar: tqdm[None], weight: float = 1.0) -> Encoded:
        parts = [self._encode_chunk(*part, query, bar, weight) for part in self._tokenized(texts, query)]
        return {kind: concatenate([part[kind] for part in parts]) for kind in parts[0]} if parts else self._none()

    def _tokenized(self, texts: Iterable[str], query: bool) -> Iterator[tuple[Ragged, Positions]]:
        """Token ids of the distinct texts of each chunk, and which of them each text is; one chunk ahead."""
        model = self._bi_encoder()
        tokenizer = model.tokenizers[0 if query else 1]
        characters = _CHARACTERS.get(self.device.type, 1 << 21) >> (3 if "multi_vector" in model.kinds else 0)
        chunks = chunked(texts, CHUNK, characters)

        def next_tokens() -> tuple[Ragged, Positions] | None:
            chunk = next(chunks, None)
            if chunk is None:
                return None
            codes, distinct = pd.factorize(np.asarray(chunk, dtype=object))
            return tokenizer.encode(list(distinct)), codes

        with ThreadPoolExecutor(1, "tokenizer") as ahead:
            coming = ahead.submit(next_tokens)
            while (tokens := coming.result()) is not None:
                coming = ahead.submit(next_tokens)
                yield tokens

    def _encode_chunk(
        self, rows: Ragged, codes: Positions, query: bool, bar: tqdm[None], weight: float = 1.0
    ) -> Encoded:
        """What the model makes of the texts of a chunk; each moves the bar on by `weight`."""
        share = weight * len(codes) / max(len(rows.lengths), 1)
        found = self._encode(rows, query, lambda done: advance(bar, done * share))
        if len(rows.lengths) == len(codes):
            return found
        return {kind: take(vectors, codes) for kind, vectors in found.items()}

    def _bi_encoder(self) -> BiEncoderModel:
        if not isinstance(self.model, BiEncoderModel):
            raise TypeError(f"{self.model!r} reads query and document together: it encodes no single texts.")
        return self.model

    def _none(self) -> Encoded:
        return empty(self._bi_encoder())

    def _chunks(self, count: int, lists: Positions | None) -> Iterator[Positions]:
        """Row numbers of each chunk; a list is never split."""
        assert isinstance(self.model, CrossEncoderModel)
        if not self.model.config.listwise:
            yield from np.split(np.arange(count), range(CHUNK, count, CHUNK)) if count else ()
            return
        if lists is None:
            raise ValueError("A listwise model needs to know which pairs belong to one list: give lists=.")
        rows = np.argsort(lists, kind="stable")
        ends = np.flatnonzero(np.diff(lists[rows], append=-1)) + 1
        cuts = [ends[np.searchsorted(ends, at)] for at in range(CHUNK, count, CHUNK)]
        yield from (part for part in np.split(rows, sorted(set(cuts))) if len(part))

    def _chunk(
        self,
        queries: list[str],
        docs: list[str],
        query_of: Positions,
        doc_of: Positions,
        lists: Positions | None,
        bar: tqdm[None],
    ) -> Scores:
        """Scores of one chunk of pairs over distinct queries and documents."""
        model = self.model
        assert isinstance(model, CrossEncoderModel)
        tokens = model.tokenizer.encode_queries(queries), model.tokenizer.encode_docs(docs)
        if model.config.listwise:
            assert lists is not None
            return self._listwise(model, *tokens, query_of, doc_of, lists, bar)
        # equal pairs are scored once
        pairs = query_of.astype(np.int64) * max(len(docs), 1) + doc_of
        codes, distinct = pd.factorize(pairs)
        query_of, doc_of = np.divmod(distinct, max(len(docs), 1))
        lengths = model.tokenizer.pair_lengths(tokens[0].lengths[query_of], tokens[1].lengths[doc_of])

        def join(chosen: Positions) -> TokenBatch:
            return model.tokenizer.join(*tokens, query_of[chosen], doc_of[chosen], self._pad_id)

        share = len(codes) / max(len(distinct), 1)
        order, outputs = self._run(lengths, join, model, lambda done: advance(bar, done * share))
        scores = np.empty(len(order), dtype=np.float32)
        scores[order] = torch.cat(outputs).float().cpu().numpy()
        return scores[codes]

    def _listwise(
        self, model: CrossEncoderModel, queries: Ragged, docs: Ragged, query_of: Positions, doc_of: Positions,
        lists: Positions, bar: tqdm[None],
    ) -> Scores:  # fmt: skip
        """Scores of whole lists: as many lists in a batch as fit the budget or the batch size, at least one."""
        out = np.empty(len(query_of), dtype=np.float32)
        lengths = model.tokenizer.pair_lengths(queries.lengths[query_of], docs.lengths[doc_of])
        rows = np.argsort(lists, kind="stable")
        groups = np.split(rows, np.flatnonzero(np.diff(lists[rows])) + 1)
        groups.sort(key=lambda group: -int(lengths[group].max()))
        counts = np.array([len(group) for group in groups])
        sizes = counts if self.batch_size else counts * np.array([lengths[group].max() for group in groups])
        outputs: list[Tensor] = []
        at = 0
        with torch.inference_mode():
            while at < len(groups):
                taken = max(1, int(np.searchsorted(np.cumsum(sizes[at:]), self.batch_size or self.budget, "right")))
                chosen = np.concatenate(groups[at : at + taken])
                batch = model.tokenizer.join(queries, docs, query_of[chosen], doc_of[chosen], self._pad_id)
                batch = replace(batch, groups=np.repeat(np.arange(taken), counts[at : at + taken]))
                try:
                    outputs.append(model(to_device(batch, self.device, self._config)))
                except torch.OutOfMemoryError:
                    if taken == 1:  # the documents of a list see each other, so it cannot be split
                        raise
                    self._halve(len(chosen))
                    continue
                at += taken
                bar.update(len(chosen))
        out[np.concatenate(groups)] = torch.cat(outputs).cpu().numpy()
        return out

    def _similarities(self, queries: NDArray[np.object_], docs: NDArray[np.object_], bar: tqdm[None]) -> Scores:
        """Scores of pairs from vectors: each text is encoded once, and documents' vectors live for one chunk."""
        query_of, distinct_queries = pd.factorize(queries)
        doc_of, distinct_docs = pd.factorize(docs)
        weight = len(queries) / max(len(distinct_queries) + len(distinct_docs), 1)  # the work is in the texts
        encoded = self._encode_all(distinct_queries, True, bar, weight)
        rows = np.argsort(doc_of, kind="stable")
        out = np.empty(len(rows), dtype=np.float32)
        start = 0
        for tokens, codes in self._tokenized(distinct_docs, False):
            vectors = self._encode_chunk(tokens, codes, False, bar, weight)
            bounds = np.searchsorted(doc_of[rows], [start, start + len(codes)])
            chosen = rows[slice(*bounds)]
            out[chosen] = self.pair_scores(encoded, vectors, query_of[chosen], doc_of[chosen] - start)
            start += len(codes)
        return out

    def pair_scores(self, queries: Encoded, docs: Encoded, query_of: Positions, doc_of: Positions) -> Scores:
        """Scores (N,) of pairs of encoded texts; those of several outputs are added.

        Raises:
            ValueError: if vectors of queries and documents have different sizes.
        """
        configs = self._bi_encoder().configs
        parts = [pair_scores(c, queries[c.kind], docs[c.kind], query_of, doc_of) for c in configs]
        total: Scores = np.sum(parts, axis=0, dtype=np.float32)
        return total

    def _encode(self, rows: Ragged, query: bool, done: Done = lambda rows: None) -> Encoded:
        """What the model makes of distinct texts."""
        model = self._bi_encoder()
        if not model.needs_forward(query):
            done(len(rows.lengths))
            return without_forward(rows, model, query)
        if not len(rows.lengths):
            return self._none()
        tokenizer = model.tokenizers[0 if query else 1]
        batches: list[TokenBatch] = []

        def join(chosen: Positions) -> TokenBatch:
            return tokenizer.batch(rows, chosen, self._pad_id)

        order, outputs = self._run(
            tokenizer.batch_lengths(rows), join, lambda inputs: model(inputs, query=query), done,
            lambda output: compact(output, model), batches.append,
        )  # fmt: skip
        return gather(outputs, batches, order, model, query)

    def _run(
        self,
        lengths: Positions,
        join: Callable[[Positions], TokenBatch],
        forward: Callable[[Inputs], Any],
        done: Done,
        finish: Callable[[Any], Any] = lambda output: output,
        seen: Callable[[TokenBatch], object] = lambda batch: None,
    ) -> tuple[Positions, list[Any]]:
        """Run rows of known lengths, longest first: the order of rows, and the batches' outputs in that order.

        Outputs stay on the device, and `finish` sees one when the next batch is under way: no waiting in between.
        """
        order = np.argsort(-lengths, kind="stable")
        outputs: list[Any] = []
        at = 0
        with torch.inference_mode():
            while at < len(order):
                rows = self._rows_of_batch(lengths, order, at)
                batch = join(order[at : at + rows])
                try:
                    output = self._forward(batch, forward)
                    if outputs:
                        outputs[-1] = finish(outputs[-1])
                except torch.OutOfMemoryError:
                    if rows == 1:
                        raise
                    self._halve(rows)
                    continue
                outputs.append(output)
                seen(batch)
                at += rows
                done(rows)
            if outputs:
                outputs[-1] = finish(outputs[-1])
        return order, outputs

    def _rows_of_batch(self, lengths: Positions, order: Positions, at: int) -> int:
        rows = self.batch_size or max(1, self.budget // max(1, int(lengths[order[at]])))
        return min(rows, len(order) - at)

    def _forward(self, batch: TokenBatch, forward: Callable[[Inputs], Any]) -> Any:
        if self.packed and not self._checked:
            self._check_packed(batch, forward)
        return forward(to_device(batch, self.device, self._config, self.packed))

    def _check_packed(self, batch: TokenBatch, forward: Callable[[Inputs], Any]) -> None:
        """Compare packed with padded input once: a backbone that ignores the attention function would mix texts."""
        few = batch.last(8)
        outputs = (forward(to_device(few, self.device, self._config, p)) for p in (True, False))
        packed, padded = (one if isinstance(one, Tensor) else next(iter(one.values())) for one in outputs)
        packed, padded = packed.float(), padded.float()
        near = 0.3 * float(padded.std(correction=0)) + 0.002 * float(padded.abs().max())  # mixed texts are further off
        self.packed = float((packed - padded).abs().max()) <= near
        self._checked = True
        if not self.packed:
            warnings.warn(
                f"{self.model!r}: packed and padded input disagree on {self.device}, so batches are padded.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _halve(self, rows: int) -> None:
        """Out of memory: go on with half the batch."""
        torch.cuda.empty_cache()
        if self.batch_size:
            self.batch_size = max(1, rows // 2)
        else:
            self.budget //= 2

    @property
    def _config(self) -> PretrainedConfig:
        return self.model.backbone.config

    @property
    def _pad_id(self) -> int:
        return int(self._config.pad_token_id or 0)

    def _progress(self, total: int | None, unit: str, what: str = "scoring") -> tqdm[None]:
        shape = None if total is None else "{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
        return tqdm(total=total, unit=unit, disable=not self.verbose, desc=what, bar_format=shape)


def advance(bar: tqdm[None], rows: float) -> None:
    """Move a progress bar on; shares of rows may add up to a rounding error too much, which it would warn of."""
    bar.update(rows if bar.total is None else min(rows, bar.total - bar.n))


def chunked(texts: Iterable[str], rows: int, characters: int) -> Iterator[list[str]]:
    """Lists of at most `rows` texts, ended earlier once they have `characters`.

    >>> list(chunked(["a", "b" * 9, "c", "d"], 2, 5))
    [['a', 'bbbbbbbbb'], ['c', 'd']]
    """
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if len(chunk) == rows or size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
