"""SA-1B's own masks are read out of its tar files as if they were cached; what is no mask is named with its place."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError, OvsegError, UsageError
from ovseg_cli.core.proposals import sa1b
from ovseg_cli.core.proposals.caches import caches, find_cache
from ovseg_cli.core.proposals.exchange import export_masks
from ovseg_cli.core.proposals.regions import RegionMasks, split_regions
from ovseg_cli.core.proposals.request import ProposeRequest, resolve
from ovseg_cli.core.proposals.sa1b_store import OriginalMasks
from ovseg_cli.core.proposals.session import Proposed, propose
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.training.augment import Place
from ovseg_cli.core.training.mask_crops import MaskCrops, crop_masks
from tests.core.data.handmade import folders_of
from tests.core.data.tars import SIZE, document, jpeg, masks_json, rectangles, segmentation, write_official, write_tar
from tests.core.proposals import small

STEMS = ["sa_1", "sa_2", "sa_3"]


def prepared(folder: Path, files: list[tuple[str, bytes]] | None = None) -> Folders:
    """Prepare the official form in small, or archives with one tar of these files."""
    source = folder / "source"
    if files is None:
        write_official(source, {"sa_000020": STEMS[:2], "sa_000021": STEMS[2:]})
    else:
        write_tar(source / "sa_000020.tar", files)
    prepare(load_spec("sa-1b"), folders_of(folder), source)
    return folders_of(folder)


def open_masks(folders: Folders, **options: Any) -> Proposed:
    request = ProposeRequest("annotations", "sa-1b", **options)
    return propose(resolve(request, folders, Silent()), folders, Silent())


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return prepared(tmp_path)


def test_masks_are_those_of_the_files_best_first(folders: Folders) -> None:
    store = open_masks(folders).store
    assert isinstance(store, OriginalMasks) and store.names() == STEMS and len(store) == 3 and store.complete
    for stem in STEMS:
        found = store.read(stem)
        drawn = rectangles(stem)[::-1]  # the first one drawn has the lowest predicted_iou
        assert found.masks.numpy().tolist() == drawn.tolist() and found.size == SIZE
        assert found.scores.tolist() == pytest.approx([0.82, 0.81, 0.80])


def test_codes_are_copied_as_they_are(folders: Folders) -> None:
    entry = open_masks(folders).store.read_entry("sa_2", "digest")
    written = [a["segmentation"]["counts"].encode() for a in document("sa_2")["annotations"]]
    assert entry.codes is not None and list(entry.codes) == written[::-1] and entry.image == "digest"
    decoded = coco.decode([{"size": list(SIZE), "counts": code} for code in entry.codes]).transpose(2, 0, 1)
    ids, table = split_regions(entry.codes, entry.size)
    assert np.array_equal(
        RegionMasks(torch.from_numpy(ids.copy()), torch.from_numpy(table)).masks().numpy(), decoded * 255
    )


def test_training_crops_them_like_cached_ones(folders: Folders) -> None:
    entry = open_masks(folders).store.read_entry("sa_1")
    where = Place((24, 40), 4, 6, 16, 16, mirrored=True)
    (crop,) = MaskCrops.of([crop_masks(entry, where, (16, 16))])
    doubled = rectangles("sa_1")[::-1].repeat(2, 1).repeat(2, 2)[:, 4:20, 6:22][:, :, ::-1]
    assert np.array_equal(crop.numpy(), doubled * 255)


def test_nothing_is_kept_but_a_manifest(folders: Folders) -> None:
    store = open_masks(folders).store
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == ["manifest.json"]
    assert find_cache("annotations", "sa-1b", "train", folders).digest == store.digest
    assert find_cache(str(store.folder.parent), "sa-1b", "train", folders).names() == STEMS
    assert [type(found) for found in caches(folders)] == [OriginalMasks]
    assert (
        pickle.loads(pickle.dumps(store)).read_entry("sa_3").scores.tolist() == store.read_entry("sa_3").scores.tolist()
    )
    assert open_masks(folders).store.digest == store.digest


def test_only_the_best_are_kept_where_that_is_asked(folders: Folders) -> None:
    store = open_masks(folders, settings={"max_masks": 2}).store
    assert store.read_entry("sa_1").scores.tolist() == pytest.approx([0.82, 0.81])
    assert store.digest != open_masks(folders).store.digest


def test_folders_give_the_same_masks_as_archives(tmp_path: Path, folders: Folders) -> None:
    for stem in STEMS:
        place = tmp_path / "unpacked" / "sa_000020"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{stem}.jpg").write_bytes(jpeg(stem))
        (place / f"{stem}.json").write_bytes(masks_json(stem))
    other = folders_of(tmp_path / "other")
    prepare(load_spec("sa-1b"), other, tmp_path / "unpacked")
    one, two = open_masks(folders).store, open_masks(other).store
    assert one.digest == two.digest
    assert all(one.read_entry(stem).codes == two.read_entry(stem).codes for stem in STEMS)


def test_masks_can_be_exported_and_looked_up_by_name_only(tmp_path: Path, folders: Folders) -> None:
    store = open_masks(folders).store
    assert export_masks(store, tmp_path / "r.json", "coco", False, Silent())["masks"] == 9
    with pytest.raises(DataError, match="by the pictures' names"):
        store.find(torch.zeros(3, *SIZE, dtype=torch.uint8))
    with pytest.raises(DataError, match="no masks of picture 'sa_9'"):
        store.read_entry("sa_9")
    with pytest.raises(UsageError, match="only read"):
        store.write_entry(store.read_entry("sa_1"))
    assert store.is_whole("sa_1") and not store.is_whole("sa_9")


def test_some_pictures_are_looked_at_at_once(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = OriginalMasks.read_entry
    monkeypatch.setattr(
        OriginalMasks, "read_entry", lambda self, name, image=None: (read.append(name), plain(self, name, image))[1]
    )
    monkeypatch.setattr(sa1b, "LOOKED_AT", 1)
    for options, expected in (({}, STEMS[:1]), ({"limit": 2}, STEMS[:2]), ({"force": True}, STEMS)):
        read.clear()
        assert open_masks(folders, **options).document()["images"] == 3
        assert read == expected


def test_data_prepared_anew_is_noticed(tmp_path: Path, folders: Folders) -> None:
    folder = open_masks(folders).store.folder
    write_official(tmp_path / "source", {"sa_000022": ["sa_7"]})
    prepare(load_spec("sa-1b"), folders)
    with pytest.raises(DataError, match="prepared anew.*ovseg propose annotations --data sa-1b --subset train"):
        ProposalStore.open(folder).names()
    assert open_masks(folders).store.names() == [*STEMS, "sa_7"]


def test_data_without_masks_says_so(tmp_path: Path) -> None:
    folders = small.prepared(tmp_path)
    with pytest.raises(DataError, match="mini, subset 'train', holds no masks of its own"):
        propose(resolve(ProposeRequest("annotations", "mini"), folders, Silent()), folders, Silent())
    with pytest.raises(UsageError, match="cannot be made for other pictures"):
        sa1b.Annotations().generate(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_plan_names_no_disk(folders: Folders) -> None:
    plan = resolve(ProposeRequest("annotations", "sa-1b"), folders, Silent()).document(folders)
    assert plan["disk_mib"] == 0 and plan["images"] == 3


def changed(index: int, **changes: Any) -> bytes:
    """The masks of sa_1, one annotation changed."""
    whole = document("sa_1")
    whole["annotations"][index].update(changes)
    return json.dumps(whole).encode()


def coded(counts: Any, size: Any = SIZE) -> dict[str, Any]:
    return {"segmentation": {"size": list(size) if isinstance(size, tuple) else size, "counts": counts}}


def runs(*counts: int) -> str:
    """Runs as COCO codes them, without looking whether they make sense."""
    text, before = "", [0, 0, 0, *counts]
    for i, count in enumerate(counts):
        value = count - before[i + 1] if i > 2 else count
        while True:
            digit, value = value & 0x1F, value >> 5
            more = not (value == 0 and not digit & 0x10 or value == -1 and digit & 0x10)
            text += chr(48 + digit + (0x20 if more else 0))
            if not more:
                break
    return text


def test_codes_written_by_hand_are_coco_codes() -> None:
    mask = rectangles("sa_1")[0]
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]]))
    assert runs(*lengths.tolist()) == segmentation(mask)["counts"]


AREA = SIZE[0] * SIZE[1]
IMPOSSIBLE: dict[str, tuple[bytes, str]] = {
    "runs that overrun": (changed(1, **coded(runs(5, 10, AREA))), "annotation 2: the mask has runs that overrun"),
    "runs that do not fill": (changed(2, **coded(runs(5, 10, 20))), "annotation 3: the mask has runs that do not fill"),
    "a negative run": (changed(0, **coded(runs(5, -3, AREA - 2))), "annotation 1: the mask has a run of negative"),
    "runs that wrap around": (changed(0, **coded("o" * 6 + "0")), "annotation 1: the mask "),
    "a number too long": (changed(0, **coded("o" * 40 + "0")), "the mask holds a number that is too long"),
    "cut within a number": (changed(1, **coded("5o")), "annotation 2: the mask ends within a number"),
    "other characters": (changed(1, **coded("\u00e4~")), "annotation 2: the mask holds a character that no COCO code"),
    "no code": (changed(1, **coded("")), "annotation 2: the mask has an empty code"),
    "another size": (changed(1, **coded(runs(81), (9, 9))), "annotation 2: the mask is 9 x 9, picture 'sa_1' is 12"),
    "sides swapped": (
        changed(1, **coded(runs(AREA), (20, 12))),
        "annotation 2: the mask is 20 x 12, picture 'sa_1' is 12 x 20",
    ),
    "an enormous size": (changed(0, **coded(runs(5), (10**9, 10**9))), "the mask is 1000000000 x 1000000000"),
    "no size": (changed(0, **coded(runs(AREA), None)), "annotation 1: this is no mask"),
    "negative size": (changed(0, **coded(runs(AREA), (-12, -20))), "annotation 1: this is no mask"),
    "counts that are none": (changed(0, **coded(7)), "annotation 1: this is no mask"),
    "written out and negative": (changed(0, **coded([AREA + 5, -5])), "run lengths that are not whole numbers"),
    "written out and short": (changed(0, **coded([5, 5])), "annotation 1: the mask has runs that do not fill"),
    "a polygon": (changed(2, segmentation=[[0, 0, 5, 0, 5, 5]]), "annotation 3: the mask is a polygon"),
    "no segmentation": (changed(2, segmentation=None), "annotation 3: this is no mask"),
    "score of NaN": (changed(2, predicted_iou=float("nan")), "annotation 3: this is no mask"),
    "no JSON": (b"<html>sign in</html>", "is cut off or no JSON"),
    "cut off": (masks_json("sa_1")[:-30], "is cut off or no JSON"),
    "empty": (b"", "the file of masks is empty"),
    "zeros": (bytes(600), "the file of masks is empty"),
    "no text": (b"\xff\xfe\x80" * 9, "is cut off or no JSON"),
    "a list": (b"[]", "has no 'image'"),
    "no annotations": (masks_json("sa_1").replace(b'"annotations"', b'"masks"'), "has no 'annotations', which"),
    "annotations that are none": (masks_json("sa_1", annotations={"id": 1}), "has no 'annotations', which is a list"),
    "an annotation that is none": (masks_json("sa_1", annotations=[7]), "annotation 1: this is no mask"),
    "nested without end": (b'{"image": ' + b"[" * 200_000, "is cut off or no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("row", IMPOSSIBLE)
def test_impossible_masks_are_named_with_archive_member_and_annotation(tmp_path: Path, row: str) -> None:
    content, words = IMPOSSIBLE[row]
    folders = prepared(tmp_path, [("./sa_1.jpg", jpeg("sa_1")), ("./sa_1.json", content)])
    with pytest.raises(OvsegError) as caught:
        open_masks(folders)
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert f"{tmp_path / 'source' / 'sa_000020.tar'}, member sa_1.json: " in text and words in text, text
    assert "\n" not in text and caught.value.mend


def test_a_picture_without_a_single_mask_is_one(tmp_path: Path) -> None:
    folders = prepared(tmp_path, [("./sa_1.jpg", jpeg("sa_1")), ("./sa_1.json", masks_json("sa_1", annotations=[]))])
    entry = open_masks(folders).store.read_entry("sa_1")
    assert entry.codes == () and len(entry.scores) == 0
    (crop,) = MaskCrops.of([crop_masks(entry, Place.whole(SIZE), SIZE)])
    assert crop.shape == (0, *SIZE)


CUT: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("row", CUT)
def test_archive_that_changes_under_a_training_is_named(tmp_path: Path, folders: Folders, row: str) -> None:
    store = open_masks(folders).store
    assert store.names() == STEMS
    CUT[row](tmp_path / "source" / "sa_000020.tar")
    with pytest.raises(DataError, match="sa_000020.tar, member sa_2.json: the archive"):
        store.read_entry("sa_2")
    store.read_entry("sa_3")
    with pytest.raises(DataError, match="sa_000020.tar: this archive"):
        PreparedData.open(load_spec("sa-1b"), folders).subset("train")
