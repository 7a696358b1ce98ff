"""`ovseg train METHOD` on a handful of pictures: what a run folder holds, what is used again, what is refused."""

import errno
import json
import os
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from ovseg_cli.core.methods.maft import Maft
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.types import Proposals
from tests.commands.conftest import Answer, run_command
from tests.commands.mini import as_process, commands_in, host_settings, maft_settings, prepared_place
from tests.core.training import forks


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the prepared data and, in `runs/`, one finished run of MAFT whose host was trained first."""
    with prepared_place(tmp_path_factory.mktemp("mini")) as place:
        done = run_command("train", "maft", "--gpus", "0", "--config", str(write(place / "maft.toml", maft_settings())))
        assert done.code == 0, done.err
        yield place


@pytest.fixture
def cli(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run a command in an empty folder, with the data of `place` and no runs."""
    return commands_in(tmp_path, place, monkeypatch)


def write(path: Path, settings: dict) -> Path:
    path.write_text(tomli_w.dumps(settings))
    return path


def train(cli: Callable[..., Answer], method: str, *words: object, settings: dict | None = None) -> Answer:
    config = ["--config", str(write(Path("settings.toml"), settings))] if settings is not None else []
    return cli("train", method, "--gpus", "0", *map(str, words), *config)


def only_run(folder: Path) -> Path:
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    return run


def config_of(run: Path) -> dict:
    return tomllib.loads((run / "config.toml").read_text())


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


# What a run holds


def test_a_run_of_maft_is_whole_by_itself(place: Path) -> None:
    run = only_run(place)
    config = config_of(run)
    assert config["run"]["method"] == "maft" and config["run"]["data"] == "mini:no-snow"
    assert config["clip"]["name"] == "toy-clip" and config["training"]["iterations"] == 4
    assert config["vocabulary"]["training_names"] == ["grass", "sand", "water", "brick"]
    assert config["host"]["generator"]["queries"] == 6 and len(config["fingerprints"]["data"]) == 64
    assert (run / "finished").exists() and (run / "curves.png").exists()
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert all(name.startswith("ip_clip.") for name in weights_of(run))
    host = config_of(run / "host")
    assert host["run"]["kind"] == "host" and host["run"]["method"] == "freeseg" and host["run"]["seed"] == 0
    assert host["training"]["iterations"] == 3 and (run / "host" / "finished").exists()


