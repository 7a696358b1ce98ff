"""Sliding windows, for methods that read a picture piece by piece: which there are, those of equal size at once."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ovseg_cli.core.clip import inputs

Key = tuple[int, int]  # picture, window


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
