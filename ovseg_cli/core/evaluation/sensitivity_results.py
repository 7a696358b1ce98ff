"""What is known about mask sensitivity: probabilities of changed masks, their summary, and the JSON file.

* *correlation*: Pearson's, of probability and IoU over the masks of one region; 0 where the probability stays the same.
  Averaged over regions.
* *distance*: total variation, Σ |p - q| / 2, of the class probabilities of two masks of one region, 0 to 1; averaged
  over pairs of masks, then over regions. 0: the mask changes nothing.
* *bins*: probabilities by IoU, the masks of all regions together.

Where the masks were proposals there is more to say of each picture: proposal_scores.py.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ovseg_cli.core.evaluation.measurement_files import MeasurementFile
from ovseg_cli.core.evaluation.proposal_scores import PictureScores, summarise

FILE = MeasurementFile("ovseg-mask-sensitivity", 1, "mask sensitivity", "mask-sensitivity")
BINS = 10
DIGITS = 6  # of what is kept
Split = Literal["all", "seen", "unseen"]


@dataclass(frozen=True)
class RegionScores:
    """What a method said of the masks of one region.

    Attributes:
        picture: Name of the picture.
        class_id: Train id of the region.
        kinds: How each of the N masks was made; "proposal" for those of a cache.
        ious: N, IoU with the region.
        probabilities: N, of the region's class.
        distance: Mean total variation between the class probabilities of two of the masks.
    """

    picture: str
    class_id: int
    kinds: tuple[str, ...]
    ious: tuple[float, ...]
    probabilities: tuple[float, ...]
    distance: float

    @property
    def correlation(self) -> float:
        """Pearson's, of probability and IoU; 0 where the probability does not change."""
        ious, probabilities = np.array(self.ious), np.array(self.probabilities)
        if np.ptp(probabilities) < 2 * 10**-DIGITS:
            return 0.0
        return float(np.corrcoef(ious, probabilities)[0, 1])


@dataclass(frozen=True)
class Bin:
    """Probabilities of the region's class where the IoU lies in [low, high), the last bin with 1.

    Attributes:
        masks: Their number.
        mean: Mean probability.
        quartiles: Lower and upper quartile.
    """

    low: float
    high: float
    masks: int
    mean: float
    quartiles: tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Numbers over the regions of some classes; `correlation` and `distance` are NaN where there is no region."""

    regions: int
    masks: int
    correlation: float
    distance: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class MaskSensitivity:
    """A measurement.

    Attributes:
        method: Name of the method.
        data: Data set and class split.
        subset: Its subset.
        class_names: K names.
        unseen: K flags.
        regions: What was measured.
        fingerprints: Of weights, data, settings, vocabulary, masks and version: equal where a measurement is the same.
        facts: How it came about: run, command, version, time.
        pictures: Where the masks were proposals: what was measured of those of each picture.
    """

    method: str
    data: str
    subset: str
    class_names: tuple[str, ...]
    unseen: tuple[bool, ...]
    regions: tuple[RegionScores, ...]
    fingerprints: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    pictures: tuple[PictureScores, ...] = ()

    def of(self, split: Split) -> list[RegionScores]:
        """Regions of all, of seen or of unseen classes."""
        return [r for r in self.regions if split == "all" or self.unseen[r.class_id] == (split == "unseen")]

    def summary(self, split: Split = "all") -> Summary:
        """Summarise the regions of all, of seen or of unseen classes."""
        regions = self.of(split)
        correlation, distance = ([r.correlation for r in regions], [r.distance for r in regions])
        means = [float(np.mean(values)) if values else math.nan for values in (correlation, distance)]
        return Summary(len(regions), sum(len(r.ious) for r in regions), means[0], means[1], tuple(_bins(regions)))

    def save(self, path: Path) -> None:
        """Write the measurement, and its summaries for readers without us, as JSON: one line a region or picture.

        Raises:
            MachineError: The file cannot be written.
        """
        splits: tuple[Split, ...] = ("all", "seen", "unseen")
        summary: dict[str, Any] = {split: asdict(self.summary(split)) for split in splits}
        if self.pictures:
            summary["proposals"] = asdict(summarise(self.pictures))
        FILE.save(path, {"summary": summary, **asdict(self)}, ("regions", "pictures"))

    @classmethod
    def load(cls, path: Path) -> "MaskSensitivity":
        """Read a measurement.

        Raises:
            DataError: The file is missing, broken, of another schema or of another kind.
        """
        return FILE.load(path, _read)


def _bins(regions: Sequence[RegionScores]) -> Iterator[Bin]:
    """Bins that hold a mask, by IoU."""
    ious = np.array([iou for region in regions for iou in region.ious])
    probabilities = np.array([p for region in regions for p in region.probabilities])
    places = np.minimum((ious * BINS).astype(int), BINS - 1)
    for place in np.unique(places):
        own = probabilities[places == place]
        low, high = np.quantile(own, [0.25, 0.75])
        edges = int(place) / BINS, (int(place) + 1) / BINS
        yield Bin(*edges, len(own), float(own.mean()), (float(low), float(high)))


def _read(document: dict[str, Any]) -> MaskSensitivity:
    regions = tuple(
        RegionScores(
            str(region["picture"]),
            int(region["class_id"]),
            tuple(region["kinds"]),
            tuple(map(float, region["ious"])),
            tuple(map(float, region["probabilities"])),
            float(region["distance"]),
        )
        for region in document["regions"]
    )
    for region in regions:
        same = len(region.kinds) == len(region.ious) == len(region.probabilities)
        if not same or not 0 <= region.class_id < len(document["unseen"]):
            raise ValueError(f"a region of '{region.picture}' does not fit together")
    plain = {name: document[name] for name in ("method", "data", "subset", "fingerprints", "facts")}
    names, unseen = tuple(document["class_names"]), tuple(bool(flag) for flag in document["unseen"])
    pictures = tuple(PictureScores.of_plain(one, len(names)) for one in document.get("pictures", ()))
    return MaskSensitivity(**plain, class_names=names, unseen=unseen, regions=regions, pictures=pictures)
