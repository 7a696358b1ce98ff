"""Every option of `ovseg eval` that changes scores does so, and the stored protocol says it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ovseg_cli
from ovseg_cli.core.clip.prompts import IMAGENET_SELECT
from ovseg_cli.core.data.specs import load_spec, spec_folder
from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.evaluation.results import Result

QUICK = ["--limit", "6", "--gpus", "0", "--json"]
TOY = (spec_folder() / "toy.toml").read_text(encoding="utf-8")
STUFF = [c.name for c in load_spec("toy").classes if not c.is_thing]
SQUARE = """[preset]
clip = "toy-clip"
side = 64
resize = "square"
templates = ["{}"]

[preset.methods.maskclip]
variant = "original"
"""
PLAIN = """
[[name_variants]]
id = "upside-down"
source = "ours"
kind = "names"

[name_variants.entries]
grass = ["a red striped toy"]
"""
PAIRS = """
[[layouts]]
id = "pairs"
source = "ours"

[layouts.subsets.val]
images = "images/{stem}.png"
labels = "labels/{stem}.png"
"""


@pytest.fixture
def cli(cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Run a command; runs lie in the test's own folder."""
    monkeypatch.setenv("OVSEG_RUNS", str(tmp_path / "runs"))
    return cli


@pytest.fixture
def score(cli: Callable) -> Callable[..., Result]:
    """Score maskclip on a few pictures; the stored result."""

    def run(*arguments: str, model: str = "maskclip", data: str = "toy") -> Result:
        answer = cli("eval", model, "--data", data, *QUICK, *arguments)
        assert answer.code == 0, answer.err
        return load_result(Path(json.loads(answer.out)["results"][0]["file"]))

    return run


@pytest.fixture
def renamed(tmp_path: Path) -> str:
    """The toy world by a spec with another preset and a name variant; its prepared pictures serve it too."""
    before, after = TOY.split("[preset]\n")
    (tmp_path / "toy.toml").write_text(before + SQUARE + "\n[subsets]" + after.split("[subsets]")[1] + PLAIN)
    return str(tmp_path / "toy.toml")


@pytest.fixture
def with_background(cli: Callable, world: Path, tmp_path: Path) -> str:
    """Six toy pictures as a data set of the user's own in which grass is the background."""
    for kind in ("images", "labels"):
        (tmp_path / "own" / kind).mkdir(parents=True)
        for path in sorted((world / "datasets" / "toy" / kind / "val").glob("*.png"))[:6]:
            (tmp_path / "own" / kind / path.name).write_bytes(path.read_bytes())
    text = TOY.replace('name = "toy"', 'name = "own"').replace('generator = "toyseg"\n', "")
    head, rest = text.split("[subsets]\n")
    rest = rest[rest.index("[[class_splits]]") :]
    raw = iter(range(len(load_spec("toy").classes)))
    rest = "".join(
        line + (f"raw_id = {next(raw)}\n" if line == "[[classes]]\n" else "") for line in rest.splitlines(True)
    )
    head = head.replace('raw_ids = "train-ids"\n', "")
    spec = f'{head}[subsets]\nval = {{ images = 6 }}\n[background]\ntrain_id = 0\nmeaning = "grass"\n{rest}{PAIRS}'
    (tmp_path / "own.toml").write_text(spec)
    answer = cli("prepare", "own.toml", "--source", "own", "--workers", "1", "--data-root", str(tmp_path / "data"))
    assert answer.code == 0, answer.err
    return str(tmp_path / "own.toml")


def predicted(result: Result) -> np.ndarray:
    """Pixels that became each class."""
    return np.asarray(result.matrix).sum(0)


def test_seen_penalty_lowers_seen_classes_alone(score: Callable) -> None:
    result = score("--seen-penalty", "3")  # cosines are no larger than 1
    unseen = np.array(result.unseen)
    assert unseen.any() and predicted(result)[~unseen].sum() == 0 and predicted(result)[unseen].sum() > 0
    assert result.protocol["seen_penalty"] == 3
    little = score("--seen-penalty", "0.02")
    assert predicted(score())[unseen].sum() < predicted(little)[unseen].sum() < predicted(result)[unseen].sum()


