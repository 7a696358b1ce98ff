"""Proposals from labels: exact without noise, worse with it, the same for the same seed, blind for what is hidden."""

import numpy as np
import pytest
import torch

from ovseg_cli.core.data.toy import IGNORE, ToyWorld
from ovseg_cli.core.proposals.ground_truth import GroundTruth, GroundTruthConfig
from ovseg_cli.core.types import Proposals
from tests.core.proposals.small import draw_image, same

SIZE = (24, 32)


def label() -> torch.Tensor:
    """Class 0 left, class 1 in two pieces on the right, the bottom rows unknown."""
    values = torch.zeros(SIZE, dtype=torch.int64)
    values[:, 16:] = 2
    values[2:10, 18:28] = 1
    values[13:19, 18:28] = 1
    values[20:] = -1
    return values


def make(image: torch.Tensor | None = None, truth: torch.Tensor | None = None, **settings: object) -> Proposals:
    generator = GroundTruth(GroundTruthConfig(**settings))  # type: ignore[arg-type]
    return generator.generate(draw_image() if image is None else image, label() if truth is None else truth)


def as_sets(proposals: Proposals) -> set[bytes]:
    return {mask.numpy().tobytes() for mask in proposals.masks}


def test_without_noise_the_masks_are_the_regions() -> None:
    truth = label()
    by_class = make(noise=0, fill=False, regions="class")
    assert as_sets(by_class) == {(truth == c).numpy().tobytes() for c in (0, 1, 2)}
    assert by_class.scores.tolist() == [1, 1, 1]
    pieces = make(noise=0, fill=False)
    upper, lower = torch.zeros(2, *SIZE, dtype=torch.bool)
    upper[2:10, 18:28] = True
    lower[13:19, 18:28] = True
    wanted = {m.numpy().tobytes() for m in (truth == 0, truth == 2, upper, lower)}
    assert as_sets(pieces) == wanted


def test_corners_connect_a_region() -> None:
    truth = torch.full(SIZE, -1, dtype=torch.int64)
    truth[:8, :8] = 0
    truth[8:16, 8:16] = 0
    assert len(make(truth=truth, noise=0, fill=False)) == 1


def test_masks_are_filled_up_and_ordered_by_their_overlap() -> None:
    found = make(max_masks=20, min_area=1)
    assert len(found) == 20 and found.masks.dtype == torch.bool and found.size == SIZE
    assert (found.scores.diff() <= 0).all()
    regions = torch.stack([m for m in make(noise=0, fill=False).masks])
    common = (found.masks[:, None] & regions).sum((-1, -2)).double()
    ious = common / (found.masks[:, None] | regions).sum((-1, -2))
    assert found.scores.numpy() == pytest.approx(ious.amax(1).numpy(), abs=1e-6)


def test_large_regions_come_first_where_there_are_too_many() -> None:
    found = make(max_masks=2, noise=0)
    sizes = sorted((label() == c).sum().item() for c in (0, 2))
    assert sorted(found.masks.sum((1, 2)).tolist()) == sizes


def test_same_picture_and_seed_give_the_same_masks_and_others_do_not() -> None:
    assert same(make(), make())
    assert not same(make(), make(seed=1))
    assert not same(make(), make(image=draw_image(1)))


def test_pixels_that_may_not_be_seen_leave_no_trace() -> None:
    hidden = label()
    hidden[hidden == 1] = -1
    shown = torch.where(label() == 1, 7, label())  # whatever the hidden class was called
    shown[shown == 7] = -1
    assert same(make(truth=hidden), make(truth=shown))


def test_label_without_any_region_gives_no_mask() -> None:
    found = make(truth=torch.full(SIZE, -1))
    assert len(found) == 0 and found.masks.shape == (0, *SIZE) and found.scores.shape == (0,)


def test_label_of_one_region_gives_masks() -> None:
    assert len(make(truth=torch.zeros(SIZE, dtype=torch.int64), max_masks=9, min_area=1)) == 9
    assert len(make(image=draw_image(0, (1, 1)), truth=torch.zeros(1, 1, dtype=torch.int64), min_area=1, max_masks=1))


def test_label_is_needed() -> None:
    with pytest.raises(ValueError, match="need a label"):
        GroundTruth().generate(draw_image())


def best_iou(noise: float, scenes: int = 4) -> float:
    """Mean over regions of the toy world of the best IoU with a mask."""
    world, best = ToyWorld(), []
    for number in range(scenes):
        picture, ids, _ = world.scene("tune", number)
        truth = torch.from_numpy(np.where(ids == IGNORE, -1, ids.astype(np.int64)))
        image = torch.from_numpy(picture.transpose(2, 0, 1).copy())
        found = make(image=image, truth=truth, noise=noise)
        regions = make(image=image, truth=truth, noise=0, fill=False).masks
        common = (found.masks[:, None] & regions).sum((-1, -2)).double()
        best.append((common / (found.masks[:, None] | regions).sum((-1, -2))).amax(0))
    return torch.cat(best).mean().item()


def test_noise_is_controlled() -> None:
    levels = [best_iou(noise) for noise in (0, 1, 2)]
    assert levels[0] == 1 and levels == sorted(levels, reverse=True)
    assert 0.65 < levels[1] < 0.88  # about .77 over many scenes
