"""Which pictures are worth looking at? Chosen from stored counts, before any model is built."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.errors import UsageError, nearest
from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.metrics import mean_iou


@dataclass(frozen=True)
class Chosen:
    """Pictures of a gallery.

    Attributes:
        names: Their names.
        rule: One sentence: how they were chosen, of how many.
    """

    names: tuple[str, ...]
    rule: str


def choose(tables: Sequence[CountTable], limit: int, wanted: Sequence[str] = ()) -> Chosen:
    """Choose pictures that tell models apart, and others that show how good and how bad they get.

    Those that were named come first. Half of the rest are the pictures on which the models differ most, by what their
    counts say at least (of one model: on which it is wrong most). The others are taken evenly from all that are left,
    from the lowest to the highest mean IoU of a picture, averaged over the models.

    Args:
        tables: Counts of each model; pictures that not all of them have are left out.
        limit: How many at most; more where more are named.
        wanted: Names of pictures.

    Raises:
        UsageError: A wanted picture was not scored by all.
    """
    shared = set.intersection(*(set(table.names) for table in tables))
    tables = [table.in_order([name for name in tables[0].names if name in shared]) for table in tables]
    names = tables[0].names
    named = [_place(name, names) for name in dict.fromkeys(wanted)]
    rest = [i for i in range(len(names)) if i not in named]
    room = max(0, limit - len(named))
    if room >= len(rest):
        return Chosen(tuple(names[i] for i in (*named, *rest)), f"All {len(names):,} pictures that were scored.")
    telling, spread = _telling(tables, rest, -(-room // 2)), []
    if room > len(telling):
        spread = _spread(tables, [i for i in rest if i not in telling], room - len(telling))
    places = (*named, *telling, *spread)
    return Chosen(tuple(names[i] for i in places), _rule(len(names), len(named), len(telling), len(spread), tables))


def least_disagreement(parts: Sequence[Counts]) -> float:
    """Return on which share of a picture's labelled pixels two models differ at least, 0 to 1, whatever their maps.

    Of the pixels of one class of ground truth, two models can agree on a class for no more than the fewer of those
    that either gives to it. Averaged over all pairs of models. Of one model: the share on which it is wrong, exactly.

    Args:
        parts: The counts of one picture, one a model; of the same ground truth.
    """
    first = parts[0]
    total = int(first.pixels.sum())
    if len(parts) == 1:
        same = [int(first.pixels[first.cells // first.num_classes == first.cells % first.num_classes].sum())]
    else:
        same = [_most_shared(one, other) for one, other in combinations(parts, 2)]
    return 1 - sum(same) / (len(same) * total) if total else 0.0


def _most_shared(one: Counts, other: Counts) -> int:
    """On how many pixels two models can agree at most."""
    _, mine, theirs = np.intersect1d(one.cells, other.cells, assume_unique=True, return_indices=True)
    return int(np.minimum(one.pixels[mine], other.pixels[theirs]).sum())


def _telling(tables: Sequence[CountTable], places: Sequence[int], count: int) -> list[int]:
    differ = {i: least_disagreement([table[i] for table in tables]) for i in places}
    return sorted(places, key=lambda i: (-differ[i], i))[:count]


def _spread(tables: Sequence[CountTable], places: Sequence[int], count: int) -> list[int]:
    """Take pictures evenly by falling mean IoU; those without a class are never taken."""
    means = _mean_ious(tables)
    ordered = sorted((i for i in places if not np.isnan(means[i])), key=lambda i: (means[i], i))
    marks = np.linspace(0, len(ordered) - 1, num=min(count, len(ordered)))
    return [ordered[round(float(mark))] for mark in marks]


def _mean_ious(tables: Sequence[CountTable]) -> NDArray[np.float64]:
    """Mean IoU of each picture over the classes of its ground truth, averaged over the models; (n,), 0 to 1 or NaN."""
    return np.mean([mean_iou(table.areas(), "present") for table in tables], axis=0)


def _place(name: str, names: Sequence[str]) -> int:
    for known in (name, name.rpartition(".")[0]):
        if known in names:
            return names.index(known)
    hit = nearest(name, names)
    hint = f"Did you mean '{hit}'?" if hit else f"One of them is '{names[0]}'."
    raise UsageError(f"--picture {name}: it is not among the {len(names):,} pictures that were scored.", hint)


def _rule(total: int, named: int, telling: int, spread: int, tables: Sequence[CountTable]) -> str:
    most = "on which the models differ most" if len(tables) > 1 else "on which most pixels are wrong"
    parts = [f"{named} that {'was' if named == 1 else 'were'} named"] if named else []
    parts += [f"{telling} {most}, by the stored counts"] if telling else []
    parts += [f"{spread} spread evenly from the lowest to the highest mean IoU"] if spread else []
    return f"{named + telling + spread} of {total:,} pictures: {'; '.join(parts)}."
