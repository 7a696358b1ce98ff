"""Names the user can type → "module:Class", loaded only when asked for. Imports nothing heavy.

A new method is one line here, one file in `methods/` and one README row; the contract test finds it by itself.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from ovseg_cli.core.errors import unknown_name


@dataclass(frozen=True)
class Entry:
    """One registered name: where its class lives, and what `ovseg list` prints before anything is imported.

    Attributes:
        target: "module:Class", or the training function of a trainer.
        title, paper, trained: For `ovseg list`.
        settings: Settings model of a trainer, importable without torch.
        estimate: Function from a trainer's settings to steps, memory and disk, for `--dry-run`.
        data: Data set that a trainer draws from; of a method, the one that its paper trains on.
    """

    target: str
    title: str
    paper: str
    trained: str = "nothing"
    settings: str = ""
    estimate: str = ""
    data: str = ""

    def load(self) -> Any:
        """Import and return the class."""
        return _import(self.target)

    def load_settings(self) -> Any:
        """Import and return the settings model of a trainer, without torch."""
        return _import(self.settings)

    def load_estimate(self) -> Any:
        """Import and return the function from a trainer's settings to steps, memory and disk of `--dry-run`."""
        return _import(self.estimate)


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


METHODS: dict[str, Entry] = {
    "clip": Entry("ovseg_cli.core.methods.clip:Clip", "CLIP", "Radford et al., ICML 2021, read densely"),
    "maskclip": Entry("ovseg_cli.core.methods.maskclip:MaskClip", "MaskCLIP", "Zhou et al., ECCV 2022"),
    "sclip": Entry("ovseg_cli.core.methods.sclip:Sclip", "SCLIP", "Wang et al., ECCV 2024"),
    "clearclip": Entry("ovseg_cli.core.methods.clearclip:ClearClip", "ClearCLIP", "Lan et al., ECCV 2024"),
    "naclip": Entry("ovseg_cli.core.methods.naclip:NaClip", "NACLIP", "Hajimiri et al., WACV 2025"),
    "proxyclip": Entry("ovseg_cli.core.methods.proxyclip:ProxyClip", "ProxyCLIP", "Lan et al., ECCV 2024, with a DINO"),
    "ipclip": Entry("ovseg_cli.core.methods.ipclip:IpClip", "IP-CLIP", "Jiao et al., NeurIPS 2023, frozen"),
    "freeseg": Entry(
        "ovseg_cli.core.methods.freeseg:FreeSeg",
        "FreeSeg",
        "Qin et al., CVPR 2023",
        trained="the mask generator, on seen classes",
        data="coco-stuff",
    ),
    "zegformer": Entry(
        "ovseg_cli.core.methods.zegformer:ZegFormer",
        "ZegFormer",
        "Ding et al., CVPR 2022",
        trained="MaskFormer, on seen classes",
        data="coco-stuff",
    ),
    "zsseg": Entry(
        "ovseg_cli.core.methods.zsseg:ZSSeg",
        "ZSSeg",
        "Xu et al., ECCV 2022",
        trained="MaskFormer, on seen classes",
        data="coco-stuff",
    ),
    "maft": Entry(
        "ovseg_cli.core.methods.maft:Maft",
        "MAFT",
        "Jiao et al., NeurIPS 2023",
        trained="CLIP's attention, on seen classes",
        data="coco-stuff",
    ),
    "zegclip": Entry(
        "ovseg_cli.core.methods.zegclip:ZegClip",
        "ZegCLIP",
        "Zhou et al., CVPR 2023",
        trained="prompts and decoder, on seen classes",
        data="coco-stuff",
    ),
    "tagclip": Entry(
        "ovseg_cli.core.methods.tagclip:TagClip",
        "TagCLIP",
        "Li et al., 2023",
        trained="prompts, trusty token and decoder, on seen classes",
        data="coco-stuff",
    ),
    "pixelclip": Entry(
        "ovseg_cli.core.methods.pixelclip:PixelClip",
        "PixelCLIP",
        "Shin et al., NeurIPS 2024",
        trained="CLIP's image tower, without labels",
        data="sa-1b",
    ),
}

GENERATORS: dict[str, Entry] = {
    "toyseg": Entry("ovseg_cli.core.data.toy:ToyWorld", "toy world", "procedural, this project"),
}

PROPOSALS: dict[str, Entry] = {
    "superpixels": Entry(
        "ovseg_cli.core.proposals.superpixels:Superpixels",
        "superpixels",
        "Felzenszwalb and Huttenlocher, IJCV 2004; SLIC, Achanta et al., TPAMI 2012",
    ),
    "ground-truth": Entry(
        "ovseg_cli.core.proposals.ground_truth:GroundTruth",
        "ground truth with noise",
        "this project, for oracle studies",
    ),
    "dino": Entry("ovseg_cli.core.proposals.dino:Dino", "DINO k-means", "PixelCLIP, Shin et al., NeurIPS 2024"),
    "sam": Entry(
        "ovseg_cli.core.proposals.sam:Sam", "Segment Anything (SAM, SAM 2, SAM 3)", "Kirillov et al., ICCV 2023"
    ),
    "annotations": Entry(
        "ovseg_cli.core.proposals.sa1b:Annotations", "the data set's own masks (SA-1B)", "Kirillov et al., ICCV 2023"
    ),
    "mask2former": Entry(
        "ovseg_cli.core.proposals.mask2former:Mask2Former", "Mask2Former, MaskFormer", "Cheng et al., CVPR 2022"
    ),
}

TRAINERS: dict[str, Entry] = {
    "toy-clip": Entry(
        "ovseg_cli.core.training.toy_clip:train_toy_clip",
        "toy CLIP",
        "this project",
        trained="a tiny CLIP, from scratch",
        settings="ovseg_cli.core.training.toy_clip_config:ToyClipConfig",
        estimate="ovseg_cli.core.training.toy_clip:estimate",
        data="toy",
    ),
}


def lookup(table: dict[str, Entry], kind: str, name: str) -> Entry:
    """Return the entry of `name`; an unknown name raises a UsageError that offers the nearest known one."""
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
