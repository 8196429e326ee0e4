"""Running an unmodified Hugging Face backbone: padded, packed without padding, or with lists that see each other.

Packed input is one row of all sequences behind each other; a registered attention function keeps them apart, so no
model code is changed.  The padded path is the reference.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from ..config import Kind
from ..tokenization import TokenBatch

PACKED, LISTWISE = "lir_packed", "lir_listwise"
# One layer's modules have the same names in all of these, and their classification heads read the first token.
BERT_LIKE = frozenset({"bert", "electra", "roberta", "xlm-roberta", "camembert"})
# Backbones of which packed input was compared with padded input; others run padded.
PACKABLE = BERT_LIKE | {"modernbert", "eurobert", "qwen2", "qwen3", "llama", "mistral"}
_POSITIONS_BEHIND_PAD = frozenset({"roberta", "xlm-roberta", "camembert"})


@dataclass
class Inputs:
    """A batch on its device.

    Attributes:
        ids: token ids, (B, T) padded or (1, total) packed.
        lengths: (B,) tokens of each sequence.
        mask: (B, T) True = counts; None where nothing is padded.
        types: token types, shaped as `ids`; None for backbones without.
        offsets: (B + 1,) int32, where sequences begin in packed ids; None for padded input.
        positions: (1, total) for packed input.
        longest: tokens of the longest sequence.
        groups: (B,) which list a row belongs to; None for pointwise models.
        kept: for outputs of numbers for single tokens: which of the batch's flattened tokens count.
    """

    ids: Tensor
    lengths: Tensor
    mask: Tensor | None
    longest: int
    types: Tensor | None = None
    offsets: Tensor | None = None
    positions: Tensor | None = None
    groups: Tensor | None = None
    kept: dict[Kind, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)


def to_device(batch: TokenBatch, device: torch.device, config: PretrainedConfig, packed: bool = False) -> Inputs:
    """Move a batch to `device`; in one copy each, without waiting for earlier work there."""
    columns = np.arange(batch.ids.shape[1])
    counts = columns < batch.lengths[:, None]
    seen = counts if batch.attended is None else columns < batch.attended[:, None]
    arrays: dict[str, Any] = {"ids": batch.ids.astype(np.int64), "lengths": batch.lengths, "groups": batch.groups}
    arrays["types"] = None if batch.types is None else batch.types.astype(np.int64)
    if packed:
        offsets = np.concatenate([[0], np.cumsum(batch.lengths)]).astype(np.int32)
        positions = _positions(batch.ids, counts, config)
        arrays |= {"offsets": offsets, "positions": positions[counts][None]}
        arrays |= {name: arrays[name][counts][None] for name in ("ids", "types") if arrays[name] is not None}
    arrays["mask"] = None if packed or seen.all() else seen
    kept: dict[Any, Any] = {
        kind: np.flatnonzero(chosen[counts] if packed else chosen) for kind, chosen in batch.counts.items()
    }
    arrays |= kept
    pin = device.type == "cuda"
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items() if array is not None
    }
    moved = {
        name: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=pin) for name, tensor in tensors.items()
    }
    fields: dict[str, Any] = {"mask": None, "kept": {kind: moved.pop(kind) for kind in kept}, **moved}
    return Inputs(longest=int(batch.lengths.max(initial=0)), **fields)


def _positions(
    ids: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], config: PretrainedConfig
) -> np.ndarray[Any, Any]:
    """Position ids as the backbone makes them: RoBERTa's start behind its padding id and skip padding tokens."""
    if config.model_type not in _POSITIONS_BEHIND_PAD:
        return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    pad = config.pad_token_id
    real = counts & (ids != pad)
    positions: np.ndarray[Any, Any] = np.cumsum(real, axis=1) * real + pad
    return positions


def states(backbone: PreTrainedModel, inputs: Inputs, interaction: int | None = None) -> Tensor:
    """Last hidden states, (B, T, H) or packed (1, total, H).

    Args:
        interaction: the token through which the documents of a list see each other; None for pointwise models.
    """
    output: Tensor = backbone(**arguments(backbone, inputs, interaction)).last_hidden_state
    return output


def arguments(backbone: PreTrainedModel, inputs: Inputs, interaction: int | None = None) -> dict[str, Any]:
    """Keyword arguments of the backbone's forward call."""
    given: dict[str, Any] = {"input_ids": inputs.ids, "attention_mask": inputs.mask}
    if inputs.types is not None:
        given["token_type_ids"] = inputs.types
    if "use_cache" in inspect.signature(backbone.forward).parameters:
        given["use_cache"] = False
    if inputs.offsets is not None:
        given |= {"position_ids": inputs.positions, "cu_seq_lens_q": inputs.offsets, "cu_seq_lens_k": inputs.offsets}
        given |= {"max_length_q": inputs.longest, "max_length_k": inputs.longest}
    if interaction is not None and inputs.groups is not None:
        same = inputs.groups[:, None] == inputs.groups[None, :]
        given["seen_rows"] = same & ~torch.eye(len(inputs), dtype=torch.bool, device=same.device)
        given |= {"interaction": interaction}
    return given


