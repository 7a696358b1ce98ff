"""ZegFormer's and ZSSeg's layouts: what is written by hand from random weights comes back with the same scores."""

import json

import pytest
import torch
from torch.nn import functional as F

from ovseg_cli import load
from tests.core.conversion.layouts import CLASSES, SETTINGS, official, random_host

HOSTS = ("zegformer", "zsseg")


def ask(seed: int = 3):
    generator = torch.Generator().manual_seed(seed)
    pictures = [
        torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=generator) for h, w in ((40, 64), (64, 33))
    ]
    text = F.normalize(torch.randn(CLASSES, 24, generator=generator), dim=-1)
    return pictures, text, (20, 24), torch.tensor([True, False, True, True, False])


@pytest.fixture(params=HOSTS)
def host(request):
    return random_host(request.param)


@pytest.mark.parametrize("wrapped", [False, True])
def test_scores_come_back(host, tmp_path, cli, wrapped):
    state = official(host)
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}} if wrapped else state, "host.pth")
    answer = cli("convert", "host.pth", "--method", host.name, *SETTINGS, "--out", "run")
    assert answer.code == 0, answer.err
    model = load(tmp_path / "run", device="cpu")
    pictures, text, size, seen = ask()
    for flag in (seen, None):
        expected = host.predict_scores(pictures, text, size, flag)
        torch.testing.assert_close(model.predict_scores(pictures, text, size, flag), expected, atol=1e-6, rtol=1e-5)
    assert expected.std() > 1e-4


def test_every_entry_is_accounted_for(host, cli):
    state = official(host)
    torch.save(state, "host.pth")
    answer = cli("convert", "host.pth", "--method", host.name, *SETTINGS, "--dry-run", "--json")
    document = json.loads(answer.out)
    assert sum(row["tensors"] for row in document["keys"]) == len(state)
    ignored = {row["prefix"] for row in document["keys"] if row["action"] == "ignored"}
    regions = "_region_clip_adapter."
    of_regions = {f"{regions}{n}" for n in ("clip_model.", "non_object_embedding", "pixel_mean", "pixel_std")}
    assert ignored == {"criterion."} | (of_regions if host.name == "zsseg" else set())
    assert document["training_classes"] == CLASSES


def test_table_of_the_terminal_says_what_became_of_the_entries(host, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    torch.save(official(host), "host.pth")
    answer = cli("convert", "host.pth", "--method", host.name, *SETTINGS, "--dry-run")
    for words in ("criterion.", "weights of the training loss", "none left over", "Nothing was written", "backbone."):
        assert words in answer.out, answer.out


def test_zegformer_without_clip_takes_the_clip_that_is_named(cli, tmp_path):
    """Its training configurations leave CLIP out of the model; the run then names one."""
    host = random_host("zegformer")
    state = official(host)
    mark = "sem_seg_head.predictor.clip_model."
    torch.save({k: v for k, v in state.items() if not k.startswith(mark)}, "host.pth")
    torch.save(state, "whole.pth")
    assert cli("convert", "whole.pth", "-m", "zegformer", *SETTINGS, "--out", "whole").code == 0
    named = ["--clip", "whole/clip.safetensors"]
    answer = cli("convert", "host.pth", "-m", "zegformer", *SETTINGS, *named, "--out", "run")
    assert answer.code == 0, answer.err
    assert not (tmp_path / "run" / "clip.safetensors").exists()
    pictures, text, size, seen = ask()
    expected = host.predict_scores(pictures, text, size, seen)
    scores = load(tmp_path / "run", device="cpu").predict_scores(pictures, text, size, seen)
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-5)


def test_zegformer_of_word_vectors_is_refused(cli):
    host = random_host("zegformer")
    state = official(host)
    for key in ("weight", "bias"):
        name = f"sem_seg_head.predictor.projection_layer.{key}"
        state[name] = torch.cat([state[name], state[name]])
    torch.save(state, "host.pth")
    answer = cli("convert", "host.pth", "-m", "zegformer", *SETTINGS, "--out", "run")
    assert answer.code == 2 and "48 wide" in answer.err and "word-vector" in answer.err


def test_scale_of_the_cosines_is_read_from_zegformers_file(cli):
    state = official(random_host("zegformer"))
    state["sem_seg_head.predictor.logit_scale"] = torch.tensor([20.0]).log()
    torch.save(state, "host.pth")
    answer = cli("convert", "host.pth", "-m", "zegformer", *SETTINGS, "--dry-run", "--json")
    rows = {row["setting"]: row for row in json.loads(answer.out)["settings"]}
    assert rows["host_scale"]["value"] == pytest.approx(20.0) and rows["host_scale"]["source"] == "the checkpoint"
    answer = cli("convert", "host.pth", "-m", "zegformer", *SETTINGS, "--set", "host_scale=100", "--dry-run")
    assert answer.code == 2 and "host_scale = 100 contradicts" in answer.err


def test_two_clips_in_one_model_are_refused(cli):
    state = official(random_host("zsseg"))
    name = "_region_clip_adapter.clip_model.visual.proj"
    state[name] = state[name] + 1
    torch.save(state, "host.pth")
    answer = cli("convert", "host.pth", "-m", "zsseg", *SETTINGS, "--out", "run")
    assert answer.code == 2 and name in answer.err


def test_learned_prompts_need_sentences_to_stand_for_them(cli):
    state = official(random_host("zsseg"))
    state["clip_adapter.prompt_learner.prefix_prompt"] = torch.zeros(16, 64)
    torch.save(state, "host.pth")
    answer = cli("convert", "host.pth", "-m", "zsseg", *SETTINGS, "--out", "run")
    assert answer.code == 2 and "learned prompt" in answer.err and "templates=vild" in answer.err
    answer = cli("convert", "host.pth", "-m", "zsseg", *SETTINGS, "--set", "templates=vild", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    rows = {row["prefix"]: row for row in json.loads(answer.out)["keys"]}
    assert rows["clip_adapter.prompt_learner."]["action"] == "ignored"
