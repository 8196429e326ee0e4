"""Lightning modules: a bi-encoder or a cross-encoder, and how it scores a batch with gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..config import BiEncoderConfig, CrossEncoderConfig
from ..data.samples import RankBatch
from ..models import BiEncoderModel, CrossEncoderModel
from .across_ranks import gathered, gathered_ids
from .forward import TextVectors, encode, score_pairs
from .objectives import InBatchCrossEntropy
from .ranking_module import LossFunctions, RankingModule
from .scored import Loss, Scored
from .similarity import own_scores
from .token_memory import TokenMemory


class BiEncoderModule(RankingModule):
    """A bi-encoder to be trained.

    Args:
        model_name_or_path: a checkpoint, or a backbone alone.
        config: another configuration than the checkpoint's; its projection or scoring layer is kept where the
            configuration asks for such a one, else it is new.
        model: a loaded model instead.
        loss_functions: losses, or (loss, weight), or (loss, weight, schedule of the weight).
        evaluation_metrics: names that ir_measures knows, for validation.
        model_kwargs: of `BiEncoderModel.from_pretrained`.
        learning_rate, head_learning_rate, weight_decay: of AdamW, and of the layers on top of the backbone.
        schedule: of the learning rates.
        cached: gradient caching: memory of one group of texts, for a third more computation.
        group_tokens: most tokens of texts that are encoded at once; see `training.forward`.
        packed: whether texts stand one behind the other instead of being padded; on CUDA in bf16 or fp16, where one
            kernel attends within each text.  Attention weights have no dropout then.
        gradient_checkpointing: whether each layer of the backbone is computed again in the backward pass.
        lora: a `peft.LoraConfig`, or its arguments as a dict: the backbone's own weights stay as they are, its head's
            are trained, and what is saved has the adapters merged into the weights.
        compile: whether the backbone is compiled, or arguments of `torch.compile`.

    Raises:
        ImportError: for `lora=` without the package peft.
        TypeError: for another `lora=`.
        ValueError: if neither or both of a name and a model are given, and for `packed=True` with `compile=`, or with a
            model that runs padded.
    """

    MODEL, CONFIG = BiEncoderModel, BiEncoderConfig
    model: BiEncoderModel

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        config: BiEncoderConfig | None = None,
        model: BiEncoderModel | None = None,
        loss_functions: LossFunctions | None = None,
        evaluation_metrics: Sequence[str] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            model_name_or_path, config, model, loss_functions, evaluation_metrics, model_kwargs, **settings
        )
        of_queries, of_docs = self.model.tokenizers
        self.tokenize = TokenMemory(of_queries.encode), TokenMemory(of_docs.encode)

    def scored(self, batch: RankBatch) -> Scored:
        """See `RankingModule.scored`; vectors of all processes come together where losses look at other queries."""
        flat = [doc for own in batch.docs for doc in own]
        queries, docs = self._encoded(list(batch.queries), True), self._encoded(flat, False)
        targets, mask = _targets_and_mask(batch, queries[0].values.device)
        if mask is not None:
            docs = [one.spread(mask.flatten()) for one in docs]
        found = Scored(own_scores(queries, docs), targets, mask, queries, docs, batch.query_ids, batch.doc_ids,
                       texts=(batch.queries, flat))  # fmt: skip
        alone = not (distributed.is_available() and distributed.is_initialized())
        if not alone and any(_in_batch(loss) for loss, *_ in self.losses):
            found.others, found.other_ids = gathered(docs), gathered_ids(batch.doc_ids, len(docs[0]))
        return found

    def _encoded(self, texts: list[str], query: bool) -> list[TextVectors]:
        tokenize = self.tokenize[0 if query else 1]
        return encode(self.model, texts, query, self.cached, self.tokens, tokenize, self.packed)


class CrossEncoderModule(RankingModule):
    """A cross-encoder to be trained; arguments are those of `BiEncoderModule`.

    It is trained on its logits, before any activation of the checkpoint.
    """

    MODEL, CONFIG = CrossEncoderModel, CrossEncoderConfig
    model: CrossEncoderModel

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        config: CrossEncoderConfig | None = None,
        model: CrossEncoderModel | None = None,
        loss_functions: LossFunctions | None = None,
        evaluation_metrics: Sequence[str] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            model_name_or_path, config, model, loss_functions, evaluation_metrics, model_kwargs, **settings
        )
        tokenizer = self.model.tokenizer
        self.tokenize = TokenMemory(tokenizer.encode_queries), TokenMemory(tokenizer.encode_docs)

    def scored(self, batch: RankBatch) -> Scored:
        """See `RankingModule.scored`."""
        queries = list(batch.queries)
        flat = score_pairs(self.model, queries, batch.docs, self.cached, self.tokens, True, self.tokenize, self.packed)
        targets, mask = _targets_and_mask(batch, flat.device)
        return Scored(_in_rows(batch, flat), targets, mask, query_ids=batch.query_ids, doc_ids=batch.doc_ids)


def _in_batch(loss: Loss) -> bool:
    return isinstance(getattr(loss, "loss", loss), InBatchCrossEntropy)


def _targets_and_mask(batch: RankBatch, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """What the dataset says of each query's documents (Q, D), and which of them are there, None for all."""
    targets = getattr(batch, "targets", None)
    if targets is not None:
        flat = targets.amax(-1) if targets.ndim > 1 else targets  # the best of a document's subtopics
        targets = _in_rows(batch, flat.float()).to(device)
    lengths = torch.tensor([len(own) for own in batch.docs], device=device)
    there = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
    return targets, None if bool(there.all()) else there


def _in_rows(batch: RankBatch, flat: Tensor) -> Tensor:
    """Numbers of all documents one after another in a row for each query (Q, D), with zeros behind shorter lists."""
    return nn.utils.rnn.pad_sequence(list(flat.split([len(own) for own in batch.docs])), batch_first=True)
