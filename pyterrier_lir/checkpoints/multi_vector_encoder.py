"""Late interaction in sentence-transformers' folders: PyLate's ColBERT, and MultiVectorEncoder of version 6.

PyLate's markers are tokens whose names may end in a blank (`[Q] `), put behind the first special token by their ids;
one that the vocabulary lacks is text in front of the query or document.  A `MultiVectorMask`, or PyLate's
`skiplist_words`, names tokens whose vectors do not count; words that are no single token are left out, where early
versions of PyLate left out all unknown words.
"""

from __future__ import annotations

import string
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config import BiEncoderConfig
from .checkpoint import Checkpoint, Normalize, ReadOptions, encoder_class
from .files import Files
from .sentence_modules import Transformer, prompts_of, read_layer, transformer

_TOKENS = ("token_embeddings", "sentence_embedding")  # PyLate's Dense modules do not say which
_LAYERS = ("Dense", "Normalize", "MultiVectorMask")


def read(files: Files, options: ReadOptions, modules: list[tuple[str, str]], settings: dict[str, Any]) -> Checkpoint:
    """Read a Transformer with layers on its tokens.

    Raises:
        ValueError: for modules that are not known or broken.
    """
    unknown = [kind for kind, _ in modules[1:] if kind not in _LAYERS]
    if modules[0][0] != "Transformer" or unknown:
        raise ValueError(
            f"{files.name} is a multi-vector model of {' + '.join(kind for kind, _ in modules)}; what can be read is "
            f"Transformer + {', '.join(_LAYERS)}."
        )
    first = transformer(files, modules[0][1])
    layers: list[nn.Module] = []
    for kind, path in modules[1:]:
        if kind != "MultiVectorMask":
            layers += read_layer(files, kind, path, options, _TOKENS)
    mask, saved_by = dict(modules).get("MultiVectorMask"), settings.get("model_type")
    pylate = saved_by == "ColBERT" or (mask is None and saved_by != "MultiVectorEncoder")
    fields = _pylate(settings) if pylate else {} if mask is None else _mask(files, mask)
    normalize = pylate or (bool(layers) and isinstance(layers[-1], Normalize))
    if layers and isinstance(layers[-1], Normalize):
        layers = layers[:-1]
    config = BiEncoderConfig(
        query_pooling_strategy=None,
        doc_pooling_strategy=None,
        normalization_strategy="l2" if normalize else None,
        embedding_dim=settings.get("truncate_dim"),
        **(_lengths(first, mask is not None) | fields | _prompts(settings, first.tokenizer)),
    )
    backbone = files.backbone(encoder_class(first.config), first.config, options.dtype, subfolder=first.subfolder)
    return Checkpoint(config, backbone, first.tokenizer, nn.Sequential(*layers), files.name)


def _lengths(first: Transformer, masked: bool) -> dict[str, Any]:
    """Lengths and expansion of a Transformer (version 6); `masked` where a MultiVectorMask follows it."""
    names = ("query_length", "document_length")
    query, doc = (first.forced_length or first.settings.get(name) or first.max_length for name in names)
    expansion = first.settings.get("query_expansion")
    if not expansion:
        return {"query_length": query, "doc_length": doc}
    fixed = expansion["strategy"] == "fixed"
    query = expansion["length"] if fixed else query
    if not masked and not expansion.get("attend"):  # tokens that fill a query up count by the mask alone
        return {"query_length": query, "doc_length": doc}
    return {
        "query_length": query,
        "doc_length": doc,
        "query_expansion": True,
        "expansion_length": None if fixed else expansion["length"],
        "attend_to_query_expanded_tokens": expansion.get("attend", False),
        "expansion_token": expansion.get("token"),
    }


def _pylate(settings: dict[str, Any]) -> dict[str, Any]:
    """PyLate's settings, with its defaults."""
    skipped = settings.get("skiplist_words")
    fields = {
        "strip_text": True,
        "query_expansion": settings.get("do_query_expansion", True),
        "attend_to_query_expanded_tokens": settings.get("attend_to_expansion_tokens", False),
        "doc_mask_scoring_tokens": list(string.punctuation) if skipped is None else skipped,
    }
    lengths = {"query_length": settings.get("query_length") or 32, "doc_length": settings.get("document_length") or 180}
    return fields | lengths


def _mask(files: Files, path: str) -> dict[str, Any]:
    """The tokens that a MultiVectorMask leaves out."""
    values = files.json(f"{path}/config.json")
    if values.get("keep_only_token_ids"):
        raise ValueError(f"{files.name} keeps vectors of images only, which cannot be read.")
    words = values.get("skiplist_words") or None
    tasks = values.get("skiplist_tasks") or ["document"]
    names = {"query": "query_mask_scoring_tokens", "document": "doc_mask_scoring_tokens"}
    return {field: words for task, field in names.items() if task in tasks}


def _prompts(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Markers that the vocabulary has, and prompts in front of the text."""
    fields = prompts_of(settings)
    for side, prefix in (("query", "query_prefix"), ("doc", "document_prefix")):
        marker = settings.get(prefix)
        if marker is None:
            continue
        if marker and tokenizer.convert_tokens_to_ids(marker) not in (None, tokenizer.unk_token_id):
            fields[f"{side}_markers"] = (marker,)
        else:
            fields[f"{side}_prompt"] = marker + fields[f"{side}_prompt"]
    return fields
