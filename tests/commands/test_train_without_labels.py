"""`ovseg train pixelclip`: labels may be gone, masks come from where they are asked for, and what is said instead."""

import json
import os
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from PIL import Image
from safetensors.torch import load_file

from ovseg_cli.core.methods.pixelclip import PixelClip
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.training import method_session
from ovseg_cli.core.types import Proposals, TrainBatch, Vocabulary
from tests.commands.conftest import Answer, run_command
from tests.commands.mini import SHORT, as_process, commands_in, host_settings, prepared_place
from tests.core.training import forks

SETTINGS = {
    **SHORT, "iterations": 4, "prompts": 4, "prompt_length": 2, "prompt_templates": ["a photo of {}"], "mask_size": 12,
    "short_sides": [], "crop_size": 0, "mask_feature": "masked-cls",
}  # fmt: skip
LIVE = ["--proposals", "live", "--set", "proposal_settings.model=test_vit", "--set", "proposal_settings.weights=random"]
BARE = """
schema = 1
name = "bare"
title = "Pictures alone"
ignore_label = 255
label_dtype = "uint8"
subsets = { train = { images = 8 } }
preset = { clip = "toy-clip", resize = "none" }
classes = [{ name = "grass" }, { name = "sand" }]

[[layouts]]
id = "official"
source = "made for tests"
roots = ["."]
subsets = { train = { images = "images/train/{stem}.png" } }
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the prepared data, cached superpixels and, in `runs/`, one finished run."""
    with prepared_place(tmp_path_factory.mktemp("mini")) as place:
        (place / "settings.toml").write_text(tomli_w.dumps(SETTINGS))
        done = run_command(
            "train", "pixelclip", "--gpus", "0", "--config", str(place / "settings.toml"), "--proposals", "superpixels"
        )
        assert done.code == 0, done.err
        yield place


