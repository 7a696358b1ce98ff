"""`ovseg propose` and its answers: make, go on, import, export, list, show, score; and what it refuses."""

import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.processes import Forked

FEW = ["--data", "toy", "--subset", "val", "--limit", "3", "--workers", "1"]
QUICK = ["--set", "max_masks=5", "--set", "slic_segments=[]"]


def document(answer: object) -> dict[str, object]:
    assert answer.code == 0, answer.err  # type: ignore[attr-defined]
    return json.loads(answer.out)  # type: ignore[attr-defined]


@pytest.fixture
def made(cli: Callable) -> dict[str, object]:
    return document(cli("propose", "superpixels", *FEW, *QUICK, "--json"))


def test_masks_are_made_once(cli: Callable, made: dict[str, object]) -> None:
    again = document(cli("propose", "superpixels", *FEW, *QUICK, "--json"))
    assert again["made"] == 0 and again["images"] == 3 and again["complete"] is False
    assert again["folder"] == made["folder"] and "/toy/proposals/superpixels-" in str(again["folder"])
    more = document(cli("propose", "superpixels", *FEW[:-4], "--limit", "4", *QUICK, "--workers", "1", "--json"))
    assert more["made"] <= 1 and more["images"] == 4
    forced = document(cli("propose", "superpixels", *FEW, *QUICK, "--force", "--json"))
    assert forced["made"] == 3 and forced["folder"] == made["folder"]


def test_other_settings_have_another_cache(cli: Callable, made: dict[str, object]) -> None:
    other = document(cli("propose", "superpixels", *FEW, "--set", "max_masks=6", "--set", "slic_segments=[]", "--json"))
    assert other["folder"] != made["folder"]


def test_plan_writes_nothing(cli: Callable, world: Path) -> None:
    before = set(world.rglob("*"))
    plan = document(cli("propose", "superpixels", *FEW, "--set", "max_masks=7", "--dry-run", "--json"))
    assert plan["images"] == plan["left"] == 3 and plan["settings"]["max_masks"] == 7  # type: ignore[index]
    assert plan["memory_mib"] is not None and plan["disk_mib"] is not None
    assert set(world.rglob("*")) == before
    text = cli("propose", "ground-truth", "--data", "toy:novel", "--dry-run")
    assert "seen classes of toy:novel" in text.out


def test_broken_entry_is_made_again_by_the_command_that_the_error_names(cli: Callable, made: dict[str, object]) -> None:
    entry = sorted(Path(str(made["folder"])).rglob("*.masks"))[0]
    entry.write_bytes(entry.read_bytes()[:-3])
    folder = str(made["folder"])
    answer = cli("eval", "--task", "proposals", "--proposals", folder, "--limit", "3")
    assert answer.code == 3 and str(entry) in answer.err
    program, *typed = shlex.split(answer.err.split("made again by: ")[1])
    assert program == "ovseg" and typed[0] == "propose"
    assert document(cli(*typed, "--limit", "3", "--workers", "1", "--json"))["made"] == 1
    assert cli("eval", "--task", "proposals", "--proposals", folder, "--limit", "3").code == 0


def test_class_split_decides_what_ground_truth_shows(cli: Callable) -> None:
    folders = set()
    for data, subset in (("toy:combo", "train"), ("toy:novel", "train"), ("toy:combo", "tune"), ("toy:novel", "tune")):
        words = ["--data", data, "--subset", subset, "--limit", "1", "--workers", "1", "--json"]
        folders.add(str(document(cli("propose", "ground-truth", *words))["folder"]))
    assert len(folders) == 3  # seen labels differ by split; all labels do not
    answer = cli("propose", "ground-truth", "--data", "toy:none", "--subset", "tune", "--set", "classes=seen")
    assert answer.code == 2


@pytest.mark.parametrize("form", ["coco", "sa-1b"])
def test_masks_go_out_and_come_in(cli: Callable, made: dict[str, object], tmp_path: Path, form: str) -> None:
    out = tmp_path / ("out.json" if form == "coco" else "out")
    answer = document(cli("propose", "superpixels", *FEW, *QUICK, "--export", out, "--format", form, "--json"))
    assert answer["export"]["images"] == len(list(Path(str(made["folder"])).rglob("*.masks")))  # type: ignore[index]
    words = ["--data", "toy", "--subset", "val", "--import", out, "--format", form, "--allow-missing", "197"]
    assert document(cli("propose", f"mine-{form}", *words, "--dry-run", "--json"))["images"] == 200
    back = document(cli("propose", f"mine-{form}", *words, "--json"))
    assert back["complete"] is True
    listed = json.loads(cli("list", "proposals", "--json").out)["proposals"]
    assert {"generator": f"mine-{form}", "state": "complete", "source": "imported"}.items() <= [
        row for row in listed if row["generator"] == f"mine-{form}"
    ][0].items()


def test_list_and_show_know_generators(cli: Callable, made: dict[str, object]) -> None:
    rows = json.loads(cli("list", "proposals", "--json").out)["proposals"]
    assert {"superpixels", "ground-truth"} <= {row["generator"] for row in rows}
    assert any(row["folder"] == made["folder"] for row in rows)
    text = cli("show", "superpixels")
    assert text.code == 0 and "working_side" in text.out and "Felzenszwalb" in text.out
    assert json.loads(cli("show", "ground-truth", "--json").out)["name"] == "ground-truth"


