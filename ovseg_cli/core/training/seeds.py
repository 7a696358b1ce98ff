"""Several seeds of one training: `runs/METHOD-DATA-TIME/seed-0 …`, one after the other, each a run folder of its own.

A family is nothing but such a folder: which seeds are wanted is typed, what there is says the disk. So a training that
was stopped at any moment goes on: finished seeds are kept, the one under way continues, missing ones begin, with the
settings of those that are there.
"""

import gc
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import OvsegError, Terminated, UsageError
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import CONFIG, SEED, Run, fresh_folder, list_runs, open_run
from ovseg_cli.core.runtime import Folders, find_place
from ovseg_cli.core.training.seed_kinds import SeedKind


@dataclass(frozen=True)
class SeedsRequest:
    """Options of `ovseg train … --seeds N`, as typed.

    Attributes:
        kind: What is trained, with the settings given.
        count: How many seeds.
        first: The first seed; None: 0, and on resume that of the family.
        resume: Go on with a family.
        family: Which one; None: the newest unfinished one that has the settings given.
    """

    kind: SeedKind
    count: int
    first: int | None = None
    resume: bool = False
    family: Path | None = None


@dataclass(frozen=True)
class SeedsPlan:
    """What is there, and what is wanted.

    Attributes:
        kind: What is trained.
        seeds: The seeds wanted, in order; each with its run, where that has begun.
        family: The folder to go on with, or None.
        model: A run of the family, whose settings missing seeds take; None for a new family.
        stem: Name of a new family without its time.
    """

    kind: SeedKind
    seeds: Mapping[int, Run | None]
    family: Path | None
    model: Run | None
    stem: str

    def request(self, seed: int) -> Any:
        """What a seed that is not finished asks for."""
        run = self.seeds[seed]
        if run is not None:
            return self.kind.again(run)
        return self.kind.fresh(seed) if self.model is None else self.kind.like(self.model, seed)

    def state(self, seed: int) -> str:
        """Say in a word what would become of a seed."""
        run = self.seeds[seed]
        return "begins" if run is None else "is kept" if run.is_finished else "goes on"


@dataclass(frozen=True)
class SeedsOutcome:
    """What several seeds came to.

    Attributes:
        family: Their folder.
        runs: Run folder of each seed.
        measured: A `Scored` of each seed, or the figures of its training.
    """

    family: Path
    runs: Mapping[int, Path]
    measured: Mapping[int, Any]


def plan_seeds(request: SeedsRequest, folders: Folders, reporter: Reporter) -> SeedsPlan:
    """Check everything that can be checked, and find what is there.

    Raises:
        UsageError: No seed, nothing to go on with, or a family of another method, of other settings or seeds.
        DataError: Data are missing, or have no subset to score.
    """
    kind = request.kind
    if find_place().world_size > 1:
        raise UsageError("--seeds: a launcher has started several processes of this.", "Use --gpus N instead.")
    if request.count < 1:
        raise UsageError(f"--seeds {request.count}: one seed is the least.", "For instance --seeds 3")
    if request.family is not None and not request.resume:
        raise UsageError(f"--run {request.family} names a folder of seeds to go on with.", "Add --resume.")
    if not request.resume:
        first = request.first or 0
        label = kind.label(kind.fresh(first), folders, reporter).replace(":", "-").replace("/", "-")
        return SeedsPlan(kind, dict.fromkeys(range(first, first + request.count)), None, None, f"{kind.name}-{label}")
    family, runs = _named(request, folders) if request.family else _newest(request, folders)
    first = min(runs)
    seeds = {seed: runs.get(seed) for seed in range(first, first + request.count)}
    return SeedsPlan(kind, seeds, family, runs[first], family.name)


def _named(request: SeedsRequest, folders: Folders) -> tuple[Path, dict[int, Run]]:
    """Open the folder that `--run` names."""
    path, kind = request.family, request.kind
    assert path is not None
    runs = open_seeds(path)
    if not runs:
        if not path.is_dir():
            raise UsageError(f"--run {path}: there is no such folder.", "`ovseg list runs` shows all runs.")
        if _seed_of(path) is not None and (path / CONFIG).is_file():
            raise UsageError(f"--run {path}: this is one seed of several.", f"Name their folder: --run {path.parent}")
        what = "this is a single run" if (path / CONFIG).is_file() else "this folder holds no seeds"
        raise UsageError(f"--run {path}: {what}.", "Leave --seeds out, or name a folder with seed-0 in it.")
    for run in runs.values():
        if not kind.fits(run):
            mend = f"Type: ovseg train {run.method} --seeds {request.count} --resume --run {path}"
            raise UsageError(f"--run {path}: these are seeds of {run.method}, not of {kind.name}.", mend)
        if (differs := kind.difference(run, folders)) is not None:
            raise UsageError(
                f"--run {path} has another {differs} than the one given.", "Leave it out, or begin new seeds."
            )
    if request.first not in (None, min(runs)):
        raise UsageError(f"--run {path} begins with seed {min(runs)}, not {request.first}.", "Leave --seed out.")
    return path, runs


