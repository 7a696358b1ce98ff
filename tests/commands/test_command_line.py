"""The contract of the command line: streams, JSON, exit codes, colours, dry runs, and the three promised commands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def test_eval_keeps_counts_from_which_its_table_follows(cli: Callable, world: Path) -> None:
    answer = cli("eval", "maskclip", "--data", "toy", "--limit", "6", "--gpus", "0", "--json")
    assert answer.code == 0, answer.err
    shown = json.loads(answer.out)["results"][0]
    stored = json.loads(Path(shown["file"]).read_text())
    total = stored["counts"]["total"]
    truth, predicted, pixels = (np.array(total[k]) for k in ("ground_truth", "prediction", "pixels"))
    accuracy = 100 * pixels[truth == predicted].sum() / pixels.sum()
    assert shown["percent"]["union"]["pAcc"] == pytest.approx(accuracy, abs=1e-4)
    names = stored["class_names"]
    ious = []
    for c in range(len(names)):
        hit = pixels[(truth == c) & (predicted == c)].sum()
        union = pixels[truth == c].sum() + pixels[predicted == c].sum() - hit
        if union:
            ious.append(100 * hit / union)
    assert shown["percent"]["union"]["mIoU"] == pytest.approx(np.mean(ious), abs=1e-4)
    assert shown["percent"]["union"]["classes"] == len(ious)


def test_split_chooses_what_is_reported_and_candidates_what_competes(cli: Callable) -> None:
    def score(*extra: str) -> dict:
        answer = cli("eval", "maskclip", "--data", "toy", "--limit", "8", "--gpus", "0", "--json", *extra)
        return json.loads(answer.out)["results"][0]["percent"]["union"]

    everything, unseen = score(), score("--split", "unseen")
    assert unseen["mIoU"] == everything["uIoU"] == unseen["uIoU"]
    restricted = score("--split", "unseen", "--candidates", "unseen")
    assert restricted["pAcc"] >= unseen["pAcc"], "with fewer rivals no unseen pixel can be lost"


def test_fail_under_decides_the_exit_code(cli: Callable) -> None:
    common = ["eval", "maskclip", "--data", "toy", "--limit", "4", "--gpus", "0", "--json"]
    assert cli(*common, "--fail-under", "mIoU=0").code == 0
    missed = cli(*common, "--fail-under", "mIoU=0", "--fail-under", "hIoU=99.9")
    assert missed.code == 5 and "hIoU" in missed.err and "mIoU" not in missed.err.split("hIoU")[0].rsplit("error", 1)[1]
    assert json.loads(missed.out), "the scores are printed although a bound was missed"


def test_eval_without_model_takes_the_latest_finished_segmentation_run(cli: Callable, world: Path) -> None:
    answer = cli("eval", "--limit", "4", "--gpus", "0", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["results"][0]["method"] == "maskclip"


def test_unseen_option_makes_a_split(cli: Callable) -> None:
    answer = cli(
        "eval", "maskclip", "--data", "toy", "--unseen", "grass, snow", "--limit", "4", "--gpus", "0", "--json"
    )
    result = json.loads(answer.out)["results"][0]
    unseen = json.loads(Path(result["file"]).read_text())["unseen"]
    names = json.loads(Path(result["file"]).read_text())["class_names"]
    assert [n for n, flag in zip(names, unseen, strict=True) if flag] == ["grass", "snow"]
    again = cli("eval", result["run"], "--limit", "3", "--gpus", "0", "--json")
    assert again.code == 0 and json.loads(again.out)["results"][0]["data"] == result["data"], again.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "toy", "--dry-run", "--json"],
        ["train", "toy-clip", "--dry-run", "--json"],
        ["eval", "maskclip", "--data", "toy", "--dry-run", "--json"],
    ],
    ids=lambda a: a[0],
)
def test_dry_run_prints_a_plan_and_writes_nothing(cli: Callable, world: Path, arguments: list[str]) -> None:
    before = sorted(world.rglob("*"))
    answer = cli(*arguments)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["schema"] == 1
    assert sorted(world.rglob("*")) == before


JSON_COMMANDS = {
    "prepare": ["prepare", "toy", "--json"],
    "list datasets": ["list", "datasets", "--json"],
    "list methods": ["list", "methods", "--json"],
    "list backbones": ["list", "backbones", "--json"],
    "list runs": ["list", "runs", "--json"],
    "show a method": ["show", "maskclip", "--json"],
    "show a data set": ["show", "voc:zs3-18-2", "--json"],
    "show a trainer": ["show", "toy-clip", "--json"],
    "doctor": ["doctor", "--json"],
    "report": ["report", "latest", "--format", "json"],
}


@pytest.mark.parametrize("arguments", JSON_COMMANDS.values(), ids=JSON_COMMANDS)
def test_json_is_one_document_with_a_schema(cli: Callable, arguments: list[str]) -> None:
    answer = cli(*arguments)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["schema"] == 1


@pytest.mark.parametrize(
    "name", ["coco-stuff", "coco-object", "voc", "voc-21", "pascal-context", "sa-1b", "camvid", "toy"]
)
def test_show_explains_every_kind_of_data_set(cli: Callable, name: str) -> None:
    answer = cli("show", name)
    assert answer.code == 0 and "background" in answer.out, answer.err


def test_every_method_names_the_source_of_every_setting(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovseg_cli.core.overhead.seconds", lambda calls: ([1.0] * len(calls), 1))  # no stopwatch here
    for method in json.loads(cli("list", "methods", "--json").out)["methods"]:
        document = json.loads(cli("show", method["name"], "--json").out)
        for row in document["tables"][0]["rows"]:
            assert row["source"] and row["meaning"], (method["name"], row["setting"])


@pytest.mark.parametrize("form", ["rich", "markdown", "latex", "csv", "json"])
def test_report_writes_every_format(cli: Callable, tmp_path: Path, form: str) -> None:
    answer = cli("report", "latest", "--format", form, "--per-class", "--bootstrap", "50")
    assert answer.code == 0 and "grass" in answer.out and "\x1b[" not in answer.out, answer.err
    written = cli("report", "latest", "--format", form, "--bootstrap", "50", "--out", "table.txt")
    assert written.code == 0 and not written.out and "MaskCLIP" in (tmp_path / "table.txt").read_text()


def test_predict_writes_label_map_overlay_and_rle(cli: Callable, picture: Path, tmp_path: Path) -> None:
    answer = cli(
        "predict", "maskclip", str(picture), "--classes", "snow, sand/beach, zebra", "--clip", "toy-clip", "--gpus", "0"
    )
    assert answer.code == 0, answer.err
    assert "zebra" in answer.err, "a word that the toy tokenizer does not know is named"
    labels = np.asarray(Image.open(tmp_path / "predictions" / f"{picture.stem}.png"))
    assert labels.shape == np.asarray(Image.open(picture)).shape[:2] and labels.max() <= 2
    assert json.loads((tmp_path / "predictions" / f"{picture.stem}.json").read_text())["schema"] == 1
    by_data = cli("predict", "latest", str(picture), "--out", "other", "--gpus", "0", "--json")
    assert by_data.code == 0 and len(json.loads(by_data.out)["pictures"]) == 1, by_data.err


def run_outside(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does: another process, no terminal."""
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "ovseg_cli.app", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_without_a_terminal_there_are_no_control_codes(world: Path, tmp_path: Path) -> None:
    done = run_outside(
        ["eval", "maskclip", "--data", "toy", "--limit", "2", "--gpus", "0", "--runs", str(tmp_path / "runs")],
        tmp_path,
        OVSEG_DATA=str(world / "datasets"),
        OVSEG_CACHE=str(world / "cache"),
    )
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert "\x1b" not in text and "\r" not in text
    assert "MaskCLIP" in done.stdout and "MaskCLIP" not in done.stderr
    assert "scoring toy:combo" in done.stderr and "scoring" not in done.stdout


