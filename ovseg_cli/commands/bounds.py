"""`--fail-under METRIC=VALUE`: bounds that turn a score into an exit code for scripts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.errors import BoundMissed, UsageError, unknown_name

if TYPE_CHECKING:
    from ovseg_cli.core.evaluation.metrics import Rule, Split
    from ovseg_cli.core.evaluation.session import Scored

METRICS = ("mIoU", "sIoU", "uIoU", "hIoU", "pAcc", "mAcc", "fwIoU")


def parse(items: Sequence[str] | None, split: str, metrics: Sequence[str] = METRICS) -> dict[str, float]:
    """Parse `METRIC=VALUE` pairs, values in percent.

    Raises:
        UsageError: An unknown metric, or a value that is no number from 0 to 100.
    """
    limits = {}
    by_lower = {metric.lower(): metric for metric in metrics}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--fail-under {item}: a bound is written METRIC=VALUE.", "For instance mIoU=20")
        if name.strip().lower() not in by_lower:
            raise unknown_name("metric", name.strip(), metrics, "--fail-under: ")
        try:
            bound = float(value)
        except ValueError as error:
            raise UsageError(f"--fail-under {item}: '{value}' is no number.", "For instance mIoU=20") from error
        if not 0 <= bound <= 100:
            raise UsageError(f"--fail-under {item}: scores are in percent, 0 to 100.")
        limits[by_lower[name.strip().lower()]] = bound
    return limits


def check(limits: dict[str, float], scored: "Sequence[Scored]", split: "Split", absent: "Rule") -> None:
    """Compare scores with the bounds.

    Raises:
        BoundMissed: A score is lower; all misses are named.
        UsageError: A bounded score does not exist for this data (no unseen class, for instance).
    """
    missed = []
    for item in scored:
        values = item.result.metrics(rule=absent, split=split)
        for metric, bound in limits.items():
            value = values[metric]
            if value is None or value != value:
                raise UsageError(
                    f"--fail-under {metric}={bound:g}: {item.result.data} has no {metric} with --split {split}.",
                    "Choose another metric, or a class split with unseen classes.",
                )
            if 100 * value < bound:
                missed.append(f"{item.result.data}: {metric} {100 * value:.2f} is below {bound:g}")
    if missed:
        raise BoundMissed("; ".join(missed) + ".")


def check_values(limits: Mapping[str, float], values: Mapping[str, Any], data: str, split: str) -> None:
    """Compare scores in percent with the bounds; raises what `check` raises."""
    missed = []
    for metric, bound in limits.items():
        value = values[metric]
        if value is None:
            raise UsageError(
                f"--fail-under {metric}={bound:g}: {data} has no {metric} with --split {split}.",
                "Choose a class split with unseen classes.",
            )
        if value < bound:
            missed.append(f"{data}: {metric} {value:.2f} is below {bound:g}")
    if missed:
        raise BoundMissed("; ".join(missed) + ".")
