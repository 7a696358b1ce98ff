"""Do the first pictures score so badly that something must be wrong, rather than the model weak?"""

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import Readout

CHANCE_IMAGES = 20
_CAUSES = (
    "Likely causes: class names in another order than the labels, labels shifted by one, another activation "
    "(QuickGELU) than the weights were trained with, other preprocessing."
)


def check_chance(matrix: NDArray[np.int64], num_images: int, readout: Readout, who: str, reporter: Reporter) -> None:
    """Stop, or only warn where there are too few pictures to be sure, when guessing would have been better.

    Args:
        matrix: Counts of the first pictures, (K, K).
        num_images: How many they are.
        readout: Protocol of the counts. Chance is one over the number of its candidates, and accuracy is taken over
            pixels whose class is one of them.
        who: Method and data, for the message.
        reporter: Receives the warning.

    Raises:
        DataError: The pixel accuracy of `CHANCE_IMAGES` pictures or more is below chance.
    """
    candidates = list(range(len(matrix))) if readout.candidates is None else list(readout.candidates)
    pixels = int(matrix[candidates].sum())
    accuracy, chance = int(matrix.diagonal()[candidates].sum()) / max(pixels, 1), 1 / len(candidates)
    if not pixels or accuracy >= chance:
        return
    finding = (
        f"{who}: pixel accuracy {100 * accuracy:.2f} % on the first {num_images} pictures is below chance "
        f"({100 * chance:.2f} % with {len(candidates)} names). {_CAUSES}"
    )
    if num_images >= CHANCE_IMAGES:
        raise DataError(finding, "Go on all the same: --force")
    reporter.warn(finding)
