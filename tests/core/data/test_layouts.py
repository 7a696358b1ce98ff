"""Every layout of every shipped spec: a miniature copy is found, converted to the very train ids, and checked."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.layout import find_layout
from ovseg_cli.core.data.prepare import plan, prepare
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Layout
from ovseg_cli.core.data.specs import load_spec, spec_names
from tests.core.data.handmade import folders_of
from tests.core.data.miniature import Miniature, layouts

ALL = layouts(load_spec(name) for name in spec_names())


@pytest.mark.parametrize(("spec", "layout"), ALL, ids=[f"{spec.name}-{layout.id}" for spec, layout in ALL])
def test_miniature_copy_becomes_the_train_ids_it_was_made_of(tmp_path: Path, spec: Spec, layout: Layout) -> None:
    made, folders = Miniature(tmp_path / "source", spec, layout), folders_of(tmp_path)
    assert find_layout(spec, tmp_path / "source").layout.id == layout.id
    assert plan(spec, folders, tmp_path / "source").problems == ()
    report = prepare(spec, folders, tmp_path / "source")
    data = PreparedData.open(spec, folders)
    assert set(report.images) == set(made.expected)
    for subset, labels in made.expected.items():
        part = data.subset(subset)
        assert sorted(part.names) == sorted(labels)
        for i, name in enumerate(part.names):
            if part.entries[i].label is not None:
                np.testing.assert_array_equal(part.label(i), labels[name], err_msg=f"{subset}/{name}")
        labelled = layout.subsets[subset].labels is not None
        assert all((entry.label is not None) == labelled for entry in part.entries)
    assert prepare(spec, folders).made == 0, "a second run has nothing to do"
    assert prepare(spec, folders, check_only=True).fingerprint == report.fingerprint


def made_of(tmp_path: Path, name: str, layout_id: str, root: str | None = None) -> tuple[Spec, Miniature]:
    spec = load_spec(name)
    layout = next(layout for layout in spec.layouts if layout.id == layout_id)
    return spec, Miniature(tmp_path / "source", spec, layout, root)


@pytest.mark.parametrize(
    ("name", "converted"), [("coco-stuff", "mmseg"), ("coco-object", "converted"), ("cityscapes", "train-ids")]
)
def test_converted_labels_beside_the_originals_are_left_alone(tmp_path: Path, name: str, converted: str) -> None:
    _, made = made_of(tmp_path, name, converted)
    spec, made = made_of(tmp_path, name, "official")
    assert find_layout(spec, tmp_path / "source").layout.id == "official"
    report = prepare(spec, folders_of(tmp_path), tmp_path / "source")
    assert report.images == {subset: len(labels) for subset, labels in made.expected.items()}


def test_raw_labels_are_preferred_to_instances_and_those_to_panoptic(tmp_path: Path) -> None:
    for layout in ("panoptic-images", "instances-images", "official"):
        spec, _ = made_of(tmp_path, "coco-object", layout, ".")
        assert find_layout(spec, tmp_path / "source").layout.id == layout


def test_augmented_training_list_of_sbd_is_train_and_sbd_without_val(tmp_path: Path) -> None:
    spec, made = made_of(tmp_path, "voc-21", "sbd")
    trainaug, val = made.expected["trainaug"], made.expected["val"]
    listed = (tmp_path / "source/benchmark_RELEASE/dataset/train.txt").read_text().split()
    assert set(listed) & set(val), "the copy lists a picture of val, as SBD does"
    prepare(spec, folders_of(tmp_path), tmp_path / "source")
    names = PreparedData.open(spec, folders_of(tmp_path)).subset("trainaug").names
    assert set(names) == set(trainaug) == set(made.expected["train"]) | (set(listed) - set(val))


def test_official_labels_stand_above_those_of_sbd(tmp_path: Path) -> None:
    spec, made = made_of(tmp_path, "voc-21", "sbd")
    stem, label = next(iter(made.expected["train"].items()))
    other = np.full(label.shape, 1, np.uint8)
    savemat(tmp_path / f"source/benchmark_RELEASE/dataset/cls/{stem}.mat", {"GTcls": {"Segmentation": other}})
    prepare(spec, folders_of(tmp_path), tmp_path / "source")
    part = PreparedData.open(spec, folders_of(tmp_path)).subset("trainaug")
    np.testing.assert_array_equal(part.label(part.names.index(stem)), label)
