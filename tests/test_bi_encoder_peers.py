"""Vectors and scores equal those of the libraries that checkpoints come from, and of the formulas of cards and papers."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, T5EncoderModel

from pyterrier_lir import BiEncoderConfig, BiEncoderModel, load_model
from pyterrier_lir.engine import Engine
from pyterrier_lir.vectors import TokenVectors
from tests import tiny_checkpoints as made
from tests.tiny_checkpoints import WIDTH, backbone, wordpiece, write_json

Tiny = Callable[[str], str]
Texts = tuple[list[str], list[str]]
SIDES = pytest.mark.parametrize("query", [True, False])
MERGE = pytest.mark.parametrize("merge", [True, False])
MEAN = BiEncoderConfig(query_length=64, doc_length=64)
unit = partial(torch.nn.functional.normalize, dim=-1)
TOKENIZERS = {"Roberta": "roberta", "ModernBert": "modernbert", "T5": "t5", "Qwen3": "qwen"}
PROMPTS = {"query": "query: ", "document": "the title of it ", "other": "Rivers and "}
SPARSE = ["sparse-encoder", "sparse-encoder-sum", "inference-free"]
LATE = ["pylate", "pylate-modernbert", "multi-vector-encoder", "multi-vector-encoder-min", "colbert"]
POOLINGS = ["cls", "mean", "max", "weightedmean", "lasttoken", "mean_sqrt_len_tokens"]
OTHERS = [("mean", "cls"), ("max", "mean"), "Qwen3 lasttoken left", "Qwen3 mean right", "Roberta weightedmean left",
          "ModernBert cls right", "T5 mean right", "DistilBert max right"]  # fmt: skip
BGE_M3 = ["", "dense", "sparse", "multi_vector", "sparse dense", "dense sparse multi_vector"]


def close(found: Any, expected: Any) -> None:
    """Equal in shape, and in numbers up to float32 rounding; lists of arrays one by one."""
    if isinstance(found, list):
        for one, other in zip(found, expected, strict=True):
            close(one, other)
        return
    found, expected = (np.asarray(values, dtype=np.float32) for values in (found, expected))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max(initial=0))))


def loaded(model: Any) -> Any:
    return model if isinstance(model, BiEncoderModel) else load_model(model)


def encode(model: Any, texts: list[str], query: bool, kind: str | None = None) -> Any:
    """Vectors of one output: an array, or for late interaction an array for each text."""
    encoded = Engine(loaded(model), device="cpu").encode(texts, query)
    vectors = next(found for name, found in encoded.items() if kind in (None, name))
    if isinstance(vectors, TokenVectors):
        return vectors.rows()
    return vectors if isinstance(vectors, np.ndarray) else vectors.toarray()


def score(model: Any, texts: Texts) -> Any:
    """Scores of every query with every document."""
    queries, docs = texts
    pairs = [q for q in queries for _ in docs], [d for _ in queries for d in docs]
    return Engine(loaded(model), device="cpu").score(*pairs).reshape(len(queries), len(docs))


def same(model: Any, peer: Any, texts: Texts, **options: Any) -> None:
    """Vectors and scores of queries and documents are the library's."""
    options = {"show_progress_bar": False, **options}
    vectors = peer.encode_query(texts[0], **options), peer.encode_document(texts[1], **options)
    close(encode(model, texts[0], query=True), vectors[0])
    close(encode(model, texts[1], query=False), vectors[1])
    close(score(model, texts), peer.similarity(*vectors))


def raw(into: Path, kind: str = "Bert", head: str = "Model", side: str = "right") -> str:
    """A backbone alone, in a folder."""
    tokenizer = getattr(made, f"{TOKENIZERS[kind]}_tokenizer")() if kind in TOKENIZERS else wordpiece()
    tokenizer.padding_side = side
    backbone(kind, tokenizer, "EncoderModel" if kind == "T5" else head).save_pretrained(into / "raw")
    tokenizer.save_pretrained(into / "raw")
    return str(into / "raw")


