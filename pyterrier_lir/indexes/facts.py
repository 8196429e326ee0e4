"""What an index is, in words: kind, model, documents, size on disk, engines built, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..display import size_of
from ..models.facts import KIND_WORDS, changed

if TYPE_CHECKING:
    from .index import LIRIndex

# of the metadata, what is told by another name or nobody asks for
_TOLD = ("version", "type", "format", "package_hint", "model", "config", "fields", "docs", "shards", "deleted", "terms")


def facts_of(index: LIRIndex) -> dict[str, Any]:
    """The facts of a complete index, from its files.

    Raises:
        FileNotFoundError: if it is incomplete.
        ValueError: if it is not of this package.
    """
    documents = len(index)  # which opens it again if it was changed
    meta, model = index.meta, index.meta["model"]
    return {
        "path": str(index.folder),
        "what": f"index of {KIND_WORDS[index.KIND]} vectors",
        "documents": documents,
        "deleted documents": index.docids - documents,
        "stored fields": meta["fields"],
        "size on disk": size_of(index.folder),
        "files": len(meta["shards"]),
        "engines built": sorted(one.name for one in (index.folder / "engines").glob("*")),
        "made with": {"model": model.get("source", "unknown"), **{k: v for k, v in model.items() if k != "source"}},
        "settings": {name: value for name, value in meta.items() if name not in _TOLD},
        "configuration": changed(index.config),
    }
