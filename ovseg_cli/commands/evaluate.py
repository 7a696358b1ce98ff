"""`ovseg eval [MODEL]`: scores, from counts that are kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovseg_cli.commands import options

if TYPE_CHECKING:
    from ovseg_cli.core.evaluation.request import EvalRequest

Task = Literal["segmentation", "masks", "proposals", "oracle"]
_OF_MODELS = (
    *("model", "candidates", "absent", "seen_penalty", "background_threshold", "templates", "names", "clip"),
    *("pretrained", "force", "gpus", "seed"),
)
_OF_LABEL_MAPS = ("seen_penalty", "background_threshold", "force")


def evaluate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run folder, `latest`, or the name of a training-free method.",
            autocompletion=options.complete_model,
        ),
    ] = "latest",
    data: options.DataMany = None,
    task: Annotated[
        Task,
        typer.Option(
            help="What is scored: segmentation, label maps of a model; masks, the names that it gives to masks of "
            "--proposals (by default one ground-truth mask a class); proposals, masks before they get names; oracle, "
            "what right masks or right names would bring.",
        ),
    ] = "segmentation",
    proposals: options.Proposals = None,
    split: options.Split = "all",
    candidates: options.Candidates = "all",
    absent: options.Absent = "union",
    fail_under: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="Exit with code 5 where a score, in percent, is lower."),
    ] = None,
    seen_penalty: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Subtracted from every seen class's score (calibration, gamma); default: the method's."
        ),
    ] = None,
    background_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Softmax probability below which a pixel is background; default: the method's."
        ),
    ] = None,
    unseen: options.Unseen = None,
    templates: Annotated[
        str | None, typer.Option(metavar="SET", help="Prompt templates; default: the data set's, else the method's.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(metavar="VARIANT", help="Class names as a paper wrote them; see `ovseg show DATASET`.")
    ] = None,
    subset: options.Subset = None,
    clip: options.Clip = None,
    pretrained: options.Pretrained = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N images.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on although the first images score below chance.")] = False,
    gpus: options.Gpus = None,
    seed: options.Seed = 0,
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Score a model on one data set or several; the counts are stored, every metric can be computed from them later.

    [dim]ovseg eval maskclip --data toy[/dim]
    [dim]ovseg eval --split unseen --fail-under mIoU=20[/dim]
    [dim]ovseg eval maskclip --task masks --data toy[/dim]
    [dim]ovseg eval maskclip --task oracle --data toy[/dim]
    [dim]ovseg eval --task proposals --proposals superpixels --data toy[/dim]
    """
    if task == "proposals":
        _refuse(context, _OF_MODELS, "--task proposals scores masks before they get names")
        _evaluate_proposals(context, fail_under, data_root, dry_run, json)
        return
    settings = {**options.read_config(config), **options.parse_settings(set_)}
    if proposals is not None and task == "segmentation":
        settings["proposals"] = proposals
    from ovseg_cli.core.evaluation import request as requests

    asked = requests.EvalRequest(
        model=model,
        data=tuple(data or ()),
        unseen=unseen,
        subset=subset,
        candidates=candidates,
        split=split,
        seen_penalty=seen_penalty,
        background_threshold=background_threshold,
        templates=templates,
        names=names,
        clip=clip,
        pretrained=pretrained,
        settings=settings,
        limit=limit,
        force=force,
        gpus=gpus,
        seed=seed,
    )
    if task == "masks":
        _refuse(context, _OF_LABEL_MAPS, "--task masks scores names of masks, it reads no label map from a model")
        _evaluate_masks(context, asked)
        return
    if task == "oracle":
        _refuse(context, (*_OF_LABEL_MAPS, "fail_under"), "--task oracle compares four scores under one protocol")
        _evaluate_oracle(context, asked)
        return
    from ovseg_cli.commands import bounds, console, views
    from ovseg_cli.core.runtime import folders

    limits = bounds.parse(fail_under, split)
    places = folders(data_root, runs)
    reporter = console.TerminalReporter()
    plan = requests.resolve(asked, places, reporter)
    if dry_run:
        views.show_document(plan.document(places), json, title="plan: eval")
        return
    from ovseg_cli.core.training import processes

    if processes.launch_if_needed(gpus) is not None:
        return  # the processes that were started have scored and shown all
    from ovseg_cli.core.evaluation import session

    scored = session.score(plan, places, reporter)
    views.show_scores(scored, split, absent, json)
    bounds.check(limits, scored, split, absent)


