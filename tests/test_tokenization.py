"""Joining ids gives what the tokenizer gives on the joined texts."""

from __future__ import annotations

import numpy as np
import pytest

from pyterrier_lir import BiEncoderConfig, CrossEncoderConfig
from pyterrier_lir.pair_tokenizer import PairTokenizer
from pyterrier_lir.text_tokenizer import TextTokenizer
from pyterrier_lir.tokenization import Ragged
from tests.tiny_checkpoints import qwen_tokenizer, roberta_tokenizer, wordpiece

PLAIN = {"query_length": None, "doc_length": None, "truncation": "longest_first"}


def single(tokenizer, **settings) -> TextTokenizer:  # type: ignore[no-untyped-def]
    return TextTokenizer(tokenizer, [BiEncoderConfig(**{"query_length": None, **settings})], query=True)


def joined(tokenizer: PairTokenizer, query: str, doc: str) -> tuple[list[int], list[int] | None]:
    batch = tokenizer.join(
        tokenizer.encode_queries([query]), tokenizer.encode_docs([doc]), np.array([0]), np.array([0]), pad_id=0
    )
    return batch.ids[0].tolist(), None if batch.types is None else batch.types[0].tolist()


@pytest.mark.parametrize("limit", [8, 9, 15, 16, 30])
@pytest.mark.parametrize("make", [wordpiece, roberta_tokenizer])
def test_longest_first_cuts_as_the_tokenizer_cuts(make, limit: int) -> None:  # type: ignore[no-untyped-def]
    library = make()
    ours = PairTokenizer(make(), CrossEncoderConfig(**PLAIN, max_length=limit), use_types=True)
    for query_words in range(0, 14, 2):
        for doc_words in range(0, 15, 2):
            query, doc = "sand " * query_words, "bread sea " * doc_words
            expected = library([query], [doc], truncation="longest_first", max_length=limit)
            ids, types = joined(ours, query, doc)
            assert ids == expected["input_ids"][0]
            assert types is None or types == expected["token_type_ids"][0]


@pytest.mark.parametrize("limit", [9, 16, 30])
def test_a_tokenizer_that_cuts_from_the_left_is_followed(limit: int) -> None:
    tokenizer = wordpiece()
    tokenizer.truncation_side = "left"
    query, doc = "rivers carry sand from the mountains", "measurement of rainfall in the northern mountains"
    for one, other in ((query, doc), (doc * 2, query), ("sand", doc)):
        expected = tokenizer([one], [other], truncation="longest_first", max_length=limit)
        ours = PairTokenizer(tokenizer, CrossEncoderConfig(**PLAIN, max_length=limit), use_types=True)
        assert joined(ours, one, other) == (expected["input_ids"][0], expected["token_type_ids"][0])
        alone = tokenizer(one, truncation=True, max_length=limit)["input_ids"]
        assert single(tokenizer, query_length=limit).encode([one]).values.tolist() == alone


def test_the_tail_is_cut_before_the_query_and_constants_stay() -> None:
    config = CrossEncoderConfig(
        query_length=None,
        doc_length=None,
        truncation="tail",
        max_length=9,
        template=("Query: {query}", " {doc}", " end"),
    )
    tokenizer = qwen_tokenizer()
    ours = PairTokenizer(tokenizer, config)
    head, body, end = (tokenizer(text)["input_ids"] for text in ("Query: sand", " sea" * 20, " end"))
    assert joined(ours, "sand", "sea" + " sea" * 19)[0] == [*head, *body[: 9 - len(head) - len(end)], *end]
    long = tokenizer("Query: " + "sand " * 30)["input_ids"]
    assert joined(ours, "sand " * 30, "sea")[0] == [*long[: 9 - len(end)], *end]


def test_separate_lengths_cut_each_text_and_tokenise_it_again() -> None:
    tokenizer = wordpiece()
    ours = PairTokenizer(tokenizer, CrossEncoderConfig(query_length=3, doc_length=4))
    query, doc = "rivers carry sand from the mountains", "measurement of rainfall in the northern mountains"
    cut = [tokenizer.decode(tokenizer(t, add_special_tokens=False)["input_ids"][:n]) for t, n in ((query, 3), (doc, 4))]
    assert joined(ours, query, doc)[0] == tokenizer([cut[0]], [cut[1]])["input_ids"][0]


