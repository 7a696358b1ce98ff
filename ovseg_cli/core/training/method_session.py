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
from ovseg_cli.core.methods.build import FIRST_STEP, build_method, choose_model, open_source
from ovseg_cli.core.methods.masked import SourceMethod
from ovseg_cli.core.methods.texts import default_templates, method_text, names_of, no_text, training_vocabulary
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import CONFIG, HOST, LIVE, WEIGHTS, Run, create_run, open_run
from ovseg_cli.core.runtime import Folders, Runtime, open_runtime, seed_everything
from ovseg_cli.core.training.checkpoint import has_checkpoint
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.training.inner_runs import TAKEN, copy_run, matching_run
from ovseg_cli.core.training.live_clusters import LiveClusters
from ovseg_cli.core.training.live_masks import LiveMasks, MadeInStep
from ovseg_cli.core.training.loop import LoopSettings, fit
from ovseg_cli.core.training.masks_for_training import check_weights, masks_for_training
from ovseg_cli.core.training.method_data import TrainData, open_train_data, training_pictures
from ovseg_cli.core.training.method_task import MethodTask, loop_settings_of
from ovseg_cli.core.training.precision import choose_precision
from ovseg_cli.core.training.processes import open_group
from ovseg_cli.core.training.request import TRAIN_SUBSET, MethodPlan, MethodRequest, inner_request, resolve_training
from ovseg_cli.core.training.resuming import fingerprints_of
from ovseg_cli.core.training.scores_under_way import scorer
from ovseg_cli.core.training.starts import START, caveats_of, load_start
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
            clusters = _live_clusters(plan, runtime, reporter)
            if plan.proposals:
                check_weights(
                    plan.proposals, plan.proposal_settings, plan.data, TRAIN_SUBSET, folders, str(runtime.device)
                )
        method = _method_of(plan, clip)
        method.check_training(plan.training)
        if plan.run is None:
            load_start(method, plan.init)  # weights that do not fit are said before a run folder is made
        run = plan.run or group.on_main(lambda: _begin(plan, folders, reporter, request.folder))
        reporter.say(f"run folder: {run.path}")
        figures = _train(plan, run, method, folders, runtime, reporter, group, clusters)
    return {"schema": 1, "run": str(run.path), "figures": figures}


def begin_run(request: MethodRequest, folders: Folders, reporter: Reporter) -> Run:
    """Make the folder of a run that others are to train (`--resume --run`); see `train_method` for what it raises."""
    plan = resolve_training(request, folders, reporter)
    _data_of(plan, folders, plan.cache)
    return _begin(plan, folders, reporter, request.folder)


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
        **_labels_in_words(plan, data),
        "clip": plan.model.clip if plan.model.pretrained is None else f"{plan.model.clip} / {plan.model.pretrained}",
        "run": str(plan.run.path) if plan.run else new,
        "resumes": plan.run is not None,
        "steps": plan.training.iterations,
        "epochs": round(plan.training.iterations * plan.training.batch_size / len(data.pictures), 2),
        **estimate_sizes(plan),
        "settings": plan.config.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
    }
    if plan.init:
        document["starts_from"] = plan.init
    for step in plan.comes_first:
        inner = resolve_training(inner_request(plan, step), folders, reporter)
        found = matching_run(inner, folders)
        reused = (
            f"{TAKEN[step]} of {found.path}, a finished run" if found else f"{inner.training.iterations} steps first"
        )
        document[step] = {"method": inner.model.method, "step": reused}
    return document


