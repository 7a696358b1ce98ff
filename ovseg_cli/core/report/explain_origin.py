"""Which `ovseg eval` made a result, and which one makes its variants? Read from the result and its run's config."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ovseg_cli.core.evaluation.request import SCORE_SUBSET, EvalRequest
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.explain_variants import Knobs, Variant, has_gamma
from ovseg_cli.core.runs import Run

_FROM_SOURCE = "run of "  # begins the masks' source in a protocol that leaves out the path of the run that makes them


def request_of(result: Result, run: Run | None) -> EvalRequest:
    """Return the request that scores a result again.

    Args:
        result: The result.
        run: Its run folder; None where it is gone, and the result says only where it lay.
    """
    protocol, typed = result.protocol, _typed_options(result)
    data, unseen = _data_of(result, run)
    knobs = Knobs.of(result)
    return EvalRequest(
        model=run.as_model if run else result.run or result.method,
        data=data,
        unseen=unseen,
        subset=None if result.subset == SCORE_SUBSET else result.subset,
        candidates=knobs.candidates,
        seen_penalty=_number(typed.get("--seen-penalty")),
        background_threshold=_number(typed.get("--background-threshold")),
        templates=typed.get("--templates"),
        names=typed.get("--names"),
        settings=_changed_settings(protocol.get("method") or {}, run.config.get("method", {}) if run else {}),
        limit=protocol.get("limit"),
    )


def turned(request: EvalRequest, result: Result, variant: Variant) -> EvalRequest:
    """Return the request of a variant."""
    if variant.knob == "candidates":
        return replace(request, candidates=str(variant.value))
    value = float(variant.value)
    if variant.knob == "threshold":
        return replace(request, background_threshold=value)
    if has_gamma(result):
        return replace(request, settings={**request.settings, "gamma": value})
    return replace(request, seen_penalty=value)


def typed(request: EvalRequest) -> str:
    """Write a request as it is typed."""
    words = ["ovseg", "eval", request.model]
    for name, value in (
        ("--data", request.data[0] if request.data else None),
        ("--unseen", request.unseen),
        ("--subset", request.subset),
        ("--candidates", None if request.candidates == "all" else request.candidates),
        ("--seen-penalty", request.seen_penalty),
        ("--background-threshold", request.background_threshold),
        ("--templates", request.templates),
        ("--names", request.names),
        ("--limit", request.limit),
    ):
        words += [] if value is None else [name, f"{value:g}" if isinstance(value, float) else str(value)]
    for key, value in _flat(request.settings):
        words += ["--set", f"{key}={json.dumps(value)}"]
    return shlex.join(words)


def _data_of(result: Result, run: Run | None) -> tuple[tuple[str, ...], str | None]:
    """What `--data` and `--unseen` have to say; nothing where they are the run's."""
    name, _, split = result.data.partition(":")
    if run is not None and run.config["run"]["data"] == result.data:
        return (), None
    if not split.startswith("custom-"):
        return (result.data,), None
    names = [one for one, flag in zip(result.class_names, result.unseen, strict=True) if flag]
    return (name,), ("; " if any("," in one for one in names) else ", ").join(names)


def _typed_options(result: Result) -> dict[str, str]:
    """Options with a value that made a result; of what was scored for an explanation those that would make it.

    Of a result that another command made, a training for instance, nothing was typed.
    """
    words = shlex.split(result.command) if result.command else []
    if words[:2] == ["ovseg", "report"]:
        protocol = result.protocol
        told = {"--background-threshold": protocol.get("background_threshold"), "--names": protocol.get("names")}
        told |= {"--seen-penalty": protocol.get("seen_penalty")} if any(result.unseen) else {}
        return {name: str(value) for name, value in told.items() if value is not None}
    if words[:2] != ["ovseg", "eval"]:
        return {}
    found: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            found[name] = value if equals else following
    return found


def _changed_settings(scored: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a protocol that are not those of the run."""
    changed: dict[str, Any] = {}
    for key, value in scored.items():
        if key not in kept or kept[key] == value or str(value).startswith(_FROM_SOURCE):
            continue
        changed[key] = _changed_settings(value, kept[key]) if isinstance(value, Mapping) else value
    return {key: value for key, value in changed.items() if value != {}}


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
