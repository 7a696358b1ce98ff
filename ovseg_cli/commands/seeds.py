"""`ovseg train METHOD --seeds N`: what of it is typed and printed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovseg_cli.core.runtime import Folders
    from ovseg_cli.core.training.seeds import SeedsOutcome


def train_seeds(
    method: str,
    chosen: dict[str, Any],
    settings: dict[str, Any],
    count: int,
    resume: bool,
    family: Path | None,
    gpus: int | None,
    places: "Folders",
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train and score several seeds, or print the plan."""
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.training import seeds

    if init := chosen.get("init") or settings.get("init"):
        what = f"--seeds: with init {init} all seeds would begin with the weights of one."
        raise _usage(what, "Leave --init out: each seed then makes its own first step.")
    first = settings.pop("seed", None)
    if first is not None and (not isinstance(first, int) or isinstance(first, bool) or first < 0):
        raise _usage(f"seed {first}: a seed is a whole number, 0 or more.", "For instance --seed 1")
    reporter = console.TerminalReporter()
    kind = _kind(method, chosen, settings, gpus)
    plan = seeds.plan_seeds(seeds.SeedsRequest(kind, count, first, resume, family), places, reporter)
    if dry_run:
        views.show_document(
            seeds.plan_document(plan, places, reporter), as_json, f"plan: train {method}, {count} seeds"
        )
        return
    _show(method, seeds.train_seeds(plan, places, reporter), as_json)


def _kind(method: str, chosen: dict[str, Any], settings: dict[str, Any], gpus: int | None) -> Any:
    from ovseg_cli.core import registry
    from ovseg_cli.core.training import seed_kinds
    from ovseg_cli.core.training.request import MethodRequest
    from ovseg_cli.core.training.session import TrainRequest

    if method in registry.TRAINERS:
        return seed_kinds.ClipSeeds(TrainRequest(method, settings, gpus=gpus))
    return seed_kinds.MethodSeeds(MethodRequest(method, settings=settings, gpus=gpus, **chosen))


def _usage(message: str, mend: str) -> Exception:
    from ovseg_cli.core.errors import UsageError

    return UsageError(message, mend)


def _show(method: str, outcome: "SeedsOutcome", as_json: bool) -> None:
    """Print the table of seeds; as JSON: what each seed came to, and mean and spread."""
    from ovseg_cli.commands import console, views
    from ovseg_cli.core import registry
    from ovseg_cli.core.report import seed_tables

    is_scored = method not in registry.TRAINERS
    values = {seed: one.result if is_scored else one for seed, one in outcome.measured.items()}
    if as_json:
        records = [
            {"seed": seed, **(views.scored_record(one, "all") if is_scored else {"figures": one})}
            | {"run": str(outcome.runs[seed])}
            for seed, one in outcome.measured.items()
        ]
        summary = seed_tables.seed_record(values) if is_scored else {"figures": seed_tables.figure_record(values)}
        console.print_json({"schema": 1, "run": str(outcome.family), "seeds": records, "summary": summary})
        return
    views.show_table(seed_tables.seed_table(values) if is_scored else seed_tables.figure_table(method, values))
    console.say(f"run folders: {outcome.family}/seed-*")
