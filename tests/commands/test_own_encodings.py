"""A user's own data set in every kind of label: one example each, and one clear sentence for each bad file."""

# ruff: noqa: E501 - a row of a table is one line
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.commands.conftest import run_command

WANTED = [[0, 0, 1], [0, 255, 1]]  # grass, grass, cat / grass, unlabelled, cat
PICTURE_FILES = """
[[layouts]]
[layouts.subsets]
val = { images = "images/{stem}.jpg", labels = "labels/{stem}.SUFFIX" }
"""
ONE_JSON = """
[[layouts]]
[layouts.subsets]
val = { images = "images/{stem}.jpg", labels = "labels.json" }
"""
BY_RAW_ID = 'classes = [{ name = "grass", raw_id = 10 }, { name = "cat", raw_id = 300 }]\n'
BY_COLOR = 'classes = [{ name = "grass", color = [0, 200, 0] }, { name = "cat", color = [90, 60, 30] }]\n'
RAW = np.array([[10, 10, 300], [10, 0, 300]])


def save(path: Path, values: Any, dtype: str = "uint8", palette: list[int] | None = None) -> None:
    picture = Image.fromarray(np.array(values, dtype))
    if palette:
        picture.putpalette(palette)
    picture.save(path)


def runs(*counts: int) -> dict[str, Any]:
    return {"size": [2, 3], "counts": list(counts)}


def records(key: str, number: str) -> dict[str, Any]:
    """Grass as runs (down the columns: 3 pixels), a cat as a polygon (the third column)."""
    masks = [(10, runs(0, 3, 3)), (300, [[2, 0, 3, 0, 3, 2, 2, 2]])]
    return {
        "images": [{number: 7, "file_name": "a.jpg", "height": 2, "width": 3}],
        key: [{"image_id": 7, "category_id": category, "segmentation": mask} for category, mask in masks],
    }


def panoptic() -> dict[str, Any]:
    segments = [{"id": 5, "category_id": 10}, {"id": 70000, "category_id": 300}]
    document = records("annotations", "id")
    return document | {"annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": segments}]}


def segment_picture(path: Path, ids: list[list[int]]) -> None:
    values = np.array(ids)
    save(path, np.stack([values & 255, values >> 8 & 255, values >> 16], -1))


@dataclass(frozen=True)
class Example:
    """What stands in the TOML, and how its label file is written."""

    toml: str
    write: Callable[[Path], object]


