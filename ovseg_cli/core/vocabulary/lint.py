"""What `ovseg show vocabulary WHAT` does: a list is read, compared with itself and with what training has seen."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.errors import DataError, MachineError, UsageError
from ovseg_cli.core.explanation import Explanation
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.vocabulary.class_list import ClassList, find_classes
from ovseg_cli.core.vocabulary.findings import KINDS, LEVELS, Finding, finding_tables, ordered
from ovseg_cli.core.vocabulary.job import Job, LintRequest
from ovseg_cli.core.vocabulary.model_findings import ModelFindings, model_findings
from ovseg_cli.core.vocabulary.names import general_findings, list_findings, name_findings
from ovseg_cli.core.vocabulary.relations import relations_within
from ovseg_cli.core.vocabulary.thesaurus import shipped
from ovseg_cli.core.vocabulary.training import training_of

if TYPE_CHECKING:
    from ovseg_cli.core.reporter import Reporter
    from ovseg_cli.core.runtime import Folders

_LONGEST = 72  # a longer command is not printed again


@dataclass(frozen=True)
class LintReport:
    """What was found in a list.

    Attributes:
        classes: The list.
        findings: Ordered by table and kind.
        facts: Label and sentence: what was compared with what.
        novelty: mIoU over truly novel classes, for a run that was scored.
    """

    classes: ClassList
    findings: tuple[Finding, ...]
    facts: dict[str, str] = field(default_factory=dict)
    novelty: Table | None = None

    @property
    def is_refused(self) -> bool:
        """Whether `ovseg predict` would not take the list."""
        return any(finding.level == "error" for finding in self.findings)

    def explanation(self) -> Explanation:
        """Return what is printed."""
        tables = [*finding_tables(self.findings), *([self.novelty] if self.novelty else [])]
        title = f"{len(self.classes.names):,} class{'es' if len(self.classes.names) != 1 else ''}"
        return Explanation(self.classes.label, title, tuple(self.facts.items()), tuple(tables))

    def record(self) -> dict[str, Any]:
        """Return everything as plain data, schema 1."""
        novelty = self.novelty and {"rows": self.novelty.records(), "notes": list(self.novelty.notes)}
        return {
            "schema": 1,
            "vocabulary": self.classes.label,
            "classes": list(self.classes.names),
            "facts": self.facts,
            "counts": {level: sum(f.level == level for f in self.findings) for level in LEVELS},
            "findings": [finding.record() for finding in self.findings],
            "novelty": novelty,
        }


def lint(request: LintRequest, folders: "Folders", reporter: "Reporter") -> LintReport:
    """Look a list of classes over.

    Raises:
        UsageError: There is no such list, model or training list.
        MachineError: Weights that were asked for are missing.
    """
    if request.alike is not None and not 0 < request.alike <= 1:
        raise UsageError(f"--alike {request.alike:g}: the threshold of a cosine lies between 0 and 1.", "Try 0.95.")
    classes = find_classes(request.what, folders, request.names)
    training = training_of(classes, request.against, folders)
    job = Job(request, classes, training, relations_within(classes.rows, shipped()))
    model = _ask_model(job, folders, reporter)
    findings = [*classes.refused, *_of_names(job, model), *_of_training(job, model), *model.findings]
    novelty = None
    if classes.run is not None:
        from ovseg_cli.core.vocabulary.run_results import novelty_of_run, results_of_run, takers  # imports torch

        results = results_of_run(classes, folders)
        findings += takers(classes, results)
        novelty = novelty_of_run(job, model, results)
    return LintReport(classes, tuple(ordered(findings)), _facts(job, model, findings), novelty)


def _ask_model(job: Job, folders: "Folders", reporter: "Reporter") -> ModelFindings:
    """Compare features, where there is a model; the weights of a run may be elsewhere, and its names are here."""
    request = job.request
    asked = any(value is not None for value in (request.model, request.clip, request.pretrained))
    try:
        return model_findings(job, folders, reporter)
    except (MachineError, DataError) as error:
        if asked:
            raise
        reporter.warn(f"features are not compared: {error}")
        return ModelFindings()


def _of_names(job: Job, model: ModelFindings) -> list[Finding]:
    """What the names say by themselves; pairs carry the cosine that the model gives them."""
    classes, rows = job.classes, job.classes.rows
    names = [classes.names[i] for i in classes.places]
    texts = [classes.texts[i] for i in classes.places]
    refused = {finding.ids for finding in classes.refused}
    found = []
    for (i, j), relation in job.related.items():
        cosine = model.cosines.get((i, j))
        said = relation.evidence if cosine is None else f"{relation.evidence}; cosine {cosine:.3f}"
        found.append(Finding(relation.kind, names[i], names[j], said, cosine, (i, j)))
    found += name_findings(names, rows, shipped(), _variants(job))
    found += list_findings(names, texts) + general_findings(names, rows, job.related)
    placed = [job.placed(finding) for finding in found]
    return [finding for finding in placed if not (finding.other and finding.ids in refused)]


def _variants(job: Job) -> dict[str, dict[str, str]]:
    """How papers write the classes, in variants of one text a class."""
    if job.classes.choice is None:
        return {}
    spec = job.classes.choice.spec
    single = {v.id: spec.texts(v.id) for v in spec.name_variants if v.kind == "names"}
    return {v: {name: row[0] for name, row in zip(spec.class_names, rows, strict=True)} for v, rows in single.items()}


def _of_training(job: Job, model: ModelFindings) -> list[Finding]:
    found = []
    for place, overlap in sorted({**job.seen, **model.overlaps}.items()):
        kind = "seen" if overlap.is_same else "seen-twin"
        said = f"{KINDS[overlap.how].label}: {overlap.evidence}" if overlap.number is None else overlap.evidence
        name = job.classes.names[job.classes.places[place]]
        if place not in job.home:
            found.append(job.placed(Finding(kind, name, overlap.name, said, overlap.number, (place,))))
    return found


def _facts(job: Job, model: ModelFindings, findings: Sequence[Finding]) -> dict[str, str]:
    counts = [(level, sum(finding.level == level for finding in findings)) for level in LEVELS]
    said = [f"{n} {level}{'' if n == 1 else 's'}" for level, n in counts if n]
    training, classes = job.training, job.classes
    facts = {"found": ", ".join(said) or "nothing to remark", **model.facts}
    if not model.facts:
        command = shlex.join(["ovseg", "show", "vocabulary", job.request.what, "--clip", "ViT-B-16"])
        command = command if len(command) <= _LONGEST else "the same with --clip ViT-B-16"
        facts["features"] = f"not compared, no model was named: names were read as text only. With one: {command}"
    facts["training"] = (
        f"compared with {training.source}, {len(training.texts)} names"
        if training
        else "not compared, nobody says what was trained on: --against NAMES"
    )
    if classes.background is not None:
        facts["background"] = f"'{classes.names[classes.background]}' stands for the rest and is left out"
    return facts
