"""What SCLIP, ClearCLIP, NACLIP and ProxyCLIP do in the last block, and the recipe around it."""

import math

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from ovseg_cli.core import registry
from ovseg_cli.core.clip import hub
from ovseg_cli.core.clip.inputs import normalise
from ovseg_cli.core.clip.prompts import template_set
from ovseg_cli.core.data.specs import load_spec, parse_data, spec_names
from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.evaluation.names import readout_of, vocabulary_of
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.methods.build import choose_model, split_settings
from ovseg_cli.core.methods.naclip import NaClip, NaClipConfig, neighbourhood
from ovseg_cli.core.methods.proxyclip import ProxyAttention, ProxyClip, ProxyClipConfig, shares, similarities
from ovseg_cli.core.nn import pamr
from ovseg_cli.core.nn.label_maps import full_scores
from ovseg_cli.core.prediction.segmenter import Segmenter
from ovseg_cli.core.proposals.vit_tokens import build_vit, vit_tokens
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import DensePrediction, TextFeatures, Vocabulary
from tests.core.clip.tiny import CONVNEXT, tiny_clip
from tests.core.methods.test_contract import names, picture
from tests.core.methods.tiny_methods import tiny_method

FAMILY = ("sclip", "clearclip", "naclip", "proxyclip")
TEXT = TextFeatures.of_classes(names(5))


def heads(seed=0, tokens=13):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 4, tokens, 8, generator=generator)


def plain(similar, v):
    """Softmax of scaled similarities times values, written out."""
    return similar.softmax(-1) @ v


def mixed(method, q, k, v, grid):
    block = method.block(torch.zeros(2, 3, 32, 32))
    return block.attention(q, k, v, grid)[0]


def test_sclip_adds_two_maps_whose_weights_sum_to_two():
    q, k, v = heads()
    method, scale = tiny_method("sclip"), 8**-0.5
    expected = plain(scale * q @ q.transpose(2, 3), v) + plain(scale * k @ k.transpose(2, 3), v)
    torch.testing.assert_close(mixed(method, q, k, v, (3, 4)), expected)
    torch.testing.assert_close(mixed(method, q, k, torch.ones_like(v), (3, 4)), torch.full_like(v, 2))
    assert (method.block(v).residual, method.block(v).mlp) == ("own", True)


def test_clearclip_compares_queries_and_drops_residual_and_mlp():
    q, k, v = heads()
    method = tiny_method("clearclip")
    torch.testing.assert_close(mixed(method, q, k, v, (3, 4)), plain(8**-0.5 * q @ q.transpose(2, 3), v))
    assert (method.block(v).residual, method.block(v).mlp) == ("none", False)


def test_naclip_s_neighbourhood_by_hand():
    near = math.exp(-1 / 2)
    expected = torch.tensor([[0, 0, 0], [0, 1, near], [0, near, 1]])
    torch.testing.assert_close(neighbourhood((1, 2), 1.0), expected)
    places = torch.cartesian_prod(torch.arange(3), torch.arange(4)).float()
    distances = (places[:, None] - places).square().sum(-1)
    torch.testing.assert_close(neighbourhood((3, 4), 5.0)[1:, 1:], torch.exp(-distances / 50))


def test_naclip_compares_keys_and_prefers_neighbours():
    q, k, v = heads()
    method = tiny_method("naclip", sigma=2.0)
    similar = 8**-0.5 * k @ k.transpose(2, 3) + neighbourhood((3, 4), 2.0)
    torch.testing.assert_close(mixed(method, q, k, v, (3, 4)), plain(similar, v))
    assert (method.block(v).residual, method.block(v).mlp) == ("none", False)


def test_proxyclip_s_shares_by_hand():
    """Two patches whose cosine is 1/2, mean 3/4. With β = 1 they have nothing to do with each other."""
    similar = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]])
    torch.testing.assert_close(shares(similar, 1.0, 3.0), torch.eye(2)[None])
    away = 1 / (1 + math.exp(2.0))  # β = 0: 4 · 1 against 4 · 1/2
    torch.testing.assert_close(shares(similar, 0.0, 4.0), torch.tensor([[[1 - away, away], [away, 1 - away]]]))


def test_a_patch_belongs_to_itself_where_the_mean_leaves_nothing():
    similar = similarities(torch.ones(1, 2, 2, 3))  # all the same: mean 1, and β · 1 > 1
    torch.testing.assert_close(shares(similar, 1.2, 3.0), torch.eye(4)[None])


