"""Which results belong together: runs that differ in nothing but their seed, and the names that tell rows apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.registry import METHODS

Group = Sequence[Result]


def group_seeds(results: Sequence[Result]) -> list[list[Result]]:
    """Put together what was scored in the same way on the same data and differs in the seed of the run.

    A run that was scored twice counts once (its newest result), so that n is a number of runs.

    Returns:
        Groups in the order of their first result; within a group by seed.
    """
    groups: dict[str, dict[str, Result]] = {}
    for result in results:
        runs = groups.setdefault(_protocol_key(result), {})
        identity = _run_key(result)
        if identity not in runs or runs[identity].created <= result.created:
            runs[identity] = result
    return [sorted(runs.values(), key=lambda result: result.seed) for runs in groups.values()]


def _protocol_key(result: Result) -> str:
    prints = {name: digest for name, digest in result.fingerprints.items() if name != "weights"}
    parts = [result.method, result.data, result.subset, result.protocol, prints, result.class_names, result.unseen]
    return json.dumps(parts, sort_keys=True, default=str)


def _run_key(result: Result) -> str:
    """What a run is: its weights; where these are not known its folder."""
    return result.fingerprints.get("weights") or f"{result.run} {result.seed}"


def method_title(name: str) -> str:
    """A method as its paper prints it (MaskCLIP); the name as typed where it is not registered."""
    return METHODS[name].title if name in METHODS else name


def row_labels(groups: Sequence[Group]) -> list[str]:
    """Name each row by its method, and rows of one method on one data set by what differs in protocol or run.

    Returns:
        One label a group, all different where anything differs.
    """
    firsts = [group[0] for group in groups]
    labels = [method_title(first.method) for first in firsts]
    for place, first in enumerate(firsts):
        rivals = [r for r in firsts if (r.method, r.data, r.subset) == (first.method, first.data, first.subset)]
        if len(rivals) > 1:
            labels[place] += f" ({_what_differs(first, rivals)})"
    return labels


def _what_differs(own: Result, rivals: Sequence[Result]) -> str:
    flat = [_flatten(rival.protocol) for rival in rivals]
    keys = sorted({key for one in flat for key in one if any(one.get(key) != other.get(key) for other in flat)})
    mine = _flatten(own.protocol)
    protocol = ", ".join(f"{key.rpartition('.')[2]} {_short(mine.get(key))}" for key in keys[:3])
    same = [rival for rival, one in zip(rivals, flat, strict=True) if one == mine]
    if len(same) == 1:
        return protocol
    run = Path(own.run).name if own.run else f"run {[id(rival) for rival in rivals].index(id(own)) + 1}"
    return f"{protocol}, {run}" if protocol else run


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item})
    return flat


def _short(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= 24 else text[:23] + "…"
