"""Do a checkpoint's classes stand in the order of a data set's? Lists of names, and rows of text features.

A list that is shifted by one (a background first) or in another order makes other classes seen than the labels say:
scores near 0 that look like a bad model.
"""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.methods.texts import normal_name

NEAR = 0.02
"""Cosine. A row may be this much nearer to another class than to its own: names of nearly the same meaning."""

MOST = 0.9
"""Share of the places that have to agree before rows are called shifted; the rest may be such names."""


def difference(found: Sequence[str], own: Sequence[str]) -> str | None:
    """Say how a list of class names differs from another; None where it does not, spelling aside.

    Args:
        found: Names of the checkpoint.
        own: Names of the data set, at least one.
    """
    spelt, wanted = ([_spelling(name) for name in names] for names in (found, own))
    if spelt == wanted:
        return None
    if shift := shift_of([wanted.index(name) if name in wanted else None for name in spelt]):
        return f"shifted by {shift}, it begins with '{found[0]}' instead of '{own[0]}'"
    if sorted(spelt) == sorted(wanted):
        place = next(i for i, pair in enumerate(zip(spelt, wanted, strict=True)) if pair[0] != pair[1])
        return f"permuted, class {place} is '{found[place]}' instead of '{own[place]}'"
    extra = [f"has '{name}'" for name, plain in zip(found, spelt, strict=True) if plain not in wanted][:1]
    lacking = [f"lacks '{name}'" for name, plain in zip(own, wanted, strict=True) if plain not in spelt][:1]
    what = " and ".join([*extra, *lacking]) or "names a class twice"
    return f"another list of {len(found)} instead of {len(own)} classes, it {what}"


def _spelling(name: str) -> str:
    """Bring a name to one spelling: "dining table" is "diningtable"."""
    return normal_name(name).replace(" ", "")


def shift_of(places: Sequence[int | None]) -> int:
    """Return n where the class that belongs to place i stands at i + n; 0 where places do not agree on one n.

    Args:
        places: For each entry of a list the place where it belongs, None where it belongs nowhere.
    """
    steps = Counter(i - place for i, place in enumerate(places) if place is not None)
    n, votes = steps.most_common(1)[0] if steps else (0, 0)
    is_shift = votes >= 2 and 2 * abs(n) <= len(places) and votes >= MOST * (len(places) - abs(n))
    return n if is_shift else 0


def check_rows(rows: Tensor, own: Tensor, names: Sequence[str]) -> str | None:
    """Compare rows of text features with the classes that they should speak for.

    Both sets are centred first: what all texts have in common says nothing about order.

    Args:
        rows: (K', D), in the order to be checked.
        own: (K, D), features of the names by the checkpoint's text tower.
        names: K class names.

    Returns:
        None where every row is nearest to its own class; else what is wrong: which row is nearest to which class, and
        whether the rows are shifted, permuted, or features of something else.
    """
    similarity = _centred(rows) @ _centred(own).T
    best, nearest = similarity.max(dim=1)
    places = nearest.tolist()
    count = len(rows)
    wrong = [i for i in range(count) if i >= len(own) or similarity[i, i] < best[i] - NEAR]
    if not wrong:
        return None if count == len(own) else f"there are {count} rows for {len(own)} classes"
    row = wrong[0]
    meant = f"not to {row} ('{names[row]}')" if row < len(names) else f"of {len(names)}"
    first = f"row {row} is nearest to class {places[row]} ('{names[places[row]]}'), {meant}"
    counts = "" if count == len(own) else f"there are {count} rows for {len(own)} classes, "
    return f"{counts}{first}: {_order(places, len(own))}"


def _centred(rows: Tensor) -> Tensor:
    rows = F.normalize(rows.float(), dim=-1)
    return F.normalize(rows - rows.mean(dim=0), dim=-1) if len(rows) > 1 else rows


def _order(places: Sequence[int], classes: int) -> str:
    if shift := shift_of(places):
        return f"the rows are shifted by {shift}"
    met = len(set(places))
    if met >= MOST * min(len(places), classes):
        moved = sum(i != place for i, place in enumerate(places))
        return f"the rows are permuted, {moved} of {len(places)} stand elsewhere"
    return f"they are no features of these names by this text tower, only {met} of {classes} classes are met"