def _refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """Refuse options that were typed and would do nothing."""
    from ovseg_cli.core.errors import UsageError

    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            word = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{word}: {why}.", "Leave it out, or choose another --task.")


def _evaluate_masks(context: typer.Context, asked: "EvalRequest") -> None:
    """Let a model name masks of each data set."""
    from ovseg_cli.commands import bounds, console, mask_views, views
    from ovseg_cli.core.evaluation import mask_session as session
    from ovseg_cli.core.evaluation.mask_scores import METRICS
    from ovseg_cli.core.runtime import folders
    from ovseg_cli.core.training import processes

    typed = context.params
    split, absent, json = typed["split"], typed["absent"], typed["json"]
    limits = bounds.parse(typed["fail_under"], split, METRICS)
    places, reporter = folders(typed["data_root"], typed["runs"]), console.TerminalReporter()
    plan = session.resolve(asked, typed["proposals"], places, reporter)
    if typed["dry_run"]:
        views.show_document(plan.document(places), json, title="plan: eval")
        return
    if processes.launch_if_needed(asked.gpus) is not None:
        return
    scored = session.score(plan, places, reporter)
    mask_views.show_masks(scored, split, absent, json)
    for item in scored:
        bounds.check_values(limits, item.result.scores(split, absent), item.result.data, split)


def _evaluate_oracle(context: typer.Context, asked: "EvalRequest") -> None:
    """Compare predicted masks and names with right ones on each data set."""
    from ovseg_cli.commands import console, mask_views, views
    from ovseg_cli.core.evaluation import oracle_session as session
    from ovseg_cli.core.runtime import folders
    from ovseg_cli.core.training import processes

    typed = context.params
    places, reporter = folders(typed["data_root"], typed["runs"]), console.TerminalReporter()
    plan = session.resolve(asked, typed["proposals"], places, reporter)
    if typed["dry_run"]:
        views.show_document(plan.document(places), typed["json"], title="plan: eval")
        return
    if processes.launch_if_needed(asked.gpus) is not None:
        return
    mask_views.show_oracle(session.score(plan, places, reporter), typed["split"], typed["absent"], typed["json"])


def _evaluate_proposals(
    context: typer.Context, fail_under: list[str] | None, data_root: Path | None, dry_run: bool, json: bool
) -> None:
    """Score proposals on each data set."""
    from ovseg_cli.commands import bounds, console, views
    from ovseg_cli.core.evaluation import proposal_session as session
    from ovseg_cli.core.runtime import folders

    typed = context.params
    limits = bounds.parse(fail_under, typed["split"], session.METRICS)
    places, reporter = folders(data_root), console.TerminalReporter()
    settings = {**options.read_config(typed["config"]), **options.parse_settings(typed["set_"])}
    kept = {key: typed[key] for key in ("proposals", "unseen", "subset", "split", "limit")}
    asked = [session.QualityRequest(data=data, settings=settings, **kept) for data in typed["data"] or [None]]
    plans = [session.resolve(request, places, reporter) for request in asked]
    if dry_run:
        views.show_document({"schema": 1, "plans": [plan.document() for plan in plans]}, json, title="plan: eval")
        return
    scored = [session.score(plan, reporter) for plan in plans]
    views.show_quality(scored, typed["split"], json)
    for quality in scored:
        bounds.check_values(limits, quality.group(typed["split"]), quality.document["data"], typed["split"])
