"""Proposals without a network: superpixels at several scales, merged into a hierarchy.

Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", IJCV 2004, at several scales, and SLIC
(Achanta et al., TPAMI 2012), both as scikit-image has them. Neighbors of similar color are merged, one pair at a time,
as selective search does (Uijlings et al., IJCV 2013), here by Ward's criterion on the mean color alone; every region
on the way is a candidate. Near-duplicates go, and what stands out most from its surroundings comes first.

Nothing is trained, no label is looked at, and the same picture always gives the same masks.
"""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ovseg_cli.core.proposals import region_tree
from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals


class SuperpixelsConfig(GeneratorConfig):
    """Settings of superpixels."""

    max_masks: int = Field(default=64, ge=1, description="At most so many masks a picture; the best scores are kept.")
    scales: tuple[float, ...] = Field(
        default=(200.0, 600.0, 1800.0), description="Felzenszwalb's scales: larger ones give larger regions."
    )
    sigmas: tuple[float, ...] = Field(
        default=(1.0, 1.2, 1.2), description="Width of the blur before each scale, in pixels of the working size."
    )
    min_sizes: tuple[int, ...] = Field(
        default=(60, 100, 150), description="Smallest region of each scale, in pixels of the working size."
    )
    slic_segments: tuple[int, ...] = Field(
        default=(48,), description="About how many regions each SLIC partition has; an empty list leaves SLIC out."
    )
    slic_compactness: float = Field(
        default=10.0, gt=0, description="SLIC: how much nearness counts against color; large values give squares."
    )
    merge: bool = Field(
        default=True, description="Merge the regions of the finest scale and of SLIC into larger ones, pair by pair."
    )
    overlap: float = Field(
        default=0.9, gt=0, le=1, description="IoU above which the weaker of two masks counts as a duplicate."
    )
    area_weight: float = Field(
        default=0.3,
        ge=0,
        description="A score is contrast times share of the picture to this power: 0 puts small spots first.",
    )
    min_area: int = Field(default=60, ge=1, description="Smallest mask, in pixels of the working size.")
    working_side: int = Field(
        default=256,
        ge=16,
        description="Larger pictures are scaled down to this long side first, and the masks are scaled up again.",
    )

    @model_validator(mode="after")
    def _scales_are_complete(self) -> "SuperpixelsConfig":
        if not len(self.scales) == len(self.sigmas) == len(self.min_sizes):
            raise ValueError(
                f"scales, sigmas and min_sizes have {len(self.scales)}, {len(self.sigmas)} and {len(self.min_sizes)} "
                "values; each scale needs one of each"
            )
        if not self.scales and not self.slic_segments:
            raise ValueError("scales and slic_segments are both empty, so there is nothing to cut the picture with")
        if any(scale <= 0 for scale in self.scales) or any(count < 1 for count in self.slic_segments):
            raise ValueError("scales and slic_segments must be positive")
        return self


class Superpixels(ProposalGenerator):
    """Superpixels and their unions."""

    name: ClassVar[str] = "superpixels"
    title: ClassVar[str] = "Superpixels"
    source: ClassVar[str] = "Felzenszwalb and Huttenlocher, IJCV 2004; SLIC, Achanta et al., TPAMI 2012"
    Config = SuperpixelsConfig
    config: SuperpixelsConfig
    sources: ClassVar[dict[str, str]] = {
        "scales": "ours: the toy world's figures were measured with 200, 600 and 1800",
        "sigmas": "ours: as scales",
        "min_sizes": "ours: as scales",
        "overlap": "ours: as scales",
        "slic_segments": "ours: adds .02 to the best IoU of a region on the toy world's tuning scenes",
        "area_weight": "ours: AR@10 on the toy world's tuning scenes rises from .18 to .34, on CamVid from .04 to .10",
        "slic_compactness": "code: scikit-image's default",
    }

    def generate(self, image: "Tensor", label: "Tensor | None" = None) -> "Proposals":
        """Make the masks of one picture.

        Args:
            image: (3, H, W) uint8 RGB.
            label: Not looked at.

        Returns:
            0 to `max_masks` bool masks, (N, H, W), best score first; scores from 0 to 1.
        """
        import torch

        from ovseg_cli.core.types import Proposals

        height, width = int(image.shape[-2]), int(image.shape[-1])
        masks, scores = self._candidates(self._working_picture(image))
        masks = _resized(masks, (height, width))
        return Proposals(torch.from_numpy(masks), torch.from_numpy(scores.astype(np.float32)), (height, width))

    def _working_picture(self, image: "Tensor") -> NDArray[np.float64]:
        from skimage.transform import resize

        picture = np.asarray(image).transpose(1, 2, 0).astype(np.float64) / 255
        height, width = picture.shape[:2]
        shrink = self.config.working_side / max(height, width)
        if shrink >= 1:
            return picture
        return resize(picture, (max(1, round(height * shrink)), max(1, round(width * shrink)), 3), anti_aliasing=True)

    def _candidates(self, picture: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return masks at working size and their scores, best first."""
        from skimage.color import rgb2lab

        fine, coarse = self._partitions(picture)
        atoms = region_tree.Atoms.of([*fine, *coarse], rgb2lab(picture))
        grow = region_tree.merge_tree if self.config.merge else lambda _, part: region_tree.regions(part)
        found = [grow(atoms, part) for part in atoms.parts[: len(fine)]]
        found += [region_tree.regions(part) for part in atoms.parts[len(fine) :]]
        members = np.concatenate(found)
        members = members[members @ atoms.sizes >= self.config.min_area]
        if not len(members):
            return np.zeros((0, *picture.shape[:2]), bool), np.zeros(0)
        areas = members @ atoms.sizes / atoms.map.size
        scores = region_tree.contrasts(atoms, members) * areas**self.config.area_weight
        kept = region_tree.distinct(atoms, members, scores, self.config.overlap, self.config.max_masks)
        return members[kept][:, atoms.map], scores[kept]

    def _partitions(self, picture: NDArray[np.float64]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        """Return the partitions that are merged further, and those whose regions are taken as they are."""
        from skimage.segmentation import felzenszwalb, slic

        config = self.config
        scales = zip(config.scales, config.sigmas, config.min_sizes, strict=True)
        graphs = [felzenszwalb(picture, scale=k, sigma=s, min_size=m) for k, s, m in scales]
        slics = [
            slic(picture, n_segments=n, compactness=config.slic_compactness, start_label=0)
            for n in config.slic_segments
        ]
        return [*graphs[:1], *slics], graphs[1:]


def _resized(masks: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bring masks to a size by nearest neighbor; pixel centers are kept in place."""
    if masks.shape[1:] == size:
        return np.ascontiguousarray(masks)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, masks.shape[1:], strict=True)
    )
    return np.ascontiguousarray(masks[:, rows[:, None], columns[None, :]])
