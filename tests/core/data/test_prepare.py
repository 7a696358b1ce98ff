import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovseg_cli.core.data import convert, parallel, upkeep
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.images import load_label
from ovseg_cli.core.data.index import read_index
from ovseg_cli.core.data.manifest import describe, last_prepared, prepared_names
from ovseg_cli.core.data.prepare import plan, prepare
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import explain_os_error, folder_lock
from ovseg_cli.core.registry import GENERATORS, Entry
from ovseg_cli.core.reporter import Silent
from tests.core.data import handmade
from tests.core.data.handmade import TRAIN_IDS, WITHOUT_DOG, folders_of, make_source, make_spec, tree


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return make_spec(tmp_path)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.setitem(GENERATORS, "four-scenes", Entry("tests.core.data.handmade:FourScenes", "four scenes", "ours"))
    return make_spec(tmp_path, handmade.GENERATED)


class Counting(Silent):
    """Counts the pictures that are worked on; interrupts after some of them."""

    def __init__(self, stop_after: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self.seen, self.stop_after, self.error, self.said = 0, stop_after, error, list[str]()

    def say(self, message: str) -> None:
        self.said.append(message)

    def track(self, items: Iterable, what: str, total: int | None = None) -> Iterator:
        for item in items:
            yield item
            self.seen += 1
            if self.seen == self.stop_after:
                raise self.error


def test_three_pictures_become_train_ids(tmp_path: Path, spec: Spec) -> None:
    report = prepare(spec, folders_of(tmp_path), make_source(tmp_path / "source"))
    root = tmp_path / "datasets" / "mini"
    for key, ids in TRAIN_IDS.items():
        assert load_label(root / "labels" / f"{key}.png").tolist() == ids
    for key, ids in WITHOUT_DOG.items():
        assert load_label(root / "labels-no-dog" / f"{key}.png").tolist() == ids
    assert not (root / "labels-no-dog" / "val").exists(), "only training subsets get seen-only labels"
    # grass, cat, dog; counted by hand in handmade.TRAIN_IDS
    assert report.pixels == {"train": [6, 2, 3], "val": [1, 1, 1]}
    assert report.pictures == {"train": [2, 1, 1], "val": [1, 1, 1]}
    assert report.ignored == {"train": 1, "val": 3}
    assert report.images == {"train": 2, "val": 1} and report.made == 3 and report.warnings == ()


def test_pictures_are_linked_and_originals_untouched(tmp_path: Path, spec: Spec) -> None:
    source = make_source(tmp_path / "source")
    before = tree(source)
    prepare(spec, folders_of(tmp_path), source)
    image = tmp_path / "datasets" / "mini" / "images" / "train" / "a.png"
    assert image.is_symlink() and image.resolve() == (source / "images" / "train" / "a.png").resolve()
    assert tree(source) == before


def test_pictures_are_copied_where_links_fail_and_it_is_said(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(1, "links are not supported here")

    monkeypatch.setattr(os, "symlink", refuse)
    reporter = Counting()
    prepare(spec, folders_of(tmp_path), make_source(tmp_path / "source"), reporter)
    image = tmp_path / "datasets" / "mini" / "images" / "train" / "a.png"
    assert not image.is_symlink()
    assert image.read_bytes() == (tmp_path / "source" / "images" / "train" / "a.png").read_bytes()
    assert any("copied" in message for message in reporter.said)
    again = Counting()
    prepare(spec, folders_of(tmp_path), reporter=again)
    assert again.seen == 0


def test_second_run_does_nothing_and_finds_the_source_by_itself(tmp_path: Path, spec: Spec) -> None:
    folders = folders_of(tmp_path)
    first = prepare(spec, folders, make_source(tmp_path / "source"))
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "datasets").rglob("*.png")}
    again = Counting()
    second = prepare(spec, folders, reporter=again)
    assert (second.made, again.seen) == (0, 0)
    assert second.fingerprint == first.fingerprint
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "datasets").rglob("*.png")} == files


