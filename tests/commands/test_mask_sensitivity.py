"""`ovseg report RUN… --figures mask-sensitivity`, on the toy world."""

import json
import shutil

import numpy as np
import pytest

from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity
from ovseg_cli.core.methods.build import ModelChoice
from ovseg_cli.core.report import sensitivity
from ovseg_cli.core.report.sensitivity import draw_mask_sensitivity
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import folders

STEM = "mask-sensitivity-toy-combo-val"
FIGURES = ("--figures", "mask-sensitivity", "--gpus", "0")


@pytest.fixture
def run(world, tmp_path):
    """A copy of the scored run."""
    found = min((world / "runs").glob("maskclip-*"))
    return shutil.copytree(found, tmp_path / "runs" / found.name)


def test_pictures_table_and_measurement_are_made_once(cli, run):
    first = cli("report", run, *FIGURES, "--limit", "2", "--format", "json")
    assert first.code == 0, first.err
    (table,) = json.loads(first.out)["tables"]
    assert [(row["model"], row["classes"]) for row in table["rows"]] == [("MaskCLIP", "seen"), ("MaskCLIP", "unseen")]
    assert {p.name for p in run.glob("*.png")} == {f"{STEM}.png", f"{STEM}-scene.png"}
    file = run / "results" / f"{STEM}.json"
    measured = MaskSensitivity.load(file)
    assert len({region.picture for region in measured.regions}) == 2
    assert measured.summary("seen").correlation == table["rows"][0]["correlation"]
    written = file.stat().st_mtime_ns

    again = cli("report", run, *FIGURES, "--limit", "2", "--format", "json", "--out", "elsewhere")
    assert again.out == first.out and "measured before" in again.err and file.stat().st_mtime_ns == written
    assert f"wrote elsewhere/{STEM}.png" in again.err

    other = cli("report", run, *FIGURES, "--limit", "3")
    assert other.code == 0 and "measured before" not in other.err
    assert len({region.picture for region in MaskSensitivity.load(file).regions}) == 3

    file.write_text("{")
    broken = cli("report", run, *FIGURES, "--limit", "2", "--format", "json")
    assert broken.out == first.out and "measured anew" in broken.err

    scores = cli("report", run)  # a measurement is no result
    assert scores.code == 0 and "24 images" in scores.out


def test_cache_of_proposals_takes_the_place_of_changed_masks(cli, run, tmp_path, world, monkeypatch):
    others_caches = shutil.ignore_patterns("proposals")  # other tests leave some in the world that all share
    shutil.copytree(world / "datasets", tmp_path / "datasets", symlinks=True, ignore=others_caches)
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "datasets"))
    asked = ("report", run, *FIGURES, "--proposals", "superpixels", "--limit", "2", "--format", "json")
    live = cli(*asked)
    assert live.code == 0 and "ovseg propose superpixels" in " ".join(live.err.split()), live.err
    measured = MaskSensitivity.load(run / "results" / f"{STEM}-superpixels.json")
    assert {kind for region in measured.regions for kind in region.kinds} == {"proposal"}
    regions, proposals, pictures = json.loads(live.out)["tables"]
    assert [row["distance"] for row in pictures["rows"]] == [one.distance for one in measured.pictures]
    assert proposals["rows"][0]["distance"] == pytest.approx(np.mean([row["distance"] for row in pictures["rows"]]))
    assert len(regions["rows"]) == 2 and len(list(run.glob(f"{STEM}-superpixels*.png"))) == 3
    made = cli("propose", "superpixels", "--data", "toy", "--subset", "val", "--limit", "2", "--workers", "1")
    assert made.code == 0, made.err
    assert cli(*asked).out == live.out, "masks of the cache are those that were made on the way"
    short = cli(*asked[:-2])
    assert short.code == 0 and "Proposals of a picture" in short.out and "picture by picture" not in short.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("RUN", "--limit", "3"), "--limit belongs to --figures"),
        (("RUN", "--data", "toy"), "--data belongs to --figures"),
        (("RUN", *FIGURES, "--seeds"), "--seeds belongs to the tables"),
        (("RUN", *FIGURES, "--split", "seen"), "--split belongs to the tables"),
        (("RUN", *FIGURES, "--subset", "vall"), "vall"),
        (("RUN", *FIGURES, "--data", "toi"), "toi"),
        (("runs/none", *FIGURES), "runs/none"),
        (("FILE", *FIGURES), "takes run folders"),
        (("RUN", "--figures", "pie"), "pie"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_measured(cli, run, arguments, said):
    (file,) = (run / "results").glob("*.json")
    answer = cli("report", *({"RUN": str(run), "FILE": str(file)}.get(a, a) for a in arguments))
    assert answer.code == 2 and said in " ".join(answer.err.split())
    assert not list(run.glob("**/*mask-sensitivity*"))


def test_masks_that_hold_from_the_first_layer_on_matter_more_than_late_ones(cli, tmp_path, monkeypatch):
    shared = {"resize": "none", "side": 0, "clip_side": 0, "temperature": 0.0, "keep_best": True}
    early, late = ({**shared, "start_layer": layer, "proposals": "no/such/cache"} for layer in (0, 5))
    models = [(name, ModelChoice("ipclip", "toy-clip", None, s)) for name, s in (("early", early), ("late", late))]
    places = folders()
    out = tmp_path / "pictures" / "a.png"
    assert draw_mask_sensitivity(models, "toy:combo", places, out, Silent(), limit=3, gpus=0) == out
    assert {p.name for p in out.parent.glob("*.png")} == {"a.png", "a-scene.png"}
    measured = sorted((MaskSensitivity.load(p) for p in out.parent.glob("*.json")), key=lambda m: m.summary().distance)
    assert len(measured) == 2 and {r.picture for r in measured[0].regions} == {r.picture for r in measured[1].regions}
    assert measured[1].summary().correlation > measured[0].summary().correlation + 0.1

    monkeypatch.setattr(sensitivity, "measure", None)  # what was measured is read
    draw_mask_sensitivity(models, "toy:combo", places, out, Silent(), limit=3, gpus=0)
    with pytest.raises(TypeError):  # of other pictures it is not
        draw_mask_sensitivity(models, "toy:combo", places, out, Silent(), limit=2, gpus=0)
