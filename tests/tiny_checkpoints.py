"""Tiny cross-encoders in every format that is read, and what they are made of: no download, no committed weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pyterrier_lir import CrossEncoderConfig, checkpoints
from pyterrier_lir.checkpoints import Checkpoint

SHARED = Path(__file__).parents[2] / "shared"
WIDTH = 32
SENTENCES = [
    "The re-ranker reads a query and a document together and writes one score.",
    "Rivers carry sand from the mountains down to the sea, year after year.",
    "A query about the measurement of rainfall in the northern mountains.",
    "What's the height of the tallest tower, e.g. at 3.5 km from the coast?",
    "Bread is baked from flour, water, salt and yeast in a very hot oven.",
    "Relevant: true or false, yes or no. Query: cats Document: dogs and other animals.",
    "Computers multiply matrices; most of their time goes into moving numbers around.",
    "Ein Haus am See, naïve café, über Straße und Brücke nach Łódź.",
]
LAYERS = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@cache
def wordpiece_file() -> str:
    """tokenizer.json: letters, and every second of the longer words, so that words are split too."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[INT]"]
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = sorted(
        {word for text in SENTENCES for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    )
    letters = sorted({letter for word in words for letter in word})
    tokens = [
        *special,
        *letters,
        *(f"##{letter}" for letter in letters),
        *(w for i, w in enumerate(words) if len(w) > 1 and (len(w) == 3 or i % 2)),
    ]
    backend = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $0 [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(backend.to_str())


def wordpiece() -> PreTrainedTokenizerFast:
    return transformers.BertTokenizerFast(
        tokenizer_object=Tokenizer.from_str(wordpiece_file()), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def byte_bpe(special: list[str], single: str, pair: str, **tokens: Any) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([*SENTENCES, *["yes", "no"] * 50], trainer)
    if single:
        ids = [(token, backend.token_to_id(token)) for token in special if token in pair.split()]
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    names = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "eos_token": "</s>"}
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    return byte_bpe(special, "<s> $0 </s>", "<s> $A </s> </s> $B </s>", unk_token="<unk>", model_max_length=64, **names)


def modernbert_tokenizer() -> PreTrainedTokenizerFast:
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return byte_bpe(
        ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[CLS] $0 [SEP]", "[CLS] $A [SEP] $B [SEP]", model_max_length=64, **names
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_bpe(special, "", "", pad_token="<|endoftext|>", eos_token="<|im_end|>", model_max_length=700)


def t5_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(12))]
    words = sorted({word.strip(".,;:?") for sentence in SENTENCES for word in sentence.split()} | {"true", "false"})
    letters = sorted({letter for sentence in SENTENCES for letter in sentence if letter != " "} | {"▁"})
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [("▁" + word, -3.0) for word in words] + [(letter, -9.0) for letter in letters]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    backend.normalizer = normalizers.Replace(pattern=" {2,}", content=" ")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="$0 </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def backbone(kind: str, tokenizer: PreTrainedTokenizerFast, head: str = "Model", **settings: Any) -> PreTrainedModel:
    """A randomly initialised model of a Hugging Face family, with weights large enough to tell texts apart."""
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        **LAYERS,
        **settings,
    }
    if kind == "T5":
        values = {"vocab_size": len(tokenizer), "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
                  "n_positions": 64, "decoder_start_token_id": 0, **settings}  # fmt: skip
    elif kind == "Qwen3":
        values |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024}
    elif kind == "ModernBert":
        values |= {"max_position_embeddings": 64, "local_attention": 8, "global_attn_every_n_layers": 2,
                   "cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}  # fmt: skip
    else:
        values |= {"max_position_embeddings": 66 if "Roberta" in kind else 64}
    model: PreTrainedModel = getattr(transformers, kind + head)(getattr(transformers, kind + "Config")(**values)).eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "norm" not in name.lower():
            nn.init.normal_(weight, std=0.15)
    return model


def save_classifier(folder: Path, kind: str, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> None:
    backbone(kind, tokenizer, "ForSequenceClassification", **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_language_model(folder: Path, kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    backbone(kind, tokenizer, "ForCausalLM" if kind != "T5" else "ForConditionalGeneration").save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_lightning_ir(
    folder: Path, kind: str, tokenizer: PreTrainedTokenizerFast, bert_pool: bool = False, **choices: Any
) -> None:
    """A folder as Lightning IR writes it: its own config.json over the backbone's, heads beside unprefixed weights."""
    config = CrossEncoderConfig(**{"query_length": 10, "doc_length": 24, **choices})
    model = backbone(kind, tokenizer)
    layers: list[nn.Module] = [nn.Linear(WIDTH, WIDTH), nn.Tanh()] if bert_pool else []
    layers.append(nn.Linear(WIDTH, 2 if config.scoring_strategy == "mono" else 1, bias=config.linear_bias))
    checkpoints.save(Checkpoint(config, model, tokenizer, nn.Sequential(*layers), "new"), folder)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def extra_token_template() -> dict[str, Any]:
    return {"depth": 5, "add_extra_token": True, "template": ("[CLS]", "[INT]", "{query}", "[SEP]", "{doc}", "[SEP]")}


CROSS_KINDS: dict[str, Callable[[Path], None]] = {
    "mono-bert": lambda f: save_lightning_ir(f, "Bert", wordpiece()),
    "mono-bert-pool": lambda f: save_lightning_ir(f, "Bert", wordpiece(), bert_pool=True, scoring_strategy="mono", linear_bias=True),
    "mono-bert-mean": lambda f: save_lightning_ir(f, "Bert", wordpiece(), pooling_strategy="mean", linear_bias=True),
    "mono-bert-max": lambda f: save_lightning_ir(f, "Bert", wordpiece(), pooling_strategy="max"),
    "mono-bert-sum": lambda f: save_lightning_ir(f, "Bert", wordpiece(), pooling_strategy="sum"),
    "mono-electra": lambda f: save_lightning_ir(f, "Electra", wordpiece()),
    "mono-roberta": lambda f: save_lightning_ir(f, "Roberta", roberta_tokenizer(), scoring_strategy="mono"),
    "mono-modernbert": lambda f: save_lightning_ir(f, "ModernBert", modernbert_tokenizer()),
    "mono-t5": lambda f: save_lightning_ir(f, "T5", t5_tokenizer(), scoring_strategy="mono"),
    "set-encoder": lambda f: save_lightning_ir(f, "Bert", wordpiece(), depth=5),
    "set-encoder-extra": lambda f: save_lightning_ir(f, "Electra", wordpiece(), **extra_token_template()),
    "bert-1": lambda f: save_classifier(f, "Bert", wordpiece(), num_labels=1),
    "bert-2": lambda f: save_classifier(f, "Bert", wordpiece(), num_labels=2),
    "electra-1": lambda f: save_classifier(f, "Electra", wordpiece(), num_labels=1, embedding_size=WIDTH),
    "roberta-1": lambda f: save_classifier(f, "Roberta", roberta_tokenizer(), num_labels=1),
    "xlm-roberta-1": lambda f: save_classifier(f, "XLMRoberta", roberta_tokenizer(), num_labels=1),
    "deberta-1": lambda f: save_classifier(f, "DebertaV2", wordpiece(), num_labels=1, relative_attention=True,
                                           pos_att_type=["p2c", "c2p"]),
    "modernbert-cls": lambda f: save_classifier(f, "ModernBert", modernbert_tokenizer(), num_labels=1, classifier_pooling="cls"),
    "modernbert-mean": lambda f: save_classifier(f, "ModernBert", modernbert_tokenizer(), num_labels=1, classifier_pooling="mean"),
    "qwen3-classifier": lambda f: save_classifier(f, "Qwen3", qwen_tokenizer(), num_labels=1),
    "monot5": lambda f: save_language_model(f, "T5", t5_tokenizer()),
    "qwen3-reranker": lambda f: save_language_model(f, "Qwen3", qwen_tokenizer()),
}  # fmt: skip
CROSS_ENCODERS = tuple(CROSS_KINDS)
POINTWISE = tuple(kind for kind in CROSS_ENCODERS if not kind.startswith("set-encoder"))
