"""What shapes tell about the image tower of a CLIP, and what they do not: OpenAI's ViT, OpenCLIP's ConvNeXt of timm."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.nn.resnet_config import count_parts

HEAD_WIDTH = 64
WIDTH_64 = "default; code: width / 64"
TRUNK = "visual.trunk."

Untold = dict[str, tuple[Any, str]]
"""Settings that no shape tells: the published value, and where it comes from."""


@dataclass(frozen=True)
class ImageTower:
    """One kind of image tower.

    Attributes:
        title: In messages.
        read: From tensors under CLIP's own names to sizes; raises KeyError with a name that is missing, ValueError
            where sizes make no sense.
        untold: From sizes to what they do not tell.
        vision: From sizes, and settings that no shape tells, to open_clip's `vision_cfg`.
    """

    title: str
    read: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    untold: Callable[[Mapping[str, Any]], Untold]
    vision: Callable[[Mapping[str, Any]], dict[str, Any]]


def image_tower(state: Mapping[str, Tensor], towers: Sequence[ImageTower], where: str) -> ImageTower:
    """Tell the kind of the tower in a CLIP's tensors.

    Args:
        state: Tensors under CLIP's own names.
        towers: Kinds that the method can have.
        where: The file, for messages.

    Raises:
        UsageError: It is another one.
    """
    found = CONVNEXT if any(name.startswith(TRUNK) for name in state) else VIT
    title = "ResNet" if "visual.layer1.0.conv1.weight" in state else found.title
    if title not in (tower.title for tower in towers):
        known = " and ".join(f"{tower.title}s" for tower in towers)
        raise UsageError(f"{where}: its CLIP has a {title} as image tower; only {known} are supported.")
    return found


def _read_vit(state: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = state["visual.conv1.weight"]
    positions = len(state["visual.positional_embedding"])
    grid = math.isqrt(positions - 1)
    if grid * grid != positions - 1:
        raise ValueError(f"the {positions - 1} positions of its CLIP make no square grid")
    return {
        "width": int(patches.shape[0]),
        "layers": count_parts(state, "visual.transformer.resblocks."),
        "patch_size": int(patches.shape[-1]),
        "image_size": int(grid * patches.shape[-1]),
        "mlp_width": int(state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]),
        "embed_dim": int(state["visual.proj"].shape[1]),
    }


def _untold_of_vit(sizes: Mapping[str, Any]) -> Untold:
    return {
        "heads": (max(1, sizes["width"] // HEAD_WIDTH), WIDTH_64),
        "text_heads": (max(1, sizes["text_width"] // HEAD_WIDTH), WIDTH_64),
        "quick_gelu": (True, "default; code: OpenAI's weights"),
    }


def _vision_of_vit(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image_size": sizes["image_size"],
        "layers": sizes["layers"],
        "width": sizes["width"],
        "head_width": sizes["width"] // sizes["heads"],
        "patch_size": sizes["patch_size"],
        "mlp_ratio": sizes["mlp_width"] / sizes["width"],
    }


def _read_convnext(state: Mapping[str, Tensor]) -> dict[str, Any]:
    stages = [f"{TRUNK}stages.{i}.blocks." for i in range(4)]
    return {
        "depths": [count_parts(state, stage) for stage in stages],
        "dims": [int(state[f"{stage}0.conv_dw.weight"].shape[0]) for stage in stages],
        "embed_dim": int(state["visual.head.proj.weight"].shape[0]),
    }


def _untold_of_convnext(sizes: Mapping[str, Any]) -> Untold:
    return {
        "image_size": (320, "default; code: convnext_base_w_320"),
        "drop_path": (0.1, "default; code: convnext_base_w_320, in training alone"),
        "text_heads": (max(1, sizes["text_width"] // HEAD_WIDTH), WIDTH_64),
        "quick_gelu": (False, "default; code: OpenCLIP's weights"),
    }


def _vision_of_convnext(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "timm_model_name": "convnext_base",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "timm_drop": 0.0,
        "timm_drop_path": _number(sizes, "drop_path", float, 0, 1),
        "image_size": _number(sizes, "image_size", int, 1, 1 << 16),
        "timm_model_kwargs": {"depths": sizes["depths"], "dims": sizes["dims"]},
    }


def _number(sizes: Mapping[str, Any], key: str, kind: type, lowest: int, highest: int) -> Any:
    """Return a setting that the user may have named.

    Raises:
        UsageError: It is no such number.
    """
    value = sizes[key]
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not lowest <= value <= highest:
        raise UsageError(f"clip.{key} = {value!r}: must be a number from {lowest} to {highest}.")
    return value


VIT = ImageTower("ViT", _read_vit, _untold_of_vit, _vision_of_vit)
CONVNEXT = ImageTower("ConvNeXt", _read_convnext, _untold_of_convnext, _vision_of_convnext)
