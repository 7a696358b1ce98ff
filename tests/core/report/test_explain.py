"""One result under every convention: worked by hand, against the metrics, and against results that were scored."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.evaluation import metrics
from ovseg_cli.core.evaluation.bootstrap import difference, picture_draws, resampled_areas
from ovseg_cli.core.report.explain import explain_tables, variants_of
from ovseg_cli.core.report.explain_gaps import Reading, gaps
from ovseg_cli.core.report.explain_origin import request_of, turned, typed
from ovseg_cli.core.report.explain_variants import Knobs, Variant, find, is_sibling, of_pixels
from ovseg_cli.core.runs import Run
from tests.core.report.results import random_result, result

# cat, dog (in no label) and sky, unseen: TP 8 0 4, G 10 0 6, P 9 3 4, so IoU 8/11, 0, 4/6
MATRIX = [[8, 2, 0], [0, 0, 0], [1, 1, 4]]


def rows_of(*arguments, resamples=0, **options):
    """Rows of all tables by key, keys of later tables with the table's number."""
    tables = explain_tables(*arguments, resamples=resamples, **options)
    return [{row["key"]: row for row in table.records()} for table in tables]


def test_conventions_of_a_small_matrix_are_as_worked_by_hand():
    means, sets, pixels = rows_of(result(MATRIX))
    cat, sky = 8 / 11, 4 / 6
    expected = {
        "union": (cat + sky) / 3,
        "present": (cat + sky) / 2,
        "all-classes": (cat + sky) / 3,
        "by-picture": (cat + sky) / 3,  # of one picture
        "micro": 12 / (11 + 3 + 6),
        "frequency-weighted": (10 * cat + 6 * sky) / 16,
        "dice": (16 / 19 + 8 / 10) / 3,
    }
    assert {key: row["mIoU"] for key, row in means.items()} == pytest.approx({k: 100 * v for k, v in expected.items()})
    assert means["present"]["delta_mIoU"] == pytest.approx(100 * (cat + sky) / 6)
    assert "1 class ('dog')" in means["present"]["why"] and "takes 2 classes" in means["present"]["why"]

    assert "12 right pixels over 20" in means["micro"]["why"]

    assert [sets["union"][key] for key in ("sIoU", "uIoU")] == pytest.approx([50 * cat, 100 * sky])
    assert sets["present"]["sIoU"] == pytest.approx(100 * cat)
    assert sets["plain-sum"]["sIoU"] is None and "seen: 'dog'" in sets["plain-sum"]["why"]
    seen, unseen = 36.4, 66.7  # 36.36 and 66.67
    assert sets["rounded"]["hIoU"] == pytest.approx(2 * seen * unseen / (seen + unseen))
    assert "36.4 and 66.7" in sets["rounded"]["why"]

    expected = {
        "pAcc": 12 / 16, "mAcc": (8 / 10 + 4 / 6) / 2, "macro": (8 / 10 + 4 / 6) / 3,
        "precision": (8 / 9 + 0 + 4 / 4) / 3, "pAcc-seen": 8 / 10, "pAcc-unseen": 4 / 6,
        "aAcc-of-tables": 12 / 16, "unseen_acc": sky,
    }  # fmt: skip
    assert {k: row["accuracy"] for k, row in pixels.items()} == pytest.approx({k: 100 * v for k, v in expected.items()})
    assert "12 of 16 labelled pixels" in pixels["pAcc"]["why"] and "33.3 %" in pixels["pAcc-unseen"]["why"]


def test_classes_that_nobody_saw_count_zero_where_the_sum_is_divided_by_k():
    names, unseen = ("cat", "dog", "sky", "sea"), (False, False, True, True)
    matrix = [[*row, 0] for row in MATRIX] + [[0] * 4]
    means, *_ = rows_of(result(matrix, class_names=names, unseen=unseen))
    assert means["all-classes"]["mIoU"] == pytest.approx(100 * (8 / 11 + 4 / 6) / 4)
    assert "1 class ('sea')" in means["all-classes"]["why"]


def test_mean_of_pictures_takes_the_classes_of_each():
    perfect, half = [[4, 0], [0, 0]], [[2, 2], [0, 4]]  # IoU 1; 2/4 and 4/6
    means, *_ = rows_of(result(perfect, half, class_names=("cat", "dog"), unseen=(False, False)))
    assert means["by-picture"]["mIoU"] == pytest.approx(100 * (1 + (2 / 4 + 4 / 6) / 2) / 2)
    assert "has 1.5 of the 2 classes" in means["by-picture"]["why"]


