"""Borders that say which classes were seen: in the picture, at the swatches, and explained in a line of the legend."""

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.core.report.figures import PanelRow, overlay, side_by_side
from ovseg_cli.core.report.legend import PAPER, Entry, border_entries, draw_legend
from ovseg_cli.core.report.seen import SEEN, UNSEEN, SeenClasses

NAMES = ("cat", "dog", "sky")
COLORS = np.array([[90, 200, 90], [90, 90, 200], [200, 200, 90]], np.uint8)
KNOWN = SeenClasses((True, False, None), "in training")


def halves(left: int, right: int, side: int = 96) -> np.ndarray:
    label = np.full((side, side), left)
    label[:, side // 2 :] = right
    return label


def grey(side: int = 96) -> np.ndarray:
    return np.full((side, side, 3), 100, np.uint8)


def pixels_of(image: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(image) == color).all(-1)


def test_seen_is_black_unseen_red_and_what_is_no_class_has_no_border():
    assert KNOWN.borders == {0: (0, 0, 0), 1: (255, 0, 0)}
    assert KNOWN.meanings == {
        (0, 0, 0): "black border: seen in training",
        (255, 0, 0): "red border: unseen in training",
    }
    split = SeenClasses.of_split((False, True))
    assert split.flags == (True, False) and split.meanings[UNSEEN] == "red border: unseen in the class split"


@pytest.mark.parametrize(
    ("borders", "explained"),
    [((SEEN, UNSEEN), ["black", "red"]), ((UNSEEN, UNSEEN), ["red"]), ((None, SEEN), ["black"]), ((None,), [])],
)
def test_only_borders_that_occur_are_explained(borders, explained):
    entries = border_entries([Entry("x", (1, 2, 3), border=color) for color in borders], KNOWN.meanings)
    assert [entry.name.split()[0] for entry in entries] == explained
    assert all(entry.color == PAPER for entry in entries)
    assert border_entries([Entry("x", (1, 2, 3), border=SEEN)], None) == []


def test_overlay_has_each_border_on_its_side_and_at_its_swatch():
    drawn = overlay(grey(), halves(0, 1), NAMES, COLORS, borders=KNOWN.borders, meanings=KNOWN.meanings)
    picture, legend = drawn.crop((0, 0, 384, 384)), drawn.crop((0, 384, drawn.width, drawn.height))
    black, red = (np.flatnonzero(pixels_of(picture, color).all(0)).tolist() for color in (SEEN, UNSEEN))
    assert black == [190, 191] and red == [192, 193], "each class's side of the middle, two pixels wide"
    assert pixels_of(legend, SEEN).any() and pixels_of(legend, UNSEEN).any()
    plain = overlay(grey(), halves(0, 1), NAMES, COLORS)
    assert drawn.height > plain.height + 20, "a line more"
    assert not pixels_of(plain, SEEN).any() and not pixels_of(plain, UNSEEN).any()


def test_a_class_without_border_is_drawn_as_ever():
    drawn = overlay(grey(), halves(2, 2), NAMES, COLORS, borders=KNOWN.borders, meanings=KNOWN.meanings)
    assert drawn.tobytes() == overlay(grey(), halves(2, 2), NAMES, COLORS).tobytes()


def test_a_red_class_has_a_red_border_that_is_seen():
    swatch = draw_legend([Entry("a", (255, 0, 0), border=UNSEEN)], 60, 14).crop((0, 0, 24, 24))
    row = np.asarray(swatch)[16, :, :]
    kinds = [tuple(color) for color in row.tolist()]
    changes = [kinds[0], *(b for a, b in zip(kinds, kinds[1:], strict=False) if a != b)]
    assert changes == [PAPER, UNSEEN, PAPER, UNSEEN, PAPER, UNSEEN, PAPER], "border, white, colour, white, border"


@pytest.mark.parametrize("groups", [None, [("seen", [0]), ("unseen", [1, 2])]])
def test_panels_explain_their_borders_once(groups):
    rows = [PanelRow(grey(), [halves(0, 1)]), PanelRow(grey(), [halves(1, 2)])]
    arguments = (rows, ["picture", "truth"], NAMES, COLORS)
    bare = side_by_side(*arguments, borders=KNOWN.borders, groups=groups, panel=192)
    told = side_by_side(*arguments, borders=KNOWN.borders, groups=groups, panel=192, meanings=KNOWN.meanings)
    assert 15 < told.height - bare.height < 80
    assert told.crop((0, 0, *(bare.width, 400))).tobytes() == bare.crop((0, 0, bare.width, 400)).tobytes()
