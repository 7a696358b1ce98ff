"""DINO masks: PixelCLIP's recorded ones, then pictures of odd sizes, other features, other networks and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import LayerNorm

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.proposals.dino import Dino, DinoConfig, cluster_masks
from ovseg_cli.core.proposals.kmeans import kmeans
from ovseg_cli.core.proposals.vit_tokens import build_vit, use_dino_positions, vit_tokens
from ovseg_cli.core.reporter import Silent

TINY = {"model": "test_vit", "weights": "random"}


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


class Recorded:
    """The toy DINO of the fixtures, its sizes read from its tensors."""

    def __init__(self, parity: Path):
        from timm.models.vision_transformer import VisionTransformer

        folder = parity / "pixelclip"
        state = {k: v.float() for k, v in load_file(folder / "dino_state.safetensors").items()}
        self.tensors = load_file(folder / "dino_masks.safetensors")
        dim, _, _, self.patch = state["patch_embed.proj.weight"].shape
        side = int((state["pos_embed"].shape[1] - 1) ** 0.5)
        model = VisionTransformer(
            img_size=side * self.patch,
            patch_size=self.patch,
            embed_dim=dim,
            depth=len({k.split(".")[1] for k in state if k.startswith("blocks.")}),
            num_heads=2,  # README of the fixtures; no file holds it
            mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
            num_classes=0,
            norm_layer=LayerNorm,  # eps 1e-5, as the class was built there; published DINO has 1e-6
            dynamic_img_size=True,
        )
        model.load_state_dict(state)
        use_dino_positions(model)
        self.model = model.eval()

    def generator(self) -> Dino:
        dino = Dino(DinoConfig(**TINY))
        self.model.pretrained_cfg = dino.model.pretrained_cfg | {
            "mean": (123.675 / 255, 116.28 / 255, 103.53 / 255),
            "std": (58.395 / 255, 57.12 / 255, 57.375 / 255),
        }
        dino.model = self.model
        return dino


@pytest.fixture(scope="module")
def recorded(parity: Path) -> Recorded:
    return Recorded(parity)


def test_tokens_equal_the_recorded_ones(recorded: Recorded):
    expected = recorded.tensors["dino_features"]
    dino = recorded.generator()
    for image, features in zip(recorded.tensors["images_raw"], expected, strict=True):
        tokens = dino.tokens(image)
        assert (
            tokens.shape[0] == image.shape[1] // recorded.patch and tokens.shape[1] == image.shape[2] // recorded.patch
        )
        # the README's tolerance for features: 1e-5 of the largest value
        assert (tokens.flatten(0, 1) - features).abs().max() < 1e-5 * expected.abs().max()


def test_clusters_equal_the_recorded_ones(recorded: Recorded):
    tensors = recorded.tensors
    for i, start in enumerate(tensors["init_centroids"]):
        labels, centroids = kmeans(tensors["dino_features"][i], start)
        assert torch.equal(labels, tensors["labels"][i])
        torch.testing.assert_close(centroids, tensors["final_centroids"][i], rtol=1e-5, atol=1e-5)


def test_masks_equal_the_recorded_ones(recorded: Recorded):
    dino = recorded.generator()
    for i, image in enumerate(recorded.tensors["images_raw"]):
        tokens = dino.tokens(image)
        labels, _ = kmeans(tokens.flatten(0, 1), recorded.tensors["init_centroids"][i])
        full = recorded.tensors["labels_full_res"][i]
        compact = labels.unique(return_inverse=True)[1].view(tokens.shape[:2])
        masks = cluster_masks(compact, tuple(image.shape[1:]))
        assert [m.tolist() for m in masks] == [(full == value).tolist() for value in full.unique()]


def test_masks_by_hand():
    masks = cluster_masks(torch.tensor([[0, 1]]), (2, 4))
    assert masks.int().tolist() == [[[1, 1, 0, 0]] * 2, [[0, 0, 1, 1]] * 2]


@pytest.mark.parametrize("size", [(64, 64), (97, 133), (16, 50), (33, 17)])
def test_masks_cover_every_pixel_once(size: tuple[int, int]):
    proposals = Dino(DinoConfig(**TINY)).generate(picture(*size))
    assert proposals.size == size and proposals.masks.dtype == torch.bool
    assert 1 <= len(proposals) <= 16
    assert (proposals.masks.sum(0) == 1).all()
    assert proposals.masks.flatten(1).any(1).all()
    assert proposals.scores.tolist() == sorted(proposals.scores.tolist(), reverse=True)
    assert proposals.scores.max() <= 1 + 1e-6


def test_a_picture_of_two_halves_falls_into_them():
    image = torch.zeros(3, 64, 128, dtype=torch.uint8)
    image[:, :, 64:] = 255
    config = DinoConfig(**TINY, clusters=2, start="k-means++", layer=0, feature="value")
    masks = Dino(config).generate(image).masks
    assert len(masks) == 2
    for mask in masks:  # an untrained network still sees black and white apart
        left, right = mask[:, :64].float().mean(), mask[:, 64:].float().mean()
        assert {round(float(left)), round(float(right))} == {0, 1}


def test_masks_depend_on_the_picture_and_the_seed_only():
    dino, image = Dino(DinoConfig(**TINY)), picture(64, 80)
    first = dino.generate(image)
    dino.generate(picture(80, 64, seed=1))
    again = Dino(DinoConfig(**TINY)).generate(image)
    assert torch.equal(first.masks, again.masks) and torch.equal(first.scores, again.scores)
    other = Dino(DinoConfig(**TINY, seed=1)).generate(image)
    assert other.masks.shape != first.masks.shape or not torch.equal(other.masks, first.masks)


def test_fewest_masks_keep_the_best():
    dino, image = Dino(DinoConfig(**TINY)), picture(64, 64)
    few = Dino(DinoConfig(**TINY, max_masks=3)).generate(image)
    assert torch.equal(few.masks, dino.generate(image).masks[:3])


def test_short_side_sets_the_size_that_the_network_sees():
    assert Dino(DinoConfig(**TINY, short_side=64))._size(100, 150) == (64, 96)
    assert Dino(DinoConfig(**TINY))._size(100, 150) == (96, 144)
    assert Dino(DinoConfig(**TINY, max_long_side=80))._size(100, 150) == (48, 80)


def test_a_picture_smaller_than_a_patch_says_how_to_mend_it():
    with pytest.raises(UsageError, match="9 × 40 pixels is smaller than one patch") as caught:
        Dino(DinoConfig(**TINY)).generate(picture(40, 9))
    assert "short_side=224" in (caught.value.mend or "")
    assert len(Dino(DinoConfig(**TINY, short_side=32)).generate(picture(40, 9))) > 0


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_dinov3_qkvb", "vit_small_patch16_dinov3"])
@pytest.mark.parametrize("feature", ["query", "key", "value"])
def test_projections_are_those_of_the_attention(name: str, feature: str):
    """The reference lets the block run and reads the attention's projection where it is a module of its own."""
    model = build_vit(name, "random", "explicit", Silent())
    images = torch.randn(1, 3, 32, 48)
    tokens = vit_tokens(model, images, feature, 1)
    attention, inputs = model.blocks[1].attn, []
    handle = model.blocks[1].norm1.register_forward_hook(lambda m, a, out: inputs.append(out))
    model.forward_features(images)
    handle.remove()
    weight, bias = attention.qkv.weight, attention.qkv.bias
    if bias is None and attention.q_bias is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    qkv = inputs[0] @ weight.T + (0 if bias is None else bias)
    expected = qkv.chunk(3, -1)[["query", "key", "value"].index(feature)][:, model.num_prefix_tokens :]
    torch.testing.assert_close(tokens.flatten(1, 2), expected)


