"""`ovseg report RUN… --figures clusters`, `masks`, `nearest` and `tsne`, on the toy world and untrained PixelCLIPs."""

import json
import shutil

import pytest
import torch
from PIL import Image

from ovseg_cli.core.methods.build import build_method, choose_model
from ovseg_cli.core.proposals.superpixels import Superpixels
from ovseg_cli.core.report.prompt_models import first_prompts, load_prompts
from ovseg_cli.core.reporter import Silent
from tests.commands.prompt_runs import make_run
from tests.core.data.tars import write_official

DATA = "toy-combo"
GPUS = ("--gpus", "0")


@pytest.fixture
def run(cli, tmp_path):
    return make_run(tmp_path)


def table_of(answer):
    assert answer.code == 0, answer.err
    (table,) = json.loads(answer.out)["tables"]
    return table


def test_clusters_have_a_column_a_run(cli, run, tmp_path):
    more = make_run(tmp_path, "more", prompts=20)
    answer = cli("report", run, more, "--figures", "clusters", "--limit", "2", "-f", "json", *GPUS)
    table = table_of(answer)
    assert [(row["model"], row["prompts"]) for row in table["rows"]] == [
        ("PixelCLIP, prompts 12", 12), ("PixelCLIP, prompts 20", 20),
    ]  # fmt: skip
    figure = run / f"clusters-{DATA}-val.png"
    assert f"wrote {figure}" in answer.err
    alone = cli("report", run, "--figures", "clusters", "--limit", "2", "--out", "alone", *GPUS)
    assert alone.code == 0 and "runs" in str(figure)
    assert Image.open(tmp_path / "alone" / figure.name).width < Image.open(figure).width < 4 * 300


def test_pixel_belongs_to_the_prompt_nearest_to_its_feature(run):
    choice = choose_model(str(run), run.parent)
    model = load_prompts("m", choice, torch.device("cpu"), Silent())
    image = torch.randint(256, (3, 48, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    method = build_method(choice)
    cosines = method.score(method.prepare(image)[None], model.prompts)
    full = torch.nn.functional.interpolate(cosines, (48, 64), mode="bilinear", align_corners=False)[0]
    assert (torch.from_numpy(model.map_of(image)) == full.argmax(0)).float().mean() > 0.999
    assert torch.allclose(model.prompts.norm(dim=1), torch.ones(12)) and len(model) == 12


def test_first_prompts_are_those_that_every_training_begins_with(tmp_path):
    untouched, moved = (make_run(tmp_path, f"run{shift}", shift=shift) for shift in (0.0, 1.0))
    models = [
        load_prompts("m", choose_model(str(path), path.parent), torch.device("cpu"), Silent())
        for path in (untouched, moved)
    ]
    assert torch.allclose(first_prompts(models[0]), models[0].prompts, atol=1e-6)
    assert torch.equal(first_prompts(models[0]), first_prompts(models[1]))
    assert not torch.allclose(first_prompts(models[1]), models[1].prompts, atol=1e-4)


@pytest.mark.parametrize("figure", ["clusters", "masks", "nearest", "tsne"])
def test_runs_without_learned_prompts_are_refused_before_anything_is_loaded(cli, run, world, tmp_path, figure):
    other = shutil.copytree(min((world / "runs").glob("maskclip-*")), tmp_path / "runs" / "mask")
    answer = cli("report", run, other, "--figures", figure, *GPUS)
    said = " ".join(answer.err.split())
    assert answer.code == 2 and f"{other}: a run of maskclip has no learned prompts. Name a run of pixelclip." in said
    for key, value, words in (
        ("clustering", False, "clustering = false"),
        ("class_names", "data", "class_names = data"),
    ):
        bare = make_run(tmp_path, key, training={key: value})
        answer = cli("report", bare, "--figures", figure, *GPUS)
        assert answer.code == 2 and f"was trained with {words}" in " ".join(answer.err.split())
    assert not list(tmp_path.glob(f"**/{figure}*"))


COARSE = {"merge": False, "slic_segments": [], "scales": [100], "sigmas": [0.8], "min_sizes": [20], "max_masks": 6}


@pytest.fixture
def own_data(world, tmp_path, monkeypatch):
    """The toy world with no caches."""
    shutil.copytree(
        world / "datasets", tmp_path / "datasets", symlinks=True, ignore=shutil.ignore_patterns("proposals")
    )
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "datasets"))


