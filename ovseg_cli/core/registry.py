"""Names the user can type → "module:Class", loaded only when asked for. Imports nothing heavy.

A new method is one line here, one file in `methods/` and one README row; the contract test finds it by itself.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from ovseg_cli.core.errors import unknown_name


@dataclass(frozen=True)
class Entry:
    """One registered name: where its class lives and the line `ovseg list` prints before anything is imported."""

    target: str
    title: str
    paper: str
    trained: str = "nothing"

    def load(self) -> Any:
        """Import and return the class."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


METHODS: dict[str, Entry] = {
    "clip": Entry("ovseg_cli.core.methods.clip:Clip", "CLIP", "Radford et al., ICML 2021, read densely"),
    "maskclip": Entry("ovseg_cli.core.methods.maskclip:MaskClip", "MaskCLIP", "Zhou et al., ECCV 2022"),
}

GENERATORS: dict[str, Entry] = {
    "toyseg": Entry("ovseg_cli.core.data.toy:ToyWorld", "toy world", "procedural, this project"),
}

TRAINERS: dict[str, Entry] = {
    "toy-clip": Entry(
        "ovseg_cli.core.training.toy_clip:ToyClipTask", "toy CLIP", "this project", trained="a tiny CLIP, from scratch"
    ),
}


def lookup(table: dict[str, Entry], kind: str, name: str) -> Entry:
    """Return the entry of `name`; an unknown name raises a UsageError that offers the nearest known one."""
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
