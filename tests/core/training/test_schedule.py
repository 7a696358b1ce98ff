import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.training.schedule import Schedule


def test_constant_by_hand():
    assert [Schedule(4).factor(step) for step in range(5)] == [1, 1, 1, 1, 1]


def test_warmup_rises_linearly_by_hand():
    # 0.2 + 0.8 * step / 4
    schedule = Schedule(10, warmup=4, warmup_start=0.2)
    assert [schedule.factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_by_hand():
    # after 2 steps of warm-up: 0.1 + 0.9 * (1 + cos(pi * p)) / 2 at p = 0, 1/4, 1/2, 3/4, 1
    schedule = Schedule(6, "cosine", warmup=2, final=0.1)
    root = math.sqrt(0.5)
    expected = [0.0, 0.5, 1.0, 0.1 + 0.45 * (1 + root), 0.55, 0.1 + 0.45 * (1 - root), 0.1]
    assert [schedule.factor(step) for step in range(7)] == pytest.approx(expected)


def test_poly_by_hand():
    # (1 - step / 4) ^ 0.9, the warm-up multiplies it: 0.5 at step 0, 1 from step 2 on; 0.75 at step 1
    schedule = Schedule(4, "poly", warmup=2, warmup_start=0.5, power=0.9)
    expected = [0.5, 0.75 * 0.75**0.9, 0.5**0.9, 0.25**0.9, 0.0]
    assert [schedule.factor(step) for step in range(5)] == pytest.approx(expected)


def test_poly_equals_torchs_polynomial_schedule():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9)
    for step in range(20):
        assert Schedule(20, "poly").factor(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


@given(
    kind=st.sampled_from(["constant", "cosine", "poly"]),
    total=st.integers(1, 500),
    warmup=st.integers(0, 50),
    final=st.floats(0, 1),
)
def test_factor_stays_between_zero_and_one_and_falls_after_the_warmup(kind, total, warmup, final):
    schedule = Schedule(total, kind, min(warmup, total), 0.0, final)
    factors = [schedule.factor(step) for step in range(total + 1)]
    assert all(-1e-12 <= f <= 1 + 1e-12 for f in factors)
    after = factors[schedule.warmup :]
    assert all(a >= b - 1e-12 for a, b in zip(after, after[1:], strict=False))