def _labels_in_words(plan: MethodPlan, data: TrainData) -> dict[str, Any]:
    """Say what a training reads of the labels."""
    classes = data.classes
    if not classes.reads_labels:
        generator = registry.PROPOSALS.get(plan.proposals or "")
        from_labels = generator is not None and generator.load().needs_labels
        said = f"none are read but by {plan.proposals}, for its masks" if from_labels else "none are read"
        return {"labels": said} | ({"names": len(classes.names)} if classes.names else {})
    words: dict[str, Any] = {"without_a_seen_class": data.skipped, "seen_classes": len(classes.labelled)}
    if classes.has_unlabelled:
        words["names_without_labels"] = len(classes.names) - len(classes.labelled)
    if classes.marked:
        words["unseen_pixels"] = "their place is known, their class is not"
    return words


def estimate_sizes(plan: MethodPlan) -> dict[str, Any]:
    """Megabytes of weights, optimizer state and checkpoints, from the shapes alone; activations are not counted."""
    count = parameter_count(plan.model.clip)
    if count is None:
        return {}
    mib = 4 * count / 2**20
    return {"memory_mib": round(4 * mib), "disk_mib": round(7 * mib)}


def _begin(
    plan: MethodPlan, folders: Folders, reporter: Reporter, path: Path | None = None, kind: str = "segmentation"
) -> Run:
    """Make the run folder with all that is settled before the first step."""
    model, vocabulary = plan.model, vocabulary_of(plan)
    tables: dict[str, Any] = {
        "clip": {"name": model.clip, "pretrained": model.pretrained},
        "method": plan.config.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "vocabulary": {
            "unseen": plan.request.unseen,
            "templates": list(vocabulary.templates),
            "training_names": list(names_of(vocabulary.select(plan.classes.labelled))),
        },
        "fingerprints": fingerprints_of(
            PreparedData.open(plan.data.spec, folders), TRAIN_SUBSET, plan.classes.reads_labels
        ),
        **{step: settings for step, settings in plan.steps.items() if settings},
    }
    if inherited := _inherited_caveats(plan, folders, reporter):
        tables[START] = {"caveats": inherited}
    return create_run(folders.runs, kind, model.method, plan.data.label, tables, plan.training.seed, path=path)


def _inherited_caveats(plan: MethodPlan, folders: Folders, reporter: Reporter) -> list[str]:
    """Return what must be said of the weights that a training starts from, and so of its own."""
    method_class = registry.METHODS[plan.model.method].load()
    if plan.init:
        return caveats_of(method_class, open_run(Path(plan.init)).config)
    if FIRST_STEP not in plan.comes_first:
        return []
    first = resolve_training(inner_request(plan, FIRST_STEP), folders, reporter)
    return caveats_of(method_class, {"training": first.training.model_dump(mode="json")})


def vocabulary_of(plan: MethodPlan) -> Vocabulary:
    """All names, and the templates, that a method is trained with; `plan.classes` is its part in the training."""
    method_class = registry.METHODS[plan.model.method].load()
    spec = plan.data.spec
    templates = default_templates(method_class, spec.preset.templates, spec.name)
    return spec.vocabulary(plan.data.split, templates) if spec.classes else Vocabulary((), (), templates)


def _train(
    plan: MethodPlan,
    run: Run,
    method: TrainedMethod,
    folders: Folders,
    runtime: Runtime,
    reporter: Reporter,
    group: Group,
    clusters: LiveClusters | None = None,
) -> dict[str, Any]:
    """Train in a run folder: what comes first, then its masks, then the method itself."""
    for step in plan.comes_first:
        _provide(step, plan, run, method.clip, folders, runtime, reporter, group)
    vocabulary, classes = vocabulary_of(plan), plan.classes
    method.training_names = names_of(vocabulary.select(classes.labelled))
    with group.main_first():
        names = vocabulary.select(classes.names)
        names = replace(names, templates=method.training_templates(names.templates))
        text = method_text(method, names, folders.cache, reporter) if classes.names else no_text(method.clip)
    live: MadeInStep | None = clusters
    if plan.needs_host and plan.proposals == LIVE:
        live = _live_masks(plan, run, folders, runtime, group)
    masks = _cached_masks(plan, run, folders, reporter) if method.wants_proposals and live is None else None
    data = _data_of(plan, folders, masks)
    if data.skipped:
        reporter.say(f"{data.skipped} pictures show no seen class and are left out")
    begun = has_checkpoint(run.path / "checkpoints")
    if not begun:
        seed_everything(plan.training.seed)  # a host step or masks that were made before must change nothing
        with group.main_first():
            method.begin_training(plan.training, reporter)
        load_start(method, plan.init, run)
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
            identity={"data": data.digest, "CLIP": method.clip.digest, **_identity_of(live)},
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


