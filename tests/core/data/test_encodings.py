# ruff: noqa: E501 - a row of a table is one line
"""Readers of labels: by hand, against an independent way, and what must be refused before it means something else."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco
from scipy.io import savemat

from ovseg_cli.core.data.encodings import json_lists, rgb
from ovseg_cli.core.data.encodings.annotations import Records, read_annotations
from ovseg_cli.core.data.encodings.matlab import load_matrix
from ovseg_cli.core.data.encodings.paint import painted
from ovseg_cli.core.data.encodings.panoptic import panoptic
from ovseg_cli.core.data.encodings.table import RawTable
from ovseg_cli.core.data.images import load_colors
from ovseg_cli.core.errors import DataError

MATRIX = np.array([[1, 459, 0], [300, 2, 2]], np.uint16)


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


# --- which train id a raw value means ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [256, 1 << 16, 1 << 24])
def test_table_by_hand(size: int) -> None:
    table = RawTable({0: 255, 7: 0, 9: 1}, -1, size)
    raw = np.array([[7, 7, 9], [0, 8, 255]])
    assert table.lookup(raw).tolist() == [[0, 0, 1], [255, -1, -1]]
    assert RawTable({7: 0}, 255, size).lookup(np.array([[7, 8, size, -1]])).tolist() == [[0, 255, -1, -1]]


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.integers(0, (1 << 24) - 1), st.integers(0, 900), min_size=1, max_size=20),
    st.integers(-1, 900),
    st.data(),
)
def test_colours_are_looked_up_as_in_a_dict(pairs: dict[int, int], elsewhere: int, data: st.DataObject) -> None:
    values = st.one_of(st.sampled_from(sorted(pairs)), st.integers(0, (1 << 24) - 1))
    raw = np.array(data.draw(st.lists(values, min_size=6, max_size=6))).reshape(2, 3)
    expected = [[pairs.get(int(value), elsewhere) for value in row] for row in raw]
    assert RawTable(pairs, elsewhere, 1 << 24).lookup(raw).tolist() == expected


# --- colours -------------------------------------------------------------------------------------------------------


def test_packed_colours_and_ade_classes_by_hand(tmp_path: Path) -> None:
    # wall is 2978 = 11 * 256 + 162: red 110 to 119, green 162, and blue is the number of the instance
    Image.fromarray(np.array([[[110, 162, 1], [119, 162, 200], [0, 0, 9]]], np.uint8)).save(tmp_path / "a.png")
    assert rgb.ade_class(tmp_path / "a.png").tolist() == [[2978, 2978, 0]]
    assert rgb.packed(tmp_path / "a.png").tolist() == [[110 + 162 * 256 + 65536, 119 + 162 * 256 + 200 * 65536, 589824]]
    assert rgb.color_text(110 + 162 * 256 + 65536) == "(110, 162, 1)"


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, (3, 5, 3)))
def test_packing_is_the_sum_that_it_stands_for(colors: np.ndarray) -> None:
    wide = colors.astype(np.int64)
    assert (rgb.pack(colors) == wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]).all()


def test_colours_of_a_palette_and_of_an_opaque_picture_count(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([1, 2, 3, 4, 5, 6])
    picture.save(tmp_path / "p.png")
    Image.fromarray(np.array([[[1, 2, 3, 255], [4, 5, 6, 255]]], np.uint8)).save(tmp_path / "a.png")
    for name in ("p.png", "a.png"):
        assert load_colors(tmp_path / name).tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_grey_and_transparent_pictures_have_no_colours(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "grey.png")
    Image.new("RGBA", (2, 2), (1, 2, 3, 128)).save(tmp_path / "glass.png")
    with pytest.raises(DataError, match=r"grey\.png: a label that is coded by colours needs red, green and blue, this"):
        load_colors(tmp_path / "grey.png")
    with pytest.raises(DataError, match=r"glass\.png: parts of this label are transparent"):
        load_colors(tmp_path / "glass.png")


# --- MATLAB --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]), hnp.array_shapes(min_dims=2, max_dims=2)
    ),
    st.booleans(),
    st.text("abcXYZ_09", min_size=1, max_size=31).map("v".__add__).map(lambda name: name[:31]),
)
def test_matrix_comes_back_as_scipy_wrote_it(
    tmp_path_factory: pytest.TempPathFactory, matrix: np.ndarray, compressed: bool, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "whole.mat"
    savemat(
        path,
        {"before": "text", name: matrix, "s": {"x": matrix, "names": [[1.5]], "last": matrix}},
        do_compression=compressed,
    )
    for variable in (name, "s.last"):
        read = load_matrix(path, variable)
        assert read.dtype == matrix.dtype and read.tolist() == matrix.tolist()


def test_file_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    flags, dims = element(6, struct.pack(">II", 11, 0)), element(5, struct.pack(">ii", 2, 3))
    name = struct.pack(">HH", 1, 1) + b"G\0\0\0"  # a small element: its byte count and its type share four bytes
    values = element(4, MATRIX.astype(">u2").tobytes(order="F"))
    header = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI"
    (tmp_path / "a.mat").write_bytes(header + element(14, flags + dims + name + values))
    assert load_matrix(tmp_path / "a.mat", "G").tolist() == MATRIX.tolist()


def test_field_of_a_structure_and_whole_numbers_of_a_floating_type(tmp_path: Path) -> None:
    classes = {"Segmentation": MATRIX.astype(np.uint8), "CategoriesPresent": [1.0, 2.0], "Boundaries": {"x": 1.0}}
    savemat(tmp_path / "a.mat", {"GTcls": classes, "f": MATRIX.astype(float)})
    assert load_matrix(tmp_path / "a.mat", "GTcls.Segmentation").tolist() == MATRIX.astype(np.uint8).tolist()
    assert load_matrix(tmp_path / "a.mat", "f").dtype == np.int64


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:150])


BAD_MAT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no such variable": (lambda p: savemat(p, {"Labels": MATRIX}), "LabelMap", r"no variable 'LabelMap' \(it holds Labels\)"),
    "no such field": (lambda p: savemat(p, {"G": {"A": MATRIX}}), "G.B", r"no field 'G\.B' \(it holds G\.A\)"),
    "field of a matrix": (lambda p: savemat(p, {"G": MATRIX}), "G.B", r"no field 'G\.B' \(it holds none\)"),
    "a structure": (lambda p: savemat(p, {"G": {"A": MATRIX}}), "G", r"'G' is no matrix of class ids \(a structure, 1 x 1\)"),
    "three dimensions": (lambda p: savemat(p, {"G": np.zeros((2, 3, 4))}), "G", r"no matrix of class ids \(numbers, 2 x 3 x 4\)"),
    "words": (lambda p: savemat(p, {"G": "cat"}), "G", r"no matrix of class ids \(text, 1 x 3\)"),
    "complex numbers": (lambda p: savemat(p, {"G": np.array([[1j]])}), "G", "no matrix of class ids"),
    "nothing in it": (lambda p: savemat(p, {"G": np.zeros((0, 3))}), "G", r"no matrix of class ids \(numbers, 0 x 3\)"),
    "MATLAB 4": (lambda p: savemat(p, {"G": np.zeros((40, 3))}, format="4"), "G", "no .mat file of MATLAB 5 to 7.2"),
    "half a class": (lambda p: savemat(p, {"G": np.array([[1.0, 2.5]])}), "G", r"holds 2\.5, which is no class id"),
    "not a number": (lambda p: savemat(p, {"G": np.array([[np.nan, 2]])}), "G", "holds nan, which is no class id"),
    "cut off": (lambda p: (savemat(p, {"G": np.zeros((50, 50))}), damaged(p)), "G", "cut off or damaged"),
    "empty": (lambda p: p.write_bytes(b""), "G", "cut off or damaged"),
    "a picture": (lambda p: Image.new("L", (200, 2), 7).save(p, "bmp"), "G", "no .mat file"),
    "MATLAB 7.3": (lambda p: p.write_bytes(b"MATLAB 7.3 MAT-file, Platform" + b" " * 99 + b"\x00\x02IM\x89HDF"), "G", r"MATLAB 7\.3 \(HDF5\), which is not read.*-v7"),
    "gone": (lambda p: None, "G", "there is no such file"),
    "a folder": (lambda p: p.mkdir(), "G", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("row", BAD_MAT)
def test_bad_matrix_is_refused_in_one_sentence(tmp_path: Path, row: str) -> None:
    make, variable, words = BAD_MAT[row]
    make(tmp_path / "a.mat")
    with pytest.raises(DataError, match=rf"a\.mat: .*({words})") as caught:
        load_matrix(tmp_path / "a.mat", variable)
    assert "\n" not in str(caught.value)


@settings(max_examples=80, deadline=None)
@given(st.booleans(), st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_any_damage_gives_a_matrix_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, compressed: bool, place: int, byte: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.mat"
    savemat(path, {"G": {"A": MATRIX, "B": [1.0]}}, do_compression=compressed)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place] = byte
    path.write_bytes(data[:place] if cut else data)
    try:
        assert load_matrix(path, "G.A").ndim == 2
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("most", "words"), [(2000, "'G' is 100 x 200, more than 2,000 values"), (900, "'G' claims 20,048 bytes")]
)
def test_huge_matrix_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, words: str
) -> None:
    savemat(tmp_path / "a.mat", {"G": np.zeros((100, 200), np.uint8)}, do_compression=True)
    monkeypatch.setattr("ovseg_cli.core.data.encodings.matlab.MAX_PIXELS", most)
    with pytest.raises(DataError, match=words):
        load_matrix(tmp_path / "a.mat", "G")


# --- records of a JSON ---------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5), st.one_of(st.integers(), st.lists(st.dictionaries(st.text(), st.text(), max_size=2)))
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_places_are_those_of_the_records(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], indent: int | None, escaped: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=escaped), encoding="utf-8")
    found: dict[str, list[Any]] = {}
    for _, start, end, _ in json_lists.records(path):
        if start < end:
            found.setdefault("all", []).extend(json_lists.read_records(path, [(start, end)]))
    expected = [record for value in document.values() if isinstance(value, list) for record in value]
    assert found.get("all", []) == expected


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": [1, 2', '{"a": [1 2]}', '{"a" 1}', "cat", "[" * 100_000])
def test_what_is_no_such_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json: the file is cut off or no JSON") as caught:
        list(json_lists.records(tmp_path / "a.json"))
    assert len(str(caught.value)) < 400


def test_pictures_and_their_records(tmp_path: Path) -> None:
    images = [
        {"id": 5, "file_name": "train/größe.jpg", "height": 2, "width": 3},
        {"image_id": 6, "file_name": "b.jpg", "phase": "val"},
    ]
    records = [{"image_id": 6, "n": 1}, {"image_id": 5, "n": 2}, {"image_id": 6, "n": 3}, {"image_id": 99}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": records}, ensure_ascii=False), encoding="utf-8")
    found = read_annotations(path, "annotations")
    assert {stem: [r["n"] for r in own.read()] for stem, own in found.pictures.items()} == {"größe": [2], "b": [1, 3]}
    assert found.pictures["größe"].size == (2, 3) and found.pictures["b"].size is None
    assert (found.phases, found.strays, found.twice) == ({"b": "val"}, 1, [])


BAD_JSON: dict[str, tuple[Any, str]] = {
    "no images": ({"annotations": []}, r"no list 'images' in it \(it holds annotations\)"),
    "no records": ({"images": []}, "no list 'annotations' in it"),
    "no lists at all": ({"a": 1}, "it holds none"),
    "image without id": ({"images": [{"file_name": "a.jpg"}], "annotations": []}, "'images' has no 'image_id' or 'id'"),
    "image without name": ({"images": [{"id": 1}], "annotations": []}, "'images' has no 'file_name'"),
    "record without image": ({"images": [], "annotations": [{"id": 1}]}, "'annotations' has no 'image_id'"),
    "record that is a number": ({"images": [], "annotations": [7]}, "'annotations' has no 'image_id'"),
    "no size": ({"images": [{"id": 1, "file_name": "a.jpg", "height": 0, "width": 3}], "annotations": []}, "picture 'a.jpg' is 3 x 0"),
}  # fmt: skip


@pytest.mark.parametrize("row", BAD_JSON)
def test_bad_annotation_file_is_refused(tmp_path: Path, row: str) -> None:
    document, words = BAD_JSON[row]
    with pytest.raises(DataError, match=words):
        read_annotations(written(tmp_path / "a.json", document), "annotations")


# --- masks painted one over the other ------------------------------------------------------------------------------


def records_of(folder: Path, masks: list[dict[str, Any]], size: tuple[int, int] | None = (2, 3)) -> Records:
    """Write records and return where they lie."""
    text, places = io.StringIO(), []
    for mask in masks:
        start = text.tell()
        text.write(json.dumps(mask))
        places.append((start, text.tell()))
    (folder / "r.json").write_text(text.getvalue())
    return Records(str(folder / "r.json"), tuple(places), size)


def counts(*runs: int) -> dict[str, Any]:
    return {"size": [2, 3], "counts": list(runs)}


def test_painting_by_hand(tmp_path: Path) -> None:
    # Runs go down the columns of 2 x 3: "0 4 2" is the first two columns, "3 1 2" the lower pixel of the second one.
    large, small = (
        {"category_id": 20, "segmentation": counts(0, 4, 2)},
        {"category_id": 300, "segmentation": counts(3, 1, 2)},
    )
    records = records_of(tmp_path, [small, large])
    assert painted("a", records, large_first=False).tolist() == [[20, 20, 0], [20, 20, 0]]
    assert painted("a", records, large_first=True).tolist() == [[20, 20, 0], [20, 300, 0]]
    assert painted("a", records_of(tmp_path, []), large_first=True).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_polygons_of_one_object_are_one_mask(tmp_path: Path) -> None:
    squares = [[0, 0, 1, 0, 1, 1, 0, 1], [2, 1, 3, 1, 3, 2, 2, 2]]
    records = records_of(tmp_path, [{"category_id": 4, "segmentation": squares}])
    assert painted("a", records, large_first=True).tolist() == [[4, 0, 0], [0, 0, 4]]


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, (3, 6, 9)), st.booleans(), st.booleans())
def test_painting_as_with_pycocotools(
    tmp_path_factory: pytest.TempPathFactory, masks: np.ndarray, large_first: bool, as_list: bool
) -> None:
    records, expected = [], np.zeros((6, 9), int)
    for i, mask in enumerate(masks):
        code = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        runs: Any = code
        if as_list:
            flat = mask.T.reshape(-1)
            edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]])))
            runs = np.diff(np.concatenate([[0], edges])).tolist()
        records.append({"category_id": i + 1, "segmentation": {"size": [6, 9], "counts": runs}})
    order = sorted(range(3), key=lambda i: -int(masks[i].sum())) if large_first else range(3)
    for i in order:
        expected[
            coco.decode({"size": [6, 9], "counts": coco.encode(np.asfortranarray(masks[i], np.uint8))["counts"]}) > 0
        ] = i + 1
    place = records_of(tmp_path_factory.mktemp("r"), records, (6, 9))
    assert (painted("a", place, large_first) == expected).all()


BAD_MASK: dict[str, tuple[dict[str, Any], str]] = {
    "no category": ({"segmentation": counts(6)}, "record 1: 'category_id' is None, which is no class id"),
    "category of words": ({"category_id": "cat", "segmentation": counts(6)}, "'category_id' is 'cat'"),
    "no mask": ({"category_id": 1}, "'segmentation' holds neither run lengths nor polygons"),
    "no polygon": ({"category_id": 1, "segmentation": []}, "holds neither run lengths nor polygons"),
    "runs too short": ({"category_id": 1, "segmentation": counts(2, 2)}, r"its run lengths are no mask \("),
    "negative run": ({"category_id": 1, "segmentation": counts(8, -2)}, "its run lengths are no mask"),
    "text that is no code": ({"category_id": 1, "segmentation": {"size": [2, 3], "counts": "ä!"}}, "its run lengths are no mask"),
    "code of another size": ({"category_id": 1, "segmentation": {"size": [2, 3], "counts": "1N"}}, "its run lengths are no mask"),
    "another size": ({"category_id": 1, "segmentation": {"size": [3, 3], "counts": [9]}}, "its mask is 3 x 3, the picture 3 x 2"),
    "size that is none": ({"category_id": 1, "segmentation": {"size": "big", "counts": [9]}}, "its mask is 'big', the picture"),
    "two corners": ({"category_id": 1, "segmentation": [[0, 0, 1, 1]]}, "a polygon needs x and y of three corners or more, this one has 4"),
    "odd polygon": ({"category_id": 1, "segmentation": [[0, 0, 1, 1, 2, 2, 3]]}, "this one has 7 values"),
    "polygon of words": ({"category_id": 1, "segmentation": ["abcdef"]}, "this one has 'abcdef'"),
    "polygon far away": ({"category_id": 1, "segmentation": [[0, 0, 1e9, 0, 1, 1]]}, r"a corner of a polygon lies at \(1e\+09, 0\), far outside"),
}  # fmt: skip


@pytest.mark.parametrize("row", BAD_MASK)
def test_impossible_mask_is_refused_with_file_picture_and_record(tmp_path: Path, row: str) -> None:
    record, words = BAD_MASK[row]
    with pytest.raises(DataError, match=rf"r\.json: picture 'a', record 1: .*{words}|{words}") as caught:
        painted("a", records_of(tmp_path, [record]), large_first=False)
    assert "picture 'a', record 1" in str(caught.value) and "\n" not in str(caught.value)


def test_size_comes_from_the_runs_where_the_file_says_none(tmp_path: Path) -> None:
    mask = {"category_id": 1, "segmentation": counts(5, 1)}
    assert painted("a", records_of(tmp_path, [mask], None), large_first=False).tolist() == [[0, 0, 0], [0, 0, 1]]
    with pytest.raises(DataError, match="picture 'a': its height and width are not there"):
        painted("a", records_of(tmp_path, [], None), large_first=False)
    with pytest.raises(DataError, match="pixels are more than the limit"):
        painted("a", records_of(tmp_path, [], (100_000, 100_000)), large_first=False)


# --- panoptic ------------------------------------------------------------------------------------------------------


def test_segments_by_hand(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 0, 0], [0, 1, 2], [0, 0, 0]]], np.uint8)).save(tmp_path / "a.png")
    segments = [{"id": 1, "category_id": 184}, {"id": 256 + 2 * 65536, "category_id": 3}, {"id": 9, "category_id": 7}]
    records = records_of(tmp_path, [{"segments_info": segments}])
    assert panoptic(tmp_path / "a.png", records).tolist() == [[184, 3, 0]]
    with pytest.raises(DataError, match=r"a\.png: segment 131328, 1 pixels, first at x 1, y 0, is not in .*r\.json"):
        panoptic(tmp_path / "a.png", records_of(tmp_path, [{"segments_info": segments[:1]}]))
    for segment, words in (
        ([segments[0]] * 2, "segment 1 of 'a' stands twice"),
        ([{"id": 0, "category_id": 1}], "has id 0, which is no id"),
        ([{"id": 3}], "has category_id None"),
        ("cat", "no list 'segments_info'"),
    ):
        with pytest.raises(DataError, match=words):
            panoptic(tmp_path / "a.png", records_of(tmp_path, [{"segments_info": segment}]))
