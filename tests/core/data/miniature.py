"""Miniature copies of official data sets: any spec, any layout, its very folders and encodings, a few tiny pictures."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Encoding, Layout, SubsetLayout

Labels = dict[str, dict[str, np.ndarray]]
PREFIX = {"paths": "/SegNet/CamVid/"}


class Miniature:
    """Writes one layout of a spec, below its last root or a given one, and remembers what its labels mean.

    Attributes:
        expected: Subset → stem → (H, W) train ids.
    """

    def __init__(
        self, folder: Path, spec: Spec, layout: Layout, root: str | None = None, size: tuple[int, int] = (10, 14)
    ):
        self.base, self.spec, self.layout, self.size = folder / (root or layout.roots[-1]), spec, layout, size
        self.encoding: Encoding = spec.encoding_of(layout)
        self.expected: Labels = {}
        self.rng = np.random.default_rng(list(f"{spec.name} {layout.id}".encode()))
        self._labels: dict[str, np.ndarray] = {}
        self._lists: dict[str, list[tuple[str, SubsetLayout]]] = {}
        self._json: dict[str, dict[str, list[Any]]] = {}
        for subset, part in layout.subsets.items():
            self._subset(subset, part)
        self._write_lists()
        for file, document in self._json.items():
            self._file(file).write_text(json.dumps({"info": {"year": 2018}, **document}))
        self._choose()

    def _subset(self, subset: str, part: SubsetLayout) -> None:
        for i in range(2):
            stem = (
                f"2008_{len(self._labels):06d}" if part.list_columns != "paths" else f"0001TP_{len(self._labels):06d}"
            )
            label = self._draw()
            self._labels[stem] = label
            self.expected.setdefault(subset, {})[stem] = label
            image = self.rng.integers(0, 256, (*self.size, 3)).astype(np.uint8)
            Image.fromarray(image).save(self._file(self._named(part.images, stem)))
            if part.labels:
                pattern = part.labels_else[0] if part.labels_else and i else part.labels
                self._write_label(self._named(pattern, stem), part, subset, stem, label)
            if part.list:
                self._lists.setdefault(part.list, []).append((stem, part))
                self._phase(part, subset, stem)

    def _draw(self) -> np.ndarray:
        """Four rectangles of random classes, and a corner that is ignored where the encoding has a word for that."""
        label = np.zeros(self.size, np.int64)
        y, x = self.rng.integers(2, self.size[0] - 2), self.rng.integers(2, self.size[1] - 2)
        ids = self.rng.choice(self.spec.num_classes, 4)
        label[:y, :x], label[:y, x:], label[y:, :x], label[y:, x:] = ids
        if self._ignored() is not None:
            label[-2:, -2:] = self.spec.ignore_label
        return label

    def _ignored(self) -> int | None:
        """A raw value that means unlabelled."""
        if self.encoding.ignore_raw:
            return self.encoding.ignore_raw[-1]
        if self.encoding.raw_ids == "train-ids":
            return self.spec.ignore_label
        return 0 if self.encoding.elsewhere == "ignore" else None

    def _raw(self, label: np.ndarray) -> np.ndarray:
        values: dict[int, int] = {int(self.spec.ignore_label or 0): self._ignored() or 0}
        for train_id, raw in enumerate(self.spec.raw_ids(self.layout)):
            values[train_id] = self.encoding.background_raw[0] if raw is None else raw
        return np.vectorize(values.__getitem__)(label)

    def _write_label(self, path: str, part: SubsetLayout, subset: str, stem: str, label: np.ndarray) -> None:
        raw, kind, file = self._raw(label), self.encoding.kind, self._file(path)
        if kind in ("rle-json", "coco-instances"):
            self._records(path, subset, stem, raw)
        elif kind == "coco-panoptic":
            self._segments(file, str(part.segments), stem, raw)
        elif file.suffix == ".mat":
            self._matrix(file, raw)
        elif kind == "rgb-png":
            colors = np.stack([raw // 256 * 10 + 3, raw % 256, np.full_like(raw, 7)], -1)
            Image.fromarray(colors.astype(np.uint8)).save(file)
        else:
            picture = Image.fromarray(raw.astype(np.uint16 if raw.max() > 255 else np.uint8))
            if kind == "palette-png":
                picture.putpalette([(37 * i) % 256 for i in range(768)])
            picture.save(file)

    def _matrix(self, file: Path, raw: np.ndarray) -> None:
        from scipy.io import savemat

        name, _, field = str(self.encoding.variable).partition(".")
        values = raw.astype(np.uint16 if raw.max() > 255 else np.uint8)
        there = {name: {field: values, "CategoriesPresent": [1.0]}} if field else {name: values}
        savemat(file, there, do_compression=bool(self.rng.integers(2)))

    def _image_record(self, file: str, subset: str, stem: str) -> tuple[dict[str, list[Any]], int]:
        document = self._json.setdefault(file, {"images": [], self.encoding.records or "annotations": []})
        number = int(stem.replace("_", ""))
        height, width = self.size
        record = {"file_name": f"{stem}.jpg", "height": height, "width": width, "phase": subset}
        record["image_id" if self.encoding.kind in ("rle-json", "mat") else "id"] = number
        if record not in document["images"]:
            document["images"].append(record)
        return document, number

    def _phase(self, part: SubsetLayout, subset: str, stem: str) -> None:
        if part.list_columns == "json-phase":
            self._image_record(str(part.list), subset, stem)

    def _records(self, path: str, subset: str, stem: str, raw: np.ndarray) -> None:
        document, number = self._image_record(path, subset, stem)
        for category in filter(None, np.unique(raw).tolist()):
            inside = np.asfortranarray(raw == category, np.uint8)
            code = coco.encode(inside)
            runs: Any = {"size": list(self.size), "counts": code["counts"].decode()}
            rows, columns = np.nonzero(inside)
            y0, y1, x0, x1 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            if self.encoding.kind == "coco-instances" and inside[y0:y1, x0:x1].all():
                runs = [[float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]]
            record = {"image_id": number, "category_id": category, "segmentation": runs, "iscrowd": 0}
            document[self.encoding.records or "annotations"].append(record)

    def _segments(self, file: Path, segments: str, stem: str, raw: np.ndarray) -> None:
        document, number = self._image_record(segments, "", stem)
        ids, info = np.zeros(raw.shape, np.int64), []
        for category in filter(None, np.unique(raw).tolist()):
            one = int(self.rng.integers(1, 1 << 24))
            ids[raw == category] = one
            info.append({"id": one, "category_id": category, "iscrowd": 0})
        document["annotations"].append({"image_id": number, "file_name": file.name, "segments_info": info})
        Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(file)

    def _write_lists(self) -> None:
        for file, stems in self._lists.items():
            part = stems[0][1]
            if part.list_columns == "json-phase":
                continue
            others = [part.list_without] if part.list_without else []
            extra = [stem for other in others for stem, _ in self._lists.get(str(other), [])[:1]]
            lines = [self._line(stem, part) for stem in [*(stem for stem, _ in stems), *extra]]
            self._file(file).write_text("\n".join(lines) + "\n")
        for part in self.layout.subsets.values():
            for other in part.list_also:
                if other not in self._lists:
                    self._file(other).write_text("")

    def _line(self, stem: str, part: SubsetLayout) -> str:
        if part.list_columns != "paths":
            return stem
        return " ".join(PREFIX["paths"] + self._named(str(p), stem) for p in (part.images, part.labels))

    def _choose(self) -> None:
        """Subsets that share lists share pictures."""
        for subset, part in self.layout.subsets.items():
            for other in part.list_also:
                self.expected[subset] |= {stem: self._labels[stem] for stem, _ in self._lists.get(other, [])}

    def _named(self, pattern: str, stem: str) -> str:
        return pattern.replace("**/", "urban/street/").replace("*", "aachen").replace("{stem}", stem)

    def _file(self, path: str) -> Path:
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def layouts(specs: Iterable[Spec]) -> list[tuple[Spec, Layout]]:
    """Every layout of every spec that has labels."""
    return [(spec, layout) for spec in specs for layout in spec.layouts if spec.task == "semantic"]