def test_masks_are_those_of_the_training_made_where_no_cache_has_them(cli, tmp_path, own_data, monkeypatch):
    run = make_run(tmp_path, training={"proposal_settings": COARSE})
    asked = ("report", run, "--figures", "masks", "--limit", "3", "-f", "json", *GPUS)
    made = cli(*asked)
    table = table_of(made)
    assert "toy:combo train, 3 pictures, superpixels" in table["title"]
    masks = sum(row["masks"] for row in table["rows"])
    assert 0 < masks <= 18 and all(row["pictures"] <= 3 for row in table["rows"])
    assert (run / f"masks-{DATA}-train.png").is_file()
    settings = [word for key, value in COARSE.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = cli("propose", "superpixels", "--data", "toy", "--limit", "2", "--workers", "1", *settings)
    assert done.code == 0, done.err
    assert table_of(cli(*asked)) == table, "two of a cache and one made are the same"
    made_for = []
    generate = Superpixels.generate
    monkeypatch.setattr(Superpixels, "generate", lambda *given: made_for.append(1) or generate(*given))
    assert table_of(cli(*asked)) == table and len(made_for) == 1, "what a cache has is not made again"
    of_val = table_of(cli(*asked, "--subset", "val", "--picture", "00005"))
    assert "toy:combo val, 3 pictures" in of_val["title"] and (run / f"masks-{DATA}-val.png").is_file()


def test_masks_of_a_cache_take_the_place_of_the_training_s(cli, run, tmp_path, own_data):
    settings = [word for key, value in COARSE.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = cli("propose", "superpixels", "--data", "toy", "--limit", "2", "--workers", "1", *settings)
    assert done.code == 0, done.err
    (cache,) = (tmp_path / "datasets" / "toy" / "proposals").iterdir()
    asked = ("report", run, "--figures", "masks", "--proposals", cache, "-f", "json", *GPUS)
    assert sum(row["masks"] for row in table_of(cli(*asked, "--limit", "2"))["rows"]) <= 12
    missing = cli(*asked, "--limit", "3")
    assert missing.code == 3 and "there are no proposals of picture" in " ".join(missing.err.split())
    wrong = cli(*asked, "--subset", "val")
    assert wrong.code == 3
    typo = cli("report", run, "--figures", "masks", "--proposals", "superpixel", *GPUS)
    assert typo.code == 2 and "Did you mean 'superpixels'?" in typo.err


def test_nearest_names_count_masks_where_a_cache_has_them(cli, tmp_path, own_data):
    run = make_run(tmp_path, training={"proposal_settings": COARSE})
    asked = ("report", run, "--figures", "nearest", "--limit", "2", "-f", "json", *GPUS)
    bare = table_of(cli(*asked))
    assert len(bare["rows"]) == 12 and "masks" not in bare["rows"][0]
    assert sum(row["pixels"] for row in bare["rows"]) == pytest.approx(100)
    assert sum(row["pixel_count"] for row in bare["rows"]) == 2 * 96 * 96
    assert (run / f"nearest-{DATA}-val.png").is_file()
    settings = [word for key, value in COARSE.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    made = cli(
        "propose", "superpixels", "--data", "toy", "--subset", "val", "--limit", "2", "--workers", "1", *settings
    )
    assert made.code == 0, made.err
    counted = table_of(cli(*asked))
    assert 0 < sum(row["masks"] for row in counted["rows"]) <= 12
    assert [row["name_1"] for row in counted["rows"]] == [row["name_1"] for row in bare["rows"]]


def test_plane_of_prompts_and_names_with_its_coordinates(cli, run):
    pytest.importorskip("sklearn")
    answer = cli("report", run, "--figures", "tsne", "-f", "json", *GPUS)
    table = table_of(answer)
    assert len(table["rows"]) == 12 and all(row["kept"] <= 1 + 1e-6 for row in table["rows"])
    figure = run / f"tsne-{DATA}.png"
    assert figure.is_file() and f"wrote {figure}" in answer.err
    document = json.loads(figure.with_suffix(".json").read_text())
    assert document["kind"] == "ovseg-prompt-tsne" and document["tsne"]["random_state"] == 0
    points = document["points"]
    assert len(points["names"]) == len(document["names"]) > 20 and len(points["first"]) == len(points["learned"]) == 12
    assert document["prompts"] == table["rows"]
    for option in ("--limit", "3"), ("--subset", "val"), ("--picture", "00000"), ("--proposals", "superpixels"):
        refused = cli("report", run, "--figures", "tsne", *option, *GPUS)
        assert refused.code == 2 and f"{option[0]} belongs to" in " ".join(refused.err.split())


def test_data_without_classes_have_masks_and_clusters_but_no_names(cli, run, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "datasets"))
    write_official(tmp_path / "source", {"sa_000020": ["sa_1", "sa_2"]})
    done = cli("prepare", "sa-1b", "--source", tmp_path / "source", "--workers", "1")
    assert done.code == 0, done.err
    asked = ("report", run, "--data", "sa-1b", "-f", "json", *GPUS)
    masks = table_of(cli(*asked, "--figures", "masks", "--proposals", "annotations"))
    assert "sa-1b train, 2 pictures, annotations" in masks["title"]
    assert 0 < sum(row["masks"] for row in masks["rows"]) <= 6 and {row["name"] for row in masks["rows"]} == {None}
    clusters = table_of(cli(*asked, "--figures", "clusters"))
    assert clusters["rows"][0]["names"] is None
    assert {path.name for path in run.glob("*.png")} == {"masks-sa-1b-train.png", "clusters-sa-1b-train.png"}
    for figure, said in (
        ("nearest", "no class names"),
        ("tsne", "no class names"),
        ("compare", "masks without classes"),
    ):
        refused = cli(*asked, "--figures", figure)
        assert refused.code == 2 and f"sa-1b {'holds' if figure == 'compare' else 'has'} {said}" in refused.err
