"""From right to wrong: masks of a region that are changed step by step, so that their IoU with it runs from 1 to 0.

Kinds of change; all but the last are drawn once for each of some steps of IoU, so that every IoU occurs:

* *region*: the region itself, IoU 1.
* *shrunk*: its inner pixels only (eroded), all that is in the mask is right, but not everything is in it.
* *grown*: the region and what lies nearest to it (dilated): all is in the mask, and more.
* *shifted*: the region moved in some direction.
* *exchanged*: a part of the region is replaced by as many pixels of another region, so that the area stays the same.
* *complement*: everything but the region, IoU 0.

Masks never cover pixels without a class: nobody knows what those hold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
KINDS = ("region", "shrunk", "grown", "shifted", "exchanged", "complement")
STEPS = 5
VERSION = "series-1"
"""Changes when the masks that are drawn change: measurements of another series are made anew."""
_DISTANCES = 48  # at most so many distances are tried for a shift


@dataclass(frozen=True)
class MaskSeries:
    """Masks of one region, no two alike, none empty.

    Attributes:
        masks: (N, H, W) bool, the region itself first.
        kinds: N names of `KINDS`.
        ious: (N,) float64, IoU with the region.
    """

    masks: Mask
    kinds: tuple[str, ...]
    ious: NDArray[np.float64]


def mask_series(region: Mask, label: NDArray[np.int64], valid: Mask, rng: Generator, steps: int = STEPS) -> MaskSeries:
    """Draw the series of one region.

    Args:
        region: (H, W) bool, at least one pixel, all valid.
        label: (H, W) train ids: tells the other regions apart.
        valid: (H, W) bool, pixels that have a class.
        rng: Source of directions, of the other region, and of the IoU inside each step.
        steps: For each kind of change one mask is drawn for each of so many equal parts of 0 to 1.
    """
    drawn: list[tuple[str, Mask]] = [("region", region)]
    inner, outer = _by_depth(region), _by_distance(region, valid)
    angle, other = rng.uniform(0, 2 * np.pi), _by_other(region, label, valid, rng)
    along, moved = _by_direction(region, angle), _moved(region, valid, rng.uniform(0, 2 * np.pi))
    for target in _targets(steps, rng):
        drawn.append(("shrunk", _of(inner[: _share(target, inner)], region.shape)))
        growth = round(len(inner) * (1 / max(target, 1 / region.size) - 1))
        drawn.append(("grown", region | _of(outer[:growth], region.shape)))
        drawn.append(("shifted", moved[int(np.abs(overlaps(moved, region) - target).argmin())]))
        kept = _share(2 * target / (1 + target), along)
        both = np.concatenate([along[:kept], other[: len(along) - kept]])
        drawn.append(("exchanged", _of(both, region.shape)))
    drawn.append(("complement", valid & ~region))
    return _distinct(drawn, region)


def overlaps(masks: Mask, region: Mask) -> NDArray[np.float64]:
    """Return (N,) IoU of masks (N, H, W) with a region (H, W); 0 where both are empty."""
    common = (masks & region).sum((1, 2), dtype=np.float64)
    union = (masks | region).sum((1, 2), dtype=np.float64)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _targets(steps: int, rng: Generator) -> NDArray[np.float64]:
    """One IoU in each of `steps` equal parts of 0 to 1, the highest first."""
    places = np.arange(steps - 1, -1, -1)
    return np.asarray((places + rng.uniform(0, 1, steps)) / steps, dtype=np.float64)


def _share(part: float, pixels: NDArray[np.int64]) -> int:
    return max(1, round(part * len(pixels)))


def _of(pixels: NDArray[np.int64], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    mask.flat[pixels] = True
    return mask


def _ordered(mask: Mask, key: NDArray[np.float64]) -> NDArray[np.int64]:
    """Flat places of a mask's pixels, those of the smallest key first."""
    places = np.flatnonzero(mask)
    return places[np.argsort(key.ravel()[places], kind="stable")]


def _by_depth(region: Mask) -> NDArray[np.int64]:
    """The region's pixels, those farthest from its border first; the picture's edge is a border too."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    return _ordered(region, -depth)


def _by_distance(region: Mask, valid: Mask) -> NDArray[np.int64]:
    """Pixels outside of the region, the nearest to it first."""
    from scipy import ndimage

    return _ordered(valid & ~region, ndimage.distance_transform_edt(~region))


def _by_direction(region: Mask, angle: float) -> NDArray[np.int64]:
    """The region's pixels from one side to the other."""
    y, x = np.mgrid[0 : region.shape[0], 0 : region.shape[1]]
    return _ordered(region, y * np.sin(angle) + x * np.cos(angle))


def _by_other(region: Mask, label: NDArray[np.int64], valid: Mask, rng: Generator) -> NDArray[np.int64]:
    """Pixels outside of the region: those around a point of another region first, then those of further regions."""
    outside = valid & ~region
    places = np.flatnonzero(outside)
    if not len(places):
        return places
    centre = places[int(rng.integers(len(places)))]
    row, column = divmod(int(centre), region.shape[1])
    y, x = np.mgrid[0 : region.shape[0], 0 : region.shape[1]]
    distance = np.hypot(y - row, x - column)
    far = float(np.hypot(*region.shape)) * (label != label.flat[centre])
    return _ordered(outside, distance + far)


def _moved(region: Mask, valid: Mask, angle: float) -> Mask:
    """Return (D, H, W): the region moved by growing distances, from a pixel on until it has left its own place."""
    rows, columns = np.nonzero(region)
    sine, cosine = float(np.sin(angle)), float(np.cos(angle))
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    reach = min(height / max(abs(sine), 1e-9), width / max(abs(cosine), 1e-9))
    distances = np.linspace(1, max(1, reach), min(_DISTANCES, int(reach) + 1))
    return np.stack([shifted(region, round(d * sine), round(d * cosine)) & valid for d in distances])


def shifted(mask: Mask, down: int, right: int) -> Mask:
    """Return a mask moved by some pixels; what leaves the picture is lost."""
    height, width = mask.shape
    moved = np.zeros_like(mask)
    if abs(down) < height and abs(right) < width:
        target = (slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right)))
        origin = (slice(max(0, -down), height + min(0, -down)), slice(max(0, -right), width + min(0, -right)))
        moved[target] = mask[origin]
    return moved


def _distinct(drawn: list[tuple[str, Mask]], region: Mask) -> MaskSeries:
    """Leave out empty masks and those that were drawn before."""
    kept: dict[bytes, tuple[str, Mask]] = {}
    for kind, mask in drawn:
        if mask.any():
            kept.setdefault(mask.tobytes(), (kind, mask))
    chosen = list(kept.values())
    masks = np.stack([mask for _, mask in chosen])
    return MaskSeries(masks, tuple(kind for kind, _ in chosen), overlaps(masks, region))