def dense(
    into: Path, pooling: Any = "mean", base: str = "", sizes: Sequence[int] = (), act: Any = None,
    include_prompt: bool = True, normalize: bool = False, lower: bool = False, **settings: Any,
) -> tuple[Any, str]:  # fmt: skip
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(3)
    modules: list[Any] = [Transformer(base or raw(into), do_lower_case=lower)]
    modules[0].max_seq_length = 24
    modules.append(Pooling(WIDTH, pooling, include_prompt=include_prompt))
    for size in sizes:
        width = modules[-1].get_embedding_dimension()
        modules.append(Dense(width, size, bias=size != 48, activation_function=act))
    modules += [Normalize()] if normalize else []
    library.SentenceTransformer(modules=modules, device="cpu", **settings).save_pretrained(str(into / "saved"))
    return library.SentenceTransformer(str(into / "saved"), device="cpu"), str(into / "saved")


def change(folder: str, **values: Any) -> None:
    path = Path(folder) / "config_sentence_transformers.json"
    write_json(path, json.loads(path.read_text()) | values)


@pytest.mark.parametrize("case", [*POOLINGS, *OTHERS], ids=str)
def test_dense_models_pool_as_sentence_transformers_does(case: Any, texts: Texts, tmp_path: Path) -> None:
    kind, pooling, side = case.split() if " " in case else ("Bert", case, "right")
    peer, folder = dense(tmp_path, pooling, raw(tmp_path, kind, side=side), lower=kind == "Roberta")
    # without special tokens an empty text has no token at all: its vector is 0 there, and that of padding here
    same(folder, peer, (texts[0], [doc for doc in texts[1] if doc or kind != "Qwen3"]))


@pytest.mark.parametrize("act", [None, torch.nn.Tanh(), torch.nn.GELU()], ids=str)
@pytest.mark.parametrize("pooling", ["mean", ("cls", "max")], ids=str)
def test_layers_follow_the_pooling(act: Any, pooling: Any, texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path, pooling, sizes=(48, 16), act=act, normalize=True)
    same(folder, peer, texts)


