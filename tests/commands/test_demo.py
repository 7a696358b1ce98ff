"""The demo: runs whole, computes what it prints, and does again only what is missing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.demo import pictures, plan, run, training
from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runs import open_run
from tests.commands.processes import forking

SHORT = {"iterations": 1, "batch_size": 2, "workers": 0}
SHORT_MAFT = {"host": SHORT, "proposals": "live", **SHORT}
"""Masks of the pictures of one step alone: a cache would hold those of all."""


@pytest.fixture(scope="module")
def outcome(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The folder of a demo that found the toy world prepared, and its document."""
    from tests.commands.conftest import run_command

    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("demo"))
    shutil.copytree(world / "datasets", "ovseg-demo/datasets")
    patch.setenv("OVSEG_CACHE", "cache")
    patch.setattr(plan, "QUICK_IMAGES", 12)
    patch.setattr(plan, "QUICK_MAFT", SHORT_MAFT)
    patch.setattr(plan, "QUICK_ITERATIONS", SHORT)
    patch.setattr(training, "subprocess", forking)
    answer = run_command("demo", "--quick", "--gpus", "0", "--json")
    assert answer.code == 0, answer.err
    place = Path.cwd()
    patch.undo()
    return place, json.loads(answer.out)


def test_every_row_is_a_stored_result(outcome: tuple[Path, dict]) -> None:
    place, document = outcome
    rows = document["tables"][0]["rows"]
    assert len(rows) == len(plan.rows_of(plan.DemoRequest(place, quick=True)))
    for row in rows:
        results = [load_result(f) for f in open_run(place / row["run"]).result_files()]
        assert len(results) == 1
        scores = results[0].metrics("union")
        for name in ("mIoU", "sIoU", "uIoU", "hIoU", "pAcc"):
            assert row[name] == pytest.approx(100 * scores[name])
        assert row["mIoU_low"] <= row["mIoU"] <= row["mIoU_high"]


def test_pictures_are_drawn(outcome: tuple[Path, dict]) -> None:
    place, document = outcome
    assert len(document["pictures"]) == 2 + pictures.PICTURES
    for path in document["pictures"]:
        assert np.asarray(Image.open(place / path)).std() > 10, f"{path} is blank"


def test_it_ends_with_a_page_of_its_tables_and_pictures(outcome: tuple[Path, dict]) -> None:
    place, document = outcome
    text = (place / document["page"]).read_text(encoding="utf-8")
    embedded = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert embedded is not None
    told = json.loads(embedded[1])["tables"]
    assert [(table["title"], table["rows"]) for table in told[: len(document["tables"])]] == [
        (table["title"], table["rows"]) for table in document["tables"]
    ]
    models = len(document["tables"][0]["rows"])
    assert text.count("data:image/") >= run.PAGE_PICTURES[True] * (2 + models), "each row has its label maps"


def test_pictures_hold_the_users_words() -> None:
    from ovseg_cli.core.data.specs import load_spec

    names = load_spec("toy").class_names
    scenes = pictures.pictures_of(["lava", "a purple spotted toy"], Silent())
    shown = {names[i] for scene in scenes for i in np.unique(scene.label) if i < len(names)}
    assert {"lava", "purple spotted toy"} <= shown


def test_every_default_word_is_in_plain_sight_in_some_picture() -> None:
    import inspect

    from ovseg_cli.commands.demo import demo as command
    from ovseg_cli.core.data.specs import load_spec

    words = pictures.check_words(inspect.signature(command).parameters["classes"].default).class_names
    names = load_spec("toy").class_names
    scenes = pictures.pictures_of(words, Silent())
    shown = {names[i] for scene in scenes for i, share in enumerate(_shares(scene, len(names))) if share >= 0.04}
    assert {word.removeprefix("a ") for word in words} <= shown


def _shares(scene, count: int) -> np.ndarray:
    return np.bincount(scene.label.reshape(-1), minlength=256)[:count] / scene.label.size


def test_other_names_compete_as_something_else() -> None:
    names = ("grass", "lava", "red plain toy")
    words = pictures.with_something_else(pictures.check_words("a red plain toy, zebra/gnu"), names)
    assert words.class_names == ("a red plain toy", "zebra", pictures.ELSE) and words.background == 2
    assert words.synonyms[1:] == (("zebra", "gnu"), ("grass", "lava")) and words.synonym_rule == "max"
    assert pictures.with_something_else(pictures.check_words("cat, background"), names).class_names == (
        "cat",
        "background",
    )
    everything = pictures.with_something_else(pictures.check_words("grass, lava, red plain toy"), names)
    assert everything.class_names == names


