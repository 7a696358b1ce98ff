"""`ovseg convert` on the recorded ZegCLIP and TagCLIP (parity/tagclip): the runs give the official scores."""

import json

import pytest
import torch
from torch.nn import functional as F

from ovseg_cli import load
from ovseg_cli.core.nn.label_maps import full_scores
from ovseg_cli.core.types import TextFeatures
from tests.commands.conftest import run_command
from tests.core.conversion.mmcv_files import METHODS, RecordedOneStage, mmcv

TOLERANCE = 1e-4  # of the fixture's README: |a - b| <= 1e-4 * max(1, max|b|)
NEAR_TIE = 1e-5
SHORT = {"zegclip": "zeg", "tagclip": "tag"}


def assert_near(actual, expected):
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    assert error <= TOLERANCE * max(1.0, float(expected.abs().max())), f"off by {error:.2e}"


@pytest.fixture(scope="module")
def recorded(parity):
    if not (parity / "tagclip" / "config.json").is_file():
        pytest.skip("no recorded ZegCLIP and TagCLIP")
    return RecordedOneStage(parity / "tagclip")


def convert(recorded, folder, method, document, *arguments):
    torch.save(document, folder / "official.pth")
    answer = run_command(
        "convert", folder / "official.pth", "-m", method, *recorded.settings(), *arguments, "--out", folder / "run"
    )
    assert answer.code == 0, answer.err
    return folder / "run"


@pytest.fixture(scope="module", params=METHODS)
def run(request, recorded, tmp_path_factory):
    """The whole mmcv file, with the names of its classes and of distributed training."""
    folder = tmp_path_factory.mktemp(request.param)
    state = {f"module.{name}": value for name, value in recorded.state(request.param).items()}
    data = str(folder / recorded.save_data(folder))
    return convert(recorded, folder, request.param, mmcv(state, recorded.names), "--data", data)


def text_of(recorded, rows=None):
    features = TextFeatures.of_classes(recorded.text if rows is None else recorded.text[rows])
    seen = recorded.seen if rows is None else recorded.seen[rows]
    return TextFeatures(features.features, features.class_of_row, features.num_classes, seen)


def logits_of(recorded, method, rows=None):
    """Logits of the recorded pictures at the size of the head's maps: names, and the token's."""
    side = recorded.config["head_img_size"]
    with torch.no_grad():
        logits, trust = method.mask_logits(recorded.io["in.image"], text_of(recorded, rows))
    maps = logits if trust is None else torch.cat([logits, trust[:, None]], dim=1)
    maps = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[:1]
    return maps[:, : logits.shape[1]], maps[:, logits.shape[1] :]


@pytest.mark.parametrize("which", ["all", "seen"])
def test_heads_reproduce_the_recorded_logits(recorded, run, which):
    method = load(run, device="cpu").method
    masks, trust = logits_of(recorded, method, None if which == "all" else recorded.config["base_class"])
    prefix = f"{SHORT[method.name]}.head_{which}"
    assert_near(masks, recorded.io[f"{prefix}.pred_masks"])
    if method.name == "tagclip":
        assert_near(trust, recorded.io[f"{prefix}.pred_disc"])


def test_sliding_windows_reproduce_the_recorded_scores(recorded, run):
    """The scores of windows, gamma and trust included, at the size of the original picture."""
    method = load(run, device="cpu").method
    size = tuple(recorded.config["ori_shape"])
    prediction = method.predict_canvases([recorded.io["in.image_nonsquare"][0]], [size], text_of(recorded))[0]
    scores = full_scores(prediction, size)[None]
    assert_near(scores, recorded.io[f"{SHORT[method.name]}.slide_scores"])
    labels, expected = scores.argmax(1), recorded.io[f"{SHORT[method.name]}.slide_label"].long()
    two = scores.topk(2, dim=1).values
    assert not ((labels != expected) & (two[:, 0] - two[:, 1] >= NEAR_TIE)).any()


def test_run_says_how_it_was_trained(recorded, run):
    import tomllib

    config = tomllib.loads((run / "config.toml").read_text())
    names = [recorded.names[i] for i in recorded.config["base_class"]]
    assert sorted(config["vocabulary"]["training_names"]) == sorted(names)
    facts = config["conversion"]
    assert facts["setting"] == "inductive" and facts["training_classes"] == len(names)
    is_tag = config["conversion"]["layout"] == "tagclip"
    assert facts.get("trust_target") == ("official-unseen" if is_tag else None)
    assert config["method"]["gamma"] == 0.1 and config["method"]["statistics"] == "imagenet"


