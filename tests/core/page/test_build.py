"""What is gathered for a page from run folders and result files, without a model."""

import json

import pytest

from ovseg_cli.core.page.build import PageRequest, PictureWish, build_page
from ovseg_cli.core.page.curves import thin
from ovseg_cli.core.page.reproductions import commands_of
from ovseg_cli.core.report.formats import document
from ovseg_cli.core.report.request import ReportRequest, build
from ovseg_cli.core.report.stored import home_of
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runs import create_run, open_run
from ovseg_cli.core.runtime import Folders
from tests.core.report.results import random_result


@pytest.fixture
def place(tmp_path):
    return Folders(tmp_path / "datasets", tmp_path / "runs")


def make_run(place, draw, *, seed=0, log=(), tables=None, **options):
    """A finished run with one result and a log."""
    method = options.get("method", "maskclip")
    run = create_run(place.runs, "segmentation", method, "toy:combo", tables or {}, seed)
    prints = {"data": "d", "weights": f"w{draw}", "vocabulary": "v", "protocol": "p"}
    given = {
        "run": str(run.path),
        "seed": seed,
        "created": str(draw),
        "fingerprints": prints,
        "command": f"ovseg eval {draw}",
    }
    random_result(draw, **given, **options).save(run.path / "results" / "r.json")
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    run.finish()
    return run.path


def page_of(place, *names, **options):
    asked = ReportRequest(tuple(map(str, names)), **{"resamples": 20, **options})
    return build_page(PageRequest(asked, PictureWish(0)), place, Silent())


def tables_in(page):
    return document([*page.tables, *(chart.table for chart in page.classes)])["tables"]


@pytest.mark.parametrize(
    "options", [{}, {"split": "unseen", "absent": "present"}, {"group_seeds": True}, {"resamples": 0}]
)
def test_every_number_is_that_of_the_json(place, options):
    runs = [make_run(place, draw, seed=draw) for draw in range(3)] + [make_run(place, 7, method="clip")]
    for baseline in (None, str(runs[3])):
        told = ReportRequest(tuple(map(str, runs)), baseline, True, **{"resamples": 20, **options})
        wanted = document(build(told, place, Silent()))["tables"]
        found = tables_in(page_of(place, *runs, baseline=baseline, **options))
        assert all(table in found for table in wanted) and found[0] == wanted[0]
        assert len(found) == len(wanted) + (baseline is not None), "classes stand there beside differences"


def test_bars_are_ious_and_deltas_differences(place):
    a, b = make_run(place, 1), make_run(place, 2, method="clip")
    classes, deltas = page_of(place, a, b, baseline=str(b)).classes
    assert classes.title == "toy:combo, val" and classes.bars == ("IoU_1", "IoU_2")
    assert deltas.title == "toy:combo, val: MaskCLIP − CLIP" and deltas.deltas == ("delta",)


def test_rows_of_several_seeds_show_the_first_and_say_so(place):
    page = page_of(place, *(make_run(place, draw, seed=draw) for draw in (2, 1)), group_seeds=True)
    assert len(page.confusions) == 1 and any("those of the first" in note for note in page.notes)
    assert [one.model for one in page.reproductions] == ["MaskCLIP, seed 1", "MaskCLIP, seed 2"]


def test_runs_without_a_result_are_named(place):
    empty = create_run(place.runs, "segmentation", "clip", "toy:combo", {}).path
    assert any(str(empty) in note for note in page_of(place, make_run(place, 1), empty).notes)


def steps(count, **terms):
    return [{"step": i, "terms": terms, "learning_rate": 0.1, "gradient_norm": 1.0} for i in range(1, count + 1)]


def test_a_chart_a_loss_term_and_a_line_a_run(place):
    a = make_run(place, 1, log=[*steps(3, focal=2.0, dice=1.0), {"step": 3, "evaluation": {"mIoU": 41.0}}])
    b = make_run(place, 2, method="clip", log=steps(2, dice=0.5))
    (host := a / "host").mkdir()
    (host / "metrics.jsonl").write_text((b / "metrics.jsonl").read_text())
    charts = {chart.title: chart.lines for chart in page_of(place, a, b).curves}
    assert list(charts) == ["loss: dice", "loss: focal", "learning rate", "gradient norm", "evaluation: mIoU"]
    assert [(line.label, line.steps, line.values[-1]) for line in charts["loss: dice"]] == [
        ("MaskCLIP", (1, 2, 3), 1.0), ("CLIP", (1, 2), 0.5), ("MaskCLIP, its host", (1, 2), 0.5),
    ]  # fmt: skip
    assert charts["evaluation: mIoU"][0].values == (41.0,)


