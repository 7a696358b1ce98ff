"""How do the class scores of a picture's own proposals follow the masks? Measured on any masks, each named once.

MAFT's paper argues with two facts of frozen CLIP: proposals of a picture get much the same scores, however different
they are, and so bad masks get confident names (false positives). Both are measured for each picture
(proposal_scores.py); and for each region of a picture, how the score of its class follows the IoU of the proposals with
it, as for changed masks (mask_sensitivity.py).
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.evaluation.mask_records import class_pixels, is_known
from ovseg_cli.core.evaluation.mask_sensitivity import (
    Namer,
    mask_probabilities,
    mean_distance,
    region_scores,
    regions_of,
    rounded,
)
from ovseg_cli.core.evaluation.mask_series import MaskSeries, overlaps
from ovseg_cli.core.evaluation.mask_sources import MaskSource
from ovseg_cli.core.evaluation.proposal_scores import PictureScores
from ovseg_cli.core.evaluation.sensitivity_results import DIGITS, RegionScores
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import Sample, TextFeatures

VERSION = "proposals-2"
"""Changes when what is measured of proposals changes: older measurements are made anew."""

Measured = tuple[tuple[RegionScores, ...], tuple[PictureScores, ...]]


def measure_proposals(
    method: Namer, data: SegmentationData, text: TextFeatures, source: MaskSource, reporter: Reporter, what: str = ""
) -> Measured:
    """Let a method name the proposals of each picture.

    Args:
        method: Its `classify_masks` is asked.
        data: Pictures with labels.
        text: Features of all classes.
        source: Where the masks come from, prepared.
        reporter: Shows progress.
        what: Name of the progress.

    Returns:
        What is known of each region that has proposals of two IoUs or more, and of each picture that has a proposal.

    Raises:
        DataError: A file is missing or broken, or there are no masks of a picture.
    """
    regions: list[RegionScores] = []
    pictures: list[PictureScores] = []
    for index in reporter.track(range(len(data)), f"{what}: proposals", len(data)):
        sample = data[index]
        masks = source.masks(sample)
        masks = masks[masks.any((1, 2))]
        if sample.label is None or not len(masks):
            continue
        named = mask_probabilities(method, sample.image, masks, text)
        pictures.append(picture_scores(sample, masks, named, data.ignore_label))
        for region in regions_of(sample, data.ignore_label):
            series = MaskSeries(masks, ("proposal",) * len(masks), overlaps(masks & region.valid, region.mask))
            if np.ptp(rounded(series.ious)) > 0:  # one pixel of millions is lost in what is kept
                regions.append(region_scores(sample, region, series, named))
    return tuple(regions), tuple(pictures)


def picture_scores(sample: Sample, masks: NDArray[np.bool_], named: Tensor, ignore_label: int) -> PictureScores:
    """Compare the names of a picture's masks with its label.

    Args:
        sample: The picture, with label.
        masks: (N, H, W), none empty.
        named: (N, K) class probabilities.
        ignore_label: Label of pixels that have no class.
    """
    assert sample.label is not None
    label = sample.label.numpy()
    pixels = class_pixels(masks, label, named.shape[1], ignore_label, sample.name)
    known = is_known(masks.sum((1, 2)), pixels)
    truth = np.bincount(label[label != ignore_label].ravel(), minlength=named.shape[1])
    union = truth[None] + pixels.sum(1, keepdims=True) - pixels
    ious = np.divide(pixels, union, out=np.zeros(union.shape), where=union > 0)[known]
    probabilities, names = (values.numpy()[known] for values in named.max(1))
    return PictureScores(
        picture=sample.name,
        masks=len(masks),
        distance=round(mean_distance(named), DIGITS) if len(masks) > 1 else 0.0,
        present=tuple(np.flatnonzero(truth).tolist()),
        names=tuple(names.tolist()),
        probabilities=rounded(probabilities),
        ious=rounded(ious[np.arange(len(names)), names]),
        best_ious=rounded(ious.max(1)) if len(names) else (),
    )
