"""Real samples of official data sets, prepared as a whole and counted: pixels of each class are those expected."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.specs import load_spec
from tests.core.data.handmade import folders_of

PANOPTIC = """
name = "things-and-stuff"
classes = [CLASSES]

[encoding]
KIND
ignore_raw = [0]

[[layouts]]
[layouts.subsets]
val = { images = "val2017/{stem}.jpg", LABELS }
"""


def sample(samples: Path, name: str) -> tuple[Path, dict[str, Any]]:
    if not (samples / name / "expected.json").is_file():
        pytest.skip(f"{samples / name} is absent")
    return samples / name, json.loads((samples / name / "expected.json").read_text())


def counted(tmp_path: Path, spec_name: str | Path, source: Path) -> dict[str, dict[str, int]]:
    """Prepare a data set; stem → value of its labels → pixels."""
    spec = load_spec(spec_name)
    report = prepare(spec, folders_of(tmp_path), source)
    index = [path.read_text().splitlines()[1:] for path in (report.root / "index").glob("*.jsonl")]
    entries = [json.loads(line) for lines in index for line in lines]
    for entry in entries:
        values = np.asarray(Image.open(report.root / entry["label"]))
        assert [list(pair) for pair in zip(*np.unique(values, return_counts=True), strict=True)] == entry["pixels"]
    return {entry["stem"]: {str(value): count for value, count in entry["pixels"]} for entry in entries}


def test_full_ade20k(samples: Path, tmp_path: Path) -> None:
    source, expected = sample(samples, "ade20k-full-sample")
    found = counted(tmp_path, "ade20k-847", source)
    assert found == {stem: facts["ade20k-847"] for stem, facts in expected.items()}


def test_coco_object_of_panoptic_labels(samples: Path, tmp_path: Path) -> None:
    source, expected = sample(samples, "coco-panoptic-sample")
    found = counted(tmp_path, "coco-object", source)
    assert found == {stem: facts["coco-object-81"] for stem, facts in expected.items()}


@pytest.mark.parametrize("kind", ["coco-panoptic", "rle-json", "coco-instances"])
def test_own_spec_of_coco_panoptic_in_each_of_its_forms(samples: Path, tmp_path: Path, kind: str) -> None:
    source, expected = sample(samples, "coco-panoptic-sample")
    names = json.loads((source / "annotations/panoptic_coco_categories.json").read_text())
    classes = ", ".join(f'{{ name = "{c["name"]}", raw_id = {c["id"]} }}' for c in names)
    folder = "annotations/panoptic_val2017"
    labels = f'labels = "{folder}_detection_format.json"'
    if kind == "coco-panoptic":
        labels = f'labels = "{folder}/{{stem}}.png", segments = "{folder}.json"'
    encoding = f'kind = "{kind}"' + ('\nrecords = "annotations"' if kind == "rle-json" else "")
    text = PANOPTIC.replace("CLASSES", classes).replace("KIND", encoding).replace("LABELS", labels)
    (tmp_path / "own.toml").write_text(text)
    found = counted(tmp_path, tmp_path / "own.toml", source)
    train_ids = {str(c["id"]): str(i) for i, c in enumerate(names)} | {"0": "255"}
    for stem, facts in expected.items():
        wanted = {train_ids[category]: count for category, count in facts["category_id_0_is_void"].items()}
        assert found[stem] == wanted
