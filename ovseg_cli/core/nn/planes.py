"""What are the scores inside any rectangle of a picture, and between which bounds do they lie?

A plane is M scores at every point of an (H, W) raster that is never made as a whole: `values` makes one rectangle for
some rows, `bounds` says without making it how low and how high each row gets there. All resizing is linear with
non-negative weights that sum to one, so the lowest and highest source samples bound everything made from them.
Arrays are (rows, columns, M), rows of the text last, so that an arg-max reads memory in order.
"""

from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from ovseg_cli.core.errors import OvsegError, ShapeError
from ovseg_cli.core.nn.resize import AxisResize, Span
from ovseg_cli.core.types import DensePrediction, MaskPrediction, Prediction, WindowPrediction


class Plane(Protocol):
    """M scores at every point of an (H, W) raster."""

    size: tuple[int, int]
    num_rows: int

    def values(self, ys: Span, xs: Span, rows: Tensor | None) -> Tensor:
        """Return the scores in a rectangle, (y, x, len(rows)) float32; all M rows when `rows` is None."""

    def bounds(self, ys: Span, xs: Span) -> tuple[Tensor, Tensor]:
        """Return for each row a lower and an upper bound of its scores in a rectangle, two tensors (M,)."""


class Grid:
    """Stored samples: (M, h, w) of any float type."""

    def __init__(self, samples: Tensor):
        self.samples = samples.detach().permute(1, 2, 0).to(torch.float32).contiguous()
        if not bool(torch.isfinite(self.samples).all()):
            raise OvsegError(
                "the model's scores hold NaN or infinite values.",
                "Check its weights, and run it in float32 if it ran in half precision.",
            )
        self.size = (self.samples.shape[0], self.samples.shape[1])
        self.num_rows = self.samples.shape[2]

    def values(self, ys: Span, xs: Span, rows: Tensor | None) -> Tensor:
        """Return the stored samples of a rectangle."""
        part = self.samples[slice(*ys), slice(*xs)]
        return part if rows is None else part.index_select(2, rows)

    def bounds(self, ys: Span, xs: Span) -> tuple[Tensor, Tensor]:
        """Return lowest and highest sample of each row."""
        low, high = torch.aminmax(self.samples[slice(*ys), slice(*xs)].reshape(-1, self.num_rows), dim=0)
        return low, high


class Resized:
    """Another plane, brought to a size bilinearly."""

    def __init__(self, plane: Plane, size: tuple[int, int]):
        self.plane, self.size, self.num_rows = plane, size, plane.num_rows
        self.y_axis, self.x_axis = _axis(plane.size[0], size[0]), _axis(plane.size[1], size[1])

    def values(self, ys: Span, xs: Span, rows: Tensor | None) -> Tensor:
        """Return a rectangle, made from the samples it needs: columns' axis last, where there is most to do."""
        source = self.plane.values(self.y_axis.source_span(ys), self.x_axis.source_span(xs), rows)
        return self.x_axis.apply(self.y_axis.apply(source, ys, 0), xs, 1)

    def bounds(self, ys: Span, xs: Span) -> tuple[Tensor, Tensor]:
        """Return the bounds of the source samples: a bilinear resize stays between them."""
        return self.plane.bounds(self.y_axis.source_span(ys), self.x_axis.source_span(xs))


