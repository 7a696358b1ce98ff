"""Which samples, with which weights, does one axis of a full-size map come from?

Bringing scores to a size is linear, and each axis is mixed by itself: a span of target positions needs a few samples
and a small matrix of weights. The weights are never negative and sum to one. Those of a bilinear resize are the numbers
of `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` without anti-aliasing.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError

Span = tuple[int, int]
"""Half-open range (start, stop) of positions along one axis."""


@dataclass(frozen=True)
class Mix:
    """How a span of target positions is mixed.

    Attributes:
        samples: (n,) int64, the samples that are needed, rising.
        weights: (positions, n) float32; None where the positions are the samples themselves.
    """

    samples: Tensor
    weights: Tensor | None

    def to(self, device: torch.device) -> "Mix":
        """Move to a device."""
        return Mix(self.samples.to(device), None if self.weights is None else self.weights.to(device))

    def rows(self, values: Tensor) -> Tensor:
        """Mix the first axis of (n, x, M) to (positions, x, M)."""
        if self.weights is None:
            return values
        return (self.weights @ values.reshape(len(values), -1)).view(-1, *values.shape[1:])

    def columns(self, values: Tensor) -> Tensor:
        """Mix the second axis of (y, n, M) to (y, positions, M)."""
        return values if self.weights is None else torch.matmul(self.weights, values)


class Axis(Protocol):
    """One axis of a map: `target` positions made from samples."""

    target: int

    def mix(self, span: Span) -> Mix:
        """Say how a span of target positions is mixed."""


class BilinearAxis:
    """A bilinear resize from `source` samples to `target` positions."""

    def __init__(self, source: int, target: int):
        self.source, self.target = source, target
        place = ((torch.arange(target, dtype=torch.float32) + 0.5) * (source / target) - 0.5).clamp_min_(0.0)
        self.low = place.floor().long().clamp_max_(source - 1)
        self.high = (self.low + 1).clamp_max_(source - 1)
        self.weight = (place - self.low).clamp_(0.0, 1.0)  # of `high`; `low` has the rest
        self._known: dict[Span, Mix] = {}

    def mix(self, span: Span) -> Mix:
        """Say how a span of target positions is mixed."""
        if span not in self._known:
            self._known[span] = self._mix(torch.arange(*span))
        return self._known[span]

    def _mix(self, positions: Tensor) -> Mix:
        if self.source == self.target:
            return Mix(positions, None)
        low, high = self.low[positions], self.high[positions]
        samples = torch.unique(torch.cat([low, high]))
        return Mix(samples, self.weights(positions)[:, samples])

    def weights(self, positions: Tensor) -> Tensor:
        """Return the weights of all samples at some positions, (positions, source)."""
        row = torch.arange(len(positions))
        full = torch.zeros(len(positions), self.source)
        full[row, self.low[positions]] = 1 - self.weight[positions]
        full[row, self.high[positions]] += self.weight[positions]
        return full


class WindowAxis:
    """Windows on a canvas, averaged where they overlap, and the canvas resized: all in one mix.

    The samples of all windows stand one window behind the other: window i has samples i × n to (i + 1) × n.

    Args:
        starts: First canvas position of each window.
        lengths: Canvas positions of each window.
        samples: n, samples of each window; a window's samples are resized to its length.
        canvas: Canvas positions; each must be in a window.
        target: Positions that the canvas is resized to.

    Raises:
        ShapeError: A window leaves the canvas, or a part of the canvas is in no window.
    """

    def __init__(self, starts: tuple[int, ...], lengths: tuple[int, ...], samples: int, canvas: int, target: int):
        self.target, self._samples, self._canvas = target, samples, bilinear_axis(canvas, target)
        self._windows = [(start, bilinear_axis(samples, n)) for start, n in zip(starts, lengths, strict=True)]
        self._count = torch.zeros(canvas)
        for start, length in zip(starts, lengths, strict=True):
            if start < 0 or start + length > canvas:
                raise ShapeError(f"a window from {start} to {start + length} leaves the canvas of {canvas}")
            self._count[start : start + length] += 1
        if not bool((self._count > 0).all()):
            raise ShapeError(f"windows from {list(starts)} of {list(lengths)} do not cover the canvas of {canvas}")
        self._known: dict[Span, Mix] = {}

    def mix(self, span: Span) -> Mix:
        """Say how a span of target positions is mixed."""
        if span not in self._known:
            self._known[span] = self._mix(self._canvas.mix(span))
        return self._known[span]

    def _mix(self, outer: Mix) -> Mix:
        places = outer.samples  # on the canvas
        inner = torch.zeros(len(places), len(self._windows) * self._samples)
        for i, (start, window) in enumerate(self._windows):
            inside = (places >= start) & (places < start + window.target)
            inner[inside, i * self._samples : (i + 1) * self._samples] = window.weights(places[inside] - start)
        inner /= self._count[places, None]
        weights = inner if outer.weights is None else outer.weights @ inner
        used = weights.any(0).nonzero().flatten()
        return Mix(used, weights[:, used])


@lru_cache(maxsize=64)
def bilinear_axis(source: int, target: int) -> BilinearAxis:
    """Return the axis of a bilinear resize; pictures of one size share it."""
    return BilinearAxis(source, target)


@lru_cache(maxsize=64)
def window_axis(
    starts: tuple[int, ...], lengths: tuple[int, ...], samples: int, canvas: int, target: int
) -> WindowAxis:
    """Return the axis of windows on a canvas; pictures of one size share it."""
    return WindowAxis(starts, lengths, samples, canvas, target)
