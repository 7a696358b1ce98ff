"""How is one seed of several begun, gone on with, trained and measured? Of a method, and of a trainer's CLIP."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ovseg_cli.core import registry
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.request import SCORE_SUBSET, EvalPlan, EvalRequest, resolve, result_name
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import HOST, Run
from ovseg_cli.core.runtime import Folders, count_gpus
from ovseg_cli.core.training import processes, session
from ovseg_cli.core.training.request import STEPS, MethodRequest, resolve_training, wanted_run
from ovseg_cli.core.training.session import TrainRequest


class SeedKind(Protocol):
    """What `seeds.py` has to know about what is trained."""

    name: str

    def fits(self, run: Run) -> bool:
        """Whether a run is a training of this."""

    def difference(self, run: Run, folders: Folders) -> str | None:
        """Name the first thing in which a run differs from what was typed; None where it agrees."""

    def is_done(self, run: Run) -> bool:
        """Whether nothing is left to train or to measure."""

    def fresh(self, seed: int) -> Any:
        """Request a new seed with the settings typed."""

    def like(self, run: Run, seed: int) -> Any:
        """Request a new seed with the settings of a run."""

    def again(self, run: Run) -> Any:
        """Request that an unfinished run goes on."""

    def label(self, request: Any, folders: Folders, reporter: Reporter) -> str:
        """Check a request of a new seed; return what the data is called."""

    def plan(self, request: Any, folders: Folders, reporter: Reporter) -> dict[str, Any]:
        """Say what the training of a request would do."""

    def train(self, request: Any, folders: Folders, reporter: Reporter) -> None:
        """Train one seed to its end."""

    def measure(self, run: Run, folders: Folders, reporter: Reporter) -> Any:
        """Return what a finished seed is worth: a `Scored`, or a trainer's figures."""


class MethodSeeds:
    """Seeds of a method; each is scored on the scoring subset under its run's own protocol."""

    def __init__(self, request: MethodRequest):
        self.request, self.name = request, request.method

    def fits(self, run: Run) -> bool:
        """Whether a run is a training of this method."""
        return run.method == self.name and run.kind == "segmentation" and "training" in run.config

    def difference(self, run: Run, folders: Folders) -> str | None:
        """Compare a run with all that was typed."""
        return wanted_run(self.request, folders).difference(run)

    def is_done(self, run: Run) -> bool:
        """Whether the run is finished and holds a result."""
        return run.is_finished and bool(run.result_files())

    def fresh(self, seed: int) -> MethodRequest:
        """Request a new seed with the settings typed."""
        return replace(self.request, settings={**self.request.settings, "seed": seed})

    def like(self, run: Run, seed: int) -> MethodRequest:
        """Request a new seed with the settings of a run, those of the steps that come first too."""
        config, (data, unseen) = run.config, run.data
        settings = {**config["method"], **config["training"], "seed": seed}
        host = settings.pop(HOST, None) if HOST in config else None  # the name of the host, which has an option
        settings |= {step: config[step] for step in STEPS if step in config}
        return MethodRequest(
            self.name,
            data=data,
            unseen=unseen,
            clip=config["clip"]["name"],
            pretrained=config["clip"].get("pretrained"),
            host=host,
            settings=settings,
            gpus=self.request.gpus,
        )

    def again(self, run: Run) -> MethodRequest:
        """Request that an unfinished run goes on."""
        return MethodRequest(self.name, resume=True, run=run.path, gpus=self.request.gpus)

    def label(self, request: MethodRequest, folders: Folders, reporter: Reporter) -> str:
        """Check a request of a new seed; return the data's label.

        Raises:
            DataError: There is nothing to score the seeds on.
        """
        choice = resolve_training(request, folders, reporter).data
        prepared = PreparedData.open(choice.spec, folders)
        if SCORE_SUBSET not in prepared.subsets:
            what = f"{prepared.root}: there is no subset '{SCORE_SUBSET}' to score the seeds on."
            raise DataError(what, "Train without --seeds, and score with --subset.")
        if not prepared.subset(SCORE_SUBSET).has_labels:
            what = f"{prepared.root}: the subset '{SCORE_SUBSET}' has no labels to score the seeds on."
            raise DataError(what, "Train without --seeds, and score with --data.")
        return choice.label

    def plan(self, request: MethodRequest, folders: Folders, reporter: Reporter) -> dict[str, Any]:
        """Say what the training of one seed would do."""
        from ovseg_cli.core.training.method_session import plan_document

        return plan_document(request, folders, reporter)

    def train(self, request: MethodRequest, folders: Folders, reporter: Reporter) -> None:
        """Train one seed, in a process for each GPU where there are several."""
        from ovseg_cli.core.training.method_session import begin_run, train_method

        if count_gpus(request.gpus) < 2:
            train_method(request, folders, reporter)
            return
        path = request.run or begin_run(request, folders, reporter).path
        words = ["train", self.name, "--resume", "--run", str(path), *_places(request.gpus, folders)]
        processes.launch_if_needed(request.gpus, argv=words, quiet=True)

    def measure(self, run: Run, folders: Folders, reporter: Reporter) -> Any:
        """Score a finished seed; a poor one stops nothing, since how much seeds differ is the question.

        Returns:
            A `Scored`. The same evaluation, made before, is read.
        """
        from ovseg_cli.core.evaluation.results import Result
        from ovseg_cli.core.evaluation.session import Scored, find_scored, score

        plan = resolve(EvalRequest(run.as_model, force=True, gpus=self.request.gpus), folders, reporter)
        path = _result_path(run, plan)
        if path.is_file() and (stored := find_scored(plan, folders, reporter)) and stored.path == path:
            return stored
        words = ["eval", run.as_model, "--force", *_places(self.request.gpus, folders)]
        if processes.launch_if_needed(self.request.gpus, argv=words, quiet=True) is None:
            score(plan, folders, reporter)
        return Scored(Result.load(path), path)


