"""`ovseg train tagclip --setting …`: a first step, where to start from, what is said of labels, what is refused."""

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

from tests.commands.conftest import Answer, run_command
from tests.commands.mini import SHORT, as_process, commands_in, prepared_place
from tests.core.training import forks

SMALL = {
    **SHORT, "iterations": 4, "prompts": 2, "window": 0, "stride": 0, "side": 48, "decoder_heads": 2,
    "decoder_layers": 2, "warmup": 1, "short_sides": [], "scale_range": [1.0, 1.0], "crop_size": 0,
    "crop_max_share": 1.0, "color_jitter": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with prepared data and, in `runs/`, one self-trained TagCLIP whose first step was trained for it."""
    with prepared_place(tmp_path_factory.mktemp("mini")) as place:
        done = train(run_command, "tagclip", "--setting", "transductive")
        assert done.code == 0 and "inductive step: training tagclip first (4 steps)" in done.err, done.err
        yield place


@pytest.fixture
def cli(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run a command in an empty folder, with the data of `place` and no runs."""
    return commands_in(tmp_path, place, monkeypatch)


def train(cli: Callable[..., Answer], method: str, *words: object, **more: object) -> Answer:
    Path("settings.toml").write_text(tomli_w.dumps({**SMALL, **more}))
    return cli("train", method, "--gpus", "0", "--data", "mini", "--config", "settings.toml", *map(str, words))


def plan(cli: Callable[..., Answer], *words: object, **more: object) -> dict:
    answer = train(cli, "tagclip", "--dry-run", "--json", *words, **more)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def only_run(folder: Path) -> Path:
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    return run


def new_run(folder: Path, *others: Path) -> Path:
    (run,) = {path for path in (folder / "runs").iterdir() if path.is_dir()} - {*others}
    return run


def config_of(run: Path) -> dict:
    return tomllib.loads((run / "config.toml").read_text())


def same(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.fixture
def earlier(place: Path, tmp_path: Path) -> Path:
    """The finished run, among the runs of the test."""
    return Path(shutil.copytree(only_run(place), tmp_path / "runs" / "earlier"))


@pytest.fixture
def inductive(earlier: Path, tmp_path: Path) -> Path:
    """Its first step, as a run of its own."""
    alone = Path(shutil.move(earlier / "inductive", tmp_path / "alone"))
    shutil.rmtree(earlier)
    return alone


# A first step


def test_a_self_trained_run_is_whole_by_itself(place: Path) -> None:
    run = only_run(place)
    config, first = config_of(run), config_of(run / "inductive")
    assert config["run"]["kind"] == "segmentation" and first["run"]["kind"] == "inductive"
    assert config["training"]["setting"] == "transductive" and first["training"]["setting"] == "inductive"
    assert (config["method"]["gamma"], config["method"]["fusion"]) == (0.0, "none"), "implied by the setting"
    assert (first["method"]["gamma"], first["method"]["fusion"]) == (0.1, "both")
    assert config["inductive"]["iterations"] == 4 and "seed" not in config["inductive"]
    seen = ["grass", "sand", "water", "brick"]
    assert config["vocabulary"]["training_names"] == first["vocabulary"]["training_names"] == seen
    assert not same(run, run / "inductive") and (run / "inductive" / "finished").exists()
    assert "start" not in config, "nothing has to be said of its first step"


def test_weights_of_the_first_step_are_those_that_the_training_starts_from(
    cli: Callable[..., Answer], inductive: Path, place: Path, tmp_path: Path
) -> None:
    """With a learning rate of nothing what comes out is what went in."""
    still = {"learning_rate": 1e-30, "weight_decay": 0.0}
    answer = train(cli, "tagclip", "--setting", "transductive", "--init", inductive, **still)
    assert answer.code == 0, answer.err
    ours, theirs = (load_file(run / "model.safetensors") for run in (only_run(tmp_path), inductive))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-7, rtol=0)


def test_a_finished_first_step_is_used_again(cli: Callable[..., Answer], earlier: Path, tmp_path: Path) -> None:
    assert plan(cli, "--setting", "transductive")["inductive"] == {
        "method": "tagclip",
        "step": f"weights of {earlier / 'inductive'}, a finished run",
    }
    answer = train(cli, "tagclip", "--setting", "transductive")
    assert answer.code == 0 and "inductive: weights come from" in answer.err and "step:" not in answer.err, answer.err
    run = new_run(tmp_path, earlier)
    assert same(run, earlier) and same(run / "inductive", earlier / "inductive")
    assert config_of(run / "inductive")["run"]["kind"] == "inductive"


def test_what_belongs_to_self_training_does_not_make_another_first_step(
    cli: Callable[..., Answer], earlier: Path
) -> None:
    def step(*words: object) -> str:
        return str(plan(cli, "--setting", "transductive", *words)["inductive"]["step"])

    for words in (["self_training=starred"], ["pseudo_threshold=0.5"], ["gamma=0.2"], ["fusion=both"], ["workers=1"]):
        assert step("--set", *words).startswith("weights of"), words
    for words in (["prompts=3"], ["batch_size=1"], ["inductive.gamma=0.2"], ["seed=1"], ["inductive.seed=1"]):
        assert step("--set", *words) == "4 steps first", words
    assert step("--set", "inductive.iterations=2") == "2 steps first"
    assert step("--set", "iterations=2", "--set", "inductive.iterations=4").startswith("weights of")
    assert step("--seed", "1", "--set", "inductive.seed=0").startswith("weights of")


def test_latest_is_the_run_and_its_first_step_can_be_scored_too(
    cli: Callable[..., Answer], earlier: Path, tmp_path: Path
) -> None:
    assert cli("eval", "--force", "--gpus", "0").code == 0
    assert list(earlier.glob("results/*.json")) and not list(earlier.glob("inductive/results/*.json"))
    assert cli("eval", str(earlier / "inductive"), "--force", "--gpus", "0").code == 0
    (stored,) = earlier.glob("inductive/results/*.json")
    assert json.loads(stored.read_text())["protocol"]["training"]["setting"] == "inductive"
    shutil.rmtree(earlier / "results")
    (earlier / "finished").unlink()
    answer = cli("eval", "latest", "--gpus", "0")
    assert answer.code == 2 and "no finished segmentation run" in answer.err, answer.err


def test_kills_in_the_first_step_and_after_it_change_no_bit(
    cli: Callable[..., Answer], place: Path, tmp_path: Path
) -> None:
    (tmp_path / "long.toml").write_text(tomli_w.dumps({**SMALL, "iterations": 12}))
    words = ["train", "tagclip", "--gpus", "0", "--config", "long.toml", "--setting", "transductive", "--data", "mini"]
    log = tmp_path / "log"

    def whole(*arguments: str) -> int:
        return forks.codes(forks.start(as_process(list(arguments), log)), 120)[0]

    assert whole(*words, "--runs", "alone") == 0, log.read_text()
    (reference,) = (tmp_path / "alone").iterdir()
    children = forks.start(as_process([*words, "--runs", "runs"], log))
    forks.wait_until(lambda: list((tmp_path / "runs").glob("*/inductive/checkpoints/step-00000004")))
    os.kill(children[0], signal.SIGKILL)
    assert forks.codes(children) == [-signal.SIGKILL]
    run = only_run(tmp_path)
    assert not (run / "inductive" / "finished").exists()
    children = forks.start(as_process([*words[:4], "--runs", "runs", "--resume"], log))
    forks.wait_until(lambda: list(run.glob("checkpoints/step-00000004")))
    os.kill(children[0], signal.SIGKILL)
    assert forks.codes(children) == [-signal.SIGKILL], log.read_text()
    assert not (run / "finished").exists()
    refused = cli("train", "tagclip", "--gpus", "0", "--resume", "--set", "inductive.iterations=3")
    assert refused.code == 2 and "no unfinished run of tagclip with these settings" in refused.err, refused.err
    assert whole(*words, "--set", "inductive.iterations=12", "--runs", "runs", "--resume") == 0, log.read_text()
    assert same(run / "inductive", reference / "inductive") and same(run, reference)


def test_a_run_that_was_killed_before_its_first_step_began_goes_on(
    cli: Callable[..., Answer], earlier: Path, tmp_path: Path
) -> None:
    """All that the first step needs to know stands in the run's own config."""
    begun = Path(shutil.copytree(earlier, tmp_path / "runs" / "begun"))
    shutil.rmtree(begun / "inductive")
    shutil.rmtree(begun / "checkpoints")
    for name in ("finished", "model.safetensors", "metrics.jsonl"):
        (begun / name).unlink()
    answer = cli("train", "tagclip", "--gpus", "0", "--resume")
    assert answer.code == 0 and "a finished run of tagclip" in answer.err, answer.err
    assert same(begun, earlier)


def test_two_processes_train_to_the_weights_of_one(cli: Callable[..., Answer], tmp_path: Path) -> None:
    """Dropout is off: each process draws its own random numbers."""
    (tmp_path / "still.toml").write_text(tomli_w.dumps({**SMALL, "dropout": 0.0}))
    words = ["train", "tagclip", "--gpus", "0", "--config", "still.toml", "--setting", "transductive", "--data", "mini"]
    log = tmp_path / "log"
    found = []
    for count in (1, 2):
        children = forks.start(as_process([*words, "--runs", f"{count}/runs"], log), count)
        assert forks.codes(children, 120) == [0] * count, log.read_text()
        found.append(only_run(tmp_path / str(count)))
    for folder in (".", "inductive"):
        ours, theirs = (load_file(run / folder / "model.safetensors") for run in found)
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], atol=2e-3, rtol=1e-2, msg=name)