def _live_clusters(plan: MethodPlan, runtime: Runtime, reporter: Reporter) -> LiveClusters | None:
    """Load what makes masks in each step without a host; None where masks come from elsewhere."""
    if not plan.makes_clusters:
        return None
    return LiveClusters.open(plan.proposal_settings, runtime.device, reporter)


def _identity_of(live: MadeInStep | None) -> dict[str, str]:
    """Return what makes the masks in each step, under the word that names it where it has changed."""
    if live is None:
        return {}
    return {"host" if isinstance(live, LiveMasks) else "network of the masks": live.digest}


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
    assert plan.proposals is not None, "a method that wants masks has a setting for where they come from"
    return masks_for_training(
        plan.proposals, plan.proposal_settings, run, plan.data, TRAIN_SUBSET, folders, reporter, plan.request.gpus
    )


def _provide(
    step: str,
    plan: MethodPlan,
    run: Run,
    clip: ClipModel,
    folders: Folders,
    runtime: Runtime,
    reporter: Reporter,
    group: Group,
) -> None:
    """Put a finished run into `RUN/STEP`: a copy of a matching one, else trained now."""
    asked, path = inner_request(plan, step), run.path / step
    inner = resolve_training(asked, folders, reporter)
    if group.on_main(lambda: _is_provided(step, inner, path, folders, reporter)):
        return
    reporter.say(f"{step} step: training {asked.method} first ({inner.training.iterations} steps), in {path}")
    own = open_run(path)
    inner = replace(inner, run=own)
    try:
        _train(inner, own, _method_of(inner, clip), folders, runtime, reporter, group)
    except MachineError as error:
        mend = error.mend and error.mend.replace("--set ", f"--set {step}.")
        raise MachineError(f"{step} step: {error.message}", mend) from error


def _is_provided(step: str, plan: MethodPlan, path: Path, folders: Folders, reporter: Reporter) -> bool:
    """Whether there is nothing to train in the folder of a step; where there was nothing at all, begin it."""
    if (path / CONFIG).is_file():
        return open_run(path).is_finished
    if found := matching_run(plan, folders):
        what = f"{step}: {TAKEN[step]} come from {found.path}, a finished run of {found.method} with these settings"
        reporter.say(what)
        copy_run(found, path, step)
        return True
    _begin(plan, folders, reporter, path, step)
    return False


def _method_of(plan: MethodPlan, clip: ClipModel) -> TrainedMethod:
    """Make the method with its first weights, which depend on the seed alone."""
    seed_everything(plan.training.seed)
    method: TrainedMethod = registry.METHODS[plan.model.method].load()(clip, plan.config)
    return method.to(clip.device)


def _data_of(plan: MethodPlan, folders: Folders, masks: ProposalStore | None) -> TrainData:
    prepared, classes = PreparedData.open(plan.data.spec, folders), plan.classes
    pictures = training_pictures(prepared, TRAIN_SUBSET, plan.data.split, classes)
    view = registry.METHODS[plan.model.method].load().second_view(plan.training)
    return open_train_data(pictures, classes, plan.training, masks, view)


def _finish(run: Run, method: TrainedMethod) -> None:
    """Write the weights, then the mark that the run is whole."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in method.trained_state().items()}
    write_bytes(run.path / WEIGHTS, save(state, {"format": "pt"}))
    run.finish()