@pytest.mark.parametrize("function", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize(("normalize", "cut"), [(False, ""), (False, "option"), (True, "option"), (True, "file")])
def test_cut_vectors_compare(function: str, normalize: bool, cut: str, texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path, normalize=normalize, similarity_fn_name=function)
    if cut == "file":
        change(folder, truncate_dim=8)  # which the library does not write, and takes as an argument only
    model = loaded(folder).with_options(embedding_dim=8 if cut == "option" else None)
    assert model.config.similarity_function == {"euclidean": "l2"}.get(function, function)
    same(model, peer, texts, truncate_dim=8 if cut else None)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("include", [True, False])
def test_prompts_may_not_be_pooled(pooling: str, include: bool, texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path, pooling, prompts=PROMPTS, include_prompt=include)
    same(folder, peer, texts)
    other = loaded(folder).with_options(query_prompt_name="other", doc_prompt_name="other")
    expected = peer.encode(texts[1], prompt_name="other", show_progress_bar=False)
    for query in (True, False):
        close(encode(other, texts[1], query), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_without_a_prompt_every_token_is_pooled(pooling: str, texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path, pooling, prompts={"query": "query: "}, include_prompt=False)
    same(folder, peer, texts)  # documents have no prompt, and keep their first token


def test_the_default_prompt_is_neither_the_queries_nor_the_documents(texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path, prompts={"other": "Rivers and "}, default_prompt_name="other")
    same(folder, peer, texts)  # the library saved empty prompts for both sides
    change(folder, prompts={"other": "Rivers and "})  # older folders
    same(folder, type(peer)(folder, device="cpu"), texts)
    chosen = loaded(folder).with_options(query_prompt_name="other")  # the library has it in `encode` alone
    close(encode(chosen, texts[1], query=True), peer.encode(texts[1], show_progress_bar=False))


SETTINGS: dict[str, dict[str, Any]] = {
    "lengths": {"max_seq_length": 9},
    "lower case": {"max_seq_length": 24, "do_lower_case": True},
    "config_args": {"config_args": {"hidden_act": "relu", "trust_remote_code": True}},
    "config_kwargs": {"config_kwargs": {"hidden_act": "relu"}},
    "tokenizer_args": {"tokenizer_args": {"model_max_length": 9, "do_lower_case": False}, "max_seq_length": 24},
    "processor_kwargs": {"processor_kwargs": {"model_max_length": 9, "truncation_side": "left"}},
    "model_args": {"model_args": {"attn_implementation": "eager"}},
    "processing_kwargs": {"processing_kwargs": {"text": {"max_length": 9, "padding": True}}, "max_seq_length": 24},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_the_transformers_settings_apply(case: str, texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path)
    write_json(Path(folder) / "sentence_bert_config.json", SETTINGS[case])
    same(folder, type(peer)(folder, device="cpu"), texts)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_transformers_settings_have_older_names(name: str, texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path, lower=True)
    (Path(folder) / "sentence_bert_config.json").unlink()
    write_json(Path(folder) / f"sentence_{name}_config.json", {"max_seq_length": 9, "do_lower_case": True})
    assert loaded(folder).config.doc_length == 9
    same(folder, type(peer)(folder, device="cpu"), texts)


@pytest.mark.parametrize("prompts", [{}, PROMPTS], ids=["plain", "prompts"])
def test_a_tokenizer_that_cuts_from_the_left_keeps_the_ends(prompts: Any, texts: Texts, tmp_path: Path) -> None:
    peer, folder = dense(tmp_path, prompts=prompts)
    path = Path(folder) / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text()) | {"truncation_side": "left"})
    again = type(peer)(folder, device="cpu")
    assert not np.allclose(again.encode(texts[1][-1]), peer.encode(texts[1][-1]))
    same(folder, again, texts)


@pytest.mark.parametrize("kind", [*SPARSE, *LATE])
def test_sparse_and_late_models_are_the_librarys(kind: str, tiny: Tiny, texts: Texts, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = tmp_path / "model"
    shutil.copytree(tiny(kind), folder)
    if (folder / "modules.json").exists():  # the library wants names
        modules = json.loads((folder / "modules.json").read_text())
        write_json(folder / "modules.json", [{**module, "idx": i, "name": str(i)} for i, module in enumerate(modules)])
    if kind in SPARSE:
        same(folder, library.SparseEncoder(str(folder), device="cpu"), texts, convert_to_sparse_tensor=False)
        return
    if "pylate" in kind:  # PyLate takes white space off both ends, and so does the package; this library does not
        texts = [text.strip() for text in texts[0]], [text.strip() for text in texts[1]]
    same(folder, library.MultiVectorEncoder(str(folder), device="cpu"), texts)


def test_a_colberts_squared_distances_order_documents_as_products_do(tiny: Tiny, texts: Texts, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("colbert"), folder)
    values = json.loads((folder / "artifact.metadata").read_text()) | {"similarity": "l2"}
    write_json(folder / "artifact.metadata", values)
    queries, docs = encode(folder, texts[0], query=True), encode(folder, texts[1], query=False)
    squared = [[float((-torch.cdist(torch.tensor(q), torch.tensor(d)).square()).amax(1).sum()) if len(d) else -2.0 * len(q)
                for d in docs] for q in queries]  # fmt: skip
    tokens = np.array([[len(q)] for q in queries])
    close((np.array(squared) + 2 * tokens) / 2, score(folder, texts))


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("table", [None, "weights", "json"])
def test_saved_sparse_encoders(strategy: Any, activation: Any, table: str | None, texts: Texts, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    modules: list[Any] = [Transformer(raw(tmp_path, head="ForMaskedLM"), transformer_task="fill-mask")]
    modules.append(SpladePooling(strategy, activation_function=activation))
    if table is not None:
        tokenizer, path = modules[0].tokenizer, tmp_path / "idf.json"
        write_json(path, {token: 0.1 + i % 5 for token, i in tokenizer.get_vocab().items() if i % 3})
        static = SparseStaticEmbedding(tokenizer, torch.rand(len(tokenizer)))
        query = SparseStaticEmbedding.from_json(str(path), tokenizer=tokenizer) if table == "json" else static
        modules = [Router.for_query_document(query_modules=[query], document_modules=modules)]
    library.SparseEncoder(modules=modules, device="cpu").save_pretrained(str(tmp_path / "saved"))
    peer = library.SparseEncoder(str(tmp_path / "saved"), device="cpu")
    same(tmp_path / "saved", peer, texts, convert_to_sparse_tensor=False)


@pytest.mark.parametrize("table", [False, True])
def test_sparse_encoders_keep_as_many_terms_as_they_say(table: bool, texts: Texts, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    modules: list[Any] = [Transformer(raw(tmp_path, head="ForMaskedLM"), transformer_task="fill-mask"), SpladePooling()]
    if table:
        tokenizer = modules[0].tokenizer
        query = SparseStaticEmbedding(tokenizer, torch.rand(len(tokenizer)))
        modules = [Router.for_query_document(query_modules=[query], document_modules=modules)]
    library.SparseEncoder(modules=modules, device="cpu", max_active_dims=3).save_pretrained(str(tmp_path / "saved"))
    peer = library.SparseEncoder(str(tmp_path / "saved"), device="cpu")
    same(tmp_path / "saved", peer, texts, convert_to_sparse_tensor=False)
    assert (encode(tmp_path / "saved", texts[0], query=True) > 0).sum(1).max() == 3
    loaded(tmp_path / "saved").save_pretrained(tmp_path / "again")
    same(tmp_path / "again", peer, texts, convert_to_sparse_tensor=False)


EXPANSIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "lengths": {"query_length": 8, "document_length": 16},
    "fixed": {"query_expansion": {"strategy": "fixed", "length": 12, "attend": False}},
    "fixed, attended": {"query_expansion": {"strategy": "fixed", "length": 12, "attend": True}},
    "least, attended": {"query_expansion": {"strategy": "min", "length": 12, "attend": True}, "query_length": 20},
}


@pytest.mark.parametrize("case", EXPANSIONS)
def test_multi_vector_encoders_without_a_mask_leave_no_token_out(case: str, texts: Texts, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer

    if not hasattr(library, "MultiVectorEncoder"):
        pytest.skip("sentence-transformers before version 6")
    names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    modules = [
        Transformer(raw(tmp_path), **EXPANSIONS[case]),
        Dense(WIDTH, 8, bias=False, activation_function=torch.nn.Identity(), **names),
        Normalize(module_input_name="token_embeddings"),
    ]
    library.MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(tmp_path / "saved"))
    same(tmp_path / "saved", library.MultiVectorEncoder(str(tmp_path / "saved"), device="cpu"), texts)


def parts(folder: Any, auto: Any = AutoModel) -> tuple[Any, Any]:
    return auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def states(model: Any, tokenizer: Any, texts: list[str], length: int = 64) -> list[tuple[Tensor, Tensor]]:
    """For each text alone: its token ids (T,), and the model's logits or last hidden states (T, ...)."""
    ids = [tokenizer(t, truncation=True, max_length=length, return_tensors="pt")["input_ids"] for t in texts]
    return [(row[0], model(input_ids=row)[0][0]) for row in ids]


def max_sim(queries: list[Tensor], docs: list[Tensor], mean: bool = False) -> Tensor:
    best = [[(q @ d.T).amax(1) for d in docs] for q in queries]
    return torch.tensor([[float(one.mean() if mean else one.sum()) for one in row] for row in best])


def splade(folder: Any, texts: list[str]) -> Tensor:
    """The largest log(1 + relu(logit)) of each term (arXiv:2109.10086, equation 2)."""
    found = states(*parts(folder, AutoModelForMaskedLM), texts)
    return torch.stack([torch.log(1 + torch.relu(logits)).amax(0) for _, logits in found])


@pytest.mark.parametrize("kind", ["naver-splade", "naver-splade-distilbert"])
def test_a_masked_language_model_is_navers_splade(kind: str, tiny: Tiny, texts: Texts) -> None:
    for query in (True, False):
        close(encode(tiny(kind), texts[1], query), splade(tiny(kind), texts[1]))


@pytest.mark.parametrize("legacy", [True, False])
def test_both_heads_of_deberta_are_read(legacy: bool, texts: Texts, tmp_path: Path) -> None:
    tokenizer, folder = wordpiece(), tmp_path / "splade"
    settings = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "legacy": legacy}
    model = backbone("DebertaV2", tokenizer, "ForMaskedLM", **settings)
    bias = model.cls.predictions.bias if legacy else model.lm_predictions.lm_head.bias
    torch.nn.init.normal_(bias)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    close(encode(folder, texts[1], query=False), splade(folder, texts[1]))
    loaded(folder).save_pretrained(tmp_path / "saved")
    close(encode(tmp_path / "saved", texts[1], query=False), splade(folder, texts[1]))


@pytest.mark.parametrize("version", ["", "doc-v1", "doc-v2-distill", "doc-v3-distill"])
def test_opensearch_models_are_those_of_their_cards(version: str, tiny: Tiny, texts: Texts, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("opensearch"), folder)
    name = f"opensearch-project/opensearch-neural-sparse-encoding-{version}"
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"_name_or_path": name})
    tokenizer, idf = AutoTokenizer.from_pretrained(folder), json.loads((folder / "idf.json").read_text())
    docs, queries = splade(folder, texts[1]), torch.zeros(len(texts[0]), len(tokenizer))
    if "v3" in version:
        docs = torch.log(1 + docs)
    for row, text in zip(queries, texts[0], strict=True):
        for token in tokenizer(text, truncation=True, max_length=64).tokens():
            row[tokenizer.convert_tokens_to_ids(token)] = idf[token]
    for vectors in (queries, docs):
        vectors[:, tokenizer.convert_tokens_to_ids([*tokenizer.special_tokens_map.values()])] = 0
    close(encode(folder, texts[1], query=False), docs)
    close(encode(folder, texts[0], query=True), queries)
    close(score(folder, texts), queries @ docs.T)


