# ruff: noqa: E501 - a row of a table is one line
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.core.data import patterns
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.problems import BrokenData
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError, MachineError, OvsegError, UsageError
from ovseg_cli.core.files import folder_lock
from ovseg_cli.core.reporter import Silent
from tests.core.data import handmade
from tests.core.data.handmade import folders_of, make_source, make_spec, tree
from tests.core.data.test_images import png_header


@dataclass
class Place:
    """Where a row of the table breaks something."""

    source: Path
    root: Path
    spec: Spec

    def image(self, key: str) -> Path:
        return self.source / "images" / f"{key}.png"

    def label(self, key: str) -> Path:
        return self.source / "labels" / f"{key}.png"


def cut(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone.png")


def listed(place: Place, text: str | bytes) -> None:
    place.spec = make_spec(place.source.parent, listed='list = "val.txt"')
    (place.source / "val.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def no_generator(place: Place) -> None:
    place.spec = place.spec.model_copy(update={"generator": "four-scens"})


# name: (what is broken, class of the error, parts of its message)
BROKEN: dict[str, tuple[Callable[[Place], object], type[OvsegError], list[str]]] = {
    "image without label": (lambda p: p.label("train/a").unlink(), DataError, ["train/a.png: this label is missing", "the image 'a'"]),
    "label without image": (lambda p: p.image("train/a").unlink(), DataError, ["train/a.png: this image is missing", "the label 'a'"]),
    "truncated image": (lambda p: cut(p.image("train/b")), DataError, ["images/train/b.png: the file is cut off or damaged"]),
    "truncated label": (lambda p: cut(p.label("train/b")), DataError, ["labels/train/b.png: the file is cut off or damaged"]),
    "empty image": (lambda p: p.image("val/c").write_bytes(b""), DataError, ["val/c.png: the file is empty"]),
    "label that is text": (lambda p: p.label("val/c").write_text("cat"), DataError, ["labels/val/c.png: this is not a picture"]),
    "label of another size": (lambda p: handmade.write_png(p.label("val/c"), [[10]]), DataError, ["val/c.png: the label is 1 x 1, its image 3 x 2"]),
    "image of one pixel": (lambda p: Image.new("RGB", (1, 1)).save(p.image("val/c")), DataError, ["the label is 3 x 2, its image 1 x 1"]),
    "value outside the spec": (lambda p: handmade.write_png(p.label("val/c"), [[10, 77, 77], [9, 0, 0]]), DataError, ["val/c.png: the label holds values 9 (1 pixels), 77 (2 pixels), which mini does not know"]),
    "label in colour": (lambda p: Image.new("RGB", (3, 2)).save(p.label("val/c")), DataError, ["val/c.png: a label map needs one channel"]),
    "huge header": (lambda p: p.image("val/c").write_bytes(png_header(20_000, 20_000)), DataError, ["20000 x 20000 pixels are more than the limit"]),
    "folder in place of an image": (lambda p: folder_instead(p.image("val/c")), DataError, ["val/c.png: this is a folder"]),
    "link to nothing": (lambda p: link_to_nothing(p.image("val/c")), DataError, ["val/c.png: there is no such file (a link to ", "which is gone"]),
    "missing source": (lambda p: shutil.rmtree(p.source), DataError, ["source: there is no such folder", "--source DIR"]),
    "source is a file": (lambda p: (shutil.rmtree(p.source), p.source.write_text("")), DataError, ["source: this is a file"]),
    "empty source": (lambda p: (shutil.rmtree(p.source), p.source.mkdir()), DataError, ["no known layout of mini", "looked for images/train, images/val"]),
    "wrong layout": (lambda p: (p.source / "images").rename(p.source / "pictures"), DataError, ["no known layout of mini"]),
    "labels' folder missing": (lambda p: shutil.rmtree(p.source / "labels" / "val"), DataError, ["labels/val: this folder of 'val' is missing"]),
    "empty subset": (lambda p: (p.image("val/c").unlink(), p.label("val/c").unlink()), DataError, ["there is no picture of 'val'"]),
    "list names a missing file": (lambda p: listed(p, "c\nd\n"), DataError, ["val/d.png: this image is missing (listed in val.txt)"]),
    "list names a file twice": (lambda p: listed(p, "c\nc\n"), DataError, ["val.txt, line 2: 'c' is listed twice"]),
    "empty list": (lambda p: listed(p, "\n\n"), DataError, ["val.txt: there is no picture of 'val'"]),
    "list that is no text": (lambda p: listed(p, b"\xff\xfe\x00"), DataError, ["val.txt: the list cannot be read"]),
    "generator missing": (no_generator, UsageError, ["unknown generator 'four-scens'"]),
    "file in the way of the output": (lambda p: (p.root.parent.mkdir(), p.root.write_text("")), MachineError, ["cannot write", "in the way"]),
    "somebody's files in the output": (lambda p: handmade.write_png(p.root / "labels/x.png", [[1]]), DataError, ["files that ovseg did not write (labels)"]),
}  # fmt: skip


@pytest.mark.parametrize("row", BROKEN)
def test_broken_input_is_named_with_the_step_that_mends_it(tmp_path: Path, row: str) -> None:
    break_it, error, parts = BROKEN[row]
    place = Place(make_source(tmp_path / "source"), tmp_path / "datasets" / "mini", make_spec(tmp_path))
    break_it(place)
    before = tree(place.source) if place.source.is_dir() else {}
    source = None if place.spec.generator else place.source
    with pytest.raises(error) as caught:
        prepare(place.spec, folders_of(tmp_path), source)
    assert type(caught.value) in (error, BrokenData)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (place.root / "manifest.json").exists() and not list((tmp_path / "datasets").rglob("*.part"))
    assert (tree(place.source) if place.source.is_dir() else {}) == before
    if error is DataError and place.source.is_dir() and place.spec.generator is None and "output" not in row:
        with pytest.raises(error) as again:  # the same is found without writing
            prepare(place.spec, folders_of(tmp_path / "elsewhere"), source, check_only=True)
        assert parts[0] in str(again.value)
        assert not (tmp_path / "elsewhere").exists()


def test_source_inside_the_prepared_folder_is_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path / "datasets" / "mini" / "raw")
    with pytest.raises(UsageError, match="originals are never overwritten"):
        prepare(make_spec(tmp_path), folders_of(tmp_path), source)
    assert tree(tmp_path / "datasets") == {f"mini/raw/{k}": v for k, v in tree(source).items()}


def test_drawn_data_takes_no_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toy is drawn by the program"):
        prepare(load_spec("toy"), folders_of(tmp_path), tmp_path)


def test_no_source_at_all_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder of its files is not known") as caught:
        prepare(make_spec(tmp_path), folders_of(tmp_path))
    assert "mini.toml --source DIR" in str(caught.value)


def test_two_files_of_one_name_are_a_problem(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, handmade.SPEC.replace('"images/val/{stem}.png"', '"images/val/**/{stem}.png"'))
    source = make_source(tmp_path / "source")
    handmade.write_png(source / "images/val/again/c.png", handmade.picture("c"))
    with pytest.raises(DataError, match="has the same name 'c'"):
        prepare(spec, folders_of(tmp_path), source)


def test_all_problems_are_listed_the_first_ones_shown(tmp_path: Path) -> None:
    source, spec = make_source(tmp_path / "source"), make_spec(tmp_path)
    for i in range(6):
        handmade.write_png(source / f"images/train/x{i}.png", handmade.picture(f"x{i}"))
    with pytest.raises(BrokenData, match="mini: 6 problems: .*; and 2 more") as caught:
        prepare(spec, folders_of(tmp_path), source)
    assert len(caught.value.problems) == 6
    listed_lines = (tmp_path / "datasets/mini/problems.txt").read_text().splitlines()
    assert len(listed_lines) == 6 and all("this label is missing" in line for line in listed_lines)
    assert "problems.txt" in str(caught.value)


def test_good_pictures_are_kept_when_others_are_broken(tmp_path: Path) -> None:
    source, spec, folders = make_source(tmp_path / "source"), make_spec(tmp_path), folders_of(tmp_path)
    label = (source / "labels/train/a.png").read_bytes()
    (source / "labels/train/a.png").write_bytes(label[:30])
    with pytest.raises(DataError):
        prepare(spec, folders, source)
    (source / "labels/train/a.png").write_bytes(label)
    assert prepare(spec, folders, source).made == 1
    assert not (tmp_path / "datasets/mini/problems.txt").exists()


def test_same_picture_in_training_and_validation_is_a_warning(tmp_path: Path) -> None:
    source, reporter = make_source(tmp_path / "source"), Silent()
    shutil.copy(source / "images/train/b.png", source / "images/val/c.png")
    report = prepare(make_spec(tmp_path), folders_of(tmp_path), source, reporter)
    expected = "1 picture is in the training set and in 'val': train/b = val/c."
    assert expected in report.warnings and expected in reporter.warnings


def test_classes_that_never_occur_and_absent_subsets_are_warnings(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    shutil.rmtree(source / "images" / "val")
    handmade.write_png(source / "labels/train/b.png", [[10] * 3] * 2)
    report = prepare(make_spec(tmp_path), folders_of(tmp_path), source)
    assert report.warnings == (
        "mini: subset 'val' (1 pictures) is not there.",
        "mini: 1 class never occurs in subset 'train': dog.",
    )


@pytest.mark.parametrize(
    ("count", "words"), [(5, "2 of the 5 pictures"), (1, "has 2 pictures, more than the official 1")]
)
def test_other_counts_than_the_official_ones_are_warnings(tmp_path: Path, count: int, words: str) -> None:
    spec = make_spec(tmp_path, handmade.SPEC.replace("images = 2", f"images = {count}"))
    report = prepare(spec, folders_of(tmp_path), make_source(tmp_path / "source"))
    assert words in report.warnings[0]
    shortfall = PreparedData.open(spec, folders_of(tmp_path)).shortfall
    assert shortfall == ({"train": (2, 5)} if count == 5 else {})


DAMAGED: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "label changed": (lambda root, _: handmade.write_png(root / "labels/train/a.png", [[0, 0, 1], [0, 1, 1]]), "train/a.png: the label has changed"),
    "label outside the spec": (lambda root, _: handmade.write_png(root / "labels/val/c.png", [[7, 0, 0], [0, 0, 0]]), "value 7 is outside the spec"),
    "label missing": (lambda root, _: (root / "labels/val/c.png").unlink(), "labels/val/c.png: there is no such file"),
    "unseen class in training labels": (lambda root, _: shutil.copy(root / "labels/train/b.png", root / "labels-no-dog/train/b.png"), "does not leave out exactly the unseen classes of split 'no-dog'"),
    "picture changed": (lambda _, source: handmade.write_png(source / "images/val/c.png", handmade.picture("other")), "val/c.png: the picture has changed"),
    "picture resized": (lambda _, source: handmade.write_png(source / "images/val/c.png", handmade.picture("c", 4, 4)), "is 4 x 4, was 3 x 2 when prepared"),
    "picture gone": (lambda _, source: (source / "images/val/c.png").unlink(), "val/c.png: there is no such file"),
    "stray label": (lambda root, _: handmade.write_png(root / "labels/val/z.png", [[0]]), "val/z.png: this label has no image"),
    "stray image": (lambda root, _: handmade.write_png(root / "images/val/z.png", [[0]]), "val/z.png: this image has no label"),
}  # fmt: skip


@pytest.mark.parametrize("row", DAMAGED)
def test_check_finds_what_happened_after_the_preparation(tmp_path: Path, row: str) -> None:
    spec, folders, source = make_spec(tmp_path), folders_of(tmp_path), make_source(tmp_path / "source")
    prepared = prepare(spec, folders, source)
    assert prepare(spec, folders, check_only=True).fingerprint == prepared.fingerprint
    damage, words = DAMAGED[row]
    damage(prepared.root, source)
    before = tree(prepared.root)
    with pytest.raises(BrokenData) as caught:
        prepare(spec, folders, check_only=True)
    assert words in str(caught.value) and "ovseg prepare mini" in str(caught.value)
    assert not caught.value.mend.startswith("Then"), "the first thing to do is named"
    assert tree(prepared.root) == before, "a check writes nothing"


def test_check_of_unprepared_data_says_how_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'mini': it is not prepared.*ovseg prepare \S*mini\.toml --source DIR"):
        prepare(make_spec(tmp_path), folders_of(tmp_path), check_only=True)


def test_check_of_a_source_reports_what_preparing_would(tmp_path: Path) -> None:
    spec, source = make_spec(tmp_path), make_source(tmp_path / "source")
    checked = prepare(spec, folders_of(tmp_path), source, check_only=True)
    assert not (tmp_path / "datasets").exists() and not checked.written
    prepared = prepare(spec, folders_of(tmp_path), source)
    assert (checked.fingerprint, checked.pixels, checked.warnings) == (
        prepared.fingerprint,
        prepared.pixels,
        prepared.warnings,
    )


def test_checking_needs_no_lock(tmp_path: Path) -> None:
    spec, folders = make_spec(tmp_path), folders_of(tmp_path)
    prepare(spec, folders, make_source(tmp_path / "source"))
    with folder_lock(tmp_path / "datasets" / "mini", "preparing mini"):
        assert prepare(spec, folders, check_only=True).made == 3


def test_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    source = make_source(tmp_path / "source")
    monkeypatch.setattr(patterns.os, "scandir", deny)
    with pytest.raises(DataError, match="images/train: the folder cannot be listed"):
        prepare(make_spec(tmp_path), folders_of(tmp_path), source)
