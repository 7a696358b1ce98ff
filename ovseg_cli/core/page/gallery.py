"""Pictures with what each model finds in them, made anew as they were scored; as many as a page can carry."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.data.palette import spec_colors
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.page.choosing import choose
from ovseg_cli.core.page.document import Gallery, GalleryPicture, Swatch
from ovseg_cli.core.page.drawings import draw_labels, draw_photo
from ovseg_cli.core.page.models import label_again, scored_pictures
from ovseg_cli.core.page.rows import Member, Row, place_of
from ovseg_cli.core.report.compare_grid import RULE, score
from ovseg_cli.core.report.labelling import Labelled
from ovseg_cli.core.report.legend import class_areas, order_by_area, rgb
from ovseg_cli.core.report.painting import resize_image, resize_label, view_size
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    import torch

SIDES = (640, 512, 416, 320, 256, 192)
"""Longest side of a picture in pixels: the first at which all of a page's pictures fit into `BUDGET`."""
BUDGET = 3_300_000
"""Bytes of all pictures of a page; base64 makes a third more of them, so that the page stays below 5 MB."""

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


def galleries_of(
    rows: Sequence[Row],
    limit: int,
    wanted: Sequence[str],
    device: "torch.device",
    folders: Folders,
    reporter: Reporter,
) -> tuple[list[Gallery], list[str]]:
    """Make a gallery for each data set of the rows.

    Args:
        rows: Rows of the table of scores; of several seeds the first is shown.
        limit: Pictures of each data set.
        wanted: Names of pictures that are shown whatever the rule.
        device: Where models run.
        folders: Where data, runs and caches lie.
        reporter: Receives progress.

    Returns:
        The galleries, and why those that lack could not be made.

    Raises:
        UsageError: A wanted picture was not scored.
    """
    groups: dict[object, list[Row]] = {}
    for row in rows:
        result = row.first.result
        key = (result.data, result.subset, result.class_names, result.unseen, result.fingerprints.get("data"))
        groups.setdefault(key, []).append(row)
    galleries, lacking = [], []
    for same in groups.values():
        try:
            galleries.append(_gallery(same, limit, wanted, device, folders, reporter, BUDGET // len(groups)))
        except NoPictures as error:
            lacking.append(error.message)
    return galleries, lacking


class NoPictures(OvsegError):
    """A gallery cannot be made; the page is made without it."""


def _gallery(
    rows: Sequence[Row],
    limit: int,
    wanted: Sequence[str],
    device: "torch.device",
    folders: Folders,
    reporter: Reporter,
    budget: int,
) -> Gallery:
    first = rows[0].first.result
    chosen = choose([row.first.result.counts for row in rows], limit, wanted)
    try:
        choice, data = scored_pictures(first, chosen.names, folders)
    except OvsegError as error:
        raise NoPictures(f"{place_of(first)}: there is no gallery. {error}") from error
    labelled, notes = {}, []
    for row in rows:
        try:
            labelled[row.label] = label_again(row.first, choice, data, device, folders, reporter)
        except OvsegError as error:
            notes.append(f"{row.label} is not shown: {error}")
            continue
        notes += _what_differs(row.first, data.names, labelled[row.label])
    if not labelled:
        raise NoPictures(f"{place_of(first)}: there is no gallery. {' '.join(notes)}")
    background = (
        first.background if any(row.first.result.protocol.get("background_threshold") for row in rows) else None
    )
    look = Look(first.class_names, spec_colors(choice.spec), _sets(first.unseen, background))
    pictures, side = _fitting(_scenes(data, list(labelled.values())), look, budget)
    said = [chosen.rule, RULE, *notes]
    if side < max(max(size) for size in data.sizes):
        said.append(f"Shown with at most {side} pixels a side; scores are those of whole pictures.")
    return Gallery(place_of(first), tuple(labelled), tuple(pictures), tuple(said))


def _what_differs(member: Member, names: Sequence[str], labelled: Labelled) -> list[str]:
    """Compare what is drawn with what was counted when the model was scored."""
    stored = member.result.counts.in_order(names)
    moved = [
        int(np.abs(counts.matrix() - stored[i].matrix()).sum()) / 2 / max(1, int(counts.pixels.sum()))
        for i, counts in enumerate(labelled.counts)
    ]
    if not any(moved):
        return []
    where = member.result.environment.get("device_name", "another machine")
    differ = sum(share > 0 for share in moved)
    return [
        f"{member.label}: {differ} of {len(names)} label maps are not pixel for pixel those that were scored "
        f"(on {where}); at most {100 * max(moved):.2g} % of the pixels of a picture have another class."
    ]


def _scenes(data: SegmentationData, labelled: Sequence[Labelled]) -> list[Scene]:
    """Put pictures and label maps together, by falling disagreement."""
    scenes = []
    for i, name in enumerate(data.names):
        truth = data.label(i)
        assert truth is not None, "pictures that were scored have labels"
        scores = tuple(score([one.counts[i]]) for one in labelled)
        scenes.append(Scene(name, data.image(i), truth, tuple(one.maps[i] for one in labelled), scores))
    return sorted(scenes, key=lambda scene: -disagreement(scene, data.spec.num_classes))


def disagreement(scene: Scene, num_classes: int) -> float:
    """Return on which share of its labelled pixels two models differ, percent, averaged over all pairs of them.

    Of one model: on which it is wrong.
    """
    known = (scene.truth >= 0) & (scene.truth < num_classes)
    pairs = list(combinations(scene.maps, 2)) or [(scene.maps[0], scene.truth)]
    differ = sum(int(((one != other) & known).sum()) for one, other in pairs)
    return 100 * differ / (len(pairs) * max(1, int(known.sum())))


def _fitting(scenes: Sequence[Scene], look: Look, budget: int) -> tuple[list[GalleryPicture], int]:
    """Encode all pictures as large as the budget allows; returns them and their longest side."""
    for side in SIDES:
        pictures = [_drawn(scene, look, side) for scene in scenes]
        if sum(_size(picture) for picture in pictures) <= budget:
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


def _sets(unseen: Sequence[bool], background: int | None) -> tuple[str | None, ...]:
    """Seen or unseen in the class split; a background that a threshold makes is no class of a training."""
    if not any(unseen):
        return (None,) * len(unseen)
    return tuple(None if i == background else "unseen" if flag else "seen" for i, flag in enumerate(unseen))


def _size(picture: GalleryPicture) -> int:
    return sum(len(drawing.data) for drawing in (picture.image, picture.truth, *picture.maps))