EXAMPLES = {
    "label-png": Example(
        'classes = ["grass", "cat"]\n' + PICTURE_FILES.replace("SUFFIX", "png"),
        lambda p: save(p / "labels/a.png", WANTED),
    ),
    "label-png of 16 bits": Example(
        BY_RAW_ID + '[encoding]\nkind = "label-png"\nbits = 16\nignore_raw = [0]\n' + PICTURE_FILES.replace("SUFFIX", "png"),
        lambda p: save(p / "labels/a.png", RAW, "uint16"),
    ),
    "label-tiff": Example(
        BY_RAW_ID + '[encoding]\nkind = "label-tiff"\nbits = 16\nignore_raw = [0]\n' + PICTURE_FILES.replace("SUFFIX", "tif"),
        lambda p: save(p / "labels/a.tif", RAW, "uint16"),
    ),
    "palette-png": Example(
        'classes = [{ name = "grass", raw_id = 1 }, { name = "cat", raw_id = 2 }]\n'
        '[encoding]\nkind = "palette-png"\nignore_raw = [0]\n' + PICTURE_FILES.replace("SUFFIX", "png"),
        lambda p: save(p / "labels/a.png", [[1, 1, 2], [1, 0, 2]], palette=[0, 0, 0, 9, 9, 9, 8, 8, 8]),
    ),
    "rgb-png by colours": Example(
        BY_COLOR + '[encoding]\nkind = "rgb-png"\nrgb_rule = "color"\nignore_colors = [[0, 0, 0]]\n' + PICTURE_FILES.replace("SUFFIX", "png"),
        lambda p: save(p / "labels/a.png", np.array([[0, 200, 0], [90, 60, 30], [0, 0, 0]])[[[0, 0, 1], [0, 2, 1]]]),
    ),
    "rgb-png by a sum": Example(
        BY_RAW_ID + '[encoding]\nkind = "rgb-png"\nrgb_rule = "r+256*g+65536*b"\nignore_raw = [0]\n' + PICTURE_FILES.replace("SUFFIX", "png"),
        lambda p: segment_picture(p / "labels/a.png", RAW.tolist()),
    ),
    "rgb-png of ADE20K": Example(
        BY_RAW_ID + '[encoding]\nkind = "rgb-png"\nrgb_rule = "r//10*256+g"\nelsewhere = "ignore"\n' + PICTURE_FILES.replace("SUFFIX", "png"),
        lambda p: save(p / "labels/a.png", np.stack([RAW // 256 * 10, RAW % 256, RAW * 0 + 3], -1)),
    ),
    "mat": Example(
        BY_RAW_ID + '[encoding]\nkind = "mat"\nvariable = "truth.map"\nignore_raw = [0]\n' + PICTURE_FILES.replace("SUFFIX", "mat"),
        lambda p: savemat(p / "labels/a.mat", {"truth": {"map": RAW.astype("uint16")}}),
    ),
    "rle-json": Example(
        BY_RAW_ID + '[encoding]\nkind = "rle-json"\nrecords = "masks"\nignore_raw = [0]\n' + ONE_JSON,
        lambda p: (p / "labels.json").write_text(json.dumps(records("masks", "image_id"))),
    ),
    "coco-instances": Example(
        BY_RAW_ID + '[encoding]\nkind = "coco-instances"\nignore_raw = [0]\n' + ONE_JSON,
        lambda p: (p / "labels.json").write_text(json.dumps(records("annotations", "id"))),
    ),
    "coco-panoptic": Example(
        BY_RAW_ID + '[encoding]\nkind = "coco-panoptic"\nignore_raw = [0]\n'
        + PICTURE_FILES.replace("SUFFIX", "png").replace(" }", ', segments = "segments.json" }'),
        lambda p: (segment_picture(p / "labels/a.png", [[5, 5, 70000], [5, 0, 70000]]), (p / "segments.json").write_text(json.dumps(panoptic()))),
    ),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    for folder in ("mine/images", "mine/labels"):
        (tmp_path / folder).mkdir(parents=True)
    save(tmp_path / "mine/images/a.jpg", np.random.default_rng(0).integers(0, 256, (2, 3, 3)))
    return tmp_path


def write_example(place: Path, kind: str) -> None:
    (place / "mine.toml").write_text('name = "mine"\n' + EXAMPLES[kind].toml)
    EXAMPLES[kind].write(place / "mine")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_example_of_each_kind_is_prepared_and_checked(place: Path, kind: str) -> None:
    write_example(place, kind)
    done = run_command("prepare", "mine.toml", "--source", "mine", "--workers", "1")
    assert done.code == 0, done.err
    assert np.asarray(Image.open(place / "data/mine/labels/val/a.png")).tolist() == WANTED
    assert run_command("prepare", "mine", "--check").code == 0
    assert json.loads(run_command("prepare", "mine", "--json").out)["made"] == 0


def edited(file: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        document = json.loads((place / file).read_text())
        change(document)
        (place / file).write_text(json.dumps(document))

    return edit


def wrong_size(place: Path) -> None:
    save(place / "images/a.jpg", np.zeros((3, 3, 3)))


# name: (example, what is done to it, parts of the sentence)
BAD: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "colour outside the table": ("rgb-png by colours", lambda p: save(p / "labels/a.png", [[[0, 200, 0], [1, 2, 3], [1, 2, 3]]] * 2), ["labels/a.png: the label holds colour (1, 2, 3) (4 pixels), which mine does not know; the first at x 1, y 0"]),
    "two colours outside": ("rgb-png by colours", lambda p: save(p / "labels/a.png", [[[0, 200, 0], [1, 2, 3], [9, 9, 9]]] * 2), ["the label holds colours (1, 2, 3) (2 pixels), (9, 9, 9) (2 pixels), which mine"]),
    "number outside the table": ("rgb-png by a sum", lambda p: segment_picture(p / "labels/a.png", [[10, 10, 10], [10, 1 << 23, 10]]), ["value 8388608 (1 pixels), which mine does not know; the first at x 1, y 1"]),
    "grey label": ("rgb-png by colours", lambda p: save(p / "labels/a.png", WANTED), ["labels/a.png: a label that is coded by colours needs red, green and blue, this picture is L"]),
    "coloured label": ("label-png", lambda p: save(p / "labels/a.png", np.zeros((2, 3, 3))), ["labels/a.png: a label map needs one channel of class ids, this picture is RGB"]),
    "matrix without the variable": ("mat", lambda p: savemat(p / "labels/a.mat", {"LabelMap": RAW}), ["labels/a.mat: there is no variable 'truth' (it holds LabelMap)"]),
    "matrix without the field": ("mat", lambda p: savemat(p / "labels/a.mat", {"truth": {"x": RAW}}), ["labels/a.mat: there is no field 'truth.map' (it holds truth.x)"]),
    "matrix of another class": ("mat", lambda p: savemat(p / "labels/a.mat", {"truth": {"map": RAW + 1}}), ["labels/a.mat: the label holds values 1 (1 pixels), 11 (3 pixels), 301 (2 pixels), which mine does not know"]),
    "matrix of negative numbers": ("mat", lambda p: savemat(p / "labels/a.mat", {"truth": {"map": RAW - 10}}), ["values -10 (1 pixels), 290 (2 pixels)"]),
    "matrix of another size": ("mat", lambda p: savemat(p / "labels/a.mat", {"truth": {"map": RAW[:1]}}), ["labels/a.mat: the label is 3 x 1, its image 3 x 2"]),
    "segment that the JSON lacks": ("coco-panoptic", edited("segments.json", lambda d: d["annotations"][0]["segments_info"].pop()), ["labels/a.png: segment 70000, 2 pixels, first at x 2, y 0, is not in", "segments.json"]),
    "category outside the table": ("coco-panoptic", edited("segments.json", lambda d: d["annotations"][0]["segments_info"][0].update(category_id=11)), ["labels/a.png: the label holds category 11 (3 pixels)"]),
    "JSON without the picture": ("coco-panoptic", edited("segments.json", lambda d: d["images"][0].update(file_name="b.jpg")), ["labels/a.png: ", "segments.json does not say what its segments are"]),
    "JSON of segments is gone": ("coco-panoptic", lambda p: (p / "segments.json").unlink(), ["segments.json: this file, which holds the labels of 'val', is missing"]),
    "JSON of labels is gone": ("coco-instances", lambda p: (p / "labels.json").unlink(), ["labels.json: this file, which holds the labels of 'val', is missing"]),
    "JSON cut off": ("coco-instances", lambda p: (p / "labels.json").write_bytes((p / "labels.json").read_bytes()[:150]), ["labels.json: the file is cut off or no JSON"]),
    "records of another name": ("rle-json", edited("labels.json", lambda d: d.update(annotations=d.pop("masks"))), ["labels.json: there is no list 'masks' in it (it holds annotations, images)"]),
    "picture that the JSON lacks": ("coco-instances", edited("labels.json", lambda d: (d["images"].clear(), d["annotations"].clear())), ["labels.json: it says nothing about 'a', a picture of 'val'"]),
    "records of no picture": ("coco-instances", edited("labels.json", lambda d: d["annotations"][0].update(image_id=8)), ["labels.json: 1 record belongs to no picture of 'images'"]),
    "picture that stands twice": ("coco-instances", edited("labels.json", lambda d: d["images"].append({**d["images"][0], "id": 9})), ["labels.json: picture 'a' stands twice in 'images'"]),
    "runs that are too long": ("coco-instances", edited("labels.json", lambda d: d["annotations"][0].update(segmentation=runs(0, 9))), ["labels.json: picture 'a', record 1: its run lengths are no mask"]),
    "runs of another size": ("rle-json", edited("labels.json", lambda d: d["masks"][0]["segmentation"].update(size=[3, 2])), ["picture 'a', record 1: its mask is 2 x 3, the picture 3 x 2"]),
    "polygon of two corners": ("coco-instances", edited("labels.json", lambda d: d["annotations"][1].update(segmentation=[[0, 0, 1, 1]])), ["picture 'a', record 2: a polygon needs x and y of three corners"]),
    "image of another size": ("coco-instances", wrong_size, ["labels.json, picture 'a': the label is 3 x 2, its image 3 x 3"]),
    "record of another class": ("rle-json", edited("labels.json", lambda d: d["masks"][0].update(category_id=12)), ["labels.json, picture 'a': the label holds category 12 (3 pixels), which mine does not know"]),
}  # fmt: skip


@pytest.mark.parametrize("row", BAD)
def test_bad_file_gets_one_sentence_and_exit_code_3(place: Path, row: str) -> None:
    kind, spoil, parts = BAD[row]
    write_example(place, kind)
    spoil(place / "mine")
    for check in ([], ["--check"]):
        done = run_command("prepare", "mine.toml", "--source", "mine", "--workers", "1", *check)
        assert done.code == 3, done.err
        said = " ".join(done.err.split()).replace("│ │ ", "")
        for part in parts:
            assert part in said, said
        assert "Traceback" not in done.err and "1 problem:" in said
    assert not (place / "data/mine/manifest.json").exists()
