"""LIRBiEncoder: a bi-encoder as query encoder, document encoder and scorer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import numpy as np
import pandas as pd
import pyterrier as pt

from ..columns import (
    VECTOR_COLUMNS,
    MadeBy,
    check_texts,
    tell_made_by,
    text_values,
    transform_iter,
    vector_columns,
    with_vectors,
)
from ..config import BiEncoderConfig, Kind, Similarity
from ..display import Drawn
from ..vectors import Encoded, TokenVectors, pool_tokens, prune
from .model_transformer import ModelTransformer, label
from .reranker import ranked, with_scores
from .scoring import check_scorable, scored, terms_of

if TYPE_CHECKING:
    from ..engine import Engine, Model
    from ..models import BiEncoderModel
    from .explanation import Explanation

Plain: TypeAlias = np.ndarray | list[dict[str, float]] | list[np.ndarray]  # vectors of texts


@dataclass(unsafe_hash=True, repr=False, kw_only=True)
class LIRBiEncoder(ModelTransformer):
    """A bi-encoder: dense, learned sparse or multi-vector, from whatever library its checkpoint is.

    `query_encoder()` adds `query_vec`, `query_toks` or `query_embs` to queries; `doc_encoder()` adds `doc_vec`, `toks`
    or `doc_embs` to documents; `scorer()` scores and ranks results, by stored vectors where they are there.  Used
    itself, it does what the columns of its input ask for.

    Args:
        model: a hub id, a folder, or a loaded model.
        text_field, query_field: the columns that are read.
        batch_size: texts of a batch; None batches by a budget of tokens, which is faster.
        device: such as `cpu` or `cuda:0`; None takes the GPU if there is one.
        precision: `float32`, `bf16`, `fp16`, `int8`, or `auto` (float32 on CPU, bf16 on CUDA).
        max_length: most tokens of a text, special tokens included; None for the model's own limits.  Queries that are
            filled up with `[MASK]`, as ColBERT's, are not made longer by it; `query_length` does that.
        verbose: show a progress bar.
        token_ids: sparse vectors name tokens by their ids, as strings of digits, not by the vocabulary's strings.  For
            indexes that change strings: PISA lower-cases those of queries, so that `[SEP]` and `The` find nothing.
        query_length, doc_length: most tokens of queries and of documents, where they differ.
        query_prompt, doc_prompt: text put in front; None for the model's own, `""` for none.
        query_prompt_name, doc_prompt_name: a prompt that the checkpoint holds, by its name.
        truncate_dim: cut dense and token vectors to their first numbers (Matryoshka).
        query_top_k, doc_top_k: keep so many terms of a sparse vector, those with the largest weights.
        query_threshold, doc_threshold: drop terms of less weight.
        doc_pool_factor: merge the token vectors that a multi-vector model makes of a document into so many times
            fewer, at 2 into half as many, each the mean of a cluster (see `vectors.pool_tokens`).  This and the four
            before change vectors that are written to columns and indexes, not the scores of texts.
        outputs: which outputs of a model that has several; see `checkpoints.load`.
        merge_adapter: whether the changes of a PEFT adapter are added to the weights of its base.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether Python files of the checkpoint may run.

    Raises:
        ValueError, FileNotFoundError: at the first use, for what `checkpoints.load` and `Engine` refuse.
        TypeError: at the first use, if the checkpoint is a cross-encoder.
        pt.validate.InputValidationError: for missing columns.

    >>> LIRBiEncoder("naver/splade-v3", doc_top_k=128).doc_encoder()
    LIRBiEncoder('naver/splade-v3', doc_top_k=128).doc_encoder()
    """

    query_length: int | None = None
    doc_length: int | None = None
    query_prompt: str | None = None
    doc_prompt: str | None = None
    query_prompt_name: str | None = None
    doc_prompt_name: str | None = None
    truncate_dim: int | None = None
    query_top_k: int | None = None
    doc_top_k: int | None = None
    query_threshold: float | None = None
    doc_threshold: float | None = None
    doc_pool_factor: float | None = None
    outputs: tuple[Kind, ...] | None = None
    merge_adapter: bool = True

    _FREE: ClassVar[tuple[str, ...]] = (
        *ModelTransformer._FREE, "query_top_k", "doc_top_k", "query_threshold", "doc_threshold", "doc_pool_factor",
    )  # fmt: skip
    _LOADING: ClassVar[tuple[str, ...]] = ("revision", "trust_remote_code", "outputs", "merge_adapter")

    def _check(self) -> None:
        super()._check()
        factor = self.doc_pool_factor
        if factor is not None and (not isinstance(factor, Real) or isinstance(factor, bool) or not factor >= 1):
            raise ValueError(f"doc_pool_factor={self.doc_pool_factor!r}; allowed: a number of at least 1, or None.")
        for side in ("query", "doc"):
            if getattr(self, f"{side}_prompt") is not None and getattr(self, f"{side}_prompt_name") is not None:
                raise ValueError(f"{side}_prompt and {side}_prompt_name are both given; one of them is enough.")

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Encode queries, encode documents or score results, as the columns are."""
        with pt.validate.any(inp, context=self) as check:
            check.query_frame(extra_columns=[self.query_field], mode="query_encoder")
            check.document_frame(extra_columns=[self.text_field], mode="doc_encoder")
            check.result_frame(extra_columns=[self.query_field, self.text_field], mode="scorer")
            for query, doc in VECTOR_COLUMNS.values():
                check.result_frame(extra_columns=[self.query_field, doc], mode="scorer")
                check.result_frame(extra_columns=[query, doc], mode="scorer")
                check.result_frame(extra_columns=[query, self.text_field], mode="scorer")
        chosen: pt.Transformer = getattr(self, check.mode)()
        out: pd.DataFrame = chosen.transform(inp)
        return out

    def query_encoder(self) -> QueryEncoder:
        """The transformer that adds vectors to queries."""
        return QueryEncoder(self)

    def doc_encoder(self) -> DocEncoder:
        """The transformer that adds vectors to documents."""
        return DocEncoder(self)

    def scorer(self) -> Scorer:
        """The transformer that scores and ranks results."""
        return Scorer(self)

    def encode_queries(self, texts: Sequence[str]) -> Plain | dict[Kind, Plain]:
        """Vectors of queries, without a pipeline.

        Returns:
            (N, D) float32 of dense models, a dictionary token -> weight for each text of sparse models, an array
            (tokens, D) for each text of multi-vector models; of several outputs, kind -> one of these.

        Raises:
            TypeError: for what is no list of strings.

        >>> LIRBiEncoder("sentence-transformers/all-MiniLM-L6-v2").encode_queries(["a fox"]).shape  # doctest: +SKIP
        (1, 384)
        """
        return self._plain(texts, query=True)

    def encode_docs(self, texts: Sequence[str]) -> Plain | dict[Kind, Plain]:
        """Vectors of documents, as `encode_queries` gives those of queries."""
        return self._plain(texts, query=False)

    def similarity(self, queries: Sequence[str], docs: Sequence[str]) -> np.ndarray:
        """Scores (Q, N) float32 of every query with every document, those of `scorer()`; each is encoded once.

        Raises:
            TypeError: for what are no lists of strings.
        """
        rows, columns = (np.array(check_texts(texts, name), dtype=object)
                         for texts, name in ((queries, "queries"), (docs, "docs")))  # fmt: skip
        scores = self.engine().score(np.repeat(rows, len(columns)), np.tile(columns, len(rows)))
        return scores.reshape(len(rows), len(columns))

    def explain(
        self, text: str, doc: str | None = None, *, query: bool = True, kind: Kind | None = None
    ) -> Explanation:
        """Why texts are near: a sparse model's terms of a text, or what each query token found in a document.

        Of a model with several outputs one is explained, and the table adds up to that output's score alone.

        Args:
            text: a query, or with `query=False` a document.
            doc: a document that the query is compared with; needed by multi-vector models.  With it, a sparse model
                shows the terms that both have.
            kind: of a model with several outputs the one that is explained, `"sparse"` or `"multi_vector"`; None for
                the first of these that the model makes.  The display tells it.

        Returns:
            For sparse models `term`, `weight` (with `doc`: `query_weight`, `doc_weight`, `score`); for multi-vector
            models `query_token`, `doc_token`, `position` and `similarity`, and the attribute `similarities` with those
            of all tokens; a DataFrame that notebooks show with bars, or as a shaded matrix.

        Raises:
            ValueError: for dense vectors (`LIRReRanker.explain` explains these), for a kind that the model does not
                make, and for multi-vector models without `doc`.
        """
        from ..models.facts import KIND_WORDS
        from .explanation import align, weigh

        engine = self.engine()
        model = cast("BiEncoderModel", engine.model)
        explained = [one for one in ("sparse", "multi_vector") if one in model.kinds]
        if kind not in (None, *model.kinds):
            raise ValueError(f"kind={kind!r}; {model.source} makes: {', '.join(model.kinds)}.")
        if not explained or kind == "dense":
            raise ValueError(
                f"{model.source} makes one dense vector of a text, whose numbers have no names. "
                f"LIRReRanker({self.model!r}).explain(query, text) leaves out one word after the other."
            )
        kind = kind or explained[0]
        if kind == "sparse":
            sides = [(text, query)] if doc is None else [(text, True), (doc, False)]
            vectors = [self._encode(engine, [one], side)["sparse"] for one, side in sides]
            table: Explanation = weigh(vectors, terms_of(model))
        elif doc is None:
            raise ValueError("explain(query, doc): a multi-vector model is explained by a document too.")
        else:
            table = align(engine, model, text, doc)
        if len(model.kinds) > 1:
            made = ", ".join(KIND_WORDS[one] for one in model.kinds)
            table.part = f"The {KIND_WORDS[kind]} part alone, of: {made}."
        return table

    def _load(self) -> Engine:
        engine = super()._load()
        if not hasattr(engine.model, "outputs"):
            raise TypeError(
                f"{engine.model.source} is a cross-encoder: it reads query and document together and has no vectors. "
                f"Use LIRReRanker({self.model!r})."
            )
        return engine

    def _changed(self, model: Model) -> Model:
        if not hasattr(model, "outputs"):
            return model
        names = ("max_length", "query_length", "doc_length", "query_prompt", "doc_prompt", "query_prompt_name",
                 "doc_prompt_name")  # fmt: skip
        changes: dict[str, Any] = {name: getattr(self, name) for name in names}
        return cast("BiEncoderModel", model).with_options(**changes, embedding_dim=self.truncate_dim)

    def _encode(self, engine: Engine, texts: list[str], query: bool) -> Encoded:
        """Vectors of distinct texts, sparse ones pruned."""
        self._check_pruning(query)
        return self.pruned(engine.encode(texts, query), query)

    def pruned(self, encoded: Encoded, query: bool) -> Encoded:
        """Encoded queries or documents with their sparse vectors pruned, and token vectors pooled, as the settings say.

        Raises:
            ValueError: for `doc_pool_factor` with a model that has no token vectors, or compares equal tokens only, and
                for `top_k` and thresholds with one that has no sparse vectors.
        """
        self._check_pruning(query)
        encoded = dict(encoded)
        side = "query" if query else "doc"
        top_k, threshold = getattr(self, f"{side}_top_k"), getattr(self, f"{side}_threshold")
        if "sparse" in encoded and (top_k is not None or threshold is not None):
            encoded["sparse"] = prune(cast("Any", encoded["sparse"]), top_k, threshold)
        if self.doc_pool_factor is not None and not query:
            model = cast("BiEncoderModel", self.engine().model)
            config = next(config for config in model.configs if config.kind == "multi_vector")
            unit = config.normalization_strategy == "l2"
            tokens = cast("TokenVectors", encoded["multi_vector"])
            encoded["multi_vector"] = pool_tokens(tokens, self.doc_pool_factor, unit)
        return encoded

    def _check_pruning(self, query: bool) -> None:
        """Refuse settings for a kind of vectors that the model does not make."""
        model = cast("BiEncoderModel", self.engine().model)
        side = "query" if query else "doc"
        given = [name for name in (f"{side}_top_k", f"{side}_threshold") if getattr(self, name) is not None]
        if given and "sparse" not in model.kinds:
            raise ValueError(f"{given[0]}={getattr(self, given[0])!r}: {model.source} has no sparse vectors.")
        if self.doc_pool_factor is not None and not query:
            config = next((config for config in model.configs if config.kind == "multi_vector"), None)
            if config is None or config.exact_match:
                why = "has no token vectors" if config is None else "compares vectors of equal tokens only"
                raise ValueError(f"doc_pool_factor={self.doc_pool_factor!r}: {model.source} {why}.")

    def _plain(self, texts: Sequence[str], query: bool) -> Plain | dict[Kind, Plain]:
        engine = self.engine()
        model = cast("BiEncoderModel", engine.model)
        encoded = self._encode(engine, check_texts(texts, "texts"), query)
        terms = terms_of(model, self.token_ids) if "sparse" in encoded else None
        found: dict[Kind, Plain] = {}
        for kind, vectors in encoded.items():
            column = VECTOR_COLUMNS[kind][0 if query else 1]
            plain = vectors if kind == "dense" else vector_columns({kind: vectors}, query, terms)[column]
            found[kind] = cast("Plain", plain)
        return found if len(found) > 1 else next(iter(found.values()))

    def config(self) -> BiEncoderConfig:
        """The configuration of the model's (first) output, settings of this transformer included."""
        return cast("BiEncoderModel", self.engine().model).config

    def record(self) -> dict[str, Any]:
        """What an index remembers of the model: its source and fingerprint, and the settings for documents."""
        model = cast("BiEncoderModel", self.engine().model)
        settings = {name: value for name, value in self._chosen().items()
                    if name.startswith("doc_") or name == "max_length"}  # fmt: skip
        return {"source": str(model.source), "fingerprint": model.fingerprint, "settings": settings}

    def terms(self) -> list[str]:
        """The names of a sparse model's terms, by their ids."""
        names: list[str] = terms_of(cast("BiEncoderModel", self.engine().model), self.token_ids).names.tolist()
        return names

    def kinds(self) -> tuple[Kind, ...]:
        """What vectors the model makes, known without its weights."""
        if self._loaded is not None or not isinstance(self.model, (str, os.PathLike)):
            return tuple(cast("BiEncoderModel", self.engine().model).kinds)
        if self.outputs is not None:
            return tuple(self.outputs)
        from .. import checkpoints

        found = checkpoints.kinds(self.model, revision=self.revision, trust_remote_code=self.trust_remote_code)
        return found or tuple(cast("BiEncoderModel", self.engine().model).kinds)  # which says why there are none

    def _with_vectors(self, frame: pd.DataFrame, query: bool) -> pd.DataFrame:
        if frame.empty:
            columns = [VECTOR_COLUMNS[kind][0 if query else 1] for kind in self.kinds()]
            return frame.assign(**{name: pd.Series(dtype=object) for name in columns})
        engine = self.engine()
        codes, distinct = pd.factorize(text_values(frame, self.query_field if query else self.text_field))
        encoded = self._encode(engine, list(distinct), query)
        model = cast("BiEncoderModel", engine.model)
        terms = terms_of(model, self.token_ids) if "sparse" in model.kinds else None
        out = with_vectors(frame, encoded, codes, query, terms)
        for config in model.configs:
            column = VECTOR_COLUMNS[config.kind][0 if query else 1]
            tell_made_by(out, column, MadeBy(str(model.source), model.fingerprint, similarity_of(config)))
        return out


