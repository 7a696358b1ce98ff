"""Small results of drawn counts, and reporters."""

import numpy as np

from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.reporter import Silent

PRINTS = {"data": "d1", "weights": "w1", "vocabulary": "v1", "protocol": "p1"}


def draw_result(seed=0, num_images=30, num_classes=5, quality=0.6, first=0, **changes):
    """Pictures of a few classes each; `quality` of the pixels are right."""
    generator = np.random.default_rng(seed)
    names, parts = [], []
    for i in range(num_images):
        matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
        for truth in generator.choice(num_classes, 2, replace=False):
            pixels = int(generator.integers(50, 500))
            right = int(generator.binomial(pixels, quality))
            matrix[truth, truth] += right
            matrix[truth, generator.integers(num_classes)] += pixels - right
        names.append(f"street/{first + i:04d} ü")
        parts.append(Counts.of_matrix(matrix))
    known = {
        "method": "maskclip", "data": "toy:combo", "subset": "val", "fingerprints": PRINTS, "created": "2026-01-01",
        "class_names": tuple(f"class {i}" for i in range(num_classes)), "ignore_label": 255, "version": "0.1",
        "unseen": tuple(i >= num_classes - 2 for i in range(num_classes)),
        "is_thing": tuple(i % 2 == 0 for i in range(num_classes)), "timing": {"load": 0.5, "predict": 2.0},
        "protocol": {"candidates": "all", "seen_penalty": 0.0}, "environment": {"torch": "2"}, "notes": ("a", "b"),
    }  # fmt: skip
    return Result(**{**known, **changes}, counts=CountTable.of(names, parts, num_classes))


class Stopping(Silent):
    """Interrupts after three pictures."""

    def track(self, items, what, total=None):
        for number, item in enumerate(items):
            if number == 3:
                raise KeyboardInterrupt
            yield item


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def say(self, message):
        self.messages.append(message)
