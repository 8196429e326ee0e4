"""Public checkpoints that are known to load: one table, which also says what their files do not.

Any checkpoint of a known format loads, in this table or not; a row adds its kind, its format and where it was
published, and for a few how it is read.  Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

HUB = "https://huggingface.co/"
ModelKind = Literal["cross-encoder", "set-encoder", "dense", "sparse", "multi_vector"]


@dataclass(frozen=True)
class PublicModel:
    """A public checkpoint.

    Attributes:
        id: on the Hugging Face hub.
        kind: what it makes: scores of pairs (of lists, for set-encoders), or a kind of vectors.
        format: which reader of `checkpoints.READERS` reads it.
        source: where it, or how it is to be read, was published.
        reads: what its files do not say: `template` of a generative re-ranker (a key of
            `checkpoints.registry.TEMPLATES`), fields of a bi-encoder's configuration, or `second_logit` of a two-label
            classifier that its authors read as the plain second logit, not as a log probability.
    """

    id: str
    kind: ModelKind
    format: str
    source: str
    reads: Mapping[str, Any] = field(default_factory=dict)


def _rows(kind: ModelKind, format: str, ids: str, source: str | None = None, **reads: Any) -> list[PublicModel]:
    """A row for each of the ids, which are parted by white space."""
    return [PublicModel(one, kind, format, source or HUB + one, reads) for one in ids.split()]


def _both(pooling: str, **fields: Any) -> dict[str, Any]:
    """Fields of a dense model that pools queries and documents alike."""
    lengths = {"query_length": 512, "doc_length": 512}
    return {**lengths, "query_pooling_strategy": pooling, "doc_pooling_strategy": pooling, **fields}


_CLASSES, _SENTENCES, _T5, _LM = (
    "sequence classification", "sentence-transformers", "T5 re-ranker", "causal language model",
)  # fmt: skip
_OPENSEARCH = "opensearch-project/opensearch-neural-sparse-encoding"

PUBLIC_MODELS: tuple[PublicModel, ...] = (
    # Schlatt et al., 2025, https://arxiv.org/abs/2411.04677
    *_rows("cross-encoder", "Lightning IR", "webis/monoelectra-base webis/monoelectra-large"),
    *_rows("set-encoder", "Lightning IR", "webis/set-encoder-base webis/set-encoder-large"),
    *_rows("cross-encoder", _CLASSES, """
        cross-encoder/ms-marco-TinyBERT-L2-v2 cross-encoder/ms-marco-MiniLM-L2-v2 cross-encoder/ms-marco-MiniLM-L4-v2
        cross-encoder/ms-marco-MiniLM-L6-v2 cross-encoder/ms-marco-MiniLM-L12-v2 cross-encoder/ms-marco-electra-base
        BAAI/bge-reranker-base BAAI/bge-reranker-large BAAI/bge-reranker-v2-m3
        mixedbread-ai/mxbai-rerank-xsmall-v1 mixedbread-ai/mxbai-rerank-base-v1 mixedbread-ai/mxbai-rerank-large-v1
        Alibaba-NLP/gte-reranker-modernbert-base castorini/monobert-large-msmarco
    """),
    *_rows("cross-encoder", _CLASSES, "castorini/monoelectra-base crystina-z/monoELECTRA_LCE_nneg31",
           HUB + "castorini/monoelectra-base", second_logit=True),
    # Nogueira et al., Findings of EMNLP 2020, https://aclanthology.org/2020.findings-emnlp.63
    *_rows("cross-encoder", _T5, """
        castorini/monot5-base-msmarco castorini/monot5-base-msmarco-10k castorini/monot5-large-msmarco
        castorini/monot5-large-msmarco-10k castorini/monot5-3b-msmarco castorini/monot5-3b-msmarco-10k
        castorini/monot5-small-msmarco-10k castorini/monot5-small-msmarco-100k castorini/monot5-base-med-msmarco
        unicamp-dl/InRanker-small unicamp-dl/InRanker-base unicamp-dl/InRanker-3B
    """, template="monot5"),
    # Zhuang et al., SIGIR 2023, https://arxiv.org/abs/2210.10634
    *_rows("cross-encoder", _T5, "Soyoung97/RankT5-base Soyoung97/RankT5-large Soyoung97/RankT5-3b", template="rankt5"),
    # Bonifacio et al., 2021, https://arxiv.org/abs/2108.13897
    *_rows("cross-encoder", _T5, """
        unicamp-dl/mt5-base-mmarco-v1 unicamp-dl/mt5-base-mmarco-v2 unicamp-dl/mt5-base-en-pt-msmarco-v2
        unicamp-dl/mt5-base-en-msmarco
    """, template="mmarco"),
    *_rows("cross-encoder", _T5, "unicamp-dl/mt5-13b-mmarco-100k", template="mmarco-true"),
    *_rows("cross-encoder", _T5, "unicamp-dl/ptt5-base-pt-msmarco-100k-v1 unicamp-dl/ptt5-base-pt-msmarco-100k-v2",
           template="ptt5"),
    *_rows("cross-encoder", _T5, """
        unicamp-dl/monoptt5-small unicamp-dl/monoptt5-base unicamp-dl/monoptt5-large unicamp-dl/monoptt5-3b
    """, template="monoptt5"),
    *_rows("cross-encoder", _LM, "Qwen/Qwen3-Reranker-0.6B Qwen/Qwen3-Reranker-4B Qwen/Qwen3-Reranker-8B",
           template="qwen3-reranker"),
    *_rows("cross-encoder", _LM, "mixedbread-ai/mxbai-rerank-base-v2 mixedbread-ai/mxbai-rerank-large-v2",
           template="mxbai-rerank-v2"),
    *_rows("cross-encoder", _LM, "BAAI/bge-reranker-v2-gemma", template="bge-reranker-v2-gemma"),

    *_rows("dense", "Lightning IR", "webis/bert-bi-encoder"),
    *_rows("dense", _SENTENCES, """
        sentence-transformers/all-MiniLM-L6-v2 sentence-transformers/all-MiniLM-L12-v2
        sentence-transformers/all-mpnet-base-v2 sentence-transformers/multi-qa-MiniLM-L6-cos-v1
        sentence-transformers/multi-qa-mpnet-base-dot-v1 sentence-transformers/msmarco-distilbert-base-tas-b
        sentence-transformers/msmarco-bert-base-dot-v5
        intfloat/e5-small-v2 intfloat/e5-base-v2 intfloat/e5-large-v2
        intfloat/multilingual-e5-small intfloat/multilingual-e5-base intfloat/multilingual-e5-large
        BAAI/bge-small-en-v1.5 BAAI/bge-base-en-v1.5 BAAI/bge-large-en-v1.5
        Qwen/Qwen3-Embedding-0.6B Qwen/Qwen3-Embedding-4B Qwen/Qwen3-Embedding-8B google/embeddinggemma-300m
    """),
    *_rows("dense", "public backbone", "facebook/contriever facebook/contriever-msmarco facebook/mcontriever-msmarco",
           HUB + "facebook/contriever", **_both("mean")),
    *_rows("dense", "public backbone", """
        sebastian-hofstaetter/distilbert-dot-tas_b-b256-msmarco Luyu/co-condenser-marco-retriever
    """, **_both("first")),
    *_rows("dense", "public backbone",
           "Shitao/RetroMAE_MSMARCO Shitao/RetroMAE_MSMARCO_finetune Shitao/RetroMAE_MSMARCO_distill",
           HUB + "Shitao/RetroMAE_MSMARCO_distill", **_both("first")),
    # queries and documents are two checkpoints
    *_rows("dense", "public backbone", """
        facebook/dragon-plus-query-encoder facebook/dragon-plus-context-encoder
        facebook/dragon-roberta-query-encoder facebook/dragon-roberta-context-encoder
    """, HUB + "facebook/dragon-plus-query-encoder", **_both("first")),
    *_rows("dense", "public backbone", "castorini/repllama-v1-7b-lora-passage", **_both(
        "last", query_prompt="query: ", doc_prompt="passage: ", normalization_strategy="l2")),
    *_rows("dense", "BGE-M3", "BAAI/bge-m3"),

    *_rows("sparse", "Lightning IR", "webis/splade"),
    *_rows("sparse", "SPLADE", """
        naver/splade_v2_max naver/splade_v2_distil naver/splade-cocondenser-ensembledistil
        naver/splade-cocondenser-selfdistil naver/efficient-splade-V-large-query naver/efficient-splade-V-large-doc
        naver/efficient-splade-VI-BT-large-query naver/efficient-splade-VI-BT-large-doc
    """, "https://github.com/naver/splade", query_length=256, doc_length=256),
    *_rows("sparse", "SPLADE", "naver/splade-v3 naver/splade-v3-distilbert"),
    *_rows("sparse", "SPLADE", "naver/splade-v3-doc", query_weighting="binary"),
    *_rows("sparse", "SPLADE", "naver/splade-v3-lexical", query_weighting="lexical"),
    # special tokens have no weight, queries are read from idf.json
    *_rows("sparse", "SPLADE", " ".join(f"{_OPENSEARCH}-{name}" for name in (
        "v1", "v2-distill", "doc-v1", "doc-v2-distill", "doc-v2-mini")), no_special_terms=True),
    *_rows("sparse", "SPLADE", f"{_OPENSEARCH}-doc-v3-distill", no_special_terms=True,
           sparsification_strategy="relu_2xlog"),
    *_rows("sparse", "UniCOIL", "castorini/unicoil-msmarco-passage"),

    *_rows("multi_vector", "Lightning IR", "webis/colbert"),
    *_rows("multi_vector", "ColBERT", """
        colbert-ir/colbertv2.0 answerdotai/answerai-colbert-small-v1 jinaai/jina-colbert-v2
    """),
    *_rows("multi_vector", _SENTENCES, "lightonai/GTE-ModernColBERT-v1"),
    *_rows("multi_vector", "XTR", "google/xtr-base-en"),
)  # fmt: skip
