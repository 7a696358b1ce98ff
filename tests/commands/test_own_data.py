"""A data set of the user's own on the command line: prepared from the shortest spec, then known by its name."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHORTEST = """
name = "mine"
classes = ["grass", "sky", "red ball"]   # train ids 0, 1, 2 as in your label maps; 255 is unlabelled

[[layouts]]
[layouts.subsets]
train = { images = "images/train/{stem}.jpg", labels = "labels/train/{stem}.png" }
val = { images = "images/val/{stem}.jpg", labels = "labels/val/{stem}.png" }
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for key in ("train/a", "train/b", "val/c"):
        for kind, ending in (("images", "jpg"), ("labels", "png")):
            path = tmp_path / "photos" / kind / f"{key}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = rng.integers(0, 256, (40, 60, 3)) if kind == "images" else rng.choice([0, 1, 2, 255], (40, 60))
            Image.fromarray(values.astype(np.uint8)).save(path)
    (tmp_path / "mine.toml").write_text(SHORTEST)
    return tmp_path


def test_own_data_is_prepared_shown_checked_and_scored_by_name(
    cli: Callable, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSEG_DATA", str(own / "datasets"))
    monkeypatch.setenv("OVSEG_RUNS", str(own / "runs"))
    missing = cli("eval", "maskclip", "--data", "mine.toml", "--clip", "toy-clip", "--gpus", "0")
    assert missing.code == 3 and "ovseg prepare mine.toml --source DIR" in missing.err
    assert cli("prepare", "mine.toml", "--source", "photos").code == 0
    again = json.loads(cli("prepare", "mine", "--json").out)
    assert (again["made"], again["images"]) == (0, {"train": 2, "val": 1})
    assert cli("prepare", "mine", "--check").code == 0
    assert cli("prepare", "mine", "--dry-run").code == 0
    assert "red ball" in cli("show", "mine").out
    scored = cli("eval", "maskclip", "--data", "mine", "--clip", "toy-clip", "--gpus", "0", "--force", "--json")
    assert scored.code == 0 and json.loads(scored.out)["results"][0]["images"] == 1, scored.err


def test_show_and_prepare_take_the_data_root(cli: Callable, own: Path) -> None:
    root = str(own / "elsewhere")
    assert cli("prepare", "mine.toml", "--source", "photos", "--data-root", root).code == 0
    assert cli("show", "mine", "--data-root", root).code == 0
    assert cli("show", "mine").code == 2 and cli("prepare", "mine").code == 2


def test_completion_offers_own_data_and_survives_unknown_names(
    cli: Callable, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovseg_cli.commands.options import complete_data

    monkeypatch.setenv("OVSEG_DATA", str(own / "datasets"))
    assert complete_data("mi") == []
    assert cli("prepare", "mine.toml", "--source", "photos").code == 0
    assert complete_data("mi") == ["mine"] and complete_data("cam") == ["camvid"]
    assert complete_data("mine:") == [] and complete_data("nothing:") == []
    assert complete_data("toy:") == ["toy:combo", "toy:novel"]
