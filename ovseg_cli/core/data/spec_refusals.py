"""How pydantic's complaints about a spec become file, key and mend."""

from typing import Any

from pydantic import BaseModel, ValidationError

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.errors import UsageError, nearest


def refused(shown: str, key: str, what: str, mend: str) -> UsageError:
    """Build the error of a broken rule: file, what, mend, and the dotted key."""
    return UsageError(f"{shown}: {what}", f"{mend} (key {key})")


def refuse_types(error: ValidationError, document: dict[str, Any], shown: str) -> UsageError:
    """Turn pydantic's first complaint into file, key and mend; unknown keys come first, since they explain the rest."""
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")[0]
    place = _place(found["loc"], document)
    key, value, kind = _dotted(place), found["input"], found["type"]
    last = place[-1] if place else ""
    if kind == "extra_forbidden":
        known = _known_keys(Spec, place[:-1])
        hit = nearest(str(last), known)
        mend = f"Did you mean '{hit}'?" if hit else f"Known: {', '.join(known)}."
        return refused(shown, key, f"unknown key {last!r}.", mend)
    if kind == "missing":
        return refused(shown, key, f"'{last}' is missing.", "Add it; a shipped spec shows how.")
    if kind == "literal_error":
        choices = found["ctx"]["expected"].replace("'", "")
        hit = nearest(str(value), choices.replace(" or ", ", ").split(", "))
        mend = f"Did you mean '{hit}'?" if hit else f"Use one of: {choices}."
        return refused(shown, key, f"{last} = {value!r} is not one of: {choices}.", mend)
    if kind == "string_pattern_mismatch":
        return refused(shown, key, f"{value!r} cannot stand here.", _pattern_help(found["ctx"]["pattern"]))
    return refused(
        shown, key, f"{found['msg'].removeprefix('Value error, ')}, but got {_short(value)}.", "Correct this value."
    )


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
