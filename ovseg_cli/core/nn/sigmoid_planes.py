"""What are the scores in any rectangle of a picture where they are made pixel by pixel, after the up-sampling?

A window's logits are up-sampled to its size; a sigmoid, a penalty and a gate make them scores; where windows overlap,
scores are averaged; the canvas of scores is resized. A sigmoid of a mean is no mean of sigmoids, so that the two steps
cannot be one mix as for other windows (planes.py). A rectangle goes through them by itself. Its bounds come from the
windows' samples: bilinear weights are not negative and sum to one, and a sigmoid rises.

Source: mmseg's `slide_inference` with the inference heads of ZegCLIP and TagCLIP.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.planes import finite, window_grid
from ovseg_cli.core.nn.resize import BilinearAxis, Mix, Span, WindowAxis
from ovseg_cli.core.types import SigmoidPrediction


@dataclass(frozen=True)
class Piece:
    """What one window gives to a span.

    Attributes:
        window: Its number along the axis.
        inside: Which of the span's canvas positions lie in it, (start, stop).
        mix: These positions from the window's samples.
    """

    window: int
    inside: Span
    mix: Mix


@dataclass(frozen=True)
class Cut:
    """How a span of target positions is made along one axis.

    Attributes:
        pieces: The windows that it needs.
        places: Number of canvas positions that it needs.
        share: (places,), one over the windows at each place; None where there is one window everywhere.
        outer: The span from its canvas positions.
    """

    pieces: tuple[Piece, ...]
    places: int
    share: Tensor | None
    outer: Mix

    def to(self, device: torch.device) -> "Cut":
        """Move to a device."""
        if device.type == "cpu":
            return self
        pieces = tuple(Piece(piece.window, piece.inside, piece.mix.to(device)) for piece in self.pieces)
        share = None if self.share is None else self.share.to(device)
        return Cut(pieces, self.places, share, self.outer.to(device))


class SigmoidAxis(WindowAxis):
    """Windows on a canvas that is resized; what a window gives is kept apart from the resizing. See `WindowAxis`."""

    def __init__(self, starts: tuple[int, ...], lengths: tuple[int, ...], samples: int, canvas: int, target: int):
        super().__init__(starts, lengths, samples, canvas, target)
        self._cuts: dict[Span, Cut] = {}

    def cut(self, span: Span) -> Cut:
        """Say how a span of target positions is made."""
        if span not in self._cuts:
            self._cuts[span] = self._cut(self._canvas.mix(span))
        return self._cuts[span]

    def _cut(self, outer: Mix) -> Cut:
        places, pieces = outer.samples, []
        for i, (start, window) in enumerate(self._windows):
            inside = ((places >= start) & (places < start + window.target)).nonzero().flatten().tolist()
            if inside:
                span = inside[0], inside[-1] + 1
                pieces.append(Piece(i, span, _mix_at(window, places[slice(*span)] - start)))
        count = self._count[places]
        return Cut(tuple(pieces), len(places), 1 / count if bool((count > 1).any()) else None, outer)


def _mix_at(axis: BilinearAxis, positions: Tensor) -> Mix:
    if axis.source == axis.target:
        return Mix(positions, None)
    weights = axis.weights(positions)
    used = weights.any(0).nonzero().flatten()
    return Mix(used, weights[:, used])


@lru_cache(maxsize=64)
def sigmoid_axis(
    starts: tuple[int, ...], lengths: tuple[int, ...], samples: int, canvas: int, target: int
) -> SigmoidAxis:
    """Return the axis of windows on a canvas; pictures of one size share it."""
    return SigmoidAxis(starts, lengths, samples, canvas, target)


class Weighting:
    """What a text row's score is multiplied with, and what is subtracted before.

    Args:
        penalty: (M,), or None.
        gate: (M,) of -1, 0, 1, or None.
    """

    def __init__(self, penalty: Tensor | None, gate: Tensor | None):
        self.penalty = penalty
        self.choice = None if gate is None else (gate[None] == gate.new_tensor([[0], [1], [-1]])).float()  # (3, M)

    def penalties(self, rows: Tensor | None) -> Tensor | None:
        """Return the penalties of some rows, or None where all are 0."""
        if self.penalty is None:
            return None
        penalty = self.penalty if rows is None else self.penalty[rows]
        return penalty if bool(penalty.any()) else None

    def gates(self, trust: Tensor | None, rows: Tensor | None) -> Tensor | None:
        """Return the factors of some rows, (…, rows) or (…, 1), from trust logits (…, 1); None where all are 1."""
        if trust is None or self.choice is None:
            return None
        choice = self.choice if rows is None else self.choice[:, rows]
        used = choice.any(1).nonzero().flatten().tolist()
        if used == [0]:
            return None
        factors = torch.cat([torch.ones_like(trust), trust.sigmoid(), trust.neg().sigmoid()], -1)
        return factors[..., used] if len(used) == 1 else factors @ choice


@dataclass(frozen=True)
class Part:
    """What one window gives to a rectangle.

    Attributes:
        samples: (n_y, n_x, M) logits.
        trust: (n_y, n_x, 1) logits, or None.
        y: Its rows.
        x: Its columns.
    """

    samples: Tensor
    trust: Tensor | None
    y: Piece
    x: Piece

    def bounds(self, weighting: Weighting) -> tuple[Tensor, Tensor]:
        """Return a lower and an upper bound of each row's scores, two tensors (M,)."""
        flat = self.samples.flatten(0, 1)
        ends = torch.stack([flat.amin(0), flat.amax(0)]).sigmoid_()
        penalty = weighting.penalties(None)
        if penalty is not None:
            ends -= penalty
        if self.trust is None:
            return ends[0], ends[1]
        trust = torch.stack([self.trust.amin(), self.trust.amax()])[:, None]
        factors = weighting.gates(trust, None)
        products = ends if factors is None else (ends[:, None] * factors).flatten(0, 1)  # scores below 0 turn the ends
        return products.amin(0), products.amax(0)

    def scores(self, weighting: Weighting, rows: Tensor | None) -> Tensor:
        """Return the scores of some rows at every canvas position, (y, x, rows)."""
        samples = self.samples if rows is None else self.samples.index_select(2, rows)
        scores = self._up(samples).sigmoid()
        penalty = weighting.penalties(rows)
        if penalty is not None:
            scores -= penalty
        factors = None if self.trust is None else weighting.gates(self._up(self.trust), rows)
        return scores if factors is None else scores.mul_(factors)

    def _up(self, samples: Tensor) -> Tensor:
        return self.x.mix.columns(self.y.mix.rows(samples))


