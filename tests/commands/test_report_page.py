"""`ovseg report RUN… --format html`, on the toy world: one file, with the pictures as they were scored."""

import json
import re
import shutil

import pytest

from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.page.build import PageRequest, PictureWish, build_page
from ovseg_cli.core.page.gallery import _of_moved
from ovseg_cli.core.report.compare_grid import score
from ovseg_cli.core.report.request import ReportRequest
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders

HTML = ("--format", "html", "--gpus", "0", "--bootstrap", "20")


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Copies of the scored run and of another method's, which read the candidates of another protocol."""
    from tests.commands.conftest import run_command

    place = tmp_path_factory.mktemp("page") / "runs"
    found = min((world / "runs").glob("maskclip-*"))
    shutil.copytree(found, place / found.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSEG_DATA", str(world / "datasets"))
        patch.setenv("OVSEG_CACHE", str(world / "cache"))
        options = ("--data", "toy:combo", "--limit", "24", "--gpus", "0", "--runs", place, "--candidates", "unseen")
        made = run_command("eval", "clip", *options, "--seen-penalty", "0.1", "--set", "side=64")
    assert made.code == 0, made.err
    return place


@pytest.fixture
def pair(runs, tmp_path):
    """The two runs, in a folder of their own."""
    shutil.copytree(runs, tmp_path / "runs")
    return [min((tmp_path / "runs").glob(f"{name}-*")) for name in ("maskclip", "clip")]


def page_of(world, *names, limit=24, **options):
    asked = ReportRequest(tuple(map(str, names)), resamples=20)
    return build_page(
        PageRequest(asked, PictureWish(limit, gpus=0, **options)), Folders(world / "datasets", world / "runs"), Silent()
    )


def test_one_file_in_the_folder_of_the_first_run_or_where_it_is_wanted(cli, pair, tmp_path):
    answer = cli("report", *pair, *HTML, "--limit", "2")
    assert answer.code == 0, answer.err
    assert f"wrote {pair[0]}/report.html" in " ".join(answer.err.split()) and not answer.out
    text = (pair[0] / "report.html").read_text()
    assert text.count("data:image/") >= 2 * (2 + 2), "picture, ground truth and two label maps, twice"
    answer = cli("report", *pair, *HTML, "--limit", "0", "--out", "a/b.html")
    assert answer.code == 0 and (tmp_path / "a" / "b.html").is_file()
    assert "data:image/" not in (tmp_path / "a" / "b.html").read_text()


def test_pictures_are_made_as_they_were_scored(world, pair):
    """The protocols differ in candidates, calibration and size; counts tell whether each was kept to."""
    page = page_of(world, *pair, limit=6)
    (gallery,) = page.galleries
    assert len(gallery.models) == 2 and len(gallery.pictures) == 6
    assert not any("not those that were scored" in note for note in gallery.notes), gallery.notes
    for place, run in enumerate(pair):
        (file,) = (run / "results").glob("*.json")
        counts = load_result(file).counts
        for picture in gallery.pictures:
            assert picture.scores[place] == pytest.approx(score([counts[counts.names.index(picture.name)]]))
    shares = [picture.disagreement for picture in gallery.pictures]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0
    sets = {entry.name: entry.set for picture in gallery.pictures for entry in picture.legend}
    assert {"seen", "unseen"} == set(sets.values()) and sets["leaves"] == "unseen"


def test_a_label_map_that_has_changed_is_said(world, pair, monkeypatch):
    """Here because other names compete than the stored protocol says."""
    from ovseg_cli.core.page import models

    read = models.read_readout
    monkeypatch.setattr(models, "read_readout", lambda protocol, words: read({**protocol, "candidates": "seen"}, words))
    (gallery,) = page_of(world, pair[1], limit=2).galleries
    assert any(note.startswith("CLIP: these label maps are not those that were scored") for note in gallery.notes)


def test_rounding_is_told_from_another_model():
    assert _of_moved({"A": 0.0}) == []
    (note,) = _of_moved({"A": 0.0, "B": 7e-5, "C": 3e-5})
    assert note == "Rounded otherwise than when they were scored, on up to 0.007 % of a picture's pixels: B, C."
    (note,) = _of_moved({"A": 0.05})
    assert note.startswith("A: these label maps are not those that were scored, on up to 5.0 %")


def test_pictures_can_be_named(world, pair):
    (gallery,) = page_of(world, pair[0], limit=1, names=("00007.png",)).galleries
    assert [picture.name for picture in gallery.pictures] == ["00007"]


def test_a_run_that_is_gone_leaves_the_rest_of_the_page(world, pair, tmp_path):
    kept, file = next((pair[1] / "results").glob("*.json")), tmp_path / "alone.json"
    file.write_text(kept.read_text().replace(load_result(kept).run, "gone/clip-toy"))
    shutil.rmtree(pair[1])
    page = page_of(world, pair[0], file, limit=1)
    assert len(page.tables[0].rows) == len(page.confusions) == len(page.reproductions) == 2
    (gallery,) = page.galleries
    assert len(gallery.models) == 1 and any("CLIP" in note and "run is not here" in note for note in gallery.notes)
    assert any("The runs of these results are not here" in note for note in page.notes)
    (settings,) = page.settings
    side = next(row for row in settings.rows if row.name == "method.side")
    assert side.values == ("96", "64") and side.sources == ("recipe of toy", "--set or --config") and side.differs


def test_without_its_data_a_page_has_no_gallery_and_says_how_to_mend_it(pair, tmp_path):
    page = page_of(tmp_path, pair[0], limit=1)
    assert page.galleries == () and any("no gallery" in n and "ovseg prepare toy" in n for n in page.notes)


def test_models_with_other_weights_are_not_shown(world, pair):
    file = next((pair[0] / "results").glob("*.json"))
    weights = load_result(file).fingerprints["weights"]
    file.write_text(file.read_text().replace(weights, "0" * len(weights)))
    page = page_of(world, pair[0], limit=1)
    assert page.galleries == () and any("its weights are not what was scored" in note for note in page.notes)


def test_numbers_are_those_of_the_json(cli, pair, tmp_path):
    options = (*pair, "--bootstrap", "20", "--per-class")
    told = json.loads(cli("report", *options, "--format", "json").out)
    assert cli("report", *options, "--format", "html", "--limit", "0", "--out", "page.html").code == 0
    text = (tmp_path / "page.html").read_text()
    embedded = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.S)
    assert embedded and json.loads(embedded[1])["tables"][: len(told["tables"])] == told["tables"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*HTML, "--figures", "compare"), 2, "belongs to the tables"),
        (("--format", "html", "--figures", "compare"), 2, "--format html belongs to the tables"),
        (("--format", "html", "--explain"), 2, "--format html belongs to comparisons"),
        ((*HTML, "--proposals", "superpixels"), 2, "--proposals belongs to --figures"),
        ((*HTML, "--limit", "0", "--picture", "00001"), 2, "--picture belongs to a gallery"),
        (("--limit", "3"), 2, "--limit belongs to --figures and --format html"),
        (("--figures", "compare", "--limit", "0"), 2, "--limit 0 belongs to --format html"),
        ((*HTML, "--picture", "0000x"), 2, "--picture 0000x: it is not among the 24 pictures that were scored"),
        ((*HTML, "--out", "."), 2, "this is a folder"),
        ((*HTML, "--out", "file/page.html"), 4, "cannot write"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(cli, pair, tmp_path, arguments, code, said):
    (tmp_path / "file").touch()
    answer = cli("report", pair[0], *arguments)
    assert answer.code == code and said in " ".join(answer.err.split()), answer.err
    assert not list(tmp_path.glob("**/*.html")) and not list(tmp_path.glob("**/*.part"))