def test_last_token_is_the_networks_own_output():
    model = build_vit("test_vit", "random", "explicit", Silent())
    images = torch.randn(2, 3, 48, 64)
    expected = model.forward_features(images)[:, model.num_prefix_tokens :]
    torch.testing.assert_close(vit_tokens(model, images).flatten(1, 2), expected)


def test_position_rules_agree_on_the_trained_grid_only():
    ours, theirs = (build_vit("test_vit", "random", rule, Silent()) for rule in ("scale-factor", "explicit"))
    side = ours.patch_embed.img_size[0]
    trained, other = torch.randn(1, 3, side, side), torch.randn(1, 3, side, side + 32)
    torch.testing.assert_close(vit_tokens(ours, trained), vit_tokens(theirs, trained))
    assert not torch.allclose(vit_tokens(ours, other), vit_tokens(theirs, other), atol=1e-4)


def test_weights_from_a_file(tmp_path: Path):
    model = build_vit("test_vit", "random", "explicit", Silent())
    state = {k: v + 0.01 for k, v in model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pth")
    digests = set()
    for name in ("w.safetensors", "w.pth"):
        dino = Dino(DinoConfig(model="test_vit", weights=str(tmp_path / name)))
        assert all(torch.equal(v, state[k]) for k, v in dino.model.state_dict().items())
        digests.add(dino.weights)
    assert len(digests) == 1 and digests != {Dino(DinoConfig(**TINY)).weights}


def test_random_weights_are_said_and_do_not_touch_the_callers_random_state():
    said: list[str] = []

    class Says(Silent):
        def say(self, message: str) -> None:
            said.append(message)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = Dino(DinoConfig(**TINY), reporter=Says())
    assert torch.equal(torch.rand(3), expected)
    assert one.digest == Dino(DinoConfig(**TINY)).digest
    assert any("mean nothing" in s for s in said)


@pytest.mark.parametrize(
    ("settings", "error", "message", "mend"),
    [
        ({"model": "vit_smal_patch16_224.dino"}, UsageError, "unknown timm model", "vit_small_patch16_224.dino"),
        ({"model": "resnet18"}, UsageError, "no plain ViT", "vit_small_patch16_224.dino"),
        ({"model": "vit_small_patch16_224.dyno"}, UsageError, "no published weights", "vit_small_patch16_224.dino"),
        ({"model": "test_vit", "weights": "absent.pth"}, MachineError, "no such file", "published"),
        ({**TINY, "layer": 6}, UsageError, "has 6 blocks", "0 to 5"),
        ({**TINY, "layer": -7}, UsageError, "has 6 blocks", "0 to 5"),
    ],
)
def test_wrong_settings_are_answered(settings: dict, error: type, message: str, mend: str):
    with pytest.raises(error, match=message) as caught:
        Dino(DinoConfig(**settings))
    assert mend in (caught.value.mend or "")


def test_weights_of_another_network_are_refused(tmp_path: Path):
    wider = build_vit("test_vit2", "random", "explicit", Silent())
    state = wider.state_dict()
    patch = {"patch_embed.proj.weight": torch.zeros(64, 3, 8, 8)}
    own = build_vit("test_vit", "random", "explicit", Silent()).state_dict()
    for name, wrong in (("wider", state), ("patch", own | patch), ("lacking", dict(list(own.items())[:-1]))):
        save_file(wrong, tmp_path / f"{name}.safetensors")
        with pytest.raises(UsageError, match="another network"):
            Dino(DinoConfig(model="test_vit", weights=str(tmp_path / f"{name}.safetensors")))


def test_absent_weights_say_which_file_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MachineError, match="vit_small_patch16_224.dino are not on this machine") as caught:
        Dino(DinoConfig())
    assert "--set weights=FILE" in (caught.value.mend or "") and "HF_HOME" in (caught.value.mend or "")