# Where to start from


def test_init_of_the_same_first_step_gives_the_same_weights(
    cli: Callable[..., Answer], inductive: Path, place: Path, tmp_path: Path
) -> None:
    document = plan(cli, "--setting", "transductive", "--init", inductive)
    assert document["starts_from"] == str(inductive) and "inductive" not in document
    answer = train(cli, "tagclip", "--setting", "transductive", "--init", inductive)
    assert answer.code == 0 and "inductive" not in answer.err.replace(str(inductive), ""), answer.err
    run = only_run(tmp_path)
    assert same(run, only_run(place)) and not (run / "inductive").exists()
    assert config_of(run)["training"]["init"] == str(inductive)


def test_a_run_that_did_not_begin_needs_what_it_starts_from(
    cli: Callable[..., Answer], inductive: Path, place: Path, tmp_path: Path
) -> None:
    assert train(cli, "tagclip", "--setting", "transductive", "--init", inductive).code == 0
    run = only_run(tmp_path)
    shutil.rmtree(run / "checkpoints")
    for name in ("finished", "model.safetensors", "metrics.jsonl"):
        (run / name).unlink()
    away = shutil.move(inductive, tmp_path / "away")
    answer = cli("train", "tagclip", "--gpus", "0", "--resume")
    assert answer.code == 2 and "there is no such run folder" in answer.err, answer.err
    shutil.move(away, inductive)
    assert cli("train", "tagclip", "--gpus", "0", "--resume").code == 0
    assert same(run, only_run(place))


