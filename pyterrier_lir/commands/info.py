"""`pyterrier-lir info`: what a checkpoint or an index is, from its files."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .tables import text_table

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint
    from ..config import BiEncoderConfig, CrossEncoderConfig


def info(path: str, *, json: bool = False) -> None:
    """Say what a checkpoint or an index is: kind, configuration, size, and where it came from.

    Reads files only: no weights and no vectors are loaded, and nothing of a checkpoint's code is run.

    Args:
        path: folder of a checkpoint or an index, or the hub id of a checkpoint.
        json: print a JSON object.
    """
    folder = Path(path)
    facts = index_facts(folder) if _is_index(folder) else checkpoint_facts(path)
    if json:
        print(json_format.dumps(facts, indent=2, default=str))
        return
    print(text_table(["", ""], [[name, _shown(value)] for name, value in _flat(facts)]).lstrip("\n"))


def _is_index(folder: Path) -> bool:
    building = folder.with_name(folder.name + ".building").is_dir()
    return (folder / "pt_meta.json").is_file() or (building and not folder.is_dir())


def index_facts(folder: Path) -> dict[str, Any]:
    """What an index is.

    Raises:
        FileNotFoundError: if it is incomplete.
        ValueError: if it is not of this package.
    """
    from ..config import config_from_dict
    from ..indexes import open_index

    index = open_index(folder)
    meta, model = index.meta, index.meta["model"]
    engines = sorted(one.name for one in (folder / "engines").glob("*")) if (folder / "engines").is_dir() else []
    rest = (
        "version",
        "type",
        "format",
        "package_hint",
        "model",
        "config",
        "fields",
        "docs",
        "shards",
        "deleted",
        "terms",
    )
    return {
        "path": str(folder),
        "what": f"index of {index.KIND} vectors",
        "documents": len(index),
        "deleted documents": index.docids - len(index),
        "stored fields": meta["fields"],
        "size on disk": size_of(folder),
        "files": len(meta["shards"]),
        "engines built": engines,
        "made with": {"model": model.get("source", "unknown"), **{k: v for k, v in model.items() if k != "source"}},
        "settings": {name: value for name, value in meta.items() if name not in rest},
        "configuration": changed(config_from_dict(meta["config"])),
    }


def checkpoint_facts(name: str) -> dict[str, Any]:
    """What a checkpoint is.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is of no known format.
    """
    from .. import checkpoints
    from ..checkpoints.files import Files, weight_files

    format_name, checkpoint = checkpoints.outline(name)
    folder = Files(name, weights=False).folder
    weights = [
        path for one in (folder, *(p for p in sorted(folder.glob("*")) if p.is_dir())) for path in weight_files(one)
    ]
    backbone = checkpoint.backbone.config
    configs = [checkpoint.config, *(output.config for output in checkpoint.also)]
    return {
        "path": name,
        "what": " and ".join(kind_of(config) for config in configs),
        "format": format_name,
        "backbone": f"{type(checkpoint.backbone).__name__}, {getattr(backbone, 'num_hidden_layers', '?')} layers of "
                    f"{getattr(backbone, 'hidden_size', '?')}",
        "parameters": parameters(checkpoint),
        "vocabulary": len(checkpoint.tokenizer),
        "size on disk": size_of(folder),
        "weights": [str(path.relative_to(folder)) for path in weights] or "not downloaded",
        "made from": _origin(folder, backbone),
        "configuration": changed(configs[0]) if len(configs) == 1 else {kind_of(c): changed(c) for c in configs},
    }  # fmt: skip


def kind_of(config: BiEncoderConfig | CrossEncoderConfig) -> str:
    """What a model of this configuration is, in words.

    >>> from pyterrier_lir import CrossEncoderConfig
    >>> kind_of(CrossEncoderConfig(depth=100))
    'listwise cross-encoder'
    """
    if hasattr(config, "listwise"):
        return "listwise cross-encoder" if config.listwise else "cross-encoder"
    return f"{config.kind} bi-encoder"


def parameters(checkpoint: Checkpoint) -> int:
    """How many numbers a model has; shared ones count once."""
    modules = [checkpoint.backbone, checkpoint.head, *(output.head for output in checkpoint.also)]
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def changed(config: BiEncoderConfig | CrossEncoderConfig) -> dict[str, Any]:
    """The fields of a configuration that are not as by default."""
    usual = type(config)().to_dict()
    return {name: value for name, value in config.to_dict().items() if value != usual[name]}


def size_of(folder: Path) -> str:
    """The bytes of all files in a folder, in words.

    >>> import tempfile
    >>> size_of(Path(tempfile.mkdtemp()))
    '0 B'
    """
    size = float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _origin(folder: Path, backbone: Any) -> Any:
    """What the files say of where a checkpoint came from."""
    facts: dict[str, Any] = {}
    if (folder / "training.json").is_file():  # written at the end of fine-tuning
        training = json_format.loads((folder / "training.json").read_text(encoding="utf-8"))
        facts |= {name: training[name] for name in ("model", "data", "losses", "steps", "versions") if name in training}
    elif (named := backbone.name_or_path) and Path(named) != folder:
        facts["name in its config.json"] = named
    if folder.parent.name == "snapshots":  # the hub's cache
        facts["revision"] = folder.name
    return facts or "its files do not say"


def _flat(facts: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{above}{name}: ")
        else:
            rows.append((above + name, value))
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
