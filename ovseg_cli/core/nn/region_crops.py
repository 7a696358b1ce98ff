"""How a mask becomes a picture that CLIP can read: cut out and masked, in the two ways of the frozen hosts.

ZSSeg and FreeSeg (`masked_crops`): tight box, everything outside of the mask in CLIP's mean colour, bicubic resize.
ZegFormer (`zegformer_regions`): mask by multiplication, RoIAlign. In both, CLIP's mean colour is 0 once a picture is
normalised, so masking a normalised picture is a multiplication.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from ovseg_cli.core.errors import ShapeError

RegionStyle = Literal["cropmask", "mask", "crop"]


def tight_boxes(masks: Tensor) -> Tensor:
    """Return the boxes of masks.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) int64: x0, y0, x1, y1, the last two exclusive; zeros where a mask is empty.
    """
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    left, right = _span(columns)
    top, bottom = _span(rows)
    return torch.stack([left, top, right, bottom], dim=1)


def _span(used: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first used position and the one after the last, (N,) each, of (N, L) bool; zeros where none is."""
    length = used.shape[1]
    place = torch.arange(length, device=used.device)
    last = torch.where(used, place + 1, 0).amax(1)
    first = torch.where(used, place, length).amin(1)
    return torch.where(last > 0, first, 0), last


def expand_boxes(boxes: Tensor, ratio: float, size: tuple[int, int]) -> Tensor:
    """Widen boxes about their centres, cut at the picture's border.

    Args:
        boxes: (N, 4) int64, x0, y0, x1, y1.
        ratio: Factor of width and height; 1 changes nothing.
        size: (H, W) of the picture.

    Returns:
        (N, 4) int64. Coordinates are truncated toward zero, as in the code of ZSSeg.
    """
    if ratio == 1.0:
        return boxes
    low, high = boxes[:, :2].double(), boxes[:, 2:].double()
    centre, half = (low + high) / 2, (high - low) * ratio / 2
    limit = torch.tensor([size[1], size[0]], device=boxes.device)
    first = (centre - half).trunc().long().clamp_min(0)
    last = torch.minimum((centre + half).trunc().long(), limit)
    return torch.cat([first, last], dim=1)


def masked_crops(
    image: Tensor,
    masks: Tensor,
    side: int = 224,
    *,
    threshold: float = 0.5,
    expand: float = 1.0,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cut masks out of a picture, as ZSSeg and FreeSeg do.

    Args:
        image: (3, H, W), normalised with CLIP's mean and standard deviation.
        masks: (N, H, W) probabilities.
        side: Side of the crops; the aspect ratio is not kept.
        threshold: A pixel is in the mask where the probability is above this.
        expand: Factor of the box's width and height.
        align_corners: Of the bicubic resize (no antialias): off in ZSSeg, on in FreeSeg.

    Returns:
        Crops (n, 3, side, side) of the n masks that have a pixel, and which these are, (N,) bool.

    Raises:
        ShapeError: Masks and picture differ in size.

    Source: ZSSeg and FreeSeg, code (`crop_with_mask`). Their order is fill, then normalise: the same up to round-off.
    """
    if masks.shape[-2:] != image.shape[-2:]:
        raise ShapeError(f"masks {tuple(masks.shape)} and picture {tuple(image.shape)} differ in height or width")
    inside = masks > threshold
    valid = inside.flatten(1).any(1)
    inside = inside[valid]
    boxes = expand_boxes(tight_boxes(inside), expand, (int(image.shape[-2]), int(image.shape[-1])))
    crops = image.new_empty(len(boxes), 3, side, side)
    for crop, mask, (x0, y0, x1, y1) in zip(crops, inside, boxes.tolist(), strict=True):
        region = image[:, y0:y1, x0:x1] * mask[y0:y1, x0:x1]
        crop.copy_(F.interpolate(region[None], (side, side), mode="bicubic", align_corners=align_corners)[0])
    return crops, valid


def zegformer_boxes(masks: Tensor) -> Tensor:
    """Return the boxes that ZegFormer cuts.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) float32: x0, y0, x1, y1. Quirk of the code, kept: x1 and y1 are the index of the last pixel, not one
        more; a box without area by this count (empty, or one pixel wide or high) becomes the whole canvas.
    """
    boxes = tight_boxes(masks)
    boxes[:, 2:] -= 1
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    empty = ~masks.flatten(1).any(1)
    whole = boxes.new_tensor([0, 0, masks.shape[-1], masks.shape[-2]])
    return torch.where((empty | (width * height == 0))[:, None], whole, boxes).float()


def zegformer_regions(
    image: Tensor, masks: Tensor, side: int = 224, style: RegionStyle = "cropmask", chunk: int = 16
) -> Tensor:
    """Cut masks out of a picture, as ZegFormer does.

    Args:
        image: (3, H, W), normalised with CLIP's mean and standard deviation, padded with zeros.
        masks: (N, H, W) probabilities on the same canvas; inside is where they are above one half.
        side: Side of the regions.
        style: "cropmask": the masked picture within the box; "crop": the picture within the box; "mask": the masked
            whole picture, picture and mask logits brought to `side` bilinearly before the mask is cut.
        chunk: Masks at once; bounds the memory, changes nothing.

    Returns:
        (N, 3, side, side). An empty mask gives zeros, or the whole picture under "crop".

    Raises:
        ShapeError: Masks and picture differ in size.

    Source: ZegFormer, code (`mask_former_model.py`): RoIAlign with `aligned=True` and as many samples as pixels.
    """
    if masks.shape[-2:] != image.shape[-2:]:
        raise ShapeError(f"masks {tuple(masks.shape)} and picture {tuple(image.shape)} differ in height or width")
    if style == "mask":
        return _shrunk(image[None], side) * (_shrunk(masks[:, None].logit(eps=1e-7), side) > 0)
    inside = masks > 0.5
    boxes = zegformer_boxes(inside)
    if style == "crop":
        return roi_align(image[None], [boxes], side, aligned=True)
    regions = image.new_empty(len(masks), 3, side, side)
    for start in range(0, len(masks), chunk):
        part = slice(start, start + chunk)
        masked = image * inside[part, None]
        regions[part] = roi_align(masked, list(boxes[part].split(1)), side, aligned=True)
    return regions


def _shrunk(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
