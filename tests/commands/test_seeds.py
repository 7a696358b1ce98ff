"""`ovseg train … --seeds N`: run folders below one, a table of mean and spread, and every way to go on."""

import json
import os
import shutil
import signal
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w
import torch

from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.training import method_session, processes
from tests.commands.conftest import Answer, run_command
from tests.commands.mini import as_process, commands_in, host_settings, maft_settings, prepared_place
from tests.core.training import forks

SHORT = host_settings("freeseg", iterations=2)
TOY = {"iterations": 1, "batch_size": 2, "warmup": 0, "workers": 0, "figure_scenes": 1, "image_size": 48}
TOY |= {"crop_size": 48, "vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 1, "text_heads": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the prepared data and, in `runs/`, three finished seeds of FreeSeg."""
    with prepared_place(tmp_path_factory.mktemp("seeds")) as place:
        done = train(run_command, "freeseg", "--seeds", "3", "--json")
        assert done.code == 0, done.err
        (place / "document.json").write_text(done.out)
        yield place


@pytest.fixture
def cli(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run a command in an empty folder, with the data of `place` and no runs."""
    return commands_in(tmp_path, place, monkeypatch)


def train(cli: Callable[..., Answer], method: str, *words: object, settings: dict | None = None) -> Answer:
    Path("settings.toml").write_text(tomli_w.dumps(SHORT if settings is None else settings))
    return cli("train", method, "--gpus", "0", "--config", "settings.toml", *map(str, words))


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def times(family: Path) -> dict[str, int]:
    return {run.name: (run / "finished").stat().st_mtime_ns for run in family.iterdir()}


@pytest.fixture
def begun(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> Path:
    """A copy of the three seeds as they were in the middle: 0 is finished, 1 made one step of two, 2 never began."""
    family = tmp_path / "runs" / only(place / "runs").name
    shutil.copytree(only(place / "runs"), family)
    for name in ("finished", "model.safetensors"):
        (family / "seed-1" / name).unlink()
    for name in ("results", "checkpoints/step-00000002"):
        shutil.rmtree(family / "seed-1" / name)
    shutil.rmtree(family / "seed-2")
    return family


# What is made


def test_each_seed_is_a_whole_run_of_its_own(place: Path, cli: Callable[..., Answer], tmp_path: Path) -> None:
    family = only(place / "runs")
    assert family.name.startswith("freeseg-mini-no-snow-")
    assert sorted(path.name for path in family.iterdir()) == ["seed-0", "seed-1", "seed-2"]
    assert all((run / "finished").is_file() for run in family.iterdir())
    assert train(cli, "freeseg", "--seed", "1").code == 0
    assert weights(only(tmp_path / "runs")) == weights(family / "seed-1"), "as if it had been trained alone"
    assert weights(family / "seed-0") != weights(family / "seed-1")


def test_document_has_every_seed_mean_spread_and_extremes(place: Path) -> None:
    document = json.loads((place / "document.json").read_text())
    assert document["schema"] == 1 and document["run"] == str(only(place / "runs"))
    seeds = document["seeds"]
    assert [one["seed"] for one in seeds] == [0, 1, 2] and {one["subset"] for one in seeds} == {"val"}
    for one in seeds:
        assert Path(one["run"]).name == f"seed-{one['seed']}" and Path(one["file"]).is_relative_to(one["run"])
    for name in ("sIoU", "uIoU", "hIoU", "pAcc"):
        scores = [one["percent"]["union"][name] for one in seeds]
        summary = document["summary"]["percent"]["union"][name]
        assert summary["mean"] == pytest.approx(statistics.mean(scores), abs=1e-3)
        assert summary["spread"] == pytest.approx(statistics.stdev(scores), abs=1e-3) and summary["n"] == 3
    unseen = {one["seed"]: one["percent"]["union"]["uIoU"] for one in seeds}
    assert unseen[document["summary"]["best"]] == max(unseen.values())
    assert unseen[document["summary"]["worst"]] == min(unseen.values())


def test_maft_trains_its_host_for_each_seed(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = train(cli, "maft", "--seeds", "2", "--seed", "4", settings=maft_settings(iterations=1))
    assert answer.code == 0 and answer.err.count("host step: training freeseg first") == 2, answer.err
    family = only(tmp_path / "runs")
    assert sorted(path.name for path in family.iterdir()) == ["seed-4", "seed-5"]
    hosts = [weights(run / "host") for run in family.iterdir()]
    assert hosts[0] != hosts[1]
    lines = answer.out.splitlines()
    rows = [next(i for i, line in enumerate(lines) if line.startswith(word)) for word in ("mean of 2", "seed 4")]
    assert rows[0] < rows[1] and "±" in lines[rows[0]]
    assert any(line.startswith("Unseen classes, uIoU: ") for line in lines)
    shutil.rmtree(family / "seed-5")
    more = train(cli, "maft", "--seeds", "2", "--resume", "--json", settings={})
    assert more.code == 0 and json.loads(more.out)["run"] == str(family), more.err
    assert weights(family / "seed-5" / "host") in hosts, "a missing seed has the settings of its siblings, the host too"


def test_figures_of_toy_clips_are_averaged(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = train(cli, "toy-clip", "--seeds", "2", "--json", settings=TOY)
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    seeds = [one["figures"]["logit_scale"] for one in document["seeds"]]
    assert document["summary"]["figures"]["logit_scale"]["mean"] == pytest.approx(statistics.mean(seeds), abs=1e-3)
    first = Path(document["seeds"][0]["run"])
    assert (first / "clip.safetensors").is_file() and first.name == "seed-0"
    again = train(cli, "toy-clip", "--seeds", "2", "--resume", settings=TOY)
    assert again.code == 0 and "begins" not in again.err and "mean of 2 seeds" in again.out, again.err
    refused = train(cli, "toy-clip", "--seeds", "2", "--data", "mini", settings=TOY)
    assert refused.code == 2 and "draws its own data" in refused.err


# Going on


def test_finished_seeds_are_kept_the_one_under_way_continues_missing_ones_begin(
    cli: Callable[..., Answer], begun: Path, place: Path
) -> None:
    kept = (begun / "seed-0" / "finished").stat().st_mtime_ns
    answer = train(cli, "freeseg", "--seeds", "3", "--resume", "--json", settings={})
    assert answer.code == 0, answer.err
    assert "seed 1 goes on" in answer.err and "from step 1" in answer.err and "seed 2 begins" in answer.err
    assert (begun / "seed-0" / "finished").stat().st_mtime_ns == kept
    for seed in range(3):
        assert weights(begun / f"seed-{seed}") == weights(only(place / "runs") / f"seed-{seed}")
    document, first = json.loads(answer.out), json.loads((place / "document.json").read_text())
    assert document["summary"] == first["summary"]
    done = times(begun)
    again = train(cli, "freeseg", "--seeds", "3", "--resume", "--run", begun, "--json")
    assert json.loads(again.out)["summary"] == first["summary"] and times(begun) == done, "nothing is left to train"


def test_more_seeds_are_added_and_a_new_family_begins_without_resume(cli: Callable[..., Answer], begun: Path) -> None:
    plan = json.loads(train(cli, "freeseg", "--seeds", "4", "--resume", "--dry-run", "--json").out)
    words = ["is kept", "goes on", "begins", "begins"]
    assert plan["run"] == str(begun) and list(plan["seeds"].values()) == words and plan["each"]["training"]["seed"] == 1
    plan = json.loads(train(cli, "freeseg", "--seeds", "2", "--seed", "1", "--dry-run", "--json").out)
    assert plan["run"].endswith("runs/freeseg-mini-no-snow-TIME")
    assert plan["seeds"] == {"seed-1": "begins", "seed-2": "begins"} and plan["each"]["steps"] == 2
    assert [path.name for path in begun.parent.iterdir()] == [begun.name], "a plan makes nothing"


def test_stopped_seed_is_saved_and_the_message_goes_on(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    Path("settings.toml").write_text(tomli_w.dumps({**SHORT, "iterations": 2000}))
    words = ["train", "freeseg", "--gpus", "0", "--config", "settings.toml", "--seeds", "2", "--data", "mini"]
    (child,) = forks.start(as_process(words, tmp_path / "said"))
    forks.wait_until(lambda: list(tmp_path.glob("runs/*/seed-0/checkpoints/*")))
    os.kill(child, signal.SIGTERM)
    assert forks.codes([child]) == [143]
    family, said = only(tmp_path / "runs"), (tmp_path / "said").read_text()
    assert f"{' '.join(words)} --resume --run {family}" in said, said
    assert [path.name for path in family.iterdir()] == ["seed-0"] and not (family / "seed-0" / "finished").exists()
    plan = json.loads(cli(*words, "--resume", "--run", str(family), "--dry-run", "--json").out)
    assert plan["seeds"] == {"seed-0": "goes on", "seed-1": "begins"}


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (MachineError("no disk.", "Free some."), 4)])
def test_what_stops_a_seed_keeps_the_others(
    cli: Callable[..., Answer], begun: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int
) -> None:
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(method_session, "train_method", stopped)
    answer = train(cli, "freeseg", "--seeds", "3", "--resume")
    assert answer.code == code and f"--resume --run {begun}" in answer.err, answer.err
    assert code == 130 or "error: seed 1: no disk." in answer.err and "Free some." in answer.err
    assert (begun / "seed-0" / "finished").is_file() and not (begun / "seed-2").exists()


def test_what_is_wrong_before_the_first_step_leaves_no_folder(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = train(cli, "freeseg", "--seeds", "2", settings={**SHORT, "precision": "float16"})
    assert answer.code == 4 and "--resume" not in answer.err and not list((tmp_path / "runs").iterdir()), answer.err


# Several GPUs


def test_each_seed_is_launched_for_several_gpus(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launched = []

    def launch(count: int, nodes: int, endpoint: str, command: list[str], hushed: bool) -> None:
        launched.append(command[2:4])
        assert (count, nodes, hushed) == (2, 1, True), "only the first process prints the document"
        words = [word for i, word in enumerate(command[2:]) if "--gpus" not in command[i + 1 : i + 3]]
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            done = run_command(*words, "--gpus", "0")
            assert done.code == 0, done.err

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "_launch", launch)
    Path("settings.toml").write_text(tomli_w.dumps(SHORT))
    answer = cli("train", "freeseg", "--config", "settings.toml", "--seeds", "2", "--gpus", "2", "--json")
    assert answer.code == 0 and len(json.loads(answer.out)["seeds"]) == 2, answer.err
    family = only(tmp_path / "runs")
    assert launched == [pair for i in range(2) for pair in (["train", "freeseg"], ["eval", str(family / f"seed-{i}")])]


# Refused


REFUSED = {
    "no seed": (["--seeds", "0"], "one seed is the least"),
    "a run without --resume": (["--seeds", "2", "--run", "FAMILY"], "Add --resume"),
    "weights of one": (["--seeds", "2", "--init", "FAMILY/seed-0"], "with the weights of one"),
    "weights of one, set": (["--seeds", "2", "--set", "init=FAMILY/seed-0"], "with the weights of one"),
    "several machines": (["--seeds", "2", "--nodes", "2", "--rdzv", "a:1"], "trained on one machine"),
    "no seed number": (["--seeds", "2", "--set", "seed=x"], "whole number"),
    "one seed of several": (["--seeds", "2", "--resume", "--run", "FAMILY/seed-0"], "Name their folder: --run FAMILY"),
    "no folder": (["--seeds", "2", "--resume", "--run", "nowhere"], "there is no such folder"),
    "no seeds in it": (["--seeds", "2", "--resume", "--run", "FAMILY/seed-0/results"], "holds no seeds"),
    "other settings": (["--seeds", "2", "--resume", "--run", "FAMILY", "--set", "iterations=9"], "another iterations"),
    "other settings anywhere": (
        ["--seeds", "2", "--resume", "--set", "iterations=9"],
        "no seeds of freeseg with these",
    ),
    "another first seed": (["--seeds", "2", "--resume", "--run", "FAMILY", "--seed", "1"], "begins with seed 0, not 1"),
    "the folder as a run": (["--resume", "--run", "FAMILY"], "it holds 2 runs, one a seed"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_said(cli: Callable[..., Answer], begun: Path, words: list[str], message: str) -> None:
    answer = train(cli, "freeseg", *[word.replace("FAMILY", str(begun)) for word in words])
    assert answer.code in (2, 3) and message.replace("FAMILY", str(begun)) in answer.err, answer.err
    assert len(list(begun.parent.iterdir())) == 1


def test_seeds_of_another_method_are_refused(cli: Callable[..., Answer], begun: Path) -> None:
    answer = train(cli, "zsseg", "--seeds", "2", "--resume", "--run", begun, settings={})
    assert answer.code == 2 and f"ovseg train freeseg --seeds 2 --resume --run {begun}" in answer.err, answer.err


# Looking at them


def test_folder_of_seeds_is_listed_reported_and_scored(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")
    family = only(tmp_path / "runs")
    listed = json.loads(cli("list", "runs", "--json").out)["runs"]
    assert [Path(run["run"]).name for run in listed] == ["seed-2", "seed-1", "seed-0"]
    document = json.loads((place / "document.json").read_text())
    mean = document["summary"]["percent"]["union"]["uIoU"]["mean"]
    for named in ([family], [family.name], [family / f"seed-{i}" for i in range(3)]):
        grouped = json.loads(cli("report", *map(str, named), "--seeds", "--format", "json").out)["tables"][0]["rows"]
        assert len(grouped) == 1 and grouped[0]["uIoU"] == pytest.approx(mean, abs=1e-3) and grouped[0]["uIoU_n"] == 3
    rows = json.loads(cli("report", str(family), "--format", "json").out)["tables"][0]["rows"]
    assert len(rows) == 3
    refused = cli("eval", str(family), "--gpus", "0")
    assert refused.code == 3 and f"Name one of them: {family}/seed-0" in refused.err
    assert cli("eval", str(family / "seed-1"), "--gpus", "0", "--force").code == 0
    for results in family.glob("*/results"):
        shutil.rmtree(results)
    refused = cli("report", str(family))
    assert refused.code == 2 and "its 3 seeds hold no result yet" in refused.err
