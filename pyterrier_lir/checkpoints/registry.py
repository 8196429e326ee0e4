"""What the files of a checkpoint do not say: how generative re-rankers are prompted, and how public models are read.

The rows of public models are those of `pyterrier_lir.public_models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ..config import BiEncoderConfig, CrossEncoderConfig, Head, ScoringStrategy
from ..public_models import PUBLIC_MODELS
from .files import Files

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

# Of public models, what their files do not say, by hub id: the template of generative re-rankers, ...
GENERATIVE: dict[str, str] = {row.id: row.reads["template"] for row in PUBLIC_MODELS if "template" in row.reads}
# ... how dense bi-encoders pool whose files are those of a backbone alone, ...
DENSE = {row.id: BiEncoderConfig(**row.reads) for row in PUBLIC_MODELS if row.format == "public backbone"}
# ... fields of BiEncoderConfig that differ from the usual, of SPLADE models that are a masked language model alone, ...
SPLADE: dict[str, dict[str, Any]] = {row.id: dict(row.reads) for row in PUBLIC_MODELS if row.format == "SPLADE"}
# ... and which two-label classifiers are read as the plain second logit.
SECOND_LOGIT = frozenset(row.id for row in PUBLIC_MODELS if "second_logit" in row.reads)


_Row = TypeVar("_Row")


def row_of(table: Mapping[str, _Row], files: Files) -> _Row | None:
    """The row of a table by hub ids that is the checkpoint's, None where there is none; see `Files.ids`."""
    return next((table[name] for name in files.ids if name in table), None)


def template_for(files: Files, config: PretrainedConfig, chosen: str | None) -> Template | None:
    """The template that was chosen, else that of the table's row, else the backbone's usual one.

    Raises:
        ValueError: if `chosen` is no template.
    """
    if chosen is not None:
        if chosen not in TEMPLATES:
            near = get_close_matches(chosen, TEMPLATES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"template={chosen!r}; allowed: {', '.join(TEMPLATES)}.{hint}")
        return TEMPLATES[chosen]
    row = row_of(GENERATIVE, files)
    if row:
        return TEMPLATES[row]
    return next((template for template in TEMPLATES.values() if config.model_type in template.defaults_for), None)
