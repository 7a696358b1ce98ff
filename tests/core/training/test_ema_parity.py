"""A moving average against the recorded updates of PixelCLIP's momentum encoder (parity/pixelclip/momentum)."""

import re

from torch import nn

from ovseg_cli.core.training.ema import MovingAverage
from tests.core.clip.parity_models import assert_close, load_recorded, read_fixture


def named(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def test_updates_equal_the_recorded_ones(parity):
    tensors, momentum = read_fixture(parity, "momentum"), load_recorded(parity, "vit").config["momentum"]
    weight = tensors["student.weight"]
    student = nn.Linear(weight.shape[1], weight.shape[0])
    student.load_state_dict(named(tensors, "student."))
    average = MovingAverage(student, momentum)
    average.load_state_dict(named(tensors, "teacher_before."))
    updates = sorted({int(found[1]) for key in tensors if (found := re.match(r"teacher_after(\d+)\.", key))})
    assert updates
    for step in range(1, updates[-1] + 1):
        average.update()
        for name, expected in named(tensors, f"teacher_after{step}.").items():
            assert_close(average.average[name], expected, 1e-6)
