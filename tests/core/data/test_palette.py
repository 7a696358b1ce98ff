import numpy as np
import pytest

from ovseg_cli.core.data.palette import _place, colors, spec_colors
from ovseg_cli.core.data.specs import load_spec


@pytest.mark.parametrize("n", [0, 1, 2, 19, 171, 847])
def test_all_colours_differ(n: int) -> None:
    table = colors(n)
    assert table.shape == (n, 3) and table.dtype == np.uint8
    assert len({tuple(row) for row in table.tolist()}) == n


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert np.array_equal(colors(847)[:30], colors(30))


def test_first_colours_are_the_published_ones() -> None:
    assert colors(3).tolist() == [[230, 159, 0], [86, 180, 233], [0, 158, 115]]


def test_background_is_black_and_moves_no_other_colour() -> None:
    table = colors(21, background=4)
    assert table[4].tolist() == [0, 0, 0]
    assert np.array_equal(np.delete(table, 4, 0), np.delete(colors(21), 4, 0))


def test_no_other_colour_is_near_black() -> None:
    assert colors(171).max(axis=1).min() >= 64


def test_twenty_colours_stay_apart_without_red_or_green_cones() -> None:
    """Independent of the module's own distance: plain Euclid after a published simulation of both deficiencies."""
    linear = (colors(20) / 255.0) ** 2.2
    simulations = {
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
    }  # Machado, Oliveira, Fernandes, IEEE TVCG 2009, severity 1.0
    for matrix in simulations.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2) * 255
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1e9 * np.eye(20)
        assert apart.min() > 12


def test_the_toy_world_has_its_own_colours_and_they_can_be_told_apart():
    spec = load_spec("toy")
    own = spec_colors(spec)
    assert own.tolist() == [c.color for c in spec.classes]
    places = _place(own)[:, :3]
    gaps = np.linalg.norm(places[:, None] - places, axis=2)[~np.eye(len(own), dtype=bool)]
    assert gaps.min() > 0.1


def test_classes_without_colours_take_the_palette():
    spec = load_spec("ade20k-847")
    assert (spec_colors(spec) == colors(847)).all()
    voc = load_spec("voc-21")
    bare = voc.model_copy(update={"classes": [c.model_copy(update={"color": None}) for c in voc.classes]})
    assert (spec_colors(bare) == colors(21, background=0)).all()


def test_a_colour_changes_labels_only_where_labels_are_coded_by_colour():
    spec = load_spec("toy")
    recoloured = spec.model_copy(update={"classes": [c.model_copy(update={"color": None}) for c in spec.classes]})
    assert recoloured.digest() == spec.digest()
    coded = [
        one.model_copy(update={"encoding": one.encoding.model_copy(update={"kind": "rgb-png", "rgb_rule": "color"})})
        for one in (spec, recoloured)
    ]
    assert coded[0].digest() != coded[1].digest()
