"""The cache of proposals: how fast masks are read and written, and how fast superpixels make them.

    python -m benchmarks.proposal_store

Masks are drawn as superpixel hierarchies are shaped: smooth blobs. They are read as training reads them, one picture
after the other in random order; "pycocotools" reads the same files and decodes with `pycocotools.mask.decode`, which
checks nothing, followed by the same change from columns to rows. "npz" is numpy's compressed archive of the booleans.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco
from torch.nn.functional import interpolate
from tqdm import tqdm

from benchmarks.measure import print_table, seconds
from ovseg_cli.core.data.toy import ToyWorld
from ovseg_cli.core.proposals.entry import parse
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.proposals.superpixels import Superpixels
from ovseg_cli.core.types import Proposals

SHAPES = {"96 x 96, 24 masks": (96, 96, 24), "480 x 640, 100 masks": (480, 640, 100)}


def draw(height: int, width: int, count: int, seed: int) -> Proposals:
    """Draw blobs: coarse noise, scaled up smoothly, above zero."""
    noise = torch.randn(count, 1, 6, 8, generator=torch.Generator().manual_seed(seed))
    masks = interpolate(noise, (height, width), mode="bicubic")[:, 0] > 0
    return Proposals(masks, torch.rand(count), (height, width))


def fill(store: ProposalStore, drawn: list[Proposals]) -> None:
    for number, proposals in enumerate(drawn):
        store.write(str(number), f"{number:032x}", proposals)


def read_all(store: ProposalStore, order: list[str]) -> None:
    for name in order:
        store.read(name)


def read_with_pycocotools(store: ProposalStore, order: list[str]) -> None:
    for name in order:
        path = store._files[name]
        entry = parse(path.read_bytes(), str(path))
        decoded = coco.decode([{"size": list(entry.size), "counts": code} for code in entry.codes])
        torch.from_numpy(np.ascontiguousarray(decoded.transpose(2, 0, 1))).bool()


def read_npz(folder: Path, order: list[str]) -> None:
    for name in order:
        with np.load(folder / f"{name}.npz") as archive:
            torch.from_numpy(archive["masks"])


def measure_store(title: str, shape: tuple[int, int, int], pictures: int, repeats: int) -> list[str]:
    """Measure one shape; returns a row."""
    drawn = [draw(*shape, seed) for seed in tqdm(range(pictures), desc=title, leave=False)]
    with tempfile.TemporaryDirectory() as place:
        store = ProposalStore.create(Path(place) / "g" / "val", {"generator": "g", "settings": {}})
        fill(store, drawn)
        for number, proposals in enumerate(drawn):
            np.savez_compressed(Path(place) / f"{number}.npz", masks=proposals.masks.numpy())
        order = [str(i) for i in np.random.default_rng(0).permutation(pictures)]
        calls: dict[str, Callable[[], object]] = {
            "write": partial(fill, store, drawn),
            "read": partial(read_all, store, order),
            "pycocotools": partial(read_with_pycocotools, store, order),
            "npz": partial(read_npz, Path(place), order),
        }
        spent = seconds(calls, repeats)
        size = sum(path.stat().st_size for path in store.folder.rglob("*.masks"))
    total = pictures * shape[2]
    rates = [f"{total / spent[name]:,.0f}" for name in calls]
    return [title, *rates, f"{size / total:.0f}"]


def measure_superpixels(pictures: int) -> list[list[str]]:
    """Measure pictures a second of the default superpixels, on the toy world and on it at five times the size."""
    import time

    world, rows = ToyWorld(), []
    for factor in (1, 5):
        images = [torch.from_numpy(world.scene("tune", i)[0].transpose(2, 0, 1).copy()) for i in range(pictures)]
        images = [image.repeat_interleave(factor, 1).repeat_interleave(factor, 2) for image in images]
        generator = Superpixels()
        generator.generate(images[0])
        start, masks = time.process_time(), 0
        for image in images:
            masks += len(generator.generate(image))
        spent = time.process_time() - start
        size = f"{images[0].shape[1]} x {images[0].shape[2]}"
        rows.append([size, f"{pictures / spent:.1f}", f"{masks / pictures:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure_store(title, shape, options.pictures, options.repeats) for title, shape in SHAPES.items()]
    header = ["pictures", "write", "read", "pycocotools, unchecked", "npz", "bytes a mask"]
    print_table("Masks a second, one thread", header, rows)
    rows = measure_superpixels(options.pictures)
    print_table("Superpixels, one process", ["picture", "pictures a CPU second", "masks a picture"], rows)


if __name__ == "__main__":
    main()
