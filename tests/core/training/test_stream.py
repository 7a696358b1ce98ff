"""Batches: each process its parts, errors as they were raised, killed workers named."""

import multiprocessing
import os
import signal

import pytest
import torch

from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.training.stream import batches, num_images, to_device
from ovseg_cli.core.training.task import TrainingError
from tests.core.training.parts import train


class Numbers(torch.utils.data.Dataset):
    def __init__(self, bad=None, deadly=None):
        self.bad, self.deadly = bad, deadly

    def __getitem__(self, index):
        if index == self.bad:
            raise DataError(f"item {index} is broken.", "Mend it.")
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_each_process_gets_its_parts_of_every_step(workers):
    # 3 processes of 2 micro-batches: step 4 has the items 24 to 29, process 1 gets 26 and 27
    found = list(batches(Numbers(), 4, 7, workers, parts=6, own=range(2, 4)))
    assert found == [[26, 27], [32, 33], [38, 39]]


@pytest.mark.parametrize("workers", [0, 1])
def test_error_keeps_its_words_and_its_mend(workers):
    stream = batches(Numbers(bad=2), 0, 5, workers)
    assert [next(stream), next(stream)] == [[0], [1]]
    with pytest.raises(DataError) as caught:
        next(stream)
    assert (caught.value.message, caught.value.mend) == ("item 2 is broken.", "Mend it.")


def test_killed_worker_is_named_with_the_way_on():
    with pytest.raises(MachineError, match="a process that makes batches was killed") as caught:
        list(batches(Numbers(deadly=1), 0, 50, 1))
    assert "--resume" in caught.value.mend


def test_other_failures_of_a_worker_are_not_taken_for_a_kill():
    class Broken(torch.utils.data.Dataset):
        def __getitem__(self, index):
            raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        list(batches(Broken(), 0, 5, 1))


def test_pictures_are_counted_in_every_form_of_batch():
    images = torch.zeros(3, 3, 4, 4)
    assert num_images({"labels": torch.zeros(5), "images": images}) == 3
    assert num_images((images, torch.zeros(3, 7))) == 3
    assert num_images([1, 2]) == 2 and num_images({"x": torch.zeros(6, 2)}) == 6


def test_nested_batches_move():
    batch = {"masks": [torch.zeros(1), torch.ones(2)], "names": ["a", "b"]}
    moved = to_device(batch, torch.device("meta"))
    assert moved["names"] == ["a", "b"] and [m.device.type for m in moved["masks"]] == ["meta", "meta"]


def test_workers_end_with_the_training_even_where_its_failure_is_kept(tmp_path):
    """They ignore SIGTERM: an interpreter that ends while they live would wait for them for ever."""
    with pytest.raises(TrainingError) as kept:
        train(tmp_path, total=500, workers=2, nan_at=3)
    assert kept.value.exit_code == 1 and not multiprocessing.active_children()
