"""What makes a checkpoint what it is: small, frozen, JSON in and out.

Knows no files, no tokenizers and no tensors.  Two models that differ in any choice below give different scores from
the same weights; everything else is read from the backbone's own configuration.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Self

Pooling = Literal["first", "last", "mean", "max", "min", "sum", "mean_sqrt", "weighted_mean", "markers"]
Truncation = Literal["separate", "longest_first", "tail"]
Head = Literal["linear", "tokens", "classification"]
ScoringStrategy = Literal["rank", "mono", "difference"]
Similarity = Literal["dot", "cosine", "l2"]
Aggregation = Literal["sum", "mean", "max"]
Projection = Literal["linear", "linear_no_bias", "mlm", "term_weight", None]
Sparsification = Literal["relu", "relu_log", "relu_2xlog", None]
Weighting = Literal["contextualized", "lexical", "static", "binary"]
Kind = Literal["dense", "sparse", "multi_vector"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIDES = ("query", "doc")
Precision = Literal["auto", "float32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


@dataclass(frozen=True)
class Config:
    """A checkpoint's choices; `to_dict` / `from_dict` are exact inverses.

    Raises:
        ValueError: for a value outside a field's closed list (what was given, what is allowed) or an unknown field.
    """

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            allowed = get_args(hint) if get_origin(hint) is Literal else None
            value = getattr(self, name)
            if allowed is not None and value not in allowed:
                raise ValueError(f"{type(self).__name__}.{name}={value!r}; allowed: {', '.join(map(repr, allowed))}.")
            if isinstance(value, list):  # as read from JSON
                object.__setattr__(self, name, tuple(value))
            if name.endswith(("_length", "depth", "_top_k")) and value is not None and value < 1:
                raise ValueError(f"{type(self).__name__}.{name}={value!r}; allowed: a positive number or None.")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values, with the name of the class under `kind`."""
        return {"kind": type(self).__name__, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that `to_dict` wrote.

        >>> CrossEncoderConfig.from_dict(CrossEncoderConfig(depth=100).to_dict()) == CrossEncoderConfig(depth=100)
        True
        """
        values = {name: value for name, value in values.items() if name != "kind"}
        unknown = values.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}.")
        return cls(**values)


@dataclass(frozen=True)
class CrossEncoderConfig(Config):
    """How a query and a document are joined, and how the joint states become one score.

    The first five fields bear Lightning IR's names and defaults.  Lengths count tokens.

    Attributes:
        query_length, doc_length: most tokens of a query and of a document, None for no limit.
        pooling_strategy: which token states make the pair's state; only `head="linear"` pools.
        linear_bias: whether the scoring layer has a bias.
        scoring_strategy: `rank` takes the (last) logit, `mono` log softmax over (not relevant, relevant),
            `difference` relevant minus not relevant.
        max_length: most tokens of the joined pair, None for no limit.
        truncation: what yields when a pair is too long.  `separate` is Lightning IR's: query and document are cut
            alone, turned back into text and tokenised again (so a cut inside a word can change its last tokens);
            `longest_first` cuts the longer of the two; `tail` cuts the end of the document, then of the query.
        template: the pieces of the joined text, each tokenised alone, with `{query}`, `{doc}` and `{instruction}` in
            them; None for the tokenizer's own way to join a pair.
        instruction: the text behind `{instruction}`.
        query_prompt: text put in front of every query, inside its piece of a template.
        head: `linear` pools states and applies layers of its own, `tokens` reads the logits of `token_ids` at the
            last position (decoders) or the first decoding step (encoder-decoders), `classification` leaves it to the
            backbone's sequence classification head.
        token_ids: vocabulary rows that are read, (not relevant, relevant) or (relevant,).
        activation: name of the class in `torch.nn` that the score goes through, such as `Sigmoid`.
        depth: most documents that a listwise model sees at once; None for a pointwise model.
        add_extra_token: whether documents of a list see each other through an extra token, `[INT]`, which the usual
            template gets then; else through the first.
        sample_missing_docs: kept for Lightning IR, which fills lists shorter than `depth` with random states; here
            a list is always scored as it is.
    """

    query_length: int | None = 32
    doc_length: int | None = 512
    pooling_strategy: Pooling = "first"
    linear_bias: bool = False
    scoring_strategy: ScoringStrategy = "rank"
    max_length: int | None = None
    truncation: Truncation = "separate"
    template: tuple[str, ...] | None = None
    instruction: str | None = None
    query_prompt: str = ""
    head: Head = "linear"
    token_ids: tuple[int, ...] = ()
    activation: str = "Identity"
    depth: int | None = None
    add_extra_token: bool = False
    sample_missing_docs: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.add_extra_token and self.template is None:
            object.__setattr__(self, "template", ("[CLS]", "[INT]", "{query}", "[SEP]", "{doc}", "[SEP]"))

    @property
    def listwise(self) -> bool:
        """Whether a document's score depends on the other documents of its query."""
        return self.depth is not None


@dataclass(frozen=True)
class BiEncoderConfig(Config):
    """How a text becomes tokens, tokens become vectors, and vectors of a query and a document become a score.

    Names are Lightning IR's where it has them.  A field that exists for queries and documents may differ between them.
    `BiEncoderConfig.splade()` and `BiEncoderConfig.colbert()` have the settings of these models.

    >>> BiEncoderConfig(query_pooling_strategy="first", doc_pooling_strategy="first").kind
    'dense'
    >>> BiEncoderConfig.colbert(doc_length=180).kind
    'multi_vector'

    Attributes:
        query_length, doc_length: most tokens of an encoded text, special and marker tokens included; None for no limit.
        query_prompt, doc_prompt: text put in front of every query and document.
        strip_text: whether white space around a text is dropped before anything else.
        prompts: further prompts of the checkpoint, pairs of name and text.
        add_marker_tokens: put the tokens `[QUE]` and `[DOC]` behind the first special token, unless the next two name
            others.
        query_markers, doc_markers: tokens put there, added to a new model's vocabulary where it lacks them.
        special_tokens: (of queries, of documents) whether the tokenizer's special tokens stand around the text.
        query_expansion, doc_expansion: fill up with `expansion_token`, whose vectors count.
        expansion_length: up to how many tokens; None for `query_length` or `doc_length`.
        attend_to_query_expanded_tokens, attend_to_doc_expanded_tokens: whether other tokens see them.
        expansion_token: None for the mask token, or the end of sequence where there is none.
        projection: `linear` or `linear_no_bias` to `embedding_dim` numbers, `mlm` to the vocabulary by a masked
            language model's head (SPLADE), `term_weight` to one weight for each of the text's own tokens (UniCOIL),
            None where the checkpoint has no projection, or layers of its own.
        query_pooling_strategy, doc_pooling_strategy: which token states make the text's vector; several are
            concatenated in the order given.  None keeps one vector for each token; `markers` those of the markers.
        pool_prompt: whether the prompt's own tokens take part in pooling.
        skip_first: how many tokens at the start take no part in pooling and give no vectors.
        embedding_dim: vectors are cut to this many numbers (Matryoshka); None for all.
        sparsification_strategy: `relu`, `relu_log` (log(1 + relu)), `relu_2xlog` (log(1 + log(1 + relu))), or None.
        normalization_strategy: `l2` divides each vector by its length.
        query_weighting, doc_weighting: of sparse models, `contextualized` weights any term of the vocabulary,
            `lexical` those of the text alone, `static` takes those from a table and `binary` sets them to 1; the
            last two need no forward pass.
        query_repeated_terms, doc_repeated_terms: the weight that `term_weight` gives a term which a text has several
            times: its largest, the sum, or that of its last token.
        query_top_k, doc_top_k: how many terms an encoded sparse vector keeps, those with the largest weights; None for
            all.
        query_mask_scoring_tokens, doc_mask_scoring_tokens: tokens or ids whose vectors or weights do not count;
            `punctuation` for those of ASCII.
        similarity_function: `dot`, `cosine`, or `l2` (negated Euclidean distance).
        query_aggregation_function, doc_aggregation_function: how similarities of token pairs become a score.
        exact_match: token vectors meet only where their tokens are equal (COIL).
        imputation_strategy: what stands for the similarities of tokens that approximate retrieval did not retrieve:
            `gather` computes them, `min` takes the least that was retrieved (XTR, arXiv:2304.01982).
    """

    query_length: int | None = 32
    doc_length: int | None = 512
    query_prompt: str = ""
    doc_prompt: str = ""
    strip_text: bool = False
    prompts: tuple[tuple[str, str], ...] = ()
    add_marker_tokens: bool = False
    query_markers: tuple[str, ...] = ()
    doc_markers: tuple[str, ...] = ()
    special_tokens: tuple[bool, bool] = (True, True)
    query_expansion: bool = False
    doc_expansion: bool = False
    expansion_length: int | None = None
    attend_to_query_expanded_tokens: bool = False
    attend_to_doc_expanded_tokens: bool = False
    expansion_token: str | None = None
    projection: Projection = None
    query_pooling_strategy: Pooling | tuple[Pooling, ...] | None = ("mean",)
    doc_pooling_strategy: Pooling | tuple[Pooling, ...] | None = ("mean",)
    pool_prompt: bool = True
    skip_first: int = 0
    embedding_dim: int | None = None
    sparsification_strategy: Sparsification = None
    normalization_strategy: Literal["l2", None] = None
    query_weighting: Weighting = "contextualized"
    doc_weighting: Weighting = "contextualized"
    query_repeated_terms: Literal["max", "sum", "last"] = "max"
    doc_repeated_terms: Literal["max", "sum", "last"] = "max"
    query_top_k: int | None = None
    doc_top_k: int | None = None
    query_mask_scoring_tokens: str | tuple[str | int, ...] | None = None
    doc_mask_scoring_tokens: str | tuple[str | int, ...] | None = None
    similarity_function: Similarity = "dot"
    query_aggregation_function: Aggregation = "sum"
    doc_aggregation_function: Aggregation = "max"
    exact_match: bool = False
    imputation_strategy: Literal["gather", "min"] = "gather"

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in SIDES:
            strategy = getattr(self, f"{side}_pooling_strategy")
            if isinstance(strategy, str):
                object.__setattr__(self, f"{side}_pooling_strategy", (strategy,))
            if unknown := set(getattr(self, f"{side}_pooling_strategy") or ()) - set(get_args(Pooling)):
                raise ValueError(
                    f"BiEncoderConfig.{side}_pooling_strategy={strategy!r}: unknown {', '.join(sorted(unknown))}; "
                    f"allowed: {', '.join(get_args(Pooling))}, or None for a vector for each token."
                )
            masked = getattr(self, f"{side}_mask_scoring_tokens")
            if isinstance(masked, str) and masked != "punctuation":
                raise ValueError(
                    f"BiEncoderConfig.{side}_mask_scoring_tokens={masked!r}; allowed: 'punctuation', or a list of "
                    "tokens and ids."
                )
            if self.add_marker_tokens and not getattr(self, f"{side}_markers"):
                object.__setattr__(self, f"{side}_markers", ("[QUE]",) if side == "query" else ("[DOC]",))
        object.__setattr__(self, "prompts", tuple((name, text) for name, text in self.prompts))
        if self.embedding_dim is not None and self.embedding_dim < 1:
            raise ValueError(f"BiEncoderConfig.embedding_dim={self.embedding_dim}; allowed: a positive number or None.")
        if self.kind == "sparse" and self.similarity_function == "l2":
            raise ValueError("Sparse vectors are compared by dot or cosine, not by l2.")

    @property
    def kind(self) -> Kind:
        """What a text becomes: one `dense` vector, one `sparse` vector over the vocabulary, or `multi_vector`.

        >>> BiEncoderConfig(doc_pooling_strategy=None, query_pooling_strategy=None, embedding_dim=128).kind
        'multi_vector'
        """
        if self.projection in ("mlm", "term_weight"):
            return "sparse"
        pooled = (self.query_pooling_strategy, self.doc_pooling_strategy)
        return "multi_vector" if None in pooled or ("markers",) in pooled else "dense"

    def of(self, query: bool, name: str) -> Any:
        """The field `name` of queries or documents: `of(True, "length")` is `query_length`."""
        return getattr(self, f"{SIDES[0] if query else SIDES[1]}_{name}")

    def attend_to_expansion(self, query: bool) -> bool:
        """Whether the tokens of a query or document see those that fill it up."""
        return self.attend_to_query_expanded_tokens if query else self.attend_to_doc_expanded_tokens

    @classmethod
    def splade(cls, **changes: Any) -> Self:
        """A SPLADE model (arXiv:2109.10086): the largest logit of each term over the text, log(1 + relu)."""
        chosen = {"query_pooling_strategy": "max", "doc_pooling_strategy": "max", "projection": "mlm"}
        return cls(**{**chosen, "sparsification_strategy": "relu_log", **changes})

    @classmethod
    def colbert(cls, **changes: Any) -> Self:
        """A ColBERT model (arXiv:2004.12832): 128 normalised numbers a token, markers, queries filled with masks."""
        chosen = {"query_pooling_strategy": None, "doc_pooling_strategy": None, "projection": "linear_no_bias"}
        more = {"embedding_dim": 128, "normalization_strategy": "l2", "add_marker_tokens": True}
        return cls(**{**chosen, **more, "query_expansion": True, "doc_mask_scoring_tokens": "punctuation", **changes})


def config_from_dict(values: dict[str, Any]) -> CrossEncoderConfig | BiEncoderConfig:
    """The configuration whose class `values["kind"]` names.

    Raises:
        ValueError: if `kind` is missing or unknown.
    """
    kinds: dict[str, type[CrossEncoderConfig] | type[BiEncoderConfig]] = {
        kind.__name__: kind for kind in (CrossEncoderConfig, BiEncoderConfig)
    }
    if values.get("kind") not in kinds:
        raise ValueError(f"kind={values.get('kind')!r}; allowed: {', '.join(kinds)}.")
    return kinds[values["kind"]].from_dict(values)
