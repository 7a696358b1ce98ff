"""Where a backbone's ImageNet weights come from, and how torchvision's and timm's names become detectron2's.

The hosts were published on detectron2's conversions: R-101 of MSRA (basic stem, stride in the 1x1) and R-103 (deeplab
stem, 64-64-128). timm has nets of the same form: `resnet101.tv_in1k` (torchvision's weights, stride in the 3x3) and
`resnet101s.gluon_in1k` (the deeplab stem). They were trained on the same pictures by others, so a host that is trained
from them is not weight for weight the published one.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ovseg_cli.core.clip import hub
from ovseg_cli.core.clip.weights import read_state_dict
from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.nn.resnet import ResNet
from ovseg_cli.core.nn.resnet_config import BLOCKS, ResNetConfig
from ovseg_cli.core.reporter import Reporter, Silent

IMAGENET, NONE = "imagenet", "none"

_STEM = {  # timm's deep stem is one Sequential, its last norm stands outside
    "conv1.0.": "stem.conv1.",
    "conv1.1.": "stem.conv1.norm.",
    "conv1.3.": "stem.conv2.",
    "conv1.4.": "stem.conv2.norm.",
    "conv1.6.": "stem.conv3.",
    "conv1.": "stem.conv1.",
}


def load_backbone(resnet: ResNet, weights: str, reporter: Reporter | None = None) -> None:
    """Fill a backbone.

    Args:
        resnet: With frozen batch norm.
        weights: "imagenet", "none" (it stays as it is), or a file: a state dict of torchvision's or timm's ResNet.
        reporter: Told what was loaded.

    Raises:
        UsageError: There are no ImageNet weights of this form, or the file holds another net.
        MachineError: The weights are absent and cannot be downloaded; says which file to put where.
    """
    if weights == NONE:
        return
    if resnet.config.norm != "frozen-bn":
        raise UsageError(
            f"backbone_weights = {weights}: pre-trained ResNets have batch norm, this backbone has group norm.",
            "Set backbone_weights = none, or generator.backbone.norm = frozen-bn.",
        )
    if weights == IMAGENET:
        name = timm_name(resnet.config)
        load_named(resnet, _from_timm(name), name)
    else:
        name = weights
        load_named(resnet, _from_file(Path(weights)), weights)
    (reporter or Silent()).say(f"backbone begins with {name}")


def timm_name(config: ResNetConfig) -> str:
    """Return timm's name of the ImageNet weights for a backbone.

    Raises:
        UsageError: There are none of this depth, stem and width.
    """
    depth = {blocks: depth for depth, blocks in BLOCKS.items()}.get(config.blocks)
    plain = (config.width, config.res2_width) == (64, 256) and not config.stride_in_1x1
    stem = (config.stem, config.stem_width)
    if depth and plain and stem == ("basic", 64):
        return f"resnet{depth}.tv_in1k"
    if depth and plain and stem == ("deeplab", 128):
        return f"resnet{depth}s.gluon_in1k"
    raise UsageError(
        f"there are no ImageNet weights for a ResNet with blocks {config.blocks}, {config.stem} stem of "
        f"{config.stem_width} channels and widths {config.width} / {config.res2_width}.",
        "Set backbone_weights = none and generator.backbone.norm = group-norm to train from scratch.",
    )


def _from_timm(name: str) -> Mapping[str, Tensor]:
    import timm

    try:
        with hub.hub_as_it_is():
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:
        raise MachineError(
            f"the ImageNet weights {name} are not on this machine and could not be downloaded "
            f"({hub.first_line(error)}).",
            f"Download timm/{name} from the Hugging Face hub where there is a network and copy the cache folder from "
            "there (HF_HOME, by default ~/.cache/huggingface), or pass its file: --set backbone_weights=FILE.",
        ) from error


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise MachineError(
            f"backbone_weights {path}: there is no such file.", "Pass imagenet, none, or the path of a file."
        )
    return read_state_dict(path)[0]


def load_named(resnet: ResNet, state: Mapping[str, Tensor], what: str) -> None:
    """Copy a state dict with torchvision's or timm's names into a backbone; its classifier is left out.

    Raises:
        UsageError: It is another net; the first difference is named.
    """
    deep = any(key.startswith("conv1.6.") for key in state)
    renamed = {detectron_name(key, deep): value for key, value in state.items()}
    found = {key: value for key, value in renamed.items() if key is not None}
    own = resnet.state_dict()
    missing, extra = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    other = [key for key in own if key in found and own[key].shape != found[key].shape]
    if missing or extra or other:
        first = (
            f"{other[0]} is {tuple(found[other[0]].shape)}, not {tuple(own[other[0]].shape)}"
            if other
            else f"{(missing or extra)[0]} is {'missing' if missing else 'unknown'}"
        )
        raise UsageError(
            f"{what}: these are weights of another ResNet than the settings ask for ({first}).",
            "Change generator.backbone, or choose other weights.",
        )
    with torch.no_grad():
        resnet.load_state_dict(found)


def detectron_name(key: str, deep_stem: bool = False) -> str | None:
    """Return detectron2's name of an entry of torchvision's or timm's ResNet, None for what a backbone lacks.

    "layer2.0.downsample.1.running_var" → "res3.0.shortcut.norm.running_var"; "conv1.weight" → "stem.conv1.weight".

    Args:
        key: The entry's name.
        deep_stem: The stem has three convolutions; its "bn1" then belongs to the third.
    """
    if key.startswith("fc.") or key.endswith("num_batches_tracked"):
        return None
    block = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", key)
    if block is None:
        return _stem_name(key, deep_stem)
    rest = re.sub(r"^bn(\d)\.", r"conv\1.norm.", block[3])
    rest = rest.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return f"res{int(block[1]) + 1}.{block[2]}.{rest}"


def _stem_name(key: str, deep: bool) -> str:
    if key.startswith("bn1."):
        return f"stem.conv{3 if deep else 1}.norm.{key[4:]}"
    for old, new in _STEM.items():
        if key.startswith(old):
            return new + key[len(old) :]
    return key
