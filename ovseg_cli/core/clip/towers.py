"""How an open_clip configuration becomes a model without weights.

One key goes beyond open_clip's own: `vision_cfg.timm_model_kwargs` sets the depths and widths of a timm tower, so that
small ConvNeXt towers can be described by a configuration too.
"""

from collections import OrderedDict
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from ovseg_cli.core.errors import UsageError


def build_module(config: dict[str, Any]) -> nn.Module:
    """Build an open_clip model with random weights in float32, no download.

    Args:
        config: embed_dim, vision_cfg, text_cfg, quick_gelu and what else open_clip's configurations hold.

    Raises:
        UsageError: The configuration does not describe a model that open_clip can build.
    """
    from open_clip.model import CLIP, CustomTextCLIP

    config = deepcopy(config)
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
    if "multimodal_cfg" in config:
        raise UsageError("CoCa models are not supported: their image tower pools by attention.", "Choose a CLIP.")
    if "hf_model_name" in config.get("text_cfg", {}):
        config["text_cfg"]["hf_model_pretrained"] = False
    vision = config.get("vision_cfg", {})
    sizes = vision.pop("timm_model_kwargs", None)
    timm_cfg = dict(vision) if sizes else None
    if sizes:
        config["vision_cfg"] = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 16}
    try:
        module = (CustomTextCLIP if custom_text else CLIP)(**config)
        if sizes and timm_cfg:
            module.visual = SizedTimmTower(timm_cfg, sizes, config["embed_dim"])
    except (TypeError, KeyError, AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(f"the CLIP configuration cannot be built: {error}.", "Check its keys and sizes.") from error
    return module.float()


class SizedTimmTower(nn.Module):
    """A timm image tower of given sizes with CLIP's projection, parameters named as open_clip names them.

    Args:
        vision: `vision_cfg` with `timm_model_name` and `image_size`.
        sizes: Keywords for timm, for instance {"depths": [1, 1, 2, 1], "dims": [16, 24, 32, 48]}.
        embed_dim: D.
    """

    def __init__(self, vision: dict[str, Any], sizes: dict[str, Any], embed_dim: int):
        super().__init__()
        import timm

        drop_path = vision.get("timm_drop_path") or 0.0
        self.image_size = (vision["image_size"], vision["image_size"])
        self.trunk: Any = timm.create_model(
            vision["timm_model_name"], pretrained=False, num_classes=0, drop_path_rate=drop_path, **sizes
        )
        drop = nn.Dropout(vision.get("timm_drop", 0.0))
        width: Any = self.trunk.num_features
        proj = nn.Linear(width, embed_dim, bias=False)
        self.head = nn.Sequential(OrderedDict(drop=drop, proj=proj))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, D) of (B, 3, H, W)."""
        return self.head(self.trunk(images))