def test_proxy_attention_brings_values_to_the_proxy_s_grid():
    """One row of two patches, 0 and 1; the proxy has four, each of which keeps what lies there."""
    v = torch.tensor([9.0, 0.0, 1.0]).view(1, 1, 3, 1)
    out, grid = ProxyAttention(torch.eye(4)[None], (1, 4))(v, v, v, (1, 2))
    assert grid == (1, 4) and out.flatten().tolist() == [9, 0, 0.25, 0.75, 1]


def test_the_proxy_sees_the_picture_with_its_own_statistics():
    method = tiny_method("proxyclip")
    image = picture(32, 48)[None].float()
    seen = method.proxy_tokens(normalise(image, method.clip.mean, method.clip.std))
    statistics = method.proxy.pretrained_cfg
    own = normalise(image, torch.tensor(statistics["mean"]), torch.tensor(statistics["std"]))
    torch.testing.assert_close(seen, vit_tokens(method.proxy, own), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("proxy", ["test_vit", "vit_tiny_patch16_dinov3_qkvb"])
def test_scores_lie_on_the_proxy_s_grid(proxy):
    method = tiny_method("proxyclip", proxy=proxy, window=0, stride=0)
    (prediction,) = method.predict([picture(48, 64)], TEXT)
    assert prediction.logits.shape == (5, 3, 4), "patches of 16 pixels; CLIP's are 8"


def test_a_picture_s_shares_do_not_depend_on_the_batch():
    method = tiny_method("proxyclip")
    images = torch.stack([method.prepare(picture(32, 32, seed)) for seed in range(3)])
    together = method.features(images)
    for image, features in zip(images, together, strict=True):
        torch.testing.assert_close(method.features(image[None])[0], features, atol=1e-5, rtol=1e-4)


def test_the_fingerprint_includes_the_proxy(tmp_path):
    one = tiny_method("proxyclip")
    assert one.digest == tiny_method("proxyclip").digest != one.clip.digest
    state = build_vit("test_vit", "random", "explicit", Silent()).state_dict()
    state["blocks.0.attn.qkv.weight"] = state["blocks.0.attn.qkv.weight"] * 1.5
    save_file(state, tmp_path / "other.safetensors")
    assert tiny_method("proxyclip", proxy_weights=str(tmp_path / "other.safetensors")).digest != one.digest


@pytest.mark.parametrize(
    ("settings", "error", "message", "mend"),
    [
        ({"proxy": "vit_smal_patch16_224"}, UsageError, "unknown timm model", "Did you mean"),
        ({"proxy": "resnet18"}, UsageError, "no plain ViT", "vit_small"),
        ({"proxy": "test_vit", "proxy_weights": "absent.pth"}, MachineError, "proxy_weights=absent.pth", "published"),
    ],
)
def test_wrong_proxies_are_answered(settings, error, message, mend):
    with pytest.raises(error, match=message) as caught:
        ProxyClip(tiny_clip(), ProxyClipConfig(**settings))
    assert mend in (caught.value.mend or "")


def test_an_absent_proxy_says_which_file_to_put_where(monkeypatch, tmp_path):
    def unreachable(*_):
        raise OSError("no route")

    monkeypatch.setattr(hub, "fetch_file", unreachable)
    monkeypatch.setattr(hub, "check_reachable", unreachable)
    with pytest.raises(MachineError, match="vit_base_patch8_224.dino") as caught:
        ProxyClip(tiny_clip())
    assert "--set proxy_weights=FILE" in (caught.value.mend or "")


def test_refinement_works_on_all_scores_at_the_picture_s_own_size():
    image = picture(40, 56)
    bare = tiny_method("naclip", pamr_steps=0, resize="short-side", side=32)
    method = NaClip(bare.clip, NaClipConfig(**{**bare.config.model_dump(), "pamr_steps": 3, "pamr_dilations": (1, 2)}))
    (plain_scores,), (refined,) = bare.predict([image], TEXT), method.predict([image], TEXT)
    assert isinstance(refined, DensePrediction) and refined.logits.shape == (5, 40, 56)
    canvas = method.prepare(image)
    colours = torch.nn.functional.interpolate(canvas[None], (40, 56), mode="bilinear")[0]
    expected = pamr.refine(colours, full_scores(plain_scores, (40, 56)), 3, (1, 2))
    torch.testing.assert_close(refined.logits, expected)
    assert not torch.allclose(refined.logits, full_scores(plain_scores, (40, 56)), atol=1e-3)


def test_only_naclip_refines_by_default():
    steps = {name: registry.METHODS[name].load().Config().pamr_steps for name in FAMILY}
    assert steps == {"sclip": 0, "clearclip": 0, "naclip": 10, "proxyclip": 0}


def test_dilations_below_one_are_refused():
    for wrong in ((), (0,), (4, -1)):
        with pytest.raises(ValidationError):
            NaClipConfig(pamr_dilations=wrong)


@pytest.mark.parametrize("name", FAMILY)
def test_a_convnext_has_no_block_to_change(name):
    with pytest.raises(UsageError, match="no attention"):
        registry.METHODS[name].load()(tiny_clip(CONVNEXT))


BACKGROUND = Vocabulary(("background", "cat"), (("wall", "sky"), ("cat",)), background=0)


def test_the_method_s_threshold_is_the_default_where_there_is_a_background():
    method = tiny_method("sclip", background_threshold=0.3, softmax_scale=65.0)
    readout = readout_of(EvalRequest(), BACKGROUND, method)
    assert (readout.threshold, readout.softmax_scale, readout.background) == (0.3, 65.0, 0)
    assert readout_of(EvalRequest(background_threshold=0.5), BACKGROUND, method).threshold == 0.5
    assert readout_of(EvalRequest(background_threshold=0.0), BACKGROUND, method).threshold == 0.0
    assert readout_of(EvalRequest(), Vocabulary(("cat",), (("cat",),)), method).threshold is None
    assert readout_of(EvalRequest(), BACKGROUND, tiny_method("sclip")).threshold is None


def recipe(name, data, tmp_path):
    choice = choose_model(name, tmp_path, load_spec(data))
    return split_settings(registry.METHODS[name].load(), choice.settings, name, choice.optional)[0]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("sclip", "voc-21", (0, 224, 112, 65, 0.1)),
        ("sclip", "pascal-context-60", (0, 224, 112, 50, 0.1)),
        ("sclip", "cityscapes", (560, 224, 112, 40, 0)),
        ("sclip", "coco-stuff", (448, 224, 112, 40, 0)),
        ("clearclip", "coco-object", (448, 448, 224, 50, 0.4)),
        ("clearclip", "cityscapes", (448, 224, 224, 50, 0)),
        ("naclip", "voc-20", (0, 0, 0, 40, 0)),
        ("naclip", "coco-object", (0, 224, 112, 40, 0.1)),
        ("proxyclip", "coco-object", (0, 336, 112, 40, 0.25)),
        ("proxyclip", "cityscapes", (448, 224, 112, 40, 0)),
        ("proxyclip", "ade20k-150", (448, 336, 112, 40, 0)),
    ],
)
def test_the_papers_numbers_are_there(name, data, expected, tmp_path):
    found = recipe(name, data, tmp_path)
    numbers = (found.side, found.window, found.stride, found.softmax_scale, found.background_threshold)
    assert numbers == expected


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("data", [d for d in spec_names() if load_spec(d).background])
def test_every_data_set_with_background_has_the_paper_s_threshold(name, data, tmp_path):
    assert recipe(name, data, tmp_path).background_threshold > 0


