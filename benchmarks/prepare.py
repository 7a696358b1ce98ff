"""How many pictures a second `ovseg prepare` converts and checks, by kind of label and by number of processes.

Labels of 25 regions are drawn once and written in each kind; the picture is the same JPEG throughout, so that what
differs is the label. "read" is the label alone. A busy machine slows the
clock, not a process's own time.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from ovseg_cli.core.data import parallel
from ovseg_cli.core.data.check import Verifier
from ovseg_cli.core.data.encodings.read import LabelReader
from ovseg_cli.core.data.job import make_job
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.records import read_records
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.runtime import Folders

CLASSES = 60
KINDS = {
    "label-png": "",
    "label-tiff": "",
    "rgb-png, colours": 'rgb_rule = "color"\n',
    "rgb-png, ADE20K": 'rgb_rule = "r//10*256+g"\n',
    "mat": 'variable = "LabelMap"\n',
    "rle-json": 'records = "annotations"\n',
    "coco-instances": "",
    "coco-panoptic": "",
}


def draw(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return a label of 25 regions, each the neighbourhood of a point, (H, W) raw ids from 1."""
    points = rng.random((25, 2)) * size
    grid = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij"), -1)
    nearest = ((grid[:, :, None] - points) ** 2).sum(-1).argmin(-1)
    return rng.integers(1, CLASSES + 1, 25)[nearest]


def write(folder: Path, kind: str, labels: list[np.ndarray], jpeg: bytes) -> Path:
    """Write pictures, labels and a spec; return the spec's path."""
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    word = kind.split(",")[0]
    for i, label in enumerate(labels):
        (folder / f"images/{i:05d}.jpg").write_bytes(jpeg)
        size = {"height": label.shape[0], "width": label.shape[1]}
        images.append({"id": i, "file_name": f"{i:05d}.jpg", **size})
        annotations.extend(_label(folder / "labels" / f"{i:05d}", kind, label, i))
    if word in ("rle-json", "coco-instances", "coco-panoptic"):
        (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    ending = {"label-tiff": "tif", "mat": "mat"}.get(word, "png")
    where = '"labels.json"' if word in ("rle-json", "coco-instances") else f'"labels/{{stem}}.{ending}"'
    segments = ', segments = "labels.json"' if word == "coco-panoptic" else ""
    classes = ", ".join(
        f'{{ name = "c{i}", {f"color = [{i * 4}, {255 - i}, 9]" if "colours" in kind else f"raw_id = {i}"} }}'
        for i in range(1, CLASSES + 1)
    )
    spec = folder / "bench.toml"
    spec.write_text(
        f'name = "bench"\nclasses = [{classes}]\n[encoding]\nkind = "{word}"\n{KINDS[kind]}elsewhere = "ignore"\n'
        f'[[layouts]]\n[layouts.subsets]\nval = {{ images = "images/{{stem}}.jpg", labels = {where}{segments} }}\n'
    )
    return spec


def _label(path: Path, kind: str, label: np.ndarray, image_id: int) -> list[dict]:
    """Write a label file, or return its records."""
    from scipy.io import savemat

    if kind == "mat":
        savemat(f"{path}.mat", {"LabelMap": label.astype(np.uint16)}, do_compression=True)
    elif kind.startswith("rgb-png"):
        colors = [label * 4, 255 - label, label * 0 + 9] if "colours" in kind else [label * 0, label, label * 0]
        Image.fromarray(np.stack(colors, -1).astype(np.uint8)).save(f"{path}.png")
    elif kind == "coco-panoptic":
        ids = label * 1001
        Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(f"{path}.png")
        info = [{"id": int(c) * 1001, "category_id": int(c)} for c in np.unique(label)]
        return [{"image_id": image_id, "segments_info": info}]
    elif kind in ("rle-json", "coco-instances"):
        return [_record(label == c, int(c), image_id) for c in np.unique(label)]
    else:
        Image.fromarray(label.astype(np.uint16)).save(f"{path}.{'tif' if kind == 'label-tiff' else 'png'}")
    return []


def _record(inside: np.ndarray, category: int, image_id: int) -> dict:
    code = coco.encode(np.asfortranarray(inside, np.uint8))
    mask = {"size": list(inside.shape), "counts": code["counts"].decode()}
    return {"image_id": image_id, "category_id": category, "segmentation": mask}


def clocked(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> tuple[float, float]:
    """Return items a second of this process's time and of the clock's; several are timed once all of them work."""
    before, parallel.PATIENCE = parallel.PATIENCE, 0.0
    try:
        begun, spent, started = 0, time.process_time(), time.perf_counter()
        ended = started
        for done, _ in enumerate(parallel.ordered_map(work, items, workers), 1):
            ended = time.perf_counter()  # of the last picture, not of the processes that end after it
            if workers > 1 and done == 1 + workers * parallel.CHUNK:
                begun, started = done, ended
        return len(items) / (time.process_time() - spent), (len(items) - begun) / (ended - started)
    finally:
        parallel.PATIENCE = before


def rates(spec: Path, folder: Path) -> list[float]:
    """Return rates of converting and of checking: of one process's own time, by the clock with one and with two."""
    loaded, folders = load_spec(spec), Folders(data=folder / "data", runs=folder / "runs")
    shutil.rmtree(folder / "data", ignore_errors=True)
    job = make_job(loaded, folders, spec.parent)
    converting = [clocked(job.makers["val"], job.items["val"], workers) for workers in (1, 2)]
    shutil.rmtree(folder / "data")  # made without its records
    root = prepare(loaded, folders, spec.parent).root
    verifier = Verifier(root, (), loaded.ignore_label or 0, loaded.num_classes, drawn=False)
    entries = list(read_records(root, "val"))
    checking = [clocked(verifier, entries, workers) for workers in (1, 2)]
    return [rate for one, two in (converting, checking) for rate in (*one, two[1])]


def read_ms(spec: Path, folder: Path, repeats: int) -> float:
    """Return the median milliseconds of reading one label and looking up its train ids."""
    loaded = load_spec(spec)
    job = make_job(loaded, Folders(data=folder / "none", runs=folder / "runs"), spec.parent, write=False)
    layout = loaded.layouts[0]
    reader, table = LabelReader(loaded.encoding_of(layout)), loaded.raw_table(layout)
    times = []
    for item in job.items["val"][:repeats]:
        started = time.process_time()
        table.lookup(reader(item))
        times.append(1000 * (time.process_time() - started))
    return float(np.median(times))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--only", help="kinds whose name contains these letters")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)).resize((640, 480)).save(root / "a.jpg")
        labels = [draw(rng, (480, 640)) for _ in range(8)]
        labels = [labels[i % 8] for i in range(arguments.pictures)]
        print(f"{arguments.pictures} pictures of 640 x 480, 25 regions")
        print("pictures a second: of one process's own time, by the clock with one and with two processes")
        print(f"{'kind':18}{'read ms':>9}{'convert':>10}{'1':>8}{'2':>8}{'check':>10}{'1':>8}{'2':>8}")
        for i, kind in enumerate(KINDS):
            if arguments.only and arguments.only not in kind:
                continue
            spec = write(root / f"source{i}", kind, labels, (root / "a.jpg").read_bytes())
            own, one, two, own_check, one_check, two_check = rates(spec, root)
            print(f"{kind:18}{read_ms(spec, root, 24):9.2f}{own:10.1f}{one:8.1f}{two:8.1f}", end="")
            print(f"{own_check:10.1f}{one_check:8.1f}{two_check:8.1f}", flush=True)


if __name__ == "__main__":
    main()
