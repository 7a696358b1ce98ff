"""The loop: bit for bit after a kill, whole after a signal, honest about NaN."""

import json
import os
import signal

import pytest
import torch
from torch import nn

from ovseg_cli.core.errors import Terminated, UsageError
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training.checkpoint import load_checkpoint
from ovseg_cli.core.training.loop import LoopSettings, TrainingError, fit
from ovseg_cli.core.training.schedule import Schedule


class Steps(torch.utils.data.Dataset):
    def __init__(self, hook=None):
        self.hook = hook

    def __getitem__(self, step):
        if self.hook:
            self.hook(step)
        generator = torch.Generator().manual_seed(step)
        return {"x": torch.randn(8, 4, generator=generator), "y": torch.randn(8, 1, generator=generator)}


class Regression:
    """Noise in the loss, so that random states matter; AdamW, so that its moments do."""

    name = "regression"

    def __init__(self, hook=None, bad_step=None, bad_gradient=False):
        torch.manual_seed(3)
        self.module = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1))
        self.hook, self.bad_step, self.bad_gradient, self.seen = hook, bad_step, bad_gradient, []

    def optimizer(self):
        return torch.optim.AdamW(self.module.parameters(), lr=0.01)

    def train_mode(self):
        self.module.train()

    def kept(self):
        return self.module.state_dict()

    def steps(self, parts):
        assert parts == 1
        return Steps(self.hook)

    def before_step(self, batches, total):
        pass

    def normalisers(self, batch):
        return {}

    def losses(self, batch, totals):
        error = (self.module(batch["x"]) - batch["y"] - torch.randn(8, 1)) ** 2
        self.seen.append(float(batch["x"].sum()))
        fault = float("nan") if len(self.seen) == self.bad_step else 1.0
        if self.bad_gradient and len(self.seen) == 2:
            return {"fit": error.mean(), "size": self.module[0].weight.mul(0).sum().sqrt()}
        return {"fit": error.mean(), "size": 0.1 * fault * self.module[0].weight.square().mean()}

    def after_step(self):
        return {"extra": 1.0}

    def evaluate(self):
        return {"norm": float(weights(self).norm() + torch.randn(1))}


def settings(total=6, **kwargs):
    defaults = {"precision": "float32", "log_every": 2, "save_every": 3, "clip_grad_norm": 1.0}
    return LoopSettings(Schedule(total, "cosine", warmup=2), **{**defaults, **kwargs})


def weights(task):
    return torch.cat([p.detach().flatten().float() for p in task.module.state_dict().values()])


class Stopping(Silent):
    """Sends a signal to this process while the given step's batch is handed over."""

    def __init__(self, step, number):
        super().__init__()
        self.step, self.number = step, number

    def track(self, items, what, total=None):
        for place, item in enumerate(items):
            if place == self.step:
                os.kill(os.getpid(), self.number)
            yield item


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    task, folder = Regression(), tmp_path_factory.mktemp("straight")
    fit(task, settings(), folder, Silent())
    return task, folder


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_interrupted_and_resumed_equals_straight_bit_for_bit(tmp_path, straight, stop_at, workers):
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), settings(workers=workers), tmp_path, Stopping(stop_at - 1, signal.SIGINT))
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step == stop_at
    torch.randn(17)  # whatever happened in between
    again = Regression()
    progress = fit(again, settings(workers=workers), tmp_path, Silent(), resume=True)
    assert progress.step == 6
    assert torch.equal(weights(again), weights(straight[0]))


def test_resuming_twice_equals_straight(tmp_path, straight):
    for resume, place in ((False, 1), (True, 0), (True, 1)):
        with pytest.raises(KeyboardInterrupt):
            fit(Regression(), settings(), tmp_path, Stopping(place, signal.SIGINT), resume=resume)
    task = Regression()
    fit(task, settings(), tmp_path, Silent(), resume=True)
    assert torch.equal(weights(task), weights(straight[0]))


def test_log_after_a_resume_equals_the_straight_one_but_for_times(tmp_path, straight):
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), settings(), tmp_path, Stopping(2, signal.SIGINT))
    fit(Regression(), settings(), tmp_path, Silent(), resume=True)
    assert read_log(tmp_path) == read_log(straight[1])


