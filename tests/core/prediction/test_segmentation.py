import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco

from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.prediction.segmentation import Segmentation, smallest_dtype
from ovseg_cli.core.report.seen import UNSEEN, SeenClasses

NAMES = ("cat", "grass", "sky")


def segmentation(ids, names=NAMES, background=None) -> Segmentation:
    label = np.asarray(ids).astype(smallest_dtype(len(names)))
    image = np.full((*label.shape, 3), 128, np.uint8)
    return Segmentation(label, tuple(names), image, background, "a.jpg", "maskclip toy-clip")


def test_shares_and_masks_of_a_hand_made_map():
    # cat 1 of 6 pixels, grass 5, sky none
    result = segmentation([[0, 1, 1], [1, 1, 1]])
    assert result.pixels.tolist() == [1, 5, 0]
    assert list(result.shares.items()) == [("grass", 5 / 6), ("cat", 1 / 6)]
    assert result.mask("cat").tolist() == [[True, False, False], [False, False, False]]
    with pytest.raises(UsageError, match="'dog' is not one of the classes"):
        result.mask("dog")


def test_rle_of_a_hand_made_map_is_column_major():
    # cat in row 0, column 0 of a 2 x 3 map: runs down the columns are 0 zeros, 1 one, 5 zeros
    cat = segmentation([[0, 1, 1], [1, 1, 1]]).to_rle()[0]
    assert cat["rle"]["size"] == [2, 3]
    assert coco.frPyObjects({"size": [2, 3], "counts": [0, 1, 5]}, 2, 3)["counts"].decode() == cat["rle"]["counts"]


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 299)))
def test_masks_decode_to_the_label_map(ids: np.ndarray):
    result = segmentation(ids, [f"class {i}" for i in range(300)])
    back = np.full(ids.shape, -1)
    for segment in json.loads(json.dumps(result.document()))["segments"]:
        mask = coco.decode(segment["rle"]).astype(bool)
        assert mask.sum() == segment["pixels"] and (back[mask] == -1).all()
        back[mask] = segment["id"]
    assert (back == ids).all()


@pytest.mark.parametrize("count, mode", [(3, "P"), (256, "P"), (257, "I;16"), (847, "I;16")])
def test_saved_label_map_is_8_or_16_bit_and_comes_back(tmp_path: Path, count: int, mode: str):
    ids = np.arange(12).reshape(3, 4) * (count - 1) // 11
    label_map, overlay, document = segmentation(ids, [f"n{i}" for i in range(count)]).save(tmp_path / "new", "x")
    with Image.open(label_map) as picture:
        assert picture.mode == mode
        assert (np.asarray(picture) == ids).all()
    assert Image.open(overlay).mode == "RGB"
    stored = json.loads(document.read_text())
    assert (stored["schema"], stored["height"], stored["width"], stored["image"]) == (1, 3, 4, "a.jpg")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["x.json", "x.png", "x_overlay.png"]


def test_saved_label_map_shows_the_colours_of_the_overlay(tmp_path: Path):
    own = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    for result in (segmentation([[0, 1, 2]]), replace(segmentation([[0, 1, 2]]), colors=own)):
        label_map, overlay, _ = result.save(tmp_path, "x")
        shown = np.asarray(Image.open(label_map).convert("RGB"))
        assert (shown[0] == result.palette).all()
        swatches = {color for _, color in Image.open(overlay).getcolors(1 << 20)}
        assert {tuple(color) for color in shown[0].tolist()} <= swatches


def test_overlay_borders_unseen_classes_in_red_where_somebody_knows():
    plain = segmentation([[0, 1], [2, 1]])
    known = replace(plain, seen=SeenClasses((True, False, None), "in training"))
    there, absent = ({color for _, color in r.overlay().getcolors(1 << 20)} for r in (known, plain))
    assert UNSEEN in there and UNSEEN not in absent
    assert known.overlay().height > plain.overlay().height, "a line of the legend says what the borders mean"
    assert UNSEEN not in {color for _, color in known.overlay(borders=None, meanings=None).getcolors(1 << 20)}
    assert (known.document()["seen"], plain.document()["seen"]) == ([True, False, None], None)


def test_repr_is_one_line_of_shares():
    result = segmentation([[0, 1, 1], [1, 1, 1]])
    assert repr(result) == "Segmentation(3 x 2 pixels: grass 83.3 %, cat 16.7 %)"
    assert "and 4 more" in repr(segmentation([list(range(12))], [f"n{i}" for i in range(12)]))


def test_saving_again_replaces_own_files_but_never_foreign_ones(tmp_path: Path):
    result = segmentation([[0, 1], [2, 2]])
    result.save(tmp_path, "x")
    result.save(tmp_path, "x")
    for name in ("y.png", "z.json", "w_overlay.png"):
        (tmp_path / name).write_bytes(b"precious")
        with pytest.raises(UsageError, match="not made by a prediction"):
            result.save(tmp_path, name[0])
        assert (tmp_path / name).read_bytes() == b"precious"
    assert not (tmp_path / "z.png").exists()


def test_map_of_another_size_than_the_picture_is_refused():
    with pytest.raises(ShapeError, match="differ in size"):
        Segmentation(np.zeros((2, 3), np.uint8), NAMES, np.zeros((3, 2, 3), np.uint8))
