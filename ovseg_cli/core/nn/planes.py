"""What are the scores in any rectangle of a picture, and between which bounds do they lie?

A plane is M scores at every point of an (H, W) raster that is never made as a whole. Most predictions are a grid of
samples and two axes that mix them (`MixedPlane`, here). A rectangle takes the samples that it needs; the lowest and
highest of them bound everything that is mixed from them, since weights are not negative and sum to one. Scores that are
made pixel by pixel after the mixing have a plane of their own (sigmoid_planes.py).
Arrays are (rows, columns, M), text rows last, so that an arg-max reads memory in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ovseg_cli.core.errors import OvsegError, ShapeError
from ovseg_cli.core.nn.resize import Axis, Mix, Span, bilinear_axis, window_axis
from ovseg_cli.core.types import DensePrediction, MaskPrediction, WindowPrediction


class Block(Protocol):
    """One rectangle of a plane, before its scores are made."""

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return for each text row a lower and an upper bound of its scores here, two tensors (M,)."""

    def values(self, rows: Tensor | None = None) -> Tensor:
        """Return the scores of some text rows (default: all), (y, x, rows) float32."""

    def best(self, rows: Tensor, bias: Tensor) -> Tensor | None:
        """Return where in `rows` each pixel's best score is, (y, x), after adding a bias of each row, (rows,).

        The first one at ties. None where that is not quicker than to make all `values` and to compare them.
        """


class Plane(Protocol):
    """M scores at every point of an (H, W) raster."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""

    @property
    def num_rows(self) -> int:
        """M."""

    @property
    def device(self) -> torch.device:
        """Where the scores are made."""

    def block(self, ys: Span, xs: Span) -> Block:
        """Take what a rectangle is made from."""


@dataclass(frozen=True)
class MixedBlock:
    """One rectangle of a grid of samples.

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

    def best(self, rows: Tensor, bias: Tensor) -> Tensor | None:
        """Return None: the order of scores is not known before they are made."""


@dataclass(frozen=True)
class MixedPlane:
    """Scores that are a grid of samples, mixed along two axes.

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

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.samples.device

    def block(self, ys: Span, xs: Span) -> MixedBlock:
        """Take what a rectangle is mixed from."""
        y_mix, x_mix = self.y_axis.mix(ys).to(self.device), self.x_axis.mix(xs).to(self.device)
        samples = self.samples.index_select(0, y_mix.samples).index_select(1, x_mix.samples)
        if self.mixture is not None:
            present = samples.abs().amax((0, 1)).nonzero().flatten()  # masks are zero nearly everywhere
            samples = samples.index_select(2, present) @ self.mixture[present]
        return MixedBlock(samples, y_mix, x_mix)


def mixed_plane(prediction: DensePrediction | WindowPrediction | MaskPrediction, size: tuple[int, int]) -> MixedPlane:
    """Return the scores of a prediction as a plane of `size`.

    Raises:
        ShapeError: Windows form no grid or do not cover the canvas.
        OvsegError: Scores hold NaN or infinite values.
    """
    match prediction:
        case DensePrediction():
            return _resized(_samples(prediction.logits), size)
        case MaskPrediction():
            masks = _resized(_samples(prediction.masks), size)
            return MixedPlane(masks.samples, masks.y_axis, masks.x_axis, finite(prediction.class_scores.detach()))
        case WindowPrediction():
            return _windows(prediction, size)


def _resized(samples: Tensor, size: tuple[int, int]) -> MixedPlane:
    height, width = samples.shape[:2]
    return MixedPlane(samples, bilinear_axis(height, size[0]), bilinear_axis(width, size[1]))


def _windows(prediction: WindowPrediction, size: tuple[int, int]) -> MixedPlane:
    """Put the windows' grids side by side; rows and columns of windows mix by themselves."""
    rows, columns = window_grid(prediction.boxes)
    height, width = prediction.logits.shape[2:]
    y_axis = window_axis(*zip(*rows, strict=True), height, prediction.canvas[0], size[0])
    x_axis = window_axis(*zip(*columns, strict=True), width, prediction.canvas[1], size[1])
    grids = prediction.logits.unflatten(0, (len(rows), len(columns))).permute(2, 0, 3, 1, 4)
    return MixedPlane(_samples(grids.flatten(3, 4).flatten(1, 2)), y_axis, x_axis)


def window_grid(boxes: Tensor) -> tuple[Sequence[Span], Sequence[Span]]:
    """Return (start, length) of the rows and of the columns of windows.

    Args:
        boxes: (N, 4): top, left, height, width, row-major from top left.

    Raises:
        ShapeError: The windows form no grid.
    """
    found = [tuple(box) for box in boxes.tolist()]
    rows, columns = sorted({(b[0], b[2]) for b in found}), sorted({(b[1], b[3]) for b in found})
    if found != [(top, left, height, width) for top, height in rows for left, width in columns]:
        raise ShapeError(f"{len(found)} windows do not form a grid of {len(rows)} x {len(columns)}, row-major")
    return rows, columns


def _samples(maps: Tensor) -> Tensor:
    """Turn (C, h, w) of any float type into (h, w, C) float32."""
    return finite(maps.detach().permute(1, 2, 0)).contiguous()


def finite(values: Tensor) -> Tensor:
    """Return values as float32.

    Raises:
        OvsegError: Some are NaN or infinite.
    """
    values = values.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise OvsegError(
            "the model's scores hold NaN or infinite values.",
            "Check its weights, and run it in float32 if it ran in half precision.",
        )
    return values


def argmax(scores: Tensor) -> Tensor:
    """Arg-max over the last axis, lowest index first; numpy's is several times faster than torch's on the CPU."""
    if scores.is_cuda:
        return scores.argmax(-1)
    return torch.from_numpy(scores.numpy().argmax(-1))