def test_a_reader_that_leaves_early_is_no_failure(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = f'set -o pipefail; "{sys.executable}" -m ovseg_cli.app list datasets | head -n 1'
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_debug_shows_the_traceback_and_keeps_the_exit_code(cli: Callable) -> None:
    quiet, loud = cli("show", "maskclop"), cli("show", "maskclop", "--debug")
    assert "Traceback" not in quiet.err and "Traceback" in loud.err and quiet.code == loud.code == 2


def test_shortened_camvid_is_accepted_on_purpose_and_said_by_the_result(
    cli: Callable, samples: Path, tmp_path: Path
) -> None:
    source = samples / "camvid-mini"
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    common = ["prepare", "camvid", "--source", str(source), "--data-root", "d", "--workers", "1"]
    refused = cli(*common)
    assert refused.code == 3 and "--allow-missing" in refused.err, refused.err
    wanted = refused.err.split("--allow-missing ")[1].split()[0]
    assert cli(*common, "--allow-missing", str(int(wanted) - 1)).code == 3
    assert cli(*common, "--allow-missing", wanted).code == 0
    scored = cli(
        "eval", "maskclip", "--data", "camvid", "--clip", "toy-clip", "--data-root", "d", "--runs", "r",
        "--force", "--gpus", "0", "--json",
    )  # fmt: skip
    assert scored.code == 0, scored.err
    assert any("of the official" in note for note in json.loads(scored.out)["results"][0]["notes"])


def test_errors_under_json_are_one_json_line(cli: Callable) -> None:
    for arguments, code in ((["eval", "maskclp"], 2), (["eval", "maskclip", "--data", "voc-20"], 3), (["evla"], 2)):
        answer = cli(*arguments, "--json")
        assert answer.code == code and not answer.out
        assert answer.err.count("\n") == 1
        error = json.loads(answer.err)["error"]
        assert error["exit_code"] == code and error["message"] and error["mend"]


def test_help_has_no_control_codes_in_a_log(tmp_path: Path) -> None:
    for variable in ("GITHUB_ACTIONS", "FORCE_COLOR"):
        assert "\x1b" not in run_outside(["--help"], tmp_path, **{variable: "1"}).stdout


def test_usage_error_leaves_no_run_folder(cli: Callable, tmp_path: Path) -> None:
    answer = cli("eval", "maskclip", "--data", "toy", "--templates", "nonsense", "--runs", str(tmp_path / "r"))
    assert answer.code == 2 and not (tmp_path / "r").exists()