class ClipSeeds:
    """Seeds of a trainer, whose CLIP is no segmentation method: the figures of its training are what is compared."""

    def __init__(self, request: TrainRequest):
        self.request, self.name = request, request.trainer

    def fits(self, run: Run) -> bool:
        """Whether a run is a training of this CLIP."""
        return run.kind == self.name

    def difference(self, run: Run, folders: Folders) -> str | None:
        """Compare a run with the settings typed."""
        there = run.config["method"]
        differs = [key for key, value in self.request.settings.items() if there.get(key) != value]
        return f"{differs[0]} ({there.get(differs[0])})" if differs else None

    def is_done(self, run: Run) -> bool:
        """Whether the run is finished."""
        return run.is_finished

    def fresh(self, seed: int) -> TrainRequest:
        """Request a new seed with the settings typed."""
        return replace(self.request, settings={**self.request.settings, "seed": seed})

    def like(self, run: Run, seed: int) -> TrainRequest:
        """Request a new seed with the settings of a run."""
        return replace(self.request, settings={**run.config["method"], "seed": seed})

    def again(self, run: Run) -> TrainRequest:
        """Request that an unfinished run goes on."""
        return TrainRequest(self.name, {}, resume=True, run=run.path, gpus=self.request.gpus)

    def label(self, request: TrainRequest, folders: Folders, reporter: Reporter) -> str:
        """Check a request of a new seed; return what the data is called."""
        session.plan(request, folders)
        return registry.TRAINERS[self.name].data

    def plan(self, request: TrainRequest, folders: Folders, reporter: Reporter) -> dict[str, Any]:
        """Say what the training of one seed would do."""
        return session.plan(request, folders)

    def train(self, request: TrainRequest, folders: Folders, reporter: Reporter) -> None:
        """Train one seed."""
        session.train(request, folders, reporter)

    def measure(self, run: Run, folders: Folders, reporter: Reporter) -> dict[str, Any]:
        """Read the figures that the training left."""
        from ovseg_cli.core.training.toy_clip import FIGURES

        figures: dict[str, Any] = json.loads((run.path / FIGURES).read_text(encoding="utf-8"))["figures"]
        return figures


def _places(gpus: int | None, folders: Folders) -> list[str]:
    return ["--gpus", str(count_gpus(gpus)), "--data-root", str(folders.data), "--runs", str(folders.runs)]


def _result_path(run: Run, plan: EvalPlan) -> Path:
    return run.path / "results" / f"{result_name(plan.data[0], plan.subsets[0], plan.request, '')}.json"