def wants_types(config: PretrainedConfig) -> bool:
    """Whether the backbone tells segments apart by token types."""
    return config.model_type == "funnel" or bool((getattr(config, "type_vocab_size", 0) or 0) > 1)


# Beside the backbones, not in them: a copy has a lock of its own, and locks are not pickled.
_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def lock_of(backbone: nn.Module) -> Any:
    """The lock that is held while a backbone is changed for a forward pass; models that share it share the lock."""
    return _LOCKS.setdefault(backbone, RLock())


@contextlib.contextmanager
def attention(backbone: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Run the backbone with another attention function, then with its own again; other threads wait for it."""
    with lock_of(backbone):
        before = backbone.config._attn_implementation
        if name is None or name == before:
            yield
            return
        backbone.set_attn_implementation(name)
        try:
            yield
        finally:
            backbone.set_attn_implementation(before)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int = 0,
    max_length_k: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence of a packed batch.

    query (1, heads, total_q, d), key and value (1, heads or fewer, total_k, d), offsets (B + 1,).
    Returns (1, total_q, heads, d).
    """
    assert cu_seq_lens_q is not None
    assert cu_seq_lens_k is not None
    causal = bool(getattr(module, "is_causal", False))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (total, heads, d)
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and varlen_attn is not None:
        # Hugging Face counts a window with its own token, the kernel without
        reach = -1 if sliding_window is None else sliding_window - 1
        grouped: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] and _VARLEN_TAKES_GQA else {}
        out: Any = varlen_attn(
            q,
            k,
            v,
            cu_seq_lens_q,
            cu_seq_lens_k,
            max_length_q,
            max_length_k,
            scale=scaling,
            window_size=(reach, 0 if causal else reach),
            **grouped,
        )
        return out[None], None
    q_parts, k_parts, v_parts = (
        x.split(offsets.diff().tolist()) for x, offsets in ((q, cu_seq_lens_q), (k, cu_seq_lens_k), (v, cu_seq_lens_k))
    )
    parts = [
        _attend(one, own_keys, own_values, causal, scaling, sliding_window)
        for one, own_keys, own_values in zip(q_parts, k_parts, v_parts, strict=True)
    ]
    return torch.cat(parts)[None], None


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, scaling: float | None, window: int | None) -> Tensor:
    """One sequence: q (Tq, heads, d), k and v (Tk, heads or fewer, d)."""
    mask = None
    if window is not None and len(q) == len(k):
        at = torch.arange(len(q), device=q.device)
        distance = at[:, None] - at[None, :]
        mask = (distance.abs() < window) & ((distance >= 0) | (not causal))
    out = scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        k.transpose(0, 1)[None],
        v.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=causal and mask is None,
        scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1)


def listwise_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    seen_rows: Tensor | None = None,
    interaction: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Set-Encoder attention (arXiv:2404.06912, section 3): each row also attends to one token of its list's other rows.

    query, key, value (B, heads, T, d); seen_rows (B, B) True = row i sees row j's interaction token.  The token's key
    and value are those of its own row at the same layer, so rows have no order.  Returns (B, T, heads, d).
    """
    assert seen_rows is not None
    rows, length = key.shape[0], key.shape[2]

    def with_others(own: Tensor) -> Tensor:
        others = own[:, :, interaction].transpose(0, 1)  # (heads, B, d)
        return torch.cat([own, others.expand(rows, *others.shape)], dim=2)

    if attention_mask is None:
        own_mask = seen_rows.new_ones(rows, 1, 1, length)
    else:
        own_mask = attention_mask[:, :, :1] if attention_mask.dtype == torch.bool else attention_mask[:, :, :1] >= 0
    mask = torch.cat([own_mask, seen_rows[:, None, None]], dim=-1)
    out = scaled_dot_product_attention(query, with_others(key), with_others(value), attn_mask=mask, scale=scaling)
    return out.transpose(1, 2), None


try:
    from torch.nn.attention.varlen import varlen_attn

    _VARLEN_TAKES_GQA = "enable_gqa" in inspect.signature(varlen_attn).parameters
except ImportError:  # a build of torch without it
    varlen_attn = None  # type: ignore[assignment]
    _VARLEN_TAKES_GQA = False

# Names must not contain "flash", "sdpa" or "flex_attention": transformers tests for these as substrings.
AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, lambda *args, **kwargs: None)
AttentionInterface.register(LISTWISE, listwise_attention)
AttentionMaskInterface.register(LISTWISE, sdpa_mask)
