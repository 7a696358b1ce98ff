"""Which results must be read with a caveat, and how does a table show it: a sign at the label, the sentence below.

What is noted with a result (labels that a training should not have read, pictures that are missing, …) belongs to it
wherever its scores are printed. So each note has a sign, every label of a result that it holds for carries the sign,
and the sentence below the table names them; CSV and JSON have the bare sentences in a column `notes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ovseg_cli.core.report.cells import Cell, Column
from ovseg_cli.core.report.grouping import Group

SIGNS = "†‡§¶"
_NAMED = 3
"""More labels than these below one sentence are not read: the sign has to do."""


@dataclass(frozen=True)
class Remarks:
    """The notes of the results of one table.

    Attributes:
        labels: How the results are called, one a group.
        texts: For each label its notes, as the results hold them.
        signs: For each label the signs of its notes; "" for none.
        notes: Sentences to print below the table: sign, labels, note.
    """

    labels: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    signs: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str], groups: Sequence[Group]) -> "Remarks":
        """Collect the notes of groups of results, which are called by `labels`."""
        texts = tuple(tuple(dict.fromkeys(n for result in group for n in result.notes)) for group in groups)
        signs = {text: sign_of(i) for i, text in enumerate(dict.fromkeys(text for own in texts for text in own))}
        notes = tuple(f"{sign} {_whose(text, labels, groups)}: {text}" for text, sign in signs.items())
        return cls(tuple(labels), texts, tuple("".join(signs[text] for text in own) for own in texts), notes)

    @property
    def columns(self) -> list[Column]:
        """The column of CSV and JSON; none where there is nothing to remark."""
        return [Column("notes", "notes", shown=False)] if self.notes else []

    def label(self, place: int) -> Cell:
        """The label of a row, with its signs."""
        return Cell(self.labels[place], signs=self.signs[place])

    def signed(self, place: int) -> str:
        """A label as it stands in headers and titles, with its signs."""
        return self.labels[place] + self.signs[place]

    def cells(self, place: int, baseline: int | None = None) -> list[Cell]:
        """The cell of `columns` for a row; of a difference with the notes of what is subtracted, too."""
        subtracted = [] if baseline is None else self._of(baseline)
        return [Cell(" ".join([*self.texts[place], *subtracted]) or None) for _ in self.columns]

    def cells_of_all(self) -> list[Cell]:
        """The cell of `columns` for a row that all results share, as a class is."""
        return [Cell(" ".join(t for i in range(len(self.labels)) for t in self._of(i))) for _ in self.columns]

    def _of(self, place: int) -> list[str]:
        """The notes of one label after its name, as one text; no text where there are none."""
        return [f"{self.labels[place]}: {' '.join(self.texts[place])}"] if self.texts[place] else []


def sign_of(number: int) -> str:
    """Return the sign of the first note (0), the second, and so on: † ‡ § ¶ †† ‡‡ and so on."""
    return SIGNS[number % len(SIGNS)] * (1 + number // len(SIGNS))


def _whose(text: str, labels: Sequence[str], groups: Sequence[Group]) -> str:
    """Name the results that a note holds for; of a group where it holds for some seeds alone, those."""
    names = []
    for label, group in zip(labels, groups, strict=True):
        seeds = [str(result.seed) for result in group if text in result.notes]
        if seeds:
            some = f", seed {' and '.join(seeds)}" if len(seeds) < len(group) else ""
            names.append(label + some)
    if len(names) == len(labels) > 1 and list(labels) == names:
        return "all"
    names = list(dict.fromkeys(names))
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} of {len(labels)}"
