"""A result comes back from its file as it was; a broken file is named; parts add up."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.mask_results import MaskResult
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.evaluation.result_files import to_document
from ovseg_cli.core.evaluation.results import Result
from tests.core.evaluation.drawn import draw_result


def test_file_gives_back_everything(result, tmp_path):
    result.save(tmp_path / "r.json")
    back = Result.load(tmp_path / "r.json")
    assert to_document(back) == to_document(result)
    assert back.images == result.images and back.is_thing == result.is_thing and back.notes == ("a", "b")
    for i in range(len(result.counts)):
        assert (back.counts[i].matrix() == result.counts[i].matrix()).all()
    for rule in ("union", "present"):
        assert back.metrics(rule) == result.metrics(rule)


def test_total_stands_in_plain_numbers(result, tmp_path):
    result.save(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["schema"] == 1 and document["images"] == list(result.images)
    total = document["counts"]["total"]
    for truth, predicted, pixels in zip(total["ground_truth"], total["prediction"], total["pixels"], strict=True):
        assert result.matrix[truth, predicted] == pixels
    assert sum(total["pixels"]) == result.matrix.sum()


def test_picture_without_counted_pixels_and_huge_counts_are_kept(tmp_path):
    parts = [Counts.of_matrix(np.zeros((2, 2), dtype=np.int64)), Counts.of_matrix(np.array([[2**40, 0], [1, 0]]))]
    result = draw_result(num_classes=2, num_images=0, unseen=(False, True))
    result = Result(**{**vars(result), "counts": CountTable.of(["a", "b"], parts, 2)})
    result.save(tmp_path / "r.json")
    back = Result.load(tmp_path / "r.json")
    assert len(back.counts[0].cells) == 0 and back.matrix[0, 0] == 2**40


def test_hand_worked_metrics_of_a_result():
    matrix = np.array([[6, 2], [1, 3]])
    counts = CountTable.of(["a"], [Counts.of_matrix(matrix)], 2)
    fields = vars(draw_result(num_classes=2, num_images=0, unseen=(False, True), is_thing=None))
    result = Result(**{**fields, "counts": counts})
    scores = result.metrics()
    assert scores["pAcc"] == pytest.approx(9 / 12)
    assert scores["sIoU"] == pytest.approx(6 / 9) and scores["uIoU"] == pytest.approx(3 / 6)
    assert scores["hIoU"] == pytest.approx(2 * (6 / 9) * (1 / 2) / (6 / 9 + 1 / 2))
    assert result.metrics(split="unseen")["mIoU"] == scores["uIoU"]
    assert result.num_averaged() == 2 and result.num_averaged(split="unseen") == 1
    assert result.per_class()["truth"].tolist() == [8, 4]


def test_split_needs_unseen_classes():
    result = draw_result(unseen=(False,) * 5)
    with pytest.raises(UsageError, match="--split unseen: toy:combo has no class split"):
        result.metrics(split="unseen")
    assert math.isnan(result.metrics()["uIoU"]) and result.metrics()["sIoU"] == result.metrics()["mIoU"]


def test_parts_add_up_to_the_whole():
    first, second = draw_result(1, 7), draw_result(2, 5, first=7)
    merged = first.merge(second)
    assert (merged.matrix == first.matrix + second.matrix).all()
    assert merged.images == first.images + second.images
    assert (merged.counts[9].matrix() == second.counts[2].matrix()).all()
    assert merged.timing == {"load": 1.0, "predict": 4.0}
    back = second.merge(first).in_order(merged.images)
    assert to_document(back)["counts"] == to_document(merged)["counts"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": 29}, "both hold the picture 'street/0029"),
        (
            {"fingerprints": {"data": "d2", "weights": "w1", "vocabulary": "v1", "protocol": "p1"}},
            "fingerprints of data",
        ),
        ({"ignore_label": 0}, "ignore label"),
        ({"unseen": (True, False, False, False, False)}, "unseen"),
    ],
)
def test_results_that_do_not_belong_together_are_not_added(result, changes, message):
    with pytest.raises(UsageError, match=f"cannot be added: .*{message}"):
        result.merge(draw_result(**{"first": 100, **changes}))


@pytest.mark.parametrize("text", ["{", '{"kind": "ovseg-result", "schema": 1}'])
def test_broken_file_of_a_run_names_the_run_to_score_again(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = Path("one run") / "results" / "r.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (path.parent.parent / "config.toml").write_text("")
    with pytest.raises(DataError) as caught:
        Result.load(path)
    assert caught.value.mend == "Run the evaluation again: ovseg eval './one run'"


@pytest.mark.parametrize(("other", "what"), [(MaskResult, "named masks"), (OracleResult, "an oracle")])
def test_file_of_another_task_is_called_what_it_is(result, tmp_path, other, what):
    path = tmp_path / "r.json"
    result.save(path)
    break_file(path, lambda document: document.update(kind=other.kind))
    with pytest.raises(UsageError, match=f"r.json: this file holds {what}, not scores of label maps"):
        Result.load(path)


def break_file(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=99), "has schema 99, this ovseg reads 1"),
        (lambda d: d.update(kind="else"), "not a result of ovseg eval"),
        (lambda d: d.pop("unseen"), "broken .KeyError: 'unseen'"),
        (lambda d: d["images"].pop(), "pictures and their counts"),
        (lambda d: d["images"].__setitem__(0, d["images"][1]), "pictures and their counts"),
        (lambda d: d["class_names"].pop(), "different numbers of classes"),
        (lambda d: d["counts"]["total"]["pixels"].__setitem__(0, 1), "do not add up"),
        (lambda d: d["counts"]["per_image"]["cells"].update(data="!!!"), "'cells' cannot be unpacked"),
        (lambda d: d["counts"]["per_image"]["cells"].update(length=3), "not of the length"),
        (lambda d: d["counts"]["per_image"]["pixels"].update(length=10**12), "claims 1000000000000 numbers"),
        (lambda d: d["counts"]["per_image"]["cells"].update(dtype="O"), "broken"),
        (lambda d: d["counts"].update(num_classes=2), "outside its 2 classes"),
        (lambda d: d["counts"]["per_image"].update(pixels=d["counts"]["per_image"]["lengths"]), "are missing"),
    ],
)
def test_broken_file_is_named(result, tmp_path, change, message):
    path = tmp_path / "r.json"
    result.save(path)
    break_file(path, change)
    with pytest.raises(DataError, match=message) as caught:
        Result.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_file_that_is_no_result_is_named(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(DataError, match="r.json"):
        Result.load(path)


def test_cut_off_file_is_named(result, tmp_path):
    path = tmp_path / "r.json"
    result.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read"):
        Result.load(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="r.json: the result file is not there"):
        Result.load(tmp_path / "r.json")
