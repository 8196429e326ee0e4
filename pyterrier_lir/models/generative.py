"""Language models that answer with a word: the state that speaks next, and the logits of the words that are read.

And encoder-decoders that answer with a label, behind the last token of their decoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from .backbone import Inputs, arguments


def first_decoder_state(backbone: PreTrainedModel, inputs: Inputs) -> Tensor:
    """The decoder's state at its first step, (B, 1, H): monoT5 and RankT5 read their score from it."""
    model: Any = backbone
    encoded = model.get_encoder()(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
    start = backbone.config.decoder_start_token_id
    start = backbone.config.pad_token_id if start is None else start
    first = torch.full((len(inputs), 1), start, device=inputs.ids.device)
    decoded: Tensor = model.get_decoder()(
        input_ids=first, encoder_hidden_states=encoded, encoder_attention_mask=inputs.mask, use_cache=False
    ).last_hidden_state
    return decoded


def last_states(backbone: PreTrainedModel, inputs: Inputs) -> Tensor:
    """States of a causal language model below its vocabulary, (B, T, H) or packed (1, total, H)."""
    model = backbone.base_model
    output: Tensor = model(**arguments(model, inputs)).last_hidden_state
    return output


def end_logits(backbone: PreTrainedModel, inputs: Inputs) -> Tensor:
    """Logits (B, labels) of an encoder-decoder's classification head, which reads the decoder's last end of sequence.

    transformers' own classes do the same, but refuse batches whose texts have `</s>` in them more or less often.
    """
    model: Any = backbone
    shifted = {"decoder_input_ids": model._shift_right(inputs.ids)} if hasattr(model, "_shift_right") else {}
    found = model.base_model(input_ids=inputs.ids, attention_mask=inputs.mask, use_cache=False, **shifted)
    columns = torch.arange(inputs.ids.shape[1], device=inputs.ids.device)
    last = ((inputs.ids == backbone.config.eos_token_id) * columns).argmax(1)
    rows = torch.arange(len(inputs), device=inputs.ids.device)
    logits: Tensor = model.classification_head(found.last_hidden_state[rows, last])
    return logits


def word_logits(backbone: PreTrainedModel, state: Tensor, token_ids: tuple[int, ...]) -> Tensor:
    """Logits of a few words, (B, H) -> (B, words), without multiplying by the rest of the vocabulary."""
    rows = torch.tensor(token_ids, device=state.device)
    output: Any = backbone.get_output_embeddings()
    if backbone.config.is_encoder_decoder and _scales_states(backbone):
        state = state * backbone.config.d_model**-0.5
    return linear(state, output.weight[rows], None if output.bias is None else output.bias[rows])


def _scales_states(backbone: PreTrainedModel) -> bool:
    """T5 scales states before output embeddings that are tied to the input's; mT5 and T5 1.1 do not."""
    tied = backbone.config.model_type == "t5" and backbone.config.tie_word_embeddings
    return bool(getattr(backbone.config, "scale_decoder_outputs", tied))