@pytest.mark.parametrize("candidates", ["seen", "unseen"])
def test_only_candidates_are_predicted(score: Callable, candidates: str) -> None:
    result = score("--candidates", candidates)
    mine = np.array(result.unseen) == (candidates == "unseen")
    assert predicted(result)[~mine].sum() == 0 and predicted(result)[mine].sum() > 0
    assert result.protocol["candidates"] == candidates


def test_templates_are_the_option_s_else_the_data_set_s(score: Callable, renamed: str) -> None:
    usual, other, chosen = score(), score(data=renamed), score("--templates", "imagenet-select")
    assert usual.protocol["templates"] == load_spec("toy").preset.templates
    assert other.protocol["templates"] == ["{}"]
    assert chosen.protocol["templates"] == list(IMAGENET_SELECT)
    assert score("--templates", "{} here", data=renamed).protocol["templates"] == ["{} here"]
    prints = {r.fingerprints["vocabulary"] for r in (usual, other, chosen)}
    assert len(prints) == 3 and chosen.matrix.tolist() != usual.matrix.tolist()


def test_names_of_a_variant_are_the_ones_that_are_scored(score: Callable, renamed: str) -> None:
    usual, variant = score(data=renamed), score("--names", "upside-down", data=renamed)
    assert usual.protocol["names"] is None and variant.protocol["names"] == "upside-down"
    assert usual.fingerprints["vocabulary"] != variant.fingerprints["vocabulary"]
    assert usual.matrix.tolist() != variant.matrix.tolist()
    toy = usual.class_names.index("red striped toy")
    assert variant.matrix[:, toy].sum() < usual.matrix[:, toy].sum(), "grass shares its pixels under that name"


def test_settings_are_set_s_else_the_preset_s_else_the_method_s(score: Callable, renamed: str, tmp_path: Path) -> None:
    toy = score().protocol["method"]
    assert (toy["resize"], toy["side"]) == (load_spec("toy").preset.resize, load_spec("toy").preset.side)
    other = score(data=renamed).protocol["method"]
    assert (other["resize"], other["side"], other["variant"]) == ("square", 64, "original")
    (tmp_path / "settings.toml").write_text("side = 80\nresize = 'none'\n")
    by_file = score("--config", "settings.toml", data=renamed).protocol["method"]
    assert (by_file["resize"], by_file["side"], by_file["variant"]) == ("none", 80, "original")
    both = score("--config", "settings.toml", "--set", "side=72", data=renamed).protocol["method"]
    assert (both["resize"], both["side"]) == ("none", 72)


def test_run_keeps_its_own_settings_when_it_is_scored_again(score: Callable, renamed: str) -> None:
    first = score("--set", "side=72", "--set", "variant=original")
    again = score(model=first.run)
    assert again.protocol["method"] == first.protocol["method"] and again.run == first.run
    assert again.matrix.tolist() == first.matrix.tolist()
    elsewhere = score(model=first.run, data=renamed).protocol
    assert elsewhere["method"] == first.protocol["method"], "another data set's preset is no setting of this run"
    assert score("--set", "side=80", model=first.run).protocol["method"]["side"] == 80


def test_every_protocol_of_a_run_has_a_file_of_its_own(cli: Callable, score: Callable) -> None:
    first, weights = score(), Path(ovseg_cli.__file__).parent / "assets" / "toy_clip.safetensors"
    protocols: list[list[str]] = [
        ["--candidates", "seen"], ["--seen-penalty", "3"], ["--templates", "photo"], ["--set", "side=80"],
        ["--data", "toy:novel"], ["--subset", "tune"], ["--limit", "5"], ["--set", "side=72"],
        ["--clip", str(weights)],
    ]  # fmt: skip
    for extra in protocols:
        answer = cli("eval", first.run, *QUICK, *extra)
        assert answer.code == 0, answer.err
    files = sorted((Path(first.run) / "results").iterdir())
    assert len(files) == 1 + len(protocols) and {f.suffix for f in files} == {".json"}, files
    results = [load_result(f) for f in files]
    assert len({(r.data, r.subset, r.fingerprints["protocol"]) for r in results}) == len(files)
    assert {r.subset for r in results} == {"val", "tune"} and {len(r.images) for r in results} == {5, 6}
    assert all("Only the first" in " ".join(r.notes) for r in results)