def test_unseen_classes_of_the_user_s_own_reach_the_first_step(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = train(cli, "tagclip", "--setting", "transductive", "--unseen", "snow, water")
    assert answer.code == 0, answer.err
    run = only_run(tmp_path)
    for folder in (run, run / "inductive"):
        assert config_of(folder)["vocabulary"]["training_names"] == ["grass", "sand", "brick"]
    assert cli("eval", "--split", "unseen", "--force", "--gpus", "0").code == 0


def edit(run: Path, change: Callable[[dict], None]) -> None:
    config = config_of(run)
    change(config)
    (run / "config.toml").write_text(tomli_w.dumps(config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["run"].update(method="zegclip"), ["this is a run of zegclip, not of tagclip"]),
        (lambda c: c["run"].update(data="mini:none"), ["was trained on mini:none", "Use --data mini:none"]),
        (
            lambda c: c["clip"].update(name="ViT-B-16", pretrained="openai"),
            ["has the CLIP ViT-B-16 / openai", "--clip"],
        ),
        (lambda c: c["vocabulary"].update(training_names=["grass", "snow"]), ["trained on labels of 'snow'"]),
    ],
)
def test_init_of_another_kind_is_refused(
    cli: Callable[..., Answer], inductive: Path, change: Callable[[dict], None], words: list[str]
) -> None:
    edit(inductive, change)
    answer = train(cli, "tagclip", "--setting", "transductive", "--init", inductive)
    assert answer.code == 2 and f"--init {inductive}" in answer.err.replace("\n  ", ""), answer.err
    assert all(word in " ".join(answer.err.split()) for word in words), answer.err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_init_that_is_not_there_not_finished_or_of_other_shapes_is_refused(
    cli: Callable[..., Answer], inductive: Path, tmp_path: Path
) -> None:
    def refused(*words: object, code: int = 2) -> str:
        answer = train(cli, "tagclip", *words)
        assert answer.code == code, answer.err
        assert not Path("runs").exists() or not list(Path("runs").iterdir())
        return " ".join(answer.err.split())

    said = refused("--setting", "transductive", "--init", tmp_path / "alnoe")
    assert "there is no such run folder" in said and "alone" in said
    assert "setting=transductive" in refused("--init", inductive)
    words = ("--setting", "transductive", "--init", inductive)
    said = refused(*words, "--set", "prompts=3", code=3)
    assert "(5, 2, 96), the settings ask for (5, 3, 96)" in said and f"ovseg show {inductive}" in said
    (inductive / "finished").unlink()
    assert "ovseg train tagclip --resume --run" in refused(*words)
    assert "--unseen" in refused("--setting", "transductive", "--data", "mini:none")


