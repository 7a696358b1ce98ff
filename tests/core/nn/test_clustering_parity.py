"""From the momentum encoder's features to targets, one recorded step of PixelCLIP (parity/pixelclip, `train.*`)."""

import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.nn.region_pooling import region_sums
from ovseg_cli.core.nn.sinkhorn import sinkhorn
from tests.core.clip.parity_models import assert_close, load_recorded


@pytest.fixture(scope="module", params=["vit", "conv"])
def recorded(parity, request):
    return load_recorded(parity, request.param)


@pytest.fixture(scope="module")
def on_grid(recorded):
    """Masks of each picture on the mask grid, (n, M, M') bool, without those of one pixel or none."""
    size = tuple(recorded.config["mask_resolution"])
    all_masks = [recorded.tensors[f"train.masks.{i}"] for i in range(len(recorded.tensors["train.image"]))]
    assert [len(masks) for masks in all_masks] == recorded.config["masks_before_filter"]
    small = [F.interpolate(masks[None].float(), size, mode="nearest")[0] > 0 for masks in all_masks]
    kept = [masks[masks.flatten(1).sum(1) > 1] for masks in small]
    assert sum(map(len, kept)) == recorded.config["masks_after_filter_total"]
    return kept


def regions(masks):
    """Return the map of regions and the table of masks."""
    kinds, place = masks.flatten(1).unique(dim=1, return_inverse=True)
    return place.view(masks.shape[1:]).int(), kinds.to(torch.uint8)


def test_similarities_of_masks_and_classes_equal_the_recorded_ones(recorded, on_grid):
    pooled = []
    for features, masks in zip(recorded.tensors["train.teacher_feat"], on_grid, strict=True):
        sums, areas = region_sums(features.permute(1, 2, 0), *regions(masks))
        assert areas.equal(masks.flatten(1).sum(1).float())
        pooled.append(sums / areas[:, None])
    classes = F.normalize(recorded.tensors["prompt.class_features"], dim=-1)
    logits = recorded.config["eps"] * F.normalize(torch.cat(pooled), dim=-1) @ classes.T
    assert_close(logits, recorded.tensors["train.assign_logits"])


def test_targets_equal_the_recorded_ones(recorded, on_grid):
    q = sinkhorn(recorded.tensors["train.assign_logits"], recorded.config["sinkhorn_iters"])
    assert (q - recorded.tensors["train.assign_Q"]).abs().max() <= 2e-6
    classes = q.argmax(1)
    assert classes.equal(recorded.tensors["train.assign_hard"])
    expected = recorded.tensors["train.targets"]
    targets = torch.zeros_like(expected)
    parts = classes.split([len(masks) for masks in on_grid])
    for i, (masks, part) in enumerate(zip(on_grid, parts, strict=True)):
        for mask, name in zip(masks, part.tolist(), strict=True):
            targets[i, name][mask] = 1
    assert targets.equal(expected)
