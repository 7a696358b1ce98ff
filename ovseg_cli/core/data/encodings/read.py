"""Which reader a kind of label has: files to raw values, (H, W)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg_cli.core.data.encodings import paint, rgb
from ovseg_cli.core.data.encodings.annotations import Records
from ovseg_cli.core.data.encodings.matlab import load_matrix
from ovseg_cli.core.data.encodings.panoptic import panoptic
from ovseg_cli.core.data.images import load_label
from ovseg_cli.core.data.pairing import Item
from ovseg_cli.core.data.spec_files import Encoding


@dataclass(frozen=True)
class LabelReader:
    """Reads labels of one encoding; picklable."""

    encoding: Encoding

    def __call__(self, item: Item) -> np.ndarray:
        """Return the raw values of a picture's label, (H, W) integers.

        Raises:
            DataError: The label cannot be read; the message begins with its file.
        """
        path, kind, records = Path(str(item.label)), self.encoding.kind, item.records
        if kind == "coco-panoptic":
            return panoptic(path, records or Records(str(path)))
        if records is not None:
            return paint.painted(item.stem, records, large_first=kind == "coco-instances")
        if path.suffix == ".mat" and self.encoding.variable:
            return load_matrix(path, self.encoding.variable)
        if kind == "rgb-png":
            return rgb.ade_class(path) if self.encoding.rgb_rule == "r//10*256+g" else rgb.packed(path)
        return load_label(path)

    @property
    def word(self) -> str:
        """What a raw value is called."""
        if self.encoding.rgb_rule == "color":
            return "colour"
        return "category" if self.encoding.kind in ("rle-json", "coco-panoptic", "coco-instances") else "value"

    def text(self, value: int) -> str:
        """How a raw value is written in a message."""
        return rgb.color_text(value) if self.encoding.rgb_rule == "color" else str(value)
