"""A task whose steps can be cut into parts, and a main program that trains it: for tests of several processes.

python parts.py FOLDER '{"total": 6, "accumulate": 2, ...}'      (alone or under torch.distributed.run)
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from ovseg_cli.core.errors import OvsegError, Terminated, UsageError
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training.group import ONE
from ovseg_cli.core.training.loop import LoopSettings, fit
from ovseg_cli.core.training.processes import open_group, record_failure
from ovseg_cli.core.training.schedule import Schedule

BATCH = 8


class Parts(torch.utils.data.Dataset):
    """Eight pictures a step, of which some have no label, cut into parts in order."""

    def __init__(self, parts, hook=None):
        if BATCH % parts:
            raise UsageError(f"{BATCH} pictures cannot be cut into {parts} parts")
        self.parts, self.hook = parts, hook

    def __getitem__(self, index):
        step, part = divmod(index, self.parts)
        if self.hook:
            self.hook(step, part)
        generator = torch.Generator().manual_seed(step)
        images, target = torch.randn(BATCH, 4, generator=generator), torch.randn(BATCH, generator=generator)
        has_label = torch.rand(BATCH, generator=generator) < 0.6
        if step % 4 == 3:
            has_label[: BATCH // 2] = False  # the first process has nothing to learn from
        own = slice(part * BATCH // self.parts, (part + 1) * BATCH // self.parts)
        return {"images": images[own], "target": target[own], "has_label": has_label[own]}


class Sums:
    """Squared error over labelled pictures, and a term that only reaches one layer where there is a label."""

    name = "sums"

    def __init__(self, dropout=0.0, hook=None, nan_at=None, noise=0.0, after=None):
        torch.manual_seed(5)
        self.module = nn.ModuleDict(
            {"trunk": nn.Linear(4, 16), "head": nn.Linear(16, 1), "rare": nn.Linear(16, 1), "frozen": nn.Linear(2, 2)}
        )
        self.module["frozen"].requires_grad_(False)
        self.dropout, self.hook, self.nan_at, self.noise, self.calls = dropout, hook, nan_at, noise, 0
        self.after = after

    def optimizer(self):
        groups = [
            {"params": self.module["trunk"].parameters(), "lr": 0.02},
            {"params": [*self.module["head"].parameters(), *self.module["rare"].parameters()], "lr": 0.01},
        ]
        return torch.optim.AdamW(groups, lr=0.5)

    def train_mode(self):
        self.module.train()

    def kept(self):
        return {k: v for k, v in self.module.state_dict().items() if not k.startswith("frozen")}

    def steps(self, parts):
        return Parts(parts, self.hook)

    def before_step(self, batches, total):
        pass

    def normalisers(self, batch):
        return {"labelled": float(batch["has_label"].sum()), "pictures": float(len(batch["images"]))}

    def losses(self, batch, totals):
        self.calls += 1
        hidden = torch.relu(self.module["trunk"](batch["images"]))
        hidden = nn.functional.dropout(hidden, self.dropout)
        error = (self.module["head"](hidden)[:, 0] - batch["target"]) ** 2
        labelled = batch["has_label"]
        fit_term = (error * labelled).sum() / max(totals["labelled"], 1.0)
        rare = torch.zeros(())
        if labelled.any():
            rare = self.module["rare"](hidden[labelled]).abs().sum() / totals["pictures"]
        if self.nan_at is not None and self.calls == self.nan_at:
            rare = rare * float("nan")
        return {"fit": fit_term, "rare": rare}

    def after_step(self):
        if self.after:
            self.after(self.calls)
        return {"extra": 1.0}

    def evaluate(self):
        drawn = float(torch.rand(1)) * self.noise  # draws, to show that nothing follows from it
        return {"norm": float(sum(p.norm() for p in self.module.parameters())) + drawn}


def settings(total=6, **changes):
    values = {"precision": "float32", "log_every": 2, "save_every": 3, "clip_grad_norm": 1.0, **changes}
    return LoopSettings(Schedule(total, "cosine", warmup=2), **values)


def weights(task):
    return torch.cat([p.detach().flatten() for p in task.module.state_dict().values()])


def train(
    folder, total=6, resume=False, group=ONE, dropout=0.0, hook=None, nan_at=None, identity=None, after=None, **changes
):
    task = Sums(dropout, hook, nan_at if group.rank == group.world_size - 1 else None, noise=1.0, after=after)
    fit(task, settings(total, **changes), Path(folder), Silent(), "cpu", resume, group, identity)
    return task


def main():
    torch.set_num_threads(1)
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    pause = options.pop("pause", 0.0)

    def hook(step, part):
        Path(folder, f"reached-{step}-{part}").touch()
        time.sleep(pause)

    folder.mkdir(parents=True, exist_ok=True)
    with open_group("cpu") as group:
        task = train(folder, group=group, hook=hook if pause else None, **options)
        torch.save(task.module.state_dict(), folder / f"end-{group.rank}.pt")


def leave(error, message, code):
    """Answer a failure as the command line does."""
    if not record_failure(message, None, code, error):
        print(f"{type(error).__name__}: {message}", file=sys.stderr)
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(Terminated()))
    try:
        main()
    except OvsegError as error:
        leave(error, error.message, error.exit_code)
    except KeyboardInterrupt as error:
        leave(error, "stopped by Ctrl-C", 130)
    except Terminated as error:
        leave(error, "stopped by SIGTERM", 143)