@pytest.mark.parametrize(
    ("name", "data", "variant"),
    [
        ("sclip", "voc-21", "sclip"),
        ("naclip", "voc-20", "sclip"),
        ("clearclip", "voc-21", "clearclip"),
        ("clearclip", "voc-20", "proxyclip"),
        ("proxyclip", "coco-object", "proxyclip"),
        ("proxyclip", "coco-stuff", "sclip"),
        ("clip", "voc-21", None),
        ("sclip", "toy", None),
    ],
)
def test_names_are_the_paper_s_where_the_data_set_has_them(name, data, variant):
    choice, method = parse_data(data), registry.METHODS[name].load()
    found = vocabulary_of(choice, EvalRequest(), method)
    assert found.synonyms == tuple(map(tuple, choice.spec.texts(variant)))
    own = vocabulary_of(choice, EvalRequest(names="canonical"), method)
    assert own.synonyms == tuple(map(tuple, choice.spec.texts("canonical")))


def test_templates_are_the_eighty_of_imagenet():
    method = registry.METHODS["sclip"].load()
    assert vocabulary_of(parse_data("voc-21"), EvalRequest(), method).templates == template_set("imagenet")


def test_a_prediction_with_a_background_takes_the_method_s_threshold():
    model = Segmenter(tiny_method("sclip", background_threshold=0.2))
    assert model.query("red, background/thing").readout.threshold == 0.2
    assert model.query("red, background/thing", background_threshold=0.5).readout.threshold == 0.5
    assert model.query("red, green").readout.threshold is None


def test_a_run_s_own_names_are_those_of_the_paper():
    vocabulary = Segmenter(tiny_method("sclip"), data="voc-21")._own_vocabulary()
    assert vocabulary.synonyms == tuple(map(tuple, load_spec("voc-21").texts("sclip")))
    plain_clip = Segmenter(tiny_method("clip"), data="voc-21")._own_vocabulary()
    assert plain_clip.synonyms[0] == ("background",)
