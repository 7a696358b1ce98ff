"""Several processes count what one counts, exactly: also after a kill, and with another number of them."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.evaluate import evaluate
from ovseg_cli.core.evaluation.journal import remove_journal
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training.processes import open_group
from ovseg_cli.core.types import DensePrediction
from tests.core.evaluation.test_evaluate import FACTS, READOUTS, TEXT, VOCABULARY, Pictures
from tests.core.training import forks


class Batched:
    """A model whose answer depends on what else is in the batch, as the last bits of a real one's may."""

    def __init__(self, die_at=None):
        self.die_at = die_at

    def predict(self, images, text):
        shift = int(sum(int(image.sum()) for image in images)) % 3
        found = []
        for image in images:
            if self.die_at is not None and torch.equal(image, Pictures(40)[self.die_at].image):
                os.kill(os.getpid(), signal.SIGKILL)
            ids = ((image[0].long() + (image[1] == shift)) % 4).long()
            found.append(DensePrediction(F.one_hot(ids, 4).permute(2, 0, 1) * 8.0, image.shape[1:]))
        return found


def score(folder, model=None, number=23, **options):
    options = {"batch_size": 3, "force": True, "journal": folder / "journal.jsonl", **options}
    return evaluate(model or Batched(), Pictures(number), VOCABULARY, TEXT, READOUTS, FACTS, Silent(), **options)


def score_together(folder, processes, model=None, number=23, **options):
    def act():
        with open_group("cpu") as group:
            results = score(folder, model, number, group=group, **options)
            for name, result in results.items():
                result.save(folder / f"{name}-{group.rank}.json")

    return forks.codes(forks.start(act, processes, folder))


def same(result, other):
    a, b = result.counts, other.counts
    return a.names == b.names and all(
        np.array_equal(getattr(a, part), getattr(b, part)) for part in ("starts", "cells", "pixels")
    )


@pytest.mark.parametrize(("processes", "number"), [(2, 23), (3, 23), (2, 3), (4, 2)])
def test_counts_are_those_of_one_process(tmp_path, processes, number):
    assert score_together(tmp_path, processes, number=number) == [0] * processes
    for name, result in score(tmp_path / "one", number=number).items():
        for rank in range(processes):
            assert same(Result.load(tmp_path / f"{name}-{rank}.json"), result)


@pytest.mark.parametrize("then", [1, 2, 3])
def test_killed_evaluation_goes_on_in_any_number_of_processes(tmp_path, then):
    codes = score_together(tmp_path, 2, Batched(die_at=9))  # the fourth batch: the second process's second
    assert codes == [4, -signal.SIGKILL]
    lines = [json.loads(text) for part in tmp_path.glob("journal*") for text in part.read_text().splitlines()]
    done = {line["image"] for line in lines if "image" in line}
    assert {"p00", "p01", "p02", "p03", "p04", "p05"} <= done and "p09" not in done
    with open(tmp_path / "journal.1.jsonl", "a") as stream:
        stream.write('{"image": "p22", "cou')  # cut off by the kill
    data_read = Pictures(23)
    if then == 1:
        results = evaluate(
            Batched(), data_read, VOCABULARY, TEXT, READOUTS, FACTS, Silent(), batch_size=3, force=True,
            journal=tmp_path / "journal.jsonl",
        )  # fmt: skip
        assert len(data_read.read) == 23 - len(done)  # nothing is scored twice
        assert [path.name for path in tmp_path.glob("journal*")] == ["journal.jsonl"]
    else:
        assert score_together(tmp_path, then) == [0] * then
        results = {name: Result.load(tmp_path / f"{name}-0.json") for name in READOUTS}
    for name, result in score(tmp_path / "one").items():
        assert same(results[name], result)


def test_scores_below_chance_stop_all_processes_after_the_first_pictures(tmp_path):
    class Wrong(Batched):
        def predict(self, images, text):
            found = [(image[0].long() + 1) % 4 for image in images]
            return [DensePrediction(F.one_hot(i, 4).permute(2, 0, 1) * 8.0, tuple(i.shape)) for i in found]

    assert score_together(tmp_path, 2, Wrong(), number=40, batch_size=4, force=False) == [3, 3]
    said = {(tmp_path / f"error-{rank}").read_text() for rank in (0, 1)}
    assert len(said) == 1 and "on the first 20 pictures is below chance" in said.pop()
    with pytest.raises(DataError, match="on the first 20 pictures"):
        score(tmp_path / "one", Wrong(), number=40, batch_size=4, force=False)


def test_process_without_pictures_still_checks_with_the_others(tmp_path):
    assert score_together(tmp_path, 3, number=2, force=False) == [0, 0, 0]


def test_journal_is_removed_with_its_parts(tmp_path):
    score_together(tmp_path, 3)
    (tmp_path / "journal.other.jsonl").touch()
    remove_journal(tmp_path / "journal.jsonl")
    assert [path.name for path in tmp_path.glob("journal*")] == ["journal.other.jsonl"]
