"""Images a second that the training loader makes, with 1 and 2 workers, and where the time of a picture goes.

    python -m benchmarks.loader

Three data sets: the toy world, the CamVid sample (skipped where OVSEG_SAMPLES does not hold it), and generated
photographs of 640 x 480 with 100 proposals each (three superpixel partitions laid over each other), augmented as the
papers do on COCO: short side 320 to 960, crop of 640, colour jitter, mirror. "Each mask" is the usual way: every mask
is decoded, resized, cropped and sent; ours sends the map of regions.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from benchmarks.measure import print_table, seconds
from ovseg_cli.core.data import rle
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.proposals.regions import split_regions
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.training.augment import nearest_indices, place, warp_image, warp_label
from ovseg_cli.core.training.color_jitter import Jitter
from ovseg_cli.core.training.mask_crops import crop_masks
from ovseg_cli.core.training.method_data import TrainData, open_train_data
from ovseg_cli.core.training.stream import batches
from ovseg_cli.core.training.train_classes import TrainClasses
from ovseg_cli.core.types import Proposals

COCO = TrainingConfig(
    batch_size=8, crop_size=640, short_sides=tuple(range(320, 961, 64)), color_jitter=True, iterations=10**6
)
SMALL = COCO.model_copy(update={"crop_size": 96, "short_sides": (80, 96, 128), "batch_size": 16})
HEIGHT, WIDTH, CLASSES = 480, 640, 40

SPEC = """
schema = 1
name = "photos"
title = "Generated photographs"
ignore_label = 255
label_dtype = "uint8"
encoding = { kind = "label-png", bits = 8, ignore_raw = [255], raw_ids = "train-ids" }
[[layouts]]
id = "official"
source = "generated"
roots = ["."]
subsets = { train = { images = "images/{stem}.jpg", labels = "labels/{stem}.png" } }
""" + "".join(f'[[classes]]\nname = "class {k}"\n' for k in range(CLASSES))


def partition(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw `count` regions with wavy borders, (H, W)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    waves = [np.asarray(Image.fromarray(rng.random((24, 32), np.float32)).resize((WIDTH, HEIGHT))) for _ in range(2)]
    seeds = rng.random((count, 2)) * [HEIGHT, WIDTH]
    best, label = np.full((HEIGHT, WIDTH), np.inf, np.float32), np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (row, column) in enumerate(seeds):
        distance = (y + 40 * waves[0] - row) ** 2 + (x + 40 * waves[1] - column) ** 2
        label[distance < best] = number
        best = np.minimum(best, distance)
    return label


def make_photos(folder: Path, count: int) -> tuple[TrainData, ProposalStore]:
    """Write pictures, labels and proposals, prepare them, and open them."""
    rng = np.random.default_rng(0)
    masks = {}
    for number in tqdm(range(count), desc="generated photographs"):
        parts = [partition(rng, n) for n in (10, 30, 60)]
        colors = rng.integers(0, 256, (60, 3)).astype(np.int16)[parts[2]]
        grain = rng.normal(0, 12, (HEIGHT, WIDTH, 3)).astype(np.int16)
        for kind in ("images", "labels"):
            (folder / "source" / kind).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.clip(colors + grain, 0, 255).astype(np.uint8))
        picture.save(folder / "source" / "images" / f"{number:03}.jpg", quality=92)
        Image.fromarray(parts[1] % CLASSES).save(folder / "source" / "labels" / f"{number:03}.png")
        masks[f"{number:03}"] = np.concatenate([part == np.arange(part.max() + 1)[:, None, None] for part in parts])
    (folder / "photos.toml").write_text(SPEC + f"[subsets]\ntrain = {{ images = {count} }}\n")
    data = open_data(load_spec(folder / "photos.toml"), folder, COCO, folder / "source")
    store = ProposalStore.create(folder / "masks", {"generator": "partitions", "settings": {}, "images": count})
    for sample in data.pictures:
        found = torch.from_numpy(masks[sample.name])
        store.write(sample.name, sample.image, Proposals(found, torch.ones(len(found)), (HEIGHT, WIDTH)))
    return data, store


def open_data(spec: Spec, folder: Path, training: TrainingConfig, source: Path | None = None) -> TrainData:
    """Prepare a data set and open its training pictures."""
    folders = Folders(data=folder / "datasets", runs=folder / "runs")
    prepare(spec, folders, source)
    split = spec.split(spec.default_split) if spec.default_split else None
    seen = TrainClasses.only(tuple(spec.seen_ids(split)))
    return open_train_data(PreparedData.open(spec, folders).subset("train", split), seen, training)


@dataclass(frozen=True)
class EachMask(Dataset):
    """The usual way: every mask decoded, resized, cropped, padded and sent."""

    data: TrainData
    store: ProposalStore

    def __getitem__(self, step: int) -> dict:
        batch = self.data[step]
        batch["masks"] = [self._masks(step, p, *batch["images"].shape[2:]) for p in range(len(batch["names"]))]
        return batch

    def _masks(self, step: int, position: int, height: int, width: int) -> torch.Tensor:
        index, training = self.data.index(step, position), self.data.training
        label = self.data.pictures.label(index)
        where = place(label, self.data.drawn(step, position), training, 255)
        out = np.zeros((len(found := self.store.read(self.data.pictures.entries[index].stem)), height, width), np.uint8)
        rows, columns = nearest_indices(found.size, where)
        kept = found.masks.numpy().view(np.uint8).take(columns, axis=2).take(rows, axis=1)
        np.multiply(kept, 255, out=out[:, : where.height, : where.width])
        return torch.from_numpy(out)


def rate(steps: Dataset, count: int, batch_size: int, workers: int) -> float:
    """Images a second over `count` batches; the first ones, which wait for the workers to start, are not counted."""
    loader = batches(steps, 0, count + workers + 1, workers)
    for _ in range(workers + 1):
        next(loader)
    start = time.perf_counter()
    for _ in range(count):
        next(loader)
    return count * batch_size / (time.perf_counter() - start)


def print_rates(cases: dict[str, tuple[Dataset, int, int]], repeats: int) -> None:
    rows = []
    for name, (steps, batch_size, count) in cases.items():
        found: dict[int, list[float]] = {1: [], 2: []}
        for _ in tqdm(range(repeats), desc=name):
            for workers, values in found.items():
                values.append(rate(steps, count, batch_size, workers))
        one, two = (median(values) for values in found.values())
        rows.append([name, f"{one:.0f}", f"{two:.0f}", f"{two / one:.2f}"])
    print_table("Images a second", ["data", "1 worker", "2 workers", "2 workers / 1"], rows)


def stages(data: TrainData, store: ProposalStore) -> dict[str, Callable[[], object]]:
    """The steps in the making of one example, a crop of 640 from a short side of 640, each as a call."""
    index, pictures = 0, data.pictures
    image, label = pictures.image(index), pictures.label(index)
    drawn = replace(data.drawn(0, 0), short_side=640, mirrored=True)
    where = place(label, drawn, data.training, 255)
    cached = store.read_entry(pictures.names[index])
    crop = warp_image(image, where)
    ids, _ = split_regions(cached.codes, cached.size)
    masks = rle.decode(cached.codes, cached.size)
    rows, columns = nearest_indices(cached.size, where)
    jitter = Jitter(10.0, 1.2, 1.3, 12)
    return {
        "image: read and decode": lambda: pictures.image(index),
        "image: resize, crop, mirror": lambda: warp_image(image, where),
        "image: brightness and contrast": lambda: warp_jitter(crop, Jitter(10.0, 1.2)),
        "image: the whole colour jitter": lambda: warp_jitter(crop, jitter),
        "label: read and decode": lambda: pictures.label(index),
        "label: resize, crop, mirror": lambda: warp_label(label, where),
        "masks: read and check": lambda: store.read_entry(pictures.names[index]),
        "masks: make the map of regions": lambda: split_regions(cached.codes, cached.size),
        "masks: resize, crop, mirror the map": lambda: warp_label(ids, where),
        "masks, ours in all": lambda: crop_masks(store.read_entry(pictures.names[index]), where, (640, 640)),
        "each mask: decode": lambda: rle.decode(cached.codes, cached.size),
        "each mask: resize, crop, mirror": lambda: masks.view(np.uint8).take(columns, axis=2).take(rows, axis=1),
    }


def warp_jitter(crop: np.ndarray, jitter: Jitter) -> np.ndarray:
    from ovseg_cli.core.training.color_jitter import jitter_colors

    return np.asarray(jitter_colors(Image.fromarray(crop), jitter))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=24, help="generated photographs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, store = make_photos(folder, options.pictures)
        with_masks = replace(photos, proposals=store)
        cases: dict[str, tuple[Dataset, int, int]] = {
            "toy, crop 96": (open_data(load_spec("toy"), folder, SMALL), 16, 20)
        }
        samples = Path(os.environ.get("OVSEG_SAMPLES") or "../shared/data") / "camvid-mini"
        if samples.is_dir():
            cases["camvid sample, crop 640"] = (open_data(load_spec("camvid"), folder, COCO, samples), 8, 4)
        cases["photographs, no masks"] = (photos, 8, 4)
        cases["photographs, 100 masks, ours"] = (with_masks, 8, 4)
        cases["photographs, 100 masks, each mask"] = (EachMask(photos, store), 8, 2)
        print_rates(cases, options.repeats)
        spent = seconds({k: partial(call) for k, call in stages(photos, store).items()}, 9)
        rows = [[name, f"{1000 * value:.2f}"] for name, value in spent.items()]
        print_table("One photograph, milliseconds, one thread", ["step", "ms"], rows)


if __name__ == "__main__":
    main()