@pytest.fixture
def cli(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run a command in an empty folder, with the data of `place` and no runs."""
    return commands_in(tmp_path, place, monkeypatch)


def train(cli: Callable[..., Answer], place: Path, *words: object) -> Answer:
    return cli("train", "pixelclip", "--gpus", "0", "--config", str(place / "settings.toml"), *map(str, words))


def only_run(folder: Path) -> Path:
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    return run


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_the_run_says_that_nothing_was_seen(place: Path, cli: Callable[..., Answer]) -> None:
    config = tomllib.loads((only_run(place) / "config.toml").read_text())
    assert config["vocabulary"]["training_names"] == [] and config["fingerprints"].keys() == {"pictures"}
    assert config["training"]["proposals"] == "superpixels"
    shown = cli("show", str(only_run(place)))
    assert shown.code == 0 and "no labels" in shown.out and "not said" not in shown.out, shown.out
    scored = cli("eval", str(only_run(place)), "--force", "--gpus", "0")
    assert scored.code == 0 and "Nobody knows" not in scored.err and "Not zero-shot" not in scored.err, scored.err


def test_the_plan_speaks_of_no_seen_class(cli: Callable[..., Answer], place: Path) -> None:
    def planned(*words: str) -> dict:
        answer = train(cli, place, "--dry-run", "--json", *words)
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    plan = planned("--proposals", "superpixels")
    assert plan["labels"] == "none are read" and plan["pictures"] == 8 and "host" not in plan
    assert not {"seen_classes", "without_a_seen_class", "names_without_labels", "names"} & plan.keys()
    named = planned("--proposals", "superpixels", "--set", "class_names=data")
    assert named["labels"] == "none are read" and named["names"] == 5
    drawn = planned("--proposals", "ground-truth")
    assert drawn["labels"] == "none are read but by ground-truth, for its masks"


def test_labels_that_are_gone_or_broken_give_the_same_weights(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are made and the method is trained without one look at them; only a method that reads labels asks."""
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    for harm in ("gone", "broken"):
        shutil.copytree(place / "data", tmp_path / "data", symlinks=True)
        shutil.rmtree(tmp_path / "data" / "mini" / "proposals")
        for labels in sorted((tmp_path / "data" / "mini").glob("labels*")):
            for file in labels.rglob("*.png"):
                file.unlink()
                if harm == "broken":
                    file.write_bytes(b"no picture")
        trained = train(cli, place, "--proposals", "superpixels")
        assert trained.code == 0, trained.err
        assert weights(only_run(tmp_path)) == weights(only_run(place)), harm
        refused = cli("train", "freeseg", "--gpus", "0")
        assert refused.code == 3 and "label" in refused.err, refused.err
        shutil.rmtree(tmp_path / "runs")
        shutil.rmtree(tmp_path / "data")


def test_an_unfinished_run_goes_on_to_the_same_bits(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the labels have been prepared anew since, and differ; not where the pictures do."""
    shutil.copytree(place / "source", tmp_path / "source")
    shutil.copytree(place / "data", tmp_path / "data", symlinks=True)
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    assert train(cli, place, *LIVE).code == 0
    run = only_run(tmp_path)
    straight = weights(run)

    def stop() -> None:
        (run / "finished").unlink(missing_ok=True)
        (run / "model.safetensors").unlink(missing_ok=True)
        shutil.rmtree(run / "checkpoints" / "step-00000004", ignore_errors=True)

    def change(kind: str) -> None:
        for path in (tmp_path / "source" / kind / "train").glob("*.png"):
            Image.open(path).point(lambda level: level * 0).save(path)
        source = tmp_path / "source"
        assert cli("prepare", str(source / "mini.toml"), "--source", str(source), "--workers", "1").code == 0

    stop()
    change("labels")
    resumed = cli("train", "pixelclip", "--resume", "--gpus", "0")
    assert resumed.code == 0 and weights(run) == straight, resumed.err
    stop()
    change("images")
    refused = cli("train", "pixelclip", "--resume", "--gpus", "0")
    assert refused.code == 3 and "the pictures in" in refused.err, refused.err


def test_masks_come_from_a_cache_or_the_run_of_a_host(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    (cache,) = (place / "data" / "mini" / "proposals").glob("superpixels-*")
    assert train(cli, place, "--proposals", cache).code == 0
    assert weights(only_run(tmp_path)) == weights(only_run(place)), "the same masks, found by their folder"
    (tmp_path / "host.toml").write_text(tomli_w.dumps(host_settings("zsseg")))
    assert cli("train", "zsseg", "--gpus", "0", "--config", "host.toml").code == 0
    (host,) = (tmp_path / "runs").glob("zsseg-*")
    done = train(cli, place, "--proposals", host)
    assert done.code == 0, done.err
    newest = max((tmp_path / "runs").glob("pixelclip-*"))
    assert weights(newest) != weights(only_run(place)) and not (newest / "host").exists()


def test_names_of_the_data_are_read_in_the_sentences_of_the_prompts(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in those of scoring, which the run keeps."""
    read: list[Vocabulary] = []
    plain = method_session.method_text
    monkeypatch.setattr(method_session, "method_text", lambda m, v, *rest: read.append(v) or plain(m, v, *rest))
    sentences = ["--set", 'prompt_templates=["this is {}", "a bit of {}"]']
    done = train(cli, place, "--proposals", "superpixels", "--set", "class_names=data", *sentences)
    assert done.code == 0, done.err
    assert [v.templates for v in read] == [("this is {}", "a bit of {}")]
    config = tomllib.loads((only_run(tmp_path) / "config.toml").read_text())
    assert config["vocabulary"]["templates"] == ["a photo of {}"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--host", "freeseg"], 2, "--host: pixelclip has no such option"),
        (["--proposals", "host"], 2, "pixelclip has no host of its own"),
        (["--proposals", "live", "--set", "proposal_settings.cluster=3"], 2, "Did you mean 'clusters'?"),
        (["--proposals", "live", "--set", "proposal_settings.weights=no.safetensors"], 4, "no.safetensors"),
        (["--proposals", "dino", "--set", "proposal_settings.weights=no.safetensors"], 4, "no.safetensors"),
        (["--proposals", "sam", "--set", "proposal_settings.model=./no"], 4, "--set proposal_settings.model="),
        (["--proposals", "superpixel"], 2, "Did you mean 'superpixels'?"),
        (["--set", "crop_size=8", "--set", "crop_max_share=0.5"], 2, "pixelclip reads no labels"),
        (["--set", "host.iterations=3"], 2, "pixelclip has no host"),
    ],
)
def test_what_cannot_be_is_said_before_a_run_is_begun(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    answer = train(cli, place, *words)
    assert answer.code == code and says in " ".join(answer.err.split()), answer.err
    assert not (tmp_path / "runs").exists()


def test_pictures_without_labels_train_and_what_needs_labels_refuses_them(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    (tmp_path / "bare.toml").write_text(BARE)
    prepared = cli("prepare", "bare.toml", "--source", str(place / "source"), "--workers", "1")
    assert prepared.code == 0, prepared.err
    done = train(cli, place, "--proposals", "superpixels", "--data", "bare.toml")
    assert done.code == 0, done.err
    assert weights(only_run(tmp_path)) == weights(only_run(place))
    refused = cli("train", "freeseg", "--data", "bare.toml", "--gpus", "0")
    assert refused.code == 3 and "no labels to train on" in refused.err, refused.err
    refused = train(cli, place, "--data", "bare.toml", "--proposals", "ground-truth")
    assert refused.code == 3 and "no labels, which ground-truth needs" in refused.err, refused.err


@pytest.mark.parametrize(
    ("val", "says"),
    [("", "no subset 'val' to score the seeds on"), ("val", "subset 'val' has no labels to score the seeds on")],
)
def test_seeds_without_anything_to_score_are_refused_first(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val: str, says: str
) -> None:
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    spec = BARE
    if val:
        spec = spec.replace("train = { images = 8 }", "train = { images = 8 }, val = { images = 2 }")
        spec = spec.replace('{stem}.png" } }', '{stem}.png" }, val = { images = "images/val/{stem}.png" } }')
    (tmp_path / "bare.toml").write_text(spec)
    assert cli("prepare", "bare.toml", "--source", str(place / "source"), "--workers", "1").code == 0
    refused = train(cli, place, "--data", "bare.toml", "--seeds", "2", "--proposals", "superpixels")
    assert refused.code == 3 and says in refused.err and not (tmp_path / "runs").exists(), refused.err


def test_seeds_go_on_with_the_masks_of_the_first(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    done = train(cli, place, "--proposals", "superpixels", "--seeds", "1")
    assert done.code == 0, done.err
    more = cli("train", "pixelclip", "--seeds", "2", "--resume", "--gpus", "0")
    assert more.code == 0, more.err
    (family,) = (tmp_path / "runs").iterdir()
    first, second = (tomllib.loads((family / seed / "config.toml").read_text()) for seed in ("seed-0", "seed-1"))
    assert second["training"] == {**first["training"], "seed": 1} and first["training"]["proposals"] == "superpixels"
    assert weights(family / "seed-0") == weights(only_run(place)) != weights(family / "seed-1")


# Killed, in parts, in several processes


def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    cli: Callable[..., Answer], place: Path, tmp_path: Path
) -> None:
    """Momentum encoder, decoder and the number of steps (`encoder_delay`) come back too."""
    settings = ["--set", "iterations=10", "--set", "encoder_delay=6", "--set", "teacher_momentum=0.9"]
    words = ["--proposals", "superpixels", *settings]
    assert train(cli, place, *words, "--runs", "alone").code == 0
    log, config = tmp_path / "log", str(place / "settings.toml")
    command = ["train", "pixelclip", "--gpus", "0"]
    children = forks.start(as_process([*command, "--config", config, *words, "--runs", "runs"], log))
    forks.wait_until(lambda: list((tmp_path / "runs").glob("*/checkpoints/step-00000004")))
    os.kill(children[0], signal.SIGKILL)
    assert forks.codes(children) == [-signal.SIGKILL]
    run = only_run(tmp_path)
    assert not (run / "finished").exists() and not (run / "model.safetensors").exists()
    assert cli(*command, "--resume", "--run", str(run)).code == 0
    (straight,) = (tmp_path / "alone").iterdir()
    assert weights(run) == weights(straight)


def test_parts_and_processes_assign_masks_as_one_and_learn_the_same(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step's targets, pixel by pixel, are the same; the weights differ by the order of sums alone."""
    plain = PixelClip.before_step

    def told(self: PixelClip, parts: Sequence[TrainBatch], *rest: Any) -> list[dict[str, Any]]:
        found = plain(self, parts, *rest)
        pairs = [pair for part in found for pair in zip(part["regions"].long(), part["targets"], strict=True)]
        names = [name for part in parts for name in part["names"]]
        file = tmp_path / "targets" / f"{int(self.steps_done)}-{os.environ.get('RANK', 0)}.pt"
        file.parent.mkdir(exist_ok=True)
        torch.save({name: table[ids] for name, (ids, table) in zip(names, pairs, strict=True)}, file)
        return found

    def outcome(processes: int, *more: str) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        shutil.rmtree(tmp_path / "targets", ignore_errors=True)
        words = ["train", "pixelclip", "--gpus", "0", "--config", str(place / "settings.toml")]
        words += ["--proposals", "superpixels", *more]
        children = forks.start(as_process(words, tmp_path / "log"), processes)
        assert forks.codes(children, 120) == [0] * processes, (tmp_path / "log").read_text()
        steps: dict[str, dict[str, torch.Tensor]] = {}
        for file in sorted((tmp_path / "targets").iterdir()):
            steps.setdefault(file.name.split("-")[0], {}).update(torch.load(file))
        return load_file(only_run(tmp_path) / "model.safetensors"), [*steps.values()]

    monkeypatch.setattr(PixelClip, "before_step", told)
    one, assigned = outcome(1)
    assert len(assigned) == 4 and all(len(step) == 2 and any(bool(t.any()) for t in step.values()) for step in assigned)
    for other, targets in (outcome(1, "--set", "accumulate=2"), outcome(2)):
        assert one.keys() == other.keys() and [step.keys() for step in targets] == [step.keys() for step in assigned]
        for step, expected in zip(targets, assigned, strict=True):
            assert all(torch.equal(step[name], target) for name, target in expected.items())
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, atol=1e-5, rtol=0, msg=name)


# What could not be learned from


def test_a_start_layer_that_the_clip_lacks_leaves_no_run_folder(cli: Callable[..., Answer], place: Path) -> None:
    refused = train(cli, place, "--proposals", "superpixels", "--set", "mask_start_layer=99")
    assert refused.code == 2 and not Path("runs").exists(), refused.err
    said = " ".join(refused.err.split())
    assert "mask_start_layer = 99: start layer 99: this CLIP has 6 blocks" in said and "mask_feature=pooled" in said


def test_a_cache_without_any_mask_is_refused_first(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    (cache,) = (place / "data" / "mini" / "proposals").glob("superpixels-*/train")
    store = ProposalStore.open(Path(shutil.copytree(cache, tmp_path / "empty" / "train")))
    kept = store.names()
    for name in kept:
        found, image = store.read(name), store.read_entry(name).image
        store.write(name, image, Proposals(found.masks[:0], found.scores[:0], found.size))
    refused = train(cli, place, "--proposals", store.folder)
    assert refused.code == 3 and "none of its 8 pictures has a mask" in " ".join(refused.err.split()), refused.err
    assert not (tmp_path / "runs").exists()
    found = ProposalStore.open(cache).read(kept[-1])
    store.write(kept[-1], store.read_entry(kept[-1]).image, found)
    assert train(cli, place, "--proposals", store.folder).code == 0
