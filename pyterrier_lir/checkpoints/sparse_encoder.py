"""Sparse models in sentence-transformers' folders: SPLADE, and the inference-free ones whose queries are a table.

A `Router` (older: `Asym`) has modules for queries and others for documents; a query of `SparseStaticEmbedding` (older:
`IDF`) is its distinct tokens with their weights from the table, which lies in a weight file or in an idf.json.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config import BiEncoderConfig, Pooling, Sparsification
from .checkpoint import Checkpoint, ReadOptions
from .files import Files
from .language_model_head import read_masked_lm
from .sentence_modules import module_name, prompts_of, transformer

_ACTIVATIONS: dict[str, Sparsification] = {"relu": "relu_log", "log1p_relu": "relu_2xlog"}
_TABLES = ("SparseStaticEmbedding", "IDF")
Modules = list[tuple[str, str]]


def read(files: Files, options: ReadOptions, modules: Modules, settings: dict[str, Any]) -> Checkpoint:
    """Read a SparseEncoder.

    Raises:
        ValueError: for modules that are not known or broken.
    """
    routes = _routes(files, modules)
    table = None
    if routes["query"][0][0] in _TABLES:
        table = routes["query"][0][1]
    elif routes["query"] != routes["document"]:
        raise ValueError(f"{files.name} has other layers for queries than for documents, which cannot be read.")
    kinds = [kind for kind, _ in routes["document"]]
    if kinds not in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        raise ValueError(
            f"{files.name} is a sparse model of {' + '.join(kinds)}; what can be read is Transformer + SpladePooling, "
            "alone or behind a Router beside SparseStaticEmbedding."
        )
    (_, subfolder), (_, pooling_folder) = routes["document"]
    first = transformer(files, subfolder)
    pooling = files.json(f"{pooling_folder}/config.json")
    strategy, activation = pooling.get("pooling_strategy", "max"), pooling.get("activation_function", "relu")
    if strategy not in ("max", "sum") or activation not in _ACTIVATIONS:
        raise ValueError(
            f"{files.name} pools by {strategy!r} and activates by {activation!r}; allowed: max, sum; "
            f"{', '.join(_ACTIVATIONS)}."
        )
    similarity = settings.get("similarity_fn_name") or "dot"
    if similarity not in ("dot", "cosine"):
        raise ValueError(f"{files.name} compares by {similarity!r}; allowed for sparse vectors: dot, cosine.")
    config = BiEncoderConfig.splade(
        query_length=first.max_length if table is None else None,
        doc_length=first.max_length,
        query_pooling_strategy=cast("Pooling", strategy),
        doc_pooling_strategy=cast("Pooling", strategy),
        sparsification_strategy=_ACTIVATIONS[activation],
        similarity_function=similarity,
        query_top_k=settings.get("max_active_dims"),
        doc_top_k=settings.get("max_active_dims"),
        query_weighting="contextualized" if table is None else "static",
        special_tokens=(table is None, True),
        **prompts_of(settings),
    )
    backbone, head = read_masked_lm(files, first.config, options.dtype, subfolder)
    weights = {} if table is None else {"query": read_table(files, table, first.tokenizer, options.dtype)}
    return Checkpoint(config, backbone, first.tokenizer, head, files.name, weights)


def _routes(files: Files, modules: Modules) -> dict[str, Modules]:
    """The modules of queries and of documents."""
    if modules[0][0] not in ("Router", "Asym"):
        return {"query": modules, "document": modules}
    path = modules[0][1]
    prefix = f"{path}/" if path else ""
    values = files.json(f"{prefix}router_config.json") or files.json(f"{prefix}config.json")
    if not {"query", "document"} <= values.get("structure", {}).keys():
        raise ValueError(f"{files.name} has a Router without the routes query and document.")
    kinds = {name: module_name(files, kind) for name, kind in values["types"].items()}

    def folder(name: str) -> str:
        return f"{prefix}{name}" if (files.folder / f"{prefix}{name}").is_dir() else path

    return {
        route: [(kinds[name], folder(name)) for name in values["structure"][route]] + modules[1:]
        for route in ("query", "document")
    }


def read_table(files: Files, folder: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype) -> nn.Parameter:
    """The weight (V,) of each term, from a weight file or from a JSON of tokens and weights.

    Raises:
        ValueError: if there is neither.
    """
    weight = files.tensors(["weight"], folder, dtype).get("weight")
    if weight is None:
        named = files.json(f"{folder}/config.json" if folder else "config.json").get("path") or "idf.json"
        name = named.rsplit("/", 1)[-1]
        idf = files.json(f"{folder}/{name}" if f"{folder}/{name}" in files else name)
        if not idf:
            raise ValueError(f"{files.name} has no weights of query terms in {folder or 'its folder'}.")
        weight = torch.zeros(len(tokenizer), dtype=dtype)
        ids = tokenizer.convert_tokens_to_ids(list(idf))
        weight[torch.tensor(ids)] = torch.tensor(list(idf.values()), dtype=dtype)
    return nn.Parameter(weight.reshape(-1))
