"""How a cache is filled: only what is missing, in one process or many, each picture by one of them.

A worker knows a `Job`, a small record from which it opens data, generator and cache once; a picture is then its place
in the subset.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovseg_cli.core.data.parallel import ordered_map
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.proposals.locks import Locks
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.data.dataset import SegmentationData


@dataclass(frozen=True)
class Filled:
    """What became of the pictures.

    Attributes:
        made: Pictures whose masks were made by this process and its workers.
        kept: Pictures that had theirs already, or got them from another process.
        masks: Masks that were made.
    """

    made: int = 0
    kept: int = 0
    masks: int = 0

    def plus(self, outcome: "Outcome") -> "Filled":
        """Count one more picture."""
        made = outcome.masks is not None
        return Filled(self.made + made, self.kept + (not made), self.masks + (outcome.masks or 0))


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: `masks` is None where none were made here; `held`: another process makes them."""

    index: int
    masks: int | None = None
    held: bool = False


@dataclass(frozen=True)
class Place:
    """Where pictures come from, what makes their masks, and where these go; opened once a process."""

    pictures: "SegmentationData"
    generator: ProposalGenerator
    store: ProposalStore
    locks: Locks

    def fill(self, index: int, wait: bool = False) -> Outcome:
        """Make the masks of a picture unless they are there, or another process is at it and `wait` is False."""
        name = self.pictures.entries[index].stem
        with self.locks.picture(index, wait) as held:
            if not held:
                return Outcome(index, held=True)
            if self.store.is_whole(name):
                return Outcome(index)
            image, label = read_picture(self.pictures, index, self.generator.needs_labels)
            proposals = self.generator.generate(image, label)
            self.store.write(name, image, proposals)
            return Outcome(index, masks=len(proposals))


def read_picture(pictures: "SegmentationData", index: int, with_label: bool) -> "tuple[Tensor, Tensor | None]":
    """Read a picture, (3, H, W) uint8, and where asked its label, (H, W) int64 with -1 where no class is known."""
    import torch

    image = torch.from_numpy(pictures.image(index).transpose(2, 0, 1).copy())
    if not with_label:
        return image, None
    label = pictures.label(index)
    assert label is not None, "a generator that needs labels is only used on subsets that have them"
    known = np.where(label == pictures.ignore_label, -1, label.astype(np.int64))
    return image, torch.from_numpy(known)


@dataclass(frozen=True)
class Job:
    """What a worker process needs to know; small, since it travels with every picture.

    Attributes:
        folder: Folder of the cache; jobs with the same folder are the same.
        open_pictures: Opens the subset; picklable.
        make_generator: Builds the generator on a device; picklable.
        devices: The workers' devices, dealt out in turn.
    """

    folder: Path
    open_pictures: "Callable[[], SegmentationData]" = field(compare=False)
    make_generator: Callable[[str], ProposalGenerator] = field(compare=False)
    devices: tuple[str, ...] = field(default=("cpu",), compare=False)

    def __call__(self, index: int) -> Outcome:
        """Fill one picture."""
        return self.place().fill(index)

    def place(self) -> Place:
        """Open everything, once a process."""
        if self not in _PLACES:
            _PLACES[self] = Place(
                self.open_pictures(),
                self.make_generator(self._device()),
                ProposalStore.open(self.folder),
                Locks(self.folder),
            )
        return _PLACES[self]

    def _device(self) -> str:
        """Deal devices out to workers by their number; the first process has the first."""
        identity = multiprocessing.current_process()._identity
        return self.devices[(identity[0] - 1) % len(self.devices) if identity else 0]


_PLACES: dict[Job, Place] = {}


def fill(
    place: Place,
    reporter: Reporter,
    indices: Sequence[int] | None = None,
    job: Job | None = None,
    workers: int = 1,
    first: float = 0.0,
) -> Filled:
    """Make what is missing.

    Args:
        place: Data, generator and cache of this process.
        reporter: Shows progress.
        indices: Places of the pictures; None takes all.
        job: What worker processes open; needed for more than one.
        workers: Processes.
        first: Where in the list this process begins, as a share from 0 to 1: processes that were launched together
            begin at different places and meet less often.

    Raises:
        DataError: A picture is missing or broken.
        MachineError: The disk is full, or a worker died; what is finished stays.
    """
    chosen = list(indices if indices is not None else range(len(place.pictures)))
    start = round(first * len(chosen))
    chosen = [*chosen[start:], *chosen[:start]]
    what = f"proposals of {place.pictures.spec.name} {place.pictures.name}"
    filled, held = Filled(), []
    with _registered(place, job):
        for outcome in reporter.track(_outcomes(place, chosen, job, workers), what, len(chosen)):
            if outcome.held:
                held.append(outcome.index)
            else:
                filled = filled.plus(outcome)
        for index in held:  # wait for the other process; if it died, the picture is made here
            filled = filled.plus(place.fill(index, wait=True))
    return filled


def _outcomes(place: Place, indices: list[int], job: Job | None, workers: int) -> Iterator[Outcome]:
    """Fill pictures; the first one here in any case, since it shows what is wrong before processes are started."""
    alone = len(indices) if job is None or workers <= 1 else 1
    for index in indices[:alone]:
        yield place.fill(index)
    if job is not None:
        yield from ordered_map(job, indices[alone:], workers, chunk=1)


@contextlib.contextmanager
def _registered(place: Place, job: Job | None) -> Iterator[None]:
    """While the block runs, a job in this process uses its own place instead of opening another."""
    if job is None:
        yield
        return
    _PLACES[job] = place
    try:
        yield
    finally:
        _PLACES.pop(job, None)
