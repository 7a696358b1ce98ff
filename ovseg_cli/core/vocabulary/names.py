"""What is odd about a single name, and which names are more general than others of their list? No model is needed."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ovseg_cli.core.vocabulary.findings import Finding, short
from ovseg_cli.core.vocabulary.relations import Rows
from ovseg_cli.core.vocabulary.thesaurus import HOMONYMS, Thesaurus
from ovseg_cli.core.vocabulary.words import ARTICLES, CATCH_ALL, LABEL_WORDS, normal, without_label_word

_SHOWN = 4
_SIGNS = re.compile(r"[_\d()\[\]{}<>:;|@#$%*+=~^\\\"!?]|[^\w\s\x00-\x7f’]")
_HUMPS = re.compile(r"[a-z][A-Z]")


def name_findings(
    names: Sequence[str], rows: Rows, thesaurus: Thesaurus, variants: Mapping[str, Mapping[str, str]] | None = None
) -> list[Finding]:
    """Look at each name by itself.

    Args:
        names: K class names, as listed.
        rows: For each class its names, its own first.
        thesaurus: Knows how others write a name.
        variants: How papers write the classes of this data set: id of the variant, class name → text.
    """
    found = []
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        for word in row:
            kind, evidence = _judge(word, thesaurus) or (None, "")
            if kind:
                evidence += _better(name, thesaurus, variants or {})
                said = evidence if word == name else f"'{word}': {evidence}"
                found.append(Finding(kind, name, evidence=said, ids=(i,)))
        if len(row) == 1 and normal(row[0]) in HOMONYMS:
            evidence = f"for instance {HOMONYMS[normal(row[0])].replace(', ', ' or ')}"
            found.append(Finding("homonym", name, evidence=evidence, ids=(i,)))
    return found


def _judge(word: str, thesaurus: Thesaurus) -> tuple[str, str] | None:
    """Return the first thing that is odd about a name, and what speaks for it."""
    checks = (_no_word, _not_english, _article, _catch_all, _label_word, _signs)
    plain = next((found for check in checks if (found := check(word))), None)
    if plain is None and (apart := thesaurus.apart(word)):
        return "joined", f"others write '{apart}'"
    return plain


def _better(name: str, thesaurus: Thesaurus, variants: Mapping[str, Mapping[str, str]]) -> str:
    """Name the first variant that writes a class without fault, as the end of the evidence."""
    plain = (variant for variant, texts in variants.items() if name in texts and not _judge(texts[name], thesaurus))
    variant = next(plain, None)
    return f" (--names {variant})" if variant else ""


def _no_word(word: str) -> tuple[str, str] | None:
    letters = [letter for letter in word if letter.isalpha()]
    if len(letters) > 1:
        return None
    return "no-word", "no letter in it" if not letters else "a single letter"


def _not_english(word: str) -> tuple[str, str] | None:
    foreign = sorted({letter for letter in word if letter.isalpha() and not letter.isascii()})
    return ("letters", f"holds {', '.join(foreign[:_SHOWN])}") if foreign else None


def _article(word: str) -> tuple[str, str] | None:
    first, *rest = word.casefold().split()
    return ("article", f"reads 'a photo of a {word}'") if rest and first in ARTICLES else None


def _catch_all(word: str) -> tuple[str, str] | None:
    return ("catch-all", "names no thing of its own") if without_label_word(word) in CATCH_ALL else None


def _label_word(word: str) -> tuple[str, str] | None:
    last = normal(word).split()[-1]
    return ("label", f"'{last}' is read as a word: write '{without_label_word(word)}'") if last in LABEL_WORDS else None


def _signs(word: str) -> tuple[str, str] | None:
    signs = sorted(set(_SIGNS.findall(word)))
    if signs:
        return "signs", f"holds {' '.join(signs)}"
    return ("signs", "words joined by capitals") if _HUMPS.search(word) else None


def list_findings(names: Sequence[str], texts: Rows) -> list[Finding]:
    """Say where lists of synonyms go into one sentence each: `a photo of a sofa, couch, lounge`."""
    lists = [i for i, row in enumerate(texts) if any("," in text for text in row)]
    if not lists:
        return []
    evidence = f"and {len(lists) - 1} more of {len(names)}" if len(lists) > 1 else "synonyms joined by commas"
    return [Finding("list", names[lists[0]], evidence=evidence, number=len(lists), ids=tuple(lists))]


def general_findings(names: Sequence[str], rows: Rows, related: Mapping[tuple[int, int], object]) -> list[Finding]:
    """Find names that are the last word of other names: `table` beside `dining table` and `pool table`.

    Names of the form `floor-wood` have what they are in front. Classes that are one name already are left out.
    """
    of_head: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        for head in _heads(row[0]):
            of_head[head].append(i)
    found = []
    for i, row in enumerate(rows):
        special = [j for j in of_head[without_label_word(row[0])] if i != j and not _paired(i, j, related)]
        if special:
            some = ", ".join(short(names[j]) for j in special[:_SHOWN])
            more = f" and {len(special) - _SHOWN} more" if len(special) > _SHOWN else ""
            evidence = f"beside {some}{more}"
            found.append(Finding("general", names[i], evidence=evidence, number=len(special), ids=(i, *special)))
    return found


def _heads(name: str) -> Iterator[str]:
    """Yield what follows the first word of a name, the first two, and so on; of `floor-wood` the floor."""
    words = without_label_word(name).split()
    if re.fullmatch(r"\w{2,}-\w{3,}", name):
        words = words[::-1]
    yield from (" ".join(words[i:]) for i in range(1, len(words)))


def _paired(i: int, j: int, related: Mapping[tuple[int, int], object]) -> bool:
    return (min(i, j), max(i, j)) in related
