"""Which results belong together: runs that differ in nothing but their seed, and the names that tell rows apart."""

import json
from collections.abc import Collection, Sequence
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


def row_labels(groups: Sequence[Group], own_columns: Collection[str] = ()) -> list[str]:
    """Name each row by its method, and rows of one method on one data set by what sets them apart.

    A setting is named where the row's value is not that of most of its rivals (of two, both name theirs; among many
    that share a value, only the others). Rows that are still alike get the name of their run.

    Args:
        groups: One row each.
        own_columns: Keys of the protocol that the table shows in columns of their own.

    Returns:
        One label a group, all different where anything differs that no column shows.
    """
    firsts = [group[0] for group in groups]
    labels = []
    for first in firsts:
        rivals = [r for r in firsts if (r.method, r.data, r.subset) == (first.method, first.data, first.subset)]
        parts = _what_differs(first, rivals, own_columns)
        labels.append(method_title(first.method) + (f" ({', '.join(parts)})" if parts else ""))
    return labels


def _what_differs(own: Result, rivals: Sequence[Result], own_columns: Collection[str]) -> list[str]:
    parts = _rare_settings([_flatten(rival.protocol) for rival in rivals], own_columns)
    shown = [[_flatten(rival.protocol).get(key) for key in own_columns] for rival in rivals]
    place = next(i for i, rival in enumerate(rivals) if rival is own)
    if sum((parts[i], shown[i]) == (parts[place], shown[place]) for i in range(len(rivals))) == 1:
        return parts[place]
    return [*parts[place], Path(own.run).name if own.run else f"run {place + 1}"]


def _rare_settings(protocols: Sequence[dict[str, Any]], own_columns: Collection[str]) -> list[list[str]]:
    """For each protocol its settings that fewer than half of all share, as texts."""
    keys = sorted({key for one in protocols for key in one} - set(own_columns))
    names = _short_names([key for key in keys if len({str(one.get(key)) for one in protocols}) > 1])
    rare: list[list[str]] = [[] for _ in protocols]
    for key, name in names.items():
        values = [str(one.get(key)) for one in protocols]
        for texts, one, value in zip(rare, protocols, values, strict=True):
            if 2 * values.count(value) <= len(values):
                texts.append(f"{name} {_short(one.get(key))}")
    return rare


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Keys without the section they stand in, where that leaves them different."""
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item})
    return flat


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else text[:23] + "…"
