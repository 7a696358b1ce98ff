"""What holds a method back, masks or names? Four label maps of a picture: masks and names predicted, or ground truth.

- *predicted*: the method's own masks and names. By default its label map, as `ovseg eval` scores it.
- *right-masks*: one ground-truth mask a class, named by the method (`classify_masks`), painted.
- *right-names*: the method's masks, each named by the class that most of its labelled pixels have. Of a method that
  scores masks these masks are weighed as ever, a mask's only class by the share of its pixels that have it; of a method
  that scores pixels they are the connected pieces of its label map.
- *both*: ground-truth masks with their own names, painted: the label map itself, a check of the way there and back.

Masks that are given (`--proposals`) take the place of the method's own: named by `classify_masks`, and painted.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.mask_naming import MaskNamer
from ovseg_cli.core.evaluation.mask_records import Ints, Masks, class_pixels, paint, painted
from ovseg_cli.core.evaluation.proposal_quality import regions_of
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.types import MaskPrediction, Prediction, Readout, Sample, TextFeatures

Rung = Literal["predicted", "right-masks", "right-names", "both"]
RUNGS: tuple[Rung, ...] = ("predicted", "right-masks", "right-names", "both")
Maps = tuple[Ints, Ints]
"""Two label maps (H, W), under predicted and under right names; K where no mask is."""
_NOTHING = 1e-6  # score of "no class": wins only where no mask says anything


class Predictor(Protocol):
    """What scores whole pictures: every method does."""

    def predict(self, images: list[Tensor], text: TextFeatures) -> list[Prediction]:
        """Score pictures against names."""


def climb(
    sample: Sample, truth: Masks, namer: MaskNamer, own: Callable[[Sample, Ints], Maps], ignore_label: int
) -> dict[str, Counts]:
    """Count the four label maps of a picture.

    Args:
        sample: A labelled picture.
        truth: Its ground-truth masks, (R, H, W).
        namer: Names masks.
        own: Makes the two label maps of predicted masks, of the picture and its label with K where it is unknown.
        ignore_label: Label of pixels that have no class.

    Returns:
        Counts of K + 1 classes by rung, the last class for pixels that no mask covers.
    """
    assert sample.label is not None
    label, classes = sample.label.numpy(), namer.text.num_classes
    pixels = class_pixels(truth, label, classes, ignore_label, sample.name)
    given = namer.probabilities(sample, truth).argmax(1)
    predicted, named = own(sample, np.where(label == ignore_label, classes, label))
    maps = (predicted, paint(truth, given, classes), named, paint(truth, pixels.argmax(1), classes))
    counts = (painted(canvas, label, classes, ignore_label, sample.name) for canvas in maps)
    return dict(zip(RUNGS, counts, strict=True))


def maps_of_masks(masks: Masks, namer: MaskNamer) -> Callable[[Sample, Ints], Maps]:
    """Return what paints given masks, (N, H, W), in the names that a method and the ground truth give them."""
    masks = masks[masks.any((1, 2))]

    def paint_both(sample: Sample, label: Ints) -> Maps:
        classes = namer.text.num_classes
        names = namer.probabilities(sample, masks).argmax(1)
        return paint(masks, names, classes), paint(masks, right_names(masks, label, classes)[0], classes)

    return paint_both


def maps_of_method(method: Predictor, text: TextFeatures, readout: Readout) -> Callable[[Sample, Ints], Maps]:
    """Return what makes the label maps of a method's own masks."""

    def read_both(sample: Sample, label: Ints) -> Maps:
        prediction = replace(method.predict([sample.image], text)[0], size=label.shape)
        own = label_map(prediction, readout, text.class_of_row, text.num_classes).cpu().numpy().astype(np.int64)
        if isinstance(prediction, MaskPrediction):
            return own, _renamed(prediction, label, text.num_classes)
        return own, rename_pieces(own, label, text.num_classes)

    return read_both


def right_names(masks: Masks, label: Ints, num_classes: int) -> tuple[Ints, NDArray[np.float64]]:
    """Return the class that most labelled pixels of each mask have, and the share of these that have it, (N,) each.

    A mask without labelled pixels has the name K and the share 0.
    """
    pixels = class_pixels(masks, label, num_classes, num_classes)
    total = pixels.sum(1)
    return np.where(total > 0, pixels.argmax(1), num_classes), pixels.max(1, initial=0) / np.maximum(total, 1)


def rename_pieces(own: Ints, label: Ints, num_classes: int) -> Ints:
    """Give each connected piece of a label map (H, W) the class that most of its labelled pixels have.

    Pieces touch at sides or corners; there may be thousands, so no mask is made of them. Ties go to the lowest id; a
    piece without labelled pixels becomes K.
    """
    pieces = regions_of(own, -1, "component").map
    known = label < num_classes
    codes, counts = np.unique(pieces[known] * num_classes + label[known], return_counts=True)
    owners, classes = np.divmod(codes, num_classes)
    order = np.lexsort((classes, -counts, owners))
    firsts, places = np.unique(owners[order], return_index=True)
    names = np.full(int(pieces.max()) + 1, num_classes, np.int64)
    names[firsts] = classes[order][places]
    return names[pieces]


def _renamed(prediction: MaskPrediction, label: Ints, num_classes: int) -> Ints:
    """The label map of a prediction whose masks have their right names; K where no mask has one."""
    masks = prediction.masks.float().cpu()
    full = interpolate(masks[:, None], label.shape, mode="bilinear", align_corners=False)[:, 0] if len(masks) else masks
    names, shares = right_names((full > 0.5).numpy().reshape(-1, *label.shape), label, num_classes)
    scores = torch.zeros(len(names) + 1, num_classes + 1)
    scores[torch.arange(len(names)), torch.from_numpy(names)] = torch.from_numpy(shares).float()
    scores[-1, -1] = _NOTHING
    under = torch.cat([masks, masks.new_ones(1, *masks.shape[1:])])
    return label_map(MaskPrediction(scores, under, prediction.size)).numpy().astype(np.int64)
