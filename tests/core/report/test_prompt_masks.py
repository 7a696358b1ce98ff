"""Which mask lies on top, what a table says of masks and prompts, and the figure, from masks made by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovseg_cli.core.data.palette import colors
from ovseg_cli.core.report.prompt_masks import GroupedMasks, masks_table, said_of, smallest_on_top
from ovseg_cli.core.report.prompt_masks_figure import PANEL, MaskScene, draw_masks
from ovseg_cli.core.report.prompt_models import NamedPrompts

NAMED = NamedPrompts(("cat", "dog"), torch.tensor([[0.1, 0.9], [0.7, 0.2], [0.4, 0.3]]), torch.eye(2))


def test_smallest_mask_lies_on_top():
    # regions: 0 nowhere, 1 in both masks, 2 in the large one alone
    ids = torch.tensor([[0, 2, 2], [0, 2, 1]], dtype=torch.int32)
    table = torch.tensor([[0, 1, 1], [0, 1, 0]], dtype=torch.uint8)
    assert smallest_on_top((ids, table)).tolist() == [[-1, 0, 0], [-1, 0, 1]]
    assert smallest_on_top((ids, table.flip(0))).tolist() == [[-1, 1, 1], [-1, 1, 0]]
    assert smallest_on_top((ids, table[:0])).tolist() == [[-1] * 3] * 2


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 6), st.integers(1, 5), st.integers(0, 999))
def test_mask_on_top_is_that_of_a_loop_over_written_out_masks(count, regions, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(regions, (4, 5), generator=generator, dtype=torch.int32)
    table = torch.randint(2, (count, regions), generator=generator, dtype=torch.uint8)
    if count:
        table[:, 0] = 0
    masks = [row[ids.long()].bool() for row in table]
    expected = np.full((4, 5), -1)
    for y in range(4):
        for x in range(5):
            holding = [(int(mask.sum()), i) for i, mask in enumerate(masks) if mask[y, x]]
            expected[y, x] = min(holding)[1] if holding else -1
    assert (smallest_on_top((ids, table)) == expected).all()


def picture(*prompts, name="p"):
    return GroupedMasks(name, np.zeros((2, 2), np.int64), np.array(prompts, np.int64))


def test_table_counts_masks_and_pictures_of_each_prompt():
    pictures = [picture(0, 0, 2), picture(2), picture(2, 2)]
    table = masks_table([("m", pictures, NAMED)], "toy train, 3 pictures")
    assert [[row[key] for key in ("prompt", "name", "masks", "pictures")] for row in table.records()] == [
        [2, "cat", 4, 3], [0, "dog", 2, 1],
    ]  # fmt: skip
    assert table.records()[0]["cosine"] == pytest.approx(0.4)
    two = masks_table([("m", pictures, NAMED), ("n", pictures[:1], NAMED)], "x")
    assert [row["model"] for row in two.records()] == ["m", "m", "n", "n"]
    bare = NamedPrompts((), torch.zeros(3, 0), torch.zeros(0, 2))
    assert masks_table([("m", pictures, bare)], "x").records()[0]["name"] is None


def test_words_say_what_was_grouped():
    said = said_of([picture(0, 0, 2), picture()], "superpixels", 3, 1)
    assert said.startswith("3 masks (superpixels) of 2 pictures") and "use 2 of 3 prompts" in said


def test_figure_colours_masks_by_prompt_and_leaves_the_rest_grey(tmp_path):
    image = np.full((96, 96, 3), 120, np.uint8)
    on_top = np.array([[0, 1], [2, -1]])
    scene = MaskScene(image, "p", on_top, np.array([1, 1, 0]))
    assert scene.by_prompt.tolist() == [[1, 1], [0, -1]]
    empty = MaskScene(image, "q", np.full((2, 2), -1), np.zeros(0, np.int64))
    draw_masks([scene, empty], ["0: cat", "1: dog", "2: sky"], tmp_path / "a.png", ["below"])
    drawn = Image.open(tmp_path / "a.png").convert("RGB")
    assert 3 * PANEL < drawn.width < 3 * PANEL + 60
    there = {color for _, color in drawn.getcolors(1 << 22)}
    swatches = [tuple(int(v) for v in color) for color in colors(3)]
    assert swatches[0] in there and swatches[1] in there and swatches[2] not in there
