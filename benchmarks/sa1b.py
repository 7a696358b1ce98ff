"""Images a second out of SA-1B's tar files: a picture and about 100 masks, read in place, to a training crop of 640.

    python -m benchmarks.sa1b

Generated photographs of 1500 x 2250 in the official form, with masks of three scales that overlap; augmented as
PixelCLIP does (short side 1024, long side at most 1333, crop of 640, mirror). "Each mask" is the usual way: every mask
is decoded by pycocotools, resized and cropped. "Halved" is the same on pictures and masks halved beforehand, as
PixelCLIP prepares them. "Ours" copies the codes and crops one map of regions. Times are the processor's own, one
thread; `--wall` shows elapsed time.
"""

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from tqdm import tqdm

from benchmarks.measure import print_table, seconds
from ovseg_cli.core.data.archive_list import list_archive
from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
from ovseg_cli.core.data.originals import read_masks
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.proposals.formats import check, read_sa1b
from ovseg_cli.core.proposals.regions import split_regions
from ovseg_cli.core.proposals.request import ProposeRequest, resolve
from ovseg_cli.core.proposals.session import propose
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.training.augment import Place, draw, nearest_indices, place, warp_image, warp_label
from ovseg_cli.core.training.mask_crops import crop_masks

SIZE = (1500, 2250)
SCALES = (12, 28, 60)  # masks of each of the partitions that lie over each other
CROP = TrainingConfig(short_sides=(1024,), train_long_side=1333, crop_size=640, iterations=1)


def partition(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Draw `count` regions with wavy borders, (H, W)."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    waves = [np.asarray(Image.fromarray(rng.random((64, 96), np.float32)).resize(size[::-1])) for _ in range(2)]
    best, label = np.full(size, np.inf, np.float32), np.zeros(size, np.uint8)
    for number, (row, column) in enumerate(rng.random((count, 2)) * size):
        distance = (y + 60 * waves[0] - row) ** 2 + (x + 60 * waves[1] - column) ** 2
        label[distance < best] = number
        best = np.minimum(best, distance)
    return label


def annotation(number: int, mask: np.ndarray) -> dict:
    code = coco.encode(np.asfortranarray(mask))
    left, top, width, height = coco.toBbox(code).tolist()
    return {
        "id": 500_000_000 + number,
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode()},
        "bbox": [left, top, width, height],
        "area": int(mask.sum()),
        "predicted_iou": round(0.9 + 0.001 * number, 6),
        "point_coords": [[left + 0.5 * width, top + 0.5 * height]],
        "crop_box": [0.0, 0.0, float(mask.shape[1]), float(mask.shape[0])],
        "stability_score": 0.971234,
    }


