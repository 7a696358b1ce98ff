"""When are two names the same words?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.vocabulary.words import bag, compact, normal, plural, plural_forms, plurals, without_label_word


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Hot-Dog", "hot dog"),
        ("the  sky", "sky"),
        ("A", "a"),  # an article alone is the name
        ("tv_monitor", "tv monitor"),
        ("lord's table", "lords table"),
        ("ﬁsh", "fish"),  # a ligature
        ("building, edifice", "building edifice"),
    ],
)
def test_normal_form_is_lower_case_without_articles_and_signs(text, form):
    assert normal(text) == form


def test_forms_without_spaces_and_without_order():
    assert compact("hot dog") == compact("Hotdog") == compact("hot-dog")
    assert bag("paper towel") == bag("towel paper") != bag("paper towels")


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("cup", "cups"),
        ("bus", "buses"),
        ("box", "boxes"),
        ("bench", "benches"),
        ("berry", "berries"),
        ("monkey", "monkeys"),
        ("shelf", "shelves"),
        ("knife", "knives"),
        ("scarf", "scarves"),
        ("scarf", "scarfs"),
        ("roof", "roofs"),
        ("potato", "potatoes"),
        ("piano", "pianos"),
        ("person", "people"),
        ("mouse", "mice"),
        ("leaf", "leaves"),
        ("fireman", "firemen"),
        ("cookie", "cookies"),
    ],
)
def test_plurals_of_english(one, many):
    assert many in plurals(one)


@pytest.mark.parametrize(("one", "other"), [("grass", "glass"), ("cloth", "clothes"), ("tie", "tile"), ("gas", "gate")])
def test_other_words_are_no_plurals(one, other):
    assert other not in plurals(one) and one not in plurals(other)


def test_one_word_of_a_name_stands_in_the_plural():
    assert {"tools box", "tool boxes"} <= plural_forms("Tool box")
    assert plural("traffic light") == "traffic lights"


def test_label_words_go_but_a_name_stays():
    assert without_label_word("sky-other") == "sky" and without_label_word("other") == "other"


@given(st.text(max_size=20))
def test_normal_form_is_its_own_normal_form(text):
    assert normal(normal(text)) == normal(text)
    plural(text), plural_forms(text), without_label_word(text)  # no text is too odd