def bge_m3(folder: str, texts: list[str]) -> dict[str, list[Tensor]]:
    """FlagEmbedding's dense vectors, weights of terms, and vectors of the tokens behind the first."""
    model, tokenizer = parts(folder)
    sparse, colbert = (torch.load(f"{folder}/{name}_linear.pt") for name in ("sparse", "colbert"))
    out: dict[str, list[Tensor]] = {"dense": [], "sparse": [], "multi_vector": []}
    for ids, hidden in states(model, tokenizer, texts):
        terms = torch.zeros(model.config.vocab_size)
        for token, weight in zip(ids, torch.relu(hidden @ sparse["weight"][0] + sparse["bias"]), strict=True):
            terms[token] = max(terms[token], weight)
        terms[[tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]] = 0
        out["dense"].append(unit(hidden[0]))
        out["sparse"].append(terms)
        out["multi_vector"].append(unit(hidden[1:] @ colbert["weight"].T + colbert["bias"]))
    return out


@pytest.mark.parametrize("outputs", BGE_M3)
def test_bge_m3_makes_what_is_asked_for_as_flagembedding_does(outputs: str, tiny: Tiny, texts: Texts) -> None:
    model = BiEncoderModel.from_pretrained(tiny("bge-m3"), outputs=outputs.split())
    assert model.kinds == (outputs.split() or ["dense"])
    queries, docs = (bge_m3(tiny("bge-m3"), side) for side in texts)
    total = torch.zeros(len(texts[0]), len(texts[1]))
    for kind in model.kinds:
        late, (left, right) = kind == "multi_vector", (queries[kind], docs[kind])
        close(encode(model, texts[1], False, kind), right if late else torch.stack(right))
        total += max_sim(left, right, mean=True) if late else torch.stack(left) @ torch.stack(right).T
    close(score(model, texts), total)


