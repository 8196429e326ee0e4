"""Losses over all documents of a batch, and over vectors: pure functions, each with its paper and equation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


def in_batch_cross_entropy(
    scores: Tensor, positives: Tensor, allowed: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Multiple negatives ranking (arXiv:1705.00652, equation 4): mean over positives of -log softmax(s / T).

    Args:
        scores: (Q, N) of each query with all documents of the batch.
        positives: (Q, P) or (Q,) columns of each query's positives, -1 for none; each is compared with the negatives
            alone.
        allowed: (Q, N) True for a query's negatives, None for all; positives are none.

    Raises:
        ValueError: if shapes do not fit.

    >>> scores = torch.tensor([[2.0, 1.0]])
    >>> in_batch_cross_entropy(scores, torch.tensor([[0]]), torch.tensor([[False, True]]))
    tensor(0.3133)
    """
    positives = positives[:, None] if positives.ndim == 1 else positives
    if scores.ndim != 2 or len(positives) != len(scores) or (allowed is not None and allowed.shape != scores.shape):
        shapes = [tuple(one.shape) for one in (scores, positives, allowed) if one is not None]
        raise ValueError(f"Scores, positives and allowed have the shapes {shapes}; they must have a row per query.")
    scores = _precise(scores) / temperature
    there = positives >= 0
    good = scores.gather(1, positives.clamp(min=0))
    is_good = torch.zeros_like(scores, dtype=torch.int8).scatter_reduce(
        1, positives.clamp(min=0), there.to(torch.int8), "amax"
    )
    negatives = is_good == 0 if allowed is None else allowed & (is_good == 0)
    against = scores.masked_fill(~negatives, -torch.inf).logsumexp(1, keepdim=True)
    losses = torch.logaddexp(good, against) - good
    return losses.masked_fill(~there, 0).sum() / there.sum().clamp(min=1)


