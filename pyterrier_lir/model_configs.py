"""The configurations of Lightning IR's model types under their names and with their defaults.

Each is a function that gives a `BiEncoderConfig` or a `CrossEncoderConfig`, so that listings and YAML files which name
`SpladeConfig` or `MonoConfig` make the same new models here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .config import Aggregation, BiEncoderConfig, CrossEncoderConfig, Pooling, Projection, Similarity, Sparsification

__all__ = ["ColConfig", "DprConfig", "MonoConfig", "MvrConfig", "SetEncoderConfig", "SpladeConfig", "UniCoilConfig"]


def DprConfig(
    query_length: int | None = 32,
    doc_length: int | None = 512,
    similarity_function: Similarity = "dot",
    normalize: bool = False,
    sparsification: Sparsification = None,
    add_marker_tokens: bool = False,
    query_pooling_strategy: Pooling = "first",
    doc_pooling_strategy: Pooling = "first",
    embedding_dim: int | None = None,
    projection: Projection = "linear",
) -> BiEncoderConfig:
    """A dense model, DPR (arXiv:2004.04906).

    >>> DprConfig(projection=None).query_pooling_strategy
    ('first',)
    """
    return BiEncoderConfig(
        query_length=query_length, doc_length=doc_length, similarity_function=similarity_function,
        normalization_strategy="l2" if normalize else None, sparsification_strategy=sparsification,
        add_marker_tokens=add_marker_tokens, query_pooling_strategy=query_pooling_strategy,
        doc_pooling_strategy=doc_pooling_strategy, embedding_dim=embedding_dim, projection=projection,
    )  # fmt: skip


def SpladeConfig(
    query_length: int | None = 32,
    doc_length: int | None = 512,
    similarity_function: Similarity = "dot",
    sparsification_strategy: Sparsification = "relu_log",
    pooling_strategy: Pooling = "max",
    query_weighting: str | None = "contextualized",
    query_expansion: bool = True,
    doc_weighting: str | None = "contextualized",
    doc_expansion: bool = True,
) -> BiEncoderConfig:
    """A learned sparse model, SPLADE (arXiv:2109.10086); without expansion only a text's own terms get weights.

    >>> SpladeConfig(query_expansion=False) == BiEncoderConfig.splade(query_weighting="lexical")
    True
    """
    words = (_weighting(query_weighting, query_expansion), _weighting(doc_weighting, doc_expansion))
    sides: dict[str, Any] = dict(zip(("query_weighting", "doc_weighting"), words, strict=True))
    sides["special_tokens"] = tuple(word not in _WITHOUT_MODEL for word in words)
    return BiEncoderConfig.splade(
        query_length=query_length, doc_length=doc_length, similarity_function=similarity_function,
        sparsification_strategy=sparsification_strategy, query_pooling_strategy=pooling_strategy,
        doc_pooling_strategy=pooling_strategy, **sides,
    )  # fmt: skip


def UniCoilConfig(
    query_length: int | None = 32,
    doc_length: int | None = 512,
    similarity_function: Similarity = "dot",
    projection: Projection = "linear",
) -> BiEncoderConfig:
    """A learned sparse model that weights the text's own tokens, UniCOIL (arXiv:2106.14807)."""
    if projection != "linear":
        raise ValueError(f"projection={projection!r}; allowed: 'linear'.")
    return BiEncoderConfig(
        query_length=query_length, doc_length=doc_length, similarity_function=similarity_function,
        projection="term_weight", sparsification_strategy="relu", query_repeated_terms="last",
        doc_repeated_terms="last",
    )  # fmt: skip


def ColConfig(
    query_length: int | None = 32,
    doc_length: int | None = 512,
    similarity_function: Similarity = "dot",
    normalization_strategy: str | None = None,
    add_marker_tokens: bool = False,
    query_mask_scoring_tokens: Sequence[str] | str | None = None,
    doc_mask_scoring_tokens: Sequence[str] | str | None = None,
    query_aggregation_function: Aggregation = "sum",
    doc_aggregation_function: Aggregation = "max",
    embedding_dim: int = 128,
    projection: Projection = "linear",
    query_expansion: bool = False,
    attend_to_query_expanded_tokens: bool = False,
    doc_expansion: bool = False,
    attend_to_doc_expanded_tokens: bool = False,
) -> BiEncoderConfig:
    """A multi-vector model, ColBERT (arXiv:2004.12832)."""
    given: dict[str, Any] = dict(locals())
    return BiEncoderConfig(query_pooling_strategy=None, doc_pooling_strategy=None, **given)


def MvrConfig(
    query_length: int | None = 32,
    doc_length: int | None = 512,
    similarity_function: Similarity = "dot",
    normalization_strategy: str | None = None,
    add_marker_tokens: bool = False,
    embedding_dim: int | None = None,
    projection: Projection = "linear",
    num_viewer_tokens: int = 8,
) -> BiEncoderConfig:
    """A multi-vector model whose documents have the vectors of viewer tokens, MVR (ACL 2022).

    >>> MvrConfig(num_viewer_tokens=2).doc_markers
    ('[VIE0]', '[VIE1]')
    """
    normalized: dict[str, Any] = {"normalization_strategy": normalization_strategy}
    return BiEncoderConfig(
        query_length=query_length, doc_length=doc_length, similarity_function=similarity_function,
        query_pooling_strategy="first", doc_pooling_strategy="markers", embedding_dim=embedding_dim,
        query_markers=("[QUE]",) if add_marker_tokens else (),
        doc_markers=tuple(f"[VIE{i}]" for i in range(num_viewer_tokens)), projection=projection, **normalized,
    )  # fmt: skip


def MonoConfig(
    query_length: int | None = 32,
    doc_length: int | None = 512,
    pooling_strategy: Pooling = "first",
    linear_bias: bool = False,
    scoring_strategy: str = "rank",
) -> CrossEncoderConfig:
    """A pointwise cross-encoder (arXiv:1901.04085); `scoring_strategy="mono"` compares two tokens of a T5 model.

    >>> MonoConfig() == CrossEncoderConfig()
    True
    """
    given: dict[str, Any] = dict(locals())
    return CrossEncoderConfig(**given)


def SetEncoderConfig(
    query_length: int | None = 32,
    doc_length: int | None = 512,
    pooling_strategy: Pooling = "first",
    linear_bias: bool = False,
    depth: int = 100,
    add_extra_token: bool = False,
    sample_missing_docs: bool = True,
) -> CrossEncoderConfig:
    """A listwise cross-encoder, Set-Encoder (arXiv:2404.06912)."""
    given: dict[str, Any] = dict(locals())
    return CrossEncoderConfig(**given)


_WITHOUT_MODEL = ("static", "binary")


def _weighting(weighting: str | None, expansion: bool) -> str:
    """Weighting and expansion of one side as one word."""
    return "lexical" if weighting == "contextualized" and not expansion else weighting or "binary"
