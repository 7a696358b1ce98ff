"""`ovseg show vocabulary CLASSES`: lists of one's own, data sets, runs; with and without a model."""

import json
import shutil
import subprocess
import sys

import pytest

from ovseg_cli.core.data.specs import spec_names


def findings(answer):
    document = json.loads(answer.out)
    assert document["schema"] == 1
    return {(f["kind"], *f["classes"]) for f in document["findings"]}, document


@pytest.fixture
def run(world, tmp_path):
    """A copy of the scored run."""
    found = min((world / "runs").glob("maskclip-*"))
    return shutil.copytree(found, tmp_path / "runs" / found.name)


def test_own_list_that_predict_refuses_ends_with_2_and_lists_all(cli):
    answer = cli("show", "vocabulary", "cup, cups,, couch/sofa, Sofa, thing, cat", "--json")
    found, document = findings(answer)
    assert answer.code == 2 and document["counts"]["error"] == 2
    assert {("twice", "Sofa"), ("empty", "class 3"), ("plural", "cup", "cups"), ("catch-all", "thing")} == found
    (twice,) = (f for f in document["findings"] if f["kind"] == "twice")
    assert twice["ids"] == [2, 3] and twice["mend"] and document["classes"][2:4] == ["couch", "Sofa"]
    assert "--clip ViT-B-16" in document["facts"]["features"]


def test_clean_list_has_nothing_to_remark(cli):
    answer = cli("show", "vocabulary", "cat, grass, background")
    assert answer.code == 0 and "nothing to remark" in answer.out and "'background' stands for the rest" in answer.out


def test_file_of_names_against_training_names(cli, tmp_path):
    (tmp_path / "names.txt").write_text("cat/kitten  # a comment\nsofa\nlava\n", encoding="utf-8")
    answer = cli("show", "vocabulary", "names.txt", "--against", "cats, couch", "--json")
    found, document = findings(answer)
    assert answer.code == 0 and found == {("seen-twin", "cat"), ("seen-twin", "sofa")}
    assert [f["other"] for f in document["findings"]] == ["cats", "couch"]


def test_toy_clip_reads_the_toy_list_without_being_asked(cli):
    found, document = findings(cli("show", "vocabulary", "toy", "--json"))
    assert document["facts"]["features"].startswith("of toy-clip")
    assert "seen classes of toy:combo" in document["facts"]["training"]
    assert not any(kind in ("same", "plural", "alike", "unknown") for kind, *_ in found)


def test_model_finds_unknown_words_and_twins_that_no_spelling_shows(cli):
    names = "red plain toy, plain red toy, toy red plain with a, grass, sand, snow, water, zebra"
    loose = cli("show", "vocabulary", names, "--clip", "toy-clip", "--alike", "0.6", "--json")
    found, document = findings(loose)
    assert ("unknown", "zebra") in found and ("order", "red plain toy", "plain red toy") in found
    assert any(kind == "alike" for kind, *_ in found) and "as asked" in document["facts"]["alike"]
    (pair,) = (f for f in document["findings"] if f["kind"] == "order")
    assert 0 < pair["number"] <= 1 and "cosine" in pair["evidence"]
    strict, _ = findings(cli("show", "vocabulary", names, "--clip", "toy-clip", "--alike", "1.0", "--json"))
    assert not any(kind == "alike" for kind, *_ in strict)


def test_run_gives_the_truly_novel_miou(cli, run):
    answer = cli("show", "vocabulary", run, "--json")
    (row,) = json.loads(answer.out)["novelty"]["rows"]
    scores = cli("report", run, "--format", "json")
    (reported,) = json.loads(scores.out)["tables"][0]["rows"]
    assert row["mIoU"] == pytest.approx(reported["mIoU"]) and row["mIoU_low"] == pytest.approx(reported["mIoU_low"])
    assert row["mIoU_novel"] == pytest.approx(reported["uIoU"]), "no unseen class of the toy is a seen one"
    taught = cli("show", "vocabulary", run, "--against", "grasses, water", "--json")
    (other,) = json.loads(taught.out)["novelty"]["rows"]
    assert other["known"] == 2 and other["mIoU_novel"] != row["mIoU_novel"]
    printed = cli("show", "vocabulary", run)
    assert "Truly novel classes" in printed.out and f"{row['mIoU_novel']:.1f}" in printed.out


def test_run_whose_weights_are_elsewhere_still_says_what_names_say(cli, run):
    config = run / "config.toml"
    config.write_text(config.read_text().replace('name = "toy-clip"', 'name = "./gone.safetensors"'))
    answer = cli("show", "vocabulary", run)
    assert answer.code == 0 and "features are not compared" in answer.err and "Truly novel classes" in answer.out
    assert cli("show", "vocabulary", run, "--clip", "./gone.safetensors").code == 4


def test_names_are_looked_over_without_torch(tmp_path):
    code = (
        "import sys\nfrom ovseg_cli.app import app\nsys.argv = ['ovseg', 'show', 'vocabulary', 'cup, cups']\n"
        "try:\n    app(prog_name='ovseg')\nfinally:\n    print('TORCH', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert "plural" in done.stdout and "TORCH False" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("data", spec_names())
def test_every_data_set(cli, data):
    answer = cli("show", "vocabulary", data, "--json")
    if data == "sa-1b":
        assert answer.code == 2 and "no classes" in answer.err
        return
    found, document = findings(answer)
    assert answer.code == 0 and document["counts"]["error"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("vocabulary",), "which classes?"),
        (("vocabulary", "coc-stuff"), "Did you mean 'coco-stuff'?"),
        (("vocabulary", "runs/none"), "a run folder"),
        (("vocabulary", "none.txt"), "there is no such file"),
        (("vocabulary", " , "), "CLASSES: there is no class in it"),
        (("vocabulary", "a1, b2", "--names", "sclip"), "none of a data set"),
        (("vocabulary", "toy", "--alike", "2"), "between 0 and 1"),
        (("vocabulary", "toy", "--model", "maskclop"), "Did you mean 'maskclip'?"),
        (("toy", "--against", "toy"), "--against belongs to"),
        (("toy", "coco-stuff"), "show takes one name"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(cli, arguments, said):
    answer = cli("show", *arguments)
    assert answer.code == 2 and said in answer.err and "Traceback" not in answer.err
