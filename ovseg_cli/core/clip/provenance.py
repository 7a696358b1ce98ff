"""What some CLIP weights were trained with: activation and normalisation. The wrong ones only cost accuracy, silently.

OpenAI, DFN and MetaCLIP trained with QuickGELU, x·sigmoid(1.702x); most others with exact GELU. open_clip ties it to
the architecture's name and only warns when tag and name disagree; here the weights decide.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import UsageError


@dataclass(frozen=True)
class Provenance:
    """The decision and its evidence.

    Attributes:
        quick_gelu: QuickGELU instead of exact GELU.
        because: Where that is known from, in words.
        preprocess: "mean" and "std" of RGB values 0 to 1, where known.
        sure: False where only the architecture's name speaks.
    """

    quick_gelu: bool
    because: str
    preprocess: dict[str, list[float]] = field(default_factory=dict)
    sure: bool = True


def find_provenance(
    architecture: str, config: dict[str, Any], tag: str | None, path: Path, is_openai: bool
) -> Provenance:
    """Decide what the weights were trained with.

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
    found = _evidence(architecture, tag, path, is_openai)
    named = bool(config.get("quick_gelu", False))
    if found is None:
        return Provenance(named, "as the architecture's name says; the file does not tell", sure=False)
    if named and not found.quick_gelu:
        raise UsageError(
            f"{architecture} runs QuickGELU, but {path.name} was trained with exact GELU ({found.because}).",
            f"Use --clip {architecture.removesuffix('-quickgelu')}.",
        )
    return found


def _evidence(architecture: str, tag: str | None, path: Path, is_openai: bool) -> Provenance | None:
    base = architecture.removesuffix("-quickgelu")
    if tag is not None:
        return _of_tag(architecture, tag, f"tag '{tag}'")
    if is_openai:
        return Provenance(True, "a file in OpenAI's form")
    beside = path.parent / "open_clip_config.json"
    if beside.is_file():
        return _of_config(beside)
    named = _tag_in_path(base, path)
    return None if named is None else _of_tag(base, named, f"'{named}' in its path")


def _of_tag(architecture: str, tag: str, because: str) -> Provenance:
    from open_clip.pretrained import get_pretrained_cfg

    config = get_pretrained_cfg(architecture, tag)
    return Provenance(bool(config.get("quick_gelu", False)), because, _normalisation(config))


def _of_config(path: Path) -> Provenance:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        quick = bool(document.get("model_cfg", document).get("quick_gelu", False))
        return Provenance(quick, f"{path.name} beside it", _normalisation(document.get("preprocess_cfg", {})))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}).", "Mend or remove it.") from error


def _normalisation(config: dict[str, Any]) -> dict[str, list[float]]:
    return {key: [float(v) for v in config[key]] for key in ("mean", "std") if config.get(key)}


def _tag_in_path(architecture: str, path: Path) -> str | None:
    """The longest tag of the architecture that stands in the last parts of the path as whole words."""
    from open_clip.pretrained import list_pretrained_tags_by_model

    text = _plain("/".join(path.parts[-4:]))
    hits = [t for t in list_pretrained_tags_by_model(architecture) if re.search(rf"(^|_){_plain(t)}(_|$)", text)]
    return max(hits, key=len, default=None)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())


def explain(architecture: str, config: dict[str, Any], pretrained: str, found: Provenance) -> str:
    """Return the sentence that tells which activation runs and why."""
    kind = "QuickGELU" if found.quick_gelu else "exact GELU"
    tower = "the text tower of " if "timm_model_name" in config.get("vision_cfg", {}) else ""
    unsure = not found.sure and not found.quick_gelu and not tower
    hint = f"; weights of OpenAI, DFN or MetaCLIP need --clip {architecture}-quickgelu" if unsure else ""
    return f"{tower}{architecture} with '{pretrained}' runs {kind} ({found.because}){hint}"