@settings(deadline=None, max_examples=20)  # the first one reads all specs
@given(st.integers(0, 10**6))
def test_scores_are_those_of_the_metrics(draw):
    one = random_result(draw, pictures=3)
    means, sets, pixels = rows_of(one)
    union, present = (one.metrics(rule) for rule in ("union", "present"))
    for name in ("sIoU", "uIoU", "hIoU"):
        assert sets["union"][name] == pytest.approx(100 * union[name])
        assert sets["present"][name] == pytest.approx(100 * present[name])
    assert means["union"]["mIoU"] == pytest.approx(100 * union["mIoU"])
    assert means["frequency-weighted"]["mIoU"] == pytest.approx(100 * union["fwIoU"])
    assert pixels["mAcc"]["accuracy"] == pytest.approx(100 * union["mAcc"])
    assert pixels["pAcc-unseen"]["accuracy"] == pytest.approx(100 * union["pAcc_unseen"])
    if (one.areas.truth > 0).all():
        assert sets["plain-sum"]["uIoU"] == pytest.approx(100 * union["uIoU"])
        assert means["all-classes"]["mIoU"] == pytest.approx(means["union"]["mIoU"])


def test_gaps_have_the_paired_interval_of_the_bootstrap():
    one, other = random_result(1), random_result(2)
    mean = metrics.mean_iou
    found = gaps({"x": Reading(other, mean)}, {"x": Reading(one, mean)}, resamples=200)["x"]
    expected = difference(other, one, resamples=200, scores={"x": mean})["x"]
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    same = gaps({"x": Reading(one, mean)}, {"x": Reading(one, mean)}, resamples=50)["x"]
    assert (same.low, same.high) == (0, 0)


def test_means_of_pictures_are_resampled_with_the_same_draws():
    one = random_result(3, pictures=5)
    counted = picture_draws(5, 40, seed=7) @ one.counts.areas().truth
    assert np.array_equal(counted, np.concatenate([a.truth for a in resampled_areas(one.counts, 40, 7)]))


def test_other_pictures_have_a_gap_without_an_interval():
    one, other = random_result(1), random_result(2, pictures=9)
    found = gaps({"x": Reading(other, metrics.mean_iou)}, {"x": Reading(one, metrics.mean_iou)}, resamples=20)["x"]
    assert np.isfinite(found.value) and np.isnan([found.low, found.high]).all()


def test_result_without_class_split_and_background_has_no_row_of_either():
    means, pixels = rows_of(random_result(1, unseen=(False, False, False)))
    assert not any(key.startswith(("background", "threshold")) for key in means)
    assert set(pixels) == {"pAcc", "mAcc", "macro", "precision"}


def background(**options):
    names = ("background", "dog", "sky")
    return result([[6, 2, 2], [1, 5, 0], [0, 0, 4]], class_names=names, unseen=(False,) * 3, background=0, **options)


def test_background_out_of_the_mean_and_out_of_the_pixels():
    means, _ = rows_of(background())
    # P 7 7 6: dog 5 / (6 + 7 - 5), sky 4 / (4 + 6 - 4); without the first row dog 5 / 6, sky 4 / 4
    assert means["background-out"]["mIoU"] == pytest.approx(100 * (5 / 8 + 4 / 6) / 2)
    assert means["background-ignored"]["mIoU"] == pytest.approx(100 * (5 / 6 + 1) / 2)
    assert "40.0 % of them had got another name" in means["background-ignored"]["why"]
    missing = {key: row["command"] for key, row in means.items() if row["mIoU"] is None}
    assert missing["threshold-0.1"].endswith("--background-threshold 0.1") and "threshold-0" not in missing


def test_threshold_that_was_scored_has_its_numbers():
    lower = background(protocol={"background_threshold": 0.4, "softmax_scale": 50.0})
    means, _ = rows_of(background(), [lower])
    assert means["threshold-0.4"]["delta_mIoU"] == 0 and means["threshold-0.4"]["used_by"] == "scored here"
    means, _ = rows_of(lower)
    assert means["threshold-0"]["mIoU"] is None  # of this one the other