class Windows:
    """Overlapping windows on a canvas; where they overlap, the mean of their up-sampled scores."""

    def __init__(self, logits: Tensor, boxes: Tensor, canvas: tuple[int, int]):
        self.size, self.num_rows = canvas, logits.shape[1]
        self.boxes = [tuple(box) for box in boxes.tolist()]
        self.windows = [Resized(Grid(w), (b[2], b[3])) for w, b in zip(logits, self.boxes, strict=True)]
        self.count = torch.zeros(canvas, dtype=torch.float32, device=logits.device)
        for top, left, height, width in self.boxes:
            if top < 0 or left < 0 or top + height > canvas[0] or left + width > canvas[1]:
                raise ShapeError(f"window {(top, left, height, width)} leaves the canvas {canvas}")
            self.count[top : top + height, left : left + width] += 1
        if not bool((self.count > 0).all()):
            raise ShapeError(f"the {len(self.boxes)} windows do not cover the canvas {canvas}")

    def values(self, ys: Span, xs: Span, rows: Tensor | None) -> Tensor:
        """Return the mean over the windows that reach into a rectangle."""
        num_rows = self.num_rows if rows is None else len(rows)
        total = self.count.new_zeros(ys[1] - ys[0], xs[1] - xs[0], num_rows)
        for window, y, x, inside_y, inside_x in self._reaching(ys, xs):
            total[slice(*y), slice(*x)] += window.values(inside_y, inside_x, rows)
        return total.div_(self.count[slice(*ys), slice(*xs), None])

    def bounds(self, ys: Span, xs: Span) -> tuple[Tensor, Tensor]:
        """Return the widest bounds of all windows that reach into a rectangle."""
        pairs = [window.bounds(y, x) for window, _, _, y, x in self._reaching(ys, xs)]
        return torch.stack([p[0] for p in pairs]).amin(0), torch.stack([p[1] for p in pairs]).amax(0)

    def _reaching(self, ys: Span, xs: Span) -> list[tuple[Resized, Span, Span, Span, Span]]:
        """Return windows with the shared part, counted from the rectangle's corner and from the window's own."""
        found = []
        for window, (top, left, height, width) in zip(self.windows, self.boxes, strict=True):
            y, x = (max(ys[0], top), min(ys[1], top + height)), (max(xs[0], left), min(xs[1], left + width))
            if y[0] < y[1] and x[0] < x[1]:
                here, there = (_moved(y, ys[0]), _moved(x, xs[0])), (_moved(y, top), _moved(x, left))
                found.append((window, *here, *there))
        return found


class Mixture:
    """Masks with class scores: a point's score is the sum over masks of class score × mask value."""

    def __init__(self, masks: Plane, class_scores: Tensor):
        self.masks, self.size, self.num_rows = masks, masks.size, class_scores.shape[1]
        self.class_scores = class_scores.detach().to(torch.float32)

    def values(self, ys: Span, xs: Span, rows: Tensor | None) -> Tensor:
        """Return the sums in a rectangle; masks that are zero all over it are left out."""
        low, high = self.masks.bounds(ys, xs)
        present = ((low != 0) | (high != 0)).nonzero().flatten()
        scores = self.class_scores[present]
        return self.masks.values(ys, xs, present) @ (scores if rows is None else scores.index_select(1, rows))

    def bounds(self, ys: Span, xs: Span) -> tuple[Tensor, Tensor]:
        """Return the sums that lowest and highest mask values give."""
        low, high = self.masks.bounds(ys, xs)
        positive, negative = self.class_scores.clamp_min(0), self.class_scores.clamp_max(0)
        return low @ positive + high @ negative, high @ positive + low @ negative


def plane_of(prediction: Prediction, size: tuple[int, int] | None = None) -> Plane:
    """Return the scores of a prediction as a plane of its own size, or of `size` where given."""
    size = size or prediction.size
    match prediction:
        case DensePrediction():
            return _brought_to(Grid(prediction.logits), size)
        case WindowPrediction():
            return _brought_to(Windows(prediction.logits, prediction.boxes, prediction.canvas), size)
        case MaskPrediction():
            return Mixture(_brought_to(Grid(prediction.masks), size), prediction.class_scores)


def _brought_to(plane: Plane, size: tuple[int, int]) -> Plane:
    return plane if tuple(plane.size) == tuple(size) else Resized(plane, size)


def _moved(span: Span, origin: int) -> Span:
    return span[0] - origin, span[1] - origin


@cache
def _axis(source: int, target: int) -> AxisResize:
    return AxisResize(source, target)
