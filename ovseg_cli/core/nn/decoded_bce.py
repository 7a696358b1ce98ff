"""PixelCLIP's decoder and its loss at once: B·k maps, of which only a few ever exist.

The loss is a sum over maps, and each map is decoded alone. So a few maps at a time go forward and at once backward; of
each remains its part of the sum, and of the gradients by the similarities and by the decoder's layers. The usual order,
all maps forward and then all backward, keeps some 5 MB a map of 20 x 20 in between (0.6 GB for 2 pictures and 64
classes), and reads it from memory where a few maps stay in the processor's cache. Nothing is computed twice, as it
would be with checkpoints.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ovseg_cli.core.nn.covered_bce import covered_bce_sum, is_covered
from ovseg_cli.core.nn.map_decoder import Layers, MapDecoder, decode

_untranslated: Any = torch._disable_dynamo
"""Keeps torch.compile away from a loop over maps; `torch.compiler.disable` without the seconds of its import."""
PIXELS_AT_ONCE = (1 << 16, 1 << 19)
"""Fine pixels that exist at once: a processor's cache; a GPU. They take about 800 bytes each."""
_SCALE = 2.0**-8
"""Of the loss on its way back, for float16: the sums of a weight's gradient over pixels stay below 65504. Any power of
two: it is taken out again without rounding."""


@_untranslated
def decoded_bce_sum(decoder: MapDecoder, similarity: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
    """Return `covered_bce_sum(decoder(similarity), ids, targets)`.

    Args:
        decoder: The decoder.
        similarity: (B, k, h, w), any scale.
        ids: (B, M, M') integers, the region of each pixel.
        targets: (B, R, k) uint8, 1 where a region lies in a mask of the class.

    Returns:
        Scalar with gradients for similarity and decoder: a factor after it, as a mean's or a loss scaler's, is right.
    """
    height, width = similarity.shape[2:]
    layers = decoder.layers((height, width)).tensors()
    return _DecodedBce.apply(ids, targets, similarity.float(), *layers)


class _DecodedBce(torch.autograd.Function):
    """The sum, and its gradients, computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, targets: Tensor, similarity: Tensor, *layers: Tensor) -> Tensor:
        wants = any(ctx.needs_input_grad)
        own = [layer.detach().requires_grad_(wants) for layer in layers]
        grads = [torch.zeros_like(x) for x in (similarity, *layers)] if wants else []
        total, covered = similarity.new_zeros(()), is_covered(ids, targets)
        for b, part in _parts(similarity):
            few = similarity[b, part, None].detach().requires_grad_(wants)
            with torch.set_grad_enabled(wants):
                maps = decode(few, Layers.of_tensors(own)).transpose(0, 1)
                loss = covered_bce_sum(maps, ids[b, None], targets[b, None, :, part], covered[b, None])
            total += loss.detach()
            if wants:
                with torch.autocast(similarity.device.type, enabled=False):
                    found = torch.autograd.grad(loss, [few, *own], loss.new_tensor(_SCALE))
                grads[0][b, part] = found[0][:, 0]
                for kept, new in zip(grads[1:], found[1:], strict=True):
                    kept += new
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        factor = outer[0] / _SCALE
        return None, None, *(grad * factor for grad in ctx.saved_tensors)


def _parts(similarity: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield picture and maps of each part."""
    pictures, count, height, width = similarity.shape
    step = max(1, PIXELS_AT_ONCE[similarity.device.type == "cuda"] // max(1, 16 * height * width))
    for b in range(pictures):
        for start in range(0, count, step):
            yield b, slice(start, min(start + step, count))
