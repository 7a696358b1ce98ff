"""What `ovseg train` does: a run folder for a trainer, its settings checked first, resumable.

`plan` imports no torch, so that a wrong setting is answered at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg_cli.core import registry
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import folder_lock
from ovseg_cli.core.methods.build import check_settings
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import Run, create_run, list_runs, open_run
from ovseg_cli.core.runtime import Folders, open_runtime


@dataclass(frozen=True)
class TrainRequest:
    """Options of `ovseg train`, as typed.

    Attributes:
        trainer: Name in `registry.TRAINERS`.
        settings: What `--config` and `--set` said.
        resume: Go on with a run instead of beginning one.
        run: Which run to go on with; None: the newest unfinished one of this trainer that has the settings given.
        gpus: What `--gpus` said.
        folder: Where a new run lies; None: `TRAINER-DATA-TIME` below the folder of all runs.
    """

    trainer: str
    settings: dict[str, Any]
    resume: bool = False
    run: Path | None = None
    gpus: int | None = None
    folder: Path | None = None


def plan(request: TrainRequest, folders: Folders) -> dict[str, Any]:
    """Check the settings and say what would be done.

    Raises:
        UsageError: An unknown trainer, an unknown setting, a wrong value, or nothing to go on with.
        DataError: `--run` names a folder that is no run.
    """
    config, run = _resolve(request, folders)
    entry = registry.TRAINERS[request.trainer]
    document = {
        "schema": 1,
        "trains": request.trainer,
        "run": str(run.path) if run else f"{folders.runs}/{request.trainer}-{entry.data}-TIME",
        "resumes": run is not None,
        **entry.load_estimate()(config),
        "settings": config.model_dump(mode="json"),
    }
    return document


def _resolve(request: TrainRequest, folders: Folders) -> tuple[Any, Run | None]:
    """Check the settings; find the run to go on with, if any."""
    entry = registry.lookup(registry.TRAINERS, "trainer", request.trainer)
    config = check_settings(entry.load_settings(), request.settings, request.trainer)
    if not request.resume:
        if request.run is not None:
            raise UsageError(f"--run {request.run} names a run to go on with.", "Add --resume.")
        return config, None
    run = _run_to_resume(request, config.model_dump(mode="json"), folders)
    return check_settings(entry.load_settings(), run.config["method"], str(run.path)), run


def _run_to_resume(request: TrainRequest, given: dict[str, Any], folders: Folders) -> Run:
    wanted = {key: given[key] for key in request.settings}
    if request.run is not None:
        run = open_run(request.run)
        if run.method != request.trainer:
            mend = f"Type: ovseg train {run.method} --resume --run {request.run}"
            raise UsageError(f"--run {request.run}: this is a run of {run.method}, not of {request.trainer}.", mend)
        if run.is_finished:
            raise UsageError(f"--run {request.run}: this run is finished, there is nothing to go on with.")
        if differs := [key for key, value in wanted.items() if run.config["method"].get(key) != value]:
            what = f"--run {request.run} has another {differs[0]} ({run.config['method'].get(differs[0])})"
            raise UsageError(f"{what} than the one given.", "Leave the settings out, or begin a new run.")
        return run
    for run in list_runs(folders.runs):
        same = all(run.config["method"].get(key) == value for key, value in wanted.items())
        if run.kind == request.trainer and not run.is_finished and same:
            return run
    having = " with these settings" if wanted else ""
    raise UsageError(
        f"--resume: there is no unfinished run of {request.trainer}{having} in {folders.runs}/.",
        "Leave --resume out to begin one; `ovseg list runs` shows all.",
    )


def train(request: TrainRequest, folders: Folders, reporter: Reporter) -> dict[str, Any]:
    """Train, in a new run folder or on from an old one's newest checkpoint.

    Returns:
        The run folder and the figures that the trainer measured.

    Raises:
        UsageError: See `plan`.
        MachineError: The device, the disk, or another process trains in this run folder.
        TrainingError: A loss is not finite; the last good checkpoint is kept.
    """
    config, old = _resolve(request, folders)
    runtime = open_runtime(request.gpus, config.seed)
    for note in runtime.notes:
        reporter.say(note)
    if len(runtime.devices) > 1:
        reporter.say(f"{len(runtime.devices)} GPUs asked for: {request.trainer} trains on one, {runtime.device}")
    tables = {"method": config.model_dump(mode="json")}
    data = registry.TRAINERS[request.trainer].data
    run = old or create_run(folders.runs, request.trainer, request.trainer, data, tables, config.seed, request.folder)
    reporter.say(f"run folder: {run.path}")
    begun = old is not None and any((run.path / "checkpoints").glob("*"))
    with folder_lock(run.path, "training"):
        figures = registry.TRAINERS[request.trainer].load()(
            config, run.path, reporter, resume=begun, device=runtime.device
        )
    run.finish()
    return {"schema": 1, "run": str(run.path), "figures": figures}
