"""How well does a method score while it is trained? For the log and the learning curves (`eval_every`).

The pictures are those of the subset that settings are chosen on, "tune", where the data has one, else "val"; never
those that it is trained on. What is read here leaves no trace in the weights.
"""

import math
from collections.abc import Callable
from typing import Any

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.evaluate import evaluate
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.methods.texts import method_text
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.types import Readout, Vocabulary

SUBSETS = ("tune", "val")
PICTURES = 200
"""At most so many, the first ones."""
SHOWN = ("mIoU", "sIoU", "uIoU", "hIoU", "pAcc")


def scorer(
    method: TrainedMethod, prepared: PreparedData, vocabulary: Vocabulary, reporter: Reporter, group: Group
) -> Callable[[], dict[str, float]]:
    """Return what scores a method as it is: a few metrics, 0 to 1.

    Args:
        method: On its device; one whose masks come from elsewhere knows from where.
        prepared: The data set.
        vocabulary: All of its classes, unseen ones too.
        reporter: Shown the progress.
        group: The processes that train; all of them call the scorer together.

    Raises:
        DataError: There is no subset to score.
    """
    subset = next((name for name in SUBSETS if name in prepared.subsets), None)
    if subset is None:
        raise DataError(f"{prepared.root}: there is no subset {' or '.join(SUBSETS)} to score.", "Use eval_every=0.")
    data = prepared.subset(subset)
    facts = Facts(method=method.name, data=prepared.spec.name, subset=subset)
    penalty = method.seen_penalty if any(vocabulary.unseen) else 0.0
    readout = Readout(seen_penalty=penalty, seen_ids=tuple(vocabulary.seen_ids) if penalty else ())

    def scores() -> dict[str, float]:
        settings: Any = method.config
        results = evaluate(
            method,
            data,
            vocabulary,
            method_text(method, vocabulary).to(method.clip.device),
            {"main": readout},
            facts,
            reporter,
            batch_size=settings.windows_per_batch,
            limit=PICTURES,
            force=True,
            group=group,
        )
        found = results["main"].metrics()
        return {name: found[name] for name in SHOWN if math.isfinite(found.get(name, math.nan))}

    return scores
