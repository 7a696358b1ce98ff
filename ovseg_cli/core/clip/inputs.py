"""How a picture is brought to a CLIP's image tower: its size, its normalisation, its windows.

Sizes, decided once for all methods:
- Without windows the resized picture's sides are rounded to the nearest multiple of the patch, so that the feature grid
  covers the whole picture and each cell the same share of it.
- With windows the canvas keeps the size that the aspect ratio gives (as mmseg does), and the windows are cut from it.
- What then still is no multiple of the patch (a window of odd size) is shrunk inside `dense.fit_patches`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.errors import UsageError

Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class ResizeRule:
    """How large a picture becomes.

    Attributes:
        kind: "square" squashes to side × side; "short-side" keeps the aspect ratio; "none" keeps the size.
        side: Pixels of the square or of the short side.
        max_long_side: "short-side" and "none" scale down where the long side would exceed this.
        patch: Sides become multiples of this; 1 leaves them (windows).
    """

    kind: str
    side: int
    max_long_side: int
    patch: int = 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that a picture of this size gets, at least one patch on each side."""
        if self.kind == "square":
            return self._round(self.side), self._round(self.side)
        limit = self.max_long_side / max(height, width)
        scale = min(1.0 if self.kind == "none" else self.side / min(height, width), limit)
        return self._round(height * scale), self._round(width * scale)

    def _round(self, length: float) -> int:
        return max(1, math.floor(length / self.patch + 0.5)) * self.patch


def resize_image(image: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """Resize (3, H, W) uint8 to (3, h, w) float32 in 0 to 255, bilinear, align_corners=False.

    Args:
        image: The picture.
        size: (h, w).
        antialias: Average over what a target pixel covers when shrinking, as PIL does; off it reads four neighbours,
            as OpenCV and torch do by default.
    """
    pixels = image[None].float()
    if tuple(image.shape[-2:]) == size:
        return pixels[0]
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=antialias)[0]


def resize_bytes(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (3, H, W) uint8 to (3, h, w) uint8 as PIL's bilinear filter does, which averages where it shrinks.

    Values may differ from PIL's by one: its weights have more digits.
    """
    if tuple(image.shape[-2:]) == size:
        return image
    pixels = image[None].float() if image.is_cuda else image[None].contiguous(memory_format=torch.channels_last)
    resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)[0]
    return resized.round().clamp(0, 255).to(torch.uint8) if image.is_cuda else resized


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bring (..., 3, H, W) in 0 to 255 to what the CLIP was trained on; mean and std are (3,), of values 0 to 1."""
    return (images / 255 - mean[:, None, None]) / std[:, None, None]


def window_boxes(canvas: tuple[int, int], window: int, stride: int) -> list[Box]:
    """Return the windows that cover a canvas, row-major; the last ones are shifted inward to touch the border.

    Args:
        canvas: (H, W).
        window: Side in pixels; on a smaller canvas the window is the canvas' side.
        stride: Step in pixels; 0 is the window's own side.

    Raises:
        UsageError: The stride is larger than the window, which would leave gaps.

    Source: mmsegmentation, `slide_inference`, as SCLIP, ClearCLIP, NACLIP and ProxyCLIP use it.
    """
    stride = stride or window
    if stride > window:
        raise UsageError(f"stride {stride} is larger than the window {window}: pixels between would not be scored.")
    return [
        (top, left, min(window, canvas[0]), min(window, canvas[1]))
        for top in _starts(canvas[0], window, stride)
        for left in _starts(canvas[1], window, stride)
    ]


def _starts(length: int, window: int, stride: int) -> list[int]:
    steps = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - window), 0) for i in range(steps)]


def cut(canvas: Tensor, box: Box) -> Tensor:
    """Return the part of (3, H, W) that a box names."""
    top, left, height, width = box
    return canvas[:, top : top + height, left : left + width]


def bilinear_weights(source: int, target: int, like: Tensor) -> Tensor:
    """Return the (target, source) matrix that resizes one axis bilinearly (align_corners=False, no antialias)."""
    eye = torch.eye(source, device=like.device, dtype=like.dtype)[None]
    return F.interpolate(eye, target, mode="linear", align_corners=False)[0].T
