"""Which pictures does a training step see, in which state? A pure function of seed and step.

The pictures of an epoch come in the order of a permutation, none twice, none left out; where an epoch ends inside a
batch, the next one begins there. What is random about picture `j` of step `i` is seeded by (seed, i, j), so a step
sees the same global batch whatever the number of processes, of accumulated parts and of workers, and after a resume.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch.utils.data import Dataset

from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
from ovseg_cli.core.data.spec_models import ClassSplit
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.proposals.entry import Entry as Cached
from ovseg_cli.core.proposals.entry import image_digest
from ovseg_cli.core.training.augment import Draw, Place, Size, draw, example_size, place, warp_image, warp_label
from ovseg_cli.core.training.collate import NO_CLASS, collate
from ovseg_cli.core.training.mask_crops import crop_masks
from ovseg_cli.core.training.train_classes import TrainClasses
from ovseg_cli.core.training.views import Strong, box_of, draw_strong, strong_view
from ovseg_cli.core.types import TrainBatch

if TYPE_CHECKING:
    from ovseg_cli.core.methods.trained import SecondView

_ORDER, _EXAMPLE, _STRONG = 1, 2, 3  # streams of random numbers


class Masks(Protocol):
    """What a proposal store offers to training."""

    @property
    def digest(self) -> str:
        """Fingerprint of all that the masks depend on."""

    @property
    def command(self) -> str:
        """What the user types to make them."""

    def names(self) -> Sequence[str]:
        """Names of the pictures that have proposals."""

    def read_entry(self, name: str, image: str | None = None) -> Cached:
        """Read the proposals of a picture, not decoded; refuse those of another picture than `image`, a digest."""


@dataclass(frozen=True)
class TrainData(Dataset):
    """Item `step * parts + part` is that part of the step's global batch, in the form that travels (`ready`).

    Attributes:
        pictures: Pictures, and their labels where these are read; only those that there is something to learn from.
        classes: The training vocabulary, and whose labels are read.
        training: Settings.
        proposals: Where masks come from; None for methods that want none.
        view: How the strong view of an example differs from the example; None for methods that see it once.
        parts: Into how many parts a step's batch is cut.
        skipped: Pictures that were left out because they show no class whose labels are read.
    """

    pictures: SegmentationData
    classes: TrainClasses
    training: TrainingConfig
    proposals: Masks | None = None
    view: "SecondView | None" = None
    parts: int = 1
    skipped: int = 0

    def __len__(self) -> int:
        return self.training.iterations * self.parts

    def __getitem__(self, item: int) -> TrainBatch:
        """Read, augment and collate a part of a batch.

        Returns:
            "images" (B, 3, H, W) uint8, "labels" (B, H, W) int16 positions in `classes.names`, -1 or UNSEEN_PIXEL,
            "areas" (B, 2) height and width of the example inside the canvas (top left), "classes", the positions that
            occur in each label, "names", and with proposals "masks", for each example what `crop_masks` returns.
            Where examples are seen twice also "strong" (B, 3, H, W) uint8 and "cut_outs" (B, 4) int64, top, left,
            height and width of the black box. `ready` makes of it what methods take.

        Raises:
            DataError: A file is missing or broken, or its proposals belong to another picture.
        """
        step, part = divmod(item, self.parts)
        count = self.training.batch_size
        canvas = self._canvas(step)
        positions = range(count * part // self.parts, count * (part + 1) // self.parts)
        return collate([self._example(step, position, canvas) for position in positions])

    def in_parts(self, parts: int) -> "TrainData":
        """Return the same data with every batch cut into `parts`.

        Raises:
            UsageError: There are more parts than pictures in a batch.
        """
        if parts > self.training.batch_size:
            raise UsageError(
                f"a batch_size of {self.training.batch_size} cannot be shared by {parts} processes and parts.",
                f"Use fewer of them, or --set batch_size={parts} or more.",
            )
        return replace(self, parts=parts)

    @property
    def digest(self) -> str:
        """Fingerprint of pictures, labels as read, and proposals: what must not change while a run is under way.

        Labels that are not read do not count (`training_pictures`).
        """
        masks = self.proposals.digest if self.proposals is not None else ""
        return digest_of(["train-data-1", self.pictures.fingerprint, *self.classes.digest_parts(), masks])

    def index(self, step: int, position: int) -> int:
        """Return which picture stands at a place of a step's global batch."""
        epoch, place_in_epoch = divmod(step * self.training.batch_size + position, len(self.pictures))
        return int(_order(self.training.seed, epoch, len(self.pictures))[place_in_epoch])

    def drawn(self, step: int, position: int) -> Draw:
        """Return what is random about a place of a step's global batch."""
        return draw(np.random.default_rng([self.training.seed, _EXAMPLE, step, position]), self.training)

    def drawn_strong(self, step: int, position: int) -> Strong:
        """Return what is random about the strong view of a place of a step's global batch."""
        assert self.view is not None
        return draw_strong(np.random.default_rng([self.training.seed, _STRONG, step, position]), self.view)

    def _canvas(self, step: int) -> Size:
        """The crop's square; without a crop the smallest canvas that holds the whole global batch, in every part."""
        if self.training.crop_size:
            return self.training.crop_size, self.training.crop_size
        shown = [self._shown(step, position) for position in range(self.training.batch_size)]
        return max(height for height, _ in shown), max(width for _, width in shown)

    def _shown(self, step: int, position: int) -> Size:
        entry = self.pictures.entries[self.index(step, position)]
        return example_size((entry.height, entry.width), self.drawn(step, position), self.training)

    def _example(self, step: int, position: int, canvas: Size) -> dict[str, Any]:
        index, drawn = self.index(step, position), self.drawn(step, position)
        where, labels = self._labelled(index, drawn, canvas)
        pixels = self.pictures.image(index)
        weak = warp_image(pixels, where, drawn.jitter)
        example = {"image": self._padded(weak, canvas), "label": labels, "area": where.size}
        example["name"] = self.pictures.entries[index].stem
        if self.view is not None:
            strong = self.drawn_strong(step, position)
            example["strong"] = self._padded(strong_view(weak, strong), canvas)
            example["cut_out"] = box_of(strong, where.size)
        if self.proposals is not None:
            is_first_time = step * self.training.batch_size + position < len(self.pictures)
            cached = self._proposals(index, image_digest(pixels.transpose(2, 0, 1)) if is_first_time else None)
            example["masks"] = crop_masks(cached, where, canvas)
        return example

    def _padded(self, pixels: np.ndarray, canvas: Size) -> np.ndarray:
        image = np.empty((*canvas, 3), np.uint8)
        image[:] = np.asarray(self.training.pad_value, np.uint8)
        image[: pixels.shape[0], : pixels.shape[1]] = pixels
        return image

    def _labelled(self, index: int, drawn: Draw, canvas: Size) -> tuple[Place, np.ndarray]:
        """Choose an example's place; return it and the label of the canvas, which says nothing where none is read."""
        labels = np.full(canvas, NO_CLASS, np.int16)
        if not self.classes.reads_labels:
            entry = self.pictures.entries[index]
            blank = np.broadcast_to(labels[:1, :1], (entry.height, entry.width))
            return place(blank, drawn, self.training, NO_CLASS), labels
        label = self._label(index)
        where = place(np.maximum(label, NO_CLASS), drawn, self.training, NO_CLASS)  # marks choose no crop
        labels[: where.height, : where.width] = warp_label(label, where)
        return where, labels

    def _label(self, index: int) -> np.ndarray:
        """Label of a picture as positions in the training vocabulary, (H, W) int16."""
        label = self.pictures.label(index)
        assert label is not None, "training data has labels: `open_train_data` has looked"
        return self.classes.table()[label]

    def _proposals(self, index: int, image: str | None) -> Cached:
        assert self.proposals is not None
        entry = self.pictures.entries[index]
        found = self.proposals.read_entry(entry.stem, image)
        if tuple(found.size) != (entry.height, entry.width):
            raise DataError(
                f"the proposals of picture '{entry.stem}' cover {found.size[0]} x {found.size[1]} pixels, the "
                f"picture has {entry.height} x {entry.width}.",
                f"Make them anew: {self.proposals.command} --force",
            )
        return found


