"""Proposals from the label map, with noise that is controlled: for oracle studies, and for training on seen regions.

Every region gets a border that is bent by low-frequency noise; the rest, up to `max_masks`, are masks as a bad
generator makes them: unions of two regions, halves, shifted regions, ellipses anywhere. The masks of a picture are a
pure function of its pixels, its label, the settings and the seed.

Whose labels are seen is decided outside, by the label that is given: for training subsets that of the class split, in
which unseen pixels are unknown, so that no unseen region can leave its outline in a mask.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field

from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator
from ovseg_cli.core.proposals.entry import image_digest

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals

Mask = NDArray[np.bool_]


class GroundTruthConfig(GeneratorConfig):
    """Settings of proposals from the label map."""

    max_masks: int = Field(default=24, ge=1, description="At most so many masks a picture; large regions come first.")
    classes: Literal["auto", "seen", "all"] = Field(
        default="auto",
        description="Whose regions are used: those of seen classes only, or of all; auto is seen for training subsets "
        "of a data set with a class split, and all otherwise.",
    )
    regions: Literal["component", "class"] = Field(
        default="component", description="A region is a connected piece of a class, or all of its pixels."
    )
    noise: float = Field(
        default=1.0, ge=0, description="How far borders are bent: 0 not at all, 1 as the toy world's figures."
    )
    fill: bool = Field(
        default=True, description="Fill up with bad masks: unions of two regions, halves, shifted ones, ellipses."
    )
    min_area: int = Field(default=20, ge=1, description="Smaller regions and masks are left out, in pixels.")
    seed: int = Field(default=0, ge=0, description="Seed of the noise; each picture draws its own from it.")


class GroundTruth(ProposalGenerator):
    """Regions of the label map with noise."""

    name: ClassVar[str] = "ground-truth"
    title: ClassVar[str] = "Ground truth with noise"
    source: ClassVar[str] = "this project, for oracle studies"
    Config = GroundTruthConfig
    config: GroundTruthConfig
    needs_labels: ClassVar[bool] = True
    sources: ClassVar[dict[str, str]] = {
        "max_masks": "ours: the toy world's figures were measured with 24",
        "noise": "ours: 1 gives the toy world's regions a best IoU of about .77",
    }

    def generate(self, image: "Tensor", label: "Tensor | None" = None) -> "Proposals":
        """Make the masks of one picture.

        Args:
            image: (3, H, W) uint8 RGB; only its fingerprint is used, for the noise.
            label: (H, W) int64 train ids, -1 where no class is known or may be seen.

        Returns:
            0 to `max_masks` bool masks, (N, H, W); a score is the largest IoU with a region. None where the label
            holds no region.
        """
        import torch

        from ovseg_cli.core.types import Proposals

        if label is None:
            raise ValueError("ground-truth proposals need a label")
        truth = np.asarray(label)
        rng = np.random.default_rng([self.config.seed, int(image_digest(image)[:16], 16)])
        regions = self._regions(truth)
        masks = [_bent(region, self.config.noise, rng) for region in regions]
        if self.config.fill and regions:
            masks += self._bad_masks(regions, self.config.max_masks - len(masks), rng)
        kept = [mask for mask in masks if mask.sum() >= self.config.min_area]
        stack = np.stack(kept) if kept else np.zeros((0, *truth.shape), bool)
        scores = _best_overlaps(stack, regions)
        order = np.argsort(-scores, kind="stable")
        size = int(truth.shape[0]), int(truth.shape[1])
        return Proposals(torch.from_numpy(stack[order]), torch.from_numpy(scores[order].astype(np.float32)), size)

    def _regions(self, label: NDArray[np.int64]) -> list[Mask]:
        """Return the regions, largest first, at most `max_masks`."""
        from scipy import ndimage

        found: list[Mask] = []
        for train_id in np.unique(label[label >= 0]):
            member = label == train_id
            if self.config.regions == "class":
                found.append(member)
                continue
            pieces, count = ndimage.label(member, structure=np.ones((3, 3)))
            found += [pieces == number for number in range(1, count + 1)]
        large = [region for region in found if region.sum() >= self.config.min_area]
        return sorted(large, key=lambda region: -int(region.sum()))[: self.config.max_masks]

    def _bad_masks(self, regions: list[Mask], count: int, rng: Generator) -> list[Mask]:
        """Draw `count` masks that cut, join or miss the regions, each kind in turn."""
        kinds: tuple[Callable[[list[Mask], Generator], Mask], ...] = (_union, _half, _shifted, _ellipse)
        return [
            _bent(kinds[number % len(kinds)](regions, rng), self.config.noise, rng) for number in range(max(0, count))
        ]


_CELLS = 8  # of the grid that the noise is drawn on, along the long side
_REACH = 0.022  # of the long side: how far noise 1 moves a border point, standard deviation


def _bent(mask: Mask, noise: float, rng: Generator) -> Mask:
    """Move the points of a mask by smooth random distances."""
    from scipy import ndimage

    if noise == 0:
        return mask
    height, width = mask.shape
    cell = max(height, width) / _CELLS
    grid = rng.normal(0, noise * _REACH * max(height, width), (2, int(height / cell) + 4, int(width / cell) + 4))
    places = np.mgrid[0:height, 0:width]
    at = places / cell + 1
    shift = np.stack([ndimage.map_coordinates(part, at, order=3) for part in grid])
    row, column = np.rint(places + shift).astype(np.int64)
    return mask[row.clip(0, height - 1), column.clip(0, width - 1)]


def _pick(regions: list[Mask], rng: Generator) -> Mask:
    return regions[int(rng.integers(len(regions)))]


def _union(regions: list[Mask], rng: Generator) -> Mask:
    """Return two regions as one; where there is one only, with an ellipse."""
    if len(regions) == 1:
        return regions[0] | _ellipse(regions, rng)
    first, second = rng.choice(len(regions), 2, replace=False)
    return regions[first] | regions[second]


def _half(regions: list[Mask], rng: Generator) -> Mask:
    """Cut a region through its center at a random angle."""
    region = _pick(regions, rng)
    rows, columns = np.nonzero(region)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : region.shape[0], 0 : region.shape[1]]
    return region & ((y - rows.mean()) * np.sin(angle) + (x - columns.mean()) * np.cos(angle) > 0)


def _shifted(regions: list[Mask], rng: Generator) -> Mask:
    """Move a region by a fifth to a half of the square root of its area, in any direction."""
    region = _pick(regions, rng)
    distance, angle = rng.uniform(0.2, 0.5) * np.sqrt(region.sum()), rng.uniform(0, 2 * np.pi)
    down, right = round(distance * np.sin(angle)), round(distance * np.cos(angle))
    moved = np.zeros_like(region)
    height, width = region.shape
    target = (slice(max(0, down), min(height, height + down)), slice(max(0, right), min(width, width + right)))
    origin = (slice(max(0, -down), min(height, height - down)), slice(max(0, -right), min(width, width - right)))
    moved[target] = region[origin]
    return moved


def _ellipse(regions: list[Mask], rng: Generator) -> Mask:
    """Draw an ellipse anywhere, with axes of a tenth to a third of the picture's long side."""
    height, width = regions[0].shape
    long_side = max(height, width)
    y, x = np.mgrid[0:height, 0:width] - np.array([rng.uniform(0, height), rng.uniform(0, width)])[:, None, None]
    angle, (first, second) = rng.uniform(0, np.pi), rng.uniform(0.1, 0.33, 2) * long_side
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (along / first) ** 2 + (across / second) ** 2 <= 1


def _best_overlaps(masks: Mask, regions: list[Mask]) -> NDArray[np.float64]:
    """Return the largest IoU of each mask with a region, (N,)."""
    if not len(masks):
        return np.zeros(0)
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    truth = np.stack(regions).reshape(len(regions), -1).astype(np.float32)
    common = (flat @ truth.T).astype(np.float64)
    union = flat.sum(1, dtype=np.float64)[:, None] + truth.sum(1, dtype=np.float64)[None] - common
    return (common / union).max(1)
