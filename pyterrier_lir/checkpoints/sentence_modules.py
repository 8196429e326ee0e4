"""What all of sentence-transformers' folders have: a Transformer with settings, prompts, and the layers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import normalizers
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from .checkpoint import Normalize, ReadOptions, Residual, activation, linear, max_tokens
from .files import Files

_LIBRARIES = ("sentence_transformers.", "pylate.")
_DOC_PROMPTS = ("document", "passage", "corpus")  # encode_document takes the first that there is
# The library names its file by the class of the first version that wrote one, and reads the first of these.
_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_OLD_NAMES = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}
_SETTINGS = frozenset([
    "max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name", "unpad_inputs",
    "query_length", "document_length", "query_expansion", "processing_kwargs", *_OLD_NAMES.values(),
])  # fmt: skip
# Where a checkpoint lies is not for its files to say, nor whether its code may run.
_HUB = frozenset(["subfolder", "token", "cache_dir", "revision", "local_files_only", "trust_remote_code"])
# How the model is held and computed, which changes no number but by rounding.
_COMPUTATION = frozenset(
    ["attn_implementation", "torch_dtype", "dtype", "device_map", "low_cpu_mem_usage", "use_safetensors",
     "add_pooling_layer"]
)  # fmt: skip
_PADDING = frozenset(["padding", "pad_to_multiple_of", "return_tensors", "return_attention_mask"])


def prompts_of(settings: dict[str, Any]) -> dict[str, Any]:
    """The prompts' fields of a configuration.

    The default prompt is not among them: `encode_query` and `encode_document` take an empty one where there is none of
    their own name.
    """
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text is not None}
    return {
        "query_prompt": prompts.get("query", ""),
        "doc_prompt": next((prompts[name] for name in _DOC_PROMPTS if name in prompts), ""),
        "prompts": tuple(prompts.items()),
    }


def default_prompt(settings: dict[str, Any]) -> str:
    """The prompt that a CrossEncoder puts in front of every query."""
    prompts: dict[str, str | None] = settings.get("prompts") or {}
    return prompts.get(settings.get("default_prompt_name") or "") or ""


@dataclass(frozen=True)
class Transformer:
    """The Transformer module of a folder, without its weights.

    Attributes:
        subfolder: where it lies.
        config: the backbone's configuration.
        tokenizer: its fast tokenizer, set up as the module asks for.
        max_length: most tokens of a text, or of a pair; None for no limit.
        settings: what the module was saved with.
    """

    subfolder: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    settings: dict[str, Any]

    @property
    def forced_length(self) -> int | None:
        """The length of `processing_kwargs`, before which all others give way; None where there is none."""
        return _processing(self.settings).get("max_length")


def transformer(files: Files, subfolder: str, chat: bool = False) -> Transformer:
    """The Transformer module that lies in `subfolder`.

    Args:
        chat: whether the caller puts texts into the tokenizer's chat template, where the module does.

    Raises:
        ValueError: for settings that are not known.
    """
    settings = transformer_settings(files, subfolder)
    if not chat and "message" in (settings.get("modality_config") or {}):
        raise ValueError(
            f"{files.name} puts every text into a chat template (message in modality_config), which is read of "
            "Transformer + LogitScore only."
        )
    config = files.backbone_config(subfolder=subfolder, changes=settings.get("config_kwargs"))
    chosen = settings.get("processor_kwargs") or {}
    tokenizer = files.tokenizer(config, subfolder, chosen)
    if settings.get("do_lower_case"):
        _lower_case(tokenizer)
    lengths = (_processing(settings).get("max_length"), chosen.get("model_max_length"), settings.get("max_seq_length"))
    length = next((length for length in lengths if length), None) or max_tokens(tokenizer, config)
    return Transformer(subfolder, config, tokenizer, length, settings)


def _processing(settings: dict[str, Any]) -> dict[str, Any]:
    """How the tokenizer is called on texts."""
    processing = settings.get("processing_kwargs") or {}
    return {**processing.get("text", {}), **processing.get("common", {})}


def transformer_settings(files: Files, subfolder: str) -> dict[str, Any]:
    """What a Transformer module was saved with, by the newest names.

    Raises:
        ValueError: for settings that are not known, naming them.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    path = next((path for path in (prefix + name for name in _FILES) if files.json(path)), prefix + _FILES[0])
    settings = {_OLD_NAMES.get(name, name): value for name, value in files.json(path).items()}
    for name in _OLD_NAMES.values():
        settings[name] = {key: value for key, value in (settings.get(name) or {}).items() if key not in _HUB}
    texts = _processing(settings)
    unknown = [name for name, value in settings.items() if value and name not in _SETTINGS]
    unknown += [f"model_kwargs.{name}" for name in settings["model_kwargs"] if name not in _COMPUTATION]
    unknown += [f"processing_kwargs.{name}" for name in texts if name not in {*_PADDING, "max_length", "truncation"}]
    if texts.get("truncation") not in (None, True, "longest_first"):
        unknown.append(f"processing_kwargs.truncation={texts['truncation']!r}")
    if unknown:
        raise ValueError(f"{files.folder / path} has settings that are not known: {', '.join(unknown)}.")
    return settings


def _lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Lower-case texts before anything else, unless the tokenizer has a step that does."""
    own = tokenizer.backend_tokenizer.normalizer
    parts: Any = own if isinstance(own, normalizers.Sequence) else [own]  # which is iterable, though not by its types
    steps = [] if own is None else list(parts)
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def module_name(files: Files, kind: str) -> str:
    """The last part of a module's dotted class.

    Raises:
        ValueError: if the class is of no library that is known: it may compute anything.
    """
    if "." in kind and not kind.startswith(_LIBRARIES):
        raise ValueError(
            f"{files.name} has a module of its own class {kind!r}, whose code is not run; what can be read are modules "
            "of sentence_transformers and pylate."
        )
    return kind.rsplit(".", 1)[-1]


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