def write_tars(folder: Path, pictures: int) -> None:
    """Write `full/sa_000000.tar` and, of the same pictures halved, `half/sa_000000.tar`."""
    for name in ("full", "half"):
        (folder / name).mkdir()
    with (
        tarfile.open(folder / "full" / "sa_000000.tar", "w") as full,
        tarfile.open(folder / "half" / "sa_000000.tar", "w") as half,
    ):
        for number in tqdm(range(pictures), desc="generated photographs"):
            rng = np.random.default_rng(number)
            parts = [partition(rng, count, SIZE) for count in SCALES]
            masks = np.concatenate([part == np.arange(n)[:, None, None] for part, n in zip(parts, SCALES, strict=True)])
            colors = rng.integers(0, 256, (SCALES[-1], 3)).astype(np.int16)[parts[-1]]
            pixels = np.clip(colors + rng.normal(0, 12, (*SIZE, 3)).astype(np.int16), 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels)
            add(full, f"sa_{number}", image, masks.view(np.uint8))
            small = image.resize((SIZE[1] // 2, SIZE[0] // 2), Image.Resampling.BILINEAR)
            add(half, f"sa_{number}", small, masks[:, ::2, ::2].view(np.uint8))


def add(tar: tarfile.TarFile, stem: str, image: Image.Image, masks: np.ndarray) -> None:
    pixels = io.BytesIO()
    image.save(pixels, "JPEG", quality=90)
    facts = {"image_id": 1, "width": image.width, "height": image.height, "file_name": f"{stem}.jpg"}
    document = {"image": facts, "annotations": [annotation(i, mask) for i, mask in enumerate(masks) if mask.any()]}
    for name, data in ((f"./{stem}.jpg", pixels.getvalue()), (f"./{stem}.json", json.dumps(document).encode())):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


@dataclass
class Bench:
    """One data set in its tar file, prepared."""

    pictures: SegmentationData
    store: ProposalStore
    at: int = 0

    @classmethod
    def open(cls, folder: Path) -> "Bench":
        """Prepare the archive of a folder and open its pictures and masks."""
        folders = Folders(data=folder / "datasets", runs=folder / "runs")
        prepare(load_spec("sa-1b"), folders, folder)
        store = propose(resolve(ProposeRequest("annotations", "sa-1b"), folders, Silent()), folders, Silent()).store
        return cls(PreparedData.open(load_spec("sa-1b"), folders).subset("train"), store)

    def next(self) -> tuple[int, Place]:
        """Choose the next picture and a crop of it."""
        self.at += 1
        index = self.at % len(self.pictures)
        entry = self.pictures.entries[index]
        shape = np.broadcast_to(np.uint8(0), (entry.height, entry.width))
        return index, place(shape, draw(np.random.default_rng(self.at), CROP), CROP, 255)

    def image(self, index: int, where: Place) -> np.ndarray:
        """Read a picture to its crop."""
        return warp_image(self.pictures.image(index), where)

    def ours(self) -> None:
        """Make one example by way of the map of regions."""
        index, where = self.next()
        self.image(index, where)
        crop_masks(self.store.read_entry(self.pictures.names[index]), where, (640, 640))

    def each_mask(self) -> None:
        """Make one example mask by mask."""
        index, where = self.next()
        self.image(index, where)
        self.crop_each(index, where)

    def crop_each(self, index: int, where: Place) -> np.ndarray:
        """Read, decode and crop every mask, (N, 640, 640) uint8."""
        file = self.pictures.entries[index].masks_file(self.pictures.data.root)
        assert file is not None
        codes = [record["segmentation"] for record in read_masks(file)[1]]
        rows, columns = nearest_indices(self.pictures.sizes[index], where)
        return np.stack([coco.decode(code)[rows][:, columns] for code in codes])


def stages(bench: Bench) -> dict[str, Callable[[], object]]:
    """The steps in the making of one example, each as a call."""
    index, where = bench.next()
    pixels, entry = bench.pictures.image(index), bench.pictures.entries[index]
    file, size = entry.masks_file(bench.pictures.data.root), (entry.height, entry.width)
    assert file is not None
    masks = read_sa1b(file)[1]
    codes = [mask.code for mask in masks]
    ids, _ = split_regions(codes, size)
    return {
        "picture: read and decode": lambda: bench.pictures.image(index),
        "picture: resize and crop": lambda: warp_image(pixels, where),
        "masks: read and parse JSON": lambda: read_sa1b(file),
        "masks: check all runs": lambda: check(masks, size, "it"),
        "masks: map of regions": lambda: split_regions(codes, size),
        "masks: crop the map": lambda: warp_label(ids, where),
        "each mask: read, decode, crop": lambda: bench.crop_each(index, where),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--pictures", type=int, default=4, help="generated photographs")
    parser.add_argument("--wall", action="store_true", help="elapsed time instead of the processor's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.perf_counter if options.wall else time.process_time
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tars(folder, options.pictures)
        full, half = Bench.open(folder / "full"), Bench.open(folder / "half")
        listed = seconds({"list": lambda: list_archive(folder / "full" / "sa_000000.tar")}, 9, clock)["list"]
        count = np.mean([len(full.store.read_entry(stem).scores) for stem in full.pictures.names])
        calls = {
            "ours, full size": full.ours,
            "each mask, full size": full.each_mask,
            "ours, halved beforehand": half.ours,
            "each mask, halved beforehand": half.each_mask,
        }
        spent = seconds(calls, options.repeats, clock)
        rows = [[name, f"{1000 * value:.1f}", f"{1 / value:.1f}"] for name, value in spent.items()]
        title = f"One example: picture and {count:.0f} masks out of the tar file to a crop of 640, one thread"
        print_table(title, ["form", "ms", "images a second"], rows)
        parts = {
            name: seconds(stages(bench), options.repeats, clock) for name, bench in (("full", full), ("half", half))
        }
        rows = [
            [step, f"{1000 * parts['full'][step]:.1f}", f"{1000 * parts['half'][step]:.1f}"] for step in parts["full"]
        ]
        print_table("Where the time goes, milliseconds", ["step", "full size", "halved"], rows)
        print(f"\nListing the archive takes {1e6 * listed / (2 * options.pictures):.0f} microseconds a file.")


if __name__ == "__main__":
    main()
