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

Pooling = Literal["first", "last", "mean", "max", "min", "sum", "mean_sqrt", "weighted_mean"]
Truncation = Literal["separate", "longest_first", "tail"]
Head = Literal["linear", "tokens", "classification"]
ScoringStrategy = Literal["rank", "mono", "difference"]
Similarity = Literal["dot", "cosine", "l2"]
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
            if name.endswith(("_length", "depth")) and value is not None and value < 1:
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
        head: `linear` pools states and applies layers of its own, `tokens` reads the logits of `token_ids` at the
            last position (decoders) or the first decoding step (encoder-decoders), `classification` leaves it to the
            backbone's sequence classification head.
        token_ids: vocabulary rows that are read, (not relevant, relevant) or (relevant,).
        activation: name of the class in `torch.nn` that the score goes through, such as `Sigmoid`.
        depth: most documents that a listwise model sees at once; None for a pointwise model.
        add_extra_token: whether documents of a list see each other through an extra token, else through the first.
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
    head: Head = "linear"
    token_ids: tuple[int, ...] = ()
    activation: str = "Identity"
    depth: int | None = None
    add_extra_token: bool = False
    sample_missing_docs: bool = True

    @property
    def listwise(self) -> bool:
        """Whether a document's score depends on the other documents of its query."""
        return self.depth is not None


@dataclass(frozen=True)
class BiEncoderConfig(Config):
    """How a query and a document become a vector each, and how vectors are compared.

    Attributes:
        query_length, doc_length: most tokens of an encoded text, special tokens included; None for no limit.
        query_pooling_strategy, doc_pooling_strategy: which token states make the text's vector; several are
            concatenated in the order given.
        similarity_function: `dot`, `cosine`, or `l2` (negated Euclidean distance).
        query_prompt, doc_prompt: text put in front of every query and document.
        pool_prompt: whether the prompt's own tokens take part in pooling.
        embedding_dim: vectors are cut to this many dimensions (Matryoshka), None for all.
    """

    query_length: int | None = 32
    doc_length: int | None = 512
    query_pooling_strategy: tuple[Pooling, ...] = ("first",)
    doc_pooling_strategy: tuple[Pooling, ...] = ("first",)
    similarity_function: Similarity = "dot"
    query_prompt: str = ""
    doc_prompt: str = ""
    pool_prompt: bool = True
    embedding_dim: int | None = None


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