def open_train_data(
    pictures: SegmentationData,
    classes: TrainClasses,
    training: TrainingConfig,
    proposals: Masks | None = None,
    view: "SecondView | None" = None,
) -> TrainData:
    """Check that the pictures can be trained on, and leave out those that there is nothing to learn from.

    These are pictures without a pixel of a class that is labelled or marked. Where pixels without a label may still
    get one (self-training), and where no label is read, all pictures stay.

    Args:
        pictures: From `training_pictures`.
        classes: The training vocabulary, and whose labels are read.
        training: Settings.
        proposals: Store of masks, where the method wants them.
        view: How the strong view differs, where the method sees each example twice.

    Raises:
        DataError: Labels or proposals are missing, or no picture shows a class that is labelled.
    """
    what = f"{pictures.spec.name}, subset '{pictures.name}'"
    chosen = _with_something_to_learn(pictures, classes, what) if classes.reads_labels else pictures
    if not len(chosen):
        raise DataError(f"{what}: there are no pictures to train on.", pictures.data.mend)
    if proposals is not None:
        _require_proposals(chosen, proposals, what)
    return TrainData(chosen, classes, training, proposals, view, skipped=len(pictures) - len(chosen))


def _with_something_to_learn(pictures: SegmentationData, classes: TrainClasses, what: str) -> SegmentationData:
    if not pictures.has_labels:
        raise DataError(f"{what}: these pictures have no labels to train on.", pictures.data.mend)
    hidden = set(pictures.hidden)
    if not _showing(pictures, {*classes.labelled} - hidden):
        raise DataError(
            f"{what}: no picture shows a seen class.", "Choose another class split: --data NAME:CLASS_SPLIT"
        )
    if classes.has_unlabelled:
        return pictures
    return pictures.select(_showing(pictures, {*classes.labelled, *classes.marked} - hidden))


def training_pictures(
    prepared: PreparedData, subset: str, split: ClassSplit | None, classes: TrainClasses
) -> SegmentationData:
    """Open a subset for training.

    Its labels are the seen-only ones of a class split, or all where the classes ask for them. Where they read none,
    the pictures come as if they had no labels: no file of a label is looked for, and the fingerprint is that of the
    pictures alone, so that a run goes on whatever becomes of the labels.
    """
    if not classes.reads_labels:
        return prepared.subset(subset, labels=False)
    full = classes.needs_full_labels(prepared.spec.hidden_ids(split))
    return prepared.subset(subset, None if full else split)


def _showing(pictures: SegmentationData, ids: set[int]) -> list[int]:
    """Return which pictures have a pixel of one of these train ids."""
    return [i for i, entry in enumerate(pictures.entries) if any(v in ids and n for v, n in entry.pixels)]


def _require_proposals(pictures: SegmentationData, proposals: Masks, what: str) -> None:
    there = set(proposals.names())
    missing = [name for name in pictures.names if name not in there]
    if missing:
        raise DataError(
            f"{what}: {len(missing)} of {len(pictures)} pictures have no proposals, the first is '{missing[0]}'.",
            f"Make them: {proposals.command}",
        )


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)
