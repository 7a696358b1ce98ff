"""Which list of class names is meant? A data set's, a file's, one typed on the command line, or that of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.prediction.class_lists import BACKGROUND, split_classes
from ovseg_cli.core.runs import CONFIG, Run, latest_run, open_run
from ovseg_cli.core.vocabulary.findings import Finding

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice
    from ovseg_cli.core.runtime import Folders

FORMS = 'a data set (coco-stuff:156-15), a file of names (names.txt), names ("cat, dog") or a run folder'


@dataclass(frozen=True)
class ClassList:
    """A list of classes as it was meant.

    Attributes:
        label: How it is called.
        names: K class names.
        texts: For each class the texts that are encoded, at least one.
        background: Place of a class that stands for the rest of the picture; it is no name like the others.
        choice: The data set and its class split, where the list is that of one.
        run: The run whose list it is, if one was named.
        refused: What `ovseg predict` does not take, in a list of the user's own.
    """

    label: str
    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    background: int | None = None
    choice: "DataChoice | None" = None
    run: Run | None = None
    refused: tuple[Finding, ...] = ()

    @property
    def places(self) -> list[int]:
        """Places of the classes that are looked at: all but the background."""
        return [i for i in range(len(self.names)) if i != self.background]

    @property
    def rows(self) -> list[list[str]]:
        """For each class looked at its names: texts, cut at commas. A data set's lists stand in one text."""
        return [names_in(self.texts[i]) for i in self.places]

    @property
    def seen_places(self) -> list[int]:
        """Classes that training sees, by the class split of the data set; all where there is none."""
        if self.choice is None or self.choice.split is None:
            return self.places
        seen = set(self.choice.spec.seen_ids(self.choice.split))
        return [i for i in self.places if i in seen]


def names_in(texts: Sequence[str]) -> list[str]:
    """Return the names in some texts, each once: `sofa, couch` holds two."""
    parts = (part.strip() for text in texts for part in text.split(","))
    return list(dict.fromkeys(part for part in parts if part)) or list(texts[:1])


def find_classes(what: str, folders: "Folders", variant: str | None = None) -> ClassList:
    """Read a list of classes.

    Args:
        what: One of `FORMS`, or `latest`.
        folders: Where data sets of the user's own, and runs, lie.
        variant: Name variant of a data set (`--names`).

    Raises:
        UsageError: There is no such list, or no class in it.
    """
    run = _run_of(what, folders)
    if run is None and ("," in what or what.strip().lower().endswith(".txt")):
        if variant is not None:
            raise UsageError(f"--names {variant}: this list is none of a data set.", "Leave --names out.")
        return _own_list(what)
    return _of_data(run.data if run else (what, None), folders, variant, run)


def _run_of(what: str, folders: "Folders") -> Run | None:
    if what == "latest":
        return latest_run(folders.runs)
    return open_run(Path(what)) if (Path(what) / CONFIG).is_file() else None


def _of_data(data: tuple[str, str | None], folders: "Folders", variant: str | None, run: Run | None) -> ClassList:
    from ovseg_cli.core.data.find import find_data

    try:
        choice = find_data(*data, folders)
    except UsageError as error:
        near, question, _ = (error.mend or "").partition("?")
        raise UsageError(error.message, f"{near}? Or name {FORMS}." if question else f"Name {FORMS}.") from error
    if not choice.spec.classes:
        raise UsageError(f"{choice.spec.name} holds class-agnostic masks and has no classes.", f"Name {FORMS}.")
    spec = choice.spec
    background = spec.background.train_id if spec.background else None
    texts = tuple(tuple(row) for row in spec.texts(variant or _variant_of(run, spec.name_variants)))
    label = str(run.path) if run else choice.label
    return ClassList(label, tuple(spec.class_names), texts, background, choice, run)


def _variant_of(run: Run | None, variants: Sequence) -> str | None:
    """The names that the method of a run reads, where its paper has its own."""
    from ovseg_cli.core import registry

    if run is None or run.method not in registry.METHODS:
        return None

    from ovseg_cli.core.methods.texts import default_names  # imports torch

    return default_names(registry.METHODS[run.method].load(), [variant.id for variant in variants])


def _own_list(what: str) -> ClassList:
    rows, where = split_classes(what, "CLASSES")
    refused: list[Finding] = []
    texts: list[tuple[str, ...]] = []
    for number, row in enumerate(rows, 1):
        words = [" ".join(word.split()) for word in row]
        kept = tuple(word for word in words if word and word.isprintable())
        name = kept[0] if kept else f"class {number}"
        lacks = [("empty", "nothing between two commas or slashes") for word in words if not word]
        lacks += [("control", repr(word)) for word in words if word and not word.isprintable()]
        refused += [Finding(kind, name, evidence=evidence) for kind, evidence in lacks]
        texts += [kept] if kept else []
    if not texts:
        raise UsageError(f"{where}: there is no class in it.", f"Name {FORMS}.")
    names = tuple(row[0] for row in texts)
    rest = (i for i, row in enumerate(texts) if len(row) == 1 and row[0].casefold() == BACKGROUND)
    label = what if what.strip().lower().endswith(".txt") else "your list"
    return ClassList(label, names, tuple(texts), next(rest, None), refused=(*refused, *_doubles(texts)))


def _doubles(texts: Sequence[Sequence[str]]) -> list[Finding]:
    """Names that stand twice, as `ovseg predict` counts them: case aside."""
    owner: dict[str, int] = {}
    found = []
    for i, row in enumerate(texts):
        for word in row:
            first = owner.setdefault(word.casefold(), i)
            if first != i or [w.casefold() for w in row].count(word.casefold()) > 1:
                other = texts[first][0]
                said = f"'{word}' is a name of '{other}' too" if first != i else f"'{word}' is a synonym twice"
                found.append(Finding("twice", row[0], other, said, ids=(first, i) if first != i else (i,)))
    return list(dict.fromkeys(found))
