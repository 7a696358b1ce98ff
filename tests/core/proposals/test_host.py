"""A built method as a generator: its soft masks cover the picture, best first, and its key knows all they depend on."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from ovseg_cli.core.methods.masked import Candidates, Canvas
from ovseg_cli.core.proposals.host import HostConfig, HostGenerator
from ovseg_cli.core.types import TextFeatures

AREA, CANVAS = (18, 30), (32, 32)


class Settings(BaseModel):
    side: int = 30


class FakeHost:
    """Three masks on a canvas of 32 x 32, of which the picture takes 18 x 30; the values tell rows and columns."""

    name, digest = "fake", "weights-1"

    def __init__(self, class_logits: Tensor | None = None):
        self.clip = SimpleNamespace(device=torch.device("cpu"))
        self.config: BaseModel = Settings()
        self.class_logits = class_logits
        self.seen: list[TextFeatures] = []
        ramp = torch.arange(CANVAS[0] * CANVAS[1]).reshape(CANVAS) / (CANVAS[0] * CANVAS[1])
        self.masks = torch.stack([ramp, ramp.T, torch.zeros(CANVAS)])

    def canvas(self, image: Tensor) -> Canvas:
        return Canvas(torch.zeros(3, *AREA), CANVAS, image)

    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        self.seen.append(text)
        return [Candidates(self.masks, self.class_logits) for _ in canvases]


TEXT = TextFeatures.of_classes(torch.eye(2))
IMAGE = torch.zeros(3, 36, 60, dtype=torch.uint8)


def test_masks_are_kept_on_a_grid_that_covers_the_picture() -> None:
    host = FakeHost()
    found = HostGenerator(host, TEXT, "names", HostConfig(stride=6)).generate(IMAGE)
    assert found.masks.dtype == torch.uint8 and found.masks.shape == (3, 3, 5) and found.size == (36, 60)
    # the mean over the first 6 x 6 canvas pixels of (32 y + x) / 1024: (32 · 2.5 + 2.5) / 1024 = .0806 -> 21 of 255
    assert found.masks[0, 0, 0].item() == 21
    assert found.masks[0, 2, 4].item() == round(255 * (32 * 14.5 + 26.5) / 1024)
    assert found.scores.tolist() == [1, 1, 1] and host.seen[0].features.tolist() == TEXT.features.tolist()


def test_stride_one_keeps_every_pixel_of_the_picture() -> None:
    host = FakeHost()
    found = HostGenerator(host, TEXT, "names", HostConfig(stride=1)).generate(IMAGE)
    assert torch.equal(found.masks, (host.masks[:, :18, :30] * 255).round().to(torch.uint8))


def test_uneven_stride_still_covers_the_picture() -> None:
    found = HostGenerator(FakeHost(), TEXT, "names", HostConfig(stride=4)).generate(IMAGE)
    assert found.masks.shape == (3, 5, 8)  # 18 / 4 and 30 / 4, rounded up


def test_score_is_the_probability_of_an_object_and_the_best_come_first() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.1, 0.8], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]]))
    host = FakeHost(logits)
    found = HostGenerator(host, TEXT, "names", HostConfig(stride=1, max_masks=2)).generate(IMAGE)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert torch.equal(found.masks[0], (host.masks[1, :18, :30] * 255).round().to(torch.uint8))


def test_host_without_any_mask() -> None:
    host = FakeHost(torch.zeros(0, 3))
    host.masks = host.masks[:0]
    found = HostGenerator(host, TEXT, "names").generate(IMAGE)
    assert found.masks.shape == (0, 5, 8) and found.scores.shape == (0,)


def test_key_follows_weights_settings_and_names() -> None:
    def digest(weights: str = "weights-1", side: int = 30, names: str = "names", stride: int = 4) -> str:
        host = FakeHost()
        host.digest, host.config = weights, Settings(side=side)
        return HostGenerator(host, TEXT, names, HostConfig(stride=stride)).digest

    others = [digest("weights-2"), digest(side=31), digest(names="other"), digest(stride=2)]
    assert digest() == digest() and len({digest(), *others}) == 5
