"""Small archives in the form of SA-1B: pictures of noise, and masks that can be drawn by hand."""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from tests.core.data.handmade import picture

SIZE = (12, 20)


def jpeg(stem: str, size: tuple[int, int] = SIZE) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(stem, *size)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def rectangles(stem: str, count: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Masks of a picture, (N, H, W) bool, which overlap."""
    rng = np.random.default_rng(list(stem.encode()))
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        top, left = rng.integers(0, size[0] - 1), rng.integers(0, size[1] - 1)
        mask[top : top + 5, left : left + 7] = True
    return masks


def segmentation(mask: np.ndarray) -> dict[str, Any]:
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def document(stem: str, masks: Iterable[np.ndarray] | None = None, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """What SA-1B writes about a picture; the first mask has the lowest `predicted_iou`."""
    found = list(rectangles(stem, size=size) if masks is None else masks)
    annotations = [
        {
            "id": 7000 + number,
            "segmentation": segmentation(mask),
            "bbox": [0.0, 0.0, 7.0, 5.0],
            "area": int(mask.sum()),
            "predicted_iou": 0.8 + 0.01 * number,
            "point_coords": [[1.0, 2.0]],
            "crop_box": [0.0, 0.0, float(size[1]), float(size[0])],
            "stability_score": 0.96,
        }
        for number, mask in enumerate(found)
    ]
    image = {"image_id": 1, "width": size[1], "height": size[0], "file_name": f"{stem}.jpg"}
    return {"image": image, "annotations": annotations}


def masks_json(stem: str, **changes: Any) -> bytes:
    return json.dumps({**document(stem), **changes}).encode()


def pair(stem: str, folder: str = "./") -> list[tuple[str, bytes]]:
    """A picture and its masks, as the official archives name them."""
    return [(f"{folder}{stem}.jpg", jpeg(stem)), (f"{folder}{stem}.json", masks_json(stem))]


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def write_tar(
    path: Path, members: Sequence[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for named, data in members:
            info = named if isinstance(named, tarfile.TarInfo) else member(named, data)[0]
            tar.addfile(info, io.BytesIO(data))
    return path


def write_official(folder: Path, tars: dict[str, list[str]], form: int = tarfile.USTAR_FORMAT) -> Path:
    """Write archives, name → stems of its pictures; each begins with the entry of its folder, as `tar .` writes it."""
    for name, stems in tars.items():
        files = [file for stem in stems for file in pair(stem)]
        write_tar(folder / f"{name}.tar", [member("./", kind=tarfile.DIRTYPE), *files], form)
    return folder
