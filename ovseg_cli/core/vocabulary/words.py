"""When are two names the same words? Spelling, number, order; English rules, no dictionary.

All forms are made of the normal form: lower case, no articles in front, single spaces for hyphens and other signs.
"""

import re
import unicodedata
from functools import lru_cache

ARTICLES = ("a", "an", "the")
LABEL_WORDS = ("other", "stuff")
"""Ends of names that tell annotators of a rest; nobody says "floor-other"."""
CATCH_ALL = frozenset(
    "thing things object objects stuff item items entity entities something anything everything nothing none other "
    "others misc miscellaneous various rest unknown unlabeled unlabelled undefined void ignore foreground scene "
    "image".split()
)
"""Names without a content of their own: they fit every picture."""

_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "person": "people",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
    "die": "dice",
    "cactus": "cacti",
    "fungus": "fungi",
    "alga": "algae",
    "candelabrum": "candelabra",
    "leaf": "leaves",
    "loaf": "loaves",
    "thief": "thieves",
    "sheaf": "sheaves",
    "hoof": "hooves",
}
_TO_VES = ("lf", "ife", "arf")
_SIGN = re.compile(r"[^\w\s]|_")


@lru_cache(maxsize=1 << 14)
def normal(text: str) -> str:
    """Return the normal form: `The Hot-Dog` becomes `hot dog`, `lord's table` becomes `lords table`."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    words = _SIGN.sub(" ", plain).split()
    while len(words) > 1 and words[0] in ARTICLES:
        words = words[1:]
    return " ".join(words)


def compact(text: str) -> str:
    """Return the normal form without spaces: one for `hot dog`, `hotdog` and `hot-dog`."""
    return normal(text).replace(" ", "")


def bag(text: str) -> str:
    """Return the words in alphabetical order: one for `paper towel` and `towel paper`."""
    return " ".join(sorted(normal(text).split()))


def plurals(word: str) -> tuple[str, ...]:
    """Return the plurals that a word in normal form may have, the usual one first.

    Where spelling leaves two (`potatoes`, `pianos`) both come; a form that does not exist does no harm, since it is
    only compared with names that do.
    """
    if word in _IRREGULAR:
        return (_IRREGULAR[word], f"{word}s")
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return (f"{word}es",)
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return (f"{word[:-1]}ies", f"{word}s")
    if word.endswith("man") and len(word) > 4:
        return (f"{word[:-3]}men", f"{word}s")
    if word.endswith(_TO_VES):
        return (f"{word.removesuffix('e').removesuffix('f')}ves", f"{word}s")
    if word.endswith("o"):
        return (f"{word}es", f"{word}s")
    return (f"{word}s",)


def plural(text: str) -> str:
    """Return a name with its last word in the plural: `traffic light` becomes `traffic lights`."""
    *front, last = normal(text).split() or [""]
    return " ".join([*front, plurals(last)[0]])


@lru_cache(maxsize=1 << 14)
def plural_forms(text: str) -> frozenset[str]:
    """Return every normal form in which one word stands in the plural instead: `tool box` gives `tools box` too."""
    words = normal(text).split()
    numbered = ((i, form) for i, word in enumerate(words) for form in plurals(word))
    return frozenset(" ".join([*words[:i], form, *words[i + 1 :]]) for i, form in numbered)


def without_label_word(text: str) -> str:
    """Return the normal form without an annotator's `-other` or `-stuff` at its end."""
    words = normal(text).split()
    return " ".join(words[:-1] if len(words) > 1 and words[-1] in LABEL_WORDS else words)
