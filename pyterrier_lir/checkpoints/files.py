"""A checkpoint's folder: what is in it, read safely.  Knows file formats of Hugging Face, not what a model is."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub import errors as hub_errors
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from . import adapter
from .weight_files import check_complete, load_state, readable, weight_files

_SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.metadata", "*.bpe", "*.vocab"]
_OTHER_FRAMEWORKS = ["onnx/*", "openvino/*", "tf/*", "flax/*", "coreml/*", "*training_args.bin", "*optimizer*"]


class Files:
    """The files of one checkpoint, by path relative to its folder.

    Args:
        name: a local folder, or the id of a repository on the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether Python files of the checkpoint may run.
        merge_adapter: whether an adapter's changes are added to the weights, else they are computed beside them.
        weights: whether weights are downloaded too, and read; else a backbone has shapes but no numbers.

    Raises:
        FileNotFoundError: if `name` is neither a folder nor a repository that can be reached or is in the local cache.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        trust_remote_code: bool = False,
        merge_adapter: bool = True,
        weights: bool = True,
    ) -> None:
        self.name = name
        self.trust_remote_code = trust_remote_code
        self.merge_adapter = merge_adapter
        self.weights = weights
        self.folder = _local_folder(name, revision, weights)

    def without_weights(self) -> Files:
        """The same files; a backbone of them has shapes but no numbers."""
        other = copy.copy(self)
        other.weights = False
        vars(other).pop("base", None)
        return other

    def __contains__(self, path: str) -> bool:
        return (self.folder / path).is_file()

    def json(self, path: str) -> Any:
        """The JSON file at `path`, or {} where there is none.

        Raises:
            ValueError: if the file is no JSON.
        """
        if path not in self:
            return {}
        try:
            return json.loads((self.folder / path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{self.folder / path} is not valid JSON ({error}); download the checkpoint anew."
            ) from error

    def text(self, path: str) -> str | None:
        """The text file at `path`, None where there is none."""
        return (self.folder / path).read_text(encoding="utf-8") if path in self else None

    @property
    def config(self) -> dict[str, Any]:
        """The backbone's config.json, {} where there is none; an adapter's is that of its base."""
        own = self.base.config if "config.json" not in self and self.adapted() else dict(self.json("config.json"))
        return adapter.config_of(self, own) if self.adapted() else own

    @property
    def ids(self) -> tuple[str, ...]:
        """What the checkpoint may be called on the hub, so that a local copy is read as the hub's.

        As it was named; as its place in the hub's cache says, or the last two parts of its path; as its config.json
        remembers.
        """
        parts = self.folder.resolve().parts
        cached = [part.removeprefix("models--").replace("--", "/", 1) for part in parts if part.startswith("models--")]
        remembered = self.config.get("_name_or_path")
        return (self.name, *(cached or ["/".join(parts[-2:])]), *([remembered] if remembered else []))

    def tensors(
        self, names: list[str], subfolder: str = "", dtype: torch.dtype = torch.float32
    ) -> dict[str, torch.Tensor]:
        """Those of the named tensors that the weight files of `subfolder` hold, without reading the others.

        Raises:
            ValueError: if a weight file is truncated or corrupt.
        """
        found: dict[str, torch.Tensor] = {}
        for path in weight_files(self.folder / subfolder):
            with readable(path):
                if path.suffix == ".safetensors":
                    with safe_open(path, framework="pt") as weights:
                        found |= {n: weights.get_tensor(n) for n in names if n in weights.keys()}  # noqa: SIM118
                else:
                    state = torch.load(path, map_location="cpu", weights_only=True)
                    found |= {n: state[n] for n in names if n in state}
        return {name: tensor.to(dtype) for name, tensor in found.items()}

    def backbone_config(
        self, values: dict[str, Any] | None = None, subfolder: str = "", changes: dict[str, Any] | None = None
    ) -> PretrainedConfig:
        """The backbone's configuration.

        Args:
            values: stands in for a config.json that names no Hugging Face type.
            changes: values that differ from those of config.json.

        Raises:
            ValueError: for a backbone that cannot be run.
        """
        if (values or self.json(str(Path(subfolder, "config.json")))).get("model_type") == "xlnet":
            raise ValueError(
                f"{self.name} has an XLNet, which reads texts that are padded on the left and summed up in their last "
                "token; such are not made here."
            )
        if values is None and self.adapted(subfolder) and not (self.folder / subfolder / "config.json").is_file():
            return self.base.backbone_config(changes=changes)
        with quiet():
            if values is None:
                return AutoConfig.from_pretrained(
                    self.folder / subfolder,
                    trust_remote_code=self.trust_remote_code,
                    local_files_only=True,
                    **(changes or {}),
                )
            kind = values["model_type"]
            if kind not in transformers.CONFIG_MAPPING:
                raise ValueError(f"{self.name} has a backbone of type {kind!r}, which transformers does not know.")
            return transformers.CONFIG_MAPPING[kind].from_dict(values)

    def backbone(
        self,
        auto: type,
        config: PretrainedConfig,
        dtype: torch.dtype,
        ignore: tuple[str, ...] = (),
        subfolder: str = "",
        renamed: dict[str, str] | None = None,
    ) -> PreTrainedModel:
        """The Hugging Face model of class `auto` with this checkpoint's weights, in evaluation mode.

        Args:
            ignore: beginnings of weight names that may be missing, because nothing reads them.
            renamed: beginning of the weights' names in the file -> what stands there in the model.

        Raises:
            FileNotFoundError: if there are no weights.
            ValueError: if the weights are truncated, corrupt or of another shape, or if some are missing.
            ImportError: for an adapter without the package peft.
        """
        if not self.weights:
            return _shapes(auto, config, dtype, self.trust_remote_code)
        folder = self.folder / subfolder
        if self.adapted(subfolder):
            own = tuple(adapter.saved_whole(folder))
            model = self.base.backbone(auto, config, dtype, (*ignore, *own))
            with quiet(), readable(folder):
                return adapter.on(model, self, folder)
        for path in weight_files(folder):
            check_complete(path)
        state = None
        if renamed is not None:
            state, auto = self._renamed(folder, renamed), auto._model_mapping[type(config)]  # type: ignore[attr-defined]
        with quiet(), readable(folder):
            model, info = auto.from_pretrained(  # type: ignore[attr-defined]
                folder if state is None else None,
                state_dict=state,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                local_files_only=True,
                trust_remote_code=self.trust_remote_code,
            )
        for name, found, expected in sorted(info["mismatched_keys"]):
            raise ValueError(
                f"The weights at {folder}: {name} is of shape {tuple(found)}, which does not fit its config.json, by "
                f"which it is {tuple(expected)}."
            )
        # a pooler is read by nothing behind a backbone alone, and by the head of some classifiers
        unread = ("pooler.", *ignore) if model.base_model is model else ignore
        missing = sorted(name for name in info["missing_keys"] if not name.startswith(unread))
        if missing:
            raise ValueError(
                f"{self.name} lacks {len(missing)} weights of a {type(model).__name__}, among them {missing[0]}; "
                "the checkpoint is incomplete or of another architecture than its config.json says."
            )
        return model.eval()  # type: ignore[no-any-return]

    def _renamed(self, folder: Path, renamed: dict[str, str]) -> dict[str, torch.Tensor]:
        """All weights, those with one of the beginnings renamed and the others left out."""
        state: dict[str, torch.Tensor] = {}
        for path in weight_files(folder):
            whole = load_state(path)
            for start, instead in renamed.items():
                state |= {instead + n.removeprefix(start): t for n, t in whole.items() if n.startswith(start)}
        return state

    def adapted(self, subfolder: str = "") -> bool:
        """Whether the folder holds a PEFT adapter (such as LoRA) of another checkpoint's weights."""
        return (self.folder / subfolder / adapter.FILE).is_file()

    @cached_property
    def base(self) -> Files:
        """The checkpoint whose weights the adapter changes.

        Raises:
            FileNotFoundError: if it is neither here nor on the hub.
        """
        path = next(path for path in (self.folder, *sorted(self.folder.glob("*"))) if (path / adapter.FILE).is_file())
        name = json.loads((path / adapter.FILE).read_text(encoding="utf-8"))["base_model_name_or_path"]
        try:
            return Files(name, trust_remote_code=self.trust_remote_code, weights=self.weights)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.name} is an adapter of {name!r}, which is missing: {error}") from error

    def tokenizer(
        self, config: PretrainedConfig, subfolder: str = "", changes: dict[str, Any] | None = None
    ) -> PreTrainedTokenizerBase:
        """The checkpoint's fast tokenizer.

        Args:
            changes: settings that differ from those of tokenizer_config.json.

        Raises:
            FileNotFoundError: if the folder holds no tokenizer.
        """
        folder = self.folder / subfolder
        if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model",
                   "sentencepiece.bpe.model", "tokenizer.model", "spm.model")):  # fmt: skip
            if self.adapted(subfolder):
                return self.base.tokenizer(config, changes=changes)
            raise FileNotFoundError(
                f"{self.name} has no tokenizer (no tokenizer.json, vocab.txt or SentencePiece model in {folder}); "
                "save the tokenizer beside the model: tokenizer.save_pretrained(folder)."
            )
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=self.trust_remote_code,
                **(changes or {}),
            )
        if not tokenizer.is_fast:
            raise ValueError(f"{self.name} has no fast tokenizer; convert it once and save its tokenizer.json.")
        return tokenizer  # type: ignore[no-any-return]


