"""Which classes does a model take for each other? From the stored counts, for a matrix small enough to read."""

import numpy as np

from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.page.document import Confusion
from ovseg_cli.core.page.rows import Row, place_of

MOST = 12


def confusion_of(row: Row) -> Confusion | None:
    """Return the most confused classes of a row (of several seeds the first); None where no pixel is wrong."""
    result = row.first.result
    chosen = most_confused(result)
    if not chosen:
        return None
    part = result.matrix[np.ix_(chosen, chosen)]
    return Confusion(
        row.label,
        place_of(result),
        tuple(result.class_names[i] for i in chosen),
        tuple(tuple(int(pixels) for pixels in line) for line in part),
        tuple(int(result.areas.truth[i]) for i in chosen),
    )


def most_confused(result: Result, most: int = MOST) -> list[int]:
    """Choose the classes that lose most pixels to each other.

    Pairs of classes are taken by falling number of pixels that either loses to the other; both classes of a pair come
    in as long as there is room for them. So classes that are taken for each other stand side by side, and the pair
    that costs most stands first.

    Args:
        result: Its counts decide.
        most: How many classes at most, 2 or more.

    Returns:
        Train ids in the order in which they were chosen; none where no pixel is wrong.
    """
    lost = np.triu(result.matrix + result.matrix.T, 1)
    chosen: dict[int, None] = {}
    for cell in np.argsort(-lost, axis=None, kind="stable"):
        pair = [int(i) for i in divmod(int(cell), len(lost))]
        if lost[pair[0], pair[1]] == 0 or len(chosen) == most:
            break
        if len({*chosen, *pair}) <= most:
            chosen |= dict.fromkeys(pair)
    return list(chosen)
