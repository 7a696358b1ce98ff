"""Learned class prompts: what they read is what names would be, the published numbers, and what must stay outside."""

import json
import re

import pytest
import torch

from ovseg_cli.core.clip.model import ClipModel, load_clip
from ovseg_cli.core.clip.prompts import IMAGENET_SELECT, SINGLE
from ovseg_cli.core.clip.tokenizer import NoTokenizer, OpenClipTokenizer
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.nn.class_prompts import ClassPrompts, first_words
from tests.core.clip.parity_models import assert_close, load_recorded
from tests.core.clip.tiny import VIT, tiny_clip, tiny_config, tiny_tokenizer

PROMPTS = "sem_seg_head.predictor.prompt_tokens"
PHOTO = ("a photo of a {}",)


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


def with_words(clip, words, templates=PHOTO):
    """Prompts whose learned words are those of real texts, all of one length."""
    ids = clip.tokenize(words)
    length = int(ids[0].argmax()) - 1
    prompts = ClassPrompts(clip, len(words), length, templates)
    prompts.prompt_tokens.data = clip.word_table(ids[:, 1 : 1 + length]).clone()
    return prompts


@torch.no_grad()
def test_words_of_a_name_give_the_feature_of_the_name(clip):
    names = ["red cat", "grass sky", "dog toy"]
    expected = clip.module.encode_text(clip.tokenize([f"a photo of a {name}" for name in names]))
    torch.testing.assert_close(with_words(clip, names)(clip), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_several_sentences_are_averaged_as_they_are_each_with_its_own_words(clip):
    names, templates = ["red cat", "grass sky"], ("a photo of a {}", "{} of the toy", "{}", "the {}.")
    each = [clip.module.encode_text(clip.tokenize([t.format(name) for name in names])) for t in templates]
    expected = torch.stack(each).mean(0)  # not normalised before
    torch.testing.assert_close(with_words(clip, names, templates)(clip), expected, atol=1e-6, rtol=1e-5)


def test_ids_by_hand(clip):
    # 0 padding; 1 a, 2 photo, 3 of, 4 the, ...; 10 toy; 16 places for unknown words; 27 start, 28 end
    prompts = ClassPrompts(clip, 2, 3, ("a {} of the toy.", "{}"))
    assert [s.ids(3) for s in prompts.sentences] == [(27, 1, 0, 0, 0, 3, 4, 10, 28), (27, 0, 0, 0, 28)]


def test_words_that_the_tokenizer_does_not_know_have_their_places(clip):
    sentence = ClassPrompts(clip, 2, 1).sentences[0]
    whole = clip.tokenize(["A photo of a cat in the scene"])[0]
    cat = int((whole == clip.tokenize(["cat"])[0, 1]).nonzero()[0])
    whole[cat] = 0
    assert list(sentence.ids(1)) == whole[: len(sentence.ids(1))].tolist()


def test_names_of_sets_stand_for_their_sentences(clip):
    prompts = ClassPrompts(clip, 2, 1, ("imagenet-select",))
    assert [s.ids(1) for s in prompts.sentences] == [
        s.ids(1) for s in ClassPrompts(clip, 2, 1, IMAGENET_SELECT).sentences
    ]
    assert len(prompts.sentences) == len(IMAGENET_SELECT)


def test_only_columns_up_to_the_end_are_computed(clip, monkeypatch):
    seen = []
    encode = clip.encode_embedded
    monkeypatch.setattr(clip, "encode_embedded", lambda x, ends: seen.append((x.shape, ends)) or encode(x, ends))
    ClassPrompts(clip, 5, 2, PHOTO)(clip)
    ((shape, ends),) = seen
    assert shape == (5, 8, 32) and ends.tolist() == [7] * 5  # start, 4 words, 2 learned, end; the context has 12


def test_gradients_reach_the_learned_words_alone(clip):
    prompts = ClassPrompts(clip, 3, 2, (*PHOTO, "the {}"))
    prompts(clip).square().sum().backward()
    assert bool((prompts.prompt_tokens.grad.abs().sum(-1) > 0).all())
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())