def _newest(request: SeedsRequest, folders: Folders) -> tuple[Path, dict[int, Run]]:
    """Find the newest unfinished family that has the settings given; where all are finished, the newest of these."""
    kind, families = request.kind, _families(folders.runs)
    fitting = [
        (path, runs)
        for path, runs in families.items()
        if all(kind.fits(run) and kind.difference(run, folders) is None for run in runs.values())
        and request.first in (None, min(runs))
    ]
    if not fitting:
        raise UsageError(
            f"--resume: there are no seeds of {kind.name} with these settings in {folders.runs}/.",
            "Leave --resume out to begin; `ovseg list runs` shows all.",
        )
    for path, runs in fitting:
        wanted = range(min(runs), min(runs) + request.count)
        if not all(seed in runs and kind.is_done(runs[seed]) for seed in wanted):
            return path, runs
    return fitting[0]


def _families(runs: Path) -> dict[Path, dict[int, Run]]:
    """All folders of seeds, newest first, with their runs by seed."""
    found: dict[Path, dict[int, Run]] = {}
    for run in list_runs(runs):
        seed = _seed_of(run.path)
        if seed is not None and run.path.parent != runs:
            found.setdefault(run.path.parent, {})[seed] = run
    return found


def open_seeds(family: Path) -> dict[int, Run]:
    """Open the runs of a folder of seeds; none where it holds none.

    Raises:
        DataError: A run is broken.
    """
    paths = {_seed_of(path.parent): path.parent for path in family.glob(f"{SEED}*/{CONFIG}")}
    return {seed: open_run(path) for seed, path in sorted((s, p) for s, p in paths.items() if s is not None)}


def _seed_of(path: Path) -> int | None:
    found = re.fullmatch(f"{SEED}([0-9]+)", path.name)
    return int(found[1]) if found else None


def plan_document(plan: SeedsPlan, folders: Folders, reporter: Reporter) -> dict[str, Any]:
    """Say what `train_seeds` would do: what becomes of each seed, and the plan of one of them."""
    left = [seed for seed, run in plan.seeds.items() if run is None or not run.is_finished]
    document: dict[str, Any] = {
        "schema": 1,
        "trains": plan.kind.name,
        "run": str(plan.family) if plan.family else f"{folders.runs}/{plan.stem}-TIME",
        "seeds": {f"{SEED}{seed}": plan.state(seed) for seed in plan.seeds},
    }
    if left:
        each = plan.kind.plan(plan.request(left[0]), folders, reporter)
        document["disk_mib"] = len(left) * each.get("disk_mib", 0) or None
        document["each"] = {k: v for k, v in each.items() if k not in ("schema", "trains", "run", "resumes")}
    return document


def train_seeds(plan: SeedsPlan, folders: Folders, reporter: Reporter) -> SeedsOutcome:
    """Train and measure each seed in turn; what is finished is kept, whatever stops the others.

    Raises:
        OvsegError: What stopped a seed; its message names the seed and the command that goes on.
        KeyboardInterrupt, Terminated: After the seed under way was saved; a note names the command that goes on.
    """
    family = plan.family or fresh_folder(folders.runs, plan.stem)
    reporter.say(f"seeds {', '.join(map(str, plan.seeds))}, in {family}")
    runs: dict[int, Path] = {}
    measured: dict[int, Any] = {}
    for seed, run in plan.seeds.items():
        path = runs[seed] = run.path if run else family / f"{SEED}{seed}"
        with _stopped_at(seed, family):
            if run is None or not run.is_finished:
                reporter.say(f"seed {seed} {plan.state(seed)}")
                request = plan.request(seed)
                plan.kind.train(request if run else replace(request, folder=path), folders, reporter)
                gc.collect()  # the model of this seed leaves before the next one comes
            measured[seed] = plan.kind.measure(open_run(path), folders, reporter)
    return SeedsOutcome(family, runs, measured)


@contextmanager
def _stopped_at(seed: int, family: Path) -> Iterator[None]:
    """Say how to go on, to whatever stops the block; a family in which nothing has begun is removed."""
    try:
        yield
    except OvsegError as error:
        with suppress(OSError):
            family.rmdir()
        if family.is_dir():
            go_on = f"What is finished is kept. To go on, type: {_command(family)}"
            error.message, error.mend = f"seed {seed}: {error.message}", " ".join(filter(None, [error.mend, go_on]))
        raise
    except (KeyboardInterrupt, Terminated) as stop:
        with suppress(OSError):
            family.rmdir()
        if family.is_dir():
            stop.add_note(f"To go on, type: {_command(family)}")
        raise


def _command(family: Path) -> str:
    """The command as typed, with what lets it go on."""
    words = sys.argv[1:]
    more = [] if "--resume" in words else ["--resume"]
    if not any(word == "--run" or word.startswith("--run=") for word in words):
        more += ["--run", str(family)]
    return shlex.join(["ovseg", *words, *more])
