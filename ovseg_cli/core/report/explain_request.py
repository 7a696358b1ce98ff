"""What `ovseg report RUN… --explain` reads: which result is explained, and what stands beside it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ovseg_cli.core.evaluation.bootstrap import RESAMPLES
from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.explain import explain_tables
from ovseg_cli.core.report.explain_variants import Knobs, is_sibling
from ovseg_cli.core.report.stored import Stored, find_stored
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import open_run
from ovseg_cli.core.runtime import Folders


@dataclass(frozen=True)
class ExplainRequest:
    """Options of `ovseg report --explain`, as typed; the fields are explained in its help."""

    results: tuple[str, ...]
    resamples: int = RESAMPLES
    score_missing: bool = False
    gpus: int | None = None


def report_explanation(request: ExplainRequest, folders: Folders, reporter: Reporter) -> list[Table]:
    """Explain each result that was named: of a run one for each data set and protocol but for its readout.

    Raises:
        UsageError: A name is no run and no result file, or a run holds no result.
        DataError: A result file is broken; where the model is asked: data or weights have changed.
    """
    tables: list[Table] = []
    for name in request.results:
        named = find_stored(name, folders)
        beside = [one.result for one in _beside(named)]
        for base in bases_of(named):
            tables += _explained(base, beside, request, folders, reporter)
    return tables


def bases_of(stored: Sequence[Stored]) -> list[Stored]:
    """Return of each family of results, which differ in their readout, the one that the others are variants of.

    That is the one under the generalised protocol whose file has the shortest name: its readout is the method's own.
    """
    families: list[list[Stored]] = []
    for one in stored:
        own = next((family for family in families if is_sibling(family[0].result, one.result)), None)
        if own is None:
            families.append([one])
        else:
            own.append(one)
    return [min(family, key=_rank) for family in families]


def _rank(stored: Stored) -> tuple[bool, int]:
    return Knobs.of(stored.result).candidates != "all", len(stored.path.name)


def _beside(named: Sequence[Stored]) -> list[Stored]:
    """Those that were named and all others of their runs, each file once."""
    files = {one.path.absolute(): one for one in named}
    for folder in dict.fromkeys(one.run_folder for one in named if one.run_folder):
        for path in open_run(folder).result_files():
            if path.absolute() not in files:
                files[path.absolute()] = Stored(load_result(path), path)
    return list(files.values())


def _explained(
    base: Stored, others: Sequence[Result], request: ExplainRequest, folders: Folders, reporter: Reporter
) -> list[Table]:
    run = open_run(base.run_folder) if base.run_folder else None
    if request.score_missing:
        from ovseg_cli.core.report.explain_scoring import score_missing

        others = [*others, *score_missing(base.result, others, run, folders, reporter, request.gpus)]
    tables = explain_tables(base.result, others, run, request.resamples)
    missing = {row["command"] for table in tables for row in table.records() if row["command"]}
    if missing and run is not None and not request.score_missing:
        reporter.say(
            f"{len(missing)} rows need the model; to score them in one pass: "
            f"ovseg report {shlex.quote(run.as_model)} --explain --score-missing"
        )
    return tables
