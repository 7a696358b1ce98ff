"""How do pictures become small? Photographs as lossy WebP, label maps without loss as WebP or PNG, what is smaller."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_cli.core.page.document import Drawing

QUALITY = 80
_PALETTE = 256


def draw_photo(image: NDArray[np.uint8]) -> Drawing:
    """Encode a picture, (H, W, 3) uint8 RGB."""
    return Drawing("image/webp", _encode(Image.fromarray(image), "WEBP", quality=QUALITY, method=4))


def draw_labels(ids: NDArray[np.integer], colors: NDArray[np.uint8]) -> Drawing:
    """Encode a label map in class colours, without loss.

    Args:
        ids: (H, W); values that are no class become transparent.
        colors: (K, 3) uint8 RGB.
    """
    known = (ids >= 0) & (ids < len(colors))
    present, index = np.unique(np.where(known, ids, len(colors)), return_inverse=True)
    table = np.zeros((len(colors) + 1, 4), np.uint8)
    table[:-1] = np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], axis=1)
    table = table[present]
    index = index.reshape(ids.shape)
    found = [Drawing("image/webp", _encode(_plain(table[index]), "WEBP", lossless=True, quality=100, method=4))]
    if len(present) <= _PALETTE:
        found.append(Drawing("image/png", _palette_png(index.astype(np.uint8), table)))
    return min(found, key=lambda drawing: len(drawing.data))


def _plain(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image without an alpha channel where nothing is transparent."""
    return Image.fromarray(pixels if (pixels[..., 3] < 255).any() else np.ascontiguousarray(pixels[..., :3]))


def _palette_png(index: NDArray[np.uint8], table: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(index)
    image.putpalette(table[:, :3].tobytes())
    options = {} if (table[:, 3] == 255).all() else {"transparency": table[:, 3].tobytes()}
    return _encode(image, "PNG", optimize=True, **options)


def _encode(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
