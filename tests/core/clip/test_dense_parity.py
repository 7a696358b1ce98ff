"""Dense and global features against the recorded outputs of the papers' own modules (parity/pixelclip)."""

import re

import pytest
import torch

from ovseg_cli.core.clip.vit import LastBlock, Similarities
from tests.core.clip.parity_models import assert_close, load_recorded, read_fixture

REDUCED = {"residual": "none", "mlp": False}
# name in training_free.safetensors -> what the last block does
TRAINING_FREE = {
    "raw": "raw",
    "clearclip_repo.vanilla.residual": "raw",
    "clearclip_repo.MaskCLIP.residual": "value",
    "clearclip_repo.MaskCLIP.noresidual": "value-only",
    "raw_reduced": LastBlock(Similarities(("qk",)), **REDUCED),
    "clearclip_repo.vanilla.noresidual": LastBlock(Similarities(("qk",)), **REDUCED),
    "kk_reduced": LastBlock(Similarities(("kk",)), **REDUCED),
    "sclip": LastBlock(Similarities(("qq", "kk"))),
    "clearclip_repo.SCLIP.residual": LastBlock(Similarities(("qq", "kk"))),
    "clearclip_repo.SCLIP.noresidual": LastBlock(Similarities(("qq", "kk")), **REDUCED),
    "clearclip_repo.ClearCLIP.residual": LastBlock(Similarities(("qq",))),
    "clearclip_repo.ClearCLIP.noresidual": LastBlock(Similarities(("qq",)), **REDUCED),
}


@pytest.fixture(scope="module")
def vit(parity):
    return load_recorded(parity, "vit")


@pytest.fixture(scope="module")
def conv(parity):
    return load_recorded(parity, "conv")


@torch.no_grad()
def test_vit_dense_features_match_pixelclip(vit):
    dense = vit.clip.dense(vit.tensors["dense.input"], "value-cls", "explicit")
    assert_close(dense, vit.tensors["dense.student"])


@torch.no_grad()
def test_convnext_dense_features_match_pixelclip(conv):
    assert_close(conv.clip.dense(conv.tensors["dense.input"]), conv.tensors["dense.student"])


@torch.no_grad()
@pytest.mark.parametrize(("kind", "path"), [("vit", "value-cls"), ("conv", "raw")])
def test_dense_features_of_the_momentum_encoder_match_pixelclip(parity, kind, path):
    recorded = load_recorded(parity, kind)
    dense = recorded.teacher().dense(recorded.tensors["dense.input"], path, "explicit")
    assert_close(dense, recorded.tensors["dense.teacher"])


@torch.no_grad()
def test_vit_global_features_match_pixelclip_at_another_size(vit):
    assert_close(vit.clip.encode_image(vit.tensors["dense.input"]), vit.tensors["global.student"])


@torch.no_grad()
def test_convnext_global_features_match_pixelclip(conv):
    assert_close(conv.clip.encode_image(conv.tensors["dense.input"]), conv.tensors["global.student"])


@torch.no_grad()
@pytest.mark.parametrize("shape", ["square", "rect"])
@pytest.mark.parametrize("name", TRAINING_FREE)
def test_last_block_variants_match_their_repositories(vit, parity, name, shape):
    recorded = read_fixture(parity, "training_free")
    dense = vit.clip.dense(recorded[f"input_{shape}"], TRAINING_FREE[name], "scale-factor")
    assert_close(dense.flatten(1, 2), recorded[f"{name}.{shape}"])


def naclip_prior(grid, sigma=5.0):
    """Gaussian over patch distance, 0 for the class token (pixelclip.md 10.1), written out place by place."""
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()
    prior = torch.zeros(1 + len(places), 1 + len(places))
    prior[1:, 1:] = torch.exp(-(torch.cdist(places, places) ** 2) / (2 * sigma**2))
    return prior


@torch.no_grad()
@pytest.mark.parametrize("shape", ["square", "rect"])
def test_a_bias_on_the_grid_is_enough_for_naclip(vit, parity, shape):
    recorded = read_fixture(parity, "training_free")
    block = LastBlock(Similarities(("kk",), bias=naclip_prior), **REDUCED)
    dense = vit.clip.dense(recorded[f"input_{shape}"], block, "scale-factor")
    assert_close(dense.flatten(1, 2), recorded[f"naclip.{shape}"])


def proxy_attention(features, beta, gamma):
    """ProxyCLIP's map (pixelclip.md 10.1): shows that an attention may leave CLIP's grid."""
    maps = torch.nn.functional.normalize(features.flatten(2), dim=1)
    similar = maps.transpose(1, 2) @ maps
    similar = gamma * (similar - beta * similar.mean())
    weights = similar.masked_fill(similar < 0, float("-inf")).softmax(-1)[:, None]
    size = tuple(features.shape[-2:])

    def attend(q, k, v, grid):
        b, n, _, d = v.shape
        patches = v[:, :, 1:].transpose(2, 3).reshape(b, n * d, *grid)
        patches = torch.nn.functional.interpolate(patches, size, mode="bilinear", align_corners=False)
        patches = patches.reshape(b, n, d, -1).transpose(2, 3)
        return torch.cat([v[:, :, :1], weights @ patches], dim=2), size

    return attend


@torch.no_grad()
def test_an_attention_may_change_the_grid_as_proxyclip_does(vit, parity):
    recorded = read_fixture(parity, "training_free")
    cases = {name: re.fullmatch(r"proxy\.beta([\d.]+)_gamma([\d.]+)", name) for name in recorded}
    runs = {name: ("proxy.ex_feats", float(m[1]), float(m[2])) for name, m in cases.items() if m}
    if "proxy.same_grid" in recorded:
        runs["proxy.same_grid"] = ("proxy.ex_feats_same_grid", 1.2, 3.0)
    if not runs:
        pytest.skip("these fixtures record no attention of ProxyCLIP")
    for name, (features, beta, gamma) in runs.items():
        block = LastBlock(proxy_attention(recorded[features], beta, gamma), **REDUCED)
        dense = vit.clip.dense(recorded["input_square"], block, "scale-factor")
        assert dense.shape[1:3] == recorded[features].shape[2:]
        assert_close(dense.flatten(1, 2), recorded[name])