TIMES = ("seconds", "images_per_second", "waited_share")


def read_log(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def test_log_holds_mean_terms_rate_and_extras(straight):
    log = read_log(straight[1])
    assert [line["step"] for line in log] == [2, 4, 6]
    assert set(log[0]) == {"step", "loss", "terms", "gradient_norm", "extra", "learning_rate"}
    assert set(log[0]["terms"]) == {"fit", "size"} and log[0]["loss"] == pytest.approx(sum(log[0]["terms"].values()))
    assert [line["extra"] for line in log] == [1.0, 1.0, 1.0]  # means since the line before, not sums of all
    assert log[0]["learning_rate"] == pytest.approx(0.01 * 0.5)  # the rate of step 1: half of the warm-up


def test_lines_of_a_future_that_was_lost_are_removed(tmp_path, straight):
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), settings(), tmp_path, Stopping(1, signal.SIGINT))
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 4, "fit": 9.0}\n{"step": 5, "fi')
    fit(Regression(), settings(), tmp_path, Silent(), resume=True)
    assert read_log(tmp_path) == read_log(straight[1])


def test_sigterm_saves_and_raises_terminated(tmp_path):
    with pytest.raises(Terminated):
        fit(Regression(), settings(), tmp_path, Stopping(3, signal.SIGTERM))
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step == 4


def test_handlers_are_back_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(Regression(), settings(2), tmp_path, Silent())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_every_step_gets_its_own_batch_after_a_resume(tmp_path, straight):
    first, second = Regression(), Regression()
    with pytest.raises(KeyboardInterrupt):
        fit(first, settings(), tmp_path, Stopping(3, signal.SIGINT))
    fit(second, settings(), tmp_path, Silent(), resume=True)
    assert first.seen + second.seen == straight[0].seen


@pytest.mark.parametrize("bad_step", [1, 4])
def test_nan_names_the_term_and_keeps_the_last_good_checkpoint(tmp_path, bad_step):
    task = Regression(bad_step=bad_step)
    with pytest.raises(TrainingError, match=f"'size' is nan in step {bad_step}"):
        fit(task, settings(), tmp_path, Silent())
    if bad_step == 4:
        kept = load_checkpoint(tmp_path / "checkpoints", Silent())
        assert kept.step == 3 and all(torch.isfinite(w).all() for w in kept.weights.values())
    else:
        assert not (tmp_path / "checkpoints").exists()


def test_gradient_that_is_not_finite_changes_no_weight(tmp_path):
    task = Regression(bad_gradient=True)
    with pytest.raises(TrainingError, match="'gradient' is nan in step 2"):
        fit(task, settings(), tmp_path, Silent())
    assert torch.isfinite(weights(task)).all()


def test_resume_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint"):
        fit(Regression(), settings(), tmp_path, Silent(), resume=True)


def test_fresh_run_does_not_touch_an_earlier_one(tmp_path):
    fit(Regression(), settings(2), tmp_path, Silent())
    with pytest.raises(UsageError, match="--resume"):
        fit(Regression(), settings(), tmp_path, Silent())
    assert read_log(tmp_path) and load_checkpoint(tmp_path / "checkpoints", Silent()).step == 2


def test_resume_of_a_finished_run_changes_nothing(tmp_path, straight):
    fit(Regression(), settings(), tmp_path, Silent())
    task = Regression()
    assert fit(task, settings(), tmp_path, Silent(), resume=True).step == 6
    assert torch.equal(weights(task), weights(straight[0]))


def test_a_fresh_run_empties_an_old_log(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    fit(Regression(), settings(2), tmp_path, Silent())
    assert [line["step"] for line in read_log(tmp_path)] == [2]


@pytest.fixture
def one_thread():
    """Bits are those of one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_resuming_with_another_number_of_threads_is_said(tmp_path, one_thread):
    fit(Regression(), settings(3), tmp_path, Silent())
    torch.set_num_threads(2)
    reporter = Silent()
    fit(Regression(), settings(6), tmp_path, reporter, resume=True)
    assert "OMP_NUM_THREADS=1" in reporter.warnings[0]
