"""What are the scores in any rectangle of a picture where they are made pixel by pixel, after the up-sampling?

A window's logits are up-sampled to its size; a sigmoid, a penalty and a gate make them scores; where windows overlap,
scores are averaged; the canvas of scores is resized. A sigmoid of a mean is no mean of sigmoids, so that the two steps
cannot be one mix as for other windows (planes.py). A rectangle goes through them by itself. Its bounds come from the
windows' samples: bilinear weights are not negative and sum to one, and a sigmoid rises.

Source: mmseg's `slide_inference` with the inference heads of ZegCLIP and TagCLIP.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.planes import argmax, finite, window_grid
from ovseg_cli.core.nn.resize import Span
from ovseg_cli.core.nn.sigmoid_axes import Cut, Piece, SigmoidAxis, sigmoid_axis
from ovseg_cli.core.types import SigmoidPrediction

_FEW = 8  # groups of rows: with more, single scores are as quick


class Weighting:
    """What a text row's score is multiplied with, and what is subtracted before.

    Args:
        penalty: (M,).
        gate: (M,) of -1, 0, 1.
    """

    def __init__(self, penalty: Tensor, gate: Tensor):
        self.penalty, self.gate = penalty, gate.float()
        self._choice = (self.gate == self.gate.new_tensor([[0.0], [1.0], [-1.0]])).float()  # (3, M)
        self._kind = torch.stack([self.penalty, self.gate]).unique(dim=1, return_inverse=True)[1]

    def apply(self, scores: Tensor, trust: Tensor | None, rows: Tensor) -> Tensor:
        """Weigh the sigmoids of some rows, (…, rows), in place; trust logits are (…, 1)."""
        penalty = self.penalty[rows]
        if bool(penalty.any()):
            scores -= penalty
        return scores if trust is None else self._gate(scores, trust, self._choice[:, rows])

    def _gate(self, scores: Tensor, trust: Tensor, choice: Tensor) -> Tensor:
        used = choice.any(1).nonzero().flatten().tolist()
        if used == [0]:
            return scores
        factors = torch.cat([torch.ones_like(trust), trust.sigmoid(), trust.neg().sigmoid()], -1)
        return scores.mul_(factors[..., used] if len(used) == 1 else factors @ choice)

    def groups(self, rows: Tensor, bias: Tensor) -> list[Tensor]:
        """Return the places in `rows` of rows whose scores rise alike with their logits, a tensor a group."""
        kinds = self._kind[rows]
        if bool((bias != bias[0]).any()):
            pairs = list(zip(kinds.tolist(), bias.tolist(), strict=True))
            number = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
            kinds = torch.tensor([number[pair] for pair in pairs])
        places = ((kinds == kind).nonzero().flatten() for kind in range(int(kinds.max()) + 1))
        return [group for group in places if len(group)]


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

    def ends(self) -> Tensor:
        """Return the lowest and the highest logit of each row, (2, M)."""
        flat = self.samples.flatten(0, 1)
        return torch.stack([flat.amin(0), flat.amax(0)])

    def bounds(self, weighting: Weighting) -> tuple[Tensor, Tensor]:
        """Return a lower and an upper bound of each row's scores, two tensors (M,)."""
        rows, ends = torch.arange(self.samples.shape[2], device=self.samples.device), self.ends().sigmoid_()
        if self.trust is None:
            low, high = weighting.apply(ends, None, rows)
            return low, high
        # a product's bounds are among the four of both ends; below 0 the larger factor gives the lower one
        trust = torch.stack([self.trust.amin(), self.trust.amax()]).repeat_interleave(2)[:, None]
        products = weighting.apply(ends.repeat(2, 1), trust, rows)
        return products.amin(0), products.amax(0)

    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits of some rows at every canvas position, (y, x, rows)."""
        return self._up(self.samples.index_select(2, rows))

    def trusts(self) -> Tensor | None:
        """Return the trust logits at every canvas position, (y, x, 1), or None."""
        return None if self.trust is None else self._up(self.trust)

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
        samples = self.parts[0].samples
        scores = self._canvas(torch.arange(samples.shape[2], device=samples.device) if rows is None else rows)
        if self.y.taps is not None:
            scores = self.y.taps.along(0, scores)
        return scores if self.x.taps is None else self.x.taps.along(1, scores)

    def _canvas(self, rows: Tensor) -> Tensor:
        if len(self.parts) == 1:
            return self._scores(self.parts[0], rows)
        total = self.parts[0].samples.new_zeros(self.y.places, self.x.places, len(rows))
        for part in self.parts:
            total[slice(*part.y.inside), slice(*part.x.inside)] += self._scores(part, rows)
        if self.y.share is not None:
            total *= self.y.share[:, None, None]
        if self.x.share is not None:
            total *= self.x.share[:, None]
        return total

    def _scores(self, part: Part, rows: Tensor) -> Tensor:
        return self.weighting.apply(part.logits(rows).sigmoid_(), part.trusts(), rows)

    def best(self, rows: Tensor, bias: Tensor) -> Tensor | None:
        """Return where in `rows` each pixel's best score is, (y, x), after adding a bias of each row.

        Rows of one penalty, gate and bias form a group: their scores are in the order of their logits wherever windows
        and canvas positions are not mixed; elsewhere a row that lies below another of its group in all windows is out.
        """
        groups = self.weighting.groups(rows, bias)
        if len(groups) > _FEW:
            return None
        groups = list(self._contenders(groups, rows))
        if len(self.parts) == 1 and self.y.taps is None and self.x.taps is None:
            return self._best_by_logits(groups, rows, bias)
        kept = torch.cat(groups).sort().values
        return kept[argmax(self.values(rows[kept]) + bias[kept])]

    def _contenders(self, groups: list[Tensor], rows: Tensor) -> Iterator[Tensor]:
        """Leave out of each group the rows that another row of it is above everywhere."""
        ends = torch.stack([part.ends()[:, rows] for part in self.parts])
        low, high = ends[:, 0].amin(0), ends[:, 1].amax(0)
        for group in groups:
            yield group[high[group] >= low[group].max()]

    def _best_by_logits(self, groups: list[Tensor], rows: Tensor, bias: Tensor) -> Tensor:
        """Find the best of each group by its logits; only these go through the sigmoid."""
        part, trust = self.parts[0], self.parts[0].trusts()
        score, place = torch.tensor(-torch.inf), torch.tensor(len(rows))
        for group in groups:
            logits, first = part.logits(rows[group]), group[:1]  # the weighting is that of the whole group
            top = argmax(logits)
            own = self.weighting.apply(logits.gather(2, top[..., None]).sigmoid_(), trust, rows[first]) + bias[first]
            score, place = _better(score, place, own[..., 0], group[top])
        return place


def _better(score: Tensor, place: Tensor, other: Tensor, other_place: Tensor) -> tuple[Tensor, Tensor]:
    """Return the higher of two scores and its place; at ties the lower place."""
    wins = (other > score) | ((other == score) & (other_place < place))
    return torch.where(wins, other, score), torch.where(wins, other_place, place)


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
    num_rows = prediction.logits.shape[1]
    samples = finite(prediction.logits.detach().permute(0, 2, 3, 1)).contiguous().unflatten(0, grid)
    trust, penalty, gate = prediction.trust, prediction.penalty, prediction.gate
    if trust is not None:
        trust = finite(trust.detach())[..., None].unflatten(0, grid)
    weighting = Weighting(
        torch.zeros(num_rows, device=device) if penalty is None else finite(penalty.detach().to(device)),
        torch.zeros(num_rows, device=device) if gate is None else gate.to(device),
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
