"""Labels that are coded by colours: which number red, green and blue make."""

from pathlib import Path

import numpy as np

from ovseg_cli.core.data.images import load_colors


def packed(path: Path) -> np.ndarray:
    """Read a picture as one number a pixel, (H, W) int32: r + 256 g + 65536 b."""
    return pack(load_colors(path))


def pack(colors: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 RGB as (...) int32: r + 256 g + 65536 b."""
    values = np.zeros((*colors.shape[:-1], 4), np.uint8)
    values[..., :3] = colors
    return values.view("<i4")[..., 0].astype(np.int32, copy=False)


def ade_class(path: Path) -> np.ndarray:
    """Read a `_seg.png` of the full ADE20K, (H, W) int32: red // 10 * 256 + green; blue numbers the instances."""
    colors = load_colors(path)
    return (colors[..., 0] // 10).astype(np.int32) * 256 + colors[..., 1]


def color_text(value: int) -> str:
    """Return a packed colour as it is written: "(128, 64, 0)"."""
    return f"({value & 255}, {value >> 8 & 255}, {value >> 16})"
