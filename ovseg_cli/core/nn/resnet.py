"""What a ResNet sees: feature maps at strides 4, 8, 16 and 32, in detectron2's layout and with its key names.

Stem variants, the place of the stride, dilated res5 and frozen batch norm are those of the published hosts (FreeSeg:
"R-101c", deeplab stem; ZegFormer and ZSSeg: basic stem). Group norm is ours: it lets a small net learn from scratch
with a batch of any size.

Source: He et al., "Deep Residual Learning", CVPR 2016; detectron2's `BasicStem`, `DeepLabStem`, `BottleneckBlock`.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.nn.resnet_config import ResNetConfig


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics, scale and shift are fixed: four buffers, nothing to train.

    Args:
        channels: C.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (B, C, h, w)."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return frozen batch norm, or group norm with groups of at least eight channels, 32 groups at most."""
    if kind == "frozen-bn":
        return FrozenBatchNorm(channels)
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 8))), channels)


class NormedConv(nn.Conv2d):
    """A convolution without bias that carries its norm; keys `weight` and `norm.*`, as detectron2's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: nn.Module, stride: int = 1, dilation: int = 1):
        super().__init__(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation=dilation, bias=False)
        self.norm = norm
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, input: Tensor) -> Tensor:
        """Convolve and normalise (B, C, h, w)."""
        return self.norm(super().forward(input))


class Stem(nn.Module):
    """One 7x7 or three 3x3 convolutions, then max pooling: stride 4."""

    def __init__(self, config: ResNetConfig):
        super().__init__()
        width, kind = config.stem_width, config.norm
        if config.stem == "basic":
            self.conv1 = NormedConv(3, width, 7, make_norm(kind, width), stride=2)
        else:
            half = width // 2
            self.conv1 = NormedConv(3, half, 3, make_norm(kind, half), stride=2)
            self.conv2 = NormedConv(half, half, 3, make_norm(kind, half))
            self.conv3 = NormedConv(half, width, 3, make_norm(kind, width))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, stem_width, H/4, W/4)."""
        for conv in self.children():
            images = F.relu_(conv(images))
        return F.max_pool2d(images, kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut, which is a 1x1 convolution where the channels change."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, dilation: int, config: ResNetConfig):
        super().__init__()
        first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
        kind = config.norm
        if inputs != outputs:
            self.shortcut: nn.Module = NormedConv(inputs, outputs, 1, make_norm(kind, outputs), stride)
        else:
            self.shortcut = nn.Identity()
        self.conv1 = NormedConv(inputs, inner, 1, make_norm(kind, inner), first)
        self.conv2 = NormedConv(inner, inner, 3, make_norm(kind, inner), second, dilation)
        self.conv3 = NormedConv(inner, outputs, 1, make_norm(kind, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, h, w)."""
        y = F.relu_(self.conv1(x))
        y = F.relu_(self.conv2(y))
        return F.relu_(self.conv3(y) + self.shortcut(x))


class ResNet(nn.Module):
    """Bottleneck ResNet; keys `stem.*`, `res2.N.*` to `res5.N.*`."""

    def __init__(self, config: ResNetConfig):
        super().__init__()
        self.config = config
        self.stem = Stem(config)
        inputs = config.stem_width
        for i, (name, outputs) in enumerate(config.channels.items()):
            dilations = config.multi_grid if name == "res5" else (1,) * config.blocks[i]
            blocks = []
            for j, dilation in enumerate(dilations):
                stride = 2 if i and not j else 1
                blocks.append(Bottleneck(inputs, config.width * 2**i, outputs, stride, dilation, config))
                inputs = outputs
            self.add_module(name, nn.Sequential(*blocks))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return feature maps by stage.

        Args:
            images: (B, 3, H, W), normalised; H and W of any size, multiples of 32 for maps that line up.

        Returns:
            res2 to res5: (B, C, H/4, W/4), (B, 2C, H/8, W/8), (B, 4C, H/16, W/16), (B, 8C, H/32, W/32).
        """
        x = self.stem(images)
        maps: dict[str, Tensor] = {}
        for name in self.config.channels:
            x = maps[name] = cast(nn.Module, getattr(self, name))(x)
        return maps