def test_quality_is_scored_bounded_and_kept(cli: Callable, made: dict[str, object]) -> None:
    words = ["eval", "--task", "proposals", "--proposals", str(made["folder"]), "--limit", "3"]
    result = document(cli(*words, "--json"))["results"][0]  # type: ignore[index]
    assert result["images"] == 3 and set(result["groups"]) == {"all", "seen", "unseen"}
    assert Path(result["file"]).is_file() and 0 < result["groups"]["all"]["AR@10"] < 100
    table = cli(*words, "--split", "unseen")
    assert "AR@100" in table.out and "unseen" in table.out
    assert [line for line in table.out.splitlines() if line.startswith("superpixels")][1:] == []
    assert cli(*words, "--fail-under", "AR@10=1").code == 0
    assert cli(*words, "--fail-under", "AR@10=99").code == 5
    assert document(cli(*words, "--dry-run", "--json"))["plans"][0]["images"] == 3  # type: ignore[index]


QUALITY = ["eval", "--task", "proposals"]
WRONG = {
    "unknown generator": (["propose", "superpixel", *FEW], 2, ["Did you mean 'superpixels'?"]),
    "a method": (["propose", "maskclip", *FEW], 2, ["is a method", "runs/maskclip"]),
    "a run without masks": (["propose", "RUN", *FEW], 2, ["a run of maskclip makes no masks"]),
    "no such run": (["propose", "runs/none", *FEW], 2, ["no such run folder"]),
    "unknown data set": (["propose", "superpixels", "--data", "toi"], 2, ["Did you mean 'toy'?"]),
    "not prepared": (["propose", "superpixels", "--data", "voc-20"], 3, ["ovseg prepare voc-20"]),
    "unknown subset": (["propose", "superpixels", "--data", "toy", "--subset", "vol"], 2, ["vol", "val"]),
    "unknown setting": (["propose", "superpixels", *FEW, "--set", "max_mask=3"], 2, ["max_mask", "max_masks"]),
    "a wrong value": (["propose", "superpixels", *FEW, "--set", "max_masks=none"], 2, ["max_masks", "none"]),
    "no workers": (["propose", "superpixels", *FEW[:-2], "--workers", "0"], 2, ["workers"]),
    "more GPUs than there are": (["propose", "superpixels", *FEW, "--gpus", "999"], 4, ["--gpus 999"]),
    "import of nothing": (["propose", "mine", "--data", "toy", "--import", "none.json"], 2, ["none.json"]),
    "import with settings": (["propose", "mine", "--import", ".", "--set", "a=1"], 2, ["no meaning with --import"]),
    "a wrong format": (["propose", "mine", "--import", ".", "--format", "voc"], 2, ["voc", "sa-1b"]),
    "quality of nothing": (["eval", "--task", "proposals", "--data", "toy"], 2, ["--proposals CACHE|GENERATOR"]),
    "quality of no cache": ([*QUALITY, "--proposals", "./none", "--data", "toy"], 3, ["no such cache"]),
    "quality of a model": (["eval", "maskclip", "--task", "proposals"], 2, ["MODEL", "--task proposals"]),
    "quality with an option of models": (["eval", "--task", "proposals", "--gpus", "0"], 2, ["--gpus"]),
    "a model without proposals": (["eval", "maskclip", "--data", "toy", "--proposals", "x"], 2, ["proposals"]),
    "a bound of another task": (["eval", "--task", "proposals", "--fail-under", "hIoU=3"], 2, ["hIoU"]),
    "a task that is not there": (["eval", "--task", "panoptic"], 2, ["panoptic", "proposals"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), WRONG.values(), ids=WRONG)
def test_wrong_words(cli: Callable, world: Path, arguments: list[str], code: int, parts: list[str]) -> None:
    run = str(next((world / "runs").iterdir()))
    answer = cli(*[run if word == "RUN" else word for word in arguments])
    assert answer.code == code, answer.err
    assert not answer.out and "Traceback" not in answer.err
    for part in parts:
        assert part in " ".join(answer.err.split()), answer.err


def test_ctrl_c_leaves_whole_entries_and_the_work_goes_on(world: Path, tmp_path: Path) -> None:
    settings = ["--set", "max_masks=3", "--set", "slic_segments=[40]"]
    words = ["propose", "superpixels", "--data", "toy", "--subset", "val", "--workers", "1", *settings]
    process = Forked(words, tmp_path, {"OVSEG_DATA": str(world / "datasets")})
    from ovseg_cli.core.proposals.caches import caches
    from ovseg_cli.core.runtime import folders

    def found() -> list:
        stores = caches(folders(world / "datasets"), "toy", "val")
        return [s for s in stores if s.manifest["settings"].get("slic_segments") == [40]]

    deadline = time.monotonic() + 120
    while not (found() and len(found()[0])):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and not out and "Traceback" not in err and "type the same command again" in err
    [store] = found()
    assert not list(store.folder.rglob("*.part"))
    for name in store.names():
        assert store.is_whole(name)
    assert 0 < len(store) < 200


def test_ranks_of_a_launcher_share_one_cache(world: Path, tmp_path: Path) -> None:
    settings = ["--set", "max_masks=2", "--set", "slic_segments=[]", "--limit", "12"]
    words = ["propose", "superpixels", "--data", "toy", "--subset", "tune", "--json", *settings]
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    ranks = [Forked(words, tmp_path, {"OVSEG_DATA": str(world / "datasets"), **place}) for place in places]
    ends = [process.communicate(timeout=240)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert not ends[1], "only the first rank prints"
    done = json.loads(ends[0])
    assert done["images"] == 12 and len(list(Path(done["folder"]).rglob("*.masks"))) == 12
