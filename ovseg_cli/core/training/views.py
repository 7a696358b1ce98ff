"""How does the strong view differ from the weak one, which is the example itself?

Source: PixelCLIP's code (Shin et al., NeurIPS 2024): eight times in ten torchvision's ColorJitter(0.5, 0.5, 0.5, 0.25),
two times in ten grey, half of the time a Gaussian blur; then always a black box that lies inside the picture. Colours
and blur are computed on PIL's pictures: colours equal torchvision's to the bit, the blur is Pillow's three box filters.

All that is random about a view is drawn first, always the same number of values in the same order.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

if TYPE_CHECKING:
    from ovseg_cli.core.methods.trained import SecondView
    from ovseg_cli.core.training.augment import Size

JITTER_SHARE, GREY_SHARE, BLUR_SHARE = 0.8, 0.2, 0.5
"""How often colours change, a picture turns grey, and it is blurred."""
FACTORS = (0.5, 1.5)
"""Of brightness, contrast and saturation."""
HUES = (-0.25, 0.25)
"""In turns."""
SIGMAS = (0.1, 2.0)
"""Of the blur, in pixels."""
BOX_SIDES = (0.1, 0.5)
"""Sides of the box, as a share of the example's."""

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels; without a box four zeros."""


@dataclass(frozen=True)
class Strong:
    """What is random about a strong view.

    Attributes:
        changes: Brightness, contrast, saturation and hue in the order in which they come, each with its factor, hue
            with its turn; empty where colours stay.
        grey: Without colours.
        sigma: Of the blur; 0 blurs nothing.
        box: Height and width of the black box as shares of the example, top and left as shares of the room that is
            left; None is no box.
    """

    changes: tuple[tuple[str, float], ...] = ()
    grey: bool = False
    sigma: float = 0.0
    box: tuple[float, float, float, float] | None = None


def draw_strong(rng: np.random.Generator, view: "SecondView") -> Strong:
    """Draw what is random about a strong view; consumes sixteen numbers, whatever of them is used."""
    coins, factors, order, (sigma, *box) = np.split(rng.random(16), [3, 7, 11])
    limits = {"brightness": FACTORS, "contrast": FACTORS, "saturation": FACTORS, "hue": HUES}
    changes = [(name, _between(limits[name], share)) for name, share in zip(limits, factors, strict=True)]
    height, width = (_between(BOX_SIDES, share) for share in box[:2])
    drawn = Strong(
        changes=tuple(changes[i] for i in np.argsort(order)) if coins[0] < JITTER_SHARE else (),
        grey=bool(coins[1] < GREY_SHARE),
        sigma=_between(SIGMAS, sigma) if coins[2] < BLUR_SHARE else 0.0,
        box=(height, width, float(box[2]), float(box[3])) if view.cut_out else None,
    )
    return drawn if view.colors else replace(drawn, changes=(), grey=False, sigma=0.0)


def box_of(drawn: Strong, size: "Size") -> Box:
    """Return the black box of an example of (H, W): at least a pixel, and inside; four zeros where there is none."""
    if drawn.box is None:
        return 0, 0, 0, 0
    height, width = (max(1, int(share * side)) for share, side in zip(drawn.box[:2], size, strict=True))
    top, left = int(drawn.box[2] * (size[0] - height + 1)), int(drawn.box[3] * (size[1] - width + 1))
    return top, left, height, width


def strong_view(weak: np.ndarray, drawn: Strong) -> np.ndarray:
    """Return the strong view, (h, w, 3) uint8, of an example's pixels of the same form."""
    image = Image.fromarray(np.ascontiguousarray(weak))
    for name, factor in drawn.changes:
        image = _CHANGES[name](image, factor)
    if drawn.grey:
        image = image.convert("L").convert("RGB")
    if drawn.sigma:
        image = image.filter(ImageFilter.GaussianBlur(drawn.sigma))
    pixels = np.array(image)
    top, left, height, width = box_of(drawn, (weak.shape[0], weak.shape[1]))
    pixels[top : top + height, left : left + width] = 0
    return pixels


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Add a share of a full turn to each pixel's hue, in 256 steps."""
    levels = np.arange(256)
    turned = (levels + int(turn * 255)) % 256
    return image.convert("HSV").point([*turned.tolist(), *levels.tolist(), *levels.tolist()]).convert("RGB")


_CHANGES = {
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "hue": _turn_hue,
}


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * float(share)
