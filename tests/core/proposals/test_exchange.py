"""Masks come from and go to COCO result files and SA-1B folders, and what does not fit is refused with its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from ovseg_cli.core.errors import DataError, OvsegError, UsageError
from ovseg_cli.core.proposals import formats
from ovseg_cli.core.proposals.exchange import export_masks
from ovseg_cli.core.proposals.importing import import_masks, resolve
from ovseg_cli.core.proposals.request import ProposeRequest
from ovseg_cli.core.proposals.session import Proposed
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders
from tests.core.proposals.small import PICTURES, SIZE, draw_image, draw_masks, draw_soft, prepared, same

TRAIN = PICTURES["train"]
NAMES = [f"{number:03d}" for number in range(TRAIN)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return prepared(tmp_path_factory.mktemp("mini"))


def record(image_id: int | str, mask: np.ndarray, score: float = 0.5) -> dict[str, Any]:
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {"size": list(mask.shape), "counts": code["counts"].decode()}
    return {"image_id": image_id, "category_id": 1, "segmentation": segmentation, "score": score}


def full_results() -> list[dict[str, Any]]:
    """Results of all pictures, made with pycocotools; ids are numbers, as COCO's are."""
    drawn = ((number, draw_masks(3, seed=number)) for number in range(TRAIN))
    return [
        record(number, mask.numpy(), float(score))
        for number, masks in drawn
        for mask, score in zip(masks.masks, masks.scores, strict=True)
    ]


def take(
    folders: Folders, source: Path, form: str = "coco", missing: int = 0, reporter: Silent | None = None
) -> Proposed:
    request = ProposeRequest("mine", "mini", "train")
    reporter = reporter or Silent()
    return import_masks(resolve(request, source, form, missing, folders, reporter), folders, reporter)


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_results_of_another_program_come_in(folders: Folders, tmp_path: Path) -> None:
    done = take(folders, write(tmp_path / "r.json", full_results()))
    assert done.store.complete and done.filled.masks == 3 * TRAIN
    for number, name in enumerate(NAMES):
        assert same(done.store.read(name), draw_masks(3, seed=number))
    assert done.store.folder.parent.name.startswith("mine-")


def test_ungrouped_results_are_gathered_and_ordered(folders: Folders, tmp_path: Path) -> None:
    shuffled = full_results()[::-1]
    mixed = [shuffled[i::3] for i in range(3)]
    done = take(folders, write(tmp_path / "r.json", [item for part in mixed for item in part]))
    for number, name in enumerate(NAMES):
        assert same(done.store.read(name), draw_masks(3, seed=number))


def test_import_again_changes_nothing_and_other_results_have_another_cache(folders: Folders, tmp_path: Path) -> None:
    first = take(folders, write(tmp_path / "r.json", full_results()))
    assert take(folders, tmp_path / "r.json").store.digest == first.store.digest
    other = take(folders, write(tmp_path / "r.json", [{**item, "score": 0.25} for item in full_results()]))
    assert other.store.folder != first.store.folder and other.store.digest != first.store.digest


