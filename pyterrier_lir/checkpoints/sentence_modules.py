"""What all of sentence-transformers' folders have: lengths, prompts, and the layers behind the Transformer."""

from __future__ import annotations

from typing import Any

from tokenizers import normalizers
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from . import sequence_classification
from .checkpoint import Normalize, ReadOptions, Residual, activation, linear
from .files import Files

_DOC_PROMPTS = ("document", "passage", "corpus")  # encode_document takes the first that there is


def prompts_of(settings: dict[str, Any]) -> dict[str, Any]:
    """The prompts' fields of a configuration."""
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text is not None}
    default = prompts.get(settings.get("default_prompt_name"), "")
    return {
        "query_prompt": prompts.get("query", default),
        "doc_prompt": next((prompts[name] for name in _DOC_PROMPTS if name in prompts), default),
        "prompts": tuple(prompts.items()),
    }


def read_layer(
    files: Files, kind: str, path: str, options: ReadOptions, inputs: tuple[str, ...] = ("sentence_embedding", "scores")
) -> list[nn.Module]:
    """The torch layers of one module behind the Transformer; `inputs` are what it may read."""
    values = files.json(f"{path}/config.json")
    if kind == "Normalize":
        return [Normalize()]
    if kind == "Dropout":
        return []  # models are read for inference
    names = ["linear.weight", "linear.bias", "residual.weight", "norm.weight", "norm.bias"]
    found = files.tensors(names, path, options.dtype)
    needed = "norm.weight" if kind == "LayerNorm" else "linear.weight"
    if needed not in found:
        raise ValueError(f"{files.name} lists a {kind} module in {path}/, which holds no {needed}.")
    if kind == "LayerNorm":
        norm = nn.LayerNorm(len(found["norm.weight"]), dtype=options.dtype)
        norm.load_state_dict({"weight": found["norm.weight"], "bias": found["norm.bias"]})
        return [norm]
    if values.get("module_input_name", inputs[0]) not in inputs:
        raise ValueError(
            f"{files.name} has a Dense module on {values['module_input_name']}; expected {' or '.join(inputs)}."
        )
    dense: list[nn.Module] = [
        linear(found["linear.weight"], found.get("linear.bias")),
        activation(values.get("activation_function") or "torch.nn.Tanh"),
    ]
    if values.get("use_residual"):
        shortcut = linear(found["residual.weight"], None) if "residual.weight" in found else nn.Identity()
        return [Residual(nn.Sequential(*dense), shortcut)]
    return dense


def sentence_length(
    files: Files, subfolder: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> int | None:
    """`max_seq_length` of sentence_bert_config.json, else what tokenizer and backbone allow.

    Lower-casing that the file asks for is added to the tokenizer.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    values = files.json(f"{prefix}sentence_bert_config.json")
    if values.get("do_lower_case"):
        backend = tokenizer.backend_tokenizer
        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(steps)
    length: int | None = values.get("max_seq_length")
    return length or sequence_classification.max_tokens(tokenizer, config)