def _shapes(auto: Any, config: PretrainedConfig, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """The Hugging Face model of class `auto` on the device `meta`, which holds no numbers."""
    with quiet(), torch.device("meta"):
        model: PreTrainedModel
        if hasattr(auto, "from_config"):
            model = auto.from_config(config, trust_remote_code=trust_remote_code)
        else:
            model = auto(config)
    return model.to(dtype).eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' loading bars and reports: what matters in them is checked and raised here."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


@cache
def _snapshot(name: str, revision: str | None, weights: bool) -> Path:
    """Download (or find in the cache) the small files and one set of weights, safetensors where there are any."""
    folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_SMALL))
    if not weights:
        return folder
    for patterns in (["*.safetensors", "[1-9]_*/pytorch_model.bin", "*_linear.pt"], ["*.bin", "*.pt"]):
        huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=patterns, ignore_patterns=_OTHER_FRAMEWORKS
        )
        if any(weight_files(part) for part in (folder, *folder.glob("*0_*"))):
            break
    return folder


def _local_folder(name: str, revision: str | None, weights: bool) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise FileNotFoundError(
            f"{name} is a file; a checkpoint is a folder. Of a Lightning .ckpt, write one: "
            "BiEncoderModule.load_from_checkpoint(path, model_name_or_path=...).save_pretrained(folder), or give the "
            "trainer ExportCallback(folder)."
        )
    if not isinstance(name, str) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"No checkpoint folder at {name!r}.")
    try:
        return _snapshot(name, revision, weights)
    except hub_errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{name!r} is no folder here and no model on the Hugging Face hub (or a private one: "
            "log in with `hf auth login`)."
        ) from error
    except hub_errors.HFValidationError as error:
        raise FileNotFoundError(f"{name!r} is no folder here and no valid id of a model on the hub.") from error
    except (hub_errors.LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{name!r} is no folder here, is not in the Hugging Face cache, and the hub cannot be reached "
            f"({type(error).__name__}). Check the name; offline, download it elsewhere and give the folder."
        ) from error
