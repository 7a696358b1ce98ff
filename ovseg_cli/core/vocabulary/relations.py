"""Which names of two lists are one name? By spelling, number, word order and known synonyms; no model is needed."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ovseg_cli.core.vocabulary.thesaurus import Thesaurus
from ovseg_cli.core.vocabulary.words import bag, compact, normal, plural_forms, without_label_word

Rows = Sequence[Sequence[str]]
"""For each class its names: the first is its own, synonyms follow."""


@dataclass(frozen=True)
class Relation:
    """Two classes that share a name.

    Attributes:
        kind: "same", "synonym-shared", "spelling", "plural", "order" or "synonym", as in `findings.KINDS`.
        words: The two names that show it.
        source: Who says so, where it is a synonym.
    """

    kind: str
    words: tuple[str, str]
    source: str = ""

    @property
    def evidence(self) -> str:
        """What speaks for it, in a few words."""
        one, other = self.words
        said = f"'{one}'" if one == other else f"'{one}' and '{other}'"
        return f"{said} ({self.source})" if self.source else said


def relations(one: Rows, other: Rows, thesaurus: Thesaurus) -> dict[tuple[int, int], Relation]:
    """Return for each pair of classes, (place in `one`, place in `other`), the first reason to take them for one.

    Of the two names that show it one is a class's own, unless they are the same: synonyms are written more freely.
    """
    found: dict[tuple[int, int], Relation] = {}
    for kind, matches in _SEARCHES:
        for i, mine, j, theirs in matches(one, other):
            is_own = mine == one[i][0], theirs == other[j][0]
            if (i, j) not in found and (any(is_own) or kind == "same"):
                shared = kind == "same" and not all(is_own)
                found[i, j] = Relation("synonym-shared" if shared else kind, (mine, theirs))
    for i, mine, j, theirs, source in _synonyms(one, other, thesaurus):
        found.setdefault((i, j), Relation("synonym", (mine, theirs), source))
    return found


def relations_within(rows: Rows, thesaurus: Thesaurus) -> dict[tuple[int, int], Relation]:
    """Return the relations of the classes of one list, each pair once, the earlier class first."""
    found = relations(rows, rows, thesaurus)
    return {(i, j): relation for (i, j), relation in sorted(found.items()) if i < j}


Match = tuple[int, str, int, str]


def _same_key(key: Callable[[str], str]) -> Callable[[Rows, Rows], Iterator[Match]]:
    def matches(one: Rows, other: Rows) -> Iterator[Match]:
        places = _index(other, lambda name: [key(name)])
        for i, mine in _each(one):
            for j, theirs in places.get(key(mine), ()):
                yield i, mine, j, theirs

    return matches


def _plural_matches(one: Rows, other: Rows) -> Iterator[Match]:
    single, many = _index(other, lambda name: [normal(name)]), _index(other, plural_forms)
    for i, mine in _each(one):
        for form in sorted(plural_forms(mine)):
            yield from ((i, mine, j, theirs) for j, theirs in single.get(form, ()))
        yield from ((i, mine, j, theirs) for j, theirs in many.get(normal(mine), ()))


def _synonyms(one: Rows, other: Rows, thesaurus: Thesaurus) -> Iterator[tuple[int, str, int, str, str]]:
    places = _index(other, thesaurus.keys)
    for i, mine in _each(one):
        for key in thesaurus.keys(mine):
            for j, theirs in places.get(key, ()):
                if (mine == one[i][0] or theirs == other[j][0]) and normal(mine) != normal(theirs):
                    yield i, mine, j, theirs, key[0]


_SEARCHES: tuple[tuple[str, Callable[[Rows, Rows], Iterator[Match]]], ...] = (
    ("same", _same_key(without_label_word)),
    ("spelling", _same_key(compact)),
    ("plural", _plural_matches),
    ("order", _same_key(bag)),
)


def _each(rows: Rows) -> Iterator[tuple[int, str]]:
    return ((i, name) for i, row in enumerate(rows) for name in row)


def _index(rows: Rows, keys: Callable) -> dict:
    places = defaultdict(list)
    for i, name in _each(rows):
        for key in keys(name):
            places[key].append((i, name))
    return places