def test_thresholds_and_the_twin_without_background_are_looked_up_for_a_shipped_data_set():
    spec = load_spec("pascal-context-60")
    names, size = tuple(spec.class_names), spec.num_classes
    one = result(np.eye(size, dtype=int), class_names=names, unseen=(False,) * size, data=spec.name, background=0)
    means, _ = rows_of(one)
    assert means["threshold-0.15"]["used_by"] == "clearclip, proxyclip"
    assert means["data-pascal-context-59"]["command"] == "ovseg eval maskclip --data pascal-context-59"
    rest = list(names[1:])
    twin = result(np.eye(size - 1, dtype=int), class_names=rest, unseen=(False,) * (size - 1), data="pascal-context-59")
    means, _ = rows_of(one, [twin])
    assert means["data-pascal-context-59"]["mIoU"] == pytest.approx(100)
    means, _ = rows_of(twin)
    assert "data-pascal-context-60" in means


def test_background_is_compared_with_the_result_of_the_same_settings():
    spec = load_spec("pascal-context-60")
    names, size = tuple(spec.class_names), spec.num_classes

    def scored(data, first, side, created):
        matrix, protocol = np.eye(size - first, dtype=int), {"candidates": "all", "method": {"side": side}}
        if side == 48:
            matrix[0] = matrix[0, ::-1]  # one class is wrong
        own = {"data": data, "class_names": names[first:], "unseen": (False,) * (size - first)}
        return result(matrix, protocol=protocol, created=created, background=0 if first == 0 else None, **own)

    others = [scored("pascal-context-59", 1, side, str(48 - side)) for side in (96, 48)]  # the other one is newer
    means, _ = rows_of(scored(spec.name, 0, 96, ""), others)
    assert means["data-pascal-context-59"]["mIoU"] == pytest.approx(100)


def variant(candidates, matrix, **protocol):
    return result(matrix, protocol={"candidates": candidates, "seen_penalty": 0.0, **protocol})


def test_scored_candidates_give_numbers_and_missing_ones_the_command():
    base = variant("all", MATRIX)
    unseen = variant("unseen", [[0, 0, 10], [0, 0, 0], [0, 0, 6]])
    _, sets, _ = rows_of(base, [base, unseen])
    assert sets["candidates-unseen"]["uIoU"] == pytest.approx(100 * 6 / 16)
    assert sets["candidates-unseen"]["sIoU"] is None and sets["candidates-unseen"]["command"] is None
    assert sets["unseen-pixels"]["uIoU"] == pytest.approx(100)
    assert "33.3 % of the unseen pixels had a seen name" in sets["candidates-unseen"]["why"]
    assert sets["candidates-seen"]["command"] == "ovseg eval maskclip --data toy:combo --candidates seen"
    assert sets["penalty-0.1"]["why"].endswith("--seen-penalty 0.1")
    _, sets, _ = rows_of(unseen, [base, unseen])  # the other way round
    assert sets["candidates-all"]["delta_uIoU"] == pytest.approx(100 * (4 / 6 - 6 / 16))


def test_calibration_that_the_method_has_itself_is_turned_by_its_setting():
    own = variant("all", MATRIX, method={"gamma": 0.1, "side": 96})
    _, sets, _ = rows_of(own)
    assert "penalty-0.1" not in sets and sets["penalty-0"]["command"].endswith("--set gamma=0.0")
    plain = variant("all", [[9, 1, 0], [0, 0, 0], [3, 1, 2]], method={"gamma": 0.0, "side": 96})
    _, sets, _ = rows_of(own, [plain])
    assert sets["penalty-0"]["uIoU"] == pytest.approx(100 * 2 / 6)
    assert "Unseen pixels with a seen name: 33.3 % before, 66.7 % here" in sets["penalty-0"]["why"]


def test_only_the_same_model_pictures_and_names_are_siblings():
    base = variant("all", MATRIX, method={"side": 96})
    other = replace(base, protocol={**base.protocol, "candidates": "unseen"})
    assert is_sibling(base, other)
    assert not is_sibling(base, replace(other, fingerprints={**other.fingerprints, "weights": "x"}))
    assert not is_sibling(base, replace(other, protocol={**other.protocol, "method": {"side": 48}}))
    assert not is_sibling(base, replace(other, protocol={**other.protocol, "limit": 3}))
    assert find(base, [other], Variant("candidates", "unseen", "")) is not None
    assert find(base, [other], Variant("candidates", "seen", "")) is None
    both = replace(base, protocol={**other.protocol, "seen_penalty": 0.1})
    assert find(base, [both], Variant("candidates", "unseen", "")) is None, "two knobs are turned"


