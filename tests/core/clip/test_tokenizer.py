import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.clip.tokenizer import OpenClipTokenizer, WordTokenizer, tokenizer_from_json
from ovseg_cli.core.errors import UsageError


def test_ids_by_hand():
    tokenizer = WordTokenizer(["a", "cat"], context_length=6, reserve=3)
    # 0 padding, 1 a, 2 cat, 3 to 5 places for unknown words, 6 start, 7 end
    assert tokenizer(["A cat."]).tolist() == [[6, 1, 2, 7, 0, 0]]
    assert tokenizer.vocab_size == 8 and tokenizer.eot == 7


def test_end_of_text_is_the_highest_id_so_that_pooling_finds_it():
    tokenizer = WordTokenizer(["a", "cat"], 8)
    ids = tokenizer(["a cat", "zebra", ""])
    assert ids.argmax(1).tolist() == [3, 2, 1]
    assert int(ids.max()) == tokenizer.eot == tokenizer.vocab_size - 1


def test_distinct_unknown_words_never_share_an_id():
    tokenizer = WordTokenizer(["a"], 4, reserve=40)
    words = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(8) for j in range(5)]  # as many as places
    ids = tokenizer(words)[:, 1].tolist()
    assert len(set(ids)) == len(words)
    assert all(2 <= i < 2 + 40 for i in ids)


def test_unknown_words_keep_their_id_in_any_order_and_in_later_calls():
    texts = ["zebra", "okapi", "猫", "🐱"]
    first, second = WordTokenizer(["a"], 4, reserve=5), WordTokenizer(["a"], 4, reserve=5)
    ids = dict(zip(texts, first(texts)[:, 1].tolist(), strict=True))
    assert dict(zip(texts[::-1], second(texts[::-1])[:, 1].tolist(), strict=True)) == ids
    assert first(["okapi"])[0, 1] == ids["okapi"]


def test_more_unknown_words_than_places_is_an_error():
    with pytest.raises(UsageError, match="places for 2 unknown words"):
        WordTokenizer(["a"], 4, reserve=2)(["x", "y", "z"])


def test_unknown_and_cut_texts_are_named():
    tokenizer = WordTokenizer(["a", "cat"], context_length=4)
    assert tokenizer.unknown(["a cat", "Zebra, a-okapi"]) == ["okapi", "zebra"]
    assert tokenizer.too_long(["a cat", "a cat a"]) == ["a cat a"]
    assert tokenizer(["a cat a"])[0].tolist() == [tokenizer.sot, 1, 2, tokenizer.eot]


def test_a_tokenizer_comes_back_from_json():
    tokenizer = WordTokenizer(["a", "cat"], 6, reserve=7)
    again = tokenizer_from_json(tokenizer.to_json(), {})
    assert again(["a zebra cat"]).equal(tokenizer(["a zebra cat"]))


def test_open_clip_byte_pairs_cut_and_know_everything():
    tokenizer = OpenClipTokenizer({"text_cfg": {"context_length": 8}}, "ViT-B-16")
    ids = tokenizer(["a photo of a cat"])
    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407, 0]]
    assert tokenizer.unknown(["zzyzx"]) == []
    assert tokenizer.too_long(["a photo of a cat", "a photo of a red cat on a mat"]) == [
        "a photo of a red cat on a mat"
    ]


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_text_gives_ids_in_range_with_one_start_and_end(texts):
    tokenizer = WordTokenizer(["a", "cat"], 9, reserve=200)
    ids = tokenizer(texts)
    assert ids.shape == (len(texts), 9)
    for row in ids.tolist():
        assert row[0] == tokenizer.sot and row.count(tokenizer.eot) == 1 and max(row) < tokenizer.vocab_size
