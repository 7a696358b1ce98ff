"""`ovseg eval --task masks`, `--task oracle` and `report --figures calibration`: what is typed, printed and refused."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w
from matplotlib import image

from ovseg_cli.core.evaluation.mask_results import MaskResult
from tests.commands.conftest import run_command
from tests.commands.mini import commands_in, host_settings, maft_settings, prepared_place
from tests.commands.test_several_processes import launch

FAST = ("--data", "mini", "--gpus", "0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared data and, in `hosts/`, one run of freeseg and one of maft that were trained for a few steps."""
    with prepared_place(tmp_path_factory.mktemp("named")) as place:
        for name, settings in (("freeseg", host_settings("freeseg")), ("maft", maft_settings())):
            (place / f"{name}.toml").write_text(tomli_w.dumps(settings))
            words = ("--gpus", "0", "--config", f"{name}.toml", "--runs", f"hosts/{name}")
            done = run_command("train", name, *words)
            assert done.code == 0, done.err
        yield place


@pytest.fixture
def cli(place, tmp_path, monkeypatch):
    """Run a command in an empty folder, with the data of `place` and no runs."""
    return commands_in(tmp_path, place, monkeypatch)


def host(place: Path, name: str) -> Path:
    (run,) = [path.parent for path in (place / "hosts" / name).glob("*/config.toml")]
    return run


def document(answer):
    assert answer.code == 0, answer.err
    (result,) = json.loads(answer.out)["results"]
    return result


@pytest.mark.parametrize("model", ["maskclip", "freeseg", "maft"])
@pytest.mark.parametrize("task", ["masks", "oracle"])
def test_every_kind_of_method_names_masks_and_climbs_the_ladder(cli, place, model, task):
    named = model if model == "maskclip" else host(place, model)
    found = document(cli("eval", named, "--task", task, *FAST, "--json"))
    assert found["schema"] == 1 and found["pictures"] == 2 and Path(found["file"]).is_file()
    if task == "masks":
        assert found["scores"]["union"]["all"]["masks"] == 4 and found["masks"]["source"] == "ground-truth"
    else:
        ladder = found["ladder"]["union"]["all"]
        assert ladder["both"]["mIoU"] == ladder["both"]["pAcc"] == 100
        assert "hold" in found["verdict"]["all"]


def test_masks_of_another_run_are_named(cli, place):
    run = host(place, "freeseg")
    found = document(cli("eval", "maskclip", "--task", "masks", *FAST, "--proposals", run, "--json"))
    assert found["masks"]["source"] == "freeseg"
    assert found["scores"]["union"]["all"]["masks"] + found["left_out"] <= 12  # six queries a picture
    again = cli("report", found["file"], "--format", "json")
    assert again.code == 0 and '"title": "Mask classification"' in again.out, again.err
    both = document(cli("eval", "maskclip", "--task", "oracle", *FAST, "--proposals", run, "--json"))
    assert both["masks"]["digest"] == found["masks"]["digest"]


def test_pooling_orders_are_results_of_their_own(cli):
    first = document(cli("eval", "maskclip", "--task", "masks", *FAST, "--json"))
    settings = ("--set", "mask_pooling=masks-down", "--set", "pool_before_projection=true")
    other = document(cli("eval", "maskclip", "--task", "masks", *FAST, *settings, "--json"))
    assert first["file"] != other["file"] and other["protocol"]["method"]["pool_before_projection"]
    probabilities = [list(MaskResult.load(Path(d["file"])).named.best) for d in (first, other)]
    assert probabilities[0] != probabilities[1]


def test_tables_plan_and_bounds(cli):
    plan = cli("eval", "maskclip", "--task", "masks", *FAST, "--dry-run", "--json")
    assert json.loads(plan.out)["task"] == "masks" and not Path("runs").exists()
    answer = cli("eval", "maskclip", "--task", "masks", *FAST, "--split", "seen")
    assert answer.code == 0 and "Mask classification" in answer.out and "harmonic" not in answer.out
    for words in ("By size", "Classes of mini:no-snow val", "ECE"):
        assert words in answer.out
    missed = cli("eval", "maskclip", "--task", "masks", *FAST, "--candidates", "unseen", "--fail-under", "top1=99")
    assert missed.code == 5 and "top1" in missed.err
    ladder = cli("eval", "maskclip", "--task", "oracle", *FAST)
    assert ladder.code == 0 and "hold" in ladder.out.splitlines()[-1]


def test_calibration_is_drawn_from_files_alone(cli):
    for model in ("maskclip", "clip"):
        assert cli("eval", model, "--task", "masks", *FAST).code == 0
    runs = sorted(Path("runs").iterdir())
    answer = cli("report", *runs, "--figures", "calibration", "--format", "json", "--out", "pictures")
    assert answer.code == 0, answer.err
    (table,) = json.loads(answer.out)["tables"]
    assert {row["model"] for row in table["rows"]} == {"CLIP", "MaskCLIP"}
    (picture,) = Path("pictures").iterdir()
    assert image.imread(picture).shape[0] > 300
    words = ("report", runs[0], "--figures", "calibration")
    for more, said in (
        (("--proposals", "superpixels"), "no result of mask classification that fits"),
        (("--limit", "3"), "--limit"),
        (("--picture", "0"), "--picture"),
    ):
        wrong = cli(*words, *more)
        assert wrong.code == 2 and said in " ".join(wrong.err.split())
    empty = shutil.copytree(runs[0], "runs/empty")
    shutil.rmtree(Path(empty) / "results" / "masks")
    answer = cli("report", empty, "--figures", "calibration")
    assert answer.code == 2 and "no masks were named" in answer.err and "--task masks" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "masks", "--seen-penalty", "0.1"), "--seen-penalty"),
        (("--task", "masks", "--force"), "--force"),
        (("--task", "oracle", "--fail-under", "mIoU=3"), "--fail-under"),
        (("--task", "masks", "--fail-under", "ECE=3"), "ECE"),
        (("--task", "masks", "--proposals", "superpixel"), "superpixels"),
        (("--task", "masks", "--proposals", "no/such"), "no such cache"),
        (("--task", "mask"), "masks"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, words, said):
    answer = cli("eval", "maskclip", *FAST, *words)
    assert answer.code in (2, 3) and said in " ".join(answer.err.split()) and not Path("runs").exists()


@pytest.mark.parametrize(("task", "kept"), [("masks", "records"), ("oracle", "counts")])
def test_two_processes_score_what_one_does_and_print_once(cli, tmp_path, task, kept):
    words = ("eval", "maskclip", "--task", task, *FAST, "--json")
    alone = document(cli(*words))
    (tmp_path / "two").mkdir()
    two = launch(tmp_path / "two", *words)
    (first, told), (second, _) = (process.communicate() for process in two)
    assert [process.returncode for process in two] == [0, 0], told
    assert not second and json.loads(first)["schema"] == 1
    (path,) = (tmp_path / "two").glob(f"runs/*/results/{task}/*")
    documents = [json.loads(Path(file).read_text()) for file in (alone["file"], path)]
    assert documents[0][kept] == documents[1][kept] and documents[0]["images"] == documents[1]["images"]