def similarity_of(config: BiEncoderConfig) -> Similarity:
    """How vectors are compared; the cosine of vectors of length 1 is their dot product."""
    unit = config.similarity_function == "cosine" and config.normalization_strategy == "l2"
    return "dot" if unit else config.similarity_function


@dataclass(unsafe_hash=True, repr=False)
class _Part(Drawn, pt.Transformer):
    """One of the three things that a bi-encoder is used for."""

    bi_encoder: LIRBiEncoder
    _NAME: ClassVar[str] = ""

    transform_iter = transform_iter

    def __repr__(self) -> str:
        return f"{self.bi_encoder!r}.{self._NAME}()"

    def _label(self) -> str:
        return label(self.bi_encoder.model)

    def facts(self) -> dict[str, Any]:
        """What the display tells: that of the bi-encoder."""
        return self.bi_encoder.facts()


class QueryEncoder(_Part):
    """Adds `query_vec`, `query_toks` or `query_embs` to a frame with `query`; equal queries are encoded once."""

    _NAME = "query_encoder"

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The frame with the queries' vectors."""
        with pt.validate.any(inp, context=self) as check:
            check.query_frame(extra_columns=[self.bi_encoder.query_field])
            check.columns(includes=[self.bi_encoder.query_field])
        return self.bi_encoder._with_vectors(inp, query=True)


class DocEncoder(_Part):
    """Adds `doc_vec`, `toks` or `doc_embs` to a frame with `text`; equal documents are encoded once."""

    _NAME = "doc_encoder"

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The frame with the documents' vectors."""
        with pt.validate.any(inp, context=self) as check:
            check.document_frame(extra_columns=[self.bi_encoder.text_field])
            check.columns(includes=[self.bi_encoder.text_field])
        return self.bi_encoder._with_vectors(inp, query=False)


class Scorer(_Part):
    """Scores and ranks results, by stored vectors where the frame has them, else by their texts."""

    _NAME = "scorer"

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Score each row's query and document, and rank anew within each query."""
        encoder = self.bi_encoder
        texts = {"query": encoder.query_field, "text": encoder.text_field}
        check_scorable(inp, texts, self)
        if inp.empty:
            return ranked(inp.assign(score=pd.Series(dtype=float)))
        return with_scores(inp, scored(inp, encoder.engine(), texts, self, encoder.token_ids))
