"""What the results of a run say of its class list: the truly novel mIoU, and names that took pixels of many classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.grouping import group_seeds
from ovseg_cli.core.report.stored import find_results
from ovseg_cli.core.vocabulary.class_list import ClassList
from ovseg_cli.core.vocabulary.features import hubs, wrong_answers
from ovseg_cli.core.vocabulary.findings import Finding, short
from ovseg_cli.core.vocabulary.job import Job
from ovseg_cli.core.vocabulary.model_findings import ModelFindings
from ovseg_cli.core.vocabulary.novelty import BY_NAME, novelty_of, novelty_table
from ovseg_cli.core.vocabulary.training import training_of_run

if TYPE_CHECKING:
    from ovseg_cli.core.runtime import Folders

_SHOWN = 3


def results_of_run(classes: ClassList, folders: "Folders") -> list[Result]:
    """Read the results of the run whose list it is; none where the list is no run's, or the run was never scored."""
    run = classes.run
    return find_results(str(run.path), folders) if run is not None and run.result_files() else []


def novelty_of_run(job: Job, model: ModelFindings, results: Sequence[Result]) -> Table | None:
    """Return the table of results of a run: names are compared, and features where its model was asked."""
    classes = job.classes
    if classes.run is None or not results:
        return None
    groups = group_seeds(results)
    alike = {classes.places[place]: overlap for place, overlap in model.overlaps.items()}
    mine = [group[0].class_names == classes.names for group in groups]
    named = job.request.against is not None or training_of_run(classes.run) is not None
    parts = [
        novelty_of(group[0], job.training if named else None, alike if own else None)
        for group, own in zip(groups, mine, strict=True)
    ]
    compared = BY_NAME
    if model.yardstick is not None and any(mine):
        where = "" if all(mine) else f" (on {classes.choice.label if classes.choice else classes.label})"
        compared += f"; and by features{where}, from a cosine of {model.yardstick.cosine:.3f} on (--alike)"
    return novelty_table(groups, novelties=parts, compared=compared)


def takers(classes: ClassList, results: Sequence[Result]) -> list[Finding]:
    """Find names that are the most frequent wrong answer for far more classes than chance would make them.

    Read from the newest result with these classes where all names competed; see `features.hub_size`.
    """
    mine = [r for r in results if r.class_names == classes.names and r.protocol.get("candidates") in (None, "all")]
    if not mine:
        return []
    matrix = max(mine, key=lambda result: result.created).matrix
    wrong = matrix.sum(0) - np.diagonal(matrix)
    found = []
    for taker, of in hubs(wrong_answers(matrix)):
        if taker != classes.background:
            some = ", ".join(short(classes.names[i]) for i in of[:_SHOWN])
            share = 100 * wrong[taker] / wrong.sum()
            said = f"most frequent wrong answer for {len(of)} classes: {some}, …; {share:.0f} % of all wrong pixels"
            found.append(Finding("taker", classes.names[taker], evidence=said, number=len(of), ids=(taker, *of)))
    return found
