"""What `ovseg train METHOD` does: host step and proposals where they are needed, then the loop, then the weights.

A run folder is whole by itself: `config.toml` (tables run, clip, method, training, vocabulary, fingerprints),
`model.safetensors`, `host/` (the run whose masks it learned from), `metrics.jsonl`, `curves.png`, `checkpoints/`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovseg_cli.core import registry
from ovseg_cli.core.clip.model import ClipModel, load_clip, parameter_count
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.files import folder_lock, write_bytes
from ovseg_cli.core.methods.build import build_method, choose_model, open_source
from ovseg_cli.core.methods.masked import SourceMethod
from ovseg_cli.core.methods.texts import default_templates, method_text, names_of, training_vocabulary
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import CONFIG, HOST, LIVE, WEIGHTS, Run, create_run, open_run
from ovseg_cli.core.runtime import Folders, Runtime, open_runtime, seed_everything
from ovseg_cli.core.training.checkpoint import has_checkpoint
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.training.host_runs import copy_run, matching_run
from ovseg_cli.core.training.live_masks import LiveMasks
from ovseg_cli.core.training.loop import LoopSettings, fit
from ovseg_cli.core.training.masks_for_training import masks_for_training
from ovseg_cli.core.training.method_data import TrainData, open_train_data
from ovseg_cli.core.training.method_task import MethodTask, loop_settings_of
from ovseg_cli.core.training.precision import choose_precision
from ovseg_cli.core.training.processes import open_group
from ovseg_cli.core.training.request import TRAIN_SUBSET, MethodPlan, MethodRequest, host_request, resolve_training
from ovseg_cli.core.training.scores_under_way import scorer
from ovseg_cli.core.types import Vocabulary


def train_method(request: MethodRequest, folders: Folders, reporter: Reporter) -> dict[str, Any]:
    """Train a method, in a new run folder or on from an old one's newest checkpoint.

    Returns:
        The run folder and the figures of the training.

    Raises:
        UsageError: A name or setting is wrong; see `resolve_training`.
        DataError: Data or proposals are missing, broken, or have changed since the run began.
        MachineError: The device, the disk, or another process trains in this run folder.
        TrainingError: A loss is not finite; the last good checkpoint is kept.
    """
    plan = resolve_training(request, folders, reporter)
    runtime = open_runtime(request.gpus, plan.training.seed)
    choose_precision(plan.training.precision, runtime.device)  # what is wrong is said before a run folder is made
    _data_of(plan, folders, plan.cache)
    with open_group(runtime.device) as group:
        reporter = group.quiet(reporter)
        for note in runtime.notes:
            reporter.say(note)
        with group.main_first():  # weights that are missing are said before a run folder is made
            clip = load_clip(plan.model.clip, plan.model.pretrained, device=runtime.device, reporter=reporter)
        method = _method_of(plan, clip)
        run = plan.run or group.on_main(lambda: _begin(plan, folders))
        reporter.say(f"run folder: {run.path}")
        figures = _train(plan, run, method, folders, runtime, reporter, group)
    return {"schema": 1, "run": str(run.path), "figures": figures}


def plan_document(request: MethodRequest, folders: Folders, reporter: Reporter) -> dict[str, Any]:
    """Say what `train_method` would do: paths, counts, steps, memory and disk (both estimated), settings."""
    plan = resolve_training(request, folders, reporter)
    open_runtime(request.gpus, plan.training.seed)
    data = _data_of(plan, folders, plan.cache)
    label = plan.data.label.replace(":", "-").replace("/", "-")
    new = f"{folders.runs}/{request.method}-{label}-TIME"
    document: dict[str, Any] = {
        "schema": 1,
        "trains": request.method,
        "data": plan.data.label,
        "pictures": len(data.pictures),
        "without_a_seen_class": data.skipped,
        "seen_classes": len(data.seen_ids),
        "clip": plan.model.clip if plan.model.pretrained is None else f"{plan.model.clip} / {plan.model.pretrained}",
        "run": str(plan.run.path) if plan.run else new,
        "resumes": plan.run is not None,
        "steps": plan.training.iterations,
        "epochs": round(plan.training.iterations * plan.training.batch_size / len(data.pictures), 2),
        **estimate_sizes(plan),
        "settings": plan.config.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
    }
    if plan.needs_host:
        host = resolve_training(host_request(plan), folders, reporter)
        found = matching_run(host, folders)
        reused = f"masks of {found.path}, a finished run" if found else f"{host.training.iterations} steps first"
        document["host"] = {"method": host.model.method, "step": reused}
    return document


def estimate_sizes(plan: MethodPlan) -> dict[str, Any]:
    """Megabytes of weights, optimizer state and checkpoints, from the shapes alone; activations are not counted."""
    count = parameter_count(plan.model.clip)
    if count is None:
        return {}
    mib = 4 * count / 2**20
    return {"memory_mib": round(4 * mib), "disk_mib": round(7 * mib)}


def _begin(plan: MethodPlan, folders: Folders, path: Path | None = None, kind: str = "segmentation") -> Run:
    """Make the run folder with all that is settled before the first step."""
    model, vocabulary = plan.model, vocabulary_of(plan)
    tables: dict[str, Any] = {
        "clip": {"name": model.clip, "pretrained": model.pretrained},
        "method": plan.config.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "vocabulary": {
            "unseen": plan.request.unseen,
            "templates": list(vocabulary.templates),
            "training_names": list(names_of(training_vocabulary(vocabulary))),
        },
        "fingerprints": {"data": PreparedData.open(plan.data.spec, folders).fingerprint},
    }
    if plan.host_settings:
        tables[HOST] = plan.host_settings
    return create_run(folders.runs, kind, model.method, plan.data.label, tables, plan.training.seed, path=path)


def vocabulary_of(plan: MethodPlan) -> Vocabulary:
    """Names and templates that a method is trained with; the seen ones are its training vocabulary."""
    method_class = registry.METHODS[plan.model.method].load()
    return plan.data.spec.vocabulary(plan.data.split, default_templates(method_class, plan.data.spec.preset.templates))


def _train(
    plan: MethodPlan,
    run: Run,
    method: TrainedMethod,
    folders: Folders,
    runtime: Runtime,
    reporter: Reporter,
    group: Group,
) -> dict[str, Any]:
    """Train in a run folder: its host first, then its masks, then the method itself."""
    if plan.needs_host:
        _provide_host(plan, run, method.clip, folders, runtime, reporter, group)
    vocabulary = vocabulary_of(plan)
    seen = training_vocabulary(vocabulary)
    with group.main_first():
        text = method_text(method, seen, folders.cache, reporter)
    method.training_names = names_of(seen)
    live = _live_masks(plan, run, folders, runtime, group) if _is_live(plan) else None
    masks = _cached_masks(plan, run, folders, reporter) if method.wants_proposals and live is None else None
    data = _data_of(plan, folders, masks)
    if data.skipped:
        reporter.say(f"{data.skipped} pictures show no seen class and are left out")
    begun = has_checkpoint(run.path / "checkpoints")
    if not begun:
        seed_everything(plan.training.seed)  # a host step or masks that were made before must change nothing
        with group.main_first():
            method.begin_training(plan.training, reporter)
    task = MethodTask(method, data, text, _scorer(plan, run, method, folders, reporter, group), live)
    with folder_lock(run.path, "training") if group.is_main else nullcontext():
        progress = fit(
            task,
            LoopSettings(**loop_settings_of(plan.training)),
            run.path,
            reporter,
            runtime.device,
            resume=begun,
            group=group,
            identity={"data": data.digest, "CLIP": method.clip.digest, **({"host": live.digest} if live else {})},
        )
        group.on_main(lambda: _finish(run, method))
    return {
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "cpu_seconds": round(progress.cpu_seconds, 1),
        "pictures": len(data.pictures),
        "trained_parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
    }


def _scorer(
    plan: MethodPlan, run: Run, method: TrainedMethod, folders: Folders, reporter: Reporter, group: Group
) -> Callable[[], dict[str, float]] | None:
    """Return what scores the method under way, if that was asked for."""
    if not plan.training.eval_every:
        return None
    if isinstance(method, SourceMethod):
        choice = choose_model(run.as_model, folders.runs)
        method.set_source(open_source(plan.config, choice, method.clip, method.clip.device, reporter))
    prepared = PreparedData.open(plan.data.spec, folders)
    return scorer(method, prepared, vocabulary_of(plan), reporter, group)


def _is_live(plan: MethodPlan) -> bool:
    return getattr(plan.config, "proposals", None) == LIVE


def _live_masks(plan: MethodPlan, run: Run, folders: Folders, runtime: Runtime, group: Group) -> LiveMasks:
    """Open the run's host with the names that it was trained with."""
    choice = choose_model(str(run.path / HOST), folders.runs)
    host: Any = build_method(choice, runtime.device)
    templates = choice.run.config["vocabulary"]["templates"] if choice.run else None
    vocabulary = plan.data.spec.vocabulary(plan.data.split, templates or default_templates(type(host)))
    with group.main_first():
        text = method_text(host, training_vocabulary(vocabulary), folders.cache)
    return LiveMasks(host, text)


