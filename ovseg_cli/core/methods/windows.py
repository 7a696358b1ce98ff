"""What methods share that read a picture whole or in sliding windows: sizes, checks, windows of equal size at once."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.methods.base import Method, MethodConfig, check_picture

Key = tuple[int, int]  # picture, window


class WindowConfig(MethodConfig):
    """Settings of methods that can slide a window."""

    window: int = Field(
        default=0, ge=0, description="Side of a sliding window in pixels of the resized picture; 0 is none."
    )
    stride: int = Field(
        default=0, ge=0, description="Step of the sliding window in pixels; 0 is the window's own side."
    )

    @model_validator(mode="after")
    def _window_leaves_no_gap(self) -> "WindowConfig":
        if self.stride and not self.window:
            raise ValueError(f"a stride of {self.stride} needs a window; set window too, or stride = 0")
        if self.stride > self.window:
            raise ValueError(f"a stride of {self.stride} leaves gaps between windows of {self.window}; lower it")
        return self


class WindowMethod(Method):
    """A method that can slide a window over the resized picture."""

    Config = WindowConfig
    config: WindowConfig

    def resize_rule(self) -> inputs.ResizeRule:
        """How large a picture becomes: multiples of the patch, except where windows are cut from it."""
        rule = super().resize_rule()
        return replace(rule, patch=1) if self.config.window else rule

    def resized(self, image: Tensor, antialias: bool) -> Tensor:
        """Resize one picture: (3, H, W) uint8 to (3, h, w) float32 in 0 to 255, on the CLIP's device.

        Raises:
            ShapeError: The picture is no (3, H, W), or has no pixels.
        """
        check_picture(image)
        return inputs.resize_image(image.to(self.clip.device), self.resize_rule().size(*image.shape[-2:]), antialias)


def windows_of(canvas: Tensor, window: int, stride: int) -> list[inputs.Box]:
    """Return the windows of a canvas (3, H, W), row-major; with `window` 0 the whole of it."""
    height, width = int(canvas.shape[-2]), int(canvas.shape[-1])
    if not window:
        return [(0, 0, height, width)]
    return inputs.window_boxes((height, width), window, stride)


def score_windows(
    canvases: Sequence[Tensor],
    boxes: Sequence[Sequence[inputs.Box]],
    at_once: int,
    score: Callable[[Tensor], Tensor],
) -> list[list[Tensor]]:
    """Score all windows of all pictures, those of equal size together.

    Args:
        canvases: Prepared pictures, each (3, H, W).
        boxes: Windows of each.
        at_once: Windows in a batch.
        score: From (n, 3, h, w) to n results.

    Returns:
        For each picture the results of its windows, in their order.
    """
    by_size: dict[tuple[int, int], list[Key]] = defaultdict(list)
    for i, windows in enumerate(boxes):
        for j, box in enumerate(windows):
            by_size[box[2], box[3]].append((i, j))
    found: dict[Key, Tensor] = {}
    for keys in by_size.values():
        for start in range(0, len(keys), at_once):
            chunk = keys[start : start + at_once]
            batch = torch.stack([inputs.cut(canvases[i], boxes[i][j]) for i, j in chunk])
            found.update(zip(chunk, score(batch), strict=True))
    return [[found[i, j] for j in range(len(windows))] for i, windows in enumerate(boxes)]
