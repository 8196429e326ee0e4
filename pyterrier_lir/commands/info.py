"""`pyterrier-lir info`: what a checkpoint or an index is, from its files."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..display import rows_of, size_of
from .tables import text_table

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint


def info(path: str, *, json: bool = False, trust_remote_code: bool = False) -> None:
    """Say what a checkpoint or an index is: kind, configuration, size, and where it came from.

    Reads files only: no weights and no vectors are loaded, and nothing of a checkpoint's code is run without
    trust_remote_code.

    Args:
        path: folder of a checkpoint or an index, or the hub id of a checkpoint.
        json: print a JSON object.
        trust_remote_code: whether Python files of the checkpoint may run, without which some cannot be looked at.
    """
    folder = Path(path)
    if _is_index(folder):
        from ..indexes import facts, open_index

        found = facts.facts_of(open_index(folder))
    else:
        found = checkpoint_facts(path, trust_remote_code)
    if json:
        print(json_format.dumps(found, indent=2, default=str))
        return
    print(text_table(["", ""], rows_of(found)).lstrip("\n"))


def _is_index(folder: Path) -> bool:
    building = folder.with_name(folder.name + ".building").is_dir()
    return (folder / "pt_meta.json").is_file() or (building and not folder.is_dir())


def checkpoint_facts(name: str, trust_remote_code: bool = False) -> dict[str, Any]:
    """What a checkpoint is.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is of no known format.
    """
    from .. import checkpoints
    from ..checkpoints.files import Files
    from ..checkpoints.weight_files import weight_files
    from ..models.facts import backbone_of, changed, kind_of

    format_name, checkpoint = checkpoints.outline(name, trust_remote_code=trust_remote_code)
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
        "backbone": backbone_of(checkpoint.backbone),
        "parameters": parameters(checkpoint),
        "vocabulary": len(checkpoint.tokenizer),
        "size on disk": size_of(folder),
        "weights": [str(path.relative_to(folder)) for path in weights] or "not downloaded",
        "made from": _origin(folder, backbone),
        "configuration": changed(configs[0]) if len(configs) == 1 else {kind_of(c): changed(c) for c in configs},
    }


def parameters(checkpoint: Checkpoint) -> int:
    """How many numbers a model has; shared ones count once."""
    modules = [checkpoint.backbone, checkpoint.head, *(output.head for output in checkpoint.also)]
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


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
