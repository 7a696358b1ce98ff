from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.prediction.class_lists import BACKGROUND_WORDS, parse_classes


def test_commas_separate_classes_and_slashes_synonyms():
    vocabulary = parse_classes("cat/kitten,  hot   dog , sky")
    assert vocabulary.class_names == ("cat", "hot dog", "sky")
    assert vocabulary.synonyms == (("cat", "kitten"), ("hot dog",), ("sky",))
    assert vocabulary.background is None and vocabulary.synonym_rule == "mean"


def test_file_holds_one_class_a_line(tmp_path: Path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffcat/kitten  # a comment\r\n\r\n# nothing here\r\nGänseblümchen\n".encode())
    for given_as in (path, str(path), f" {path} "):
        assert parse_classes(given_as).synonyms == (("cat", "kitten"), ("Gänseblümchen",))


def test_list_items_keep_their_commas_and_tuples_their_slashes():
    vocabulary = parse_classes(["bed, double", ("either/or", "both"), "cat/kitten"])
    assert vocabulary.synonyms == (("bed, double",), ("either/or", "both"), ("cat", "kitten"))


def test_background_alone_stands_for_stuff_words_less_the_classes():
    vocabulary = parse_classes("cat, Background, sky/clouds")
    assert vocabulary.class_names == ("cat", "Background", "sky")
    assert vocabulary.background == 1 and vocabulary.synonym_rule == "max"
    assert set(vocabulary.synonyms[1]) == set(BACKGROUND_WORDS) - {"sky", "clouds"}


def test_background_with_synonyms_keeps_them():
    vocabulary = parse_classes("cat, background/wall/floor")
    assert vocabulary.synonyms[1] == ("background", "wall", "floor") and vocabulary.background == 1


def test_templates_replace_the_default():
    assert parse_classes("cat", ["a {}."]).templates == ("a {}.",)
    assert parse_classes("cat", ["photo"]).templates == ("a photo of a {}.",)


BAD = {
    "nothing": ("", "no class"),
    "blanks": ("  ", "no class"),
    "only commas": (",,", "name is empty"),
    "trailing comma": ("cat,", "name is empty"),
    "empty synonym": ("cat/", "name is empty"),
    "double class": ("cat, dog, Cat", "'Cat' stands twice. Remove"),
    "synonym of another": ("cat/pet, dog/pet", "'pet' stands twice, for 'cat' and for 'dog'"),
    "double synonym": ("cat/CAT", "synonym of 'cat' stands twice"),
    "control character": ("cat\x07", "control character"),
    "missing file": ("nowhere.txt", "no such file"),
    "empty list": ([], "no class"),
    "not a text": ([3], "3 is not a text"),
    "a number among synonyms": ([("cat", 3)], "not a text"),
    "class without name": ([()], "no name"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_lists_are_refused_with_a_sentence(case: str):
    classes, part = BAD[case]
    with pytest.raises(UsageError) as error:
        parse_classes(classes)
    assert part in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, part",
    [("cat, dog\n", "line 1: 'cat, dog' has a comma"), ("cat\na;b\n", "line 2"), ("# only\n\n", "no class")],
)
def test_file_in_another_convention_is_refused_not_misread(tmp_path: Path, content: str, part: str):
    path = tmp_path / "names.txt"
    path.write_text(content)
    with pytest.raises(UsageError, match=part):
        parse_classes(path)


def test_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00caf\xe9")
    with pytest.raises(UsageError, match="UTF-8"):
        parse_classes(tmp_path / "names.txt")
    with pytest.raises(UsageError, match="folder"):
        parse_classes(tmp_path)


@pytest.mark.parametrize("templates", [["a photo"], ["{} {}"], ["{0}"], ["a {} }"], []])
def test_template_without_one_place_for_the_name_is_refused(templates: list[str]):
    with pytest.raises(UsageError, match="template"):
        parse_classes("cat", templates)


words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(st.lists(words, min_size=1, max_size=3), min_size=1, max_size=6))
def test_written_lists_come_back(rows: list[list[str]]):
    names = [name.casefold() for row in rows for name in row]
    if len(set(names)) < len(names) or "background" in names:
        return
    text = ", ".join("/".join(row) for row in rows)
    assert [list(row) for row in parse_classes(text).synonyms] == rows
