import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.clip import text as text_module
from ovseg_cli.core.clip.prompts import IMAGENET_SELECT, NAMES, resolve_templates, template_set
from ovseg_cli.core.clip.text import template_features, text_features
from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import Vocabulary
from tests.core.clip.tiny import tiny_clip

TEMPLATES = ("a photo of a {}", "the {}")


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


def vocabulary(*synonyms, templates=TEMPLATES, rule="mean"):
    groups = tuple((s,) if isinstance(s, str) else tuple(s) for s in synonyms)
    return Vocabulary(tuple(g[0] for g in groups), groups, templates, synonym_rule=rule)


def unit(clip, text):
    with torch.no_grad():
        return F.normalize(clip.encode_text(clip.tokenize([text]))[0], dim=0)


def test_mean_rule_by_hand(clip):
    """Mean over synonyms within a template, normalised; then mean over templates, normalised (pixelclip.md 2.1)."""
    features = text_features(clip, vocabulary(("cat", "dog"), "sky")).features
    first = F.normalize((unit(clip, "a photo of a cat") + unit(clip, "a photo of a dog")) / 2, dim=0)
    second = F.normalize((unit(clip, "the cat") + unit(clip, "the dog")) / 2, dim=0)
    torch.testing.assert_close(features[0], F.normalize((first + second) / 2, dim=0), atol=1e-6, rtol=0)
    sky = F.normalize((unit(clip, "a photo of a sky") + unit(clip, "the sky")) / 2, dim=0)
    torch.testing.assert_close(features[1], sky, atol=1e-6, rtol=0)


def test_max_rule_keeps_a_row_for_each_synonym(clip):
    text = text_features(clip, vocabulary(("cat", "dog"), "sky", rule="max"))
    assert text.class_of_row.tolist() == [0, 0, 1] and text.num_classes == 2
    alone = text_features(clip, vocabulary("cat", "dog", "sky")).features
    torch.testing.assert_close(text.features, alone, atol=1e-6, rtol=0)


def test_features_have_unit_length_and_follow_their_class(clip):
    text = text_features(clip, vocabulary("cat", ("dog", "toy"), "sky"))
    torch.testing.assert_close(text.features.norm(dim=1), torch.ones(3))
    turned = text_features(clip, vocabulary("sky", "cat", ("dog", "toy")))
    torch.testing.assert_close(turned.features, text.features[[2, 0, 1]], atol=1e-6, rtol=0)


@torch.no_grad()
def test_leaving_out_what_follows_the_end_changes_nothing(clip):
    tokens = clip.tokenize(["cat", "a photo of the red toy", "a cat", ""])
    torch.testing.assert_close(clip.encode_text(tokens), clip.module.encode_text(tokens), atol=1e-6, rtol=1e-5)


def test_words_may_be_given_as_vectors_which_then_get_gradients(clip):
    tokens = clip.tokenize(["cat", "a photo of the red toy"])
    ends = tokens.argmax(1)
    embedded = clip.word_table(tokens).detach().requires_grad_()
    features = clip.encode_embedded(embedded, ends)
    torch.testing.assert_close(features, clip.module.encode_text(tokens), atol=1e-6, rtol=1e-5)
    features[0].sum().backward()  # what stands after the end is not read, nor other texts
    read = embedded.grad.abs().sum(-1) > 0
    assert read[0].tolist() == [i <= int(ends[0]) for i in range(tokens.shape[1])] and not read[1].any()


def test_each_text_is_encoded_once_and_in_batches(clip, monkeypatch):
    seen = []
    encode = clip.encode_text
    monkeypatch.setattr(clip, "encode_text", lambda tokens: seen.append(len(tokens)) or encode(tokens))
    monkeypatch.setattr(text_module, "BATCH", 4)
    template_features(clip, (("cat",), ("cat", "dog"), ("sky",)), TEMPLATES)
    assert seen == [4, 2]  # three names in two templates


