"""How the CLIP inside a checkpoint becomes one that describes itself: sizes from shapes, OpenAI's form.

Not in any file: the number of heads (width / 64 in OpenAI's code), and the activation (QuickGELU for OpenAI's weights,
which all published ViTs start from; exact GELU for OpenCLIP's ConvNeXts). The tokenizer is CLIP's own where the text
tower has as many ids as it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ovseg_cli.core.clip.model import OPENAI_MEAN, OPENAI_STD, ClipModel
from ovseg_cli.core.clip.tokenizer import NoTokenizer, OpenClipTokenizer, Tokenizer
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.conversion.choices import ASKED, FILE, Choice, refuse_contradiction
from ovseg_cli.core.conversion.image_towers import VIT, ImageTower, Untold, image_tower
from ovseg_cli.core.conversion.ledger import Ledger, check_fit
from ovseg_cli.core.errors import UsageError, unknown_name
from ovseg_cli.core.nn.resnet_config import count_parts

BYTE_PAIRS = 49408
"""Ids of CLIP's own tokenizer."""

OF_TEXT = ("text_width", "text_layers", "text_mlp_width", "context_length", "vocab_size")
ROUNDING = 1e-3
"""Relative; constants of a model that was brought to half precision are off by up to half of this."""


@dataclass(frozen=True)
class ClipNames:
    """What stands in a file where CLIP's own names have `visual.` (image tower) and nothing (text tower)."""

    image: str
    text: str

    def own(self, name: str) -> str:
        """Return CLIP's name of a tensor of the file."""
        is_image = name.startswith(self.image)
        return f"visual.{name.removeprefix(self.image)}" if is_image else name.removeprefix(self.text)

    def official(self, name: str) -> str:
        """Return the file's name of a tensor of CLIP."""
        is_image = name.startswith("visual.")
        return f"{self.image}{name.removeprefix('visual.')}" if is_image else f"{self.text}{name}"


@dataclass(frozen=True)
class Borrowed:
    """What a file does not hold of its CLIP.

    Attributes:
        state: Tensors under CLIP's own names.
        settings: What no shape tells that goes with them.
        tokenizer: Of a borrowed text tower.
        source: Where it comes from.
        constants: Preprocessing that the file keeps beside its CLIP: "mean", "std".
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    source: str = ""
    constants: dict[str, Any] = field(default_factory=dict)


def read_clip(ledger: Ledger, prefix: str, asked: Mapping[str, Any], name: str) -> tuple[ClipModel, list[Choice]]:
    """Build the CLIP whose tensors begin with a prefix.

    Args:
        ledger: The checkpoint.
        prefix: For instance "clip_adapter.clip_model.".
        asked: Table `clip` of `--config`.
        name: Name of the CLIP, for messages.

    Returns:
        The CLIP in float32, and where each of its values comes from.

    Raises:
        UsageError: No ViT, tensors are missing or of other shapes, or the user says something else than the file.
    """
    names = ClipNames(f"{prefix}visual.", prefix)
    tensors = ledger.load(names.image, "image tower of the frozen CLIP")
    tensors |= ledger.load(names.text, "text tower of the frozen CLIP")
    return make_clip(ledger.where, names, tensors, asked, name, Borrowed(constants=_constants(ledger, prefix)))


def make_clip(
    where: str,
    names: ClipNames,
    tensors: Mapping[str, Tensor],
    asked: Mapping[str, Any],
    name: str,
    beside: Borrowed,
    towers: Sequence[ImageTower] = (VIT,),
) -> tuple[ClipModel, list[Choice]]:
    """Build a CLIP of tensors under a file's names.

    Args:
        where: The file, for messages.
        names: How it names them.
        tensors: What it holds.
        asked: Table `clip` of `--config`.
        name: Name of the CLIP, for messages.
        beside: What it does not hold.
        towers: Kinds of image towers that its method can have.

    Returns:
        The CLIP in float32, and where each of its values comes from.

    Raises:
        UsageError: As `read_clip`.
    """
    state = {**beside.state, **{names.own(key): value for key, value in tensors.items()}}
    tower = image_tower(state, towers, where)
    told = _sizes(state, tower, where, names)
    untold = {**tower.untold(told), **{key: (value, beside.source) for key, value in beside.settings.items()}}
    for key in asked:
        if key not in (*untold, *told):
            raise unknown_name("setting", f"clip.{key}", [f"clip.{k}" for k in (*untold, *told)], "--config: ")
    refuse_contradiction(told, asked, where, "clip")
    refuse_contradiction(beside.settings, asked, beside.source, "clip")
    chosen = {**{key: value for key, (value, _) in untold.items()}, **asked}
    config = _config({**told, **chosen}, tower, where)
    module = build_module(config)
    own = {names.official(key): value for key, value in module.state_dict().items()}
    check_fit(own, {names.official(key): value for key, value in state.items()}, where, "CLIP")
    module.load_state_dict(state)
    clip = ClipModel(module, name, config, beside.tokenizer or _tokenizer(config), beside.constants)
    return clip, _choices(told, chosen, asked, untold, beside)


def _text_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Read the text tower's sizes; KeyError names what is missing."""
    return {
        "text_width": int(state["token_embedding.weight"].shape[1]),
        "text_layers": count_parts(state, "transformer.resblocks."),
        "text_mlp_width": int(state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]),
        "context_length": int(state["positional_embedding"].shape[0]),
        "vocab_size": int(state["token_embedding.weight"].shape[0]),
    }