def test_data_sets_of_one_command_are_scored_with_presets_of_their_own(cli: Callable, renamed: str) -> None:
    answer = cli("eval", "maskclip", "--data", "toy", "--data", f"{renamed}:novel", *QUICK)
    assert answer.code == 0, answer.err
    first, second = (load_result(Path(r["file"])) for r in json.loads(answer.out)["results"])
    assert first.run == second.run and (first.data, second.data.rpartition(":")[2]) == ("toy:combo", "novel")
    assert first.protocol["method"]["side"] == 96 and second.protocol["method"]["side"] == 64
    assert first.unseen != second.unseen


def test_below_the_threshold_a_pixel_becomes_background(cli: Callable, score: Callable, with_background: str) -> None:
    place = ["--data-root", str(Path(with_background).parent / "data")]
    shares = []
    for threshold in ("0", "0.5", "1"):
        result = score("--background-threshold", threshold, *place, data=with_background)
        assert result.background == 0 and result.protocol["background_threshold"] == float(threshold)
        assert result.protocol["softmax_scale"] > 1, "the CLIP's temperature, or all probabilities are alike"
        shares.append(predicted(result)[0] / predicted(result).sum())
    assert shares[0] < shares[1] < shares[2] and shares[2] > 0.99
    plain = score(*place, data=with_background)
    assert plain.protocol["background_threshold"] is None
    assert predicted(plain)[0] / predicted(plain).sum() == pytest.approx(shares[0])
    refused = cli("eval", "maskclip", "--data", "toy", "--background-threshold", "0.5", *QUICK)
    assert refused.code == 2 and "no background class" in refused.err


def test_a_method_s_own_threshold_is_taken_said_and_overridden(
    cli: Callable, score: Callable, with_background: str
) -> None:
    place = ["--data-root", str(Path(with_background).parent / "data"), "--set", "background_threshold=0.5"]
    own = score(*place, model="sclip", data=with_background)
    assert own.protocol["background_threshold"] == 0.5 and own.protocol["softmax_scale"] == 40
    other = score(*place, "--background-threshold", "0", model="sclip", data=with_background)
    assert other.protocol["background_threshold"] == 0
    assert predicted(own)[0] > predicted(other)[0]
    answer = cli("eval", "sclip", "--data", with_background, *place, "--limit", "2", "--gpus", "0", "--force")
    assert "background below a probability of 0.5 (--background-threshold)" in answer.err
    assert "probability below 0.5 (--background-threshold)" in answer.out


@pytest.mark.parametrize("option", [["--split", "unseen"], ["--candidates", "seen"], ["--seen-penalty", "1"]])
def test_seen_and_unseen_need_a_class_split(cli: Callable, tmp_path: Path, option: list[str]) -> None:
    (tmp_path / "toy.toml").write_text(TOY.replace('default_split = "combo"\n', ""))
    refused = cli("eval", "maskclip", "--data", str(tmp_path / "toy.toml"), *QUICK, *option)
    assert refused.code == 2 and option[0] in refused.err and "no class split" in refused.err
    assert not (tmp_path / "runs").exists()


