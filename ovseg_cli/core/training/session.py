"""What `ovseg train` does: a run folder for a trainer, its settings checked first, resumable.

`plan` imports no torch, so that a wrong setting is answered at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg_cli.core import registry
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.build import check_settings
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import Run, create_run, open_run
from ovseg_cli.core.runtime import Folders, open_runtime


@dataclass(frozen=True)
class TrainRequest:
    """Options of `ovseg train`, as typed.

    Attributes:
        trainer: Name in `registry.TRAINERS`.
        settings: What `--config` and `--set` said.
        resume: Run folder to go on with, or None.
        gpus: What `--gpus` said.
    """

    trainer: str
    settings: dict[str, Any]
    resume: Path | None = None
    gpus: int | None = None


def plan(request: TrainRequest) -> dict[str, Any]:
    """Check the settings and say what would be done.

    Raises:
        UsageError: An unknown trainer, an unknown setting, a wrong value, or `--resume` together with settings.
        DataError: `--resume` names a folder that is no run.
    """
    config = _config(request)
    document = {"schema": 1, "trains": request.trainer, "settings": config.model_dump(mode="json")}
    if request.resume is not None:
        document["resumes"] = str(request.resume)
    return document


def _config(request: TrainRequest) -> Any:
    entry = registry.lookup(registry.TRAINERS, "trainer", request.trainer)
    settings = dict(request.settings)
    if request.resume is not None:
        if settings:
            raise UsageError(
                f"--resume {request.resume} goes on with the settings of that run, but others were given.",
                "Leave out --set, --config and --seed, or begin a new run without --resume.",
            )
        run = open_run(request.resume)
        if run.method != request.trainer:
            raise UsageError(
                f"--resume {request.resume}: this is a run of {run.method}, not of {request.trainer}.",
                f"Type: ovseg train {run.method} --resume {request.resume}",
            )
        settings = dict(run.config["method"])
    return check_settings(entry.load_settings(), settings, request.trainer)


def train(request: TrainRequest, folders: Folders, reporter: Reporter) -> dict[str, Any]:
    """Train, in a new run folder or on from an old one's newest checkpoint.

    Returns:
        The run folder and the figures that the trainer measured.

    Raises:
        UsageError: See `plan`; or there is no checkpoint to go on from.
        MachineError: The device or the disk.
        TrainingError: A loss is not finite; the last good checkpoint is kept.
    """
    config = _config(request)
    runtime = open_runtime(request.gpus, config.seed)
    for note in runtime.notes:
        reporter.say(note)
    run = _run_folder(request, config, folders)
    if run.is_finished:
        raise UsageError(f"{run.path}: this run is finished, there is nothing to go on with.")
    reporter.say(f"run folder: {run.path}")
    figures = registry.TRAINERS[request.trainer].load()(
        config, run.path, reporter, resume=request.resume is not None, device=runtime.device
    )
    run.finish()
    return {"schema": 1, "run": str(run.path), "figures": figures}


def _run_folder(request: TrainRequest, config: Any, folders: Folders) -> Run:
    if request.resume is not None:
        return open_run(request.resume)
    tables = {"method": config.model_dump(mode="json")}
    return create_run(folders.runs, request.trainer, request.trainer, "toy", tables, config.seed)
