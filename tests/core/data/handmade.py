"""A data set of three pictures that can be checked by hand, and a generator of four scenes."""

from pathlib import Path

import numpy as np
from PIL import Image

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.runtime import Folders

SPEC = """
schema = 1
name = "mini"
title = "Three pictures"
ignore_label = 255
label_dtype = "uint8"
default_split = "no-dog"

[encoding]
kind = "label-png"
bits = 8
ignore_raw = [0]

[subsets]
train = { images = 2 }
val = { images = 1 }

[[layouts]]
id = "official"
source = "made by hand"
roots = [".", "mini"]

[layouts.subsets.train]
images = "images/train/{stem}.png"
labels = "labels/train/{stem}.png"

[layouts.subsets.val]
images = "images/val/{stem}.png"
labels = "labels/val/{stem}.png"
LIST

[[class_splits]]
id = "no-dog"
unseen = ["dog"]

[[classes]]
name = "grass"
raw_id = 10

[[classes]]
name = "cat"
raw_id = 20

[[classes]]
name = "dog"
raw_id = 30
"""

# Raw labels, 2 x 3. Train ids: 10 grass -> 0, 20 cat -> 1, 30 dog -> 2, 0 -> 255.
RAW = {
    "train/a": [[10, 10, 20], [10, 0, 20]],
    "train/b": [[30, 30, 30], [10, 10, 10]],
    "val/c": [[20, 30, 10], [0, 0, 0]],
}
TRAIN_IDS = {
    "train/a": [[0, 0, 1], [0, 255, 1]],
    "train/b": [[2, 2, 2], [0, 0, 0]],
    "val/c": [[1, 2, 0], [255, 255, 255]],
}
WITHOUT_DOG = {"train/a": [[0, 0, 1], [0, 255, 1]], "train/b": [[255, 255, 255], [0, 0, 0]]}


def write_png(path: Path, values: object, dtype: str = "uint8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype)).save(path)
    return path


def picture(key: str, height: int = 2, width: int = 3) -> np.ndarray:
    """A picture that differs from that of every other key."""
    return np.random.default_rng(list(key.encode())).integers(0, 256, (height, width, 3)).astype(np.uint8)


def make_source(folder: Path) -> Path:
    """Write the three pictures and their raw labels."""
    for key, raw in RAW.items():
        write_png(folder / "images" / f"{key}.png", picture(key))
        write_png(folder / "labels" / f"{key}.png", raw)
    return folder


def make_spec(folder: Path, text: str = SPEC, listed: str = "") -> Spec:
    """Write the spec as a user's own TOML and load it; `listed` are extra lines for the subset `val`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mini.toml").write_text(text.replace("LIST", listed))
    return load_spec(folder / "mini.toml")


def folders_of(folder: Path) -> Folders:
    return Folders(data=folder / "datasets", runs=folder / "runs")


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their bytes; links count as what they point to."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class FourScenes:
    """A generator: scene i of a subset shows class i % 3 on the left, class 0 on the right, one ignored pixel."""

    subsets = {"train": 3, "val": 1}
    version = "four-1"

    def scene(self, subset: str, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        label = np.zeros((4, 6), np.uint8)
        label[:, :3] = index % 3
        label[0, 0] = 255
        return picture(f"{subset}{index}", 4, 6), label, f"{subset} scene {index}"

    def digest(self) -> str:
        return self.version


GENERATED = SPEC[: SPEC.index("[[layouts]]")] + SPEC[SPEC.index("[[class_splits]]") :]
GENERATED = GENERATED.replace('default_split', 'generator = "four-scenes"\ndefault_split').replace(
    "ignore_raw = [0]", 'ignore_raw = [255]\nraw_ids = "train-ids"'
).replace("images = 2", "images = 3")  # fmt: skip