def test_padding_and_truncation_inside_tokenizer_files_are_ignored() -> None:
    tokenizer = wordpiece()
    expected = tokenizer(["sand"], ["bread and sea"])["input_ids"][0]
    tokenizer.backend_tokenizer.enable_padding(length=128)
    tokenizer.backend_tokenizer.enable_truncation(4)
    assert joined(PairTokenizer(tokenizer, CrossEncoderConfig(**PLAIN)), "sand", "bread and sea")[0] == expected
    tokenizer.backend_tokenizer.enable_padding(length=128)
    assert single(tokenizer).encode(["sand"]).values.tolist() == wordpiece()("sand")["input_ids"]


def test_prompts_and_lengths_of_single_texts_follow_the_tokenizer() -> None:
    tokenizer = wordpiece()
    ours = single(tokenizer, query_prompt="query: ", query_length=7)
    texts = ["", "sand", "measurement of rainfall in the northern mountains"]
    expected = tokenizer([f"query: {text}" for text in texts], truncation=True, max_length=7)["input_ids"]
    rows = ours.encode(texts)
    assert [rows.values[a:b].tolist() for a, b in zip(rows.offsets, rows.offsets[1:])] == expected  # noqa: B905
    assert ours.prompt_length == 1 + len(tokenizer("query: ", add_special_tokens=False)["input_ids"])


def test_batches_of_many_texts_keep_their_order() -> None:
    tokenizer = single(wordpiece())
    texts = [f"sand {'bread ' * (i % 5)}" for i in range(5_000)]
    rows = tokenizer.encode(texts)
    for i in (0, 2_047, 2_048, 4_999):
        assert rows.values[rows.offsets[i] : rows.offsets[i + 1]].tolist() == wordpiece()(texts[i])["input_ids"]


def test_nothing_in_gives_nothing_out() -> None:
    assert single(wordpiece()).encode([]).lengths.tolist() == []
    assert Ragged.of([]).values.dtype == np.int32


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit_without_room_for_text_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        PairTokenizer(wordpiece(), CrossEncoderConfig(**PLAIN, max_length=limit))


def test_pairs_never_outgrow_the_backbones_positions() -> None:
    ours = PairTokenizer(wordpiece(), CrossEncoderConfig(query_length=30, doc_length=60), positions=64)
    assert len(joined(ours, "sand " * 40, "bread " * 80)[0]) == 64


def test_only_tokenizers_that_have_token_types_give_them() -> None:
    tokenizers = (
        PairTokenizer(make(), CrossEncoderConfig(**PLAIN), use_types=True) for make in (wordpiece, roberta_tokenizer)
    )
    types = [joined(tokenizer, "sand", "sea")[1] for tokenizer in tokenizers]
    assert types == [wordpiece()(["sand"], ["sea"])["token_type_ids"][0], None]


def test_no_pairs_join_into_an_empty_batch() -> None:
    ours = PairTokenizer(wordpiece(), CrossEncoderConfig(**PLAIN), use_types=True)
    none = np.empty(0, dtype=np.int64)
    batch = ours.join(ours.encode_queries([]), ours.encode_docs([]), none, none, pad_id=0)
    assert (batch.ids.shape, batch.lengths.shape) == ((0, 0), (0,))


def test_slots_inside_texts_and_instructions_stay_as_they_are() -> None:
    pieces = ("Judge: {instruction} Query: {query}", " {doc}")
    tokenizer = qwen_tokenizer()
    config = CrossEncoderConfig(**PLAIN, template=pieces, instruction="what {query} asks")
    ids = joined(PairTokenizer(tokenizer, config), "sand {doc} {query}", "sea {query}")[0]
    assert tokenizer.decode(ids) == "Judge: what {query} asks Query: sand {doc} {query} sea {query}"
