"""`--source` may hold the official archives themselves: what is prepared from them is what their folders give."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ovseg_cli.core.data import source_tree
from ovseg_cli.core.data import unpack as unpacking
from ovseg_cli.core.data.manifest import read_manifest
from ovseg_cli.core.data.prepare import plan, prepare
from ovseg_cli.core.data.source_tree import find_tree
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.files import folder_lock
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders
from tests.core.data.handmade import folders_of, make_source, make_spec, tree
from tests.core.data.packing import PUBLISHED, make_mini, pack_all, pack_zip
from tests.core.data.test_unpack import make_tar, make_zip


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody pulls the plug here: do not wait for the disk at each of some thousand small files."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class Heard(Silent):
    """Keeps what is said and tracked; may interrupt."""

    def __init__(self, stop_in: str = "nothing") -> None:
        super().__init__()
        self.said, self.tracked, self.stop_in = list[str](), list[str](), stop_in

    def say(self, message: str) -> None:
        self.said.append(message)

    def track(self, items: Iterable, what: str, total: int | None = None) -> Iterator:
        self.tracked.append(what)
        for item in items:
            yield item
            if self.stop_in in what:
                raise KeyboardInterrupt

    @property
    def unpacked(self) -> list[str]:
        return [what.split()[1] for what in self.tracked if what.startswith("unpack ")]


def labels_of(root: Path) -> dict[str, bytes]:
    """All labels of a prepared data set with their bytes."""
    return {name: data for name, data in tree(root).items() if name.startswith("labels")}


@pytest.mark.parametrize(("name", "layout"), PUBLISHED, ids=[f"{n}-{i}" for n, i in PUBLISHED])
def test_archives_give_what_their_folders_give(tmp_path: Path, name: str, layout: str) -> None:
    spec, _ = make_mini(tmp_path / "unpacked", name, layout)
    pack_all(tmp_path / "unpacked", tmp_path / "packed", name, layout)
    before = tree(tmp_path / "packed")
    direct, packed = (Folders(tmp_path / place, tmp_path) for place in ("a", "b"))
    one = prepare(spec, direct, tmp_path / "unpacked")
    two = prepare(spec, packed, tmp_path / "packed")
    assert two.fingerprint == one.fingerprint and two.images == one.images and two.pixels == one.pixels
    assert labels_of(two.root) == labels_of(one.root) and labels_of(one.root)
    assert read_manifest(two.root)["layout"] == read_manifest(one.root)["layout"] == layout
    assert tree(tmp_path / "packed") == before, "archives are only read"
    heard = Heard()
    again = prepare(spec, packed, tmp_path / "packed", heard)
    assert (again.made, heard.unpacked) == (0, []), "a second run has nothing to do"
    assert prepare(spec, packed).source == tmp_path / "packed", "the source is remembered as it was typed"
    assert prepare(spec, packed, check_only=True).fingerprint == one.fingerprint
    assert prepare(spec, packed, tmp_path / "packed", check_only=True).images == one.images
    assert not list((tmp_path / "b").rglob("*.unpacking")) and not list((tmp_path / "b").rglob("*.zip"))


def ready(tmp_path: Path, name: str, layout: str = "official") -> tuple:
    spec, made = make_mini(tmp_path / "unpacked", name, layout)
    archives = pack_all(tmp_path / "unpacked", tmp_path / "packed", name, layout)
    return spec, folders_of(tmp_path), tmp_path / "packed", archives, made


@pytest.mark.parametrize("name", ["ade20k-150", "coco-stuff", "cityscapes"])
def test_source_may_be_an_archive_itself(tmp_path: Path, name: str) -> None:
    spec, folders, _, archives, made = ready(tmp_path, name)
    report = prepare(spec, folders, archives[-1])
    assert report.images == {subset: len(labels) for subset, labels in made.expected.items()}
    assert prepare(spec, folders).made == 0 and report.source == archives[-1]


def test_named_archive_may_have_any_name_and_others_beside_it_do_not_count(tmp_path: Path) -> None:
    spec, folders, packed, (archive,), _ = ready(tmp_path, "ade20k-150")
    mine = archive.rename(packed / "my copy (1).ZIP")
    make_zip(packed / "other.zip", {"ADEChallengeData2016/images/training/x.jpg": b"no picture"})
    assert prepare(spec, folders, mine).images == {"train": 2, "val": 2}


def test_archives_one_level_below_are_found(tmp_path: Path) -> None:
    spec, folders, packed, archives, _ = ready(tmp_path, "coco-stuff")
    (packed / "zips").mkdir()
    archives[0].rename(packed / "zips" / archives[0].name)
    assert prepare(spec, folders, packed).images == {"train": 2, "val": 2}


def test_data_sets_of_the_same_archives_share_what_is_unpacked(tmp_path: Path) -> None:
    spec, folders, packed, *_ = ready(tmp_path, "coco-stuff")
    prepare(spec, folders, packed)
    heard, other = Heard(), load_spec("coco-object")
    assert prepare(other, folders, packed, heard).images == {"train": 2, "val": 2} and heard.unpacked == []


def test_what_people_unpacked_is_left_alone(tmp_path: Path) -> None:
    spec, folders, _, archives, _ = ready(tmp_path, "cityscapes")
    for archive in archives:
        shutil.move(archive, tmp_path / "unpacked" / archive.name)
    assert find_tree(spec, folders, tmp_path / "unpacked") is None
    prepare(spec, folders, tmp_path / "unpacked")
    assert not (folders.data / "_unpacked").exists()


def test_part_that_people_unpacked_joins_what_is_unpacked_here(tmp_path: Path) -> None:
    """Pictures of training lie unpacked in images/, those of validation and the labels are still packed."""
    spec, folders, packed, archives, _ = ready(tmp_path, "coco-stuff")
    shutil.move(tmp_path / "unpacked" / "images" / "train2017", packed / "images" / "train2017")
    before, heard = tree(packed), Heard()
    assert prepare(spec, folders, packed, heard).images == {"train": 2, "val": 2}
    assert heard.unpacked == ["stuffthingmaps_trainval2017.zip", "val2017.zip"] and tree(packed) == before


@pytest.mark.parametrize("name", ["coco-stuff", "coco-object"])
def test_pictures_unpacked_at_the_top_and_packed_labels_are_one_data_set(tmp_path: Path, name: str) -> None:
    spec, folders, packed, archives, _ = ready(tmp_path, name)
    for archive in archives[:2]:
        archive.unlink()
        shutil.move(tmp_path / "unpacked" / "images" / archive.stem, packed / archive.stem)
    assert prepare(spec, folders, packed).images == {"train": 2, "val": 2}


def test_later_archives_are_not_written_through_links_into_the_source(tmp_path: Path) -> None:
    """annotations/ is linked at first; then the archive that belongs there turns up."""
    spec, folders, packed, archives, _ = ready(tmp_path, "coco-stuff")
    labels = archives[2].rename(tmp_path / "later.zip")
    shutil.copytree(tmp_path / "unpacked" / "annotations" / "val2017", packed / "annotations" / "val2017")
    with pytest.raises(DataError):
        prepare(spec, folders, packed)
    labels.rename(archives[2])
    before = tree(packed)
    shutil.rmtree(packed / "annotations" / "val2017")
    before = tree(packed)
    assert prepare(spec, folders, packed).images == {"train": 2, "val": 2}
    assert tree(packed) == before


def test_archives_may_be_deleted_once_they_are_unpacked(tmp_path: Path) -> None:
    spec, folders, packed, archives, _ = ready(tmp_path, "coco-stuff")
    fingerprint = prepare(spec, folders, packed).fingerprint
    for archive in archives:
        archive.unlink()
    assert prepare(spec, folders, packed).fingerprint == fingerprint
    assert prepare(spec, folders).made == 0


def test_their_folder_may_be_deleted_too(tmp_path: Path) -> None:
    spec, folders, packed, *_ = ready(tmp_path, "coco-stuff")
    fingerprint = prepare(spec, folders, packed).fingerprint
    shutil.rmtree(packed)
    assert prepare(spec, folders).fingerprint == fingerprint


def test_archive_that_was_named_may_be_deleted_too(tmp_path: Path) -> None:
    spec, folders, _, (archive,), _ = ready(tmp_path, "ade20k-150")
    fingerprint = prepare(spec, folders, archive).fingerprint
    archive.unlink()
    assert prepare(spec, folders).fingerprint == fingerprint


def test_archives_at_the_top_of_an_archive_are_unpacked_once(tmp_path: Path) -> None:
    spec, folders, packed, archives, _ = ready(tmp_path, "coco-stuff")
    labels = tmp_path / "unpacked" / "annotations"
    for name in ("train2017", "val2017"):
        pack_zip(labels / f"{name}.zip", labels, sorted((labels / name).iterdir()))
    pack_zip(archives[2], labels, sorted(labels.glob("*.zip")))
    assert prepare(spec, folders, packed).images == {"train": 2, "val": 2}
    assert prepare(spec, folders, packed, heard := Heard()).made == 0 and heard.unpacked == []


def test_what_another_process_has_just_unpacked_is_not_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is done between the first look and the lock."""
    spec, folders, packed, *_ = ready(tmp_path, "coco-stuff")
    heard = Heard()

    def late(folder: Path, what: str) -> object:
        monkeypatch.setattr(source_tree, "folder_lock", folder_lock)
        source_tree.unpack_source(spec, folders, packed, Silent())
        return folder_lock(folder, what)

    monkeypatch.setattr(source_tree, "folder_lock", late)
    source_tree.unpack_source(spec, folders, packed, heard)
    assert (heard.unpacked, heard.said) == ([], [])


