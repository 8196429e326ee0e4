"""Why a score is what it is: terms, tokens that found each other, words without which it falls."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch

from ..columns import Terms
from ..display import bars, matrix, note, shaded
from ..models import CrossEncoderModel
from ..models.scores import similarities

if TYPE_CHECKING:
    from ..engine import Engine, Model
    from ..models import BiEncoderModel
    from ..vectors import TokenVectors, Vectors

Score = Callable[[Sequence[str], Sequence[str]], np.ndarray]
_TOKENS = 48  # of a document that are shown in a matrix; of longer ones, those that were found


class Explanation(pd.DataFrame):
    """A DataFrame whose last column notebooks show with bars.

    Attributes:
        part: of a model with several outputs, what the table is about.
    """

    _metadata: ClassVar[list[str]] = ["part"]  # which pandas hands on
    part: str | None = None

    @property
    def _constructor(self) -> Any:
        return type(self)

    def _repr_html_(self) -> str:
        if self.empty or not pd.api.types.is_numeric_dtype(self.iloc[:, -1]):
            return f"{pd.DataFrame(self).to_html()}{self._part()}"
        names = [str(name) for name in self.columns]
        return bars(names, list(self.itertuples(index=False, name=None))) + self._part()

    def _part(self) -> str:
        return note(self.part) if self.part else ""


class Alignment(Explanation):
    """Which document token each query token found; notebooks show the similarities of all of them, shaded.

    Attributes:
        similarities: of each query token (row) with each document token (column).
    """

    _metadata: ClassVar[list[str]] = ["part", "similarities"]
    similarities: pd.DataFrame | None = None

    def _repr_html_(self) -> str:
        found = self.similarities
        if found is None or "position" not in self or list(found.index) != list(self.get("query_token", [])):
            return super()._repr_html_()  # parts of the table
        count = found.shape[1]
        positions = list(range(count)) if count <= _TOKENS else sorted({*self["position"]})
        shown = found.iloc[:, positions]
        left_out = note(f"Of {count} tokens of the document those that were found.") if count > _TOKENS else ""
        return matrix(list(shown.index), list(shown.columns), shown.to_numpy().tolist()) + left_out + self._part()


class WordFalls(Explanation):
    """How much a score falls without each word; notebooks show the texts with the words shaded.

    Attributes:
        score: of the whole texts.
        unread: how many words at the document's end are beyond what the model reads.
    """

    _metadata: ClassVar[list[str]] = ["part", "score", "unread"]
    score: float | None = None
    unread: int = 0

    def _repr_html_(self) -> str:
        if self.empty or self.score is None or not {"side", "word", "fall"} <= {*self.columns}:
            return super()._repr_html_()
        largest = float(self["fall"].abs().max())
        in_order = self.sort_index()
        texts = [
            shaded(str(side), list(zip(words["word"], words["fall"], strict=True)), largest)
            for side, words in in_order.groupby("side", sort=False)
        ]
        told = f"It falls without a blue word and rises without a red one, by {largest:.3f} at most."
        words = "word" if self.unread == 1 else f"{self.unread:,} words"
        cut = f" Not read: The last {words} of the document." if self.unread else ""
        return "".join(texts) + note(f"Score {self.score:.3f}. {told}{cut}")


def weigh(vectors: Sequence[Vectors], terms: Terms) -> Explanation:
    """The terms of one sparse vector by falling weight, or those that two have by falling product."""
    columns = [{int(i): float(w) for i, w in zip(row.indices, row.data, strict=True)} for row in cast("Any", vectors)]
    if len(columns) == 1:
        frame = pd.DataFrame({"term": list(columns[0]), "weight": list(columns[0].values())})
        by = "weight"
    else:
        query, doc = columns
        rows = [(i, w, doc[i], w * doc[i]) for i, w in query.items() if i in doc]
        frame = pd.DataFrame(rows, columns=["term", "query_weight", "doc_weight", "score"])
        by = "score"
    frame["term"] = terms.names[frame["term"].to_numpy(dtype=np.int64)]
    return Explanation(frame.sort_values(by, ascending=False, kind="stable", ignore_index=True))


def align(engine: Engine, model: BiEncoderModel, query: str, doc: str) -> Alignment:
    """For each query vector the document's most similar one: tokens, position among those that count, similarity."""
    config = next(config for config in model.configs if config.kind == "multi_vector")
    sides = []
    for text, is_query in ((query, True), (doc, False)):
        vectors = cast("TokenVectors", engine.encode([text], is_query)["multi_vector"])
        sides.append((vectors, _tokens(model, text, is_query, len(vectors.values))))
    (queries, query_tokens), (docs, doc_tokens) = sides
    sims = similarities(torch.from_numpy(queries.values), torch.from_numpy(docs.values), config.similarity_function)
    if queries.ids is not None and docs.ids is not None:
        sims = sims * (torch.from_numpy(docs.ids)[:, None] == torch.from_numpy(queries.ids))
    best, where = sims.max(dim=0)
    table = Alignment(
        {
            "query_token": query_tokens,
            "doc_token": [doc_tokens[i] for i in where.tolist()],
            "position": where.tolist(),
            "similarity": best.tolist(),
        }
    )
    table.similarities = pd.DataFrame(sims.T.numpy(), index=query_tokens, columns=doc_tokens)
    return table


