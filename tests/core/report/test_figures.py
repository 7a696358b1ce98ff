import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovseg_cli.core.data.palette import colors
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.report import lettering
from ovseg_cli.core.report.figures import WRONG, PanelRow, error_map, overlay, side_by_side
from ovseg_cli.core.report.legend import Entry, draw_legend, legend_entries, share_text
from ovseg_cli.core.report.lettering import text_width, wrap
from ovseg_cli.core.report.painting import edges, paint, resize_label, view_size

NAMES = ("cat", "grass", "a red striped toy", "sky")
COLORS = colors(4)


def grey(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def halves(height: int, width: int) -> np.ndarray:
    label = np.zeros((height, width), np.int64)
    label[:, width // 2 :] = 2
    return label


def test_edges_of_a_hand_made_map():
    label = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]])
    assert edges(label).tolist() == [[False, False, True, True]] * 3
    assert edges(label, 2).tolist() == [[False, True, True, True]] * 3
    assert (edges(label.T) == edges(label).T).all() and (edges(label.T, 2) == edges(label, 2).T).all()
    assert not edges(np.zeros((3, 3), int)).any()


def test_paint_mixes_grey_picture_and_colour_by_opacity():
    label = np.array([[0, 1, 7]])  # 7 is no class
    table = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    painted = np.asarray(paint(grey(1, 3), label, table, opacity=0.5, line=0))
    assert painted[0, 0].tolist() == [178, 50, 50] and painted[0, 1].tolist() == [50, 50, 178]
    assert painted[0, 2].tolist() == [125, 125, 128]  # half 100, half the grey of what is not labelled


def test_background_is_painted_half_as_strongly():
    painted = np.asarray(paint(grey(1, 2), np.array([[0, 1]]), np.zeros((2, 3), np.uint8), line=0, background=1))
    assert painted[0, 0].tolist() == [40] * 3 and painted[0, 1].tolist() == [70] * 3  # opacity 0.6 and 0.3


def test_borders_take_their_given_colour_on_their_own_side():
    painted = np.asarray(paint(grey(4, 6), halves(4, 6), COLORS, borders={2: (255, 0, 0)}, line=1))
    assert painted[0, 3].tolist() == [255, 0, 0] and painted[0, 2].tolist() != [255, 0, 0]


def test_legend_lists_only_what_is_there_by_area():
    label = np.array([[2, 2, 2, 0, 255]])
    entries = legend_entries([label], NAMES, COLORS)
    assert [(e.name, e.share) for e in entries] == [("a red striped toy", 0.6), ("cat", 0.2)]
    assert entries[0].color == tuple(COLORS[2])


@pytest.mark.parametrize("share, text", [(1.0, "100 %"), (0.414, "41 %"), (0.0994, "9.9 %"), (0.0004, "< 0.1 %")])
def test_shares_are_printed_short(share: float, text: str):
    assert share_text(share) == text


@pytest.mark.parametrize(
    "size, view", [((96, 96), (384, 384)), ((1, 1), (384, 384)), ((100, 300), (200, 600)), ((480, 640), (480, 640)),
                   ((1000, 4000), (512, 2048)), ((1, 4000), (1, 2048)), ((1, 300), (2, 600))],
)  # fmt: skip
def test_pictures_are_enlarged_by_whole_factors_or_reduced(size, view):
    assert view_size(size, 384, 2048) == view


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_labels_are_enlarged_exactly(height: int, width: int, factor: int):
    label = np.arange(height * width).reshape(height, width)
    enlarged = resize_label(label, (height * factor, width * factor))
    assert (enlarged == np.kron(label, np.ones((factor, factor), int))).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_overlays_of_any_size_hold_the_picture_and_a_legend(height: int, width: int, ignored: bool):
    label = halves(height, width)
    if ignored:
        label[0, 0] = 255
    drawn = overlay(grey(height, width), label, NAMES, COLORS, 255)
    bare = overlay(grey(height, width), label, NAMES, COLORS, 255, legend=False)
    assert bare.size == view_size((height, width), 384, 2048)[::-1]
    assert drawn.width >= bare.width and drawn.height > bare.height
    left = (drawn.width - bare.width) // 2
    assert drawn.crop((left, 0, left + bare.width, bare.height)).tobytes() == bare.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (900, 4000)])
def test_extreme_sizes_stay_bounded(size: tuple[int, int]):
    drawn = overlay(grey(*size), np.zeros(size, np.uint8), NAMES, COLORS)
    assert max(drawn.size) <= 2048 + 200 and min(drawn.size) >= 80