def test_cache_answers_without_encoding(clip, tmp_path, monkeypatch):
    first = text_features(clip, vocabulary("cat", "dog"), tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1 and not list(tmp_path.rglob("*.part"))
    monkeypatch.setattr(clip, "encode_text", lambda _: pytest.fail("encoded again"))
    assert text_features(clip, vocabulary("cat", "dog"), tmp_path).features.equal(first.features)


@pytest.mark.parametrize(
    "other",
    [
        {"synonyms": ("cat", "toy")},
        {"templates": ("the {}",)},
        {"rule": "max"},
        {"seed": 1},
        {"quick_gelu": True},
    ],
    ids=lambda d: next(iter(d)),
)
def test_cache_key_changes_with_names_templates_rule_weights_and_activation(clip, tmp_path, other):
    text_features(clip, vocabulary("cat", "dog"), tmp_path)
    model = tiny_clip(seed=other.get("seed", 0), quick_gelu=other.get("quick_gelu", False))
    changed = vocabulary(
        *other.get("synonyms", ("cat", "dog")),
        templates=other.get("templates", TEMPLATES),
        rule=other.get("rule", "mean"),
    )
    text_features(model, changed, tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_a_tuned_image_tower_keeps_the_cached_text(clip, tmp_path):
    tuned = tiny_clip()
    text_features(tuned, vocabulary("cat"), tmp_path)
    with torch.no_grad():
        tuned.visual.proj.mul_(2)
    text_features(tuned, vocabulary("cat"), tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


@pytest.mark.parametrize("damage", ["cut", "garbage", "other shape"])
def test_a_broken_cache_file_is_made_again_with_a_warning(clip, tmp_path, damage):
    first = text_features(clip, vocabulary("cat", "dog"), tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "garbage":
        path.write_bytes(b"\0" * 50)
    else:
        path.write_bytes(text_module.save({"features": torch.zeros(1, 3)}))
    reporter = Silent()
    again = text_features(clip, vocabulary("cat", "dog"), tmp_path, reporter)
    torch.testing.assert_close(again.features, first.features)
    assert len(reporter.warnings) == 1 and "made again" in reporter.warnings[0]
    assert text_features(clip, vocabulary("cat", "dog"), tmp_path, reporter) and len(reporter.warnings) == 1


def test_a_cache_that_cannot_be_written_is_only_a_warning(clip, tmp_path, monkeypatch):
    def full(path, data):
        raise MachineError(f"cannot write {path}: the disk is full.")

    monkeypatch.setattr(text_module, "write_bytes", full)
    reporter = Silent()
    assert text_features(clip, vocabulary("cat"), tmp_path, reporter).features.shape == (1, clip.embed_dim)
    assert "disk is full" in reporter.warnings[0]


def test_unknown_words_are_named_even_when_cached_and_get_features_of_their_own(clip, tmp_path):
    for _ in range(2):
        reporter = Silent()
        text = text_features(clip, vocabulary("zebra", "okapi", "cat"), tmp_path, reporter)
        assert "'okapi', 'zebra'" in reporter.warnings[0] and "cat" not in reporter.warnings[0].split(":")[0]
    assert float(text.features[0] @ text.features[1]) < 1 - 1e-4


def test_names_that_are_cut_are_named(clip):
    reporter = Silent()
    text_features(clip, vocabulary("red " * 12 + "toy", "red"), reporter=reporter)
    assert len(reporter.warnings) == 1 and "the end is cut off" in reporter.warnings[0]
    assert "'red'" not in reporter.warnings[0]


def test_an_empty_vocabulary_is_refused(clip):
    with pytest.raises(UsageError, match="at least one class"):
        text_features(clip, Vocabulary((), ()))


def test_sets_hold_one_place_for_the_name():
    sizes = {name: len(template_set(name)) for name in NAMES}
    published = {"single": 1, "imagenet-select": 8, "imagenet": 80, "vild": 14, "sculpture": 1, "zegformer-regions": 32}
    assert sizes == {"photo": 1, "zegclip": 15, **published}
    for name in NAMES:
        assert all(t.count("{}") == 1 and t.format("X").count("X") == 1 for t in template_set(name))
    assert template_set("imagenet")[0] == "a bad photo of a {}."


def test_sets_and_sentences_mix_and_mistakes_are_answered():
    assert resolve_templates(["single", "a {}", "a {}"]) == ("A photo of a {} in the scene", "a {}")
    assert resolve_templates(["imagenet-select"]) == IMAGENET_SELECT
    with pytest.raises(UsageError, match="Did you mean 'imagenet'"):
        resolve_templates(["imagnet"])
    for wrong in ("a {} and a {}", "a {name}", "a {} {"):
        with pytest.raises(UsageError, match="exactly once"):
            resolve_templates([wrong])
    with pytest.raises(UsageError, match="there is none"):
        resolve_templates([])
