"""Results made by hand from small matrices, for the tests of tables."""

from collections.abc import Sequence

import numpy as np

from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.results import Result

NAMES = ("cat", "dog", "sky")


def result(*matrices: Sequence[Sequence[int]], method: str = "maskclip", **options) -> Result:
    """One matrix (rows ground truth) a picture."""
    size = len(matrices[0])
    parts = [Counts.of_matrix(np.array(matrix, dtype=np.int64)) for matrix in matrices]
    given = {
        "method": method,
        "data": "toy:combo",
        "subset": "val",
        "class_names": NAMES[:size],
        "unseen": (False, False, True)[:size],
        "counts": CountTable.of([f"p{i}" for i in range(len(parts))], parts, size),
        "fingerprints": {"data": "d", "weights": "w", "vocabulary": "v", "protocol": "p"},
        **options,
    }
    return Result(**given)


def random_result(draw: int, pictures: int = 12, classes: int = 3, **options) -> Result:
    """Random pictures of 1000 pixels, more right than wrong."""
    generator = np.random.default_rng(draw)
    weights = np.ones((classes, classes)) + 6 * np.eye(classes)
    draws = [generator.multinomial(1000, (weights / weights.sum()).ravel()) for _ in range(pictures)]
    return result(*(draw.reshape(classes, classes) for draw in draws), **options)
