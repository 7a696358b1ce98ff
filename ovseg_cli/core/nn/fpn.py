"""How backbone maps become one fine map for the masks: MaskFormer's feature pyramid.

Key names are those of the published checkpoints: `adapter_N`, `layer_N`, `mask_features`.

Source: Cheng et al., "Per-Pixel Classification is Not All You Need", NeurIPS 2021; code, `BasePixelDecoder`.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.nn.resnet import NormedConv


class FpnDecoder(nn.Module):
    """From the coarsest stage to the finest: up-sample, add a 1x1 convolution of the stage, 3x3 convolution, ReLU.

    Args:
        channels: Channels of the stages by name, finest first.
        width: C of all inner maps.
        mask_width: E of the mask features.
        groups: Of the group norms.
    """

    def __init__(self, channels: dict[str, int], width: int = 256, mask_width: int = 256, groups: int = 32):
        super().__init__()
        self.stages = tuple(channels)
        coarsest = len(channels)
        for number, inputs in enumerate(channels.values(), start=1):
            if number < coarsest:
                self.add_module(f"adapter_{number}", NormedConv(inputs, width, 1, nn.GroupNorm(groups, width)))
            inner = inputs if number == coarsest else width
            self.add_module(f"layer_{number}", NormedConv(inner, width, 3, nn.GroupNorm(groups, width)))
        self.mask_features = nn.Conv2d(width, mask_width, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        """Return mask features (B, E, h, w) at the finest stage's size, of backbone maps by name.

        Up-sampling repeats cells (nearest), as in the code: FPN's own choice, unlike FreeSeg's bilinear step.
        """
        coarsest = len(self.stages)
        y = F.relu(self._part(f"layer_{coarsest}")(maps[self.stages[-1]]))
        for number in range(coarsest - 1, 0, -1):
            lateral = self._part(f"adapter_{number}")(maps[self.stages[number - 1]])
            y = lateral + F.interpolate(y, lateral.shape[-2:], mode="nearest")
            y = F.relu(self._part(f"layer_{number}")(y))
        return self.mask_features(y)

    def _part(self, name: str) -> nn.Module:
        return cast(nn.Module, getattr(self, name))
