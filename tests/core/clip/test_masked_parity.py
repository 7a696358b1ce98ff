"""IP-CLIP against the recorded outputs of MAFT's own encoder (parity/maft, section 1)."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ovseg_cli.core.clip import masked
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.clip.vit import embed, resize_positions
from tests.core.clip.one_sequence import blocked


def build_visual(config: dict, state: dict[str, torch.Tensor]):
    """The tower that `ipclip_config.json` describes, with official keys loaded."""
    vision = {
        "image_size": config["native_resolution"],
        "layers": config["layers"],
        "width": config["width"],
        "head_width": config["width"] // config["heads"],
        "patch_size": config["patch"],
    }
    text = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 1, "layers": 1}
    clip = {"embed_dim": config["output_dim"], "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    visual = build_module(clip).visual
    visual.load_state_dict(state)
    return visual.eval()


class Recorded:
    def __init__(self, folder):
        self.config = json.loads((folder / "ipclip_config.json").read_text())
        state = {k: v.float() for k, v in load_file(folder / "ipclip_weights.safetensors").items()}
        self.visual = build_visual(self.config, state)
        self.io = load_file(folder / "ipclip_io.safetensors")
        self.image, self.masks = self.io["image"].float(), self.io["mask_x64_u8"].float() / 64
        self.start = self.config["start_layer"]
        self.grid = tuple(self.io["out_masked_patches"].shape[1:3])

    def features(self, **how):
        return masked.masked_features(self.visual, self.image, self.masks, self.start, **how)


@pytest.fixture
def recorded(parity):
    return Recorded(parity / "maft")


def assert_near(actual, expected, tolerance=2e-5):
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max().item()
    assert error <= tolerance * max(1.0, expected.abs().max().item()), f"off by {error:.2e}"


def test_position_table(recorded):
    table = resize_positions(
        recorded.visual.positional_embedding, recorded.visual.grid_size, recorded.grid, "align-corners"
    )
    assert_near(table, recorded.io["pos_embed_resized"])


def test_which_patches_a_proposal_may_see(recorded):
    kept = masked.kept_patches(recorded.masks, recorded.grid)
    assert torch.equal(blocked(kept)[:, : kept.shape[1]], recorded.io["blocked_rows"].bool())


@torch.no_grad()
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_masked_features(recorded, chunk):
    assert_near(recorded.features(chunk=chunk), recorded.io["out_masked"])


@torch.no_grad()
def test_patches_of_a_masked_run(recorded):
    prefix = masked.run_prefix(recorded.visual, recorded.image, recorded.start)
    assert_near(masked.patches_from(recorded.visual, prefix), recorded.io["out_masked_patches"])


@torch.no_grad()
def test_run_without_masks(recorded):
    prefix = masked.run_prefix(recorded.visual, recorded.image, recorded.start)
    assert_near(masked.unmasked_from(recorded.visual, prefix), recorded.io["out_nomask"])


@torch.no_grad()
def test_patches_of_a_run_without_masks(recorded):
    from ovseg_cli.core.clip.dense import PATHS, dense_features

    patches = dense_features(recorded.visual, recorded.image, PATHS["raw"], "align-corners")
    assert_near(patches, recorded.io["out_nomask_patches"])


@torch.no_grad()
def test_float64(recorded):
    recorded.visual.double()
    recorded.image = recorded.image.double()
    assert (recorded.features() - recorded.io["out_masked_f64"]).abs().max() <= 1e-10
    tokens, grid = embed(recorded.visual, recorded.image, "align-corners")
    for start in range(recorded.config["layers"]):  # wherever the pass is cut, it is plain CLIP
        prefix = masked.continue_prefix(recorded.visual, tokens, grid, start)
        assert (masked.unmasked_from(recorded.visual, prefix) - recorded.io["out_nomask_f64"]).abs().max() <= 1e-10


@torch.no_grad()
def test_one_mask_of_three_dimensions(recorded):
    row = next(int(k) for k, v in recorded.config["special_rows"].items() if v == "two patches")
    out = masked.masked_features(recorded.visual, recorded.image, recorded.masks[:, row], recorded.start)
    assert_near(out[:, 0], recorded.io["out_single_mask"])


@torch.no_grad()
def test_any_subset_of_masks_and_each_picture_alone(recorded):
    for rows in (slice(0, 3), slice(5, None, 9), slice(0, 0)):
        out = masked.masked_features(recorded.visual, recorded.image, recorded.masks[:, rows], recorded.start)
        assert out.shape[1] == recorded.masks[:, rows].shape[1]
        if out.numel():
            assert_near(out, recorded.io["out_masked"][:, rows])
    for i in range(len(recorded.image)):
        alone = masked.masked_features(
            recorded.visual, recorded.image[i : i + 1], recorded.masks[i : i + 1], recorded.start
        )
        assert_near(alone[0], recorded.io["out_masked"][i])


@torch.no_grad()
def test_empty_masks_are_finite_and_alike(recorded):
    out = recorded.features()
    empty = [r for r in recorded.config["empty_mask_rows"]]
    assert torch.isfinite(out).all()
    assert torch.allclose(out[:, empty], out[:, empty[:1]].expand(-1, len(empty), -1), atol=1e-6)


def test_gradients(recorded):
    out = recorded.features()
    scalar = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
    scalar.backward()
    blocks, io = recorded.visual.transformer.resblocks, recorded.io
    # a sum of thousands of terms of both signs: compared with the size of what is summed
    assert abs(scalar.item() - io["grad_scalar"].item()) <= 2e-5 * out.detach().abs().sum().item()
    weight = io["grad_last_in_proj_weight_rows0_8"]
    assert_near(blocks[-1].attn.in_proj_weight.grad[: len(weight)], weight)
    assert_near(blocks[0].attn.out_proj.bias.grad, io["grad_first_out_proj_bias"])
