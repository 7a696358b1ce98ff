"""Quality of proposals: a picture by hand, COCO's own evaluator, and the edges."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovseg_cli.core.data import rle
from ovseg_cli.core.errors import DataError, OvsegError, UsageError
from ovseg_cli.core.evaluation import proposal_session as session
from ovseg_cli.core.evaluation.proposal_quality import (
    LIMITS,
    THRESHOLDS,
    QualityCounts,
    overlaps,
    regions_of,
    score_image,
)
from ovseg_cli.core.proposals.request import ProposeRequest, resolve
from ovseg_cli.core.proposals.session import propose
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders
from tests.core.proposals.small import draw_image, draw_masks, draw_soft, open_data, prepared

IGNORE = 255
# 3 x 4: class 0 on the left, class 1 on the right, one pixel without a class.
LABEL = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, IGNORE]])


def mask(rows: list[str]) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


# By hand, pixels without a class left out:
#   first  covers 4 of class 0's 6 pixels and nothing else: IoU 4/6 = .667 with class 0
#   second covers class 1 (5 pixels) and 1 of class 0:      IoU 5/6 = .833 with class 1, 1/11 with class 0
#   third  covers class 0 exactly:                          IoU 1 with class 0
FIRST = mask(["##..", "##..", "...#"])
SECOND = mask([".###", "..##", "..##"])
THIRD = mask(["##..", "##..", "##.."])


def counts_of(
    masks: list[np.ndarray], scores: list[float], label: np.ndarray = LABEL, rule: str = "class"
) -> QualityCounts:
    counts = QualityCounts(3)
    regions = regions_of(label, IGNORE, rule)  # type: ignore[arg-type]
    stack = np.stack(masks) if masks else np.zeros((0, *label.shape), bool)
    counts.add(score_image(rle.encode(stack), np.array(scores), regions))
    return counts


def test_overlaps_by_hand() -> None:
    shared = overlaps(rle.encode(np.stack([FIRST, SECOND, THIRD])), regions_of(LABEL, IGNORE, "class"))
    assert shared.tolist() == [[4, 0], [1, 5], [6, 0]]


def test_scores_by_hand() -> None:
    # In order first, second, third. Up to IoU .65 the first takes class 0; from .70 on the third does, at place 2.
    # The second takes class 1 up to .80. So class 0 is found at all 10 thresholds, class 1 at 7.
    scores = counts_of([FIRST, SECOND, THIRD], [0.9, 0.8, 0.7]).scores([0, 1])
    assert scores["AR@10"] == scores["AR@50"] == scores["AR@100"] == pytest.approx((10 + 7) / 20)
    assert scores["best-IoU"] == pytest.approx((1 + 5 / 6) / 2)
    assert scores["mIoU"] == pytest.approx((6 / 6 + 5 / 6) / 2)
    assert (scores["regions"], scores["classes"]) == (2, 2)


def test_limit_keeps_the_best_scores() -> None:
    nothing = [np.zeros((3, 4), bool)] * 10
    scores = counts_of([THIRD, *nothing], [0.1, *[0.5] * 10]).scores([0])
    assert (scores["AR@10"], scores["AR@50"]) == (0, 1)


def test_a_region_is_found_once_and_a_proposal_finds_one() -> None:
    whole = np.ones((3, 4), bool)  # IoU 6/11 = .545 with class 0, 5/11 = .455 with class 1
    scores = counts_of([whole, whole], [1.0, 0.5])
    assert scores.scores([0])["AR@10"] == pytest.approx(0.1) and scores.scores([1])["AR@10"] == 0
    assert scores.scores([1])["best-IoU"] == pytest.approx(5 / 11)  # in the oracle it serves both


def test_oracle_adds_pixels_over_pictures() -> None:
    counts = counts_of([THIRD], [1.0])
    small = np.full((3, 4), IGNORE)
    small[0, 0] = 0
    counts.add(score_image(rle.encode(np.ones((1, 3, 4), bool)), np.ones(1), regions_of(small, IGNORE, "class")))
    counts.add(score_image([], np.zeros(0), regions_of(np.zeros((3, 4), int), IGNORE, "class")))
    assert counts.scores([0])["mIoU"] == pytest.approx((6 + 1 + 0) / (6 + 1 + 12))
    assert counts.scores([0])["best-IoU"] == pytest.approx((1 + 1 + 0) / 3)
    assert counts.images == 3 and counts.proposals == 2


def test_connected_pieces_are_regions_of_their_own() -> None:
    label = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, IGNORE]])
    by_class, pieces = regions_of(label, IGNORE, "class"), regions_of(label, IGNORE, "component")
    assert by_class.classes.tolist() == [0, 1]
    assert pieces.classes.tolist() == [0, 1]  # both touch at corners
    apart = np.array([[0, 1, 0], [0, 1, 0]])
    found = regions_of(apart, IGNORE, "component")
    assert found.classes.tolist() == [0, 0, 1] and found.map.tolist() == [[0, 2, 1], [0, 2, 1]]


def test_no_proposals_and_no_regions() -> None:
    scores = counts_of([], []).scores([0, 1])
    assert [scores[key] for key in ("AR@10", "AR@100", "best-IoU", "mIoU")] == [0, 0, 0, 0]
    empty = counts_of([THIRD], [1.0], np.full((3, 4), IGNORE))
    assert empty.scores([0, 1, 2])["AR@10"] is None and empty.scores([0, 1, 2])["regions"] == 0
    assert counts_of([THIRD], [1.0]).scores([2])["mIoU"] is None


def test_empty_masks_find_nothing() -> None:
    scores = counts_of([np.zeros((3, 4), bool), mask(["....", "....", "...#"])], [1.0, 0.5]).scores([0, 1])
    assert scores["AR@100"] == 0 and scores["best-IoU"] == 0


def coco_recalls(labels: list[np.ndarray], drawn: list[tuple[np.ndarray, np.ndarray]], rule: str) -> list[float]:
    """AR at each limit by pycocotools: regions as ground truth of one category, proposals cut to known pixels."""
    annotations, results = [], []
    for image_id, (label, (masks, scores)) in enumerate(zip(labels, drawn, strict=True)):
        regions = regions_of(label, IGNORE, rule)  # type: ignore[arg-type]
        for region in range(len(regions.classes)):
            code = coco_code(regions.map == region)
            size = int((regions.map == region).sum())
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0, "area": size,
                 "bbox": [0, 0, 1, 1], "segmentation": code}
            )  # fmt: skip
        for one, score in zip(masks, scores, strict=True):
            code = coco_code(one & (label != IGNORE))
            results.append({"image_id": image_id, "category_id": 1, "segmentation": code, "score": float(score)})
    truth = COCO()
    images = [{"id": i, "height": label.shape[0], "width": label.shape[1]} for i, label in enumerate(labels)]
    truth.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1}]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "segm")
        judge.params.useCats = 0
        judge.params.maxDets = list(LIMITS)
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return [float(judge.eval["recall"][:, 0, 0, place].mean()) for place in range(len(LIMITS))]


def coco_code(one: np.ndarray) -> dict[str, object]:
    return {"size": list(one.shape), "counts": rle.encode(one[None])[0]}


def draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Blocks of classes, and proposals near them: regions, parts and unions, in any order, more than 100 of them."""
    height, width = int(rng.integers(9, 30)), int(rng.integers(9, 30))
    coarse = rng.integers(0, 4, (3, 3))
    label = coarse[np.arange(height)[:, None] * 3 // height, np.arange(width)[None] * 3 // width]
    label[rng.random(label.shape) < 0.1] = IGNORE
    masks = []
    for _ in range(int(rng.integers(1, 160))):
        chosen = np.isin(label, rng.integers(0, 4, int(rng.integers(1, 3))))
        masks.append(chosen ^ (rng.random(label.shape) < rng.choice([0, 0.02, 0.1, 0.3])))
    return label, (np.stack(masks), np.round(rng.random(len(masks)), 2))  # some scores are equal


@pytest.mark.parametrize("rule", ["class", "component"])
def test_average_recall_is_that_of_coco(rule: str) -> None:
    rng = np.random.default_rng(5)
    scenes = [draw_scene(rng) for _ in range(12)]
    counts = QualityCounts(4)
    for label, (masks, scores) in scenes:
        counts.add(score_image(rle.encode(masks), scores, regions_of(label, IGNORE, rule)))  # type: ignore[arg-type]
    ours = [counts.scores(range(4))[f"AR@{limit}"] for limit in LIMITS]
    assert ours == pytest.approx(coco_recalls([s[0] for s in scenes], [s[1] for s in scenes], rule), abs=1e-12)
    assert len(THRESHOLDS) == 10 and 0 < ours[0] < ours[1] < 1
    slow = [slow_best(label, masks, rule) for label, (masks, _) in scenes]
    assert counts.scores(range(4))["best-IoU"] == pytest.approx(np.mean(np.concatenate(slow)))


def slow_best(label: np.ndarray, masks: np.ndarray, rule: str) -> list[float]:
    regions = regions_of(label, IGNORE, rule)  # type: ignore[arg-type]
    best = []
    for region in range(len(regions.classes)):
        truth, known = regions.map == region, label != IGNORE
        best.append(max((m & truth).sum() / ((m & known) | truth).sum() for m in masks))
    return best


def test_of_two_regions_that_overlap_equally_the_last_is_found_as_by_coco() -> None:
    halves = np.array([[0, 1], [0, 1]])
    whole = np.ones((1, 2, 2), bool)  # IoU one half with both
    quality = score_image(rle.encode(whole), np.ones(1), regions_of(halves, IGNORE, "class"))
    assert (quality.ranks[0] == 0).tolist() == [False, True]
    both = np.concatenate([whole, np.array([[[0, 1], [0, 1]]], bool)])
    counts = counts_of(list(both), [1.0, 0.5], halves)
    assert counts.scores([0, 1])["AR@10"] == pytest.approx(
        coco_recalls([halves], [(both, np.array([1.0, 0.5]))], "class")[0]
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made = prepared(tmp_path_factory.mktemp("mini"))
    request = ProposeRequest(
        "ground-truth", "mini", "val", settings={"noise": 0, "fill": False, "min_area": 1}, workers=1
    )
    propose(resolve(request, made, Silent()), made, Silent())
    return made


def quality_of(folders: Folders, **options: object) -> session.Quality:
    request = session.QualityRequest(**{"proposals": "ground-truth", "data": "mini", **options})  # type: ignore[arg-type]
    return session.score(session.resolve(request, folders, Silent()), Silent())


def test_exact_regions_score_full_marks_and_are_kept_beside_the_cache(folders: Folders) -> None:
    quality = quality_of(folders)
    for group, regions in (("all", 4), ("seen", 3), ("unseen", 1)):
        assert quality.group(group)["AR@10"] == quality.group(group)["mIoU"] == 100
        assert quality.group(group)["regions"] == regions
    assert [row["class"] for row in quality.document["classes"]] == ["grass", "cat", "dog"]
    assert quality.path.is_file() and quality.path.parent.parent.name == "val"
    assert quality_of(folders, limit=1).document["images"] == 1


def test_cache_is_found_by_its_folder_too(folders: Folders) -> None:
    folder = str(session.resolve(session.QualityRequest("ground-truth", "mini"), folders, Silent()).store.folder)
    assert quality_of(folders, proposals=folder, data=None).document["data"] == "mini:no-dog"
    assert quality_of(folders, proposals=str(Path(folder).parent)).document["subset"] == "val"


def test_soft_masks_count_where_they_exceed_one_half(folders: Folders, tmp_path: Path) -> None:
    data = open_data(folders).subset("val")
    key = {"generator": "soft", "settings": {}, "data": "mini", "subset": "val", "data_fingerprint": data.fingerprint}
    store = ProposalStore.create(tmp_path / "soft" / "val", key)
    for sample in data:
        store.write(sample.name, sample.image, draw_soft(5))
    assert quality_of(folders, proposals=f"{tmp_path}/soft/val").document["proposals_an_image"] == 5


WRONG = {
    "no proposals": ({"proposals": None}, UsageError, "--proposals"),
    "an unknown generator": ({"proposals": "superpixel"}, UsageError, "superpixels"),
    "proposals that were not made": ({"proposals": "superpixels"}, DataError, "ovseg propose superpixels --data mini"),
    "no such cache": ({"proposals": "./none"}, DataError, "no such cache"),
    "an unknown setting": ({"settings": {"region": "class"}}, UsageError, "regions"),
    "a wrong value": ({"settings": {"regions": "classes"}}, UsageError, "regions"),
    "an unknown subset": ({"subset": "vol"}, UsageError, "vol"),
    "an unknown data set": ({"data": "mni"}, UsageError, "mini"),
}


@pytest.mark.parametrize(("options", "error", "part"), WRONG.values(), ids=WRONG)
def test_wrong_requests(folders: Folders, options: dict[str, object], error: type[OvsegError], part: str) -> None:
    with pytest.raises(error) as caught:
        quality_of(folders, **options)
    assert part in str(caught.value)


def test_masks_of_changed_pictures_are_refused(tmp_path: Path) -> None:
    folders = prepared(tmp_path)
    plan = resolve(ProposeRequest("superpixels", "mini", "val", workers=1), folders, Silent())
    propose(plan, folders, Silent())
    prepared(tmp_path, shade=1)
    with pytest.raises(DataError, match="changed since"):
        quality_of(folders, proposals="superpixels")
    with pytest.raises(DataError, match="--force"):
        propose(resolve(ProposeRequest("superpixels", "mini", "val", workers=1), folders, Silent()), folders, Silent())
    forced = resolve(ProposeRequest("superpixels", "mini", "val", workers=1, force=True), folders, Silent())
    assert propose(forced, folders, Silent()).filled.made == 2
    assert quality_of(folders, proposals="superpixels").document["images"] == 2


def test_masks_of_another_size_are_refused(folders: Folders, tmp_path: Path) -> None:
    data = open_data(folders).subset("val")
    key = {"generator": "g", "settings": {}, "data": "mini", "subset": "val", "data_fingerprint": data.fingerprint}
    store = ProposalStore.create(tmp_path / "g" / "val", key)
    for name in data.names:
        store.write(name, draw_image(0, (9, 9)), draw_masks(2, size=(9, 9)))
    with pytest.raises(DataError, match="9 x 9, the image is 24 x 32"):
        quality_of(folders, proposals=f"{tmp_path}/g/val")