def _cached_masks(plan: MethodPlan, run: Run, folders: Folders, reporter: Reporter) -> ProposalStore:
    source: Any = plan.config
    return masks_for_training(
        source.proposals, source.proposal_settings, run, plan.data, TRAIN_SUBSET, folders, reporter, plan.request.gpus
    )


def _provide_host(
    plan: MethodPlan,
    run: Run,
    clip: ClipModel,
    folders: Folders,
    runtime: Runtime,
    reporter: Reporter,
    group: Group,
) -> None:
    """Put a finished run of the host into `RUN/host`: a copy of a matching one, else trained now (step 1)."""
    asked, path = host_request(plan), run.path / HOST
    host_plan = resolve_training(asked, folders, reporter)
    if group.on_main(lambda: _is_provided(host_plan, path, folders, reporter)):
        return
    reporter.say(f"host step: training {asked.method} first ({host_plan.training.iterations} steps), in {path}")
    own = open_run(path)
    host_plan = replace(host_plan, run=own)
    try:
        _train(host_plan, own, _method_of(host_plan, clip), folders, runtime, reporter, group)
    except MachineError as error:
        mend = error.mend and error.mend.replace("--set ", f"--set {HOST}.")
        raise MachineError(f"host step: {error.message}", mend) from error


def _is_provided(plan: MethodPlan, path: Path, folders: Folders, reporter: Reporter) -> bool:
    """Whether there is nothing to train in the folder of a host; where there was nothing at all, begin it."""
    if (path / CONFIG).is_file():
        return open_run(path).is_finished
    if found := matching_run(plan, folders):
        reporter.say(f"host: masks come from {found.path}, a finished run of {found.method} with these settings")
        copy_run(found, path)
        return True
    _begin(plan, folders, path, HOST)
    return False


def _method_of(plan: MethodPlan, clip: ClipModel) -> TrainedMethod:
    """Make the method with its first weights, which depend on the seed alone."""
    seed_everything(plan.training.seed)
    method: TrainedMethod = registry.METHODS[plan.model.method].load()(clip, plan.config)
    return method.to(clip.device)


def _data_of(plan: MethodPlan, folders: Folders, masks: ProposalStore | None) -> TrainData:
    choice = plan.data
    prepared = PreparedData.open(choice.spec, folders)
    pictures = prepared.subset(TRAIN_SUBSET, choice.split)
    return open_train_data(pictures, choice.spec.seen_ids(choice.split), plan.training, masks)


def _finish(run: Run, method: TrainedMethod) -> None:
    """Write the weights, then the mark that the run is whole."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in method.trained_state().items()}
    write_bytes(run.path / WEIGHTS, save(state, {"format": "pt"}))
    run.finish()
