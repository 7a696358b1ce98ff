"""From which samples of which windows, and in which steps, is a span of one axis made?

Where something happens between the up-sampling of a window and the resizing of the canvas, the two are not one mix
(`WindowAxis`). Here they are kept apart: windows' samples → canvas positions, share of each window, canvas → target.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ovseg_cli.core.nn.resize import BilinearAxis, Mix, Span, WindowAxis


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
class Taps:
    """Target positions from two canvas positions each. A dense mix would multiply mostly with zeros here.

    Attributes:
        low: (positions,) int64, the first.
        high: (positions,) int64, the second.
        weight: (positions,) share of the second.
    """

    low: Tensor
    high: Tensor
    weight: Tensor

    def along(self, dim: int, values: Tensor) -> Tensor:
        """Mix axis 0 or 1 of (y, x, M)."""
        low, high = values.index_select(dim, self.low), values.index_select(dim, self.high)
        return low.lerp_(high, self.weight[:, None, None] if dim == 0 else self.weight[:, None])


@dataclass(frozen=True)
class Cut:
    """How a span of target positions is made along one axis.

    Attributes:
        pieces: The windows that it needs.
        places: Number of canvas positions that it needs.
        share: (places,), one over the windows at each place; None where there is one window everywhere.
        taps: The span from its canvas positions; None where it is these positions.
    """

    pieces: tuple[Piece, ...]
    places: int
    share: Tensor | None
    taps: Taps | None

    def to(self, device: torch.device) -> "Cut":
        """Move to a device."""
        if device.type == "cpu":
            return self
        pieces = tuple(Piece(piece.window, piece.inside, piece.mix.to(device)) for piece in self.pieces)
        share, taps = self.share, self.taps
        if taps is not None:
            taps = Taps(taps.low.to(device), taps.high.to(device), taps.weight.to(device))
        return Cut(pieces, self.places, None if share is None else share.to(device), taps)


class SigmoidAxis(WindowAxis):
    """Windows on a canvas that is resized, step by step. Arguments and errors are those of `WindowAxis`."""

    def __init__(self, starts: tuple[int, ...], lengths: tuple[int, ...], samples: int, canvas: int, target: int):
        super().__init__(starts, lengths, samples, canvas, target)
        self._cuts: dict[Span, Cut] = {}

    def cut(self, span: Span) -> Cut:
        """Say how a span of target positions is made."""
        if span not in self._cuts:
            self._cuts[span] = self._cut(torch.arange(*span))
        return self._cuts[span]

    def _cut(self, positions: Tensor) -> Cut:
        axis = self._canvas
        if axis.source == axis.target:
            places, taps = positions, None
        else:
            both = torch.stack([axis.low[positions], axis.high[positions]])
            places, (low, high) = torch.unique(both, return_inverse=True)
            taps = Taps(low, high, axis.weight[positions])
        count = self._count[places]
        return Cut(self._pieces(places), len(places), 1 / count if bool((count > 1).any()) else None, taps)

    def _pieces(self, places: Tensor) -> tuple[Piece, ...]:
        pieces = []
        for i, (start, window) in enumerate(self._windows):
            inside = ((places >= start) & (places < start + window.target)).nonzero().flatten().tolist()
            if inside:  # places rise, so that those inside are neighbours
                span = inside[0], inside[-1] + 1
                pieces.append(Piece(i, span, _mix_at(window, places[slice(*span)] - start)))
        return tuple(pieces)


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