def leave_out(score: Score, query: str, text: str) -> WordFalls:
    """Score the texts without each of their words, which are what white space divides.

    Args:
        score: queries and documents -> scores of the pairs.

    >>> def shared(queries, docs):
    ...     return np.array([len({*query.split()} & {*doc.split()}) for query, doc in zip(queries, docs)])
    >>> leave_out(shared, "red fox", "a red dog")
        side word  fall
    0  query  red     1
    1  query  fox     0
    2    doc    a     0
    3    doc  red     1
    4    doc  dog     0
    """
    shorter = [("query", word, left, text) for word, left in _without_each(query)]
    shorter += [("doc", word, query, left) for word, left in _without_each(text)]
    sides, words, queries, docs = zip(*shorter, strict=True) if shorter else ((), (), (), ())
    whole, *scores = score([query, *queries], [text, *docs]).tolist()
    table = WordFalls({"side": sides, "word": words, "fall": [whole - without for without in scores]})
    table.score = float(whole)
    return table


def unread_words(model: Model, query: str, text: str) -> int:
    """How many words at the document's end are beyond what the model reads: without them it reads the same tokens."""

    def read(doc: str) -> np.ndarray:
        if not isinstance(model, CrossEncoderModel):
            return model.tokenizers[1].encode([doc]).values
        tokens = model.tokenizer.encode_queries([query]), model.tokenizer.encode_docs([doc])
        first = np.zeros(1, dtype=np.int64)
        return np.asarray(model.tokenizer.join(*tokens, first, first, -1).ids[0])

    whole = read(text)
    ends = [0, *(found.end() for found in re.finditer(r"\S+", text))]
    words = len(ends) - 1
    enough = bisect_left(range(words), True, key=lambda end: np.array_equal(read(text[: ends[end]]), whole))
    return words - enough


def _without_each(text: str) -> Iterator[tuple[str, str]]:
    """Each word of a text, and the text without it and the space behind it."""
    for found in re.finditer(r"\S+\s*", text):
        rest = text[found.end() :]
        yield found[0].rstrip(), text[: found.start()] + rest if rest else text[: found.start()].rstrip()


def _tokens(model: BiEncoderModel, text: str, query: bool, vectors: int) -> list[str]:
    """The names of the tokens whose vectors count; of a pooled side, the text itself."""
    tokenizer = model.tokenizers[0 if query else 1]
    rows = tokenizer.encode([text])
    batch = tokenizer.batch(rows, np.array([0]), int(model.backbone.config.pad_token_id or 0))
    if "multi_vector" not in batch.counts:
        return [text] * vectors
    ids = batch.ids[batch.counts["multi_vector"]]
    return [str(token) for token in tokenizer.tokenizer.convert_ids_to_tokens(ids.tolist())]
