"""`ovseg report RUN… --figures trusty-map`, on the toy world and a TagCLIP of random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ovseg_cli.core.clip.model import load_clip
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.evaluation.names import vocabulary_of
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.methods.build import build_method, choose_model
from ovseg_cli.core.methods.tagclip import TagClip, TagClipConfig
from ovseg_cli.core.methods.texts import method_text, names_of, training_vocabulary
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.report import trusty
from ovseg_cli.core.report.figure_inputs import FigureRequest, pictures_of
from ovseg_cli.core.report.trusty_results import TrustyMaps
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runs import WEIGHTS, create_run, open_run
from ovseg_cli.core.runtime import folders

STEM = "trusty-map-toy-combo-val"
FIGURE = ("--figures", "trusty-map", "--gpus", "0")
SETTINGS = {"prompts": 2, "decoder_heads": 4, "window": 0, "stride": 0, "statistics": "clip", "decoder_layers": 2}


def make_run(place, name="runs/tag", training=None, **settings):
    """A finished run of TagCLIP with random weights."""
    torch.manual_seed(0)
    method = TagClip(load_clip("toy-clip"), TagClipConfig(side=96, resize="none", **SETTINGS, **settings))
    choice = find_data("toy:combo", None, folders())
    names = names_of(training_vocabulary(choice.spec.vocabulary(choice.split)))
    tables = {
        "clip": {"name": "toy-clip"},
        "method": method.config.model_dump(mode="json"),
        "vocabulary": {"training_names": list(names)},
        **({"training": training} if training else {}),
    }
    run = create_run(place / "runs", "segmentation", "tagclip", "toy:combo", tables, path=place / name)
    save_file({k: v.contiguous() for k, v in method.trained_state().items()}, run.path / WEIGHTS)
    run.finish()
    return run.path


@pytest.fixture
def run(cli, tmp_path):
    return make_run(tmp_path)


def test_figure_table_and_numbers_are_made_once(cli, run, tmp_path):
    first = cli("report", run, *FIGURE, "--limit", "3", "--format", "json")
    assert first.code == 0, first.err
    (table,) = json.loads(first.out)["tables"]
    assert [row["classes"] for row in table["rows"]] == ["seen", "unseen", "without a class"]
    assert f"wrote {run}/{STEM}.png" in first.err and (run / f"{STEM}.png").is_file()
    file = run / f"{STEM}.json"
    maps = TrustyMaps.load(file)
    assert len(maps.pictures) == 3 and maps.mean("seen").mean == pytest.approx(table["rows"][0]["mean"])
    written = file.stat().st_mtime_ns

    again = cli("report", run, *FIGURE, "--limit", "3", "--format", "json")
    assert again.out == first.out and "measured before" in again.err and file.stat().st_mtime_ns == written
    other = cli("report", run, *FIGURE, "--limit", "2", "--out", "elsewhere")
    assert other.code == 0 and {p.name for p in (tmp_path / "elsewhere").iterdir()} == {f"{STEM}.png", f"{STEM}.json"}
    file.write_text("{")
    broken = cli("report", run, *FIGURE, "--limit", "3", "--format", "json")
    assert broken.out == first.out and "measured anew" in broken.err


def test_numbers_are_the_means_of_the_method_s_own_maps(cli, run):
    assert cli("report", run, *FIGURE, "--limit", "1").code == 0
    (means,) = TrustyMaps.load(run / f"{STEM}.json").pictures
    pictures = pictures_of(FigureRequest((str(run),), limit=1), open_run(run), folders())
    choice = choose_model(str(run), run.parent)
    method = build_method(choice)
    vocabulary = vocabulary_of(pictures.choice, EvalRequest(), TagClip, choice.run)
    (unseen,) = method.trust_maps([pictures.data[0].image], method_text(method, vocabulary))
    label = pictures.data[0].label
    full = 1 - F.interpolate(unseen[None, None], label.shape, mode="bilinear")[0, 0]
    flags = torch.tensor([*vocabulary.unseen])
    known = label != pictures.data.ignore_label
    is_unseen = flags[torch.where(known, label, 0)] & known
    assert means.unseen.mean == pytest.approx(float(full[is_unseen].mean()), abs=1e-5)
    assert means.seen.mean == pytest.approx(float(full[known & ~is_unseen].mean()), abs=1e-5)
    assert (means.seen.pixels, means.unlabelled.pixels) == (int((known & ~is_unseen).sum()), int((~known).sum()))


def test_labels_are_those_of_the_model_with_and_without_fusion_even_where_the_run_uses_none(cli, tmp_path):
    run = make_run(tmp_path, fusion="none", gamma=0.0)
    pictures = pictures_of(FigureRequest((str(run),), limit=1), open_run(run), folders())
    model = trusty._build(str(run), pictures, torch.device("cpu"), folders(), Silent())
    scene = model.scene(pictures.data[0])
    for found, fusion in ((scene.plain, "none"), (scene.weighted, "both")):
        method = build_method(choose_model(str(run), run.parent, settings={"fusion": fusion}))
        (prediction,) = method.predict([pictures.data[0].image], model.text)
        assert (found == label_map(prediction).numpy()).all(), fusion
    assert (scene.plain != scene.weighted).any()
    assert np.ptp(scene.trusty) > 0 and scene.trusty.shape == scene.label.shape


def test_several_runs_have_a_figure_each(cli, run, tmp_path):
    second = make_run(tmp_path, "runs/other", gamma=0.0)
    answer = cli("report", run, second, *FIGURE, "--limit", "1", "--out", "both", "--format", "json")
    assert answer.code == 0, answer.err
    assert {p.name for p in (tmp_path / "both").glob("*.png")} == {f"{STEM}-tag.png", f"{STEM}-other.png"}
    models = [row["model"] for row in json.loads(answer.out)["tables"][0]["rows"]]
    assert models[0] != models[3] and len(models) == 6


def test_what_a_training_read_is_said_in_table_file_and_figure(cli, run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(trusty, "draw_trusty_maps", lambda *args: drawn.append(args[-1]))
    official = make_run(tmp_path, "runs/official", {"setting": "inductive", "trust_target": "official-unseen"})
    answer = cli("report", run, official, *FIGURE, "--limit", "1", "--format", "json")
    assert answer.code == 0, answer.err
    (table,) = json.loads(answer.out)["tables"]
    assert [bool(row["notes"]) for row in table["rows"]] == 3 * [False] + 3 * [True]
    assert "† " in table["notes"][-1] and "training read where unseen classes are" in table["notes"][-1]
    assert [any("unseen classes are" in line for line in below) for below in drawn] == [False, True]
    assert TrustyMaps.load(official / f"{STEM}.json").notes and not TrustyMaps.load(run / f"{STEM}.json").notes


def test_runs_without_a_map_are_refused_before_anything_is_loaded(cli, run, world, tmp_path):
    other = shutil.copytree(min((world / "runs").glob("maskclip-*")), tmp_path / "runs" / "mask")
    bare = make_run(tmp_path, "runs/bare", token=False, fusion="none")
    for path, said in ((other, "a run of maskclip has no trusty map"), (bare, "without its token")):
        answer = cli("report", run, path, *FIGURE)
        assert answer.code == 2 and said in " ".join(answer.err.split()) and str(path) in answer.err
    assert "Name a run of tagclip." in cli("report", other, *FIGURE).err
    assert not list(tmp_path.glob("**/*trusty-map*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*FIGURE, "--proposals", "superpixels"), "--proposals belongs to --figures mask-sensitivity"),
        ((*FIGURE, "--seeds"), "--seeds belongs to the tables"),
        ((*FIGURE, "--subset", "vall"), "vall"),
        ((*FIGURE, "--data", "toi"), "toi"),
    ],
)
def test_options_that_do_not_fit_are_said(cli, run, arguments, said):
    answer = cli("report", run, *arguments)
    assert answer.code == 2 and said in " ".join(answer.err.split())