# What a setting is, and what it says of itself


def test_options_are_settings(cli: Callable[..., Answer]) -> None:
    words = ["--setting", "transductive", "--trust-target", "official-unseen", "--set", "self_training=starred"]
    same_in_words = ["setting=transductive", "trust_target=official-unseen", "self_training=starred"]
    assert plan(cli, *words) == plan(cli, *(word for item in same_in_words for word in ("--set", item)))


def test_what_is_typed_stands_above_what_a_setting_implies(cli: Callable[..., Answer]) -> None:
    settings = plan(cli, "--setting", "transductive", "--set", "gamma=0.3")["settings"]
    assert (settings["gamma"], settings["fusion"]) == (0.3, "none")
    assert plan(cli, "--setting", "supervised")["settings"]["gamma"] == 0.0
    assert plan(cli)["settings"]["gamma"] == 0.1


def test_supervised_training_reads_all_labels_and_says_so(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = train(cli, "zegclip", "--setting", "supervised")
    assert answer.code == 0, answer.err
    config = config_of(only_run(tmp_path))
    assert config["run"]["data"] == "mini:no-snow" and "snow" in config["vocabulary"]["training_names"]
    scored = cli("eval", "latest", "--split", "unseen", "--force", "--gpus", "0", "--json")
    notes = json.loads(scored.out)["results"][0]["notes"]
    assert scored.code == 0 and any("Not zero-shot" in note for note in notes), notes


def test_what_was_read_of_unseen_pixels_stands_at_every_score(cli: Callable[..., Answer], tmp_path: Path) -> None:
    """At those of the run itself, and of a run that started from it."""

    def notes(run: Path) -> list[str]:
        scored = cli("eval", str(run), "--force", "--gpus", "0", "--json")
        assert scored.code == 0, scored.err
        return json.loads(scored.out)["results"][0]["notes"]

    assert train(cli, "tagclip", "--trust-target", "official-unseen").code == 0
    first = only_run(tmp_path)
    (official,) = [note for note in notes(first) if "official-unseen" in note]
    assert train(cli, "tagclip", "--setting", "transductive", "--init", first).code == 0
    second = new_run(tmp_path, first)
    assert config_of(second)["training"]["trust_target"] == "seen-vs-rest" and notes(second) == [official]
    assert official in " ".join(cli("show", str(second)).out.split())
    result = json.loads(next((second / "results").glob("*.json")).read_text())
    assert result["protocol"]["training"]["init"] == "a run", "its path would set rows apart that differ in nothing"
    words = ("--setting", "transductive", "--set", "inductive.trust_target=official-unseen")
    assert train(cli, "tagclip", *words, "--set", "self_training=starred").code == 0
    third = new_run(tmp_path, first, second)
    starred, inherited = notes(third)
    assert starred.startswith("Starred") and inherited == official


def test_dry_run_says_what_a_setting_reads(cli: Callable[..., Answer]) -> None:
    assert not {"names_without_labels", "unseen_pixels", "inductive"} & plan(cli).keys()
    honest, starred = (
        plan(cli, "--setting", "transductive", "--set", f"self_training={s}") for s in ("honest", "starred")
    )
    assert honest["names_without_labels"] == starred["names_without_labels"] == 1
    assert "unseen_pixels" not in honest and "place is known" in starred["unseen_pixels"]
    assert honest["inductive"] == {"method": "tagclip", "step": "4 steps first"}
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("method", "words", "said"),
    [
        ("tagclip", ["--setting", "transductiv"], ["'transductiv'", "Did you mean 'transductive'?"]),
        ("tagclip", ["--trust-target", "seen-vs-res"], ["Did you mean 'seen-vs-rest'?"]),
        ("zegclip", ["--trust-target", "seen-vs-rest"], ["--trust-target: zegclip has no such option"]),
        ("tagclip", ["--set", "inductive.iterations=3"], ["inductive.iterations: no other step comes before"]),
        (
            "tagclip",
            ["--setting", "transductive", "--set", "inductive.promts=3"],
            ["inductive step:", "unknown setting 'promts'", "'prompts'"],
        ),
        (
            "tagclip",
            ["--setting", "transductive", "--set", "inductive.iterations=0"],
            ["inductive step:", "iterations = 0"],
        ),
        ("tagclip", ["--setting", "transductive", "--data", "mini:none"], ["has no unseen class", "--unseen"]),
    ],
)
def test_what_does_not_fit_is_said_at_once(
    cli: Callable[..., Answer], method: str, words: list[str], said: list[str]
) -> None:
    answer = train(cli, method, *words)
    text = " ".join(answer.err.split())
    assert answer.code == 2 and all(part in text for part in said), answer.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("method", "option", "said"),
    [
        ("maft", ["--setting", "transductive"], "--setting: maft has no such option"),
        ("freeseg", ["--init", "runs/x"], "--init: freeseg has no such option"),
        ("freeseg", ["--set", "inductive.iterations=3"], "no other step comes before this training of freeseg"),
        ("toy-clip", ["--trust-target", "seen-vs-rest"], "--trust-target: toy-clip draws its own data"),
    ],
)
def test_methods_without_such_settings_refuse_them(
    cli: Callable[..., Answer], method: str, option: list[str], said: str
) -> None:
    data = [] if method == "toy-clip" else ["--data", "mini"]
    answer = cli("train", method, "--gpus", "0", *data, *option)
    assert answer.code == 2 and said in " ".join(answer.err.split()), answer.err
