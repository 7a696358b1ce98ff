"""Moving averages against the recorded updates of PixelCLIP's momentum encoder (parity/pixelclip/momentum)."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ovseg_cli.core.methods.pixelclip import PixelClip
from ovseg_cli.core.training.ema import MovingAverage
from tests.core.clip.parity_models import assert_close, load_recorded, read_fixture


def named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def linear(weights: dict[str, Tensor]) -> nn.Linear:
    layer = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
    layer.load_state_dict(weights)
    return layer


class OfTheLoop:
    """The average that any training can keep."""

    def __init__(self, student: nn.Module, teacher: nn.Module, momentum: float):
        self.average = MovingAverage(student, momentum)
        self.average.load_state_dict(dict(teacher.state_dict()))

    def update(self) -> dict[str, Tensor]:
        self.average.update()
        return self.average.state_dict()


class OfPixelClip:
    """The method's momentum encoder, a layer in place of its tower."""

    def __init__(self, student: nn.Module, teacher: nn.Module, momentum: float):
        recipe = SimpleNamespace(teacher_momentum=momentum)
        self.method: Any = SimpleNamespace(tower=student, teacher=teacher, recipe=recipe)

    @torch.no_grad()
    def update(self) -> dict[str, Tensor]:
        PixelClip._follow(self.method)
        return dict(self.method.teacher.state_dict())


@pytest.mark.parametrize("kind", [OfTheLoop, OfPixelClip])
def test_updates_equal_the_recorded_ones(parity, kind):
    tensors, momentum = read_fixture(parity, "momentum"), load_recorded(parity, "vit").config["momentum"]
    follower = kind(linear(named(tensors, "student.")), linear(named(tensors, "teacher_before.")), momentum)
    updates = sorted({int(found[1]) for key in tensors if (found := re.match(r"teacher_after(\d+)\.", key))})
    assert updates
    for step in range(1, updates[-1] + 1):
        followed = follower.update()
        for name, expected in named(tensors, f"teacher_after{step}.").items():
            assert_close(followed[name], expected, 1e-6)
