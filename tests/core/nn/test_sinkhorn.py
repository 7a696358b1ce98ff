"""Balanced assignment of masks to classes: by hand, against the published code's numbers, split over processes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.nn.sinkhorn import sinkhorn
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.training.processes import open_group
from tests.core.clip.parity_models import read_fixture
from tests.core.training import forks

RECORDED = 2e-6  # absolute, what the fixtures' README grants
CASES = st.tuples(st.integers(1, 12), st.integers(1, 7), st.integers(0, 10_000))


def drawn(masks, classes, seed, scale=3.0):
    return scale * torch.randn(masks, classes, generator=torch.Generator().manual_seed(seed))


def written_out(logits, rounds=3):
    """The rule as specification 4.3 writes it, in float64, start divided by its sum."""
    q = torch.softmax(logits.double(), 1)
    q = q / q.sum()
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q.float()


class Meeting:
    """Threads in place of processes: each waits until all have brought their tensor."""

    def __init__(self, processes):
        self.barrier, self.brought = Barrier(processes, timeout=20), []

    def total(self, values):
        self.brought.append(values)
        self.barrier.wait()
        added = torch.stack(self.brought).sum(0)
        if self.barrier.wait() == 0:
            self.brought = []
        self.barrier.wait()
        return added


def in_processes(parts, **options):
    """Assign the parts of a batch, each in a process of its own; returns their Q, or what they raised."""
    meeting = Meeting(len(parts))

    def assign(logits):
        try:
            return sinkhorn(logits, total=meeting.total, **options)
        except OvsegError as error:
            return error

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(assign, parts))


def test_one_round_by_hand():
    # softmax: (3/4, 1/4) and (1/2, 1/2); totals of the classes 5/4 and 3/4
    # divided: (3/5, 1/3) and (2/5, 2/3); each row by its sum, 14/15 and 16/15
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
    expected = torch.tensor([[9 / 14, 5 / 14], [6 / 16, 10 / 16]])
    torch.testing.assert_close(sinkhorn(logits, rounds=1), expected)
    # both rows preferred class 0 or neither; balanced, the second mask is class 1's
    assert sinkhorn(logits).argmax(1).tolist() == [0, 1]


@pytest.fixture(scope="module")
def recorded(parity):
    return read_fixture(parity, "sinkhorn")


def test_assignments_equal_the_recorded_ones(recorded):
    cases = [key.removesuffix(".logits") for key in recorded if key.endswith(".logits")]
    assert cases
    for case in cases:
        q = sinkhorn(recorded[f"{case}.logits"])
        assert (q - recorded[f"{case}.Q"]).abs().max() <= RECORDED
        assert q.argmax(1).equal(recorded[f"{case}.hard"])


def test_other_numbers_of_rounds_equal_the_recorded_ones(recorded):
    cases = [key.rsplit(".Q_", 1) for key in recorded if key.endswith("iters")]
    assert cases
    for case, rounds in cases:
        q = sinkhorn(recorded[f"{case}.logits"], int(rounds.removesuffix("iters")))
        assert (q - recorded[f"{case}.Q_{rounds}"]).abs().max() <= RECORDED


def recorded_parts(recorded):
    """The recorded run of several processes: expected Q of each, and its part of the logits."""
    expected = [recorded[key] for key in sorted(recorded) if key.startswith("dist")]
    if not expected:
        pytest.skip("these fixtures record no run of several processes")
    return expected, recorded["vit.logits"].split([len(q) for q in expected])


def test_threads_as_processes_equal_the_recorded_run(recorded):
    expected, parts = recorded_parts(recorded)
    for q, own in zip(expected, in_processes(parts), strict=True):
        assert (own - q).abs().max() <= RECORDED


def test_real_processes_equal_the_recorded_run(recorded, tmp_path):
    expected, parts = recorded_parts(recorded)

    def act():
        with open_group("cpu") as group:
            torch.save(sinkhorn(parts[group.rank], total=group.total), tmp_path / f"{group.rank}.pt")

    assert forks.codes(forks.start(act, len(parts))) == [0] * len(parts)
    for rank, q in enumerate(expected):
        assert (torch.load(tmp_path / f"{rank}.pt") - q).abs().max() <= RECORDED


@settings(max_examples=40, deadline=None)
@given(CASES, st.integers(1, 6))
def test_equals_the_rule_written_out(case, rounds):
    logits = drawn(*case)
    q = sinkhorn(logits, rounds)
    torch.testing.assert_close(q, written_out(logits, rounds), atol=1e-5, rtol=0)
    torch.testing.assert_close(q.sum(1), torch.ones(len(q)))


@settings(max_examples=25, deadline=None)
@given(CASES, st.randoms(use_true_random=False))
def test_masks_keep_their_classes_in_any_order(case, random):
    logits = drawn(*case)
    order = random.sample(range(len(logits)), len(logits))
    torch.testing.assert_close(sinkhorn(logits[order]), sinkhorn(logits)[order], atol=1e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(CASES, st.integers(0, 12), st.integers(0, 12))
def test_splitting_the_masks_over_processes_changes_nothing(case, first, second):
    logits = drawn(*case)
    cuts = sorted(min(cut, len(logits)) for cut in (first, second))
    parts = [logits[: cuts[0]], logits[cuts[0] : cuts[1]], logits[cuts[1] :]]  # some of them without a mask
    torch.testing.assert_close(torch.cat(in_processes(parts)), sinkhorn(logits), atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(CASES)
def test_a_sharp_start_is_a_hard_assignment(case):
    logits = drawn(*case) * 1e6
    expected = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
    assert sinkhorn(logits).equal(expected)


def test_many_rounds_use_all_classes_alike():
    q = sinkhorn(drawn(12, 4, 0), rounds=200)
    torch.testing.assert_close(q.sum(0), torch.full((4,), 3.0), atol=1e-4, rtol=0)


def test_a_class_that_underflows_stays_empty():
    logits = drawn(5, 3, 0)
    logits[:, 1] -= 1e4
    q = sinkhorn(logits)
    assert q[:, 1].tolist() == [0.0] * 5
    torch.testing.assert_close(q[:, [0, 2]], sinkhorn(logits[:, [0, 2]]), atol=1e-6, rtol=0)


def test_a_class_that_underflows_in_one_process_alone_has_its_masks_in_the_other():
    logits = drawn(6, 3, 1)
    logits[:3, 1] -= 1e4
    parts = in_processes([logits[:3], logits[3:]])
    assert parts[0][:, 1].tolist() == [0.0] * 3 and bool((parts[1][:, 1] > 0).all())


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_process_without_masks_calls_total_as_often_as_the_others(rounds):
    calls = {0: [], 4: []}
    for masks, made in calls.items():
        sinkhorn(torch.zeros(masks, 5), rounds, lambda values, made=made: made.append(values.shape) or values)
    assert calls[0] == calls[4] == [(5,)] * rounds
    assert sinkhorn(torch.zeros(0, 5)).shape == (0, 5)


def test_a_single_process_needs_no_total():
    logits = drawn(6, 4, 2)
    assert sinkhorn(logits).equal(sinkhorn(logits, total=Group().total))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_an_error_in_every_process(value):
    logits = drawn(6, 4, 3)
    logits[4, 1] = value
    for answer in in_processes([logits[:2], logits[2:], logits[:0]]):
        assert isinstance(answer, OvsegError) and "not finite" in answer.message
        assert "learning rate" in (answer.mend or "")


def test_autocast_does_not_round():
    logits = drawn(30, 6, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        q = sinkhorn(logits)
    assert q.dtype == torch.float32 and q.equal(sinkhorn(logits.float()))


def test_logits_with_gradients_are_not_followed():
    assert not sinkhorn(drawn(3, 2, 0).requires_grad_()).requires_grad


@pytest.mark.gpu
def test_a_gpu_assigns_alike(recorded):
    logits = recorded["vit.logits"]
    with torch.autocast("cuda", torch.float16):
        q = sinkhorn(logits.cuda())
    assert (q.cpu() - recorded["vit.Q"]).abs().max() <= RECORDED
