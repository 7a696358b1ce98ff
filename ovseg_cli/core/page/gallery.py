"""Pictures with what each model finds in them, chosen from stored counts and made anew as they were scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.data.palette import spec_colors
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.page.choosing import choose
from ovseg_cli.core.page.document import Gallery
from ovseg_cli.core.page.models import label_again, scored_pictures
from ovseg_cli.core.page.rows import Member, Row, place_of
from ovseg_cli.core.page.scenes import Look, Scene, disagreement, draw_fitting, seen_or_unseen
from ovseg_cli.core.report.compare_grid import RULE, score
from ovseg_cli.core.report.labelling import Labelled
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    import torch

    from ovseg_cli.core.data.splits import DataChoice

ROUNDING = 0.001
"""Share of a picture's pixels that may change their class where pictures are predicted in other company."""


@dataclass(frozen=True)
class Making:
    """What pictures are made with.

    Attributes:
        limit: Pictures of each data set.
        wanted: Names of pictures that are shown whatever the rule.
        budget: Bytes of all pictures together.
        device: Where models run.
        folders: Where data, runs and caches lie.
        reporter: Receives progress.
    """

    limit: int
    wanted: tuple[str, ...]
    budget: int
    device: "torch.device"
    folders: Folders
    reporter: Reporter


class NoPictures(OvsegError):
    """A gallery cannot be made; the page is made without it."""


def galleries_of(rows: Sequence[Row], making: Making) -> tuple[list[Gallery], list[str]]:
    """Make a gallery for each data set of the rows; of several seeds the first is shown.

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
            galleries.append(_gallery(same, making, making.budget // len(groups)))
        except NoPictures as error:
            lacking.append(error.message)
    return galleries, lacking


def _gallery(rows: Sequence[Row], making: Making, budget: int) -> Gallery:
    first = rows[0].first.result
    chosen = choose([row.first.result.counts for row in rows], making.limit, making.wanted)
    try:
        choice, data = scored_pictures(first, chosen.names, making.folders)
    except OvsegError as error:
        raise NoPictures(f"{place_of(first)}: there is no gallery. {error}") from error
    labelled, notes = _labelled(rows, choice, data, making)
    if not labelled:
        raise NoPictures(f"{place_of(first)}: there is no gallery. {' '.join(notes)}")
    background = (
        first.background if any(row.first.result.protocol.get("background_threshold") for row in rows) else None
    )
    look = Look(first.class_names, spec_colors(choice.spec), seen_or_unseen(first.unseen, background))
    pictures, side = draw_fitting(_scenes(data, list(labelled.values())), look, budget)
    said = [chosen.rule, RULE, *notes]
    if side < max(max(size) for size in data.sizes):
        said.append(f"Shown with at most {side} pixels a side; scores are those of whole pictures.")
    return Gallery(place_of(first), tuple(labelled), tuple(pictures), tuple(said))


def _labelled(
    rows: Sequence[Row], choice: "DataChoice", data: SegmentationData, making: Making
) -> tuple[dict[str, Labelled], list[str]]:
    """Let each model label the pictures, one model at a time; and say which cannot, or not as they did."""
    labelled, moved, notes = {}, {}, []
    for row in rows:
        try:
            found = label_again(row.first, choice, data, making.device, making.folders, making.reporter)
        except OvsegError as error:
            notes.append(f"{row.label} is not shown: {error}")
            continue
        labelled[row.label] = found
        moved[row.label] = _most_moved(row.first, data.names, found)
    return labelled, [*notes, *_of_moved(moved)]


def _most_moved(member: Member, names: Sequence[str], labelled: Labelled) -> float:
    """Compare what is drawn with what was scored: the share of pixels, 0 to 1, that have another class by the counts.

    Of all pictures that of the worst.
    """
    stored = member.result.counts.in_order(names)
    return max(
        int(np.abs(counts.matrix() - stored[i].matrix()).sum()) / 2 / max(1, int(counts.pixels.sum()))
        for i, counts in enumerate(labelled.counts)
    )


def _of_moved(moved: Mapping[str, float]) -> list[str]:
    """Say whose label maps are not those that were scored: by rounding, or by more."""
    rounded = {label: share for label, share in moved.items() if 0 < share <= ROUNDING}
    notes = [
        f"{label}: these label maps are not those that were scored, on up to {100 * share:.1f} % of a picture's "
        "pixels. Weights and names are the same: was another device used, or another version?"
        for label, share in moved.items()
        if share > ROUNDING
    ]
    if rounded:
        most = f"on up to {100 * max(rounded.values()):.1g} % of a picture's pixels"
        notes.append(f"Rounded otherwise than when they were scored, {most}: {', '.join(rounded)}.")
    return notes


def _scenes(data: SegmentationData, labelled: Sequence[Labelled]) -> list[Scene]:
    """Put pictures and label maps together, by falling disagreement."""
    scenes = []
    for i, name in enumerate(data.names):
        truth = data.label(i)
        assert truth is not None, "pictures that were scored have labels"
        scores = tuple(score([one.counts[i]]) for one in labelled)
        scenes.append(Scene(name, data.image(i), truth, tuple(one.maps[i] for one in labelled), scores))
    return sorted(scenes, key=lambda scene: -disagreement(scene, data.spec.num_classes))
