"""LIRIndexer and LIRRetriever: a bi-encoder and an index in one."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pandas as pd
import pyterrier as pt

from ..columns import VECTOR_COLUMNS, transform_iter
from ..display import Drawn, chosen
from ..indexes import INDEXES, IndexUnion, LIRIndex, LIRSparseIndex, open_index
from ..indexes.building import Document, Plan, as_documents, build
from ..indexes.docnos import as_fields, as_names
from ..indexes.indexer import make_header
from ..indexes.retriever import Missing, check_model, checked, known
from ..indexes.storage import MODES, Mode
from ..indexes.texts import encoded
from ..vectors import Vectors
from .bi_encoder import LIRBiEncoder, similarity_of
from .model_transformer import kept, label
from .reranker import ranked
from .scoring import terms_of

if TYPE_CHECKING:
    from ..engine import Engine, Model
    from ..models import BiEncoderModel

_ENCODER = {field.name for field in dataclasses.fields(LIRBiEncoder) if field.init} - {"model"}
ModelName = "str | os.PathLike[str] | Model"


class LIRIndexer(Drawn, pt.Indexer):
    """Encodes documents with a bi-encoder and writes an index of the model's kind.

    Args:
        model: a hub id, a folder, or a loaded model.
        index: the folder of the index.
        mode: `create`, `overwrite`, `append`, or `resume` an interrupted build.
        include_fields: strings of the documents that are stored too, such as `text`.
        replace: with `append`, whether documents take the place of those that have their docno.
        shard: `(i, n)` indexes the i-th of n parts of the documents, to be joined with `LIRIndex.merge`; `"rank"` that
            of this process among those that torchrun, SLURM or Lightning's Fabric started.  The part is written to a
            folder of its own, which `folder` tells.
        shard_docs: a shard of the index ends with the batch that gives it at least so many documents, or enough bytes.
        verbose: show a progress bar.
        settings: of the encoder (see `LIRBiEncoder`, such as `text_field`, `device`, `doc_length`) and of the kind of
            index (such as `dtype`).

    Raises:
        FileExistsError, FileNotFoundError: if there is (no) index where the mode wants none (one).
        ValueError: for documents without docno or text, or a model with several outputs.

    >>> LIRIndexer("webis/splade", "msmarco.lir", doc_top_k=128)
    LIRIndexer('webis/splade', 'msmarco.lir', doc_top_k=128)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        index: str | os.PathLike[str],
        *,
        mode: Mode = "create",
        include_fields: Iterable[str] | str = (),
        replace: bool = False,
        shard: tuple[int, int] | Literal["rank"] | None = None,
        shard_docs: int = 262_144,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        self.model, self.index_path, self.mode = model, index, mode
        self.include_fields = as_fields(include_fields)
        self.replace, self.verbose = replace, verbose
        self.shard, self.shard_docs, self.settings = process_rank() if shard == "rank" else shard, shard_docs, settings
        if self.shard is not None and not 0 <= self.shard[0] < self.shard[1]:
            raise ValueError(f"shard={shard!r}; allowed: (i, n) with i from 0 to n - 1.")
        own = {name for kind in INDEXES.values() for name in kind.SETTINGS if name != "terms"}  # which the model tells
        if unknown := sorted(set(settings) - _ENCODER - own):
            near = difflib.get_close_matches(unknown[0], _ENCODER | own, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"LIRIndexer has no setting {', '.join(unknown)}; it has those of LIRBiEncoder, and of indexes "
                f"{', '.join(sorted(own))}.{hint}"
            )
        if mode not in MODES:
            raise ValueError(f"mode={mode!r}; allowed: {', '.join(map(repr, MODES))}.")
        encoder = {name: value for name, value in settings.items() if name in _ENCODER}
        self.encoder = LIRBiEncoder(model, **encoder)

    @property
    def folder(self) -> Path:
        """Where the index, or this process's part of it, is written."""
        path = Path(self.index_path)
        return path if self.shard is None else path.with_name(f"{path.name}.part-{self.shard[0]}-of-{self.shard[1]}")

    def index(self, iter: Iterable[Document] | pd.DataFrame, **kwargs: Any) -> LIRIndex:
        """Build the index and open it.

        Args:
            iter: documents with `docno` and the encoder's text field, as `dataset.get_corpus_iter()` gives them, or a
                data frame.
        """
        iter = as_documents(iter)
        engine = self.encoder.engine()
        model = cast("BiEncoderModel", engine.model)
        if len(model.kinds) > 1:
            raise ValueError(
                f"{model.source} has the outputs {', '.join(model.kinds)}; index each by itself, such as with "
                f"outputs=('{model.kinds[0]}',)."
            )
        index = _index_of(model)(self.folder)
        own = {name: value for name, value in self.settings.items() if name not in _ENCODER}
        if index.KIND == "sparse":
            own["terms"] = self.encoder.terms()
        header = make_header(
            index, model.config, model.size(model.kinds[0]), self.encoder.record(), self.include_fields, own
        )
        total = len(iter) if isinstance(iter, Sized) else None
        docs: Iterable[Document] = iter
        if self.shard is not None:
            at, parts = self.shard
            docs, total = islice(iter, at, None, parts), None if total is None else len(range(at, total, parts))
        plan = Plan(self.folder, self.mode, header, lambda folder: index._writer(folder, header), self.include_fields,
                    self.replace, self.shard_docs, total, self.verbose)  # fmt: skip
        build(plan, docs, lambda stream: self._encoded(engine, stream))
        index.reopen()
        return index

    def _encoded(self, engine: Engine, stream: Iterator[Document]) -> Iterator[tuple[list[Document], Vectors]]:
        """See `indexes.texts.encoded`; vectors are pruned as the settings say."""

        def vectors(texts: Iterator[str]) -> Iterator[Vectors]:
            for made in engine.stream(texts, query=False):
                [one] = self.encoder.pruned(made, query=False).values()
                yield one

        return encoded(stream, vectors, self.encoder.text_field)

    def index_inputs(self) -> list[list[str]]:
        """The columns that documents need."""
        return [["docno", self.encoder.text_field, *self.include_fields]]

    def _settings(self) -> tuple[Any, ...]:
        return (self.model, str(self.index_path), self.mode, self.include_fields, self.replace, self.shard,
                self.shard_docs, self.verbose, tuple(sorted(self.settings.items())))  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LIRIndexer) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def __repr__(self) -> str:
        return f"LIRIndexer({_arguments(self, self.model, self.index_path)})"

    def _label(self) -> str:
        return label(self.model)

    def facts(self) -> dict[str, Any]:
        """What the display tells: the model, the folder, the settings."""
        return {"index": str(self.folder), **_more(self), **self.encoder.facts(), **self.settings}