@dataclass(frozen=True)
class SigmoidBlock:
    """One rectangle, before its scores are made.

    Attributes:
        parts: What each window gives.
        weighting: Penalty and gate of each text row.
        y: Its rows.
        x: Its columns.
    """

    parts: list[Part]
    weighting: Weighting
    y: Cut
    x: Cut

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return for each text row a lower and an upper bound of its scores here, two tensors (M,)."""
        low, high = zip(*(part.bounds(self.weighting) for part in self.parts), strict=True)
        return torch.stack(low).amin(0), torch.stack(high).amax(0)

    def values(self, rows: Tensor | None = None) -> Tensor:
        """Return the scores of some text rows (default: all), (y, x, rows) float32."""
        return self.x.outer.columns(self.y.outer.rows(self._canvas(rows)))

    def _canvas(self, rows: Tensor | None) -> Tensor:
        if len(self.parts) == 1:
            return self.parts[0].scores(self.weighting, rows)
        count = self.parts[0].samples.shape[2] if rows is None else len(rows)
        total = self.parts[0].samples.new_zeros(self.y.places, self.x.places, count)
        for part in self.parts:
            total[slice(*part.y.inside), slice(*part.x.inside)] += part.scores(self.weighting, rows)
        if self.y.share is not None:
            total *= self.y.share[:, None, None]
        if self.x.share is not None:
            total *= self.x.share[:, None]
        return total


@dataclass(frozen=True)
class SigmoidPlane:
    """Scores that are made pixel by pixel from windows' logits.

    Attributes:
        samples: (rows, columns, h, w, M) logits of a grid of windows.
        trust: (rows, columns, h, w, 1) logits, or None.
        weighting: Penalty and gate of each text row.
        y_axis: H rows from the windows' h samples.
        x_axis: W columns from the windows' w samples.
    """

    samples: Tensor
    trust: Tensor | None
    weighting: Weighting
    y_axis: SigmoidAxis
    x_axis: SigmoidAxis

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.y_axis.target, self.x_axis.target

    @property
    def num_rows(self) -> int:
        """M."""
        return self.samples.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.samples.device

    def block(self, ys: Span, xs: Span) -> SigmoidBlock:
        """Take what a rectangle is made from."""
        y, x = self.y_axis.cut(ys).to(self.device), self.x_axis.cut(xs).to(self.device)
        parts = [self._part(rows, columns) for rows in y.pieces for columns in x.pieces]
        return SigmoidBlock(parts, self.weighting, y, x)

    def _part(self, y: Piece, x: Piece) -> Part:
        def taken(maps: Tensor) -> Tensor:
            return maps[y.window, x.window].index_select(0, y.mix.samples).index_select(1, x.mix.samples)

        return Part(taken(self.samples), None if self.trust is None else taken(self.trust), y, x)


def sigmoid_plane(prediction: SigmoidPrediction, size: tuple[int, int]) -> SigmoidPlane:
    """Return the scores of a prediction as a plane of `size`.

    Raises:
        ShapeError: Windows form no grid or do not cover the canvas; penalty or gate do not fit the rows.
        OvsegError: Logits, trust or penalty hold NaN or infinite values.
    """
    _check(prediction)
    rows, columns = window_grid(prediction.boxes)
    height, width = prediction.logits.shape[2:]
    y_axis = sigmoid_axis(*zip(*rows, strict=True), height, prediction.canvas[0], size[0])
    x_axis = sigmoid_axis(*zip(*columns, strict=True), width, prediction.canvas[1], size[1])
    device, grid = prediction.logits.device, (len(rows), len(columns))
    samples = finite(prediction.logits.detach().permute(0, 2, 3, 1)).contiguous().unflatten(0, grid)
    trust, penalty, gate = prediction.trust, prediction.penalty, prediction.gate
    if trust is not None:
        trust = finite(trust.detach())[..., None].unflatten(0, grid)
    weighting = Weighting(
        None if penalty is None else finite(penalty.detach().to(device)), None if gate is None else gate.to(device)
    )
    return SigmoidPlane(samples, trust, weighting, y_axis, x_axis)


def _check(prediction: SigmoidPrediction) -> None:
    num_windows, num_rows = prediction.logits.shape[:2]
    if tuple(prediction.boxes.shape) != (num_windows, 4):
        raise ShapeError(
            f"boxes must be ({num_windows}, 4) for {num_windows} windows, but got {tuple(prediction.boxes.shape)}"
        )
    for name, values in {"penalty": prediction.penalty, "gate": prediction.gate}.items():
        if values is not None and tuple(values.shape) != (num_rows,):
            raise ShapeError(
                f"{name} must be ({num_rows},) for {num_rows} rows of scores, but got {tuple(values.shape)}"
            )
    if prediction.gate is not None and not bool(torch.isin(prediction.gate.cpu(), torch.tensor([-1, 0, 1])).all()):
        raise ShapeError(f"gate must hold -1, 0 and 1, but got {prediction.gate.unique().tolist()[:8]}")