def test_scores_below_chance_stop_unless_forced(cli: Callable, score: Callable, tmp_path: Path) -> None:
    from itertools import cycle

    names = [c.name for c in load_spec("toy").classes]
    wrong = dict(zip(names, cycle(names[1:] + names[:1]), strict=False))
    entries = "\n".join(f'"{name}" = ["{other}"]' for name, other in wrong.items())
    spec = TOY + PLAIN.split("grass =")[0] + entries + "\n"
    (tmp_path / "toy.toml").write_text(spec)
    arguments = ["eval", "maskclip", "--data", str(tmp_path / "toy.toml"), "--names", "upside-down", "--gpus", "0"]
    stopped = cli(*arguments, "--limit", "24")
    assert stopped.code == 3 and "below chance" in stopped.err
    forced = cli(*arguments, "--limit", "24", "--force")
    assert forced.code == 0, forced.err
    made = [run for run in (tmp_path / "runs").iterdir() if (run / "finished").exists()]
    assert len(made) == 1, "only a run that was scored is finished"


def bounded(cli: Callable, metric: str, *extra: str) -> tuple[float, Callable[[float], int]]:
    """A score as `eval --json` prints it, and the exit code for a bound that lies so much higher."""
    arguments = ["eval", "maskclip", "--data", "toy", *QUICK, *extra]
    shown = json.loads(cli(*arguments).out)["results"][0]["percent"]
    value = shown["present" if "present" in extra else "union"][metric]
    return value, lambda step: cli(*arguments, "--fail-under", f"{metric}={value + step:.4f}").code


@pytest.mark.parametrize("metric", ["mIoU", "sIoU", "uIoU", "hIoU", "pAcc", "mAcc", "fwIoU"])
def test_bound_is_missed_just_above_the_score_and_held_just_below(cli: Callable, metric: str) -> None:
    value, code = bounded(cli, metric)
    assert 0 < value < 100
    assert code(-0.001) == 0 and code(0.001) == 5


@pytest.mark.parametrize("extra", [["--absent", "present"], ["--split", "unseen"], ["--split", "seen"]])
def test_bound_is_compared_with_the_score_that_is_shown(cli: Callable, extra: list[str]) -> None:
    usual, _ = bounded(cli, "mIoU")
    value, code = bounded(cli, "mIoU", *extra)
    assert value != pytest.approx(usual, abs=0.01), "the option changes the score, or this shows nothing"
    assert code(-0.001) == 0 and code(0.001) == 5


def test_every_data_set_must_hold_the_bound(cli: Callable) -> None:
    both = ["eval", "maskclip", "--data", "toy", "--data", "toy:novel", *QUICK]
    values = {r["data"]: r["percent"]["union"]["uIoU"] for r in json.loads(cli(*both).out)["results"]}
    low, high = sorted(values, key=lambda name: values[name])
    assert values[low] + 0.1 < values[high]
    bound = f"uIoU={(values[low] + values[high]) / 2:.2f}"
    for order in ("toy", "toy:novel"), ("toy:novel", "toy"):
        missed = cli("eval", "maskclip", "--data", order[0], "--data", order[1], *QUICK, "--fail-under", bound)
        assert missed.code == 5 and f"{low}: uIoU" in missed.err and f"{high}: uIoU" not in missed.err


@pytest.mark.parametrize("bound", ["mIoU", "mIoU=much", "mIoU=101", "mIoU=-1", "mIuO=3"])
def test_senseless_bound_is_refused_before_anything_is_scored(cli: Callable, tmp_path: Path, bound: str) -> None:
    refused = cli("eval", "maskclip", "--data", "toy", "--fail-under", bound, *QUICK)
    assert refused.code == 2 and "mIoU" in refused.err and not (tmp_path / "runs").exists()


def test_case_of_a_bounded_metric_does_not_matter(cli: Callable) -> None:
    assert cli("eval", "maskclip", "--data", "toy", "--fail-under", "MIOU=0", *QUICK).code == 0
    assert cli("eval", "latest", "--fail-under", "miou=99", *QUICK).code == 5


def test_bound_on_a_score_that_does_not_exist_is_an_error(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(TOY.replace('default_split = "combo"\n', ""))
    refused = cli("eval", "maskclip", "--data", str(tmp_path / "toy.toml"), "--fail-under", "uIoU=1", *QUICK)
    assert refused.code == 2 and "has no uIoU" in refused.err
