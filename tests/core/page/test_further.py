"""What else is stored of a run stands on its page: truly novel classes, named masks, the oracle ladder."""

from dataclasses import replace

import pytest

from ovseg_cli.core.evaluation.oracle import RUNGS
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.page.build import PageRequest, PictureWish, build_page
from ovseg_cli.core.page.render import render, tables_of
from ovseg_cli.core.report.oracle_tables import oracle_table
from ovseg_cli.core.report.request import ReportRequest
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runs import create_run
from ovseg_cli.core.runtime import Folders
from tests.core.report.results import random_result


@pytest.fixture
def place(tmp_path):
    """A run with its score, its ladder, one of other data, and a broken one."""
    run = create_run(tmp_path / "runs", "segmentation", "maskclip", "toy:combo", {})
    scored = random_result(1, run=str(run.path))
    scored.save(run.path / "results" / "r.json")
    counts = {rung: random_result(i, classes=4).counts for i, rung in enumerate(RUNGS)}
    facts = {name: getattr(scored, name) for name in ("method", "data", "subset", "class_names", "unseen")}
    ladder = OracleResult(**facts, masks={"source": "own"}, counts=counts)
    folder = run.path / "results" / "oracle"
    ladder.save(folder / "a.json")
    replace(ladder, data="other").save(folder / "b.json")
    (folder / "c.json").write_text("{}")
    run.finish()
    return Folders(tmp_path / "datasets", tmp_path / "runs"), str(run.path), ladder


def page_of(place, **options):
    folders, run, _ = place
    return build_page(PageRequest(ReportRequest((run,), resamples=20, **options), PictureWish(0)), folders, Silent())


@pytest.mark.parametrize("options", [{}, {"split": "unseen", "absent": "present"}])
def test_ladder_of_the_same_data_is_shown_as_eval_shows_it(place, options):
    page = page_of(place, **options)
    wanted = oracle_table([place[2].document()], options.get("split", "all"), options.get("absent", "union"))
    novelty, found = page.further
    assert found == wanted and novelty.title == "Truly novel classes"
    assert any("c.json" in note for note in page.notes) and len(page.notes) == 1
    assert tables_of(page)[-1] == wanted, "the page's JSON holds it, too"
    assert "what better masks or names would bring" in render(page)


def test_what_was_trained_on_is_asked_of_the_run_where_it_lies_now(tmp_path):
    """The result says where its run lay when it was scored."""
    run = create_run(tmp_path / "runs", "segmentation", "clip", "a:b", {"vocabulary": {"training_names": ["cat"]}})
    scored = random_result(1, unseen=(False,) * 3, run="runs/elsewhere")
    scored.save(run.path / "results" / "r.json")
    folders = Folders(tmp_path / "datasets", tmp_path / "runs")
    page = build_page(PageRequest(ReportRequest((str(run.path),)), PictureWish(0)), folders, Silent())
    (novelty,) = page.further
    assert [row["known"] for row in novelty.records()] == [1], "a cat"


def test_nothing_stands_behind_a_score_alone(place, tmp_path):
    folders, run, _ = place
    alone = create_run(folders.runs, "segmentation", "clip", "toy:combo", {})
    random_result(2, unseen=(False,) * 3, method="clip", run=str(alone.path)).save(alone.path / "results" / "r.json")
    alone.finish()
    page = build_page(PageRequest(ReportRequest((str(alone.path),)), PictureWish(0)), folders, Silent())
    assert page.further == () and "Behind the scores" not in render(page)