def in_batch_negatives(
    targets: Tensor,
    doc_ids: Sequence[Sequence[str]] | None = None,
    query_ids: Sequence[str] | None = None,
    positives: Literal["all", "first"] = "first",
    negatives: Literal["all", "first", "all_and_non_first"] = "all_and_non_first",
    min_target_diff: float | None = None,
    max_negatives: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Which documents of a batch are a query's positives and negatives; document j of query i is column i * D + j.

    Documents that are known to be relevant are no negatives: those with the id of one of the query's positives, and
    those that stand with the same query elsewhere in the batch.

    Args:
        targets: (Q, D); larger is better, -inf for documents that are not there.
        doc_ids, query_ids: by which equal ones are known.
        positives: `first`, the document with the largest target, or `all` with a target above 0.
        negatives: `all` documents of other queries, the positives (`first`) of others, or `all_and_non_first`: those of
            others and the query's own that are no positives.
        min_target_diff: how far below the best the target of an own negative must lie.
        max_negatives: how many, drawn at random.
        generator: that draws them, on the targets' device; None for torch's own.

    Returns:
        columns of positives (Q, P), -1 for none, and True for negatives (Q, Q * D).

    Raises:
        ValueError: for NaN targets, and for other `positives` and `negatives`.

    >>> in_batch_negatives(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    (tensor([[0],
            [3]]), tensor([[False,  True,  True,  True],
            [ True,  True,  True, False]]))
    """
    if positives not in ("all", "first") or negatives not in ("all", "first", "all_and_non_first"):
        raise ValueError(
            f"positives={positives!r}, negatives={negatives!r}: choose all or first (or all_and_non_first)."
        )
    if bool(targets.isnan().any()):
        raise ValueError("Targets are NaN: the training data lacks a label or a teacher's score.")
    rows, width = targets.shape
    starts = torch.arange(rows, device=targets.device)[:, None] * width
    best = targets.argmax(1, keepdim=True)
    good = targets > 0 if positives == "all" else torch.zeros_like(targets, dtype=torch.bool).scatter(1, best, True)
    places = torch.arange(width, device=targets.device).expand(rows, -1)
    columns = torch.where(good, starts + places, -1) if positives == "all" else starts + best
    own = torch.zeros(rows, rows, width, dtype=torch.bool, device=targets.device)
    own[torch.arange(rows), torch.arange(rows)] = True
    if negatives == "all_and_non_first":
        hard = ~good
        if min_target_diff is not None:
            hard = hard & (targets.amax(1, keepdim=True) - targets >= min_target_diff)
        allowed = ~own | (own & hard[None])
    else:
        others = ~own
        allowed = others & torch.zeros_like(good).scatter(1, best, True)[None] if negatives == "first" else others
    allowed = allowed.view(rows, -1) & ~targets.isneginf().view(1, -1)
    allowed = allowed & ~_known(good, doc_ids, query_ids, width).to(allowed.device)
    if max_negatives is not None:
        lottery = torch.rand(allowed.shape, device=allowed.device, generator=generator).masked_fill(~allowed, -1)
        chosen = lottery.topk(min(max_negatives, allowed.shape[1]), dim=1).indices
        allowed = allowed & torch.zeros_like(allowed).scatter(1, chosen, True)
    return columns, allowed


def _known(
    good: Tensor, doc_ids: Sequence[Sequence[str]] | None, query_ids: Sequence[str] | None, width: int
) -> Tensor:
    """(Q, Q * D): documents that are known to be relevant, or to stand with the same query elsewhere."""
    rows = len(good)
    known = torch.zeros(rows, rows * width, dtype=torch.bool)
    if doc_ids is not None:
        flat = [one for own in doc_ids for one in (*own, *[""] * (width - len(own)))]
        for row, own in enumerate(good.cpu().tolist()):
            relevant = {flat[row * width + place] for place, is_good in enumerate(own) if is_good} - {""}
            known[row] = torch.tensor([one in relevant for one in flat])
    if query_ids is not None:
        numbers = {one: number for number, one in enumerate(dict.fromkeys(query_ids))}
        of = torch.tensor([numbers[one] for one in query_ids])
        same = (of[:, None] == of[None, :]) & ~torch.eye(rows, dtype=torch.bool)
        known |= same.repeat_interleave(width, dim=1)
    return known


def contrastive_local(similarities: Tensor, temperature: float = 1.0) -> Tensor:
    """One of a document's views shall answer the query (MVR, ACL 2022, equation 5): -log softmax(s / T) of the largest.

    Args:
        similarities: (..., V) of a query with the V vectors of a document.
    """
    flat = _precise(similarities).reshape(-1, similarities.shape[-1]) / temperature
    return nn.functional.cross_entropy(flat, flat.argmax(-1))


def flops(weights: Tensor) -> Tensor:
    """FLOPS (arXiv:2004.05665, equation 4): sum over terms of the squared mean absolute weight in texts (N, V).

    >>> flops(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    tensor(4.)
    """
    return _precise(weights).abs().mean(0).square().sum()


def l1(weights: Tensor) -> Tensor:
    """Mean over texts (N, V) of the sum of absolute weights."""
    return _precise(weights).abs().sum(-1).mean()


def l2(weights: Tensor) -> Tensor:
    """Mean over texts (N, V) of the length of the vector."""
    return _precise(weights).square().sum(-1).clamp(min=1e-20).sqrt().mean()


def embedding_mse(vectors: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of vectors to a teacher's of the same texts (arXiv:2004.09813); both (N, D)."""
    vectors, teacher = _of_one_shape(vectors, teacher)
    return nn.functional.mse_loss(vectors, teacher)


def embedding_cosine(vectors: Tensor, teacher: Tensor) -> Tensor:
    """1 minus the cosine of vectors and a teacher's of the same texts, mean over texts; both (N, D)."""
    vectors, teacher = _of_one_shape(vectors, teacher)
    return (1 - nn.functional.cosine_similarity(vectors, teacher, dim=-1)).mean()


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _of_one_shape(vectors: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if vectors.shape != teacher.shape:
        raise ValueError(f"Vectors have the shape {tuple(vectors.shape)} and the teacher's {tuple(teacher.shape)}.")
    return _precise(vectors), teacher.to(_precise(vectors))