def test_words_pictures_name_their_picture(outcome: tuple[Path, dict]) -> None:
    place, document = outcome
    for path in document["pictures"][2:]:
        stored = json.loads((place / path.replace("_overlay.png", ".json")).read_text())
        assert (place / path).with_name(stored["image"]).is_file() and stored["classes"][-1] == pictures.ELSE


def test_a_word_that_the_world_lacks_is_named() -> None:
    reporter = Silent()
    pictures.pictures_of(["lava", "zebra"], reporter)
    assert any("zebra" in warning for warning in reporter.warnings)


def test_next_steps_can_be_pasted_into_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    from ovseg_cli.commands import views

    steps = run._next_steps(plan.DemoRequest(Path("demo")))
    views.show_demo(run.DemoOutcome((), (), 1.0, steps), False)
    after = capsys.readouterr().out.partition("Next:")[2].split("\n")[1:-1]
    assert len(after) == 2 * len(steps) and all(line.startswith(("# ", "ovseg ")) for line in after)
    assert all("#" not in line for line in after if line.startswith("ovseg"))


@pytest.mark.slow
def test_full_demo_trains_each_seed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovseg_cli.core.training.toy_clip_config import ToyClipConfig

    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "QUICK_IMAGES", 4)
    short = {"iterations": 2, "batch_size": 4, "warmup": 1, "workers": 0, "figure_scenes": 2}
    monkeypatch.setattr(plan, "TRAINING", short)
    monkeypatch.setattr(plan, "QUICK_MAFT", SHORT_MAFT)
    monkeypatch.setattr(plan, "QUICK_ITERATIONS", SHORT)
    request = plan.DemoRequest(tmp_path / "demo", quick=True, full_seeds=2, words="lava, snow", gpus=0)
    table = run.run_demo(request, Silent()).tables[0].records()
    assert [row["seeds"] for row in table] == ["0 1"] * len(plan.rows_of(request))
    assert all(row["mIoU_n"] == 2 and row["mIoU_spread"] >= 0 for row in table)
    trained = sorted((tmp_path / "demo" / "runs").glob("toy-clip-*"))
    assert len(trained) == 2 and ToyClipConfig(**short)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo" / "runs").iterdir()}
    again = run.run_demo(request, Silent()).tables[0].records()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo" / "runs").iterdir()} == before
    assert again == table


def test_pictures_show_what_was_scored(outcome: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch) -> None:
    """The segmenter of a row gives the label maps whose counts stand in its result."""
    from ovseg_cli.core.data.specs import parse_data
    from ovseg_cli.core.evaluation.confusion import count

    place, document = outcome
    monkeypatch.chdir(place)
    monkeypatch.setattr(plan, "QUICK_MAFT", SHORT_MAFT)
    monkeypatch.setattr(plan, "QUICK_ITERATIONS", SHORT)
    request = plan.DemoRequest(Path("ovseg-demo"), quick=True, gpus=0)
    (tuned,) = training.trained_runs(["toy-clip"], request, Silent())
    for row, scored in zip(plan.rows_of(request), document["tables"][0]["rows"], strict=True):
        result = load_result(open_run(place / scored["run"]).result_files()[0])
        choice = parse_data(plan.DATA)
        data = PreparedData.open(choice.spec, request.folders).subset("val")
        model = plan.segmenter_of(row, "toy-clip", tuned, request, Silent())
        ids = model.segment(data.image(0), model.query(choice.spec.vocabulary(choice.split))).label_map
        mine = count(torch.from_numpy(ids.astype("int64")), data[0].label, result.num_classes, 255)
        assert (mine.matrix() == result.counts[0].matrix()).all()


def test_the_whole_demo_has_every_family_and_the_quick_one_the_first_of_each_kind() -> None:
    whole, quick = (plan.DemoRequest(Path("ovseg-demo"), quick=is_quick) for is_quick in (False, True))
    assert [job.method for job in plan.jobs_of(whole)] == ["maft"] * 3 + ["pixelclip", "zegclip", "tagclip"]
    assert [job.method for job in plan.jobs_of(quick)] == ["maft", "zegclip", "tagclip"]
    assert {row.trained for row in plan.rows_of(whole)} - {None} == {job.name for job in plan.jobs_of(whole)}
    assert plan.SAME_PATH.settings == {"variant": "value-cls"}, "PixelCLIP's own reading of CLIP"
