"""`ovseg report RUN… --figures compare`, on the toy world."""

import json
import shutil

import pytest
from PIL import Image

from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.report.compare_grid import score

STEM = "compare-toy-combo-val"
FIGURE = ("--figures", "compare", "--gpus", "0")


@pytest.fixture
def run(world, tmp_path):
    """A copy of the scored run."""
    found = min((world / "runs").glob("maskclip-*"))
    return shutil.copytree(found, tmp_path / "runs" / found.name)


def test_grid_and_table_of_two_models(cli, run, tmp_path):
    made = cli("eval", "clip", "--data", "toy", "--limit", "24", "--gpus", "0", "--runs", tmp_path / "runs")
    assert made.code == 0, made.err
    other = min((tmp_path / "runs").glob("clip-*"))
    answer = cli("report", other, run, *FIGURE, "--limit", "2", "--format", "json")
    assert answer.code == 0, answer.err
    (table,) = json.loads(answer.out)["tables"]
    assert [row["picture"] for row in table["rows"]] == ["00000", "00001", "all of these"]
    assert all(0 <= row["mIoU"] <= 100 and 0 <= row["mIoU_1"] <= 100 for row in table["rows"])
    assert f"wrote {other}/{STEM}.png" in answer.err
    alone = cli("report", run, *FIGURE, "--limit", "2", "--out", "alone", "--format", "json")
    width = Image.open(other / f"{STEM}.png").width
    assert Image.open(tmp_path / "alone" / f"{STEM}.png").width < width < 4 * 320
    (of_one,) = json.loads(alone.out)["tables"]
    assert [row["mIoU"] for row in of_one["rows"]] == [row["mIoU_1"] for row in table["rows"]]


def test_pictures_are_those_that_are_named(cli, run):
    answer = cli("report", run, *FIGURE, "--picture", "00007.png", "--picture", "00003", "--limit", "1", "-f", "json")
    assert answer.code == 0, answer.err
    (table,) = json.loads(answer.out)["tables"]
    assert [row["picture"] for row in table["rows"]] == ["00007", "00003", "all of these"]


def test_scores_of_a_picture_are_those_of_the_evaluation(cli, run):
    (file,) = (run / "results").glob("*.json")
    counts = load_result(file).counts
    answer = cli("report", run, *FIGURE, "--limit", "3", "--format", "json")
    (table,) = json.loads(answer.out)["tables"]
    assert [row["mIoU"] for row in table["rows"]][:3] == pytest.approx([score([counts[i]]) for i in range(3)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*FIGURE, "--picture", "0000"), "has no picture '0000'. Did you mean"),
        ((*FIGURE, "--proposals", "superpixels"), "--proposals belongs to --figures mask-sensitivity"),
        (("--figures", "mask-sensitivity", "--picture", "00000"), "--picture belongs to --figures compare"),
        (("--picture", "00000"), "--picture belongs to --figures"),
        ((*FIGURE, "--per-class"), "--per-class belongs to the tables"),
    ],
)
def test_options_that_do_not_fit_are_said(cli, run, arguments, said):
    answer = cli("report", run, *arguments)
    assert answer.code == 2 and said in " ".join(answer.err.split())
    assert not list(run.glob("**/*.png"))
