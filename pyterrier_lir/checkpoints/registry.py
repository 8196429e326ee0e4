"""What the files of a checkpoint do not say: how generative re-rankers are prompted, and which public model is which.

A table row is data with its source; adding a checkpoint is adding a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ..config import BiEncoderConfig, CrossEncoderConfig, Head, ScoringStrategy

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class Template:
    """How a language model is asked about a pair, and which of its words is the answer.

    Attributes:
        pieces: the joined text, each piece tokenised alone; `{bos}` and `{eos}` stand for the tokenizer's own.
        words: tokens whose logits are read: (not relevant, relevant) or (relevant,).
        max_length: most tokens of a pair, where the backbone does not set a lower limit.
        query_share: most tokens of the query's piece as a share of `max_length`.
        defaults_for: backbones (`model_type`) that are asked this way unless a row or an argument says otherwise.
        source: where the prompt was published.
    """

    pieces: tuple[str, ...]
    words: tuple[str, ...]
    scoring_strategy: ScoringStrategy
    max_length: int
    source: str
    activation: str = "Identity"
    instruction: str | None = None
    query_share: float | None = None
    defaults_for: tuple[str, ...] = ()

    def config(self, tokenizer: PreTrainedTokenizerBase, backbone: PretrainedConfig) -> CrossEncoderConfig:
        """This template on one backbone.

        Raises:
            ValueError: if the tokenizer does not know the words that are to be read.
        """
        ids = [tokenizer.convert_tokens_to_ids(word) for word in self.words]
        unknown = [w for w, i in zip(self.words, ids, strict=True) if i is None or i == tokenizer.unk_token_id]
        if unknown:
            raise ValueError(
                f"The tokenizer has no token {', '.join(map(repr, unknown))}, which this template reads; "
                f"choose another template: {', '.join(TEMPLATES)}."
            )
        limits = (getattr(backbone, "n_positions", None), tokenizer.model_max_length, self.max_length)
        max_length = min(limit for limit in limits if limit)
        head: Head = "tokens"
        return CrossEncoderConfig(
            query_length=int(max_length * self.query_share) if self.query_share else None,
            doc_length=None,
            pooling_strategy="first" if backbone.is_encoder_decoder else "last",
            scoring_strategy=self.scoring_strategy,
            max_length=max_length,
            truncation="tail",
            template=self.pieces,
            instruction=self.instruction,
            head=head,
            token_ids=tuple(ids),
            activation=self.activation,
        )


_MONOT5 = ("Query: {query}", "Document: {doc}", "Relevant:", "{eos}")
_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"

TEMPLATES: dict[str, Template] = {
    # Nogueira et al., Findings of EMNLP 2020, https://aclanthology.org/2020.findings-emnlp.63
    "monot5": Template(
        _MONOT5, ("▁false", "▁true"), "mono", 512, "https://huggingface.co/castorini/monot5-base-msmarco",
        defaults_for=("t5",),
    ),
    # Zhuang et al., SIGIR 2023, https://arxiv.org/abs/2210.10634
    "rankt5": Template(
        ("Query: {query}", "Document: {doc}", "{eos}"), ("<extra_id_10>",), "rank", 512,
        "https://huggingface.co/Soyoung97/RankT5-base",
    ),
    # Bonifacio et al., 2021, https://arxiv.org/abs/2108.13897
    "mmarco": Template(
        _MONOT5, ("▁no", "▁yes"), "mono", 512, "https://huggingface.co/unicamp-dl/mt5-base-mmarco-v2",
        defaults_for=("mt5", "umt5"),
    ),
    "mmarco-true": Template(
        _MONOT5, ("▁", "▁true"), "mono", 512, "https://huggingface.co/unicamp-dl/mt5-13b-mmarco-100k"
    ),
    "ptt5": Template(
        _MONOT5, ("▁não", "▁sim"), "mono", 512, "https://huggingface.co/unicamp-dl/ptt5-base-pt-msmarco-100k-v2"
    ),
    "monoptt5": Template(_MONOT5, ("▁Não", "▁Sim"), "mono", 512, "https://huggingface.co/unicamp-dl/monoptt5-base"),
    "qwen3-reranker": Template(
        (
            '<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct '
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
            "<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",
            " {doc}",
            _ASSISTANT + "<think>\n\n</think>\n\n",
        ),
        ("no", "yes"), "difference", 8192, "https://huggingface.co/Qwen/Qwen3-Reranker-0.6B",
        activation="Sigmoid", instruction=WEB_SEARCH, defaults_for=("qwen3",),
    ),
    "mxbai-rerank-v2": Template(
        (
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\n",
            "instruction: {instruction}\n", "query: {query}", "\n", "document: {doc}", "\n",
            "You are a search relevance expert who evaluates how well documents match search queries. For each "
            "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
            "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
            _ASSISTANT,
        ),
        ("0", "1"), "difference", 8192, "https://github.com/mixedbread-ai/mxbai-rerank",
        query_share=0.75, defaults_for=("qwen2",),
    ),
    "bge-reranker-v2-gemma": Template(
        (
            "{bos}", "A: {query}", "\n", "B: {doc}", "\n",
            "Given a query A and a passage B, determine whether the passage contains an answer to the query by "
            "providing a prediction of either 'Yes' or 'No'.",
        ),
        ("Yes",), "rank", 1024, "https://huggingface.co/BAAI/bge-reranker-v2-gemma",
        query_share=0.75, defaults_for=("gemma",),
    ),
}  # fmt: skip

# Public re-rankers whose files say less than one needs: hub id -> template.
GENERATIVE: dict[str, str] = {
    **{
        f"castorini/monot5-{size}-msmarco{steps}": "monot5"
        for size in ("base", "large", "3b")
        for steps in ("", "-10k")
    },
    **{
        f"castorini/monot5-{name}": "monot5" for name in ("small-msmarco-10k", "small-msmarco-100k", "base-med-msmarco")
    },
    **{f"unicamp-dl/InRanker-{size}": "monot5" for size in ("small", "base", "3B")},
    **{f"Soyoung97/RankT5-{size}": "rankt5" for size in ("base", "large", "3b")},
    **{f"unicamp-dl/mt5-base-{name}": "mmarco" for name in ("mmarco-v1", "mmarco-v2", "en-pt-msmarco-v2")},
    "unicamp-dl/mt5-base-en-msmarco": "mmarco",
    "unicamp-dl/mt5-13b-mmarco-100k": "mmarco-true",
    **{f"unicamp-dl/ptt5-base-{name}": "ptt5" for name in ("pt-msmarco-100k-v1", "pt-msmarco-100k-v2")},
    **{f"unicamp-dl/monoptt5-{size}": "monoptt5" for size in ("small", "base", "large", "3b")},
    **{f"Qwen/Qwen3-Reranker-{size}": "qwen3-reranker" for size in ("0.6B", "4B", "8B")},
    **{f"mixedbread-ai/mxbai-rerank-{size}-v2": "mxbai-rerank-v2" for size in ("base", "large")},
    "BAAI/bge-reranker-v2-gemma": "bge-reranker-v2-gemma",
}

_CLS, _MEAN, _LAST = (
    BiEncoderConfig(query_length=512, doc_length=512, query_pooling_strategy=pooling, doc_pooling_strategy=pooling)
    for pooling in ("first", "mean", "last")
)  # fmt: skip

# Dense bi-encoders whose files are those of a backbone alone: hub id -> how they pool.
DENSE: dict[str, BiEncoderConfig] = {
    # https://huggingface.co/facebook/contriever
    **{f"facebook/{name}": _MEAN for name in ("contriever", "contriever-msmarco", "mcontriever-msmarco")},
    # https://huggingface.co/sebastian-hofstaetter/distilbert-dot-tas_b-b256-msmarco
    "sebastian-hofstaetter/distilbert-dot-tas_b-b256-msmarco": _CLS,
    # https://huggingface.co/Luyu/co-condenser-marco-retriever
    "Luyu/co-condenser-marco-retriever": _CLS,
    # https://huggingface.co/Shitao/RetroMAE_MSMARCO_distill
    **{f"Shitao/RetroMAE_MSMARCO{name}": _CLS for name in ("", "_finetune", "_distill")},
    # https://huggingface.co/facebook/dragon-plus-query-encoder; queries and documents are two checkpoints
    **{f"facebook/dragon-{name}-{side}-encoder": _CLS for name in ("plus", "roberta") for side in ("query", "context")},
    # https://huggingface.co/castorini/repllama-v1-7b-lora-passage
    "castorini/repllama-v1-7b-lora-passage": replace(
        _LAST, query_prompt="query: ", doc_prompt="passage: ", normalization_strategy="l2"
    ),
}

_NO_SPECIALS: dict[str, Any] = {"no_special_terms": True}
_OPENSEARCH = "opensearch-project/opensearch-neural-sparse-encoding"

# SPLADE models that are a masked language model alone: hub id -> fields of BiEncoderConfig that differ from the usual.
SPLADE: dict[str, dict[str, Any]] = {
    # https://github.com/naver/splade and the models' cards
    **{
        f"naver/{name}": {"query_length": 256, "doc_length": 256}
        for name in ("splade_v2_max", "splade_v2_distil", "splade-cocondenser-ensembledistil",
                     "splade-cocondenser-selfdistil", "efficient-splade-V-large-query", "efficient-splade-V-large-doc",
                     "efficient-splade-VI-BT-large-query", "efficient-splade-VI-BT-large-doc")
    },
    "naver/splade-v3": {}, "naver/splade-v3-distilbert": {},
    "naver/splade-v3-doc": {"query_weighting": "binary"},
    "naver/splade-v3-lexical": {"query_weighting": "lexical"},
    # https://huggingface.co/opensearch-project: special tokens have no weight, queries are read from idf.json
    **{
        f"{_OPENSEARCH}-{name}": _NO_SPECIALS
        for name in ("v1", "v2-distill", "doc-v1", "doc-v2-distill", "doc-v2-mini")
    },
    f"{_OPENSEARCH}-doc-v3-distill": {**_NO_SPECIALS, "sparsification_strategy": "relu_2xlog"},
}  # fmt: skip

# Two-label sequence classifiers that their authors read as the plain second logit, not as a log probability.
SECOND_LOGIT: frozenset[str] = frozenset(
    # https://huggingface.co/castorini/monoelectra-base
    {"castorini/monoelectra-base", "crystina-z/monoELECTRA_LCE_nneg31"}
)


def template_for(name: str, config: PretrainedConfig, chosen: str | None) -> Template | None:
    """The template that was chosen, else that of the table's row, else the backbone's usual one.

    Args:
        name: hub id or folder; a local copy is also known by the id that its config.json remembers.

    Raises:
        ValueError: if `chosen` is no template.
    """
    if chosen is not None:
        if chosen not in TEMPLATES:
            near = get_close_matches(chosen, TEMPLATES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"template={chosen!r}; allowed: {', '.join(TEMPLATES)}.{hint}")
        return TEMPLATES[chosen]
    row = GENERATIVE.get(name) or GENERATIVE.get(getattr(config, "name_or_path", "") or "")
    if row:
        return TEMPLATES[row]
    return next((template for template in TEMPLATES.values() if config.model_type in template.defaults_for), None)
