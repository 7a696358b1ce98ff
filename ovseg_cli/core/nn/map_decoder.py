"""PixelCLIP's decoder: how does a coarse map of cosines become a finer map of logits?

Source: PixelCLIP, code (`head`): conv 3x3 (1 to C), transposed conv 2x2 (C to C), twice conv 3x3 with GroupNorm and
ReLU, transposed conv 2x2 (C to C/2), twice conv 3x3 with GroupNorm and ReLU, conv 3x3 (C/2 to 1); C is 64. Each map of
a picture passes alone, as a grey picture would: B·k maps a step, 258 million multiplications for each of 20 x 20.

The parameters have the code's names, shapes and first values. Other layers are computed with: all up to the first norm
is one linear map, and so are the second transposed convolution and the convolution after it (upsampling_conv.py). 179
million multiplications are left, and the widest maps are never made. Channels stand last in memory, as the fast
convolutions of processors and tensor cores want them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.upsampling_conv import (
    bias_map,
    fine_pixels,
    merged_first_kernel,
    merged_kernel,
    neighbourhoods,
)

CHANNELS_A_GROUP = 16
"""Of all norms."""


class MapDecoder(nn.Module):
    """The decoder. In training `decoded_bce_sum` (decoded_bce.py) is it and its loss, in less time and memory.

    Args:
        width: C, a multiple of 32.

    Raises:
        ShapeError: It is none.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        if width < 1 or width % (2 * CHANNELS_A_GROUP):
            raise ShapeError(f"a decoder of {width} channels: their number must be a multiple of 32")
        self.conv0 = nn.Conv2d(1, width, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.conv1 = _TwoConvs(width)
        self.up2 = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
        self.conv2 = _TwoConvs(width // 2)
        self.proj = nn.Conv2d(width // 2, 1, 3, padding=1)

    def forward(self, similarity: Tensor) -> Tensor:
        """Return (B, k, 4·h, 4·w) logits of (B, k, h, w) maps, each decoded alone."""
        height, width = similarity.shape[2:]
        maps = decode(similarity.flatten(0, 1)[:, None], self.layers((height, width)))
        return maps.reshape(*similarity.shape[:2], *maps.shape[2:])

    def layers(self, size: tuple[int, int]) -> "Layers":
        """Merge what is linear, in float32 even inside autocast; gradients reach the parameters.

        Args:
            size: (h, w) of the maps that will be decoded.
        """
        one: Any = self.conv1.double_conv
        two: Any = self.conv2.double_conv
        up, up_bias = _weights(self.up2)
        with torch.autocast(self.proj.weight.device.type, enabled=False):
            first = merged_first_kernel(_weights(self.conv0), _weights(self.up1), one[0].weight)
            middle = merged_kernel(up, two[0].weight)
            between = bias_map(up_bias, two[0].weight, (4 * size[0], 4 * size[1]))
            last, last_bias = _weights(self.proj)
            kernels = [first, one[3].weight, middle, two[3].weight, last]
            return Layers(
                [kernel.contiguous(memory_format=torch.channels_last) for kernel in kernels],
                [tensor for norm in (one[1], one[4], two[1], two[4]) for tensor in _weights(norm)],
                [between.contiguous(memory_format=torch.channels_last), last_bias],
            )


@dataclass(frozen=True)
class Layers:
    """What `decode` computes with.

    Attributes:
        kernels: Of five convolutions: to the first norm, to the second, and so on; to the logits.
        norms: Scale and shift of the four norms, in turn.
        biases: What is added before the third norm, (1, C/2, 4·h, 4·w), and to the logits, (1,).
    """

    kernels: Sequence[Tensor]
    norms: Sequence[Tensor]
    biases: Sequence[Tensor]

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in an order that `of_tensors` knows."""
        return [*self.kernels, *self.norms, *self.biases]

    @classmethod
    def of_tensors(cls, tensors: Sequence[Tensor]) -> "Layers":
        """Make it of what `tensors` returned."""
        return cls(tensors[:5], tensors[5:13], tensors[13:])

    def normed(self, maps: Tensor, number: int) -> Tensor:
        """Apply a norm and the ReLU after it."""
        scale, shift = self.norms[2 * number : 2 * number + 2]
        return F.relu_(F.group_norm(maps, len(scale) // CHANNELS_A_GROUP, scale, shift))


def decode(maps: Tensor, layers: Layers) -> Tensor:
    """Return (n, 1, 4·h, 4·w) logits of (n, 1, h, w) maps."""
    kernels, (between, last) = layers.kernels, layers.biases
    x = fine_pixels(F.conv2d(neighbourhoods(maps), kernels[0], padding=1))
    x = F.conv2d(layers.normed(x, 0), kernels[1], padding=1)
    x = F.conv2d(layers.normed(x, 1), kernels[2], padding=1)
    x = fine_pixels(x) + between.to(x.dtype)
    x = F.conv2d(layers.normed(x, 2), kernels[3], padding=1)
    return F.conv2d(layers.normed(x, 3), kernels[4], last, padding=1)


class _TwoConvs(nn.Module):
    """Parameters of conv 3x3 without bias, norm and ReLU, twice; `decode` computes."""

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            norm = nn.GroupNorm(width // CHANNELS_A_GROUP, width)
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), norm, nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias."""
    return layer.get_parameter("weight"), layer.get_parameter("bias")