def test_nothing_but_the_learned_words_is_a_weight(clip):
    prompts = ClassPrompts(clip, 3, 2, (*PHOTO, "the {}"))
    assert list(prompts.state_dict()) == ["prompt_tokens"] == [name for name, _ in prompts.named_parameters()]
    assert list(prompts.modules()) == [prompts]
    assert all(buffer.device.type == "meta" for buffer in prompts.to("meta").buffers())


def test_first_words_are_rows_of_the_vocabulary_and_follow_the_seed_alone(clip):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    prompts = ClassPrompts(clip, 4, 3, PHOTO, seed=7)
    assert torch.get_rng_state().equal(before)
    words = first_words(clip.word_table.num_embeddings, 4, 3, seed=7)
    assert prompts.prompt_tokens.equal(clip.word_table.weight[words])
    assert not prompts.prompt_tokens.equal(ClassPrompts(clip, 4, 3, PHOTO, seed=8).prompt_tokens)
    torch.manual_seed(7)  # the published code seeds torch itself
    assert torch.randint(clip.word_table.num_embeddings - 10, (4, 3)).equal(words)


def test_the_word_table_keeps_its_rows_while_words_are_learned(clip):
    prompts, before = ClassPrompts(clip, 4, 3, PHOTO), clip.word_table.weight.clone()
    prompts.prompt_tokens.data += 1
    assert clip.word_table.weight.equal(before)


def test_the_toy_clip_reads_prompts():
    toy = load_clip("toy-clip")
    assert ClassPrompts(toy, 5)(toy).shape == (5, toy.embed_dim)


@pytest.mark.parametrize(
    ("template", "length", "mend"),
    [("a photo of a {}", 7, "--set prompt_length=6"), ("a photo of the red toy a photo of the {}", 1, "shorter")],
)
def test_too_many_words_for_the_context_say_what_to_lower(clip, template, length, mend):
    with pytest.raises(UsageError, match=rf"prompt_length={length}.*12 tokens") as caught:
        ClassPrompts(clip, 2, length, (template,))
    assert mend in (caught.value.mend or "")


def test_as_many_words_as_fit_are_taken(clip):
    assert ClassPrompts(clip, 2, 6, PHOTO)(clip).shape == (2, clip.embed_dim)


def test_a_sentence_without_a_place_is_an_error(clip):
    with pytest.raises(UsageError, match="exactly once"):
        ClassPrompts(clip, 2, 2, ("a {} of a {}",))


def test_a_text_tower_that_takes_no_vectors_is_an_error():
    config = tiny_config(VIT) | {"custom_text": True}
    other = ClipModel(build_module(config), "other", config, tiny_tokenizer())
    with pytest.raises(UsageError, match="text tower of other takes no learned words"):
        ClassPrompts(other)


def test_words_of_a_clip_without_tokenizer_are_kept_but_not_read():
    clip = tiny_clip()
    clip.tokenizer = NoTokenizer(40, 12)
    prompts = ClassPrompts(clip, 2, 3)
    assert prompts.sentences == () and set(prompts.state_dict()) == {"prompt_tokens"}
    with pytest.raises(UsageError, match="no tokenizer of that size is known"):
        prompts(clip)


class RecordedParts:
    """Answers for the two parts of the one sentence whose ids are recorded with its placeholders."""

    def __init__(self, template, ids, placeholder):
        self.context_length = len(ids)
        places = (ids == placeholder).nonzero().flatten()
        start, end = ids[:1], ids.max().view(1)
        before, after = template.split("{}")
        self.ids = {
            before: torch.cat([ids[: places[0]], end]),
            after: torch.cat([start, ids[places[-1] + 1 : ids.argmax() + 1]]),
        }

    def __call__(self, texts):
        padded = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(padded, texts, strict=True):
            row[: len(self.ids[text])] = self.ids[text]
        return padded


