"""What a prediction for a user's picture is: a label map with names, and the files made from it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.files import write_bytes, write_json

if TYPE_CHECKING:
    from ovseg_cli.core.report.seen import SeenClasses

SCHEMA = 1
KIND = "ovseg-segmentation"
OUTPUTS = ("{}.png", "{}_overlay.png", "{}.json")
"""Files of one picture, made from its stem: label map, overlay with legend, masks as COCO RLE."""


@dataclass(frozen=True)
class Segmentation:
    """The classes of a picture's pixels.

    Attributes:
        label_map: (H, W), class ids 0 … K - 1; uint8 up to 256 classes, else uint16.
        class_names: K names; a background made by threshold is the last.
        image: (H, W, 3) uint8 RGB, upright.
        background: Id of the background class, or None.
        source: Where the picture came from, for the JSON; may be empty.
        model: Which method and CLIP made it, for the JSON; may be empty.
        colors: (K, 3) uint8, of overlay and label map; None takes `palette.colors`.
        unknown_words: Words that the model was never trained on; the legend marks classes with such a word.
        seen: Which classes were seen; the overlay borders them in black and unseen ones in red. None: nobody knows.
        made_from: Fingerprint of picture, model and names, by which a finished picture is known again; may be empty.
    """

    label_map: np.ndarray
    class_names: tuple[str, ...]
    image: np.ndarray
    background: int | None = None
    source: str = ""
    model: str = ""
    colors: np.ndarray | None = None
    unknown_words: tuple[str, ...] = ()
    made_from: str = ""
    seen: "SeenClasses | None" = None

    def __post_init__(self) -> None:
        if self.label_map.shape != self.image.shape[:2]:
            raise ShapeError(f"label map {self.label_map.shape} and picture {self.image.shape} differ in size.")

    def __repr__(self) -> str:
        """One line: size and what is there, largest first."""
        height, width = self.label_map.shape
        parts = [f"{name} {100 * share:.1f} %" for name, share in self.shares.items()]
        more = f", and {len(parts) - 8} more" if len(parts) > 8 else ""
        return f"Segmentation({width} x {height} pixels: {', '.join(parts[:8])}{more})"

    @property
    def palette(self) -> np.ndarray:
        """Colours of the classes, (K, 3) uint8."""
        from ovseg_cli.core.data.palette import colors

        return colors(len(self.class_names), self.background) if self.colors is None else self.colors

    @property
    def pixels(self) -> np.ndarray:
        """Pixels of each class, (K,) int64."""
        return np.bincount(self.label_map.reshape(-1), minlength=len(self.class_names)).astype(np.int64)

    @property
    def shares(self) -> dict[str, float]:
        """Part of the picture, 0 to 1, of each class that occurs, largest first."""
        pixels = self.pixels
        order = [int(i) for i in np.argsort(-pixels, kind="stable") if pixels[i]]
        return {self.class_names[i]: float(pixels[i] / self.label_map.size) for i in order}

    def mask(self, name: str) -> np.ndarray:
        """Return the (H, W) bool mask of one class.

        Raises:
            UsageError: There is no such class.
        """
        if name not in self.class_names:
            raise UsageError(f"'{name}' is not one of the classes: {', '.join(self.class_names)}.")
        return self.label_map == self.class_names.index(name)

    def overlay(self, **options: Any) -> Image.Image:
        """Draw the classes over the picture with a legend; options as in `report.figures.overlay`."""
        from ovseg_cli.core.report.figures import overlay

        if self.seen is not None:
            options = {"borders": self.seen.borders, "meanings": self.seen.meanings, **options}
        names, background = self._legend_names(), self.background
        return overlay(self.image, self.label_map, names, self.palette, background=background, **options)

    def _legend_names(self) -> tuple[str, ...]:
        unknown = set(self.unknown_words)
        marks = (" (unknown word)" if unknown & set(name.casefold().split()) else "" for name in self.class_names)
        return tuple(name + mark for name, mark in zip(self.class_names, marks, strict=True))

    def to_image(self) -> Image.Image:
        """Return the label map as an image: the class ids, shown in the overlay's colours where 8 bits hold them."""
        image = Image.fromarray(self.label_map)
        if self.label_map.dtype == np.uint8:
            image.putpalette(self.palette.tobytes())
        return image

    def to_rle(self) -> list[dict[str, Any]]:
        """Encode the mask of each class that occurs as COCO RLE, in id order.

        Returns:
            One `{id, name, pixels, share, rle: {size: [H, W], counts: text}}` a class.
        """
        from pycocotools import mask as coco

        pixels, segments = self.pixels, []
        for i in np.flatnonzero(pixels):
            rle = coco.encode(np.asfortranarray(self.label_map == i, dtype=np.uint8))
            height, width = (int(side) for side in rle["size"])
            segments.append(
                {
                    "id": int(i),
                    "name": self.class_names[i],
                    "pixels": int(pixels[i]),
                    "share": float(pixels[i] / self.label_map.size),
                    "rle": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                }
            )
        return segments

    def document(self) -> dict[str, Any]:
        """Everything but the pixels as one JSON document."""
        height, width = (int(side) for side in self.label_map.shape)
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "image": self.source,
            "model": self.model,
            "made_from": self.made_from,
            "height": height,
            "width": width,
            "classes": list(self.class_names),
            "background": self.background,
            "unknown_words": list(self.unknown_words),
            "seen": list(self.seen.flags) if self.seen else None,
            "segments": self.to_rle(),
        }

    def save(self, folder: Path | str, stem: str) -> list[Path]:
        """Write STEM.png, STEM_overlay.png and STEM.json, each whole or not at all.

        STEM.png holds the class ids; up to 256 classes it is a palette image, so that viewers show colours.

        Args:
            folder: Made where it is missing.
            stem: Name without ending.

        Returns:
            The three paths.

        Raises:
            UsageError: One of them exists and was not made by a prediction: it is never overwritten.
            MachineError: The folder cannot be written.
        """
        label_map, drawn, document = paths = [Path(folder) / name.format(stem) for name in OUTPUTS]
        refuse_foreign(paths)
        write_bytes(label_map, _png(self.to_image()))
        write_bytes(drawn, _png(self.overlay()))
        write_json(document, self.document())
        return paths


def smallest_dtype(num_classes: int) -> type[np.unsignedinteger]:
    """uint8 where ids 0 … K - 1 fit into it, else uint16."""
    return np.uint8 if num_classes <= 256 else np.uint16


def refuse_foreign(paths: Sequence[Path]) -> None:
    """Refuse to overwrite files that no prediction has made.

    Raises:
        UsageError: One of them exists without our mark.
    """
    for path in paths:
        if path.exists() and not _is_ours(path):
            raise UsageError(
                f"{path}: this file was not made by a prediction and would be overwritten.", "Choose another --out."
            )


def _png(image: Image.Image) -> bytes:
    mark, buffer = PngInfo(), io.BytesIO()
    mark.add_text("Software", KIND)
    image.save(buffer, "PNG", pnginfo=mark)
    return buffer.getvalue()


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return KIND.encode() in stream.read(4096)
    except OSError:
        return False
