"""How large are pictures on a page? As large as all of them together may be; label maps, legends, disagreement."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.page.document import GalleryPicture, Swatch
from ovseg_cli.core.page.drawings import draw_labels, draw_photo
from ovseg_cli.core.report.legend import class_areas, order_by_area, rgb
from ovseg_cli.core.report.painting import resize_image, resize_label, view_size

SIDES = (640, 512, 416, 320, 256, 192)
"""Longest side of a picture in pixels: the first at which all of a page's pictures fit into their budget."""
PAGE = 4_700_000
"""Bytes that a page may have, with room for what stands around its pictures, so that it stays below 5 MB."""
LEAST = 750_000
"""Bytes that its pictures may have however much else is on it, as the tables of 847 classes are."""

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Scene:
    """One picture at full size.

    Attributes:
        name: Of the picture.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) class ids or the ignore label.
        maps: One a model, (H, W) class ids.
        scores: One a model, percent or NaN.
    """

    name: str
    image: NDArray[np.uint8]
    truth: Labels
    maps: tuple[Labels, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Look:
    """How classes are shown.

    Attributes:
        names: K class names.
        colors: (K, 3) uint8.
        sets: K times "seen", "unseen", or None where nobody knows.
    """

    names: tuple[str, ...]
    colors: NDArray[np.uint8]
    sets: tuple[str | None, ...]


def disagreement(scene: Scene, num_classes: int) -> float:
    """Return on which share of its labelled pixels two models differ, percent, averaged over all pairs of them.

    Of one model: on which it is wrong.
    """
    known = (scene.truth >= 0) & (scene.truth < num_classes)
    pairs = list(combinations(scene.maps, 2)) or [(scene.maps[0], scene.truth)]
    differ = sum(int(((one != other) & known).sum()) for one, other in pairs)
    return 100 * differ / (len(pairs) * max(1, int(known.sum())))


def budget_beside(other: int) -> int:
    """Return how many bytes all pictures of a page may have beside those of its text: base64 makes 4 of 3."""
    return max(LEAST, (PAGE - other) * 3 // 4)


def draw_fitting(scenes: Sequence[Scene], look: Look, budget: int) -> tuple[list[GalleryPicture], int]:
    """Encode all pictures as large as the budget allows; returns them and their longest side."""
    for side in SIDES:
        pictures = [_drawn(scene, look, side) for scene in scenes]
        if sum(size_of(picture) for picture in pictures) <= budget:
            break
    return pictures, side


def _drawn(scene: Scene, look: Look, side: int) -> GalleryPicture:
    height, width = view_size(scene.truth.shape, 1, side)
    truth, *maps = (resize_label(one, (height, width)) for one in (scene.truth, *scene.maps))
    return GalleryPicture(
        name=scene.name,
        width=width,
        height=height,
        image=draw_photo(resize_image(scene.image, (height, width))),
        truth=draw_labels(truth, look.colors),
        maps=tuple(draw_labels(one, look.colors) for one in maps),
        scores=tuple(None if np.isnan(percent) else percent for percent in scene.scores),
        disagreement=disagreement(scene, len(look.names)),
        legend=_legend(scene, look),
    )


def _legend(scene: Scene, look: Look) -> tuple[Swatch, ...]:
    """The classes of ground truth and label maps, largest area first."""
    areas = class_areas([scene.truth, *scene.maps], len(look.names))
    return tuple(Swatch(look.names[i], rgb(look.colors[i]), look.sets[i]) for i in order_by_area(areas))


def seen_or_unseen(unseen: Sequence[bool], background: int | None) -> tuple[str | None, ...]:
    """Seen or unseen in the class split; a background that a threshold makes is no class of a training."""
    if not any(unseen):
        return (None,) * len(unseen)
    return tuple(None if i == background else "unseen" if flag else "seen" for i, flag in enumerate(unseen))


def size_of(picture: GalleryPicture) -> int:
    """Bytes of all that is drawn of a picture."""
    return sum(len(drawing.data) for drawing in (picture.image, picture.truth, *picture.maps))
