"""Tiny bi-encoders in every format that is read, made here: no download, no committed weights."""

from __future__ import annotations

import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyterrier_lir import BiEncoderConfig, BiEncoderModel
from tests.tiny_checkpoints import (
    CROSS_KINDS,
    WIDTH,
    backbone,
    modernbert_tokenizer,
    roberta_tokenizer,
    t5_tokenizer,
    wordpiece,
    write_json,
)

LENGTHS = {"query_length": 12, "doc_length": 24}


def save_sentence_transformer(folder: Path, **settings: Any) -> None:
    """A dense model in the older layout of sentence-transformers: Transformer, Pooling, Normalize."""
    tokenizer = wordpiece()
    backbone("Bert", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    )
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", **settings})


def save_new(folder: Path, kind: str, tokenizer: Any, head: str = "Model", **choices: Any) -> None:
    """A new model on a backbone, saved as the package saves it: as Lightning IR does where that has the type."""
    base = folder / "base"
    backbone(kind, tokenizer, head).save_pretrained(base)
    tokenizer.save_pretrained(base)
    model = BiEncoderModel.from_pretrained(base, config=BiEncoderConfig(**{**LENGTHS, **choices}))
    for weight in model.outputs.parameters():
        if weight.dim() > 1 and weight.shape[0] != len(tokenizer):
            nn.init.normal_(weight, std=0.3)
        elif weight.shape == (1,):
            nn.init.constant_(weight, 5.0)  # most terms have some weight
    shutil.rmtree(base)
    model.save_pretrained(folder)


def save_splade(folder: Path, kind: str = "Bert", tokenizer: Any = None, **choices: Any) -> None:
    config = BiEncoderConfig.splade(**choices).to_dict()
    del config["kind"]
    save_new(folder, kind, tokenizer or wordpiece(), "ForMaskedLM", **{**config, **LENGTHS})


def save_coil(folder: Path) -> None:
    from pyterrier_lir import checkpoints
    from pyterrier_lir.checkpoints.checkpoint import Checkpoint, Output

    tokens = BiEncoderConfig(
        **LENGTHS, projection="linear", query_pooling_strategy=None, doc_pooling_strategy=None, skip_first=1,
        exact_match=True,
    )  # fmt: skip
    cls = BiEncoderConfig(**LENGTHS, query_pooling_strategy="first", doc_pooling_strategy="first")
    also = (Output(cls, nn.Sequential(nn.Linear(WIDTH, 6))),)
    model = backbone("Bert", wordpiece())
    checkpoints.save(
        Checkpoint(tokens, model, wordpiece(), nn.Sequential(nn.Linear(WIDTH, 4)), "new", also=also), folder
    )


def save_masked_lm(folder: Path, kind: str = "Bert", idf: bool = False) -> None:
    """A masked language model alone, as naver's SPLADE and (with idf.json) OpenSearch's."""
    tokenizer = wordpiece()
    backbone(kind, tokenizer, "ForMaskedLM").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if idf:
        write_json(folder / "idf.json", {token: 1 + i % 7 for token, i in tokenizer.get_vocab().items()})


def save_colbert(folder: Path) -> None:
    """The official ColBERT's folder: the backbone under a prefix, linear.weight, artifact.metadata."""
    from safetensors.torch import save_file

    tokenizer = wordpiece()
    tokenizer.add_tokens(["[unused0]", "[unused1]"], special_tokens=True)
    model = backbone("Bert", tokenizer)
    model.config.architectures = ["HF_ColBERT"]
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {f"bert.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(
        {**weights, "linear.weight": torch.randn(8, WIDTH)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    settings = {
        "query_maxlen": 12,
        "doc_maxlen": 24,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
        "dim": 8,
    }
    markers = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
    write_json(folder / "artifact.metadata", {**settings, **markers})


def save_modules(folder: Path, modules: list[tuple[str, str, dict[str, Any]]], **settings: Any) -> None:
    """modules.json, a config.json for each module behind the first, and the model's settings."""
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (kind, path, _) in enumerate(modules)],
    )
    for _, path, values in modules[1:]:
        write_json(folder / path / "config.json", values)
    write_json(folder / "config_sentence_transformers.json", settings)


def save_dense_module(folder: Path, size: int, width: int = WIDTH, **values: Any) -> dict[str, Any]:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({"linear.weight": torch.randn(size, width) * 0.3}, folder / "model.safetensors")
    identity = "torch.nn.modules.linear.Identity"
    return {"in_features": width, "out_features": size, "bias": False, "activation_function": identity, **values}


