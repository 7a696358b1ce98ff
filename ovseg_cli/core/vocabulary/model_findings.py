"""What does a model add to a lint? Unknown and cut names, twins by features, hubs, stray synonyms, training twins."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ovseg_cli.core.vocabulary import features as measures
from ovseg_cli.core.vocabulary.features import Features, Yardstick
from ovseg_cli.core.vocabulary.findings import Finding, short
from ovseg_cli.core.vocabulary.job import Job
from ovseg_cli.core.vocabulary.training import Overlap, overlaps_by_features

if TYPE_CHECKING:
    from ovseg_cli.core.reporter import Reporter
    from ovseg_cli.core.runtime import Folders
    from ovseg_cli.core.vocabulary.reader import Reader

_SHOWN = 3


@dataclass(frozen=True)
class ModelFindings:
    """What a model says of a list; empty where there is no model.

    Attributes:
        findings: With ids, not places.
        cosines: Cosine of each pair of places that share a name.
        overlaps: Places of classes that training has seen, by features alone.
        yardstick: From which cosine on names are alike, or None.
        facts: Label and sentence.
    """

    findings: tuple[Finding, ...] = ()
    cosines: dict[tuple[int, int], float] = field(default_factory=dict)
    overlaps: dict[int, Overlap] = field(default_factory=dict)
    yardstick: Yardstick | None = None
    facts: dict[str, str] = field(default_factory=dict)


def model_findings(job: Job, folders: "Folders", reporter: "Reporter") -> ModelFindings:
    """Load the model that the request, the run or the data set names, and ask it; without one nothing is found.

    Raises:
        UsageError: There is no such model.
        MachineError: Its weights are missing.
        DataError: They are broken.
    """
    from ovseg_cli.core.vocabulary.reader import find_reader

    request = job.request
    reader = find_reader(job.classes, request.model, request.clip, request.pretrained, folders, reporter)
    return ask(job, reader) if reader else ModelFindings()


def ask(job: Job, reader: "Reader") -> ModelFindings:
    """Ask a model."""
    classes = job.classes
    names = [classes.names[i] for i in classes.places]
    texts = [classes.texts[i] for i in classes.places]
    found = list(_unreadable(names, texts, reader))
    unread = {finding.ids[0] for finding in found if finding.kind == "unknown"}
    kept = [place for place in range(len(texts)) if place not in unread]
    rows = reader.read([texts[place] for place in kept])
    stick = _yardstick(job, reader, [texts[place] for place in kept], rows)
    found += _twins(job, names, kept, rows, stick)
    found += _same_tokens(job, names, texts, reader)
    found += _hubs(names, kept, rows)
    found += _astray(names, texts, kept, reader)
    slot = {place: row for row, place in enumerate(kept)}
    pairs = [(i, j) for i, j in job.related if i in slot and j in slot]
    return ModelFindings(
        tuple(job.placed(finding) for finding in found),
        {(i, j): float(rows[slot[i]] @ rows[slot[j]]) for i, j in pairs},
        _overlaps(job, reader, kept, rows, stick),
        stick,
        _facts(reader, stick, len(unread)),
    )


def _unreadable(names: list[str], texts: list[tuple[str, ...]], reader: "Reader") -> Iterator[Finding]:
    for place, (name, row) in enumerate(zip(names, texts, strict=True)):
        unknown = sorted({word for text in row for word in reader.unknown(text)})
        if unknown:
            yield Finding("unknown", name, evidence=f"never trained on {', '.join(unknown)}", ids=(place,))
        for text in row:
            if reader.is_cut(text):
                length = reader.clip.tokenizer.context_length
                said = f"longer than the {length} tokens that {reader.clip.name} reads"
                yield Finding("cut", name, evidence=said, number=length, ids=(place,))


def _yardstick(job: Job, reader: "Reader", texts: list[tuple[str, ...]], rows: Features) -> Yardstick | None:
    if job.request.alike is not None:
        return Yardstick(job.request.alike, "as asked")
    return reader.yardstick(texts, rows)


def _twins(job: Job, names: list[str], kept: list[int], rows: Features, stick: Yardstick | None) -> Iterator[Finding]:
    for a, b, cosine in measures.alike(rows, stick.cosine) if stick else ():
        i, j = kept[a], kept[b]
        if (i, j) not in job.related:
            yield Finding("alike", names[i], names[j], f"cosine {cosine:.3f}", cosine, (i, j))


def _same_tokens(job: Job, names: list[str], texts: list[tuple[str, ...]], reader: "Reader") -> Iterator[Finding]:
    flat = [(place, text) for place, row in enumerate(texts) for text in row]
    first: dict[tuple[int, ...], int] = {}
    for (place, text), tokens in zip(flat, reader.tokens([text for _, text in flat]), strict=True):
        owner = first.setdefault(tokens, place)
        if owner != place and (owner, place) not in job.related:
            yield Finding("tokens", names[owner], names[place], f"'{text}' adds nothing", ids=(owner, place))


def _hubs(names: list[str], kept: list[int], rows: Features) -> Iterator[Finding]:
    for hub, of in measures.hubs(measures.runner_ups(rows)) if len(kept) > 1 else ():
        some = ", ".join(short(names[kept[i]]) for i in of[:_SHOWN])
        said = f"nearest to {len(of)} of {len(kept)} names: {some}{', …' if len(of) > _SHOWN else ''}"
        yield Finding("hub", names[kept[hub]], evidence=said, number=len(of), ids=(kept[hub],))


def _astray(names: list[str], texts: list[tuple[str, ...]], kept: list[int], reader: "Reader") -> Iterator[Finding]:
    rows = [(place, text) for place in kept for text in texts[place]]
    if len(rows) == len(kept):
        return
    owners = [kept.index(place) for place, _ in rows]
    for row, other, away, own in measures.astray(reader.read([[text] for _, text in rows]), owners):
        place, text = rows[row]
        said = f"'{text}' is nearer to '{short(names[kept[other]])}' (cosine {away:.3f}) than to its own ({own:.3f})"
        yield Finding("astray", names[place], evidence=said, number=away, ids=(place,))


def _overlaps(
    job: Job, reader: "Reader", kept: list[int], rows: Features, stick: Yardstick | None
) -> dict[int, Overlap]:
    if job.training is None or stick is None:
        return {}
    texts = job.training.texts
    known = [place for place, row in enumerate(texts) if not any(reader.unknown(text) for text in row)]
    pairs = measures.nearest(rows, reader.read([texts[place] for place in known]), stick.cosine)
    placed = [(kept[i], known[j], cosine) for i, j, cosine in pairs if kept[i] not in job.home]
    return overlaps_by_features(placed, job.training, job.seen)


def _facts(reader: "Reader", stick: Yardstick | None, unread: int) -> dict[str, str]:
    sentences = f"'{reader.templates[0]}'" + (
        f" and {len(reader.templates) - 1} more sentences" if len(reader.templates) > 1 else ""
    )
    who = "1 class with unknown words is" if unread == 1 else f"{unread} classes with unknown words are"
    left = f"; {who} left out" if unread else ""
    facts = {"features": f"of {reader.clip.name}, names read in {sentences}{left}"}
    if stick:
        facts["alike"] = f"from a cosine of {stick.cosine:.3f} on, {stick.meaning}; --alike sets another"
    return facts
