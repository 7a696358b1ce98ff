"""A prepared data set of nine small pictures of several sizes: seen, unseen and unlabelled pixels; and proposals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.training.train_classes import TrainClasses
from ovseg_cli.core.types import Proposals
from tests.core.data.handmade import folders_of, write_png

CLASSES = ("grass", "dog", "cat", "cow", "sky")
UNSEEN = ("dog", "cow")
SEEN = TrainClasses.only((0, 2, 4))
SIZES = [(12, 16), (16, 12), (13, 17), (20, 9), (8, 8), (15, 31), (12, 16), (10, 11), (9, 9)]
ONLY_UNSEEN = 4
"""Number of the picture that shows no seen class."""

SPEC = """
schema = 1
name = "nine"
title = "Nine pictures"
ignore_label = 255
label_dtype = "uint8"
default_split = "animals"
encoding = { kind = "label-png", bits = 8, ignore_raw = [255], raw_ids = "train-ids" }
subsets = { train = { images = 9 } }

[[layouts]]
id = "official"
source = "made by hand"
roots = ["."]
subsets = { train = { images = "images/{stem}.png", labels = "labels/{stem}.png" } }

[[class_splits]]
id = "animals"
unseen = ["dog", "cow"]
""" + "".join(f'\n[[classes]]\nname = "{name}"\n' for name in CLASSES)


def label_of(number: int) -> np.ndarray:
    """Blocks of classes, some of them unlabelled; one picture holds unseen classes alone."""
    rng = np.random.default_rng(number)
    height, width = SIZES[number]
    blocks = rng.choice([0, 1, 2, 3, 4, 255], (height // 4 + 1, width // 4 + 1)).astype(np.uint8)
    blocks[0, :2] = 1, 0  # an unseen and a seen one in each
    if number == ONLY_UNSEEN:
        blocks[:] = rng.choice([1, 3, 255], blocks.shape)
    return np.kron(blocks, np.ones((4, 4), np.uint8))[:height, :width]


def picture_of(number: int) -> np.ndarray:
    return np.random.default_rng(100 + number).integers(0, 256, (*SIZES[number], 3)).astype(np.uint8)


def make_data(
    folder: Path,
    relabel: Callable[[np.ndarray], np.ndarray] = lambda label: label,
    repaint: Callable[[np.ndarray], np.ndarray] = lambda image: image,
) -> SegmentationData:
    """Write the pictures, prepare them with the command's own code, and open them for training."""
    for number in range(len(SIZES)):
        write_png(folder / "source" / "images" / f"p{number}.png", repaint(picture_of(number)))
        write_png(folder / "source" / "labels" / f"p{number}.png", relabel(label_of(number)))
    (folder / "nine.toml").write_text(SPEC)
    spec = load_spec(folder / "nine.toml")
    prepare(spec, folders_of(folder), folder / "source")
    return PreparedData.open(spec, folders_of(folder)).subset("train", spec.split("animals"))


def make_proposals(folder: Path, pictures: SegmentationData, soft: bool = False) -> ProposalStore:
    """Keep as many random masks for a picture as its name says, none for the first."""
    key = {
        "generator": "random",
        "settings": {},
        "images": len(pictures),
        "command": "ovseg propose random --data nine",
    }
    store = ProposalStore.create(folder, key)
    for number, sample in enumerate(pictures):
        masks = masks_of(number, tuple(sample.image.shape[1:]), soft)
        store.write(sample.name, sample.image, Proposals(masks, torch.ones(len(masks)), tuple(sample.image.shape[1:])))
    return store


def masks_of(number: int, size: tuple[int, int], soft: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    if soft:
        return torch.randint(0, 256, (number, 4, 5), generator=generator).to(torch.uint8)
    return torch.rand(number, *size, generator=generator) < 0.4