class TestRecorded:
    """Against the published code's own features (parity/pixelclip)."""

    @pytest.fixture(scope="class", params=["vit", "conv"])
    def recorded(self, parity, request):
        found = load_recorded(parity, request.param)
        template, ids = found.config["single_template"][0], found.tensors["prompt.template_ids"][0]
        found.clip.tokenizer = RecordedParts(template, ids, found.config["placeholder_token"])
        return found

    @pytest.fixture(scope="class")
    def prompts(self, recorded):
        config = recorded.config
        found = ClassPrompts(recorded.clip, config["k"], config["prompt_length"], config["single_template"])
        found.load_state_dict({"prompt_tokens": recorded.state[PROMPTS]})
        return found

    def test_words_around_the_places_are_the_recorded_ones(self, recorded, prompts):
        ids = torch.tensor(prompts.sentences[0].ids(recorded.config["prompt_length"]))
        theirs = recorded.tensors["prompt.template_ids"][0]
        own = theirs[: len(ids)] != recorded.config["placeholder_token"]
        assert ids[own].equal(theirs[: len(ids)][own]) and bool((theirs[len(ids) :] == 0).all())
        embedded = recorded.tensors["prompt.template_embedding"][0, : len(ids)]
        assert recorded.clip.word_table(ids)[own].equal(embedded[own])

    def test_class_features_equal_the_recorded_ones(self, recorded, prompts):
        assert_close(prompts(recorded.clip).detach(), recorded.tensors["prompt.class_features"])


class TestRealVocabulary:
    """Against the ids that the published code makes with CLIP's own 49408 byte pairs."""

    @pytest.fixture(scope="class")
    def real(self, parity):
        path = parity / "pixelclip" / "real_tokens.json"
        if not path.is_file():
            pytest.skip(f"{path} is absent")
        return json.loads(path.read_text())

    @pytest.fixture(scope="class")
    def tokenizer(self):
        return OpenClipTokenizer({"text_cfg": {}}, "ViT-B-16")

    @pytest.fixture(scope="class")
    def thin(self, tokenizer):
        """A tiny CLIP with the real vocabulary."""
        config = tiny_config(VIT)
        config["text_cfg"] |= {"context_length": tokenizer.context_length, "vocab_size": 49408, "width": 8}
        return ClipModel(build_module(config), "thin", config, tokenizer)

    def test_ids_of_the_sentence_are_those_of_the_code(self, real, thin, tokenizer):
        placeholder = int(tokenizer(["{}"])[0, 1])
        cases = {int(key.rsplit("_l", 1)[1]): ids for key, ids in real.items() if key.startswith("template_ids_l")}
        for length, theirs in cases.items():
            assert theirs.count(placeholder) == length
            ids = ClassPrompts(thin, 2, length, SINGLE).sentences[0].ids(length)
            expected = [0 if i == placeholder else i for i in theirs]
            assert list(ids) == expected[: len(ids)] and not any(expected[len(ids) :])

    def test_first_words_are_those_of_the_code(self, real):
        cases = [re.fullmatch(r"seed(\d+)_prompt_words_k(\d+)_l(\d+).*", key) for key in real]
        assert any(cases)
        for case in filter(None, cases):
            seed, count, length = map(int, case.groups())
            theirs = real[case.string]
            assert first_words(49408, count, length, seed)[: len(theirs)].tolist() == theirs

    def test_ids_of_names_in_all_sentences_are_those_of_the_code(self, real, tokenizer):
        assert list(IMAGENET_SELECT) == real["select8_templates"]
        for name, theirs in real["select8_ids"].items():
            ids = tokenizer([template.format(name) for template in IMAGENET_SELECT])
            assert [row[: len(their)] for row, their in zip(ids.tolist(), theirs, strict=True)] == theirs

    def test_words_inside_any_sentence_stand_where_a_name_would(self, thin, tokenizer):
        prompts = ClassPrompts(thin, 2, 2, IMAGENET_SELECT)
        for sentence, template in zip(prompts.sentences, IMAGENET_SELECT, strict=True):
            whole = tokenizer([template.format("cat dog")])[0]
            cat, dog = tokenizer(["cat dog"])[0, 1:3]
            expected = [0 if i in (int(cat), int(dog)) else i for i in whole.tolist()]
            ids = sentence.ids(2)
            assert list(ids) == expected[: len(ids)] and not any(expected[len(ids) :])


@pytest.mark.gpu
def test_prompts_on_a_gpu_start_from_the_same_words_and_give_the_same_features():
    clip = tiny_clip()
    expected = ClassPrompts(clip, 4, 3, PHOTO)(clip)
    clip.to("cuda")
    prompts = ClassPrompts(clip, 4, 3, PHOTO)
    torch.testing.assert_close(prompts(clip).cpu(), expected, atol=1e-4, rtol=1e-4)
