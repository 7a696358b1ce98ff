"""How a user's words become a vocabulary: the text after `--classes`, a file of names, or a list in Python.

One syntax everywhere:

    cat/kitten, hot dog, sky          classes are separated by commas, the synonyms of a class by `/`
    names.txt                         a path that ends in .txt: one class a line, `#` begins a comment

A class called `background` without synonyms of its own stands for a list of stuff words (`BACKGROUND_WORDS`), less
those that are classes themselves. What is refused is refused before torch is imported.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.clip.prompts import resolve_templates
from ovseg_cli.core.errors import UsageError

if TYPE_CHECKING:
    from ovseg_cli.core.types import Vocabulary

BACKGROUND = "background"
BACKGROUND_WORDS = (
    "wall",
    "floor",
    "ceiling",
    "window",
    "door",
    "table",
    "building",
    "house",
    "fence",
    "road",
    "pavement",
    "ground",
    "dirt",
    "sand",
    "rock",
    "mountain",
    "grass",
    "tree",
    "bush",
    "leaves",
    "sky",
    "clouds",
    "water",
    "river",
    "sea",
    "snow",
)
MOST_CLASSES = 65_535
_SHOW = 'For instance --classes "cat/kitten, dog, sky".'

Names = str | Path | Sequence[str | Sequence[str]]


def parse_classes(classes: Names, templates: Sequence[str] | None = None) -> "Vocabulary":
    """Read a list of classes.

    Args:
        classes: A text in the syntax above; a path ending in .txt; or a list whose items are names (synonyms joined
            by `/`, commas belong to the name) or sequences of synonyms, taken as they are.
        templates: Sentences with one `{}` each, or names of sets (`imagenet`); None takes the vocabulary's default.

    Returns:
        The vocabulary in the order given. Where a class is called `background` its id is `background`, and
        synonyms compete one by one (`synonym_rule` "max"), since an average of stuff words means nothing.

    Raises:
        UsageError: No class, an empty name, a name that stands twice, a file that cannot be read or mixes commas
            into its lines, a template without `{}`.
    """
    synonyms = read_classes(classes)
    sentences = None if templates is None else resolve_templates(templates)
    names = tuple(row[0] for row in synonyms)
    background = next((i for i, name in enumerate(names) if name.casefold() == BACKGROUND), None)
    if background is not None and len(synonyms[background]) == 1:
        synonyms[background] = _background_words(synonyms)

    from ovseg_cli.core.types import Vocabulary  # imports torch: after everything that may be refused

    vocabulary = Vocabulary(
        class_names=names,
        synonyms=tuple(tuple(row) for row in synonyms),
        background=background,
        synonym_rule="mean" if background is None else "max",
    )
    return vocabulary if sentences is None else replace(vocabulary, templates=sentences)


def read_classes(classes: Names) -> list[list[str]]:
    """Read and check a list of classes without torch: the synonyms of each class, its name first.

    Raises:
        UsageError: As `parse_classes`.
    """
    rows, where = split_classes(classes)
    synonyms = [_clean(row, where) for row in rows]
    if not synonyms:
        raise UsageError(f"{where}: there is no class in it.", _SHOW)
    if len(synonyms) > MOST_CLASSES:
        raise UsageError(f"{where}: {len(synonyms)} classes, a 16-bit label map holds {MOST_CLASSES}.")
    _refuse_doubles(synonyms, where)
    return synonyms


def split_classes(classes: Names, option: str = "--classes") -> tuple[list[list[str]], str]:
    """Cut a list into the names of each class, as they stand there, unchecked; and say where it stood.

    Args:
        classes: As in `parse_classes`.
        option: Where they were typed, for messages.

    Raises:
        UsageError: A file that cannot be read or mixes commas into its lines, a text without any name.
    """
    if isinstance(classes, Path) or (isinstance(classes, str) and classes.strip().lower().endswith(".txt")):
        path = Path(classes) if isinstance(classes, Path) else Path(classes.strip())
        return _read_file(path, option), str(path)
    if isinstance(classes, str):
        if not classes.strip():
            raise UsageError(f"{option}: there is no class in it.", _SHOW)
        return [part.split("/") for part in classes.split(",")], option
    return [_synonyms_of(item) for item in classes], "class names"


def _synonyms_of(item: str | Sequence[str]) -> list[str]:
    if isinstance(item, str):
        return item.split("/")
    if not isinstance(item, Iterable):
        raise UsageError(f"class names: {item!r} is not a text.")
    return list(item)


def _read_file(path: Path, option: str) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UsageError(f"{option} {path}: there is no such file.") from error
    except IsADirectoryError as error:
        raise UsageError(f"{option} {path}: this is a folder, not a file of names.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path}: cannot be read as UTF-8 text ({error}).") from error
    rows = []
    for number, line in enumerate(lines, 1):
        names = line.partition("#")[0].strip()
        if "," in names or ";" in names:
            raise UsageError(
                f"{path}, line {number}: '{names}' has a comma or semicolon; a file holds one class a line.",
                "Join the synonyms of a class with '/': cat/kitten",
            )
        if names:
            rows.append(names.split("/"))
    return rows


def _clean(row: Iterable[str], where: str) -> list[str]:
    names = []
    for name in row:
        if not isinstance(name, str):
            raise UsageError(f"{where}: {name!r} is not a text.")
        clean = " ".join(name.split())
        if not clean:
            raise UsageError(f"{where}: a name is empty (two commas or slashes in a row, or one at the end).", _SHOW)
        if not clean.isprintable():
            raise UsageError(f"{where}: {clean!r} holds a control character.")
        names.append(clean)
    if not names:
        raise UsageError(f"{where}: a class has no name.", _SHOW)
    return names


def _refuse_doubles(synonyms: Sequence[Sequence[str]], where: str) -> None:
    owner: dict[str, int] = {}
    for number, row in enumerate(synonyms):
        for name in row:
            first = owner.setdefault(name.casefold(), number)
            if first != number:
                owners = list(dict.fromkeys([synonyms[first][0].casefold(), row[0].casefold()]))
                both = f", for '{synonyms[first][0]}' and for '{row[0]}'" if len(owners) > 1 else ""
                raise UsageError(f"{where}: '{name}' stands twice{both}.", "Remove one.")
        if len({name.casefold() for name in row}) < len(row):
            raise UsageError(f"{where}: a synonym of '{row[0]}' stands twice.", "Remove one.")


def _background_words(synonyms: Sequence[Sequence[str]]) -> list[str]:
    taken = {name.casefold() for row in synonyms for name in row}
    return [word for word in BACKGROUND_WORDS if word not in taken] or [BACKGROUND]
