"""What does a training start from? New weights, those of a run that was named, or those of its own first step."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.methods.build import (
    FIRST_STEP,
    ModelChoice,
    choose_model,
    implied_settings,
    merge,
    read_weights,
)
from ovseg_cli.core.runs import WEIGHTS, Run, open_run

if TYPE_CHECKING:
    from ovseg_cli.core.methods.trained import TrainedMethod
    from ovseg_cli.core.methods.training_config import TrainingConfig

START = "start"
"""Table in the config of a run: what must be said of the weights that it started from."""


def with_first_step(
    method_class: Any, training: "TrainingConfig", settings: dict[str, Any], steps: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Settle the settings of the step that the training starts from.

    What was typed holds for it too, but what it asks for itself and what was typed for it alone ("inductive.KEY") stand
    above; what follows from the setting of the training is the training's own.

    Raises:
        UsageError: Settings are given for such a step, and there is none.
    """
    first = method_class.first_step(training)
    if first is None:
        if typed := steps.get(FIRST_STEP):
            what = f"{FIRST_STEP}.{min(typed)}: no other step comes before this training of {method_class.name}."
            raise UsageError(what, "Leave it out.")
        return steps
    own = {*implied_settings(method_class, {**settings, **training.model_dump()}), "init", "seed"}
    shared = {key: value for key, value in settings.items() if key not in own}
    return {**steps, FIRST_STEP: merge(merge(shared, first), steps.get(FIRST_STEP, {}))}


def check_init(
    init: str, model: ModelChoice, data: tuple[str, str | None], labelled: tuple[str, ...], runs: Path
) -> None:
    """Check that a training can start from a run, from what the run says of itself.

    Args:
        init: What `--init` named.
        model: What is to be trained.
        data: What `--data` and `--unseen` are.
        labelled: Names of the classes whose labels the training reads.
        runs: Folder of all runs.

    Raises:
        UsageError: It is of another method, CLIP or class split, is not finished, or has read more labels.
    """
    run, where = open_run(Path(init)), f"--init {init}:"
    if run.method != model.method:
        raise UsageError(f"{where} this is a run of {run.method}, not of {model.method}.", "Name one of the latter.")
    if not run.is_finished:
        going_on = f"Go on with it first: ovseg train {run.method} --resume --run {init}"
        raise UsageError(f"{where} this run is not finished.", going_on)
    if run.data != data:
        there, here = (f'{name} --unseen "{unseen}"' if unseen else name for name, unseen in (run.data, data))
        raise UsageError(f"{where} was trained on {there}, this training is on {here}.", f"Use --data {there}")
    _check_clip(run, model, runs, where)
    names = run.config.get("vocabulary", {}).get("training_names") or ()
    if more := [name for name in names if name not in labelled]:
        what = f"{where} was trained on labels of '{more[0]}', which this training must not have seen."
        raise UsageError(what, "Name a run that was trained on seen classes only.")


def _check_clip(run: Run, model: ModelChoice, runs: Path, where: str) -> None:
    found = choose_model(run.as_model, runs)
    if _clip_of(found) != _clip_of(model):
        there, here = (m.clip if m.pretrained is None else f"{m.clip} / {m.pretrained}" for m in (found, model))
        tag = f" --pretrained {found.pretrained}" if found.pretrained else ""
        raise UsageError(f"{where} has the CLIP {there}, this training {here}.", f"Use --clip {found.clip}{tag}")


def _clip_of(model: ModelChoice) -> tuple[str, str | None]:
    """Name and weights of a CLIP, whichever way its path was typed."""
    is_there = Path(model.clip).exists()
    return str(Path(model.clip).resolve()) if is_there else model.clip, model.pretrained


def load_start(method: "TrainedMethod", init: str, run: Run | None = None) -> None:
    """Load what a training starts from, where that is no new weights.

    Args:
        method: Gets the weights.
        init: Run folder that the user named, or "".
        run: The run that is trained; its own first step lies in it. None where there is none yet.

    Raises:
        UsageError: The run that was named is not there any more.
        DataError: The weights are missing, broken, or do not fit the settings.
    """
    inner = run.path / FIRST_STEP if run is not None and (run.path / FIRST_STEP).is_dir() else None
    folder = Path(init) if init else inner
    if folder is None:
        return
    weights = read_weights(open_run(folder))
    try:
        method.load_trained_state(weights, str(folder / WEIGHTS))
    except DataError as error:
        raise DataError(error.message, f"Use the settings that it was trained with: ovseg show {folder}") from error


def caveats_of(method_class: Any, tables: Mapping[str, Any]) -> list[str]:
    """Return what must be said of a run's scores: of its own training, and of the one whose weights it started from.

    Args:
        method_class: The method.
        tables: The config of the run; of a converted one, what is known of its training stands in `conversion`.
    """
    training = tables.get("training") or tables.get("conversion", {})
    own = list(getattr(method_class, "caveats", lambda _: [])(training))
    return list(dict.fromkeys([*own, *tables.get(START, {}).get("caveats", [])]))
