"""How was a checkpoint of ZegCLIP or TagCLIP trained? Its number of names, `--data` and the released code tell."""

from collections.abc import Mapping
from typing import Any

_SOURCES = {
    "self_training": "released code: pseudo labels where the ground truth has unseen classes",
    "trust_target": "released code: the token learned where the ground truth has unseen classes",
}


def setting_of(classes: int | None, counts: tuple[int, int] | None) -> str | None:
    """Return how a model was trained: the loss of all settings but the inductive one has all names.

    Args:
        classes: Names in the loss, None where the file does not tell.
        counts: Seen classes and all of `--data`; None where nobody said.
    """
    if counts is None:
        return None
    seen, every = counts
    if seen == every:
        return "supervised"
    return "transductive" if classes == every else "inductive"


def facts_of(method: str, setting: str | None, told: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of the training, in the words of the training settings."""
    facts = {} if setting is None else {"setting": setting}
    if method == "zegclip" and setting == "transductive":
        facts["self_training"] = "starred"
    if told.get("token") and setting != "supervised":
        facts["trust_target"] = "official-unseen"
    return facts


def source_of(fact: str, value: str, classes: int | None) -> str:
    """Return where a fact comes from.

    Args:
        fact: Its name.
        value: What it is.
        classes: Names in the loss, None where the file does not tell.
    """
    if fact in _SOURCES:
        return _SOURCES[fact]
    if value == "transductive":
        return f"all {classes} names in the loss; if it was trained on all labels, say so: --data NAME:none"
    return "--data, and the number of names in the loss" if classes else "--data; the file does not tell more"


def reason_of(facts: Mapping[str, str]) -> str:
    """Say why settings differ from the method's defaults."""
    return "no token" if facts.get("setting", "inductive") == "inductive" else f"{facts['setting']} setting"