@SIDES
def test_unicoil_adds_up_repeated_terms_of_queries_alone(query: bool, tiny: Tiny, texts: Texts) -> None:
    state, tokenizer = torch.load(f"{tiny('unicoil-castorini')}/pytorch_model.bin"), wordpiece()
    model, prefix = backbone("Bert", tokenizer), "coil_encoder.bert."
    model.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    weight, bias = (state[f"coil_encoder.tok_proj.{name}"] for name in ("weight", "bias"))
    expected, found = torch.zeros(12, len(tokenizer)), states(model, tokenizer, texts[1], length=64)
    for row, (ids, hidden) in zip(expected, found, strict=True):
        for token, value in zip(ids, torch.relu(hidden @ weight[0] + bias), strict=True):
            row[token] = row[token] + value if query else max(row[token], value)
    expected[:, [tokenizer.cls_token_id, tokenizer.pad_token_id]] = 0  # Pyserini's encoders drop no others
    close(encode(tiny("unicoil-castorini"), texts[1], query), expected)


def test_xtr_projects_every_token_of_a_t5_encoder(tiny: Tiny, texts: Texts) -> None:
    model, tokenizer = parts(tiny("xtr"), T5EncoderModel)
    weight = torch.load(f"{tiny('xtr')}/2_Dense/pytorch_model.bin")["linear.weight"]
    queries = [unit(hidden @ weight.T) for _, hidden in states(model, tokenizer, texts[0], length=32)]
    docs = [unit(hidden @ weight.T) for _, hidden in states(model, tokenizer, texts[1], length=512)]
    close(encode(tiny("xtr"), texts[0], query=True), queries)
    close(encode(tiny("xtr"), texts[1], query=False), docs)
    close(score(tiny("xtr"), texts), max_sim(queries, docs, mean=True))


