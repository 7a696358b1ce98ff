"""How does a method name the masks of a picture, and what is kept of it?

The name of a mask is the class of highest probability, by a softmax of the method's `classify_masks` over the
candidates; of several names of a class the best one counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.evaluation.mask_records import MaskRecord, class_pixels, is_known, record_picture
from ovseg_cli.core.evaluation.mask_sensitivity import Namer, mask_probabilities
from ovseg_cli.core.types import Sample, TextFeatures, Vocabulary


@dataclass(frozen=True)
class MaskNamer:
    """A method, the names that it chooses from, and the train ids that may be chosen (None: all)."""

    method: Namer
    text: TextFeatures
    candidates: Sequence[int] | None = None

    def probabilities(self, sample: Sample, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (N, K) class probabilities of masks (N, H, W), none empty; rows sum to 1."""
        if not len(masks):
            return np.zeros((0, self.text.num_classes))
        found = mask_probabilities(self.method, sample.image, masks, self.text).numpy()
        if self.candidates is None:
            return found
        chosen = np.zeros_like(found)
        chosen[:, list(self.candidates)] = found[:, list(self.candidates)]
        return chosen / np.maximum(chosen.sum(1, keepdims=True), np.finfo(float).tiny)


def name_picture(namer: MaskNamer, sample: Sample, masks: NDArray[np.bool_], ignore_label: int) -> MaskRecord:
    """Let a method name the masks of a picture, (N, H, W); those without enough labelled pixels are left out."""
    assert sample.label is not None
    label = sample.label.numpy()
    pixels = class_pixels(masks, label, namer.text.num_classes, ignore_label, sample.name)
    known = is_known(masks.sum((1, 2)), pixels)
    left_out = int((~known).sum())
    masks, pixels = masks[known], pixels[known]
    found = namer.probabilities(sample, masks)
    return record_picture(masks, pixels, found, label, ignore_label, left_out, sample.name)


def candidates_of(word: str, vocabulary: Vocabulary) -> Sequence[int] | None:
    """Train ids that `--candidates` means."""
    return {"all": None, "seen": vocabulary.seen_ids, "unseen": vocabulary.unseen_ids}[word]
