"""What a spec may leave out, and what is taken instead: the shortest one names itself, its classes and its files."""

from typing import Any

LABEL_MAPS = ("label-png", "label-tiff", "palette-png")
"""Kinds of files that hold one class id a pixel."""


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a spec's TOML with what was left out; values of a wrong type are left to the check of types.

    `title` is the name; a class may be its name alone; `subsets` are those of the layouts. In semantic data
    `ignore_label` is 255 (65535 from 256 classes on), `label_dtype` is the smallest that holds all ids, and label files
    hold class ids: train ids where no class has a `raw_id`, and `ignore_label` for unlabelled pixels.
    """
    filled = dict(document)
    filled.setdefault("title", document["name"] if isinstance(document.get("name"), str) else "untitled")
    if isinstance(document.get("classes"), list):
        filled["classes"] = [{"name": c} if isinstance(c, str) else c for c in document["classes"]]
    if "subsets" not in document:
        filled["subsets"] = {name: {} for layout in _tables(document, "layouts") for name in _subsets_of(layout)}
    if document.get("task", "semantic") == "semantic" and filled.get("classes"):
        _complete_labels(filled)
    return filled


def _tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = document.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _subsets_of(layout: dict[str, Any]) -> list[str]:
    subsets = layout.get("subsets")
    return list(subsets) if isinstance(subsets, dict) else []


def _complete_labels(filled: dict[str, Any]) -> None:
    count = len(filled["classes"]) if isinstance(filled["classes"], list) else 0
    ignore = filled.setdefault("ignore_label", 255 if count <= 255 else 65535)
    if not isinstance(ignore, int):
        return
    filled.setdefault("label_dtype", "uint8" if max(count - 1, ignore) <= 255 else "uint16")
    if "generator" not in filled:
        filled["encoding"] = _encoding(filled, ignore)


def _encoding(filled: dict[str, Any], ignore: int) -> Any:
    """Complete `encoding`; where there is none, `ignore_label` means unlabelled unless it is a class's raw value."""
    given = filled.get("encoding", {})
    raw_ids = [c.get("raw_id") for c in _tables(filled, "classes")]
    if not isinstance(given, dict) or given.get("kind", "label-png") not in LABEL_MAPS:
        return given
    encoding = {"kind": "label-png", **given}
    if all(raw is None for raw in raw_ids):
        encoding.setdefault("raw_ids", "train-ids")
    elif "encoding" not in filled and ignore not in raw_ids:
        encoding["ignore_raw"] = [ignore]
    return encoding
