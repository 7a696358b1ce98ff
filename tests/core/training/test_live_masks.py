"""Masks made anew in each step: those of the host, on the example, empty beside it, and the host stays as it is."""

import torch
from torch import nn
from torch.nn import functional as F

from ovseg_cli.core.methods.masked import Canvas
from ovseg_cli.core.training.live_masks import LiveMasks
from ovseg_cli.core.training.mask_crops import MaskCrops
from ovseg_cli.core.types import TextFeatures
from tests.core.methods.tiny_methods import FREESEG, tiny_method

TEXT = TextFeatures.of_classes(F.normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(0)), dim=1))


def batch(height, width, areas):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (len(areas), 3, height, width), dtype=torch.uint8, generator=generator)
    return {"images": images, "areas": torch.tensor(areas)}


def host(dropout):
    return tiny_method("freeseg", generator={**FREESEG, "dropout": dropout})


def test_masks_are_those_of_the_host_on_the_stride_grid():
    method, asked = host(0.0), batch(64, 96, [(64, 96), (64, 96)])
    found = LiveMasks(method, TEXT).of(asked)
    with torch.no_grad():
        canvases = [Canvas(image.float(), (64, 96), image) for image in asked["images"]]
        expected = [candidates.masks for candidates in method.eval().propose(canvases, TEXT)]
    for ours, theirs in zip(found, expected, strict=True):
        averaged = F.avg_pool2d(theirs[None], 4)[0] * 255
        torch.testing.assert_close(ours["levels"].float(), averaged, atol=0.51, rtol=0)
    for ours, theirs in zip(MaskCrops.of(found), expected, strict=True):
        assert ours.shape == theirs.shape and (ours.float() / 255 - theirs).abs().mean() < 0.02


def test_masks_are_empty_outside_the_example_and_any_canvas_will_do():
    crops = MaskCrops.of(LiveMasks(host(0.0), TEXT).of(batch(37, 50, [(30, 50), (37, 41)])))
    first, second = crops
    assert first.shape[1:] == second.shape[1:] == (37, 50) and len(first)
    assert not first[:, 30:].any() and not second[:, :, 41:].any() and first.any() and second.any()


def test_dropout_is_on_and_nothing_else_of_the_host_changes():
    method = host(0.5)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    live, asked = LiveMasks(method, TEXT), batch(32, 32, [(32, 32)])
    assert all(m.training for m in method.modules() if isinstance(m, nn.Dropout))
    assert not any(m.training for m in method.modules() if "Norm" in type(m).__name__)
    first, second = live.of(asked)[0]["levels"], live.of(asked)[0]["levels"]
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    third = live.of(asked)[0]["levels"]
    torch.manual_seed(3)
    assert torch.equal(third, live.of(asked)[0]["levels"]), "a resumed run draws the same"
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not first.requires_grad