def test_only_what_changed_or_is_missing_is_done_again(tmp_path: Path, spec: Spec) -> None:
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    first = prepare(spec, folders, source)
    (tmp_path / "datasets/mini/labels-no-dog/train/a.png").unlink()
    handmade.write_png(source / "labels/val/c.png", [[10, 10, 10], [0, 0, 0]])
    report = prepare(spec, folders)
    assert report.made == 2
    assert report.pixels["val"] == [3, 0, 0] and report.fingerprint != first.fingerprint
    assert load_label(tmp_path / "datasets/mini/labels/val/c.png").tolist() == [[0, 0, 0], [255, 255, 255]]
    assert load_label(tmp_path / "datasets/mini/labels-no-dog/train/a.png").tolist() == WITHOUT_DOG["train/a"]


def test_pictures_that_left_the_source_leave_the_prepared_data(tmp_path: Path, spec: Spec) -> None:
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    prepare(spec, folders, source)
    for kind in ("images", "labels"):
        (source / kind / "train" / "b.png").unlink()
    report = prepare(spec, folders)
    assert report.images == {"train": 1, "val": 1} and report.made == 0
    assert not [path for path in tree(tmp_path / "datasets") if path.endswith("b.png")]
    assert report.warnings[0] == "mini: subset 'train' has 1 of the 2 pictures of the official one."


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_preparation_goes_on(tmp_path: Path, spec: Spec, error: type[BaseException]) -> None:
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    with pytest.raises(error):
        prepare(spec, folders, source, Counting(stop_after=1, error=error))
    assert describe(folders, "mini").state == "unfinished" and prepared_names(folders) == []
    with pytest.raises(DataError, match="preparation was not finished") as caught:
        PreparedData.open(spec, folders)
    assert "mini.toml --source DIR" in str(caught.value)
    again = Counting()
    prepare(spec, folders, source, again)
    assert again.seen == 2
    other = folders_of(tmp_path / "other")
    assert prepare(spec, other, source).fingerprint == PreparedData.open(spec, folders).fingerprint


def test_kill_within_a_line_of_the_index_loses_that_picture_only(tmp_path: Path, spec: Spec) -> None:
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    prepare(spec, folders, source)
    root = tmp_path / "datasets" / "mini"
    index = root / "index" / "train.jsonl"
    index.write_bytes(index.read_bytes()[:-20])
    (root / "labels" / "train" / ".b.png.x1.part").write_bytes(b"half")
    again = Counting()
    prepare(spec, folders, reporter=again)
    assert again.seen == 1
    assert not list(root.rglob("*.part"))