def test_latest_is_the_run_of_maft_and_its_unseen_classes_are_scored(
    place: Path, cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")
    answer = cli("eval", "--split", "unseen", "--force", "--gpus", "0", "--json")
    assert answer.code == 0, answer.err
    stored = [path for path in only_run(tmp_path).glob("results/*.json")]
    assert [json.loads(path.read_text())["method"] for path in stored] == ["maft"]
    assert not list(only_run(tmp_path).glob("host/results/*"))
    refused = cli("eval", "--set", "iterations=3", "--gpus", "0")
    assert refused.code == 2 and "'iterations' is a setting of its training" in refused.err, refused.err


@pytest.mark.parametrize("host", ["zegformer", "zsseg"])
def test_each_host_trains_and_is_scored(cli: Callable[..., Answer], tmp_path: Path, host: str) -> None:
    trained = train(cli, host, settings=host_settings(host))
    assert trained.code == 0, trained.err
    run = only_run(tmp_path)
    assert weights_of(run) and not (run / "host").exists()
    scored = cli("eval", "latest", "--force", "--gpus", "0")
    assert scored.code == 0, scored.err


def test_dry_run_says_what_would_be_done_and_makes_nothing(
    cli: Callable[..., Answer], place: Path, tmp_path: Path
) -> None:
    answer = train(cli, "maft", "--dry-run", "--json", settings=maft_settings())
    plan = json.loads(answer.out)
    assert plan["steps"] == 4 and plan["pictures"] == 8 and plan["seen_classes"] == 4 and plan["data"] == "mini:no-snow"
    assert plan["host"] == {"method": "freeseg", "step": "3 steps first"} and plan["training"]["workers"] == 0
    assert not (tmp_path / "runs").exists()
    shutil.copytree(place / "runs", tmp_path / "runs")
    again = json.loads(train(cli, "maft", "--dry-run", "--json", settings=maft_settings()).out)
    assert again["host"]["step"].startswith("masks of ") and again["host"]["step"].endswith("a finished run")


# Host runs


def test_matching_host_is_used_again_and_gives_the_same_weights(
    cli: Callable[..., Answer], place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")
    first = only_run(tmp_path)
    answer = train(cli, "maft", settings=maft_settings())
    assert answer.code == 0 and "a finished run of freeseg" in answer.err and "host step" not in answer.err
    (second,) = set((tmp_path / "runs").iterdir()) - {first}
    assert same(first / "host", second / "host") and same(first, second)


def test_host_of_other_settings_seed_or_data_is_trained_first(
    cli: Callable[..., Answer], place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")

    def step(*words: str) -> str:
        return json.loads(train(cli, "maft", "--dry-run", "--json", *words, settings=maft_settings()).out)["host"][
            "step"
        ]

    assert step().startswith("masks of")
    assert step("--set", "host.workers=1").startswith("masks of"), "it changes no weight, and is laid over --config"
    assert step("--set", "host.iterations=2") == "2 steps first"
    assert step("--seed", "1") == "3 steps first" and step("--set", "host.seed=1") == "3 steps first"
    assert step("--seed", "1", "--set", "host.seed=0").startswith("masks of")
    assert step("--data", "mini:none") == "3 steps first"
    config = only_run(tmp_path) / "host" / "config.toml"
    config.write_text(
        config.read_text().replace('\ndata = "', '\ndata = "0', 2).replace('data = "0mini', 'data = "mini')
    )
    assert step() == "3 steps first"


def test_seed_of_maft_is_that_of_its_host_step(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    answer = train(cli, "maft", "--seed", "1", "--host", "freeseg", settings=maft_settings())
    assert answer.code == 0 and "host step: training freeseg first (3 steps)" in answer.err, answer.err
    run = only_run(tmp_path)
    assert config_of(run)["run"]["seed"] == config_of(run / "host")["run"]["seed"] == 1
    assert not same(run / "host", only_run(place) / "host")


# Masks from elsewhere


def test_masks_of_a_generator_a_cache_and_a_run(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    alone = {key: value for key, value in maft_settings().items() if key != "host"}
    answer = train(cli, "maft", "--proposals", "superpixels", settings=alone)
    assert answer.code == 0 and "host" not in answer.err, answer.err
    first = only_run(tmp_path)
    (cache,) = (place / "data" / "mini" / "proposals").glob("superpixels-*/train")
    for source in (cache, cache.parent):
        shutil.rmtree(tmp_path / "runs" / "again", ignore_errors=True)
        answer = train(cli, "maft", "--proposals", source, settings=alone)
        assert answer.code == 0, answer.err
        (second,) = set((tmp_path / "runs").iterdir()) - {first}
        assert same(first, second)
        if source == cache:
            label_own_picture(cli, place, second)
        shutil.rmtree(second)
    answer = train(cli, "maft", "--proposals", only_run(place) / "host", settings=alone)
    assert answer.code == 0, answer.err
    (third,) = set((tmp_path / "runs").iterdir()) - {first}
    assert same(third, only_run(place)), "the masks of a host are the same, wherever its run lies"


def label_own_picture(cli: Callable[..., Answer], place: Path, run: Path) -> None:
    """A cache has no masks of a user's picture: that is said, and a generator makes some."""
    from PIL import Image, ImageOps

    picture = next(path for path in (place / "source").rglob("*.*") if path.parent.parent.name == "images")
    ImageOps.flip(Image.open(picture).convert("RGB")).save("own.png")
    words = ["predict", str(run), "own.png", "--classes", "cat, dog", "--out", "labelled"]
    refused = cli(*words)
    assert refused.code in (2, 3) and "no proposals of this picture" in refused.err, refused.err
    done = cli(*words, "--proposals", "superpixels")
    assert done.code == 0, done.err


def test_live_masks_give_the_same_weights_whether_the_host_was_trained_before_or_first(
    cli: Callable[..., Answer], tmp_path: Path
) -> None:
    random = maft_settings()
    random["host"]["generator"] = {**random["host"]["generator"], "dropout": 0.3}
    answer = train(cli, "maft", "--proposals", "live", settings=random)
    assert answer.code == 0 and "host step" in answer.err and "proposals of" not in answer.err, answer.err
    first = only_run(tmp_path)
    before = (first / "host" / "model.safetensors").read_bytes()
    answer = train(cli, "maft", "--proposals", "live", settings=random)
    assert answer.code == 0 and "a finished run of freeseg" in answer.err, answer.err
    (second,) = set((tmp_path / "runs").iterdir()) - {first}
    assert config_of(second)["method"]["proposals"] == "live" and same(first, second)
    assert before == (first / "host" / "model.safetensors").read_bytes()
    assert cli("eval", str(second), "--force", "--gpus", "0").code == 0


@pytest.mark.parametrize("count", [0, 1])
def test_pictures_with_no_mask_or_one(cli: Callable[..., Answer], place: Path, tmp_path: Path, count: int) -> None:
    alone = {key: value for key, value in maft_settings(mask_aware=True).items() if key != "host"}
    assert cli("propose", "superpixels", "--set", f"max_masks={30 + count}", "--workers", "1").code == 0
    (made,) = [
        path
        for path in (place / "data" / "mini" / "proposals").glob("superpixels-*/train")
        if json.loads((path / "manifest.json").read_text())["settings"]["max_masks"] == 30 + count
    ]
    store = ProposalStore.open(made)
    for name in store.names()[: 8 if count else 3]:
        kept, image = store.read(name), store.read_entry(name).image
        store.write(name, image, Proposals(kept.masks[:count], kept.scores[:count], kept.size))
    answer = train(cli, "maft", "--proposals", made, settings=alone)
    assert answer.code == 0, answer.err
    lines = [json.loads(line) for line in (only_run(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all(abs(line["loss"]) < 1e3 for line in lines)
    for value in weights_of(only_run(tmp_path)).values():
        assert value.isfinite().all()


# Data


def test_crops_without_a_labelled_pixel_have_no_mask_aware_loss(cli: Callable[..., Answer], tmp_path: Path) -> None:
    alone = {**maft_settings(crop_size=12, batch_size=1, iterations=16)}
    alone.pop("host")
    answer = train(cli, "maft", "--proposals", "superpixels", settings=alone)
    assert answer.code == 0, answer.err
    lines = [json.loads(line) for line in (only_run(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    assert {line["terms"]["mask_aware"] == 0 for line in lines} == {True, False}


def test_without_a_class_split_all_classes_are_seen(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = train(cli, "freeseg", "--data", "mini:none", settings=host_settings("freeseg"))
    assert answer.code == 0, answer.err
    config = config_of(only_run(tmp_path))
    assert config["run"]["data"] == "mini:none" and "snow" in config["vocabulary"]["training_names"]
    refused = cli("eval", "latest", "--split", "unseen", "--gpus", "0")
    assert refused.code == 2 and "--unseen" in refused.err


def test_unseen_classes_of_the_user_s_own_reach_host_resume_and_eval(
    cli: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = train(cli, "maft", "--data", "mini", "--unseen", "snow, water", settings=maft_settings())
    assert answer.code == 0, answer.err
    run = only_run(tmp_path)
    for folder in (run, run / "host"):
        assert config_of(folder)["vocabulary"]["training_names"] == ["grass", "sand", "brick"]
    (run / "finished").unlink()
    resumed = train(cli, "maft", "--resume", "--data", "mini", "--unseen", "snow, water")
    assert resumed.code == 0, resumed.err
    assert cli("eval", "--split", "unseen", "--force", "--gpus", "0").code == 0


def test_scores_under_way_are_logged_and_change_no_weight(
    cli: Callable[..., Answer], place: Path, tmp_path: Path
) -> None:
    shutil.copytree(only_run(place), tmp_path / "runs" / "earlier")
    answer = train(cli, "maft", "--set", "eval_every=2", settings=maft_settings())
    assert answer.code == 0, answer.err
    (run,) = set((tmp_path / "runs").iterdir()) - {tmp_path / "runs" / "earlier"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["evaluation"] for line in lines if "evaluation" in line}
    assert list(scores) == [2, 4] and {"mIoU", "uIoU", "hIoU"} <= scores[4].keys()
    assert same(run, only_run(place))


# Going on


@pytest.fixture
def unfinished(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> Path:
    """A copy of the run as it was after step 3 of 4."""
    run = Path(shutil.copytree(only_run(place), tmp_path / "runs" / "begun"))
    for name in ("finished", "model.safetensors"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    return run


def test_newest_unfinished_run_with_the_settings_given_goes_on(
    cli: Callable[..., Answer], unfinished: Path, place: Path
) -> None:
    wrong = (
        ["--set", "iterations=5"],
        ["--set", "host.iterations=4"],
        ["--set", "host.generator.queries=7"],
        ["--data", "mini:none"],
        ["--unseen", "sand", "--data", "mini"],
        ["--clip", "ViT-B-32"],
        ["--proposals", "superpixels"],
    )
    for words in wrong:
        answer = train(cli, "maft", "--resume", *words)
        assert answer.code == 2 and "no unfinished run of maft with these settings" in answer.err, answer.err
        answer = train(cli, "maft", "--resume", "--run", unfinished, *words)
        assert answer.code == 2 and "has another" in answer.err, answer.err
    right = ["--data", "mini", "--clip", "toy-clip", "--host", "freeseg", "--set", "host.generator.queries=6"]
    answer = train(cli, "maft", "--resume", *right, settings=maft_settings())
    assert answer.code == 0 and "from step 3" in answer.err, answer.err
    assert same(unfinished, only_run(place))
    again = train(cli, "maft", "--resume")
    assert again.code == 2 and "no unfinished run of maft in" in again.err
    named = train(cli, "maft", "--resume", "--run", unfinished)
    assert named.code == 2 and "this run is finished" in named.err


def test_run_folder_without_a_slash_goes_on(
    cli: Callable[..., Answer], unfinished: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unfinished.parent)
    answer = train(cli, "maft", "--resume", "--run", unfinished.name)
    assert answer.code == 0 and "from step 3" in answer.err, answer.err
    assert same(unfinished, only_run(place))


def test_finished_run_that_lost_its_weights_is_not_to_be_gone_on_with(
    cli: Callable[..., Answer], unfinished: Path
) -> None:
    answer = cli("eval", unfinished, "--gpus", "0")
    assert answer.code == 3 and "--resume --run" in answer.err, answer.err
    (unfinished / "finished").write_text("")
    answer = cli("eval", unfinished, "--gpus", "0")
    assert answer.code == 3 and "anew" in answer.err and "--resume" not in answer.err, answer.err


def test_what_the_machine_lacks_for_the_host_step_is_mended_by_a_setting_of_the_host(
    cli: Callable[..., Answer],
) -> None:
    settings = {**maft_settings(), "host": host_settings("freeseg", precision="float16")}
    answer = train(cli, "maft", "--data", "mini", settings=settings)
    assert answer.code == 4 and "error: host step: float16" in answer.err, answer.err
    assert "--set host.precision=bfloat16" in answer.err, answer.err


def test_precision_that_the_device_lacks_leaves_no_run_folder(cli: Callable[..., Answer]) -> None:
    settings = maft_settings(precision="float16")
    answer = train(cli, "maft", "--data", "mini", settings=settings)
    assert answer.code == 4 and "float16" in answer.err and not Path("runs").exists(), answer.err


def test_run_of_another_version_or_method_is_refused(cli: Callable[..., Answer], unfinished: Path) -> None:
    answer = train(cli, "freeseg", "--resume", "--run", unfinished)
    assert answer.code == 2 and "this is a run of maft" in answer.err and "ovseg train maft --resume" in answer.err
    config = unfinished / "config.toml"
    config.write_text(config.read_text().replace("schema = 1", "schema = 99", 1))
    answer = train(cli, "maft", "--resume", "--run", unfinished)
    assert answer.code == 3 and "schema 99" in answer.err and "0.1" in answer.err


def test_data_that_changed_since_the_run_began_is_refused_before_anything_is_made(
    cli: Callable[..., Answer], unfinished: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    source = Path(shutil.copytree(place / "source", tmp_path / "source"))
    label = source / "labels" / "train" / "0.png"
    Image.open(label).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(label)
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    done = cli("prepare", str(source / "mini.toml"), "--source", str(source), "--workers", "1")
    assert done.code == 0, done.err
    answer = train(cli, "maft", "--resume")
    assert answer.code == 3 and "is not what this run began with" in answer.err, answer.err
    assert not (tmp_path / "data" / "mini" / "proposals").exists() and not (unfinished / "model.safetensors").exists()


# What goes wrong under way


def test_loss_that_is_not_finite_stops_names_its_term_and_keeps_the_checkpoint(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, steps = Maft.losses, []

    def broken(self: Maft, *arguments: object) -> dict[str, torch.Tensor]:
        terms = losses(self, *arguments)  # type: ignore[arg-type]
        steps.append(1)
        return {**terms, "distillation": terms["distillation"] * (float("nan") if len(steps) == 3 else 1)}

    monkeypatch.setattr(Maft, "losses", broken)
    answer = train(
        cli, "maft", "--proposals", only_run(place) / "host", settings={**maft_settings(), "host": "freeseg"}
    )
    assert answer.code == 1 and "'distillation' is nan in step 3" in answer.err, answer.err
    assert "(step 2)" in answer.err and "--set learning_rate=2.5e-06" in answer.err, "a quarter of MAFT's own rate"
    run = only_run(tmp_path)
    assert not (run / "finished").exists()
    monkeypatch.setattr(Maft, "losses", losses)
    assert train(cli, "maft", "--resume").code == 0
    assert same(run, only_run(place))


@pytest.mark.parametrize("file", ["model.safetensors", "step-00000003", "config.toml"])
def test_full_disk_leaves_whole_files_and_the_run_goes_on(
    cli: Callable[..., Answer], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def full(one: object, other: object, **more: object) -> None:
        if str(other).endswith(file) and "host" not in Path(str(other)).parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(one, other, **more)

    real = os.replace
    source, alone = only_run(place) / "host", {**maft_settings(), "host": "freeseg"}
    monkeypatch.setattr(os, "replace", full)
    answer = train(cli, "maft", "--proposals", source, settings=alone)
    assert answer.code == 4 and "disk is full" in answer.err and "Traceback" not in answer.err, answer.err
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]
    monkeypatch.setattr(os, "replace", real)
    if file == "config.toml":
        return  # nothing was begun
    assert train(cli, "maft", "--resume").code == 0
    assert same(only_run(tmp_path), only_run(place))


def test_kill_in_the_host_step_and_sigterm_in_maft_change_no_bit(
    cli: Callable[..., Answer], place: Path, tmp_path: Path
) -> None:
    long = maft_settings(iterations=12)
    long["host"]["iterations"] = 12
    long["host"]["generator"] = {**long["host"]["generator"], "dropout": 0.2}
    words = ["train", "maft", "--gpus", "0", "--config", str(write(tmp_path / "long.toml", long))]
    log = tmp_path / "log"

    def whole(runs: str, *more: str) -> int:
        return forks.codes(forks.start(as_process([*words, "--runs", runs, *more], log)), 120)[0]

    assert whole("alone") == 0, log.read_text()
    (reference,) = (tmp_path / "alone").iterdir()
    children = forks.start(as_process([*words, "--runs", "runs"], log))
    forks.wait_until(lambda: list((tmp_path / "runs").glob("*/host/checkpoints/step-00000004")))
    os.kill(children[0], signal.SIGKILL)
    assert forks.codes(children) == [-signal.SIGKILL]
    run = only_run(tmp_path)
    assert not (run / "host" / "finished").exists()
    children = forks.start(as_process([*words[:4], "--runs", "runs", "--resume"], log))
    forks.wait_until(lambda: list(run.glob("checkpoints/step-00000004")))
    os.kill(children[0], signal.SIGTERM)
    assert forks.codes(children) == [143], log.read_text()
    assert not (run / "finished").exists()
    assert whole("runs", "--resume") == 0, log.read_text()
    assert same(run / "host", reference / "host") and same(run, reference)


def test_two_processes_train_to_the_weights_of_one(cli: Callable[..., Answer], place: Path, tmp_path: Path) -> None:
    config = write(tmp_path / "maft.toml", maft_settings())
    words = ["train", "maft", "--gpus", "0", "--config", str(config)]
    assert forks.codes(forks.start(as_process(words, tmp_path / "log"), 2), 120) == [0, 0], (
        tmp_path / "log"
    ).read_text()
    run, alone = only_run(tmp_path), only_run(place)
    for one, other in ((run / "host", alone / "host"), (run, alone)):
        ours, theirs = weights_of(one), weights_of(other)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], atol=2e-3, rtol=1e-2, msg=name)