def _sizes(state: Mapping[str, Tensor], tower: ImageTower, where: str, names: ClipNames) -> dict[str, Any]:
    """Read what shapes tell.

    Raises:
        UsageError: A part is missing, or is of no such form.
    """
    try:
        return {**tower.read(state), **_text_sizes(state)}
    except KeyError as error:
        raise UsageError(
            f"{where}: lacks '{names.official(error.args[0])}' of CLIP.", "Pass the checkpoint of a whole model."
        ) from error
    except (IndexError, TypeError, ValueError) as error:
        raise UsageError(
            f"{where}: its CLIP is of no known form ({error}).", "Pass a checkpoint of the published code."
        ) from error


def _config(sizes: Mapping[str, Any], tower: ImageTower, where: str) -> dict[str, Any]:
    """Return open_clip's configuration."""
    for width, heads in (("width", "heads"), ("text_width", "text_heads")):
        if heads not in sizes:
            continue
        if not isinstance(sizes[heads], int) or sizes[heads] < 1 or sizes[width] % sizes[heads]:
            raise UsageError(
                f"{where}: a CLIP {width} of {sizes[width]} cannot be cut into clip.{heads} = {sizes[heads]}.",
                f"Say how many heads there are: clip.{heads} in --config.",
            )
    text = {
        "context_length": sizes["context_length"],
        "vocab_size": sizes["vocab_size"],
        "width": sizes["text_width"],
        "heads": sizes["text_heads"],
        "layers": sizes["text_layers"],
        "mlp_ratio": sizes["text_mlp_width"] / sizes["text_width"],
    }
    return {
        "embed_dim": sizes["embed_dim"],
        "vision_cfg": tower.vision(sizes),
        "text_cfg": text,
        "quick_gelu": bool(sizes["quick_gelu"]),
    }


def _tokenizer(config: dict[str, Any]) -> Tokenizer:
    text = config["text_cfg"]
    if text["vocab_size"] == BYTE_PAIRS:
        return OpenClipTokenizer(config, "converted")
    return NoTokenizer(text["vocab_size"], text["context_length"])


def _choices(
    told: Mapping[str, Any], chosen: Mapping[str, Any], asked: Mapping[str, Any], untold: Untold, beside: Borrowed
) -> list[Choice]:
    borrowed = {key: value for key, value in told.items() if beside.source and key in OF_TEXT}
    shown = ", ".join(f"{key} {value}" for key, value in told.items() if key not in borrowed)
    of_text = ", ".join(f"{key} {value}" for key, value in borrowed.items())
    rows = [
        Choice(f"clip.{key}", chosen[key], ASKED if key in asked else source) for key, (_, source) in untold.items()
    ]
    texts = [Choice("clip's text tower", of_text, f"{beside.source}; not in {FILE}")] if borrowed else []
    return [Choice("clip", shown, f"shapes in {FILE}"), *texts, *rows]


def _constants(ledger: Ledger, prefix: str) -> dict[str, Any]:
    """Return the preprocessing, from the constants that an adapter keeps beside its CLIP where it does."""
    adapter = prefix.removesuffix("clip_model.")
    found = {}
    for key, expected in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)):
        name = f"{adapter}pixel_{key}"
        if adapter != prefix and (values := check_constant(ledger, name, [255 * v for v in expected])):
            found[key] = tuple(value / 255 for value in values)
    return found


def check_constant(ledger: Ledger, name: str, expected: list[float]) -> list[float] | None:
    """Compare a constant of the file with the published one.

    Returns:
        The file's, where it was rounded to half precision (its numbers belong to the rounded one); None where it is
        the published one or absent.

    Raises:
        UsageError: It is another one.
    """
    loaded = ledger.load(name, "verified: the published constant")
    if name not in loaded:
        return None
    values = loaded[name].double().flatten()
    wanted = torch.tensor(expected, dtype=torch.float64)
    if values.shape != wanted.shape or not torch.allclose(values, wanted, rtol=ROUNDING, atol=0):
        shown = ", ".join(f"{v:.6g}" for v in values.tolist()[:6])
        raise UsageError(
            f"{ledger.where}: '{name}' is {shown}; the published code has {', '.join(f'{v:.6g}' for v in expected)}.",
            "Such a model would be given other pictures than it was trained on; it cannot be converted.",
        )
    if torch.allclose(values, wanted, rtol=1e-6, atol=0):
        return None
    return [float(value) for value in values]
