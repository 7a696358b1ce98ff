"""From names of runs and files to tables: what is read, what is left out, what is compared with what."""

import pytest

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.report.request import ReportRequest, build
from ovseg_cli.core.report.stored import NoResult, find_results
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runs import create_run
from ovseg_cli.core.runtime import Folders
from tests.core.report.results import random_result


@pytest.fixture
def place(tmp_path):
    return Folders(tmp_path / "datasets", tmp_path / "runs")


def make_run(place, draw, *, stem="r", seed=0, finish=True, **options):
    """A finished run with one result."""
    method = options.get("method", "maskclip")
    run = create_run(place.runs, "segmentation", method, options.get("data", "toy:combo"), {}, seed)
    random_result(draw, run=str(run.path), seed=seed, created=str(draw), **options).save(
        run.path / "results" / f"{stem}.json"
    )
    if finish:
        run.finish()
    return run.path


def tables_of(place, *names, reporter=None, **options):
    asked = ReportRequest(tuple(str(n) for n in names), **{"resamples": 20, **options})
    return build(asked, place, reporter or Silent())


def test_name_is_a_file_a_folder_a_run_s_bare_name_or_latest(place):
    path = make_run(place, 1)
    random_result(2, run=str(path), created="2").save(path / "results" / "s.json")
    make_run(place, 3, finish=False)
    assert [len(find_results(str(n), place)) for n in (path, path.name, "latest", path / "results" / "r.json")] == [
        2, 2, 2, 1,
    ]  # fmt: skip


def test_folder_of_seeds_means_the_results_of_all(place):
    family = place.runs / "family"
    family.mkdir(parents=True)
    for seed in (0, 1):
        make_run(place, seed + 1).rename(family / f"seed-{seed}")
    assert [one.seed for one in find_results(str(family), place)] == [one.seed for one in find_results("family", place)]
    assert len(find_results("family", place)) == 2 and len(find_results(str(family / "seed-1"), place)) == 1


def test_what_is_named_twice_is_shown_once(place):
    a, b = make_run(place, 1), make_run(place, 2)
    assert len(tables_of(place, a, b, a, a / "results" / "r.json")[0].records()) == 2
    assert len(tables_of(place, a, baseline=str(b))[0].records()) == 2, "the baseline is a row as well"


def test_run_without_result_is_left_out_with_a_warning_unless_it_is_the_only_one(place):
    full = make_run(place, 1)
    empty = create_run(place.runs, "segmentation", "clip", "toy:combo", {}).path
    trained = create_run(place.runs, "toy-clip", "toy-clip", "toy", {}).path
    reporter = Silent()
    assert len(tables_of(place, empty, full, reporter=reporter)[0].records()) == 1
    assert len(reporter.warnings) == 1 and str(empty) in reporter.warnings[0]
    with pytest.raises(NoResult, match=f"ovseg eval {empty}"):
        tables_of(place, empty)
    with pytest.raises(NoResult, match=f"ovseg eval maskclip --clip {trained}"):
        tables_of(place, trained)


@pytest.mark.parametrize(("name", "typed"), [("bare", "./bare"), ("a b/it's", "'a b/it'\"'\"'s'")])
def test_command_that_mends_can_be_pasted(place, tmp_path, monkeypatch, name, typed):
    monkeypatch.chdir(tmp_path)
    run = create_run(place.runs, "segmentation", "clip", "toy:combo", {}).path
    (tmp_path / name).parent.mkdir(exist_ok=True)
    run.rename(name)
    with pytest.raises(NoResult) as caught:
        find_results(name, place)
    assert caught.value.mend == f"Score it: ovseg eval {typed}"


def test_options_of_the_view_reach_the_table(place):
    path = make_run(place, 1)
    usual = tables_of(place, path)[0]
    assert any("20 resamples" in note for note in usual.notes) and any("Rule union" in n for n in usual.notes)
    assert any("Rule present" in note for note in tables_of(place, path, absent="present")[0].notes)
    row, unseen = usual.records()[0], tables_of(place, path, split="unseen")[0].records()[0]
    assert unseen["mIoU"] == pytest.approx(row["uIoU"]) and row["mIoU"] != pytest.approx(row["uIoU"])


def test_seeds_are_one_row_only_when_asked(place):
    prints = [{"data": "d", "weights": f"w{seed}", "vocabulary": "v", "protocol": "p"} for seed in range(3)]
    runs = [make_run(place, seed, seed=seed, fingerprints=prints[seed]) for seed in range(3)]
    assert len(tables_of(place, *runs)[0].records()) == 3
    (row,) = tables_of(place, *runs, group_seeds=True)[0].records()
    means = [r["mIoU"] for r in tables_of(place, *runs)[0].records()]
    assert row["mIoU"] == pytest.approx(sum(means) / 3)


def test_difference_is_rival_less_baseline(place):
    a, base = make_run(place, 1), make_run(place, 2, method="clip")
    scores, differences = tables_of(place, a, baseline=str(base))
    first, last = ({r["method"]: r["mIoU"] for r in scores.records()}[m] for m in ("MaskCLIP", "CLIP"))
    (row,) = differences.records()
    assert row["method"] == "MaskCLIP" and first != last
    assert row["delta_mIoU"] == pytest.approx(first - last, abs=1e-6)
    classes = tables_of(place, a, baseline=str(base), per_class=True)[2:]
    gains = [row["delta"] for row in classes[0].records()]
    assert len(classes) == 1 and sum(gains) / len(gains) == pytest.approx(first - last)


@pytest.mark.parametrize(
    "other", [{"data": "toy:novel"}, {"subset": "tune"}, {"pictures": 5}, {"fingerprints": {"data": "changed"}}]
)
def test_baseline_on_other_data_is_compared_with_nothing(place, other):
    a, base = make_run(place, 1), make_run(place, 2, method="clip", **other)
    with pytest.raises(UsageError, match="--baseline: no other result"):
        tables_of(place, a, baseline=str(base))


def test_classes_of_each_data_set_have_a_table_of_their_own(place):
    a, b = make_run(place, 1), make_run(place, 2, data="toy:novel")
    assert len(tables_of(place, a, b)) == 1
    assert len(tables_of(place, a, b, per_class=True)) == 3
    assert len(tables_of(place, a, make_run(place, 3), per_class=True)) == 2