def test_pictures_of_a_variant_come_in_the_order_of_the_first():
    base = random_result(1, protocol={"candidates": "all"})
    other = random_result(2, protocol={"candidates": "seen"})
    found = find(base, [other.in_order(other.images[::-1])], Variant("candidates", "seen", ""))
    assert found is not None and found.images == base.images
    assert np.array_equal(found.counts.areas().truth, other.counts.areas().truth)


@given(st.integers(0, 10**6), st.sets(st.integers(0, 2)))
def test_pixels_of_some_classes_are_rows_of_the_matrix(draw, classes):
    one = random_result(draw, pictures=4)
    kept = of_pixels(one, sorted(classes))
    expected = one.matrix * np.isin(np.arange(3), list(classes))[:, None]
    assert np.array_equal(kept.matrix, expected)
    assert kept.counts.areas().truth.sum() == sum(kept.counts[i].pixels.sum() for i in range(4))


def run(tmp_path, **tables):
    return Run(tmp_path / "runs" / "r", {"run": {"data": "toy:combo", "kind": "segmentation", "method": "m"}, **tables})


def test_command_of_a_variant_repeats_what_the_result_was_made_with(tmp_path):
    one = result(
        MATRIX,
        subset="train",
        protocol={"limit": 8, "method": {"side": 48, "deep": {"a": 1, "b": 2}, "proposals": "run of freeseg"}},
        command="ovseg eval runs/r --subset train --templates vild --names=maft --limit 8",
    )
    folder = run(tmp_path, method={"side": 96, "deep": {"a": 1, "b": 3}, "proposals": "x/host"})
    request = request_of(one, folder)
    assert request.settings == {"side": 48, "deep": {"b": 2}} and request.data == ()
    told = typed(turned(request, one, Variant("penalty", 0.1, "")))
    assert told == (
        f"ovseg eval {tmp_path}/runs/r --subset train --seen-penalty 0.1 --templates vild --names maft --limit 8 "
        "--set side=48 --set deep.b=2"
    )


def test_command_after_a_variant_that_an_explanation_scored_keeps_its_readout(tmp_path):
    """What was typed then says nothing of it."""
    one = variant("all", MATRIX, seen_penalty=0.1, names="maft", background_threshold=None)
    one = replace(one, command="ovseg report runs/r --explain --score-missing")
    told = typed(turned(request_of(one, run(tmp_path)), one, Variant("candidates", "unseen", "")))
    assert told == f"ovseg eval {tmp_path}/runs/r --candidates unseen --seen-penalty 0.1 --names maft"
    closed = replace(one, unseen=(False,) * 3)
    assert "--seen-penalty" not in typed(request_of(closed, run(tmp_path)))


def test_command_names_classes_of_a_split_of_ones_own(tmp_path):
    one = result(MATRIX, data="toy:custom-1234")
    assert request_of(one, run(tmp_path)).unseen == "sky" and request_of(one, run(tmp_path)).data == ("toy",)
    trained = run(tmp_path)
    trained.config["run"]["data"] = "toy:custom-1234"
    assert request_of(one, trained).unseen is None, "the run knows"


def test_knobs_and_wanted_variants():
    one = result(MATRIX, protocol={"seen_penalty": 0.1, "method": {"side": 3}})
    assert Knobs.of(one) == Knobs("all", 0.1, 0.0) and Knobs.of(result(MATRIX)) == Knobs()
    more = replace(one, protocol={**one.protocol, "seen_penalty": 0.3})
    assert [v.key for v in variants_of(one, [more])] == [
        "candidates-unseen", "candidates-seen", "penalty-0", "penalty-0.3",
    ]  # fmt: skip


def test_tables_are_plain_json():
    from ovseg_cli.core.report.formats import document, render

    tables = explain_tables(random_result(1), resamples=20)
    assert json.loads(json.dumps(document(tables)))["tables"][0]["rows"][0]["delta_mIoU"] is None
    assert "used by" in render(tables, "markdown") and render(tables, "latex") and render(tables, "csv")
