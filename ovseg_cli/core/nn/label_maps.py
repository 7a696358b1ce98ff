"""How does a prediction become one class id a pixel, without M × H × W scores ever existing at full size?

Scores are brought to the label's size bilinearly (align_corners False) and then arg-maxed, block by block. Inside a
block a row can only win where its highest source sample reaches the best of all rows' lowest ones; the other rows are
never up-sampled. What is left is exact: the arg-max equals that of `interpolate` followed by `argmax` wherever the two
best scores differ by more than float rounding (1e-5 for logits).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.nn.planes import Block, Plane, argmax, mixed_plane
from ovseg_cli.core.nn.resize import Span
from ovseg_cli.core.nn.sigmoid_planes import sigmoid_plane
from ovseg_cli.core.types import Prediction, Readout, SigmoidPrediction

_BLOCK = 64  # pixels; on the CPU a block's scores stay in the cache
_FEW_ROWS = 40  # up to here a block of twice the side stays in the cache
_STRIP_SCORES = 1 << 24  # scores of a full-width strip on a GPU (64 MiB)
_ROUNDING = 1e-4  # of the largest score: more than any sum here can be off in float32
_NEGLIGIBLE = 1e-9  # share of a softmax that float32 does not see


def label_map(
    prediction: Prediction,
    readout: Readout | None = None,
    class_of_row: Tensor | None = None,
    num_classes: int | None = None,
) -> Tensor:
    """Return the class id of every pixel; see `label_maps`."""
    return label_maps(prediction, [readout or Readout()], class_of_row, num_classes)[0]


@torch.no_grad()
def label_maps(
    prediction: Prediction,
    readouts: Sequence[Readout],
    class_of_row: Tensor | None = None,
    num_classes: int | None = None,
) -> list[Tensor]:
    """Read one prediction under several rules, up-sampling each block once.

    Args:
        prediction: Scores of M text rows.
        readouts: Rules. Rows that are no candidates take part neither in the arg-max nor in the softmax; the seen
            penalty is subtracted from the full-size scores; a class with several rows has the score of its best one.
        class_of_row: (M,), the class each row speaks for; by default row m is class m.
        num_classes: K; by default M.

    Returns:
        For each readout an (H, W) int32 map of ids in 0 to K-1, on the scores' device. Ties go to the lowest id.

    Raises:
        UsageError: A readout cannot be carried out (no candidate left, threshold without softmax or background).
        ShapeError: Rows and classes do not fit together.

    Source: SCLIP's `postprocess_result` for scale, synonyms and threshold, in this order.
    """
    plane = _plane_of(prediction, prediction.size)
    device = plane.device
    classes = torch.arange(plane.num_rows) if class_of_row is None else class_of_row.cpu()
    num_classes = num_classes or plane.num_rows
    _check_rows(classes, plane.num_rows, num_classes)
    order = torch.argsort(classes, stable=True).to(device)  # lowest class first, so that ties go to it
    classes = classes.to(device=device, dtype=torch.int32)
    rules = [_Rule(readout, classes, num_classes) for readout in readouts]
    maps = [torch.empty(plane.size, dtype=torch.int32, device=device) for _ in rules]
    with _plain_float32(device):
        for ys, xs in _blocks(plane, device):
            for out, ids in zip(maps, _read_block(plane.block(ys, xs), rules, order), strict=True):
                out[slice(*ys), slice(*xs)] = ids
    return maps


@torch.no_grad()
def full_scores(prediction: Prediction, output_size: tuple[int, int]) -> Tensor:
    """Return all scores at one size: for parity and notebooks, since this is M × H' × W' in memory.

    Args:
        prediction: Scores of M rows; its own `size` is not used.
        output_size: (H', W').

    Returns:
        (M, H', W') float32.
    """
    plane = _plane_of(prediction, output_size)
    with _plain_float32(plane.device):
        scores = plane.block((0, output_size[0]), (0, output_size[1])).values()
    return scores.permute(2, 0, 1).contiguous()


def _plane_of(prediction: Prediction, size: tuple[int, int]) -> Plane:
    if isinstance(prediction, SigmoidPrediction):
        return sigmoid_plane(prediction, size)
    return mixed_plane(prediction, size)


class _Rule:
    """A readout, made ready: one number a row that is added to its scores (minus infinity: no candidate)."""

    def __init__(self, readout: Readout, classes: Tensor, num_classes: int):
        _check_readout(readout, num_classes)
        self.threshold, self.scale = readout.threshold, readout.softmax_scale or 1.0
        self.background = readout.background or 0
        self.classes = classes
        class_bias = torch.zeros(num_classes)
        if readout.candidates is not None:
            class_bias.fill_(-math.inf)[list(readout.candidates)] = 0.0
        class_bias[list(readout.seen_ids)] -= readout.seen_penalty
        self.bias = class_bias.to(classes.device)[classes.long()]
        if not bool(torch.isfinite(self.bias).any()):
            raise UsageError("none of the candidates has a text feature.", "Name at least one that does.")
        self.slack = math.log(len(classes) / _NEGLIGIBLE) / self.scale if self.threshold is not None else 0.0

    def contenders(self, low: Tensor, high: Tensor) -> Tensor:
        """Return (M,) flags of the rows that may win, or matter to the softmax, between these bounds."""
        largest = torch.maximum(low.abs().max(), high.abs().max())
        bar = (low + self.bias).max() - self.slack - _ROUNDING * largest
        return high + self.bias >= bar

    def decide(self, values: Tensor, rows: Tensor) -> Tensor:
        """Return class ids (y, x) for scores (y, x, rows)."""
        bias = self.bias[rows]
        scores = values + bias if bool((bias != 0).any()) else values
        best = argmax(scores)
        ids = self.classes[rows][best]
        if self.threshold is None:
            return ids
        top = scores.gather(2, best[..., None])
        probability = 1 / torch.exp((scores - top) * self.scale).sum(2)
        return ids.masked_fill(probability < self.threshold, self.background)


def _read_block(block: Block, rules: list[_Rule], order: Tensor) -> Iterator[Tensor]:
    if order.is_cuda:  # a GPU makes a strip sooner than the CPU learns what to leave out
        strip = block.values(order)
        yield from (rule.decide(strip, order) for rule in rules)
        return
    bounds = block.bounds()
    flags = [rule.contenders(*bounds)[order] for rule in rules]
    rows = order[torch.stack(flags).any(0)]
    values: Tensor | None = None
    for rule, flag in zip(rules, flags, strict=True):
        own = order[flag]
        if len(own) == 1 and rule.threshold is None:
            yield rule.classes[own]
            continue
        best = block.best(own, rule.bias[own]) if rule.threshold is None else None
        if best is not None:
            yield rule.classes[own][best]
            continue
        values = block.values(rows) if values is None else values
        yield rule.decide(values, rows)


@contextmanager
def _plain_float32(device: torch.device) -> Iterator[None]:
    """Keep products in full float32 whatever the caller runs in, and small steps on one thread.

    A block's steps take microseconds: sharing them among threads costs more than it gains, and on a busy machine ten
    times more.
    """
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if device.type == "cpu":
            torch.set_num_threads(threads)


def _blocks(plane: Plane, device: torch.device) -> Iterator[tuple[Span, Span]]:
    height, width = plane.size
    tall = wide = _BLOCK if plane.num_rows > _FEW_ROWS else 2 * _BLOCK
    if device.type == "cuda":
        tall, wide = max(1, _STRIP_SCORES // (width * plane.num_rows)), width
    for top in range(0, height, tall):
        for left in range(0, width, wide):
            yield (top, min(top + tall, height)), (left, min(left + wide, width))


def _check_rows(classes: Tensor, num_rows: int, num_classes: int) -> None:
    if len(classes) != num_rows:
        raise ShapeError(f"the prediction has {num_rows} rows of scores, class_of_row has {len(classes)}")
    if len(classes) == 0 or int(classes.min()) < 0 or int(classes.max()) >= num_classes:
        raise ShapeError(f"class_of_row must hold ids from 0 to {num_classes - 1}, but got {classes.tolist()[:8]}")


def _check_readout(readout: Readout, num_classes: int) -> None:
    background = () if readout.background is None else (readout.background,)
    named = {"candidate": readout.candidates or (), "seen": readout.seen_ids, "background": background}
    for kind, ids in named.items():
        for bad in (i for i in ids if not 0 <= i < num_classes):
            raise UsageError(f"{kind} id {bad} is not one of the {num_classes} classes (0 to {num_classes - 1}).")
    if readout.candidates is not None and not readout.candidates:
        raise UsageError("the list of candidates is empty: no class could be predicted.", "Name at least one.")
    if readout.threshold is not None and (
        not readout.softmax_scale or readout.softmax_scale < 0 or readout.background is None
    ):
        raise UsageError(
            "a background threshold needs the scale of the softmax (above 0) and the id of the background class.",
            "Set softmax_scale and background beside threshold.",
        )