def test_written_out_runs_and_names_as_ids_come_in_too(folders: Folders, tmp_path: Path) -> None:
    results = []
    for number, name in enumerate(NAMES):
        mask = draw_masks(1, seed=number).masks[0].numpy()
        flat = np.concatenate([[0], mask.T.ravel().astype(int), [1 - int(mask[-1, -1])]])
        runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat[1:])) + 1]))
        counts = ([] if not mask[0, 0] else [0]) + [int(n) for n in runs]
        results.append({"image_id": f"{name}.jpg", "segmentation": {"size": list(SIZE), "counts": counts}})
    done = take(folders, write(tmp_path / "r.json", results))
    for number, name in enumerate(NAMES):
        assert (done.store.read(name).masks == draw_masks(1, seed=number).masks).all()


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_file_is_read_piece_by_piece(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_BLOCK", block)
    results = full_results()[:5]
    for text in (json.dumps(results), json.dumps(results, indent=1) + "\n", json.dumps(results, separators=(",", ":"))):
        found = list(formats.read_coco(write(tmp_path / "r.json", text)))
        assert [image_id for image_id, _ in found] == [str(item["image_id"]) for item in results]
        assert [mask.code.decode() for _, mask in found] == [item["segmentation"]["counts"] for item in results]
    assert list(formats.read_coco(write(tmp_path / "r.json", " [ ] "))) == []


def large(mask: np.ndarray) -> dict[str, Any]:
    return record(0, mask)["segmentation"] | {"size": list(SIZE)}


BROKEN: dict[str, tuple[Any, str]] = {
    "no list": ({"images": [], "annotations": []}, "one JSON list"),
    "cut off": (json.dumps(full_results())[:-40], "cut off"),
    "no JSON": ("[{]", "no JSON"),
    "nothing": ("", "cut off"),
    "no id": ([{"segmentation": {}}], "record 1 is no result"),
    "a number": ([7], "record 1 is no result"),
    "no mask": ([{"image_id": 0}], "record 1: this is no mask"),
    "a polygon": ([{"image_id": 0, "segmentation": [[0, 0, 5, 0, 5, 5]]}], "polygon"),
    "another size": (
        [*full_results()[:3], record(1, np.ones((9, 9), bool))],
        "record 4: the mask is 9 x 9, picture '001' is 24 x 32",
    ),
    "runs that overrun": ([{"image_id": 0, "segmentation": large(np.ones((99, 99), bool))}], "overrun the picture"),
    "runs that do not fill": ([{"image_id": 0, "segmentation": large(np.ones((2, 2), bool))}], "do not fill"),
    "runs written out that overrun": (
        [{"image_id": 0, "segmentation": {"size": list(SIZE), "counts": [0, 10**12]}}],
        "record 1: the mask has runs that overrun",
    ),
    "a score that is no number": ([{**record(0, np.ones(SIZE, bool)), "score": "high"}], "record 1: this is no mask"),
    "a score of NaN": ('[{"image_id": 0, "segmentation": {"size": [9, 9], "counts": "P`0"}, "score": NaN}]', "no mask"),
    "codes of no mask": ([{"image_id": 0, "segmentation": {"size": list(SIZE), "counts": "~~~"}}], "no COCO code"),
    "pictures without masks": (full_results()[3:], "1 of 6 pictures have no masks"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "reason"), BROKEN.values(), ids=BROKEN)
def test_broken_results_are_refused_with_their_place(
    folders: Folders, tmp_path: Path, document: Any, reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        take(folders, write(tmp_path / "r.json", document))
    assert "r.json" in str(caught.value) and caught.value.mend


def test_pictures_without_masks_are_accepted_where_that_was_said(folders: Folders, tmp_path: Path) -> None:
    reporter = Silent()
    done = take(folders, write(tmp_path / "r.json", full_results()[3:]), missing=1, reporter=reporter)
    assert done.store.complete and len(done.store.read("000")) == 0
    assert any("1 pictures have no masks" in warning for warning in reporter.warnings)


def test_masks_of_strange_pictures_are_left_out_aloud(folders: Folders, tmp_path: Path) -> None:
    reporter = Silent()
    strange = [record(number, np.ones((5, 5), bool)) for number in (77, 78)]
    done = take(folders, write(tmp_path / "r.json", [*full_results(), *strange]), reporter=reporter)
    assert done.filled.masks == 3 * TRAIN
    assert any("2 pictures" in warning for warning in reporter.warnings)


WRONG = {
    "a name no folder can have": ({"generator": "a/b"}, "r.json", "coco", "letters, digits"),
    "settings": ({"settings": {"a": 1}}, "r.json", "coco", "no meaning with --import"),
    "no file": ({}, "none.json", "coco", "there is no such file"),
    "no folder": ({}, "none", "sa-1b", "there is no such folder"),
    "a file for a folder": ({}, "r.json", "sa-1b", "needs a folder"),
    "a folder for a file": ({}, ".", "coco", "needs a COCO result file"),
    "no subset": ({"subset": "vol"}, "r.json", "coco", "vol"),
}


@pytest.mark.parametrize(("changes", "source", "form", "reason"), WRONG.values(), ids=WRONG)
def test_wrong_words_of_an_import(
    folders: Folders, tmp_path: Path, changes: dict[str, Any], source: str, form: str, reason: str
) -> None:
    write(tmp_path / "r.json", [])
    request = ProposeRequest(**{"generator": "mine", "data": "mini", "subset": "train", **changes})
    with pytest.raises(UsageError, match=reason):
        resolve(request, tmp_path / source, form, 0, folders, Silent())


@pytest.fixture
def store(tmp_path: Path) -> ProposalStore:
    key = {"generator": "g", "settings": {}, "data": "mini", "subset": "train", "images": TRAIN}
    made = ProposalStore.create(tmp_path / "g-00000000" / "train", key)
    for number, name in enumerate(NAMES):
        made.write(name, draw_image(number), draw_masks(3 if number else 0, seed=number))
    return made


@pytest.mark.parametrize("form", ["coco", "sa-1b"])
def test_what_goes_out_comes_in_again(folders: Folders, tmp_path: Path, store: ProposalStore, form: str) -> None:
    out = tmp_path / ("out.json" if form == "coco" else "out")
    written = export_masks(store, out, form, False, Silent())
    assert (written["images"], written["masks"]) == (TRAIN, 3 * (TRAIN - 1))
    missing = 1 if form == "coco" else 0  # a result file cannot say that a picture has no masks; a folder can
    done = take(folders, out, form, missing)
    assert done.store.complete
    for name in NAMES:
        assert same(done.store.read(name), store.read(name))


def test_exported_results_are_read_by_pycocotools(tmp_path: Path, store: ProposalStore) -> None:
    from pycocotools.coco import COCO

    export_masks(store, tmp_path / "out.json", "coco", False, Silent())
    truth = COCO()
    images = [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(TRAIN)]
    truth.dataset = {"info": {}, "images": images, "annotations": [], "categories": [{"id": 1}]}
    truth.createIndex()
    results = truth.loadRes(str(tmp_path / "out.json"))
    first = results.loadAnns(results.getAnnIds(imgIds=[1]))
    assert (np.stack([results.annToMask(a) for a in first]).astype(bool) == draw_masks(3, seed=1).masks.numpy()).all()
    assert [a["score"] for a in first] == pytest.approx(draw_masks(3, seed=1).scores.tolist())
    box = first[0]["bbox"]
    rows, columns = np.nonzero(draw_masks(3, seed=1).masks[0].numpy())
    assert box == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_sa1b_file_has_the_keys_of_the_data_set(tmp_path: Path, store: ProposalStore) -> None:
    export_masks(store, tmp_path / "out", "sa-1b", False, Silent())
    document = json.loads((tmp_path / "out" / "001.json").read_text())
    assert document["image"] == {"image_id": 1, "width": 32, "height": 24, "file_name": "001.jpg"}
    annotation = document["annotations"][0]
    assert {"id", "segmentation", "bbox", "area", "predicted_iou", "crop_box"} == set(annotation)
    assert annotation["area"] == int(draw_masks(3, seed=1).masks[0].sum())


def test_soft_masks_go_out_cut_at_one_half(tmp_path: Path) -> None:
    store = ProposalStore.create(tmp_path / "g" / "val", {"generator": "g", "settings": {}, "images": 1})
    soft = draw_soft(2, grid=SIZE)
    store.write("a", draw_image(), soft)
    export_masks(store, tmp_path / "out.json", "coco", False, Silent())
    found = json.loads((tmp_path / "out.json").read_text())
    assert [item["image_id"] for item in found] == ["a", "a"]
    assert (coco.decode(found[0]["segmentation"]).astype(bool) == (soft.masks[0] > 127).numpy()).all()


def test_nothing_is_written_over_unasked(tmp_path: Path, store: ProposalStore) -> None:
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export_masks(store, tmp_path / "out.json", "coco", False, Silent())
    assert (tmp_path / "out.json").read_text() == "mine"
    export_masks(store, tmp_path / "out.json", "coco", True, Silent())
    with pytest.raises(OvsegError, match="writes a file"):
        export_masks(store, tmp_path, "coco", True, Silent())
