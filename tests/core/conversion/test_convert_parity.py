"""`ovseg convert` on the recorded checkpoint (parity/maft, section 5): the run gives the official scores."""

import json
import re

import pytest
import torch

from ovseg_cli import load
from ovseg_cli.core.methods.build import build_method, choose_model

ROUND_OFF = 1e-4  # relative; the fixture's README: a mask's pixel at one half may flip an attention key
HOST_SCORES = re.compile(r"host_sem_seg_(\d+)_(?:w(\d\d)_(zs|ov)|noensemble)")


def assert_near(actual, expected):
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    assert error <= ROUND_OFF * float(expected.abs().max()), f"off by {error:.2e}"
    assert actual.argmax(0).equal(expected.argmax(0))


@pytest.fixture(scope="module")
def run(recorded, tmp_path_factory):
    """The converted checkpoint, wrapped and with DDP's prefix, as detectron2 writes it."""
    from tests.commands.conftest import run_command

    folder = tmp_path_factory.mktemp("convert")
    file, config = recorded.save(folder, wrapped=True), recorded.save_settings(folder)
    answer = run_command("convert", file, "--method", "maft", "--config", config, "--out", folder / "run")
    assert answer.code == 0, answer.err
    return folder / "run"


def check_maft(recorded, run):
    model = load(run, device="cpu")
    for i, size in enumerate(recorded.config["output_sizes"]):
        scores = model.predict_scores(recorded.pictures, text_features=recorded.text, output_size=tuple(size))
        assert_near(scores[i], recorded.io[f"maft_sem_seg_{i}"])


def check_host(recorded, run):
    names = [name for name in recorded.io if name.startswith("host_sem_seg_")]
    assert names
    for name in names:
        picture, weight, flag = HOST_SCORES.fullmatch(name).groups()
        settings = {"ensemble": False} if weight is None else {"ensemble_weight": int(weight) / 10}
        size = tuple(recorded.config["output_sizes"][int(picture)])
        scores = load(run, device="cpu", **settings).predict_scores(
            [recorded.pictures[int(picture)]], recorded.text, size, seen=recorded.seen if flag == "zs" else None
        )
        assert_near(scores[0], recorded.io[name])


def test_maft_reproduces_the_recorded_scores(recorded, run):
    check_maft(recorded, run)


def test_host_reproduces_the_recorded_scores(recorded, run):
    check_host(recorded, run / "host")


def test_a_bare_file_of_half_precision_and_safetensors_give_the_same_run(recorded, run, tmp_path, cli):
    from safetensors.torch import save_file

    bare = recorded.save(tmp_path, name="bare.pth")
    save_file(recorded.state, tmp_path / "bare.safetensors")
    config = recorded.save_settings(tmp_path)
    digests = {load(run, device="cpu").method.digest}
    for file in (bare, tmp_path / "bare.safetensors"):
        out = tmp_path / f"run{file.suffix}"
        answer = cli("convert", file, "-m", "maft", "--config", config, "--out", out)
        assert answer.code == 0, answer.err
        digests.add(load(out, device="cpu").method.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("alone", [True, False])
def test_step_one_is_a_run_of_freeseg_also_out_of_a_checkpoint_of_maft(recorded, tmp_path, cli, alone):
    file = recorded.save(tmp_path, state=recorded.step_one() if alone else recorded.state)
    config = recorded.save_settings(tmp_path)
    answer = cli("convert", file, "--method", "freeseg", "--config", config, "--out", "run")
    assert answer.code == 0, answer.err
    check_host(recorded, tmp_path / "run")


def test_run_is_found_from_its_own_folder(run, monkeypatch):
    expected = load(run, device="cpu").method.digest
    for folder, name in ((run.parent, "./run"), (run, "./host")):
        monkeypatch.chdir(folder)
        model = load(name, device="cpu")
        assert name == "./host" or model.method.digest == expected
    assert model.method.name == "freeseg"


@pytest.mark.parametrize("setting", ["interaction_heads=2", "host.generator.widht=3", "host=zsseg", "iterations=3"])
def test_settings_that_do_not_fit_maft(recorded, tmp_path, cli, setting):
    answer = cli("convert", recorded.save(tmp_path), "-m", "maft", "--set", setting, "--out", "run")
    words = {
        "inter": "Write generator.inter",
        "host.": "'width'",
        "host=": "stand on freeseg",
        "itera": "unknown setting",
    }
    assert answer.code == 2 and words[setting[:5]] in " ".join(answer.err.split()), answer.err


def test_run_is_finished_and_its_host_shares_its_clip(run):
    choice = choose_model(str(run), run.parent)
    assert choice.run.is_finished and (run / "host" / "finished").is_file()
    assert not (run / "host" / "clip.safetensors").exists()
    method = build_method(choice)
    assert method.source.clip is method.clip


def test_every_entry_is_accounted_for(recorded, tmp_path, cli):
    file, config = recorded.save(tmp_path), recorded.save_settings(tmp_path)
    answer = cli("convert", file, "--method", "maft", "--config", config, "--dry-run", "--json")
    document = json.loads(answer.out)
    assert sum(row["tensors"] for row in document["keys"]) == document["tensors"] == len(recorded.state)
    ignored = {row["prefix"] for row in document["keys"] if row["action"] == "ignored"}
    assert ignored == {"T.", "criterion."}
    assert document["run"] is None and not (tmp_path / "runs").exists()
    assert document["training_classes"] == len(recorded.config["classes"])
    sources = {row["setting"]: row["source"] for row in document["settings"]}
    assert sources["start_layer"] == "--config / --set" and sources["temperature"].startswith("default; code")
    assert sources["host.generator"].startswith("shapes")


def test_teacher_is_the_frozen_clip_and_the_tuned_tower_another(recorded, run):
    method = load(run, device="cpu").method
    teacher = recorded.state["clip_adapter.clip_model.visual.ln_post.weight"].float()
    tuned = recorded.state["IPCLIP.ln_post.weight"].float()
    assert method.clip.visual.ln_post.weight.equal(teacher)
    assert method.ip_clip.ln_post.weight.equal(tuned) and not tuned.equal(teacher)


def test_words_are_refused_where_the_text_tower_has_no_tokenizer(recorded, run):
    if recorded.config["clip"]["vocab_size"] == 49408:
        pytest.skip("this model has CLIP's own tokenizer")
    from ovseg_cli.core.errors import UsageError

    picture = recorded.pictures[0].permute(1, 2, 0).numpy()
    with pytest.raises(UsageError, match=f"{recorded.config['clip']['vocab_size']} ids"):
        load(run, device="cpu").predict(picture, ["cat", "dog"])


def test_other_interaction_heads_give_other_scores(recorded, tmp_path, cli):
    """The settings reach the network: nothing is read from the file that no shape tells."""
    heads = recorded.config["dims"]["MODEL.SEM_SEG_HEAD.NUM_HEADS"]
    file = recorded.save(tmp_path)
    config = recorded.save_settings(tmp_path, generator={"interaction_heads": heads // 2 or 2})
    assert cli("convert", file, "-m", "maft", "--config", config, "--out", "run").code == 0
    size = tuple(recorded.config["output_sizes"][0])
    scores = load(tmp_path / "run", device="cpu").predict_scores(recorded.pictures, recorded.text, size)
    expected = recorded.io["maft_sem_seg_0"]
    assert float((scores[0] - expected).abs().max()) > ROUND_OFF * float(expected.abs().max())
    assert torch.isfinite(scores).all()