class LIRRetriever(Drawn, pt.Transformer):
    """Encodes queries with a bi-encoder and finds documents in an index.

    Queries come as text, or as vectors that were made before.  A frame that has documents already is scored from the
    stored vectors, without further documents.

    Args:
        model: the model that the index was made with.
        index: an index, or its folder; of several, their union is searched.
        engine: how to search: `exact`; for dense vectors `flat`, `ivf`, `ivfpq`, `pq`, `hnsw`, `rabitq` of FAISS; for
            sparse ones `seismic`, for multi-vector ones `plaid` and `fast-plaid`.
        num_results: most documents of a query; `retriever % 10` searches for 10.
        any_model: whether a model may search that is not the one the index was made with.
        docnos: search these documents only.
        where: search the documents only whose stored fields (strings) are so: a function from a frame with a column for
            each field to a mask, such as `lambda docs: docs["year"] >= "2020"`.
        include_fields: stored fields that are added to the results, such as `text`.
        missing: what is done with results whose documents the index does not hold: `error`, or `drop` them.
        options: of the engine, such as `{"efSearch": 200}`.
        verbose: show a progress bar.
        settings: of the encoder, see `LIRBiEncoder`.

    Raises:
        ValueError: at the first use, if the index is of another model or kind.

    >>> (LIRRetriever("webis/splade", "msmarco.lir") % 10).compile()
    LIRRetriever('webis/splade', 'msmarco.lir', num_results=10)
    """

    _fused = False  # with a cutoff, which cuts results that are scored too

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        index: str | os.PathLike[str] | LIRIndex | IndexUnion | Sequence[str | os.PathLike[str]],
        engine: str = "exact",
        *,
        num_results: int = 1_000,
        any_model: bool = False,
        docnos: Iterable[str] | None = None,
        where: Any = None,
        include_fields: Iterable[str] | str = (),
        missing: Missing = "error",
        verbose: bool = False,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.index, self.engine, self.num_results = model, index, engine, checked(num_results)
        self.any_model, self.where, self.verbose, self.options = any_model, where, verbose, options or {}
        self.docnos = None if docnos is None else as_names(docnos, "docnos")
        self.include_fields, self.missing = as_fields(include_fields), known(missing)
        if unknown := set(settings) - _ENCODER:
            raise TypeError(
                f"LIRRetriever has no setting {', '.join(sorted(unknown))}; those of engines go into options=dict(...)."
            )
        self.settings = settings
        self.encoder = LIRBiEncoder(model, **settings)
        self._retriever: Any = None

    def fuse_rank_cutoff(self, k: int) -> LIRRetriever | None:
        """`retriever % k` as a retriever of k documents, with the model and the index of this one."""
        if not 0 < k < self.num_results:
            return None
        fused = LIRRetriever(
            self.model, self.index, self.engine, num_results=k, any_model=self.any_model, docnos=self.docnos,
            where=self.where, include_fields=self.include_fields, missing=self.missing, verbose=self.verbose,
            options=self.options, **self.settings,
        )  # fmt: skip
        fused.encoder, fused._fused = self.encoder, True
        return fused

    transform_iter = transform_iter

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Find documents for queries; score those that are there."""
        query = self.encoder.query_field
        if inp.empty and {"qid", query} <= {*inp.columns}:
            return self._nothing(inp)
        with pt.validate.any(inp, context=self) as check:
            check.query_frame(extra_columns=[query], mode="text")
            check.result_frame(extra_columns=[query], mode="text")
            for kind in self._kinds():
                check.query_frame(extra_columns=[VECTOR_COLUMNS[kind][0]], mode=kind)
                check.result_frame(extra_columns=[VECTOR_COLUMNS[kind][0]], mode=kind)
        if inp.empty:
            return self._nothing(inp)
        column = VECTOR_COLUMNS[self._kinds()[0]][0]
        made = column not in inp.columns
        out = self.retriever()(self.encoder.query_encoder()(inp) if made else inp)
        added = [name for name in (column, f"{column}_toks") if name not in inp.columns]
        return cast("pd.DataFrame", out.drop(columns=[name for name in added if name in out.columns]))

    def _nothing(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The result of no rows, for which neither the model nor the index is opened."""
        docs = inp if "docno" in inp.columns else inp.assign(docno=pd.Series(dtype=object))
        out = ranked(docs.assign(score=pd.Series(dtype=float)))
        return out.assign(**{name: pd.Series(dtype=object) for name in self.include_fields})

    def _kinds(self) -> tuple[Any, ...]:
        """What vectors the queries need: those of the model, known without weights or the index."""
        return self.encoder.kinds()[:1]

    def retriever(self) -> Any:
        """The transformer that searches by vectors, once the model and the index are found to fit."""
        return kept(self, "_retriever", self._key(), self._opened)

    def _opened(self) -> Any:
        index = self.index if isinstance(self.index, IndexUnion) else open_index(self.index)
        model = cast("BiEncoderModel", self.encoder.engine().model)
        _check_model(index, model, self.any_model, self.encoder.token_ids)
        made = index.retriever(
            self.engine, num_results=self.num_results, any_model=self.any_model, docnos=self.docnos,
            where=self.where, include_fields=self.include_fields, missing=self.missing, verbose=self.verbose,
            options=self.options,
        )  # fmt: skip
        made._fused = self._fused
        return made

    def _key(self) -> tuple[Any, ...]:
        index = self.index if isinstance(self.index, (LIRIndex, IndexUnion)) else str(self.index)
        return (self.model, index, self.engine, self.num_results, self.any_model, self.docnos, self.where,
                self.include_fields, self.missing, self.verbose, tuple(sorted(self.options.items())),
                tuple(sorted(self.settings.items())))  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LIRRetriever) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_retriever": None}

    def __repr__(self) -> str:
        return f"LIRRetriever({_arguments(self, self.model, self.index)})"

    def _label(self) -> str:
        return label(self.model)

    def facts(self) -> dict[str, Any]:
        """What the display tells: the model, the index, the settings."""
        return {"index": self.index, "engine": self.engine, **_more(self), **self.encoder.facts()}


