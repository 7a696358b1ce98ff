"""Official data sets in miniature, from the folders as published to scores and a training: what a user would type."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from ovseg_cli.core.clip.saved import save_clip
from ovseg_cli.core.clip.tokenizer import WordTokenizer
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.data.specs import load_spec, spec_names
from tests.commands.conftest import Answer, run_command
from tests.commands.mini import host_settings
from tests.core.clip.tiny import tiny_config
from tests.core.data.miniature import Miniature
from tests.core.data.packing import make_mini, pack_all

OFFICIAL = [name for name in spec_names() if load_spec(name).layouts and load_spec(name).task == "semantic"]
SMALL = ["--gpus", "0", "--set", "resize=none", "--set", "side=48", "--set", "window=0"]


def save_wordy_clip() -> str:
    """Write a tiny random CLIP that has places for the words of 847 classes; return its folder."""
    tokenizer = WordTokenizer((), context_length=12, reserve=4096)
    config = tiny_config()
    config["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3}
    save_clip(Path("clip.safetensors"), build_module(config), config, tokenizer.to_json(), preprocess, {})
    return str(Path.cwd())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    monkeypatch.chdir(tmp_path)
    for name in ("data", "runs", "cache"):
        monkeypatch.setenv(f"OVSEG_{name.upper()}", str(tmp_path / name))
    return run_command


def prepare(run: Callable[..., Answer], name: str) -> Miniature:
    spec = load_spec(name)
    made = Miniature(Path("source"), spec, spec.layouts[0], size=(40, 56))
    refused = run("prepare", name, "--source", "source")
    assert refused.code == 3 and "pictures of the official" in refused.err and "--allow-missing" in refused.err
    done = run("prepare", name, "--source", "source", "--allow-missing", "999999", "--workers", "1")
    assert done.code == 0, done.err
    return made


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_folders_are_prepared_checked_and_scored(run: Callable[..., Answer], name: str) -> None:
    made = prepare(run, name)
    again = json.loads(run("prepare", name, "--json").out)
    assert (again["made"], again["images"]) == (0, {subset: len(labels) for subset, labels in made.expected.items()})
    assert run("prepare", name, "--check").code == 0
    scored = run(
        "eval", "maskclip", "--data", f"{name}:none", "--clip", save_wordy_clip(), *SMALL, "--limit", "1", "--json"
    )
    assert scored.code == 0, scored.err
    (result,) = json.loads(scored.out)["results"]
    assert result["images"] == 1


@pytest.mark.parametrize("name", ["pascal-context-59", "ade20k-847"])
def test_two_steps_of_training_on_labels_of_json_and_of_colours(run: Callable[..., Answer], name: str) -> None:
    prepare(run, name)
    Path("settings.toml").write_text(tomli_w.dumps(host_settings("freeseg", iterations=2)))
    trained = run("train", "freeseg", "--data", name, "--clip", "toy-clip", "--gpus", "0", "--config", "settings.toml")
    assert trained.code == 0, trained.err


def test_check_prints_pixels_and_pictures_of_each_class(run: Callable[..., Answer]) -> None:
    made = prepare(run, "camvid")
    printed = run("prepare", "camvid", "--check")
    pixels = {
        subset: np.concatenate([label.ravel() for label in own.values()]) for subset, own in made.expected.items()
    }
    counts = json.loads(run("prepare", "camvid", "--check", "--json").out)
    assert counts["classes"] == load_spec("camvid").class_names
    for subset, values in pixels.items():
        assert counts["pixels"][subset] == [int((values == i).sum()) for i in range(11)]
    line = next(line.split() for line in printed.out.splitlines() if " Building " in line)
    shares = [100 * float((values == 1).sum()) / max(1, (values < 11).sum()) for values in pixels.values()]
    assert [float(word) for word in line[2::2]] == pytest.approx(shares, abs=0.0006)


def test_archives_are_planned_unpacked_and_prepared(run: Callable[..., Answer]) -> None:
    make_mini(Path("unpacked"), "cityscapes")
    archives = pack_all(Path("unpacked"), Path("packed"), "cityscapes")
    planned = run("prepare", "cityscapes", "--source", "packed", "--dry-run")
    assert planned.code == 0 and "packed/gtFine_trainvaltest.zip: 4 files" in planned.out and not Path("data").exists()
    document = json.loads(run("prepare", "cityscapes", "--source", "packed", "--dry-run", "--json").out)
    assert [entry["files"] for entry in document["archives"]] == [4, 6] and document["schema"] == 1
    unseen = run("prepare", "cityscapes", "--source", "packed", "--check")
    assert unseen.code == 3 and "not unpacked yet" in unseen.err and not Path("data").exists()
    done = run("prepare", "cityscapes", "--source", "packed", "--allow-missing", "99999", "--json")
    assert json.loads(done.out)["images"] == {"train": 2, "val": 2, "test": 2}
    assert "is not needed" not in done.out and "not needed any more" in done.err
    archives[0].write_bytes(archives[0].read_bytes()[:500])
    broken = run("prepare", "cityscapes", "--source", "packed", "--allow-missing", "99999")
    assert broken.code == 3 and "leftImg8bit_trainvaltest.zip: the archive is damaged or cut off" in broken.err
    assert run("prepare", "cityscapes", "--check").code == 0, "what was unpacked of it before is still there"


def test_check_of_many_classes_prints_the_rarest(run: Callable[..., Answer]) -> None:
    prepare(run, "ade20k-847")
    printed = run("prepare", "ade20k-847", "--check").out
    assert "60 rarest that occur; --json has all" in printed and len(printed.splitlines()) < 75
