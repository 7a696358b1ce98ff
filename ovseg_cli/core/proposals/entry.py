"""How the proposals of one picture lie in a file, and what is checked when they are read.

A file is: a line that names the form, the length of the header (4 bytes, little-endian), the header (JSON: picture,
fingerprint of its pixels, size, count), the scores (float32), the masks, and a checksum of all before it. Binary masks
are COCO codes with their lengths; soft masks are uint8 probabilities, compressed.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.data import rle
from ovseg_cli.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals

MAGIC = b"ovseg-proposals-1\n"
_CHECKSUM = 16
_HEAD = len(MAGIC) + 4


@dataclass(frozen=True)
class Entry:
    """The proposals of one picture as they are kept.

    Attributes:
        name: The picture's name in its subset.
        image: Fingerprint of its pixels.
        size: (H, W) of the picture.
        scores: (N,) float32.
        codes: N COCO codes, or None where the masks are soft.
        soft: (N, h, w) uint8 probabilities, or None.
    """

    name: str
    image: str
    size: tuple[int, int]
    scores: NDArray[np.float32]
    codes: tuple[bytes, ...] | None = None
    soft: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, name: str, image: str, proposals: "Proposals") -> "Entry":
        """Encode proposals."""
        scores = np.ascontiguousarray(proposals.scores.detach().cpu().numpy(), "<f4")
        masks = proposals.masks.detach().cpu().numpy()
        size = int(proposals.size[0]), int(proposals.size[1])
        if proposals.is_soft:
            return cls(name, image, size, scores, soft=masks)
        return cls(name, image, size, scores, codes=tuple(rle.encode(masks)))

    def proposals(self) -> "Proposals":
        """Decode the masks. Raises RleError where a code does not fit the size."""
        import torch

        from ovseg_cli.core.types import Proposals

        masks = rle.decode(self.codes, self.size) if self.codes is not None else np.asarray(self.soft)
        return Proposals(torch.from_numpy(masks), torch.from_numpy(self.scores.astype(np.float32)), self.size)

    def check(self) -> None:
        """Raise what `proposals` would raise, decoding nothing."""
        if self.codes is not None:
            rle.check(self.codes, self.size)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        header: dict[str, Any] = {"name": self.name, "image": self.image, "size": self.size, "count": len(self.scores)}
        if self.codes is not None:
            body = np.array([len(code) for code in self.codes], "<u4").tobytes() + b"".join(self.codes)
        else:
            assert self.soft is not None
            header["soft"] = self.soft.shape[1:]
            body = zlib.compress(np.ascontiguousarray(self.soft).tobytes(), 1)
        words = json.dumps(header, ensure_ascii=False).encode("utf-8")
        data = MAGIC + struct.pack("<I", len(words)) + words + self.scores.astype("<f4").tobytes() + body
        return data + _checksum(data)


def image_digest(image: "Tensor | NDArray[np.uint8]") -> str:
    """Return the fingerprint of a picture's pixels and size.

    Args:
        image: (3, H, W) uint8 RGB.
    """
    values = np.ascontiguousarray(np.asarray(image))
    if values.ndim != 3 or values.dtype != np.uint8:
        raise ValueError(f"a picture must be (3, H, W) uint8, but got {values.shape} {values.dtype}")
    digest = hashlib.sha256(np.array(values.shape, "<i8").tobytes())
    digest.update(values.data)
    return digest.hexdigest()[:32]


def is_whole(data: bytes) -> bool:
    """Whether the checksum of a file's bytes is right."""
    return (
        data.startswith(MAGIC) and len(data) > _HEAD + _CHECKSUM and _checksum(data[:-_CHECKSUM]) == data[-_CHECKSUM:]
    )


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM).digest()


def header_of(data: bytes) -> dict[str, Any]:
    """Return the header from the first bytes of a file, unchecked.

    Raises:
        ValueError: These are not the first bytes of such a file.
    """
    if not data.startswith(MAGIC) or len(data) < _HEAD:
        raise ValueError("it is no file of proposals of this version")
    (length,) = struct.unpack("<I", data[len(MAGIC) : _HEAD])
    return dict(json.loads(data[_HEAD : _HEAD + length]))


def parse(data: bytes, where: str, mend: str | None = None) -> Entry:
    """Read an entry from a file's bytes.

    Args:
        data: The whole file.
        where: What the message opens with.
        mend: The command that makes the entry anew.

    Raises:
        DataError: It is cut off, was changed, or contradicts itself. Codes are not checked yet.
    """
    if not is_whole(data):
        state = "is cut off or was changed" if data.startswith(MAGIC) else "is no file of proposals of this version"
        raise DataError(f"{where}: this entry {state} ({len(data):,} bytes).", mend)
    try:
        return _parsed(data)
    except (ValueError, KeyError, TypeError, struct.error, zlib.error) as error:
        raise DataError(f"{where}: this entry is broken: {error}.", mend) from error


def _parsed(data: bytes) -> Entry:
    header = header_of(data)
    (length,) = struct.unpack("<I", data[len(MAGIC) : _HEAD])
    count, (height, width) = int(header["count"]), map(int, header["size"])
    start = _HEAD + length
    body = data[start + 4 * count : -_CHECKSUM]
    if count < 0 or height < 1 or width < 1 or start + 4 * count > len(data) - _CHECKSUM:
        raise ValueError(f"{count} masks of {height} x {width} do not fit in it")
    scores = np.frombuffer(data, "<f4", count, start)
    name, image = str(header["name"]), str(header["image"])
    if "soft" in header:
        return Entry(name, image, (height, width), scores, soft=_soft(body, (count, *map(int, header["soft"]))))
    return Entry(name, image, (height, width), scores, codes=_split(body, count))


def _split(body: bytes, count: int) -> tuple[bytes, ...]:
    lengths = np.frombuffer(body, "<u4", count).astype(np.int64)
    ends = 4 * count + np.cumsum(lengths)
    if (ends[-1] if count else 0) != len(body):
        raise ValueError("the lengths of its codes do not add up")
    return tuple(body[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True))


def _soft(body: bytes, shape: Sequence[int]) -> NDArray[np.uint8]:
    total = int(np.prod(shape, dtype=np.int64))
    values = zlib.decompressobj().decompress(body, total + 1)
    if len(values) != total:
        raise ValueError(f"its masks are not {' x '.join(map(str, shape))}")
    return np.frombuffer(bytearray(values), np.uint8).reshape(tuple(shape))
