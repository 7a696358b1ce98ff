"""How a picture or a label map comes from a file, whatever its format, and how a label map is written.

Pillow reads the header first; the pixel bound is checked there, before anything is decoded. Every failure is one
sentence with the file's name. Arrays here are numpy, so that worker processes need no torch; `read_image` and
`read_label` wrap them as tensors.
"""

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ovseg_cli.core.data.archive import ArchiveMember, DataFile
from ovseg_cli.core.errors import DataError, OvsegError
from ovseg_cli.core.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 80_000_000
"""Pixels of the largest picture that is read, unless the caller says otherwise."""

_REFUSED_FORMATS = {"EPS", "WMF"}  # decoded by running other programs
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LABEL_MODES = {"1", "L", "P", "I", "I;16", "I;16L", "I;16B"}
_COLOR_MODES = {"RGB", "RGBA", "P"}
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow stretches 2- and 4-bit grey to 0..255; ids must be divided back
_pillow_limit = threading.Lock()


def read_image(
    path: Path, error: type[OvsegError] = DataError, max_pixels: int = MAX_PIXELS, upright: bool = True
) -> "Tensor":
    """Read a picture as RGB.

    Args:
        path: File in any raster format that Pillow knows; of an animation the first frame counts.
        error: What to raise: DataError for files of a data set, UsageError for a user's own pictures.
        max_pixels: Larger pictures are refused before they are decoded.
        upright: Apply the EXIF rotation.

    Returns:
        (3, H, W) uint8 RGB. Transparent pixels lie over white, as viewers show them. Grey of 16 bits is scaled to 8;
        32-bit integers count as 16-bit grey, floating-point values as 0 to 1, or as 0 to 255 where one exceeds 1.

    Raises:
        OvsegError: (of type `error`) The file is missing, a folder, empty, no picture, cut off or too large.
    """
    import torch

    return torch.from_numpy(load_image(path, error, max_pixels, upright).transpose(2, 0, 1).copy())


def read_label(path: Path, error: type[OvsegError] = DataError, max_pixels: int = MAX_PIXELS) -> "Tensor":
    """Read a label map, (H, W) int64, from a single-channel or palette picture of 1 to 32 bits.

    Raises:
        OvsegError: (of type `error`) As in `read_image`; also a picture with colour channels.
    """
    import torch

    return torch.from_numpy(load_label(path, error, max_pixels).astype(np.int64))


def load_image(
    path: DataFile, error: type[OvsegError] = DataError, max_pixels: int = MAX_PIXELS, upright: bool = True
) -> np.ndarray:
    """Read a picture, also one in an archive, as (H, W, 3) uint8 RGB; see `read_image`."""
    with _decoded(path, error, max_pixels) as picture:
        return to_rgb(picture, upright)


def to_rgb(picture: Image.Image, upright: bool = True) -> np.ndarray:
    """Bring an opened picture of any mode to (H, W, 3) uint8 RGB; see `read_image` for what becomes of each mode."""
    rgb = _to_rgb(picture)
    turn = _UPRIGHT.get(_orientation(picture)) if upright else None
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


