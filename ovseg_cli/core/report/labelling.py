"""What does a model find in some pictures? Their label maps, and the counts that an evaluation would store of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.confusion import Counts, count
from ovseg_cli.core.evaluation.mask_cache import cached_masks
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import Readout, TextFeatures

if TYPE_CHECKING:
    from ovseg_cli.core.methods.base import Method
    from ovseg_cli.core.types import Sample


@dataclass(frozen=True)
class Labelled:
    """Pictures as one model labels them.

    Attributes:
        maps: For each picture (H, W) class ids, of the smallest type that holds all.
        counts: For each picture its confusion.
    """

    maps: tuple[NDArray[np.unsignedinteger], ...]
    counts: tuple[Counts, ...]


@torch.no_grad()
def label_pictures(
    method: "Method",
    text: TextFeatures,
    readout: Readout,
    data: SegmentationData,
    what: str,
    folders: Folders,
    reporter: Reporter,
) -> Labelled:
    """Let a model label pictures, one by one, as an evaluation does.

    Args:
        method: The model, on its device.
        text: Features of its vocabulary, on the same device.
        readout: How its scores become class ids.
        data: Pictures with labels.
        what: Shown beside the progress.
        folders: Where caches of masks lie.
        reporter: Receives progress.

    Raises:
        DataError: A picture is broken, or has no label.
    """
    smallest = np.min_scalar_type(max(text.num_classes - 1, 0))

    def labelled(sample: "Sample") -> tuple[NDArray[np.unsignedinteger], Counts]:
        if sample.label is None:
            raise DataError(f"{sample.name}: this picture has no label.", "Choose another --subset.")
        (prediction,) = method.predict([sample.image], text)
        ids = label_map(prediction, readout, text.class_of_row, text.num_classes).cpu()
        counts = count(ids, sample.label, text.num_classes, data.ignore_label, sample.name)
        return ids.numpy().astype(smallest), counts

    with cached_masks(method, data, folders, reporter):
        found = [labelled(data[i]) for i in reporter.track(range(len(data)), f"{what}: pictures", len(data))]
    return Labelled(tuple(ids for ids, _ in found), tuple(counts for _, counts in found))
