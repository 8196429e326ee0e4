"""`pyterrier-lir encode`: texts into files of vectors."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..config import Kind, Precision

if TYPE_CHECKING:
    from ..pipeline import LIRBiEncoder
    from .vector_files import VectorFile

Pairs = Iterator[tuple[str, str]]


def encode(
    model: str,
    texts: str = "-",
    *,
    out: str = "-",
    side: Literal["doc", "query"] = "doc",
    input_format: Literal["auto", "lines", "tsv", "jsonl"] = "auto",
    text_fields: list[str] | None = None,
    shard: str | None = None,
    mode: Literal["create", "overwrite", "resume"] = "create",
    precision: Precision = "auto",
    device: str | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    query_prompt: str | None = None,
    doc_prompt: str | None = None,
    query_prompt_name: str | None = None,
    doc_prompt_name: str | None = None,
    truncate_dim: int | None = None,
    top_k: int | None = None,
    token_ids: bool = False,
    doc_pool_factor: float | None = None,
    outputs: list[Kind] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    verbose: bool = True,
) -> None:
    """Encode queries or documents with a bi-encoder.

    Any number of texts, at bounded memory.  What is written has its name only when it is whole.  Columns of .parquet
    and .jsonl are `docno` with `doc_vec`, `toks` or `doc_embs`, or `qid` with `query_vec`, `query_toks` or
    `query_embs`; ids of .npy and .npz lie beside, one a line, in NAME.ids.txt.

    Args:
        model: hub id or folder of a bi-encoder.
        texts: a file (.tsv: id, tab, text; .jsonl; .csv; .parquet; also .gz), a folder with corpus.jsonl.gz and
            topics.tsv, an ir_datasets id, or - for standard input.
        out: NAME.npy (dense), NAME.npz (dense; sparse for scipy.sparse.load_npz; multi-vector with offsets),
            NAME.parquet or NAME.jsonl (all kinds), or - for JSON lines on standard output.
        side: whether the texts are documents or queries.
        input_format: of files and standard input; auto goes by the name and takes standard input as a text a line.
        text_fields: which fields make a document's text; title and text, where there are both, by default.
        shard: i/n for the i-th (from 0) of n parts, written to NAME.part-i-of-n; rank for the part of this process
            under torchrun, SLURM or Lightning.
        mode: whether an output that is there is refused, written anew, or (resume) taken as done.
        precision: float32, bf16, fp16, int8, or auto.
        device: such as cpu or cuda:0; the GPU by default, if there is one.
        batch_size: texts of a batch; a budget of tokens by default.
        max_length: most tokens of a text.
        query_prompt: text in front of queries; the model's own by default, "" for none.
        doc_prompt: text in front of documents.
        query_prompt_name: a prompt for queries that the checkpoint holds, by its name.
        doc_prompt_name: one for documents.
        truncate_dim: cut dense and token vectors to their first numbers.
        top_k: keep so many terms of a sparse vector.
        token_ids: name terms of sparse vectors by their ids.
        doc_pool_factor: merge a document's token vectors into so many times fewer.
        outputs: which outputs of a model that has several.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether Python files of the checkpoint may run.
        verbose: show progress.
    """
    from ..pipeline import LIRBiEncoder
    from .vector_files import VectorFile, part_of

    of_queries = {"query_prompt": query_prompt, "query_prompt_name": query_prompt_name}
    of_docs = {"doc_prompt": doc_prompt, "doc_prompt_name": doc_prompt_name, "doc_pool_factor": doc_pool_factor}
    if useless := [name for name, value in (of_docs if side == "query" else of_queries).items() if value is not None]:
        raise ValueError(f"{', '.join(useless)}: of no use with side={side!r}.")
    part = _part(shard)
    path = None if out == "-" else part_of(Path(out), part)
    if path is not None and path.exists() and mode == "resume":
        print(f"{path} is whole already.", file=sys.stderr)
        return
    if path is not None and path.exists() and mode == "create":
        raise FileExistsError(f"{path} is there already; choose --mode overwrite, or --mode resume to keep it.")
    pairs = read_texts(texts, side, input_format, text_fields)
    if part is not None:
        pairs = islice(pairs, part[0], None, part[1])
    query = side == "query"
    encoder = LIRBiEncoder(
        model, precision=precision, device=device, batch_size=batch_size, max_length=max_length, token_ids=token_ids,
        query_prompt=query_prompt, doc_prompt=doc_prompt, query_prompt_name=query_prompt_name,
        doc_prompt_name=doc_prompt_name, truncate_dim=truncate_dim, query_top_k=top_k, doc_top_k=top_k,
        doc_pool_factor=doc_pool_factor, outputs=tuple(outputs) if outputs else None, revision=revision,
        trust_remote_code=trust_remote_code, verbose=verbose,
    )  # fmt: skip
    try:
        with VectorFile(path, encoder, query) as file:
            _write(encoder, pairs, query, file)
    except KeyboardInterrupt:
        again = "" if path is None else f"Nothing was written to {path}; run the same command again to start this part."
        raise KeyboardInterrupt(again) from None
    if path is not None:
        print(f"{file.count:,} {'queries' if query else 'documents'} -> {path}", file=sys.stderr)


def _write(encoder: LIRBiEncoder, pairs: Pairs, query: bool, file: VectorFile) -> None:
    """Encode texts and write their vectors, a chunk after the other."""
    from ..indexes.texts import check_finite

    waiting: deque[str] = deque()

    def stream() -> Iterator[str]:
        for name, text in pairs:
            waiting.append(name)
            yield text

    for encoded in encoder.engine().stream(stream(), query):
        first = next(iter(encoded.values()))
        names = [waiting.popleft() for _ in range(first.shape[0] if hasattr(first, "shape") else len(first))]
        for vectors in encoded.values():
            check_finite(vectors, names)
        file.append(names, encoder.pruned(encoded, query))


def read_texts(texts: str, side: str, input_format: str = "auto", text_fields: list[str] | None = None) -> Pairs:
    """Ids and texts, one after the other, of standard input, a file, or a collection.

    Raises:
        FileNotFoundError: for a name that is nothing.
        ValueError: for lines that cannot be read, and collections without queries or documents.
    """
    from ..data import open_source
    from ..data.source_kinds import DOC_IDS, QUERY_IDS, QUERY_TEXTS, TEXTS, id_text_pairs

    ids, names, columns = (DOC_IDS, TEXTS, ("doc_id", "text")) if side == "doc" else (
        QUERY_IDS, QUERY_TEXTS, ("query_id", "query"))  # fmt: skip
    if texts == "-" or Path(texts).is_file():
        rows = _rows(texts, input_format, columns)
        return id_text_pairs(rows, ids, names, text_fields, "standard input" if texts == "-" else texts)
    source = open_source(texts)
    return iter(source.queries.items()) if side == "query" else source.documents(text_fields).stretch(0, None)


def _rows(texts: str, input_format: str, columns: tuple[str, str]) -> Iterator[dict[str, str]]:
    """The rows of a file or of standard input in one of the formats of lines."""
    from ..data.file_formats import open_text, parse_json, read_rows

    path = Path(texts)
    if texts != "-" and input_format == "auto":
        yield from read_rows(path, columns)
        return
    with nullcontext(sys.stdin) if texts == "-" else open_text(path) as lines:
        for number, line in enumerate(lines):
            line = line.rstrip("\r\n")
            if input_format in ("auto", "lines"):
                yield {columns[0]: str(number), columns[1]: line}
            elif line.strip() and input_format == "jsonl":
                yield parse_json(line, path, number + 1)
            elif line.strip():
                name, tab, text = line.partition("\t")
                if not tab:
                    raise ValueError(f"{texts}, line {number + 1}: no tab; needed: an id, a tab and a text.")
                yield {columns[0]: name, columns[1]: text}


def _part(shard: str | None) -> tuple[int, int] | None:
    """Which part of how many `i/n` or `rank` says.

    >>> _part("1/4")
    (1, 4)
    """
    if shard is None:
        return None
    if shard == "rank":
        from ..pipeline.retrieval import process_rank

        return process_rank()
    at, slash, count = shard.partition("/")
    if not (slash and at.isdigit() and count.isdigit() and int(at) < int(count)):
        raise ValueError(f"shard={shard!r}; allowed: i/n with i from 0 to n - 1, such as 0/4, or rank.")
    return int(at), int(count)
