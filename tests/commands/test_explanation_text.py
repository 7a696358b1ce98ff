"""`ovseg show`: the prose of a docstring is wrapped by the terminal, not by the source file."""

from ovseg_cli.core.explanation import joined_lines


def test_paragraphs_and_items_are_joined_and_blocks_are_kept():
    text = "A line\ngoes on.\n\nTwo forms:\n- one, which\n  goes on\n- two\n\n    kept as\n    it is\nThe end\nof it."
    assert joined_lines(text).split("\n") == [
        "A line goes on.",
        "",
        "Two forms:",
        "- one, which goes on",
        "- two",
        "",
        "    kept as",
        "    it is",
        "The end of it.",
    ]


def test_an_empty_text_stays_empty():
    assert joined_lines("") == ""


def test_numbered_items_are_joined_each_for_itself() -> None:
    assert joined_lines("Steps:\n\n1. *One.* a\n   b\n2. *Two.* c\n   d") == "Steps:\n\n1. *One.* a b\n2. *Two.* c d"