def test_input_is_not_changed_and_figures_repeat():
    image, label = grey(20, 30), halves(20, 30)
    before = image.copy(), label.copy()
    first, second = (overlay(image, label, NAMES, COLORS) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert (image == before[0]).all() and (label == before[1]).all()


def test_errors_are_red_and_ignored_pixels_are_not():
    truth, prediction = np.array([[0, 0, 255]] * 3), np.array([[0, 1, 1]] * 3)
    drawn = np.asarray(error_map(grey(3, 3), truth, prediction, 255)).astype(int)
    right, wrong, ignored = (drawn[drawn.shape[0] // 2, drawn.shape[1] * i // 6] for i in (1, 3, 5))
    assert right[0] == right[1] == right[2]
    assert wrong[0] - wrong[1] > 100 and abs(wrong - WRONG).max() < 60
    assert abs(ignored[0] - ignored[1]) < 10


def test_panels_stand_side_by_side_with_one_legend():
    rows = [
        PanelRow(grey(96, 96), [halves(96, 96), halves(96, 96), error_map(grey(96, 96), *[halves(96, 96)] * 2)], "one"),
        PanelRow(grey(60, 200), [halves(60, 200)] * 3),
    ]
    drawn = side_by_side(rows, ["picture", "ground truth", "MaskCLIP", "errors"], NAMES, COLORS, 255, panel=128)
    assert 4 * 128 < drawn.width < 4 * 128 + 80 and drawn.height > 96 + 38
    colors_there = {color for _, color in drawn.getcolors(1 << 20)}
    assert tuple(COLORS[0]) in colors_there and tuple(COLORS[1]) not in colors_there  # swatches


def test_legend_in_parts_has_only_what_the_panels_hold():
    rows, arguments = [PanelRow(grey(96, 96), [halves(96, 96)])], (["picture", "truth"], NAMES, COLORS, 255)
    one = side_by_side(rows, *arguments, groups=[("seen", [0, 1])], panel=128)
    two = side_by_side(rows, *arguments, groups=[("seen", [0, 1]), ("none", [3]), ("unseen", [2])], panel=128)
    whole = side_by_side(rows, *arguments, panel=128)
    assert whole.height < one.height + 20 and two.height > one.height + 20
    there = {color for _, color in two.getcolors(1 << 20)}
    assert {tuple(COLORS[0]), tuple(COLORS[2])} <= there and not {tuple(COLORS[1]), tuple(COLORS[3])} & there


def test_figures_that_do_not_fit_together_are_refused():
    with pytest.raises(ShapeError, match="label map"):
        overlay(grey(4, 4), halves(4, 5), NAMES, COLORS)
    with pytest.raises(ShapeError, match="label map"):
        error_map(grey(4, 4), halves(4, 4), halves(5, 4))
    with pytest.raises(ShapeError, match="1 cells for 2 captions"):
        side_by_side([PanelRow(grey(4, 4), [halves(4, 4)])], ["a", "b", "c"], NAMES, COLORS)
    with pytest.raises(ShapeError):
        side_by_side([PanelRow(grey(4, 4), [halves(3, 4)])], ["a", "b"], NAMES, COLORS)


@given(st.text(st.characters(codec="latin-1"), max_size=60), st.integers(20, 300))
def test_wrapped_lines_fit_and_lose_no_letter(text: str, width: int):
    lines = wrap(text, 14, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(text_width(line, 14) <= width or len(line) == 1 for line in lines)


def test_a_word_is_broken_only_where_it_is_too_long():
    assert wrap("hot dog", 14, 400) == ["hot dog"] and wrap("hot dog", 14, text_width("dog", 14)) == ["hot", "dog"]
    assert wrap("", 14, 50) == [""]


def test_many_classes_are_cut_with_a_count():
    entries = [Entry(f"class {i}", (i, 0, 0)) for i in range(60)]
    long, short = draw_legend(entries, 300, 14), draw_legend(entries, 300, 14, most=5)
    assert long.height > short.height and long.width == short.width == 300


def test_letters_without_a_font_are_replaced_not_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ())
    lettering.lettering.cache_clear()
    assert lettering.lettering("Gänseblümchen 猫", 14)[0] == "Ganseblumchen ?"
    lettering.lettering.cache_clear()


def test_saved_figures_are_plain_rgb(tmp_path):
    drawn = overlay(grey(5, 5), halves(5, 5), NAMES, COLORS)
    drawn.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "RGB"
