"""FieldLoader and VectorLoader: what an index stores of documents, beside results that name them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyterrier as pt

from ..columns import VECTOR_COLUMNS, MadeBy, tell_made_by
from .docnos import as_fields
from .index import LIRIndex
from .retriever import OnIndex


class FieldLoader(OnIndex):
    """Adds stored fields to results: `retriever >> index.text_loader()`, or `pt.text.get_text(index)`.

    Args:
        index: that holds the documents.
        include_fields: which.

    Raises:
        ValueError: for documents that the index does not hold, or fields that it does not store.
    """

    def __init__(self, index: LIRIndex, include_fields: Iterable[str] | str) -> None:
        self.index, self.include_fields = index, as_fields(include_fields)

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The same rows with the fields' columns."""
        pt.validate.columns(inp, includes=["docno"])
        self.index.refresh()
        return self._with_fields(inp, self.include_fields, self._there(inp)[1])

    def __repr__(self) -> str:
        return f"{self.index!r}.text_loader({list(self.include_fields)!r})"


class VectorLoader(OnIndex):
    """Adds stored vectors: `bm25 >> index.vec_loader() >> encoder.query_encoder() >> MmrScorer()`, or a scorer.

    The columns are those of document encoders: `doc_vec`, `toks` or `doc_embs` (and `doc_embs_toks` where a model
    compares tokens), as the index stores them: rounded if it rounds, of length 1 where the cosine compares.

    Args:
        index: that holds the documents.

    Raises:
        ValueError: for documents that the index does not hold.

    >>> import tempfile
    >>> from pyterrier_lir import LIRSparseIndex
    >>> index = LIRSparseIndex(tempfile.mkdtemp() + "/tiny.lir").indexer().index([{"docno": "a", "toks": {"fox": 1.5}}])
    >>> index.vec_loader()([{"docno": "a"}])
    [{'docno': 'a', 'toks': {'fox': 1.5}}]
    """

    def __init__(self, index: LIRIndex) -> None:
        self.index = index

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The same rows with the vectors' columns; rows of one document share its vectors."""
        pt.validate.columns(inp, includes=["docno"])
        self.index.refresh()
        distinct, codes = np.unique(self._there(inp)[1], return_inverse=True)
        columns = self.index.columns_of(distinct)
        loaded = {name: [values[code] for code in codes] for name, values in columns.items()}
        out = inp.assign(**{name: pd.Series(rows, index=inp.index, dtype=object) for name, rows in loaded.items()})
        if (model := self.index.meta["model"]).get("fingerprint"):
            tell_made_by(out, VECTOR_COLUMNS[self.index.KIND][1], MadeBy(model["source"], model["fingerprint"]))
        return out

    def fuse_rank_cutoff(self, k: int) -> pt.Transformer:
        """`loader % k` reads the vectors of those that stay."""
        return pt.RankCutoff(k) >> self

    def __repr__(self) -> str:
        return f"{self.index!r}.vec_loader()"
