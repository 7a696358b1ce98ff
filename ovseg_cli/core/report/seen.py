"""Which classes did a model know: borders of regions and of legend swatches, black for seen and red for unseen ones.

As the first figure of TagCLIP's paper draws them. Where nobody knows which classes were seen there are no borders.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ovseg_cli.core.report.legend import Color
from ovseg_cli.core.report.painting import Borders

SEEN, UNSEEN = (0, 0, 0), (255, 0, 0)


@dataclass(frozen=True)
class SeenClasses:
    """What is known of K classes.

    Attributes:
        flags: True seen, False unseen; None for what is no class of a training: a background made by threshold.
        where: Who says so, to follow "seen" and "unseen": "in training", "in the class split".
    """

    flags: tuple[bool | None, ...]
    where: str

    @classmethod
    def of_split(cls, unseen: Sequence[bool]) -> "SeenClasses":
        """What a class split says, whatever a model was trained on."""
        return cls(tuple(not flag for flag in unseen), "in the class split")

    @property
    def borders(self) -> Borders:
        """Border colour by class id."""
        return {i: SEEN if flag else UNSEEN for i, flag in enumerate(self.flags) if flag is not None}

    @property
    def meanings(self) -> dict[Color, str]:
        """What the colours mean, for the legend."""
        return {SEEN: f"black border: seen {self.where}", UNSEEN: f"red border: unseen {self.where}"}
