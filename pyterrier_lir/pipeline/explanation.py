"""What a bi-encoder sees: the terms of sparse vectors, and which document token each query token found."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch

from ..columns import Terms
from ..models.scores import similarities

if TYPE_CHECKING:
    from ..engine import Engine
    from ..models import BiEncoderModel
    from ..vectors import TokenVectors, Vectors


class Explanation(pd.DataFrame):
    """A DataFrame whose last column notebooks show with bars."""

    @property
    def _constructor(self) -> Any:
        return Explanation

    def _repr_html_(self) -> str:
        if self.empty or not pd.api.types.is_numeric_dtype(self.iloc[:, -1]):
            return pd.DataFrame(self).to_html()
        last = self.columns[-1]
        largest = max(float(np.abs(self[last]).max()), 1e-12)
        head = "".join(f"<th style='text-align:left'>{escape(str(name))}</th>" for name in self.columns)
        shown = self.head(60)
        rows = []
        for values in shown.itertuples(index=False):
            cells = "".join(f"<td style='text-align:left'>{_cell(value)}</td>" for value in values[:-1])
            share = abs(float(values[-1])) / largest * 8
            colour = "#4c78a8" if values[-1] >= 0 else "#e45756"
            bar = f"<span style='display:inline-block;height:.7em;width:{share:.2f}em;background:{colour}'></span>"
            rows.append(f"<tr>{cells}<td style='text-align:left'>{bar} {_cell(values[-1])}</td></tr>")
        more = f"<p>{len(self) - len(shown)} more rows</p>" if len(self) > len(shown) else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))


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


def align(engine: Engine, model: BiEncoderModel, query: str, doc: str) -> Explanation:
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
    return Explanation(
        {
            "query_token": query_tokens,
            "doc_token": [doc_tokens[i] for i in where.tolist()],
            "position": where.tolist(),
            "similarity": best.tolist(),
        }
    )


def _tokens(model: BiEncoderModel, text: str, query: bool, vectors: int) -> list[str]:
    """The names of the tokens whose vectors count; of a pooled side, the text itself."""
    tokenizer = model.tokenizers[0 if query else 1]
    rows = tokenizer.encode([text])
    batch = tokenizer.batch(rows, np.array([0]), int(model.backbone.config.pad_token_id or 0))
    if "multi_vector" not in batch.counts:
        return [text] * vectors
    ids = batch.ids[batch.counts["multi_vector"]]
    return [str(token) for token in tokenizer.tokenizer.convert_ids_to_tokens(ids.tolist())]
