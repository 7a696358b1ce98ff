"""Which source samples, with which weights, does a bilinear resize of one axis read?

The numbers are those of `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` without
anti-aliasing, axis by axis, so that any part of a resized plane can be made without making the whole.
"""

from functools import lru_cache

import torch
from torch import Tensor

Span = tuple[int, int]
"""Half-open range (start, stop) of samples along one axis."""

_MATMUL_LIMIT = 24  # source samples up to which a small matrix product beats gathering two neighbours


class AxisResize:
    """A bilinear resize along one axis, readable span by span.

    Args:
        source: Samples before.
        target: Samples after.
    """

    def __init__(self, source: int, target: int):
        self.source, self.target = source, target
        position = (torch.arange(target, dtype=torch.float32) + 0.5) * (source / target) - 0.5
        position = position.clamp_min_(0.0)
        self.low = position.floor().long().clamp_max_(source - 1)
        self.high = self.low if source == target else (self.low + 1).clamp_max_(source - 1)
        self.weight = (position - self.low).clamp_(0.0, 1.0)  # of `high`; `low` has the rest
        self._first, self._last = self.low.tolist(), self.high.tolist()

    def source_span(self, span: Span) -> Span:
        """Return the source samples that the target samples of `span` are mixed from."""
        return self._first[span[0]], self._last[span[1] - 1] + 1

    def apply(self, values: Tensor, span: Span, dim: int) -> Tensor:
        """Resize one axis.

        Args:
            values: Holds exactly the samples of `source_span(span)` along `dim`; float32.
            span: Target samples to make.
            dim: 0 or 1 of (rows, columns, M).

        Returns:
            `values` with the samples of `span` along `dim`.
        """
        if self.source == self.target:
            return values
        if values.is_cuda or values.shape[dim] > _MATMUL_LIMIT:
            return self._gather(values, span, dim)
        matrix = self._matrix(span)
        if dim == 0:
            return (matrix @ values.reshape(len(values), -1)).view(len(matrix), *values.shape[1:])
        return torch.matmul(matrix, values)

    def _gather(self, values: Tensor, span: Span, dim: int) -> Tensor:
        start = self._first[span[0]]
        low, high, weight = (t[slice(*span)].to(values.device) for t in (self.low, self.high, self.weight))
        weight = weight.view(-1, *(1,) * (values.ndim - 1 - dim))
        return torch.lerp(values.index_select(dim, low - start), values.index_select(dim, high - start), weight)

    @lru_cache(maxsize=256)  # noqa: B019 (lives as long as one prediction)
    def _matrix(self, span: Span) -> Tensor:
        """Return the weights as a matrix, (target samples, source samples)."""
        first, last = self.source_span(span)
        low, high, weight = (t[slice(*span)] for t in (self.low, self.high, self.weight))
        row = torch.arange(len(low))
        matrix = torch.zeros(len(low), last - first)
        matrix[row, low - first] = 1 - weight
        matrix[row, high - first] += weight
        return matrix
