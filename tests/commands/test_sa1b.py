"""SA-1B from its tar files by the command line: prepare, list, show, propose, train; what is broken exits with 3."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.data.tars import jpeg, masks_json, pair, write_official, write_tar

STEMS = ["sa_1", "sa_2", "sa_3"]
SMALL = ["iterations=2", "batch_size=2", "short_sides=[]", "crop_size=0", "mask_size=16", "prompts=4", "workers=0"]
TOY = ["prompt_length=2", 'prompt_templates=["a photo of {}"]', "resize=none"]


@pytest.fixture
def run(cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Run a command in a folder whose `tars` hold three pictures, with data and runs of its own."""
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "datasets"))
    monkeypatch.setenv("OVSEG_RUNS", str(tmp_path / "runs"))
    write_official(tmp_path / "tars", {"sa_000020": STEMS[:2], "sa_000021": STEMS[2:]})
    return cli


def test_sa1b_from_its_tars_to_a_training(run: Callable) -> None:
    plan = run("prepare", "sa-1b", "--source", "tars", "--dry-run", "--json")
    assert plan.code == 0 and json.loads(plan.out)["images"] == {"train": 3}
    prepared = run("prepare", "sa-1b", "--source", "tars", "--workers", "1")
    assert prepared.code == 0, prepared.err
    assert "train: 3 pictures of the official 11,185,362\n" in prepared.out and "3 of the 11,185,362" in prepared.err
    assert json.loads(run("prepare", "sa-1b", "--json").out)["made"] == 0
    assert run("prepare", "sa-1b", "--check").code == 0
    listed = run("list", "datasets", "--json")
    assert "train 3" in listed.out
    assert "stored as" in run("show", "sa-1b").out
    proposed = run("propose", "annotations", "--data", "sa-1b", "--json")
    assert proposed.code == 0 and json.loads(proposed.out)["complete"] is True, proposed.err
    settings = [word for setting in [*SMALL, *TOY] for word in ("--set", setting)]
    trained = run("train", "pixelclip", "--data", "sa-1b", "--clip", "toy-clip", "--gpus", "0", *settings, "--json")
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["figures"]["pictures"] == 3


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "cut": (
        lambda tars: cut(tars / "sa_000021.tar"),
        ["sa_000021.tar: the archive is cut off", "Download the archive"],
    ),
    "evil": (
        lambda tars: write_tar(tars / "sa_000022.tar", [*pair("sa_4"), ("../sa_5.jpg", b"")]),
        ["sa_000022.tar, member '../sa_5.jpg': its name leads out of the folder"],
    ),
    "twice": (lambda tars: write_tar(tars / "sa_000022.tar", pair("sa_1")), ["has the same name 'sa_1' as"]),
    "alone": (
        lambda tars: write_tar(tars / "sa_000022.tar", [("./sa_4.jpg", jpeg("sa_4"))]),
        ["sa_000022.tar, member sa_4.json: this label is missing"],
    ),
}


@pytest.mark.parametrize("row", BROKEN)
def test_broken_archives_exit_with_3(run: Callable, tmp_path: Path, row: str) -> None:
    break_it, words = BROKEN[row]
    break_it(tmp_path / "tars")
    answer = run("prepare", "sa-1b", "--source", "tars", "--workers", "1", "--json")
    assert answer.code == 3 and answer.out == ""
    for word in words:
        assert word in " ".join(answer.err.split()), answer.err


def test_impossible_masks_exit_with_3(run: Callable, tmp_path: Path) -> None:
    broken = json.loads(masks_json("sa_4"))
    broken["annotations"][1]["segmentation"]["counts"] = "04"
    write_tar(
        tmp_path / "tars/sa_000022.tar", [("./sa_4.jpg", jpeg("sa_4")), ("./sa_4.json", json.dumps(broken).encode())]
    )
    assert run("prepare", "sa-1b", "--source", "tars", "--workers", "1").code == 0
    answer = run("propose", "annotations", "--data", "sa-1b")
    assert answer.code == 3
    text = " ".join(answer.err.split())
    assert "sa_000022.tar, member sa_4.json: annotation 2: the mask has runs that do not fill the picture" in text
