"""From a name or an object to a source of queries, documents, judgements, rankings and tuples."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .documentation import DocumentationDataset
from .registered import REGISTERED, register
from .source_kinds import FileSource, FrameSource, IrDatasetsSource, PyTerrierSource, Source

ALLOWED = (
    "an ir_datasets id, a folder with corpus.jsonl.gz, topics.tsv and qrels.txt (folder:train for topics.train.tsv), "
    "a file of documents or queries, a PyTerrier dataset (or the pair of it and a variant), or a dictionary with "
    "queries, docs, qrels"
)


def open_source(given: Any) -> Source:
    """The source that a name or an object stands for; nothing is read or downloaded yet.

    Args:
        given: an ir_datasets id, with slashes or dashes; a folder laid out as `corpus.jsonl.gz`, `topics.tsv`,
            `qrels.txt`, where `folder:train` chooses `topics.train.tsv` and `qrels.train.txt`; a file of documents or
            queries; a dataset of ir_datasets or PyTerrier, also as a pair with a variant; a dictionary with `queries`,
            `docs`, `qrels`, `scoreddocs`, `docpairs`; or a source.

    Raises:
        FileNotFoundError: if a name is neither a dataset nor on the disk.
        TypeError: for any other object.

    >>> source = open_source({"queries": {"q1": "how tall"}, "docs": {"d1": "It is tall."}})
    >>> source.docs["d1"]
    'It is tall.'
    """
    if isinstance(given, (str, Path)):
        return _open_name(str(given))
    if isinstance(given, Source):
        return given
    if isinstance(given, Mapping):
        return FrameSource(given)
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str):
        return _open_object(*given)
    return _open_object(given, None)


def _open_name(name: str) -> Source:
    path, _, variant = name.rpartition(":")
    for candidate, chosen in ((Path(name), None), (Path(path or "\0"), variant)):
        if "\0" not in str(candidate) and candidate.exists():
            return FileSource(candidate, chosen)
    dataset_id = dataset_id_of(name)
    if dataset_id is None:
        near = difflib.get_close_matches(name, _ids(), n=1)
        hint = f"  Did you mean {near[0]!r}?" if near else ""
        raise FileNotFoundError(f"{name!r}: no dataset, folder or file; allowed: {ALLOWED}.{hint}")
    import ir_datasets

    register(dataset_id)
    return IrDatasetsSource(ir_datasets.load(dataset_id), dataset_id)


def _open_object(given: Any, variant: str | None) -> Source:
    if isinstance(given, DocumentationDataset):
        return PyTerrierSource(given, variant, text_fields=("text",))  # its texts begin with the title
    if hasattr(given, "has_docs") and hasattr(given, "has_queries"):
        return IrDatasetsSource(given, given.dataset_id() if hasattr(given, "dataset_id") else repr(given))
    if variant is None and hasattr(given, "irds_ref"):  # PyTerrier strips the punctuation of its queries
        return _open_object(given.irds_ref(), None)
    if any(hasattr(given, method) for method in ("get_topics", "get_corpus_iter")):
        return PyTerrierSource(given, variant)
    hint = "  A frame alone does not say what it holds: {'docs': frame}." if isinstance(given, pd.DataFrame) else ""
    raise TypeError(f"{type(given).__name__}: no source; allowed: {ALLOWED}.{hint}")


def _ids() -> list[str]:
    import ir_datasets

    return [*ir_datasets.registry, *REGISTERED]


def dataset_id_of(name: str) -> str | None:
    """The id of a dataset by its name with slashes or dashes, None if there is none.

    >>> dataset_id_of("msmarco-passage-trec-dl-2019")
    'msmarco-passage/trec-dl-2019'
    """
    import ir_datasets

    if name in REGISTERED:
        return name
    try:  # those that are made of a pattern are in no list
        ir_datasets.registry[name]
    except KeyError:
        return next((one for one in _ids() if one.replace("/", "-") == name), None)
    return name