def save_pylate(folder: Path, modernbert: bool = False, **settings: Any) -> None:
    tokenizer = modernbert_tokenizer() if modernbert else wordpiece()
    tokenizer.add_tokens(["[Q] ", "[D] "])
    backbone("ModernBert" if modernbert else "Bert", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 60, "do_lower_case": False})
    dense = save_dense_module(folder / "1_Dense", 8)
    modules = [("sentence_transformers.models.Transformer", "", {}), ("pylate.models.Dense.Dense", "1_Dense", dense)]
    chosen = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 12, "document_length": 24}
    save_modules(folder, modules, model_type="ColBERT", similarity_fn_name="MaxSim", **{**chosen, **settings})


def save_multi_vector_encoder(folder: Path, **expansion: Any) -> None:
    tokenizer = wordpiece()
    backbone("Bert", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    bert = {"query_length": 12, "document_length": 24, "query_expansion": expansion or None}
    task = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    modality = {"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}}
    write_json(folder / "sentence_bert_config.json", {**task, **modality, **bert})
    names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    dense = save_dense_module(folder / "1_Dense", 8, **names)
    mask = {"skiplist_words": list(string.punctuation), "skiplist_tasks": ["document"], "keep_only_token_ids": None}
    prefix = "sentence_transformers"
    modules = [
        (f"{prefix}.base.modules.transformer.Transformer", "", {}),
        (f"{prefix}.base.modules.dense.Dense", "1_Dense", dense),
        (f"{prefix}.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask", "2_MultiVectorMask", mask),
        (f"{prefix}.base.modules.normalize.Normalize", "3_Normalize",
         {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}),
    ]  # fmt: skip
    prompts = {"query": "[Q] ", "document": "[D] "}
    save_modules(folder, modules, model_type="MultiVectorEncoder", prompts=prompts, similarity_fn_name=None)


def save_sparse_encoder(folder: Path, kind: str = "Bert", **pooling: Any) -> None:
    save_masked_lm(folder, kind)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    prefix = "sentence_transformers.sparse_encoder.models"
    modules = [(f"{prefix}.MLMTransformer.MLMTransformer", "", {}),
               (f"{prefix}.SpladePooling.SpladePooling", "1_SpladePooling", pooling)]  # fmt: skip
    save_modules(folder, modules, model_type="SparseEncoder", similarity_fn_name="dot")


def save_inference_free(folder: Path) -> None:
    """A Router: queries by a table, documents by SPLADE."""
    from safetensors.torch import save_file

    doc = folder / "document_0_MLMTransformer"
    save_masked_lm(doc)
    write_json(doc / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    write_json(
        folder / "document_1_SpladePooling" / "config.json",
        {"pooling_strategy": "max", "activation_function": "log1p_relu"},
    )
    table = folder / "query_0_SparseStaticEmbedding"
    write_json(table / "config.json", {"frozen": False})
    tokenizer = wordpiece()
    tokenizer.save_pretrained(table)
    save_file({"weight": torch.rand(len(tokenizer)) * 5}, table / "model.safetensors")
    types = {"query_0_SparseStaticEmbedding": "SparseStaticEmbedding.SparseStaticEmbedding",
             "document_0_MLMTransformer": "MLMTransformer.MLMTransformer",
             "document_1_SpladePooling": "SpladePooling.SpladePooling"}  # fmt: skip
    router = {
        "types": {name: f"sentence_transformers.sparse_encoder.models.{kind}" for name, kind in types.items()},
        "structure": {"query": [*types][:1], "document": [*types][1:]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    save_modules(
        folder, [("sentence_transformers.models.Router", "", {})], model_type="SparseEncoder", similarity_fn_name="dot"
    )
    write_json(folder / "router_config.json", router)


def save_xtr(folder: Path) -> None:
    tokenizer = t5_tokenizer()
    backbone("T5", tokenizer, "EncoderModel").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.randn(8, WIDTH)}, folder / "2_Dense" / "pytorch_model.bin")
    write_json(folder / "2_Dense" / "config.json", {"in_features": WIDTH, "out_features": 8, "bias": False})


def save_bge_m3(folder: Path) -> None:
    tokenizer = roberta_tokenizer()
    backbone("XLMRoberta", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, size in (("sparse", 1), ("colbert", 8)):
        torch.save(nn.Linear(WIDTH, size).state_dict(), folder / f"{name}_linear.pt")


def save_unicoil(folder: Path) -> None:
    tokenizer = wordpiece()
    model = backbone("Bert", tokenizer)
    model.config.architectures = ["UniCOIL"]
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {f"coil_encoder.bert.{name}": tensor for name, tensor in model.state_dict().items()}
    layer = {"coil_encoder.tok_proj.weight": torch.randn(1, WIDTH) * 0.1, "coil_encoder.tok_proj.bias": torch.ones(1)}
    torch.save({**weights, **layer}, folder / "pytorch_model.bin")


_TOKENS = {"query_pooling_strategy": None, "doc_pooling_strategy": None}
_MARKED = {**_TOKENS, "add_marker_tokens": True, "query_expansion": True, "projection": "linear_no_bias", "embedding_dim": 8,
           "normalization_strategy": "l2", "doc_mask_scoring_tokens": "punctuation"}  # fmt: skip
BI_KINDS: dict[str, Callable[[Path], None]] = {
    "dense": lambda f: save_sentence_transformer(f),
    "dpr-first": lambda f: save_new(f, "Bert", wordpiece(), query_pooling_strategy="first", doc_pooling_strategy="first", projection="linear"),
    "dpr-mean": lambda f: save_new(f, "Bert", wordpiece(), similarity_function="cosine", projection="linear_no_bias", embedding_dim=6),
    "dpr-max": lambda f: save_new(f, "Roberta", roberta_tokenizer(), query_pooling_strategy="max", doc_pooling_strategy="max", sparsification_strategy="relu"),
    "dense-mixed": lambda f: save_new(f, "Electra", wordpiece(), query_pooling_strategy="min", doc_pooling_strategy=("first",), similarity_function="l2", normalization_strategy="l2"),
    "splade": lambda f: save_splade(f),
    "splade-roberta": lambda f: save_splade(f, "Roberta", roberta_tokenizer()),
    "splade-modernbert": lambda f: save_splade(f, "ModernBert", modernbert_tokenizer()),
    "splade-sum": lambda f: save_splade(f, query_pooling_strategy="sum", doc_pooling_strategy="sum"),
    "splade-2xlog": lambda f: save_splade(f, sparsification_strategy="relu_2xlog"),
    "splade-lexical": lambda f: save_splade(f, query_weighting="lexical"),
    "splade-doc": lambda f: save_splade(f, query_weighting="binary", special_tokens=(False, True)),
    "splade-static": lambda f: save_splade(f, query_weighting="static", special_tokens=(False, True)),
    "splade-own-embeddings": lambda f: save_new(f, "Bert", wordpiece(), projection="mlm", query_pooling_strategy="max", doc_pooling_strategy="max", sparsification_strategy="relu_log"),
    "unicoil": lambda f: save_new(f, "Bert", wordpiece(), projection="term_weight", sparsification_strategy="relu", query_repeated_terms="last", doc_repeated_terms="last"),
    "col": lambda f: save_new(f, "Bert", wordpiece(), **_MARKED),
    "col-attend": lambda f: save_new(f, "Bert", wordpiece(), **_MARKED, attend_to_query_expanded_tokens=True),
    "col-modernbert": lambda f: save_new(f, "ModernBert", modernbert_tokenizer(), **_TOKENS, projection="linear", embedding_dim=8),
    "col-l2": lambda f: save_new(f, "Bert", wordpiece(), **_TOKENS, projection="linear", embedding_dim=8, similarity_function="l2", query_aggregation_function="mean"),
    "mvr": lambda f: save_new(f, "Bert", wordpiece(), query_pooling_strategy="first", doc_pooling_strategy="markers", doc_markers=("[VIE0]", "[VIE1]", "[VIE2]"), projection="linear", embedding_dim=8),
    "coil": save_coil,
    "sparse-encoder": lambda f: save_sparse_encoder(f, pooling_strategy="max", activation_function="relu"),
    "sparse-encoder-sum": lambda f: save_sparse_encoder(f, "DistilBert", pooling_strategy="sum", activation_function="log1p_relu"),
    "inference-free": save_inference_free,
    "pylate": lambda f: save_pylate(f),
    "pylate-modernbert": lambda f: save_pylate(f, modernbert=True, do_query_expansion=False, skiplist_words=[]),
    "multi-vector-encoder": lambda f: save_multi_vector_encoder(f, strategy="fixed", attend=False, token=None, length=12),
    "multi-vector-encoder-min": lambda f: save_multi_vector_encoder(f, strategy="min", attend=True, token="the", length=6),
    "colbert": save_colbert,
    "naver-splade": lambda f: save_masked_lm(f),
    "naver-splade-distilbert": lambda f: save_masked_lm(f, "DistilBert"),
    "opensearch": lambda f: save_masked_lm(f, idf=True),
    "unicoil-castorini": save_unicoil,
    "xtr": save_xtr,
    "bge-m3": save_bge_m3,
}  # fmt: skip
BI_ENCODERS = tuple(BI_KINDS)
KINDS: dict[str, Callable[[Path], None]] = CROSS_KINDS | BI_KINDS
