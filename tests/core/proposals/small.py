"""A prepared data set of small pictures, and proposals that are easy to tell apart."""

from pathlib import Path

import numpy as np
import torch

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import Proposals
from tests.core.data.handmade import SPEC, folders_of, make_spec, picture, write_png

SIZE = (24, 32)
PICTURES = {"train": 6, "val": 2}
RAW_IDS = (10, 20, 30)  # grass, cat, dog; dog is unseen


def raw_label(number: int) -> np.ndarray:
    """Grass on the left, a cat or a dog on the right in turn, a frame that is ignored."""
    label = np.full(SIZE, 10, np.uint8)
    label[:, 18:] = RAW_IDS[1 + number % 2]
    label[[0, -1]] = 0
    label[:, [0, -1]] = 0
    return label


def prepared(folder: Path, shade: int = 0) -> Folders:
    """Prepare `mini` with a few pictures in `folder`; another shade gives other pixels under the same names."""
    spec_text = SPEC.replace("images = 2", "images = 6").replace("images = 1", "images = 2")
    for subset, count in PICTURES.items():
        for number in range(count):
            pixels = picture(f"{subset}{number}{shade}", *SIZE)
            write_png(folder / f"source/images/{subset}/{number:03d}.png", pixels)
            write_png(folder / f"source/labels/{subset}/{number:03d}.png", raw_label(number))
    folders = folders_of(folder)
    prepare(make_spec(folder, spec_text), folders, folder / "source")
    return folders


def open_data(folders: Folders) -> PreparedData:
    return PreparedData.open_name("mini", folders)


def draw_masks(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Proposals:
    """Random rectangles with falling scores."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        top, left = rng.integers(0, size[0] - 1), rng.integers(0, size[1] - 1)
        mask[top : rng.integers(top + 1, size[0] + 1), left : rng.integers(left + 1, size[1] + 1)] = True
    return Proposals(torch.from_numpy(masks), torch.linspace(1, 0, count), size)


def draw_soft(count: int, grid: tuple[int, int] = (6, 8), size: tuple[int, int] = SIZE) -> Proposals:
    """Random probabilities."""
    masks = torch.randint(0, 256, (count, *grid), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)
    return Proposals(masks, torch.linspace(1, 0, count), size)


def draw_image(seed: int = 0, size: tuple[int, int] = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def same(one: Proposals, other: Proposals) -> bool:
    return one.size == other.size and torch.equal(one.masks, other.masks) and torch.equal(one.scores, other.scores)
