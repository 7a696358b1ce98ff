"""How partitions of a picture become overlapping candidate regions: a merge tree, shared atoms, and no near-duplicates.

Every candidate is a union of atoms, the pieces into which all partitions together cut the picture; areas, overlaps and
contrasts are then small matrix products over atoms instead of sums over pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Atoms:
    """The common refinement of several partitions.

    Attributes:
        map: (H, W) int64, the atom of each pixel, from 0.
        parts: For each partition the region of each atom, (A,) int64 from 0.
        sizes: Pixels of each atom, (A,).
        sums: Sum of the colors of each atom, (A, 3).
        squares: Sum of the squared color components of each atom, (A,).
        borders: (A, A) how many neighboring pixel pairs two atoms share; symmetric, zero on the diagonal.
    """

    map: NDArray[np.int64]
    parts: tuple[NDArray[np.int64], ...]
    sizes: NDArray[np.float64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    borders: NDArray[np.float32]

    @classmethod
    def of(cls, partitions: Sequence[NDArray[np.integer]], colors: NDArray[np.floating]) -> "Atoms":
        """Cut a picture by all partitions, each (H, W) integers; colors are (H, W, 3)."""
        joint = np.zeros(partitions[0].shape, np.int64)
        for partition in partitions:
            _, ids = np.unique(joint * (int(partition.max()) + 1) + partition, return_inverse=True)
            joint = ids.reshape(joint.shape)
        count = int(joint.max()) + 1
        parts = []
        for partition in partitions:
            part = np.zeros(count, np.int64)
            part[joint.ravel()] = np.unique(partition, return_inverse=True)[1].ravel()
            parts.append(part)
        flat, values = joint.ravel(), colors.reshape(-1, 3).astype(np.float64)
        sums = np.stack([np.bincount(flat, values[:, c], count) for c in range(3)], axis=1).astype(np.float64)
        squares = np.bincount(flat, (values**2).sum(1), count).astype(np.float64)
        sizes = np.bincount(flat, minlength=count).astype(np.float64)
        return cls(joint, tuple(parts), sizes, sums, squares, _borders(joint, count))


def _borders(labels: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    across = np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()])
    down = np.stack([labels[:-1].ravel(), labels[1:].ravel()])
    first, second = np.concatenate([across, down], axis=1)
    shared = np.bincount(first * count + second, minlength=count * count).reshape(count, count)
    shared = shared + shared.T
    np.fill_diagonal(shared, 0)
    return shared.astype(np.float32)


def merge_tree(atoms: Atoms, part: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Merge the regions of a partition, the most similar neighbors first, until one is left or none touch.

    Similar is what adds least to the sum of squared color distances to the regions' means (Ward's criterion), so that
    of equally similar neighbors small ones go first.

    Args:
        atoms: The picture.
        part: Region of each atom, (A,).

    Returns:
        (R + merges, A): the regions themselves, then every union on the way.
    """
    count = int(part.max()) + 1
    inside = np.zeros((count, len(part)), np.float32)
    inside[part, np.arange(len(part))] = 1
    sizes, sums = inside @ atoms.sizes, inside @ atoms.sums
    borders = inside @ atoms.borders @ inside.T
    touching = borders > 0
    np.fill_diagonal(touching, False)
    costs = np.full((count, count), np.inf)
    for i in range(count):
        costs[i, touching[i]] = _merge_costs(i, np.flatnonzero(touching[i]), sizes, sums)
    nodes, members = [*inside.astype(bool)], inside.astype(bool)
    for _ in range(count - 1):
        best = int(costs.argmin())
        i, j = divmod(best, count)
        if not np.isfinite(costs[i, j]):
            break
        members[i] |= members[j]
        sizes[i] += sizes[j]
        sums[i] += sums[j]
        touching[i] |= touching[j]
        touching[:, i] |= touching[:, j]
        touching[j] = touching[:, j] = False
        touching[i, i] = False
        costs[j] = costs[:, j] = costs[i] = costs[:, i] = np.inf
        around = np.flatnonzero(touching[i])
        costs[i, around] = costs[around, i] = _merge_costs(i, around, sizes, sums)
        nodes.append(members[i].copy())
    return np.stack(nodes)


def _merge_costs(
    i: int, others: NDArray[np.int64], sizes: NDArray[np.float64], sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    gap = sums[others] / sizes[others, None] - sums[i] / sizes[i]
    return (gap**2).sum(1) * sizes[i] * sizes[others] / (sizes[i] + sizes[others])


def regions(part: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the regions of a partition as sets of atoms, (R, A)."""
    return part[None, :] == np.arange(int(part.max()) + 1)[:, None]


def contrasts(atoms: Atoms, members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Say how well candidates stand out, (N,) from 0 to 1.

    The distance between the mean color inside and the mean color of the atoms along the border, relative to that
    distance plus the spread of the colors inside. A candidate without a border (the whole picture) gets 0.
    """
    inside = members.astype(np.float32)
    sizes = inside @ atoms.sizes
    means = inside @ atoms.sums / sizes[:, None]
    spread = np.sqrt(np.maximum(inside @ atoms.squares / sizes - (means**2).sum(1), 0))
    border = (inside @ atoms.borders) * (1 - inside)
    length = border.sum(1)
    outside = border @ (atoms.sums / atoms.sizes[:, None]) / np.maximum(length, 1)[:, None]
    gap = np.where(length > 0, np.linalg.norm(means - outside, axis=1), 0.0)
    return gap / np.maximum(gap + spread, 1e-9)


def distinct(
    atoms: Atoms, members: NDArray[np.bool_], scores: NDArray[np.floating], overlap: float, most: int
) -> NDArray[np.int64]:
    """Choose candidates, best score first, leaving out those that overlap a better one by more than `overlap` (IoU).

    Returns:
        Places of at most `most` candidates.
    """
    inside = members.astype(np.float32)
    sizes = (inside @ atoms.sizes).astype(np.float64)
    weighted = inside * atoms.sizes.astype(np.float32)
    free = np.ones(len(members), bool)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if not free[i]:
            continue
        kept.append(int(i))
        if len(kept) == most:
            break
        common = inside @ weighted[i]
        free &= common / (sizes + sizes[i] - common) <= overlap
    return np.array(kept, np.int64)