def test_archive_that_changes_while_it_is_unpacked_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, folders, packed, (archive,), _ = ready(tmp_path, "ade20k-150")

    def slow(path: Path, *rest: object, **named: object) -> object:
        done = unpacking.unpack(path, *rest, **named)  # type: ignore[arg-type]
        os.utime(archive, (1, 1))
        return done

    monkeypatch.setattr(source_tree, "unpack", slow)
    with pytest.raises(DataError, match="not unpacked yet: ADEChallengeData2016.zip"):
        prepare(spec, folders, packed)
    monkeypatch.undo()
    assert prepare(spec, folders, packed).images == {"train": 2, "val": 2}


@pytest.mark.parametrize("stop_in", ["look through", "unpack train2017.zip", "unpack val2017.zip"])
def test_interrupted_preparation_goes_on(tmp_path: Path, stop_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_MB", 100)
    spec, folders, packed, *_ = ready(tmp_path, "coco-stuff")
    with pytest.raises(KeyboardInterrupt):
        prepare(spec, folders, packed, Heard(stop_in))
    with pytest.raises(DataError, match="not unpacked yet: .*val2017.zip"):
        plan(spec, folders, packed)
    heard = Heard()
    assert prepare(spec, folders, packed, heard).images == {"train": 2, "val": 2}
    done = stop_in == "unpack val2017.zip"  # after the others, in the order of names
    assert ("train2017.zip" in heard.unpacked) != done and "val2017.zip" in heard.unpacked


def test_changed_archive_is_unpacked_again(tmp_path: Path) -> None:
    spec, folders, packed, (archive,), _ = ready(tmp_path, "ade20k-150")
    prepare(spec, folders, packed)
    unpacked = tmp_path / "unpacked"
    next((unpacked / "ADEChallengeData2016" / "images" / "training").iterdir()).unlink()
    kept = next((unpacked / "ADEChallengeData2016" / "images" / "training").iterdir()).stem
    for label in (unpacked / "ADEChallengeData2016" / "annotations" / "training").iterdir():
        if label.stem != kept:
            label.unlink()
    pack_zip(archive, unpacked, sorted(path for path in unpacked.rglob("*") if path.is_file()))
    heard = Heard()
    assert prepare(spec, folders, packed, heard).images == {"train": 1, "val": 2}
    assert any("has changed" in said for said in heard.said)


def damaged(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "cut off":
        path.write_bytes(data[: len(data) // 2])
    elif how == "a web page":
        path.write_bytes(b"<html>404</html>" * 100)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        make_zip(path, {"train2017/a.jpg": b"", "../../evil.jpg": b""})


@pytest.mark.parametrize("how", ["cut off", "a web page", "empty", "evil"])
def test_damaged_and_evil_archives_are_named_and_nothing_is_unpacked(tmp_path: Path, how: str) -> None:
    spec, folders, packed, archives, _ = ready(tmp_path, "coco-stuff")
    damaged(archives[1], how)
    with pytest.raises(DataError, match="val2017.zip.*(evil|the archive is)") as caught:
        prepare(spec, folders, packed)
    assert caught.value.exit_code == 3 and "\n" not in caught.value.message
    assert not [path for path in folders.data.rglob("*") if path.is_file() and path.name != ".lock"]


def test_archives_of_no_use_are_named(tmp_path: Path) -> None:
    make_zip(tmp_path / "holiday.zip", {"beach.jpg": b""})
    (tmp_path / "VOC2012.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match="holiday.zip holds none of it; unpack VOC2012.rar first") as caught:
        prepare(load_spec("voc-20"), folders_of(tmp_path), tmp_path)
    assert caught.value.exit_code == 3


def test_folder_of_another_data_set_is_recognised(tmp_path: Path) -> None:
    make_mini(tmp_path / "unpacked", "cityscapes")
    with pytest.raises(DataError, match="no known layout of voc-20") as caught:
        prepare(load_spec("voc-20"), folders_of(tmp_path), tmp_path / "unpacked")
    assert str(caught.value.mend).startswith("It looks like cityscapes: ovseg prepare cityscapes --source")


def test_archive_that_is_missing_is_named_before_the_others_are_unpacked(tmp_path: Path) -> None:
    spec, folders, packed, archives, _ = ready(tmp_path, "coco-stuff")
    archives[2].unlink()
    heard = Heard()
    with pytest.raises(DataError, match="2 problems.*annotations/train2017: this folder of 'train' is missing"):
        prepare(spec, folders, packed, heard, allow_missing=0)
    assert heard.said[0].startswith("stuffthingmaps_trainval2017.zip (label maps, 659 MB) is not beside them")


def test_archive_of_the_right_name_with_something_else_in_it(tmp_path: Path) -> None:
    make_zip(tmp_path / "ADEChallengeData2016.zip", {"readme/hello.txt": b"hello"})
    with pytest.raises(
        DataError, match="no known layout of ade20k-150 came out of ADEChallengeData2016.zip .but readme"
    ):
        prepare(load_spec("ade20k-150"), folders_of(tmp_path), tmp_path)


def test_source_that_is_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.jpg: this is a file, and no archive that ovseg unpacks \(\.zip"):
        prepare(load_spec("voc-20"), folders_of(tmp_path), tmp_path / "a.jpg")


def test_disk_is_looked_at_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, folders, packed, *_ = ready(tmp_path, "coco-stuff")
    monkeypatch.setattr("ovseg_cli.core.data.upkeep.free_bytes", lambda _: 1000)
    with pytest.raises(MachineError, match="unpacking the archives needs about .* are free"):
        prepare(spec, folders, packed)
    assert not list(folders.data.rglob("*.unpacking"))


def test_two_at_once_are_told_apart(tmp_path: Path) -> None:
    spec, folders, packed, *_ = ready(tmp_path, "coco-stuff")
    place = find_tree(spec, folders, packed)
    assert place and len(place.left) == 3
    with folder_lock(place.folder, "test"), pytest.raises(MachineError, match="unpacking .* is already under way"):
        prepare(spec, folders, packed)


def test_own_data_may_be_packed_under_any_name(tmp_path: Path) -> None:
    spec, folders = make_spec(tmp_path), folders_of(tmp_path)
    files = tree(make_source(tmp_path / "source"))
    (tmp_path / "packed").mkdir()
    make_tar(tmp_path / "packed" / "everything.tgz", {f"mini/{name}": data for name, data in files.items()})
    one = prepare(spec, folders, tmp_path / "packed")
    other = Folders(tmp_path / "other", tmp_path)
    assert one.fingerprint == prepare(spec, other, tmp_path / "source").fingerprint


def test_data_folder_within_the_source_is_not_linked_into_itself(tmp_path: Path) -> None:
    spec, made = make_mini(tmp_path / "unpacked", "ade20k-150")
    pack_all(tmp_path / "unpacked", tmp_path / "packed", "ade20k-150")
    folders = Folders(tmp_path / "packed" / "datasets", tmp_path)
    prepare(spec, folders, tmp_path / "packed")
    place = find_tree(spec, folders, tmp_path / "packed")
    assert place and sorted(path.name for path in place.files.iterdir()) == ["ADEChallengeData2016"]
