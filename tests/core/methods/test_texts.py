"""Texts by role, and which classes count as seen: on the data of the training and on other data."""

import pytest
import torch

from ovseg_cli.core.clip.prompts import PHOTO, template_set
from ovseg_cli.core.methods import texts
from ovseg_cli.core.methods.texts import default_templates, method_text, names_of, seen_rows, training_vocabulary
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.types import Vocabulary
from tests.core.methods.tiny_methods import tiny_method

WORLD = Vocabulary(
    ("cat", "dog", "grass"), (("cat", "red cat"), ("dog",), ("grass",)), unseen=(False, True, False)
)  # fmt: skip


def test_training_knows_seen_names_and_their_synonyms_alone():
    seen = training_vocabulary(WORLD)
    assert seen.class_names == ("cat", "grass") and names_of(seen) == ("cat", "grass", "red cat")


def test_on_its_own_data_the_class_split_says_what_was_seen():
    # "dog" is unseen although a seen class may carry the same word as a synonym
    shared = Vocabulary(("cat", "dog"), (("cat", "dog"), ("dog",)), unseen=(False, True))
    assert seen_rows(shared, names_of(training_vocabulary(shared))).tolist() == [True, False]
    assert seen_rows(WORLD, ["red cat", "grass", "cat"]).tolist() == [True, False, True]


def test_on_other_data_names_and_synonyms_decide_spelling_aside():
    names = ["Traffic_Light", "sky-blue  thing"]
    other = Vocabulary(
        ("traffic light", "house", "lamp", "light"),
        (("traffic light",), ("house", "Sky blue Thing"), ("lamp",), ("light",)),
    )
    assert seen_rows(other, names).tolist() == [True, True, False, False]
    assert not seen_rows(other, []).any()


def test_rows_know_whether_their_class_was_seen_and_no_names_mean_nothing_is_known():
    method = tiny_method("freeseg")
    assert method_text(method, WORLD).seen is None
    method.training_names = names_of(training_vocabulary(WORLD))
    assert method_text(method, WORLD).seen.tolist() == [True, False, True]
    several = Vocabulary(WORLD.class_names, WORLD.synonyms, unseen=WORLD.unseen, synonym_rule="max")
    text = method_text(method, several)
    assert text.class_of_row.tolist() == [0, 0, 1, 2] and text.seen.tolist() == [True, True, False, True]


def test_templates_are_the_data_set_s_else_the_method_s_else_clip_s():
    freeseg, clip = type(tiny_method("freeseg")), type(tiny_method("clip"))
    assert default_templates(freeseg, ["{}"]) == ("{}",)
    assert default_templates(freeseg) == template_set(freeseg.templates) and default_templates(clip) == PHOTO


def test_one_stage_methods_read_one_sentence_on_voc_and_fifteen_elsewhere():
    for name in ("zegclip", "tagclip"):
        method = METHODS[name].load()
        assert default_templates(method, data="voc-20") == ("a photo of a {}",), "as their codes do, without a period"
        assert len(default_templates(method, data="coco-stuff")) == len(default_templates(method)) == 15
        assert default_templates(method, ["{}"], "voc-20") == ("{}",)


def test_further_roles_read_their_own_templates_unless_the_user_chose_some(monkeypatch):
    method = tiny_method("zegformer")
    assert method.extra_templates, "a method with a further role"
    monkeypatch.setattr(type(method), "templates", "single")  # few words: the tiny tokenizer has few places
    monkeypatch.setattr(type(method), "extra_templates", {"region": "sculpture"})
    own = Vocabulary(WORLD.class_names, WORLD.synonyms, default_templates(type(method)), WORLD.unseen)
    text = method_text(method, own)
    for role, name in method.extra_templates.items():
        expected = method_text(method, Vocabulary(own.class_names, own.synonyms, template_set(name))).features
        torch.testing.assert_close(text.extra[role], expected)
    assert method_text(method, WORLD).extra == {}


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (None, "Nobody knows"),
        (("cat", "dog", "grass"), "1 of the 1 classes.*: dog"),
        (("cat", "grass", "red cat"), None),
    ],
)
def test_doubt_about_unseen_classes_is_said(names, part):
    import re

    method = tiny_method("freeseg")
    method.training_names = names
    doubt = texts.training_doubt(method, WORLD)
    assert doubt is None if part is None else re.search(part, doubt)
    assert texts.training_doubt(tiny_method("maskclip"), WORLD) is None