def adapted(model: Any, into: Path) -> Any:
    """A model with a LoRA adapter that looks trained, which is saved in `into`."""
    peft = pytest.importorskip("peft")
    chosen = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], lora_dropout=0.1)
    if hasattr(model, "encode"):  # of sentence-transformers
        model.add_adapter(chosen)
    else:
        model = peft.get_peft_model(model, chosen).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(str(into))
    return model


@MERGE
@pytest.mark.parametrize("kind", ["dense", "backbone"])
def test_adapters_of_backbones(kind: str, merge: bool, tiny: Tiny, texts: Texts, tmp_path: Path) -> None:
    model, tokenizer = parts(tiny("dense") if kind == "dense" else raw(tmp_path))
    means = torch.stack([hidden.mean(0) for _, hidden in states(model, tokenizer, texts[1])])
    wrapped = adapted(model, tmp_path / "lora")
    expected = torch.stack([hidden.mean(0) for _, hidden in states(wrapped, tokenizer, texts[1])])
    assert (expected - means).abs().max() > 0.01
    ours = BiEncoderModel.from_pretrained(tmp_path / "lora", config=MEAN, merge_adapter=merge)
    close(encode(ours, texts[1], query=False), expected)


@MERGE
def test_adapters_of_masked_language_models_keep_the_head(merge: bool, texts: Texts, tmp_path: Path) -> None:
    model, tokenizer = parts(raw(tmp_path, head="ForMaskedLM"), AutoModelForMaskedLM)
    wrapped = adapted(model, tmp_path / "lora")
    expected = torch.stack([logits.amax(0).relu().log1p() for _, logits in states(wrapped, tokenizer, texts[1])])
    ours = BiEncoderModel.from_pretrained(tmp_path / "lora", config=BiEncoderConfig.splade(), merge_adapter=merge)
    close(encode(ours, texts[1], query=False), expected)


@MERGE
def test_adapters_trained_under_a_head_reach_the_backbone(merge: bool, texts: Texts, tmp_path: Path) -> None:
    model, tokenizer = parts(raw(tmp_path, head="ForMaskedLM"), AutoModelForMaskedLM)
    encoder = adapted(model, tmp_path / "lora").base_model.model.bert
    expected = torch.stack([hidden.mean(0) for _, hidden in states(encoder, tokenizer, texts[1])])
    ours = BiEncoderModel.from_pretrained(tmp_path / "lora", config=MEAN, merge_adapter=merge)
    close(encode(ours, texts[1], query=False), expected)


@MERGE
def test_adapters_saved_by_sentence_transformers(merge: bool, texts: Texts, tmp_path: Path) -> None:
    peer = adapted(dense(tmp_path, "cls", normalize=True)[0], tmp_path / "lora")
    assert (tmp_path / "lora" / "adapter_config.json").is_file()
    same(BiEncoderModel.from_pretrained(tmp_path / "lora", merge_adapter=merge), peer, texts)