def _index_of(model: BiEncoderModel) -> type[LIRIndex]:
    """The class of index for the model's vectors."""
    return next(index for index in INDEXES.values() if model.kinds[0] == index.KIND)


def _check_model(index: LIRIndex | IndexUnion, model: BiEncoderModel, any_model: bool, token_ids: bool) -> None:
    if index.KIND not in model.kinds:
        raise ValueError(f"{index!r} holds {index.KIND} vectors; those of {model.source} are {', '.join(model.kinds)}.")
    if not any_model:
        check_model(index, str(model.source), model.fingerprint, similarity_of(model.config))
    for part in index.parts if isinstance(index, IndexUnion) else [index]:
        if isinstance(part, LIRSparseIndex):
            _check_names(part, model, token_ids)


def _check_names(index: LIRSparseIndex, model: BiEncoderModel, token_ids: bool) -> None:
    """Refuse terms that are named by strings in queries and by ids in the index, or the other way: nothing is found."""
    own, other = ({*terms_of(model, ids).names} for ids in (token_ids, not token_ids))
    names = {*index.terms.names}
    if names <= other and not names <= own:
        told = "token_ids=False, or leave it out" if token_ids else "token_ids=True"
        raise ValueError(
            f"{index!r} names its terms by {'strings' if token_ids else 'ids'}, other than these queries: give {told}."
        )


def process_rank() -> tuple[int, int]:
    """This process's number and the number of all, as torch.distributed, torchrun or SLURM tell them."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and world in os.environ:
            return int(os.environ[rank]), int(os.environ[world])
    raise ValueError(
        "shard='rank': this process was not started by torchrun or SLURM (no RANK, WORLD_SIZE), nor launched by "
        "Lightning; with Fabric, make the indexer behind fabric.launch()."
    )


def _arguments(transformer: Any, *first: Any) -> str:
    """The arguments that make an equal transformer, without those that are as by default."""
    shown = [repr(str(one) if isinstance(one, os.PathLike) else one) for one in first]
    return ", ".join([*shown, *(f"{name}={value!r}" for name, value in _more(transformer).items())])


def _more(transformer: Any) -> dict[str, Any]:
    """The settings that differ from their defaults."""
    return {**chosen(transformer, "model", "index"), **transformer.settings}
