"""Which run does `--resume` mean, and is all still there that it began with? Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.runs import Run, list_runs, open_run

DATA, PICTURES = "data", "pictures"
"""Fingerprints that a run keeps: of all of its data, or, where no labels are read, of the pictures."""


@dataclass(frozen=True)
class Wanted:
    """What was typed beside `--resume`; a run has to agree with it.

    Attributes:
        method: The method.
        settings: Settings of the method and of its training.
        steps: Settings of trainings that come first, by their folder in the run.
        tables: Other entries of a run's config, by (table, key): data, class split and CLIP.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def difference(self, run: Run) -> str | None:
        """Name the first thing in which a run differs, and what the run has instead; None where it agrees."""
        of_run = {**run.config.get("training", {}), **run.config["method"]}
        of_steps = [(typed, run.config.get(step, {}), f"{step}.") for step, typed in self.steps.items()]
        for typed, there, prefix in ((self.settings, of_run, ""), *of_steps):
            for key, value in typed.items():
                if not _agrees(there.get(key), value):
                    return f"{prefix}{key} ({there.get(key, 'the default')})"
        for (table, key), value in self.tables.items():
            if (has := run.config.get(table, {}).get(key)) != value:
                return f"{key if table == 'run' else table} ({has})"
        return None


def _agrees(there: Any, typed: Any) -> bool:
    """Whether a run's value is the one typed; of a table only the keys that were typed."""
    if isinstance(typed, Mapping):
        return isinstance(there, Mapping) and all(_agrees(there.get(key), value) for key, value in typed.items())
    return bool(there == typed)


def run_to_resume(wanted: Wanted, runs: Path, path: Path | None = None) -> Run:
    """Find the run to go on with.

    Args:
        wanted: What it has to agree with.
        runs: Folder of all runs.
        path: What `--run` named; None takes the newest unfinished run that agrees.

    Raises:
        UsageError: There is none, it is finished, or it differs.
    """
    if path is not None:
        return _named(wanted, path)
    for run in list_runs(runs):
        fits = run.method == wanted.method and run.kind == "segmentation" and "training" in run.config
        if fits and not run.is_finished and wanted.difference(run) is None:
            return run
    having = " with these settings" if wanted.settings or wanted.steps or wanted.tables else ""
    raise UsageError(
        f"--resume: there is no unfinished run of {wanted.method}{having} in {runs}/.",
        "Leave --resume out to begin one; `ovseg list runs` shows all.",
    )


def _named(wanted: Wanted, path: Path) -> Run:
    run = open_run(path)
    if run.method != wanted.method:
        mend = f"Type: ovseg train {run.method} --resume --run {path}"
        raise UsageError(f"--run {path}: this is a run of {run.method}, not of {wanted.method}.", mend)
    if run.is_finished:
        raise UsageError(f"--run {path}: this run is finished, there is nothing to go on with.")
    if "training" not in run.config:
        raise UsageError(f"--run {path}: this run is no training.", "`ovseg list runs` shows all runs.")
    if (differs := wanted.difference(run)) is not None:
        raise UsageError(f"--run {path} has another {differs} than the one given.", "Leave it out, or begin a new run.")
    return run


def fingerprints_of(prepared: PreparedData, subset: str, with_labels: bool) -> dict[str, str]:
    """Return what a run keeps of its data: fingerprints of all of it, or of the pictures of a subset alone."""
    if with_labels:
        return {DATA: prepared.fingerprint}
    return {PICTURES: prepared.subset(subset, labels=False).fingerprint}


def check_unchanged(run: Run, prepared: PreparedData, subset: str) -> None:
    """Refuse to go on with a run whose data was prepared anew and differs: before anything is made for it.

    Where the run reads no labels, they may differ.

    Args:
        run: The run.
        prepared: Its data.
        subset: What it is trained on.

    Raises:
        DataError: It differs.
    """
    begun_with = run.config.get("fingerprints", {})
    for what, now in fingerprints_of(prepared, subset, PICTURES not in begun_with).items():
        if begun_with.get(what, now) != now:
            raise DataError(
                f"{run.path}: the {what} in {prepared.root} {'is' if what == DATA else 'are'} not what this run began "
                f"with (fingerprint {now[:12]}, was {begun_with[what][:12]}).",
                f"Bring the former {what} back, or begin a new run without --resume.",
            )