def new(into: Path, config: BiEncoderConfig, texts: Texts, *base: str) -> tuple[BiEncoderModel, Any, Any, Any]:
    """A new model that scores the same when it was saved and read again; its backbone, tokenizer and last layer."""
    model = BiEncoderModel.from_pretrained(raw(into, *base), config=config)
    model.save_pretrained(into / "saved")
    close(score(into / "saved", texts), score(model, texts))
    head = model.checkpoint().head
    return model, model.backbone, model.tokenizers[0].tokenizer, head[-1] if len(head) else None


@pytest.mark.parametrize("kind", ["Bert", "Electra"])
def test_a_new_colbert_marks_fills_and_projects(kind: str, texts: Texts, tmp_path: Path) -> None:
    config = BiEncoderConfig.colbert(embedding_dim=16, query_length=20)
    model, encoder, tokenizer, linear = new(tmp_path, config, texts, kind)
    assert linear.weight.shape == (16, WIDTH)
    assert linear.bias is None
    signs = {*tokenizer.convert_tokens_to_ids(list(string.punctuation))} - {tokenizer.unk_token_id}
    for query, side, length, marker in ((True, texts[0], 20, "[QUE]"), (False, texts[1], 64, "[DOC]")):
        expected = []
        for text in side:
            ids = tokenizer(text, truncation=True, max_length=length - 1)["input_ids"]
            ids.insert(1, tokenizer.convert_tokens_to_ids(marker))
            masks = [tokenizer.mask_token_id] * (length - len(ids) if query else 0)
            seen = torch.tensor([[1] * len(ids) + [0] * len(masks)])
            with torch.no_grad():
                vectors = unit(linear(encoder(torch.tensor([ids + masks]), attention_mask=seen).last_hidden_state[0]))
            expected.append(vectors if query else vectors[[i not in signs for i in ids]])
        close(encode(model, side, query), expected)


def test_new_token_vectors_are_projected_and_no_more(texts: Texts, tmp_path: Path) -> None:
    none: dict[str, Any] = {"query_pooling_strategy": None, "doc_pooling_strategy": None}
    config = BiEncoderConfig(similarity_function="dot", **none, embedding_dim=8)
    model, encoder, tokenizer, linear = new(tmp_path, config, texts)
    assert linear.weight.shape == (8, WIDTH)
    queries = [linear(hidden).detach() for _, hidden in states(encoder, tokenizer, texts[0], 32)]
    docs = [linear(hidden).detach() for _, hidden in states(encoder, tokenizer, texts[1])]
    close(encode(model, texts[1], query=False), docs)
    close(score(model, texts), max_sim(queries, docs))


@pytest.mark.parametrize("kind", ["Bert", "ModernBert", "T5"])
@pytest.mark.parametrize("size", [None, 12])
def test_a_new_dense_model_pools_and_projects(kind: str, size: int | None, texts: Texts, tmp_path: Path) -> None:
    config = BiEncoderConfig(embedding_dim=size, doc_length=64)
    model, encoder, tokenizer, linear = new(tmp_path, config, texts, kind)
    assert (linear is None) == (size is None)
    expected = torch.stack([hidden.mean(0) for _, hidden in states(encoder, tokenizer, texts[1])])
    close(encode(model, texts[1], query=False), expected if linear is None else linear(expected).detach())


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "ModernBert", "DistilBert", "Electra"])
def test_a_new_splade_has_the_head_of_its_masked_language_model(kind: str, texts: Texts, tmp_path: Path) -> None:
    model, *_ = new(tmp_path, BiEncoderConfig.splade(), texts, kind, "ForMaskedLM")
    close(encode(model, texts[1], query=False), splade(tmp_path / "raw", texts[1]))


@pytest.mark.parametrize("kind", ["Bert", "ModernBert"])
def test_a_new_splade_without_a_head_decodes_by_its_embeddings(kind: str, texts: Texts, tmp_path: Path) -> None:
    model, encoder, tokenizer, decoder = new(tmp_path, BiEncoderConfig.splade(), texts, kind)
    embeddings = encoder.get_input_embeddings().weight
    assert decoder.weight is embeddings
    logits = [(hidden @ embeddings.T).amax(0) for _, hidden in states(encoder, tokenizer, texts[1])]
    close(encode(model, texts[1], query=False), torch.stack(logits).relu().log1p().detach())
