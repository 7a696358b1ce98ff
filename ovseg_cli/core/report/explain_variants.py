"""Which conventions change what is predicted: names that compete, calibration, threshold of the background.

They do not follow from the counts of a result. They are read from other results of the same model on the same
pictures; where there is none, the row says which command makes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.results import Result

Knob = Literal["candidates", "penalty", "threshold"]
_READOUT = ("candidates", "seen_penalty", "background_threshold", "softmax_scale")  # of a protocol: what was read out
_GAMMA = "gamma"  # setting of one-stage methods, which calibrate before the sigmoid
_PUBLISHED_PENALTY = 0.1
_THRESHOLDS = {0.1: "SCLIP, NACLIP", 0.25: "ProxyCLIP, at most"}


@dataclass(frozen=True)
class Knobs:
    """What of a protocol can be turned without another model.

    Attributes:
        candidates: "all", "seen" or "unseen".
        penalty: Subtracted from the scores of seen classes.
        threshold: Probability below which a pixel becomes background; 0: none does.
    """

    candidates: str = "all"
    penalty: float = 0.0
    threshold: float = 0.0

    @classmethod
    def of(cls, result: Result) -> "Knobs":
        """Read a result's protocol."""
        protocol = result.protocol
        penalty = (protocol.get("seen_penalty") or 0.0) + (_settings(result).get(_GAMMA) or 0.0)
        threshold = float(protocol.get("background_threshold") or 0.0)
        return cls(str(protocol.get("candidates") or "all"), float(penalty), threshold)


@dataclass(frozen=True)
class Variant:
    """One knob turned.

    Attributes:
        knob: Which.
        value: To what.
        used_by: Papers and code that have it so.
    """

    knob: Knob
    value: str | float
    used_by: str

    def knobs(self, base: Knobs) -> Knobs:
        """All knobs of a base with this one turned."""
        return _turned(base, self.knob, self.value)

    @property
    def key(self) -> str:
        """Short name, for CSV and JSON."""
        return f"{self.knob}-{self.value:g}" if isinstance(self.value, float) else f"{self.knob}-{self.value}"


def _turned(knobs: Knobs, knob: Knob, value: Any) -> Knobs:
    changed: dict[str, Any] = {knob: value}
    return replace(knobs, **changed)


def wanted(result: Result, others: Sequence[Result], thresholds: Mapping[float, str] | None = None) -> list[Variant]:
    """List the variants of a result: those of the papers, and what was scored beside them.

    Args:
        result: Seen and unseen names and calibration need a class split, thresholds a background class.
        others: Further results; those of the same model and pictures are looked through for values of their own.
        thresholds: Published thresholds of this data set, and whose they are.
    """
    own, turned = Knobs.of(result), [Knobs.of(other) for other in others if is_sibling(result, other)]
    found: list[Variant] = []
    if any(result.unseen):
        found += [Variant("candidates", name, used) for name, used in _CANDIDATES.items() if name != own.candidates]
        found += _numbers("penalty", _penalties(own), own, turned)
    if result.background is not None:
        known = {0.0: "CAT-Seg, FC-CLIP: words for the background alone", **(thresholds or _THRESHOLDS)}
        found += _numbers("threshold", known, own, turned)
    return found


_CANDIDATES = {
    "all": "generalised protocol",
    "unseen": "zero-shot before the generalised protocol",
    "seen": "fully supervised training: the closed set",
}


def _penalties(own: Knobs) -> dict[float, str]:
    known = {
        0.0: "zsseg, FreeSeg, MAFT; ZegFormer on ADE",
        _PUBLISHED_PENALTY: "ZegFormer (COCO, VOC), ZegCLIP, TagCLIP",
    }
    return {value: used for value, used in known.items() if value != own.penalty}


def _numbers(knob: Knob, known: Mapping[float, str], own: Knobs, turned: Sequence[Knobs]) -> Iterator[Variant]:
    """Known values and those that were scored, other than the result's own, rising."""
    scored = {getattr(one, knob) for one in turned if _turned(one, knob, getattr(own, knob)) == own}
    for value in sorted((scored | set(known)) - {getattr(own, knob)}):
        yield Variant(knob, value, known.get(value, "scored here"))


def find(result: Result, others: Sequence[Result], variant: Variant) -> Result | None:
    """Return the result of a variant, with its pictures in the order of the first; of several the newest."""
    knobs = variant.knobs(Knobs.of(result))
    found = [other for other in others if is_sibling(result, other) and Knobs.of(other) == knobs]
    return max(found, key=lambda other: other.created).in_order(result.images) if found else None


def is_sibling(result: Result, other: Result) -> bool:
    """Whether two results are of the same model, pictures and names, whatever was read out."""
    return family_of(result) == family_of(other)


def family_of(result: Result) -> tuple[Any, ...]:
    """Return what results of the same model, pictures and names share; equal for siblings."""
    kept = {key: value for key, value in result.protocol.items() if key not in (*_READOUT, "method")}
    kept["method"] = {key: value for key, value in _settings(result).items() if key != _GAMMA}
    prints = [result.fingerprints.get(key) for key in ("data", "weights", "vocabulary")]
    who = result.method, result.data, result.subset, result.class_names, result.unseen, frozenset(result.images)
    return (*who, *prints, repr(sorted(kept.items())))


def has_gamma(result: Result) -> bool:
    """Whether the method calibrates by a setting of its own."""
    return _GAMMA in _settings(result)


def of_pixels(result: Result, classes: Sequence[int]) -> Result:
    """The same result with the pixels of some classes alone: all others are ignored."""
    table = result.counts
    kept = np.isin(table.cells // table.num_classes, list(classes))
    picture = np.repeat(np.arange(len(table)), np.diff(table.starts))
    lengths = np.bincount(picture[kept], minlength=len(table))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    counts = CountTable(table.names, starts, table.cells[kept], table.pixels[kept], table.num_classes)
    return replace(result, counts=counts)


def _settings(result: Result) -> Mapping[str, Any]:
    settings = result.protocol.get("method")
    return settings if isinstance(settings, Mapping) else {}
