"""A converted run in the other commands: eval, predict, propose and show take it like any other."""

import json

import pytest
import torch

from ovseg_cli.core.data.specs import load_spec
from tests.commands.conftest import run_command
from tests.core.conversion.layouts import SETTINGS, official, random_host

ALL = load_spec("toy").num_classes
EVAL = ["--limit", "2", "--gpus", "0", "--force"]


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A folder beside the prepared toy world, with runs of a checkpoint that was trained on all of its classes."""
    folder = tmp_path_factory.mktemp("place")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setenv("OVSEG_CACHE", str(folder / "cache"))
    patch.setenv("OVSEG_DATA", str(world / "datasets"))
    patch.delenv("OVSEG_RUNS", raising=False)
    state = official(random_host("zsseg", words=True))
    state["criterion.empty_weight"] = torch.ones(ALL + 1)
    torch.save(state, "zsseg.pth")
    ask("convert", "zsseg.pth", "-m", "zsseg", *SETTINGS, "--data", "toy:none", "--out", "runs/all")
    ask("convert", "zsseg.pth", "-m", "zsseg", *SETTINGS, "--out", "runs/unsaid")
    yield folder
    patch.undo()


def ask(*arguments):
    answer = run_command(*arguments)
    assert answer.code == 0, answer.err
    return answer


def said(text):
    return " ".join(text.replace("│", " ").split())


def test_eval_scores_it_and_says_that_unseen_classes_were_trained_on(place):
    split = load_spec("toy").default_split
    answer = ask("eval", "runs/all", "--data", f"toy:{split}", *EVAL)
    unseen = next(s for s in load_spec("toy").class_splits if s.id == split).unseen
    words = f"Not zero-shot: {len(unseen)} of the {len(unseen)} classes that this split calls unseen were trained on"
    assert words in said(answer.err) and words in said(answer.out)


def test_eval_without_data_takes_what_it_was_trained_on(place):
    answer = ask("eval", "runs/all", *EVAL, "--json")
    result = json.loads(answer.out)["results"][0]
    assert result["data"] == "toy:none"
    assert "Not zero-shot" not in answer.err + answer.out


def test_eval_asks_for_data_where_the_run_does_not_say(place):
    answer = run_command("eval", "runs/unsaid", *EVAL)
    assert answer.code == 2 and "--data" in answer.err and "does not say what it was trained on" in said(answer.err)
    answer = ask("eval", "runs/unsaid", "--data", "toy", *EVAL)
    assert "Nobody knows which classes this model was trained on" in said(answer.err)


def test_predict_and_propose_take_it(place, picture):
    ask("predict", "runs/unsaid", picture, "--classes", "cat, grass", "--out", "predictions", "--gpus", "0")
    assert list((place / "predictions").glob("*.png"))
    ask("propose", "runs/all", "--data", "toy", "--subset", "val", "--limit", "2", "--gpus", "0")


def test_show_and_list_know_it(place):
    answer = ask("show", "runs/all", "--json")
    document = json.loads(answer.out)
    facts = {fact["label"]: fact["text"] for fact in document["facts"]}
    assert facts["data"] == "toy:none" and facts["trained on"] != "not said" and facts["finished"] == "yes"
    rows = {(row["table"], row["setting"]): row["value"] for row in document["tables"][0]["rows"]}
    assert rows["method", "logit_scale"] == "100.0" and rows["conversion", "layout"] == "zsseg"
    assert "zsseg" in ask("list", "runs").out


def test_training_classes_are_recorded(place):
    import tomllib

    config = tomllib.loads((place / "runs" / "all" / "config.toml").read_text())
    assert set(load_spec("toy").class_names) <= set(config["vocabulary"]["training_names"])
    assert config["conversion"]["training_classes"] == ALL
    assert "training_names" not in tomllib.loads((place / "runs" / "unsaid" / "config.toml").read_text())["vocabulary"]
