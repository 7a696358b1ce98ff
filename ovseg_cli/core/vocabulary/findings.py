"""What does a finding hold, and how do findings become tables and JSON?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ovseg_cli.core.report.cells import Cell, Column, Table

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MOST_ROWS = 20
"""Findings of one table that are printed; JSON has all."""


@dataclass(frozen=True)
class Kind:
    """One thing that can be wrong.

    Attributes:
        name: In JSON.
        label: In tables.
        level: "error": `ovseg predict` refuses such a list; "warning": it costs pixels or spoils a score; "note".
        group: Key of the table in `TITLES`.
        mend: What to do, one sentence.
    """

    name: str
    label: str
    level: Level
    group: str
    mend: str


TITLES = {
    "refused": "What `ovseg predict` refuses",
    "pairs": "Classes that little tells apart",
    "takers": "Names that take pixels of others, or may",
    "reading": "Names that a text model reads badly",
    "training": "Classes that training has seen under this name or another",
}
_KINDS = (
    Kind("empty", "empty name", "error", "refused", "Remove the comma, slash or line that has nothing behind it."),
    Kind("control", "control character", "error", "refused", "Type the name anew."),
    Kind("twice", "stands twice", "error", "refused", "Remove one, or join the two classes: `sofa/couch`."),
    Kind("same", "same name", "warning", "pairs", "Join such classes, or say in each name what sets it apart."),
    Kind("synonym-shared", "shared synonym", "warning", "pairs", "Take the synonym out of one of the two."),
    Kind("spelling", "other spelling", "warning", "pairs", "Join the two: a text model reads one thing."),
    Kind("plural", "plural", "warning", "pairs", "Join one and many (`cup/cups`), or expect pixels to go either way."),
    Kind("order", "same words", "warning", "pairs", "A text model hardly reads word order: use other words."),
    Kind("synonym", "synonym", "warning", "pairs", "Join the two, or say in each name what sets it apart."),
    Kind("tokens", "same tokens", "warning", "pairs", "The model reads one thing: use other words."),
    Kind("alike", "alike features", "warning", "pairs", "Say in each name what sets it apart, or join the two."),
    Kind("catch-all", "fits everything", "warning", "takers", "Use `background`, or leave the rest unnamed."),
    Kind("taker", "took pixels", "warning", "takers", "Say it more exactly, give it synonyms, or leave it out."),
    Kind(
        "hub",
        "near to many",
        "note",
        "takers",
        "By text features alone: what it does take, a scored run tells (`took pixels`).",
    ),
    Kind("general", "general name", "note", "takers", "Say what is left for it: `office table` beside `dining table`."),
    Kind("unknown", "unknown word", "warning", "reading", "Use a CLIP that knows it: --clip ViT-B-16."),
    Kind("cut", "cut off", "warning", "reading", "Say it in fewer words."),
    Kind("article", "article in front", "warning", "reading", "Leave the article out: sentences bring their own."),
    Kind("letters", "not English", "warning", "reading", "Use the English name: CLIP's texts are English."),
    Kind("no-word", "no word", "warning", "reading", "Write what it stands for."),
    Kind("joined", "run together", "warning", "reading", "Write it with spaces."),
    Kind("signs", "signs in it", "note", "reading", "Write the words as one says them."),
    Kind("label", "annotators' word", "warning", "reading", "Write the plain word."),
    Kind("list", "list in one sentence", "note", "reading", "Let each synonym have its own sentence."),
    Kind("astray", "synonym astray", "warning", "reading", "Leave this synonym out."),
    Kind("homonym", "several meanings", "note", "reading", "Say which is meant."),
    Kind("seen", "training class", "note", "training", "It is no test of zero-shot: read the truly novel mIoU."),
    Kind("seen-twin", "like a training class", "warning", "training", "Do not count it as zero-shot."),
)
KINDS = {kind.name: kind for kind in _KINDS}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: Key of `KINDS`.
        name: The class, as listed.
        other: The other class or the training class, or "".
        evidence: What speaks for it, in a few words.
        number: The number in the evidence (a cosine, a count), or None.
        ids: Places of the classes in the list, from 0.
    """

    kind: str
    name: str
    other: str = ""
    evidence: str = ""
    number: float | None = None
    ids: tuple[int, ...] = ()

    @property
    def level(self) -> Level:
        """How much it matters."""
        return KINDS[self.kind].level

    def record(self) -> dict[str, Any]:
        """The finding as plain data."""
        kind = KINDS[self.kind]
        names = [self.name, *([self.other] if self.other and kind.group == "pairs" else [])]
        return {
            "level": kind.level,
            "kind": kind.name,
            "classes": names,
            "ids": list(self.ids),
            "other": self.other or None,
            "evidence": self.evidence,
            "number": self.number,
            "mend": kind.mend,
        }


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings by table, by kind as `KINDS` orders them, then by place; the largest counts first."""
    place = {name: i for i, name in enumerate(KINDS)}
    counts = ("hub", "general", "taker")

    def key(finding: Finding) -> tuple[int, float, tuple[int, ...]]:
        return (place[finding.kind], -(finding.number or 0) if finding.kind in counts else 0, finding.ids)

    return sorted(findings, key=key)


def finding_tables(findings: Sequence[Finding], most: int | None = MOST_ROWS) -> list[Table]:
    """Make one table a group of kinds, without groups that have no finding; what to do stands below each.

    Args:
        findings: All findings.
        most: Rows of one table; None for all.
    """
    tables = []
    for group, title in TITLES.items():
        found = [finding for finding in ordered(findings) if KINDS[finding.kind].group == group]
        if found:
            tables.append(_table(group, f"{title} ({len(found)})", found, most))
    return tables


def _table(group: str, title: str, found: Sequence[Finding], most: int | None) -> Table:
    others = {"pairs": "other class", "training": "training class"}
    columns = [Column("class", "class"), Column("finding", "finding"), Column("evidence", "evidence")]
    if group in others:
        columns.insert(1, Column("other", others[group]))
    rows = []
    for finding in found[:most]:
        cells = [Cell(short(finding.name)), Cell(KINDS[finding.kind].label), Cell(finding.evidence or None)]
        if group in others:
            cells.insert(1, Cell(short(finding.other)))
        rows.append(tuple(cells))
    notes = [f"{KINDS[name].label}: {KINDS[name].mend}" for name in KINDS if any(f.kind == name for f in found)]
    if len(rows) < len(found):
        notes.insert(0, f"{len(rows)} of {len(found)} are shown; --json has all.")
    return Table(title, tuple(columns), tuple(rows), tuple(notes))


def short(text: str, most: int = 40) -> str:
    """Return a name that may be a long list of synonyms, cut for a table."""
    return text if len(text) <= most else text[: most - 1].rstrip(" ,") + "…"