def test_failed_write_leaves_no_half_file_and_keeps_finished_work(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    write, calls = convert.write_label, []

    def full(path: Path, *args: object, **options: object) -> int:
        calls.append(path)
        if len(calls) > 3:
            raise explain_os_error(OSError(28, "No space left on device"), path)
        return write(path, *args, **options)

    monkeypatch.setattr(convert, "write_label", full)
    with pytest.raises(Exception, match="the disk is full") as caught:
        prepare(spec, folders, source)
    assert caught.value.exit_code == 4
    assert list(read_index(tmp_path / "datasets/mini", "train")) == ["a"]
    assert not list((tmp_path / "datasets").rglob("*.part"))


def test_changed_spec_makes_everything_again(tmp_path: Path, spec: Spec) -> None:
    folders = folders_of(tmp_path)
    prepare(spec, folders, make_source(tmp_path / "source"))
    swapped = make_spec(tmp_path / "new", handmade.SPEC.replace("raw_id = 10", "raw_id = 99").replace("raw_id = 20", "raw_id = 10").replace("raw_id = 99", "raw_id = 20"))  # fmt: skip  # noqa: E501
    report = prepare(swapped, folders)
    assert report.made == 3
    assert report.pixels["train"] == [2, 6, 3], "grass and cat have changed places"


def test_changed_class_split_rewrites_seen_only_labels(tmp_path: Path, spec: Spec) -> None:
    folders = folders_of(tmp_path)
    first = prepare(spec, folders, make_source(tmp_path / "source"))
    other = make_spec(tmp_path / "new", handmade.SPEC.replace("no-dog", "no-cat").replace('["dog"]', '["cat"]'))
    second = prepare(other, folders)
    root = tmp_path / "datasets" / "mini"
    assert load_label(root / "labels-no-cat/train/a.png").tolist() == [[0, 0, 255], [0, 255, 255]]
    assert not (root / "labels-no-dog").exists()
    assert first.fingerprint == second.fingerprint, "pictures and full labels are the same"


def test_generator_is_drawn_with_captions(tmp_path: Path, drawn: Spec) -> None:
    report = prepare(drawn, folders_of(tmp_path))
    root = tmp_path / "datasets" / "mini"
    # Scenes 0, 1, 2 of train: 24 pixels each, 1 ignored, 11 of class i on the left, 12 of class 0 on the right.
    assert report.pixels["train"] == [23 + 12 + 12, 11, 11] and report.ignored["train"] == 3
    lines = [json.loads(line) for line in (root / "captions" / "train.jsonl").read_text().splitlines()]
    assert lines[2] == {"name": "00002", "caption": "train scene 2"}
    assert np.array_equal(np.asarray(Image.open(root / "images/train/00001.png")), handmade.picture("train1", 4, 6))
    assert (load_label(root / "labels-no-dog/train/00002.png") == 255).sum() == 12


def test_changed_generator_is_drawn_again(tmp_path: Path, drawn: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = folders_of(tmp_path)
    assert prepare(drawn, folders).made == 4
    assert prepare(drawn, folders).made == 0
    monkeypatch.setattr(handmade.FourScenes, "version", "four-2")
    assert prepare(drawn, folders).made == 4


def test_processes_give_the_files_of_one(tmp_path: Path, drawn: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    one = prepare(drawn, folders_of(tmp_path / "one"))
    monkeypatch.setattr(parallel, "PATIENCE", 0.0)
    two = prepare(drawn, folders_of(tmp_path / "two"), workers=2)
    assert one.fingerprint == two.fingerprint
    names = [n for n in tree(one.root) if n.startswith(("images", "labels", "captions"))]
    assert len(names) == 4 + 4 + 3 + 2
    assert all(tree(one.root)[name] == tree(two.root)[name] for name in names)


def test_plan_writes_nothing_and_counts_what_is_left(tmp_path: Path, spec: Spec) -> None:
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    before = plan(spec, folders, source)
    assert not (tmp_path / "datasets").exists()
    assert before.images == before.left == {"train": 2, "val": 1}
    assert before.layout == "official" and before.splits == ("no-dog",) and 0 < before.need < before.free
    prepare(spec, folders, source)
    assert plan(spec, folders).left == {"train": 0, "val": 0} and plan(spec, folders).need == 0


@pytest.mark.parametrize("place", [".", "mini", "unpacked", "unpacked/mini"])
def test_layout_is_found_at_its_roots_and_one_level_below(tmp_path: Path, spec: Spec, place: str) -> None:
    make_source(tmp_path / "source" / place)
    assert plan(spec, folders_of(tmp_path), tmp_path / "source").images == {"train": 2, "val": 1}


def test_list_decides_which_files_belong(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, listed='list = "val.txt"\nlist_columns = "paths"')
    source = make_source(tmp_path / "source")
    handmade.write_png(source / "images/val/unlisted.png", handmade.picture("unlisted"))
    (source / "val.txt").write_text("/SegNet/x/val/c.png /SegNet/x/valannot/c.png\n")
    with pytest.raises(DataError, match="does not fit"):
        prepare(spec, folders_of(tmp_path), source)  # the last parts of a path must be the pattern's
    (source / "val.txt").write_text("/a/b/images/val/c.png /elsewhere/labels/val/c.png\r\n\n")
    report = prepare(spec, folders_of(tmp_path), source)
    assert report.images["val"] == 1


def test_subset_without_labels_is_prepared_without(tmp_path: Path) -> None:
    text = handmade.SPEC.replace('labels = "labels/val/{stem}.png"\n', "")
    spec, folders = make_spec(tmp_path, text), folders_of(tmp_path)
    prepare(spec, folders, make_source(tmp_path / "source"))
    sample = PreparedData.open(spec, folders).subset("val")[0]
    assert sample.name == "c" and sample.label is None
    assert prepare(spec, folders).made == 0


def test_rotation_of_a_picture_yields_to_its_label(tmp_path: Path, spec: Spec) -> None:
    """Some labels were drawn on pictures as stored, others on pictures as shown: the size tells."""
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    exif = Image.Exif()
    exif[0x0112] = 6
    for key, shape in {"train/a": (2, 3), "train/b": (3, 2)}.items():
        Image.fromarray(handmade.picture(key, *shape)).save(source / f"images/{key}.png", exif=exif)
    prepare(spec, folders, source)
    data = PreparedData.open(spec, folders).subset("train")
    assert np.array_equal(data.image(0), handmade.picture("train/a"))
    assert np.array_equal(data.image(1), np.rot90(handmade.picture("train/b", 3, 2), -1))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_conversion_and_reading_give_the_table_applied(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("data")
    raw = data.draw(
        st.lists(st.lists(st.sampled_from([0, 10, 20, 30]), min_size=5, max_size=5), min_size=1, max_size=6)
    )
    source, spec = make_source(folder / "source"), make_spec(folder)
    handmade.write_png(source / "labels/val/c.png", raw)
    handmade.write_png(source / "images/val/c.png", handmade.picture("c", len(raw), 5))
    prepare(spec, folders_of(folder), source)
    label = PreparedData.open(spec, folders_of(folder)).subset("val")[0].label
    meaning = {0: 255, 10: 0, 20: 1, 30: 2}
    assert label.tolist() == [[meaning[value] for value in row] for row in raw]


def test_16_bit_labels_keep_ids_above_255(tmp_path: Path) -> None:
    text = handmade.SPEC.replace("bits = 8", "bits = 16").replace("raw_id = 30", "raw_id = 3000").replace(
        "ignore_label = 255", "ignore_label = 65535").replace("uint8", "uint16")  # fmt: skip
    spec, folders, source = make_spec(tmp_path, text), folders_of(tmp_path), make_source(tmp_path / "source")
    for key in handmade.RAW:
        values = np.array(handmade.RAW[key], np.uint16)
        handmade.write_png(source / f"labels/{key}.png", np.where(values == 30, 3000, values), "uint16")
    prepare(spec, folders, source)
    label = PreparedData.open(spec, folders).subset("val")[0].label
    assert label.tolist() == [[1, 2, 0], [65535] * 3]


def test_last_prepared_is_the_newest_even_if_nothing_was_left_to_do(tmp_path: Path, spec: Spec, drawn: Spec) -> None:
    folders = folders_of(tmp_path)
    assert last_prepared(folders) is None
    prepare(spec, folders, make_source(tmp_path / "source"))
    other = tmp_path / "datasets" / "other"
    shutil.copytree(tmp_path / "datasets" / "mini", other, symlinks=True)
    os.utime(other / "manifest.json", ns=(1, 1))
    assert last_prepared(folders) == "mini" and prepared_names(folders) == ["mini", "other"]
    os.utime(tmp_path / "datasets" / "mini" / "manifest.json", ns=(0, 0))
    assert last_prepared(folders) == "other"
    prepare(spec, folders, tmp_path / "source")
    assert last_prepared(folders) == "mini"


def test_second_process_is_told_to_wait(tmp_path: Path, spec: Spec) -> None:
    source = make_source(tmp_path / "source")
    with folder_lock(tmp_path / "datasets" / "mini", "preparing mini"):
        with pytest.raises(Exception, match="preparing mini is already under way in process") as caught:
            prepare(spec, folders_of(tmp_path), source)
    assert caught.value.exit_code == 4


def test_disk_too_small_is_said_before_anything_is_written(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "free_bytes", lambda _root: 1000)
    with pytest.raises(Exception, match=r"preparing needs about 0\.07 GB, 0\.00 GB are free") as caught:
        prepare(spec, folders_of(tmp_path), make_source(tmp_path / "source"))
    assert caught.value.exit_code == 4
    assert not list((tmp_path / "datasets").rglob("*.png"))


def test_camvid_sample_is_prepared_as_counted_independently(samples: Path, tmp_path: Path) -> None:
    source, folders, spec = samples / "camvid-mini", folders_of(tmp_path), load_spec("camvid")
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    report = prepare(spec, folders, source)
    for subset in ("train", "val", "test"):
        names = [line.split()[1].split("/")[-1] for line in (source / f"{subset}.txt").read_text().split("\n") if line]
        counts = sum(
            np.bincount(np.asarray(Image.open(source / f"{subset}annot" / n)).ravel(), minlength=12) for n in names
        )
        assert report.images[subset] == len(names)
        assert [*report.pixels[subset], report.ignored[subset]] == counts.tolist()
        fewer = len(names) < spec.subsets[subset].images
        assert any(f"{len(names)} of the {spec.subsets[subset].images}" in w for w in report.warnings) == fewer
    data = PreparedData.open(spec, folders)
    full, seen = data.subset("train"), data.subset("train", spec.split("9-2"))
    hidden = spec.unseen_ids(spec.split("9-2"))
    assert seen.folder == "labels-9-2"
    expected = full[0].label.clone()
    expected[np.isin(expected.numpy(), hidden)] = 255
    assert seen[0].label.tolist() == expected.tolist()
    assert prepare(spec, folders, check_only=True).fingerprint == report.fingerprint


@pytest.mark.parametrize("name", ["voc-20", "voc-21"])
def test_voc_sample_has_the_expected_pixels(samples: Path, tmp_path: Path, name: str) -> None:
    source, spec, folders = samples / "voc-sample", load_spec(name), folders_of(tmp_path)
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    prepare(spec, folders, source)
    expected = json.loads((source / "expected.json").read_text())
    for entry in PreparedData.open(spec, folders).subset("val").entries:
        assert [entry.height, entry.width] == expected[entry.stem]["size_hw"]
        assert {str(value): count for value, count in entry.pixels} == expected[entry.stem][name]


def test_same_split_id_with_other_unseen_classes_rewrites_its_labels(tmp_path: Path, spec: Spec) -> None:
    folders = folders_of(tmp_path)
    prepare(spec, folders, make_source(tmp_path / "source"))
    changed = make_spec(tmp_path / "new", handmade.SPEC.replace('["dog"]', '["cat"]'))
    assert prepare(changed, folders).made == 2, "the pictures of the training subset"
    label = load_label(tmp_path / "datasets/mini/labels-no-dog/train/a.png")
    assert label.tolist() == [[0, 0, 255], [0, 255, 255]]


def test_interrupted_update_does_not_open_as_if_complete(tmp_path: Path, spec: Spec) -> None:
    folders, source = folders_of(tmp_path), make_source(tmp_path / "source")
    prepare(spec, folders, source)
    for key in ("train/a", "train/b"):
        handmade.write_png(source / f"labels/{key}.png", [[10] * 3] * 2)
    with pytest.raises(KeyboardInterrupt):
        prepare(spec, folders, reporter=Counting(stop_after=1), source=source)
    with pytest.raises(DataError, match="preparation was not finished"):
        PreparedData.open(spec, folders)
    assert prepare(spec, folders, source).made == 1
