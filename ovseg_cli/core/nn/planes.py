"""What are the scores in any rectangle of a picture, and between which bounds do they lie?

A plane is M scores at every point of an (H, W) raster that is never made as a whole. Every prediction is a grid of
samples and two axes that mix them. A rectangle takes the samples that it needs; the lowest and highest of them bound
everything that is mixed from them, since weights are not negative and sum to one.
Arrays are (rows, columns, M), text rows last, so that an arg-max reads memory in order.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_cli.core.errors import OvsegError, ShapeError
from ovseg_cli.core.nn.resize import Axis, Mix, Span, bilinear_axis, window_axis
from ovseg_cli.core.types import DensePrediction, MaskPrediction, Prediction, WindowPrediction


@dataclass(frozen=True)
class Block:
    """One rectangle, before its scores are made.

    Attributes:
        samples: (n_y, n_x, M), the samples it is mixed from.
        y_mix: Rows from n_y samples.
        x_mix: Columns from n_x samples.
    """

    samples: Tensor
    y_mix: Mix
    x_mix: Mix

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return for each text row a lower and an upper bound of its scores here, two tensors (M,)."""
        flat = self.samples.reshape(-1, self.samples.shape[2])
        return flat.amin(0), flat.amax(0)

    def values(self, rows: Tensor | None = None) -> Tensor:
        """Return the scores of some text rows (default: all), (y, x, rows) float32."""
        samples = self.samples if rows is None else self.samples.index_select(2, rows)
        return self.x_mix.columns(self.y_mix.rows(samples))


@dataclass(frozen=True)
class Plane:
    """M scores at every point of an (H, W) raster.

    Attributes:
        samples: (h, w, C) float32 on a grid.
        y_axis: H rows from h samples.
        x_axis: W columns from w samples.
        mixture: (C, M), or None where C = M. Sums over masks: resizing masks and then summing them with class scores
            is the same as summing first, which is done only for the samples of a block.
    """

    samples: Tensor
    y_axis: Axis
    x_axis: Axis
    mixture: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.y_axis.target, self.x_axis.target

    @property
    def num_rows(self) -> int:
        """M."""
        return self.samples.shape[2] if self.mixture is None else self.mixture.shape[1]

    def block(self, ys: Span, xs: Span) -> Block:
        """Take what a rectangle is mixed from."""
        device = self.samples.device
        y_mix, x_mix = self.y_axis.mix(ys).to(device), self.x_axis.mix(xs).to(device)
        samples = self.samples.index_select(0, y_mix.samples).index_select(1, x_mix.samples)
        if self.mixture is not None:
            present = samples.abs().amax((0, 1)).nonzero().flatten()  # masks are zero nearly everywhere
            samples = samples.index_select(2, present) @ self.mixture[present]
        return Block(samples, y_mix, x_mix)


def plane_of(prediction: Prediction, size: tuple[int, int] | None = None) -> Plane:
    """Return the scores of a prediction as a plane of its own size, or of `size` where given.

    Raises:
        ShapeError: Windows form no grid or do not cover the canvas.
        OvsegError: Scores hold NaN or infinite values.
    """
    size = size or prediction.size
    match prediction:
        case DensePrediction():
            return _resized(_samples(prediction.logits), size)
        case MaskPrediction():
            masks = _resized(_samples(prediction.masks), size)
            return Plane(masks.samples, masks.y_axis, masks.x_axis, _finite(prediction.class_scores.detach().float()))
        case WindowPrediction():
            return _windows(prediction, size)


def _resized(samples: Tensor, size: tuple[int, int]) -> Plane:
    height, width = samples.shape[:2]
    return Plane(samples, bilinear_axis(height, size[0]), bilinear_axis(width, size[1]))


def _windows(prediction: WindowPrediction, size: tuple[int, int]) -> Plane:
    """Put the windows' grids side by side; rows and columns of windows mix by themselves."""
    boxes = [tuple(box) for box in prediction.boxes.tolist()]
    rows, columns = sorted({(b[0], b[2]) for b in boxes}), sorted({(b[1], b[3]) for b in boxes})
    if boxes != [(top, left, height, width) for top, height in rows for left, width in columns]:
        raise ShapeError(f"{len(boxes)} windows do not form a grid of {len(rows)} x {len(columns)}, row-major")
    height, width = prediction.logits.shape[2:]
    y_axis = window_axis(*zip(*rows, strict=True), height, prediction.canvas[0], size[0])
    x_axis = window_axis(*zip(*columns, strict=True), width, prediction.canvas[1], size[1])
    grids = prediction.logits.unflatten(0, (len(rows), len(columns))).permute(2, 0, 3, 1, 4)
    return Plane(_samples(grids.flatten(3, 4).flatten(1, 2)), y_axis, x_axis)


def _samples(maps: Tensor) -> Tensor:
    """Turn (C, h, w) of any float type into (h, w, C) float32."""
    return _finite(maps.detach().permute(1, 2, 0).to(torch.float32).contiguous())


def _finite(values: Tensor) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise OvsegError(
            "the model's scores hold NaN or infinite values.",
            "Check its weights, and run it in float32 if it ran in half precision.",
        )
    return values
