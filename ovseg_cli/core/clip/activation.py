"""Which activation some CLIP weights were trained with. The wrong one costs accuracy and raises no error.

OpenAI, DFN and MetaCLIP trained with QuickGELU, x·sigmoid(1.702x); most others with exact GELU. open_clip ties it to
the architecture's name and only warns when tag and name disagree; here the weights decide.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import UsageError


@dataclass(frozen=True)
class Activation:
    """The decision and its evidence; `sure` is False where only the architecture's name speaks."""

    quick: bool
    because: str
    sure: bool


def choose_activation(
    architecture: str, config: dict[str, Any], tag: str | None, path: Path, is_openai: bool
) -> Activation:
    """Decide between QuickGELU and exact GELU.

    The evidence, best first: the tag; OpenAI's own file form; an `open_clip_config.json` beside the file; a tag of this
    architecture in the path; the architecture's name.

    Args:
        architecture: open_clip's name.
        config: Its configuration.
        tag: The tag that the weights came by, or None for a local file.
        path: The file.
        is_openai: The file is in OpenAI's own form.

    Raises:
        UsageError: The name says QuickGELU (`…-quickgelu`) and the weights are known to be of the other kind.
    """
    choice = _evidence(architecture, tag, path, is_openai)
    named = bool(config.get("quick_gelu", False))
    if choice is None:
        return Activation(named, "as the architecture's name says; the file does not tell", sure=False)
    if named and not choice.quick:
        raise UsageError(
            f"{architecture} runs QuickGELU, but {path.name} was trained with exact GELU ({choice.because}).",
            f"Use --clip {architecture.removesuffix('-quickgelu')}.",
        )
    return choice


def _evidence(architecture: str, tag: str | None, path: Path, is_openai: bool) -> Activation | None:
    from open_clip.pretrained import get_pretrained_cfg

    if tag is not None:
        return Activation(bool(get_pretrained_cfg(architecture, tag).get("quick_gelu", False)), f"tag '{tag}'", True)
    if is_openai:
        return Activation(True, "a file in OpenAI's form", True)
    beside = path.parent / "open_clip_config.json"
    if beside.is_file():
        return Activation(_config_says(beside), f"{beside.name} beside the file", True)
    base = architecture.removesuffix("-quickgelu")
    found = _tag_in_path(base, path)
    if found is None:
        return None
    return Activation(bool(get_pretrained_cfg(base, found).get("quick_gelu", False)), f"'{found}' in the path", True)


def _config_says(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return bool(document.get("model_cfg", document).get("quick_gelu", False))
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}).", "Mend or remove it.") from error


def _tag_in_path(architecture: str, path: Path) -> str | None:
    """The longest tag of the architecture that stands in the last parts of the path as whole words."""
    from open_clip.pretrained import list_pretrained_tags_by_model

    text = _plain("/".join(path.parts[-4:]))
    hits = [t for t in list_pretrained_tags_by_model(architecture) if re.search(rf"(^|_){_plain(t)}(_|$)", text)]
    return max(hits, key=len, default=None)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())


def explain_activation(architecture: str, config: dict[str, Any], pretrained: str, choice: Activation) -> str:
    """Return the sentence that tells which activation runs and why."""
    kind = "QuickGELU" if choice.quick else "exact GELU"
    tower = "the text tower of " if "timm_model_name" in config.get("vision_cfg", {}) else ""
    mend = "" if choice.sure else f"; OpenAI's, DFN's and MetaCLIP's weights need --clip {architecture}-quickgelu"
    hint = mend if not choice.quick else ""
    return f"{tower}{architecture} with '{pretrained}' runs {kind} ({choice.because}){hint}"