def load_label(path: Path, error: type[OvsegError] = DataError, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a label map as (H, W) of its own integer type; see `read_label`."""
    with _opened(path, error, max_pixels) as picture:
        if picture.mode not in _LABEL_MODES:
            raise error(
                f"{path}: a label map needs one channel of class ids, this picture is {picture.mode}.",
                "Choose the annotation file, not the coloured view of it.",
            )
        step = _GREY_STEP.get(_raw_mode(picture), 1)
        _decode(picture, path, error)
        values = np.asarray(picture)
    return values.astype(np.uint8) if values.dtype == bool else values // step if step > 1 else values


def load_colors(path: Path, error: type[OvsegError] = DataError, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a label that is coded by colours as (H, W, 3) uint8 RGB, exactly as stored; of a palette its colours.

    Raises:
        OvsegError: (of type `error`) As in `read_image`; also a grey picture, and one that is partly transparent.
    """
    with _opened(path, error, max_pixels) as picture:
        mode = picture.mode
        if mode not in _COLOR_MODES:
            what = f"a label that is coded by colours needs red, green and blue, this picture is {mode}"
            raise error(f"{path}: {what}.", "Choose the coloured annotation file, or another encoding.kind.")
        _decode(picture, path, error)
        values = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    if mode == "RGBA" and values[..., 3].min() < 255:
        raise error(f"{path}: parts of this label are transparent, so their colour means nothing.", "Flatten it first.")
    return values[..., :3]


def image_size(path: DataFile, error: type[OvsegError] = DataError, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (H, W) as stored (no EXIF rotation), from the header alone."""
    with _opened(path, error, max_pixels) as picture:
        return picture.height, picture.width


def write_label(path: Path, label: Any, dtype: str = "uint8", sync: bool = True) -> int:
    """Write a label map as single-channel PNG, whole or not at all.

    Args:
        path: Target, ending in .png.
        label: (H, W) integers, a numpy array or a tensor.
        dtype: "uint8" or "uint16", the depth of the PNG.
        sync: Wait until the disk has it; a long preparation, which verifies its files, does not.

    Returns:
        Bytes written.
    """
    values = np.asarray(label)
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise ValueError(f"label values {values.min()} to {values.max()} do not fit into {dtype}")
    return write_png(path, values.astype(dtype), sync)


def write_png(path: Path, values: np.ndarray, sync: bool = True) -> int:
    """Write (H, W) or (H, W, 3) as PNG, whole or not at all; return the bytes written."""
    data = encode_png(values)
    with atomic_write(path, sync=sync) as stream:
        stream.write(data)
    return len(data)


def encode_png(values: np.ndarray) -> bytes:
    """Return the PNG bytes of an (H, W) uint8 or uint16 or an (H, W, 3) uint8 array."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _decoded(path: DataFile, error: type[OvsegError], max_pixels: int) -> Iterator[Image.Image]:
    with _opened(path, error, max_pixels) as picture:
        _decode(picture, path, error)
        try:
            yield picture
        except _DAMAGED as problem:
            raise error(f"{path}: the picture ({picture.mode}) cannot become RGB: {problem}.") from problem


@contextmanager
def _opened(path: DataFile, error: type[OvsegError], max_pixels: int) -> Iterator[Image.Image]:
    picture = _open(path if isinstance(path, ArchiveMember) else Path(path), error)
    with picture:
        if picture.width * picture.height > max_pixels:
            raise error(
                f"{path}: {picture.width} x {picture.height} pixels are more than the limit of {max_pixels:,} pixels.",
                "Make it smaller first.",
            )
        yield picture


def _open(path: DataFile, error: type[OvsegError]) -> Image.Image:
    try:
        if (path.size if isinstance(path, ArchiveMember) else path.stat().st_size) == 0:
            raise error(f"{path}: the file is empty (0 bytes).", "Fetch it again, or remove it.")
        with _no_pillow_limit():
            return Image.open(path.open() if isinstance(path, ArchiveMember) else path, formats=_formats())
    except FileNotFoundError as problem:
        gone = f" (a link to {path.readlink()}, which is gone)" if isinstance(path, Path) and path.is_symlink() else ""
        raise error(f"{path}: there is no such file{gone}.") from problem
    except IsADirectoryError as problem:
        raise error(f"{path}: this is a folder, not a picture.") from problem
    except PermissionError as problem:
        raise error(f"{path}: permission to read it is denied.", "Change its permissions.") from problem
    except UnidentifiedImageError as problem:
        what = "this is not a picture, or its format is unknown or damaged"
        raise error(f"{path}: {what}.", "Fetch it again, or remove it.") from problem
    except _DAMAGED as problem:
        raise error(f"{path}: the picture cannot be opened: {problem}.") from problem


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Keep Pillow from warning about, or refusing, sizes that our own bound is about to judge by name."""
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in _REFUSED_FORMATS]


def _decode(picture: Image.Image, path: DataFile, error: type[OvsegError]) -> None:
    try:
        picture.load()
    except (*_DAMAGED, MemoryError) as problem:
        raise error(f"{path}: the file is cut off or damaged: {problem}.", "Fetch it again, or remove it.") from problem


def _raw_mode(picture: Image.Image) -> str:
    tiles = getattr(picture, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    return arguments if isinstance(arguments, str) else str(next(iter(arguments or ("",))))


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except _DAMAGED:  # an EXIF block that cannot be parsed states no rotation
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        return Image.fromarray(_grey_to_8_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _grey_to_8_bits(values: np.ndarray) -> np.ndarray:
    top = 65535 if np.issubdtype(values.dtype, np.integer) else 1.0 if values.max() <= 1 else 255.0
    if not np.all((values >= 0) & (values <= top)):
        raise ValueError(f"grey values reach from {values.min()} to {values.max()}, expected 0 to {top}")
    return np.round(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)