@pytest.mark.parametrize("method", METHODS)
def test_bare_files_and_other_forms_give_the_same_weights(recorded, method, tmp_path):
    from safetensors.torch import save_file

    state = recorded.state(method)
    save_file(state, tmp_path / "bare.safetensors")
    digests = set()
    for i, document in enumerate((state, {"state_dict": state}, None)):
        folder = tmp_path / str(i)
        folder.mkdir()
        if document is None:
            file, out = tmp_path / "bare.safetensors", folder / "run"
            assert run_command("convert", file, "-m", method, *recorded.settings(), "--out", out).code == 0
        else:
            convert(recorded, folder, method, document)
        digests.add(load(folder / "run", device="cpu").method.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("method", METHODS)
def test_every_entry_is_accounted_for_and_the_dead_are_those_without_gradient(recorded, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = recorded.state(method)
    torch.save(mmcv(state, recorded.names), "official.pth")
    answer = run_command("convert", "official.pth", "-m", method, *recorded.settings(), "--dry-run", "--json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert sum(row["tensors"] for row in document["keys"]) == document["tensors"] == len(state)
    ignored = {row["prefix"]: row["tensors"] for row in document["keys"] if row["action"] == "ignored"}
    loss = [name for name in state if name.startswith("decode_head.loss_decode.")]
    dead = recorded.config[f"{method}_trainable_without_gradient"]
    assert ignored.pop("decode_head.loss_decode.", 0) == len(loss)
    assert sum(ignored.values()) == len([name for name in dead if name in state])


def test_dead_weights_change_nothing(recorded, run, tmp_path):
    """What the recording says has no gradient may hold anything, or be missing."""
    name = load(run, device="cpu").method.name
    dead = recorded.config[f"{name}_trainable_without_gradient"]
    state = {key: value for key, value in recorded.state(name).items() if key not in dead}
    assert dead and len(state) < len(recorded.state(name))
    method = load(convert(recorded, tmp_path, name, state), device="cpu").method
    assert method.digest == load(run, device="cpu").method.digest


def test_position_tables_of_either_size_give_the_recorded_resize(recorded, tmp_path):
    """A file may hold CLIP's own table or the one that the code resized it to: any square grid."""
    from ovseg_cli.core.clip.prompted import resize_bilinear

    state = {**recorded.state("zegclip"), "backbone.positional_embedding": recorded.io["posembed.ckpt"]}
    method = load(convert(recorded, tmp_path, "zegclip", state), device="cpu").method
    visual, table = method.clip.visual, recorded.io["posembed.resized"]
    grid, wanted = tuple(visual.grid_size), round((len(table) - 1) ** 0.5)
    assert grid[0] ** 2 + 1 == len(recorded.io["posembed.ckpt"])
    resized = resize_bilinear(visual.positional_embedding, grid, (wanted, wanted))
    assert float((resized - table).abs().max()) <= 1e-5
    masks, _ = logits_of(recorded, method)
    assert torch.isfinite(masks).all()


@pytest.mark.parametrize("variant", ["fig5left_selfattnrd", "fig5right"])
def test_learners_of_figure_5_are_known_by_their_names(recorded, variant, tmp_path):
    mark = f"variant.{variant}."
    own = {key.removeprefix(mark): value for key, value in recorded.variants.items() if key.startswith(mark)}
    if not own:
        pytest.skip("not recorded")
    state = {k: v for k, v in recorded.state("tagclip").items() if "relationship_discriptor" not in k}
    method = load(convert(recorded, tmp_path, "tagclip", {**state, **own}), device="cpu").method
    assert method.config.learner == {"fig5left_selfattnrd": "figure-5-left", "fig5right": "figure-5-right"}[variant]
    rows = torch.cat([recorded.text, method.trust_token.detach()])
    with torch.no_grad():
        queries = method.descriptor(recorded.io["enc.cls"], rows)
    assert_near(queries, recorded.io[f"tag.variant.{variant}.q_in"])


def test_a_file_without_the_token_is_a_model_without_it(recorded, tmp_path):
    state = recorded.state("tagclip")
    del state["decode_head.disc_token"]
    method = load(convert(recorded, tmp_path, "tagclip", state), device="cpu").method
    assert (method.config.token, method.config.fusion) == (False, "none")
    masks, trust = logits_of(recorded, method)
    assert_near(masks, recorded.io["tag.variant.nodisc.pred_masks"])
    assert not trust.numel() and "trust_target" not in (tmp_path / "run" / "config.toml").read_text()
