"""Region pictures for CLIP: by hand, against the recorded regions of the papers' own code, and at the edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F

from ovseg_cli.core.clip.model import OPENAI_MEAN, OPENAI_STD
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.region_crops import expand_boxes, masked_crops, tight_boxes, zegformer_boxes, zegformer_regions

TOLERANCE = 2e-5  # the recorded tolerance of float32 (its README)
SUM = 5e-7  # of a sum over many numbers, for each of them
STYLES = ("cropmask", "mask", "crop")


def mask_of(height, width, *boxes):
    mask = torch.zeros(height, width)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


def normalised(picture):
    mean, std = (255 * torch.tensor(v)[:, None, None] for v in (OPENAI_MEAN, OPENAI_STD))
    return (picture.float() - mean) / std


# --- boxes


def test_box_ends_one_after_the_last_pixel_and_spans_all_parts():
    masks = torch.stack([mask_of(4, 5, (1, 2, 3, 4)), mask_of(4, 5, (0, 0, 1, 1), (4, 3, 5, 4)), torch.zeros(4, 5)])
    assert tight_boxes(masks > 0).tolist() == [[1, 2, 3, 4], [0, 0, 5, 4], [0, 0, 0, 0]]


def test_wider_boxes_keep_their_centre_and_stay_on_the_picture():
    boxes = torch.tensor([[4, 4, 8, 6], [0, 1, 3, 9]])
    assert expand_boxes(boxes, 1.0, (10, 12)) is boxes
    # 4 x 2 about (6, 5) → 6 x 3: 3 .. 9, 3.5 .. 6.5 truncated; 3 x 8 about (1.5, 5) → -0.75 .. 3.75, -1 .. 11 cut to 10
    assert expand_boxes(boxes, 1.5, (10, 12)).tolist() == [[3, 3, 9, 6], [0, 0, 3, 10]]


def test_zegformer_boxes_end_at_the_last_pixel_and_lines_become_the_canvas():
    masks = torch.stack(
        [mask_of(4, 6, (1, 1, 4, 3)), mask_of(4, 6, (2, 0, 3, 4)), mask_of(4, 6, (5, 3, 6, 4)), torch.zeros(4, 6)]
    )
    whole = [0.0, 0.0, 6.0, 4.0]
    assert zegformer_boxes(masks > 0).tolist() == [[1.0, 1.0, 3.0, 2.0], whole, whole, whole]


# --- regions


def test_crop_without_resizing_is_the_masked_picture():
    image = torch.randn(3, 8, 9)
    masks = torch.stack([mask_of(8, 9, (2, 1, 6, 5)), mask_of(8, 9, (2, 1, 6, 2), (2, 4, 3, 5))])
    crops, valid = masked_crops(image, masks, 4)
    assert valid.tolist() == [True, True]
    assert crops[0].equal(image[:, 1:5, 2:6])
    assert crops[1, :, 0].equal(image[:, 1, 2:6]) and crops[1, :, 1:3].abs().max() == 0


def test_crops_are_painted_in_clips_mean_colour():
    picture = torch.full((3, 6, 6), 200, dtype=torch.uint8)
    mask = mask_of(6, 6, (0, 0, 6, 6)) - mask_of(6, 6, (2, 2, 4, 4))
    crops, _ = masked_crops(normalised(picture), mask[None], 6)
    back = crops[0] * 255 * torch.tensor(OPENAI_STD)[:, None, None] + 255 * torch.tensor(OPENAI_MEAN)[:, None, None]
    torch.testing.assert_close(back[:, 2, 2], 255 * torch.tensor(OPENAI_MEAN))
    torch.testing.assert_close(back[:, 0, 0], torch.full((3,), 200.0))


def test_threshold_says_what_belongs_to_a_crop():
    image, mask = torch.ones(3, 4, 4), 0.45 * mask_of(4, 4, (0, 0, 2, 4)) + 0.55 * mask_of(4, 4, (2, 0, 4, 4))
    assert masked_crops(image, mask[None], 4)[0].mean() == 1
    crops, _ = masked_crops(image, mask[None], 4, threshold=0.4)
    assert crops.mean() == 1 and tight_boxes(mask[None] > 0.4).tolist() == [[0, 0, 4, 4]]
    assert not masked_crops(image, mask[None], 4, threshold=0.6)[1].any()


def test_expanding_shows_more_of_the_mean_colour():
    image, mask = torch.ones(3, 12, 12), mask_of(12, 12, (4, 4, 8, 8))
    crops, _ = masked_crops(image, mask[None], 8, expand=2.0)
    torch.testing.assert_close(crops[0, 0], mask[2:10, 2:10])


def test_zegformer_styles_differ_in_what_they_hide():
    image, mask = torch.ones(3, 16, 16), mask_of(16, 16, (2, 2, 14, 8)) - mask_of(16, 16, (4, 4, 6, 6))
    cropmask, whole, crop = (zegformer_regions(image, mask[None], 16, style)[0, 0] for style in STYLES)
    torch.testing.assert_close(crop, torch.ones(16, 16))
    assert 0 < cropmask.mean() < 1 and whole.equal(mask)


def test_region_of_an_empty_mask_is_the_mean_colour_or_the_whole_picture():
    image, nothing = torch.ones(3, 32, 32), torch.zeros(1, 32, 32)
    assert all(zegformer_regions(image, nothing, 8, style).abs().max() == 0 for style in ("cropmask", "mask"))
    torch.testing.assert_close(zegformer_regions(image, nothing, 8, "crop"), torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize("cut", [masked_crops, zegformer_regions])
def test_masks_of_another_size_are_refused(cut):
    with pytest.raises(ShapeError, match="differ in height or width"):
        cut(torch.zeros(3, 8, 8), torch.zeros(1, 8, 9))


def test_no_masks_give_no_regions():
    image, none = torch.zeros(3, 8, 8), torch.zeros(0, 8, 8)
    crops, valid = masked_crops(image, none, 4)
    assert crops.shape == (0, 3, 4, 4) and valid.shape == (0,)
    assert all(zegformer_regions(image, none, 4, style).shape == (0, 3, 4, 4) for style in STYLES)


def sampled_roi(image, box, side):
    """RoIAlign written out: the mean of bilinear samples, as many in a cell as it covers pixels, rounded up."""
    x0, y0, x1, y1 = (float(v) - 0.5 for v in box)
    counts = [max(1, int(torch.tensor((b - a) / side).ceil())) for a, b in ((y0, y1), (x0, x1))]
    ys, xs = (
        a + (torch.arange(side * n, dtype=torch.float64) + 0.5) * (b - a) / (side * n)
        for (a, b), n in zip(((y0, y1), (x0, x1)), counts, strict=True)
    )
    rows, columns = (_bilinear(place, length) for place, length in zip((ys, xs), image.shape[-2:], strict=True))
    dense = rows @ image.double() @ columns.T
    return F.avg_pool2d(dense[None], counts)[0].float()


def _bilinear(places, length):
    places = places.clamp(0, length - 1)
    low = places.floor().long().clamp_max(max(length - 2, 0))
    weights = torch.zeros(len(places), length, dtype=torch.float64)
    weights[torch.arange(len(places)), low] = 1 - (places - low)
    weights[torch.arange(len(places)), (low + 1).clamp_max(length - 1)] += places - low
    return weights


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 40), st.integers(3, 40), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_zegformer_regions_equal_sampling_written_out(height, width, side, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(3, height, width, generator=generator)
    masks = (torch.rand(3, height, width, generator=generator) < 0.3).float()
    masks *= torch.rand(3, height, 1, generator=generator) < 0.5
    found = zegformer_regions(image, masks, side, chunk=chunk)
    for region, mask, box in zip(found, masks, zegformer_boxes(masks > 0.5), strict=True):
        torch.testing.assert_close(region, sampled_roi(image * mask, box, side), atol=1e-4, rtol=1e-4)


# --- recorded


@pytest.fixture(scope="module")
def recorded(parity):
    return load_file(parity / "maft" / "host_crops_and_ensembles.safetensors")


def same_regions(found, recorded, name):
    for key, value in (("stride8", found[:, :, 4::8, 4::8]), ("avgpool16", F.avg_pool2d(found, 16))):
        wanted = recorded.get(f"{name}_{key}")
        if wanted is not None:
            atol = TOLERANCE * max(1.0, float(wanted.abs().max()))
            torch.testing.assert_close(value, wanted, atol=atol, rtol=0)


@pytest.mark.parametrize(("host", "align_corners"), [("zsseg", False), ("freeseg", True)])
def test_recorded_crops(recorded, host, align_corners):
    masks = recorded["crop_mask_f16"].float()
    crops, valid = masked_crops(normalised(recorded["crop_image_u8"]), masks, align_corners=align_corners)
    assert valid.tolist() == recorded[f"{host}_valid"].bool().tolist()
    assert tight_boxes(masks[valid] > 0.5).tolist() == recorded[f"{host}_boxes_xyxy"].long().tolist()
    same_regions(crops, recorded, f"{host}_regions")
    sums, wanted = crops.double().sum((1, 2, 3)), recorded[f"{host}_regions_sum"]
    assert float((sums - wanted).abs().max()) < SUM * crops[0].numel()


@pytest.mark.parametrize("style", STYLES)
def test_recorded_zegformer_regions(recorded, style):
    image = normalised(recorded["zegformer_image_u8"])
    logits = recorded["zegformer_pred_masks_logits"].float()
    masks = F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)[0].sigmoid()
    same_regions(zegformer_regions(image, masks, style=style), recorded, f"zegformer_{style}_clip_input")
