"""How pydantic's complaints about a spec become file, key and mend."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_encodings import Problem
from ovseg_cli.core.errors import UsageError, nearest

MOST_SHOWN = 6
EXAMPLES = {
    "name": 'name = "mine"',
    "images": 'images = "images/train/{stem}.jpg"',
    "subsets": 'train = { images = "images/train/{stem}.jpg", labels = "labels/train/{stem}.png" }',
    "unseen": 'unseen = ["cat"]',
    "id": 'id = "mine"',
    "train_id": "train_id = 0",
}


def refuse(shown: str, problems: Sequence[Problem]) -> UsageError:
    """Build the error for all that is wrong in a spec: file, what, mend and dotted key of each, one a line."""
    first, more = problems[0], len(problems) - MOST_SHOWN
    if len(problems) == 1:
        return UsageError(f"{shown}: {first.what}", f"{first.mend} (key {first.key})")
    lines = [f"  {problem.key}: {problem.what} {problem.mend}" for problem in problems[:MOST_SHOWN]]
    rest = [f"  and {more} more"] if more > 0 else []
    return UsageError("\n".join([f"{shown}: {len(problems)} mistakes:", *lines, *rest]))


def refuse_types(error: ValidationError, document: dict[str, Any], shown: str) -> UsageError:
    """Turn pydantic's complaints into file, keys and mends; unknown keys come first, since they explain the rest."""
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    by_key: dict[str, Problem] = {}
    for complaint in found:
        problem = _problem(complaint, document)
        by_key.setdefault(problem.key, problem)
    return refuse(shown, list(by_key.values()))


def _problem(found: Any, document: dict[str, Any]) -> Problem:
    place = _place(found["loc"], document)
    key, value, kind = _dotted(place), found["input"], found["type"]
    last = place[-1] if place else ""
    if kind == "extra_forbidden":
        known = _known_keys(Spec, place[:-1])
        hit = nearest(str(last), known)
        mend = f"Did you mean '{hit}'?" if hit else f"Known: {', '.join(known)}."
        return Problem(key, f"unknown key {last!r}.", mend)
    if kind == "missing":
        example = EXAMPLES.get(str(last))
        return Problem(key, f"'{last}' is missing.", f"Add {example}." if example else "Add it.")
    if kind == "literal_error":
        choices = found["ctx"]["expected"].replace("'", "")
        hit = nearest(str(value), choices.replace(" or ", ", ").split(", "))
        mend = f"Did you mean '{hit}'?" if hit else f"Use one of: {choices}."
        return Problem(key, f"{last} = {value!r} is not one of: {choices}.", mend)
    if kind == "string_pattern_mismatch":
        return Problem(key, f"{value!r} cannot stand here.", _pattern_help(found["ctx"]["pattern"]))
    what = f"{found['msg'].removeprefix('Value error, ')}, but got {_short(value)}."
    return Problem(key, what, "Correct this value.")


def _pattern_help(pattern: str) -> str:
    if pattern.startswith("^[a-z0-9]"):
        return "Use small letters, digits, '-', '_', '+' and '.', starting with a letter or digit."
    return "Write a word without control characters and without blanks at its ends."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _place(loc: tuple[str | int, ...], document: Any) -> list[str | int]:
    """Keep the parts of pydantic's location that are keys and places in the document (it adds names of types)."""
    place: list[str | int] = []
    for i, part in enumerate(loc):
        inside = isinstance(part, int) if isinstance(document, list) else isinstance(document, dict)
        is_last = i == len(loc) - 1
        if inside and (is_last or (part in document if isinstance(document, dict) else part < len(document))):  # type: ignore[operator]
            place.append(part)
            document = document[part] if not is_last else None
    return place


def _dotted(place: list[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _known_keys(model: type[BaseModel], place: list[str | int]) -> list[str]:
    """Return the keys that may stand at a place of the document."""
    for part in place:
        inner = _inner_model(model.model_fields[part].annotation) if part in model.model_fields else None
        model = inner or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Find the model within `list[X]`, `dict[str, X]` or `X | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_inner_model(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model), None)