def test_a_host_that_was_scored_is_drawn_once(place):
    a = make_run(place, 1, log=steps(2, dice=1.0))
    host = make_run(place, 2, method="clip", log=steps(2, dice=1.0))
    (a / "host").symlink_to(host)
    (chart, *_) = page_of(place, a, host).curves
    assert [line.label for line in chart.lines] == ["MaskCLIP", "CLIP"]


def test_a_long_line_is_thinned_by_averaging_neighbours():
    # five points, at most two: (1 + 2 + 3) / 3 at step 30, (4 + 5) / 2 at step 50
    line = thin("m", (10, 20, 30, 40, 50), (1.0, 2.0, 3.0, 4.0, 5.0), 2)
    assert (line.steps, line.values) == ((30, 50), (2.0, 4.5))
    assert thin("m", (1, 2, 3), (1.0, float("nan"), 3.0)).steps == (1, 3)
    long = thin("m", range(12_345), [1.0] * 12_345)
    assert len(long.steps) <= 1000 and long.steps[-1] == 12_344 and set(long.values) == {1.0}


def test_settings_that_differ_come_first_and_say_where_they_come_from(place):
    protocol = {"candidates": "all", "seen_penalty": 0.0, "templates": ["a {}"]}
    mine = {"side": 96, "resize": "none", "window": 0, "variant": "original"}
    a = make_run(place, 1, protocol={**protocol, "method": mine})
    b = make_run(
        place, 2, method="clip", protocol={**protocol, "candidates": "unseen", "method": {"side": 64, "window": 0}}
    )
    (settings,) = page_of(place, a, b).settings
    rows = {row.name: row for row in settings.rows}
    assert [row.name for row in settings.rows if row.differs] == [row.name for row in settings.rows][:2]
    assert rows["method.side"].values == ("96", "64") and rows["method.side"].differs
    assert rows["method.side"].sources == ("recipe of toy", "--set or --config")
    assert rows["candidates"].sources == ("default", "--candidates")
    assert rows["method.window"].sources[0].startswith("ours: whole pictures")
    assert rows["method.variant"].values == ("original", "–") and not rows["method.variant"].differs
    assert rows["templates"].sources == ("--templates, or those of its training",) * 2


def test_settings_of_a_training_are_those_of_its_run(place):
    training = {"iterations": 123, "batch_size": 8, "focal_weight": 20.0}
    run = make_run(place, 1, method="zegclip", protocol={"training": training}, tables={"training": training})
    trainings = {settings.title: settings for settings in page_of(place, run).settings}["Settings of the trainings"]
    told = {row.name: (*row.values, *row.sources) for row in trainings.rows}
    assert told["iterations"] == ("123", "--set or --config")
    assert told["focal_weight"] == ("20.0", "recipe of toy") and told["data"] == ("toy:combo", "")


def test_commands_of_a_result_begin_with_what_it_was_made_from(place, monkeypatch):
    def run_by(command, **tables):
        monkeypatch.setattr("sys.argv", command.split())
        return create_run(place.runs, "segmentation", "maft", "toy:combo", tables)

    clip = run_by("ovseg train toy-clip")
    host = run_by("ovseg train freeseg", clip={"name": str(clip.path)})
    tuned = run_by("ovseg train maft", clip={"name": str(clip.path)}, method={"proposals": str(host.path)})
    wanted = ["ovseg train toy-clip", "ovseg train freeseg", "ovseg train maft"]
    assert list(dict.fromkeys(commands_of(open_run(tuned.path)))) == wanted
    random_result(1, run=str(tuned.path), command="ovseg eval ./x").save(tuned.path / "results" / "r.json")
    (told,) = page_of(place, tuned.path).reproductions
    assert told.commands == ("ovseg prepare toy", *wanted, "ovseg eval ./x")
    assert dict(told.facts)["fingerprint of weights"] == "w" and dict(told.facts)["seed"] == "0"


def test_a_page_lies_with_what_was_named_first(place, tmp_path):
    run = make_run(place, 1)
    assert (
        home_of(run.name, place) == run == home_of(str(run / "results" / "r.json"), place) == home_of("latest", place)
    )
    (tmp_path / "alone.json").write_bytes((run / "results" / "r.json").read_bytes())
    assert home_of(str(tmp_path / "alone.json"), place) == tmp_path
    (place.runs / "family").mkdir()
    run.rename(place.runs / "family" / "seed-0")
    assert home_of("family", place) == place.runs / "family"
