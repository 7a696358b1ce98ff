"""How much do a mask's class scores change when the mask changes? MAFT's argument, measured on ground-truth regions.

A region is all pixels of a class in a picture (one below 1/200 of the labelled pixels is left out). A method names the
region itself and changed masks of it (mask_series.py). For each mask two numbers are kept: its IoU with the region, and
the probability of the region's class, by a softmax of the method's logits over all classes. What is made of them stands
in sensitivity_results.py; the proposals of whole pictures are measured in proposal_sensitivity.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.evaluation.mask_series import MaskSeries, mask_series
from ovseg_cli.core.evaluation.sensitivity_results import DIGITS, RegionScores
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import Sample, TextFeatures

LIMIT = 50
SMALLEST = 1 / 200
_BUDGET = 1 << 26  # mask pixels that are given to a method at once


class Namer(Protocol):
    """What names masks: every method does."""

    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        """Return (N, M) logits of masks (N, H, W) of one picture (3, H, W)."""


def measure(
    method: Namer,
    data: SegmentationData,
    text: TextFeatures,
    reporter: Reporter,
    what: str = "masks",
) -> tuple[RegionScores, ...]:
    """Let a method name the changed masks of each region of each picture.

    Args:
        method: Its `classify_masks` is asked.
        data: Pictures with labels.
        text: Features of all classes.
        reporter: Shows progress.
        what: Name of the progress.

    Raises:
        DataError: A file is missing or broken.
    """
    found: list[RegionScores] = []
    for index in reporter.track(range(len(data)), f"{what}: right to wrong", len(data)):
        sample = data[index]
        probes = [(region, series_of(region, sample)) for region in regions_of(sample, data.ignore_label)]
        found += _scores(method, sample, text, probes)
    return tuple(found)


@dataclass(frozen=True)
class Region:
    """All pixels of a class in a picture: its train id, (H, W) of its pixels, and of all that have a class."""

    class_id: int
    mask: NDArray[np.bool_]
    valid: NDArray[np.bool_]


def regions_of(sample: Sample, ignore_label: int) -> list[Region]:
    """Return the regions of a picture that are not tiny, by train id; none where it has no label."""
    if sample.label is None:
        return []
    label = sample.label.numpy()
    valid = (label != ignore_label) & (label >= 0)
    ids, pixels = np.unique(label[valid], return_counts=True)
    kept = ids[pixels >= SMALLEST * valid.sum()]
    return [Region(int(i), label == i, valid) for i in kept]


def series_of(region: Region, sample: Sample) -> MaskSeries:
    """Return the series of a region: a pure function of the picture's name, its label and the class."""
    assert sample.label is not None
    seed = int(digest_of([sample.name])[:16], 16)
    rng = np.random.default_rng([seed, region.class_id])
    return mask_series(region.mask, sample.label.numpy(), region.valid, rng)


Probe = tuple[Region, MaskSeries]


@torch.no_grad()
def mask_probabilities(method: Namer, image: Tensor, masks: NDArray[np.bool_], text: TextFeatures) -> Tensor:
    """Name masks.

    Args:
        method: What is asked.
        image: (3, H, W) uint8 RGB.
        masks: (N, H, W) bool, none empty.
        text: M rows of K classes; of several names of a class the best one counts.

    Returns:
        (N, K) float64 on the CPU, rows sum to 1.
    """
    step = max(1, _BUDGET // masks[0].size)
    parts = [torch.from_numpy(masks[i : i + step]).float() for i in range(0, len(masks), step)]
    logits = torch.cat([method.classify_masks(image, part, text).double().cpu() for part in parts])
    rows = text.class_of_row.cpu()
    best = logits.new_full((len(logits), text.num_classes), -math.inf)
    return best.scatter_reduce(1, rows.expand(len(logits), -1), logits, "amax").softmax(1)


def _scores(method: Namer, sample: Sample, text: TextFeatures, probes: list[Probe]) -> Iterator[RegionScores]:
    """Name the masks of all regions of a picture at once. A region needs masks of two IoUs."""
    probes = [(region, series) for region, series in probes if np.ptp(rounded(series.ious)) > 0]
    if not probes:
        return
    named = mask_probabilities(method, sample.image, np.concatenate([series.masks for _, series in probes]), text)
    for (region, series), own in zip(probes, named.split([len(series.masks) for _, series in probes]), strict=True):
        yield region_scores(sample, region, series, own)


def region_scores(sample: Sample, region: Region, series: MaskSeries, named: Tensor) -> RegionScores:
    """Keep what was said of the N masks of a region; `named` holds their class probabilities, (N, K)."""
    return RegionScores(
        sample.name,
        region.class_id,
        series.kinds,
        rounded(series.ious),
        rounded(named[:, region.class_id].numpy()),
        round(mean_distance(named), DIGITS),
    )


def mean_distance(probabilities: Tensor) -> float:
    """Mean total variation of all pairs of rows, two or more."""
    number = len(probabilities)
    return float(torch.cdist(probabilities, probabilities, p=1).sum() / 2 / (number * (number - 1)))


def rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Round what is kept."""
    return tuple(round(float(value), DIGITS) for value in values)
