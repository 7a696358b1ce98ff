"""What lies in an official checkpoint of ZSSeg or ZegFormer, part by part: every key is used, or left out for a reason.

Values that no such file holds (attention heads, dilations, sentences, the ensemble's weight) keep the published
defaults unless the caller knows better.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.nn.maskformer import maskformer_state
from ovseg_cli.core.nn.maskformer_config import PREDICTOR, MaskFormerConfig

OWN = {
    "zsseg": {"clip_adapter.non_object_embedding": "non_object_embedding"},
    "zegformer": {f"{PREDICTOR}bg_feature": "background"},
}
"""Trained beside the generator: official name → the method's own."""

CLIP = {"zsseg": "clip_adapter.clip_model.", "zegformer": f"{PREDICTOR}clip_model."}
"""Prefix of the whole frozen CLIP, under OpenAI's names."""

IGNORED = {
    "criterion.": "weights of the loss, which are settings",
    "clip_adapter.pixel_": "CLIP's mean and deviation, which come with the CLIP",
    "clip_adapter.prompt_learner.": "learned prompts: here texts are sentences, so names score differently",
    "_region_clip_adapter.": "a second copy of the frozen CLIP, and prompts of its own",
    f"{PREDICTOR}text_features": "texts of the training run, encoded anew",
    "pixel_": "mean and deviation of the pictures, which are ImageNet's",
    "clip_pixel_": "CLIP's mean and deviation, which come with the CLIP",
}


@dataclass(frozen=True)
class OfficialHost:
    """Parts of a checkpoint.

    Attributes:
        sizes: Of the generator.
        weights: Under the names of the method's `trained_state`.
        clip: The frozen CLIP, OpenAI's names; empty where the file has none.
        settings: Method settings that the file tells.
        ignored: Key → why it is left out.
    """

    sizes: MaskFormerConfig
    weights: dict[str, Tensor]
    clip: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


def split_checkpoint(state: Mapping[str, Tensor], method: str, where: str, **known: Any) -> OfficialHost:
    """Take a checkpoint apart.

    Args:
        state: Flat state dict under official names.
        method: "zsseg" or "zegformer".
        where: What a message opens with, the file's name.
        known: Sizes that shapes do not tell: `heads`, `groups`, `dropout`, `backbone`.

    Raises:
        UsageError: A part is missing, or a key belongs to no part; the first one is named.
    """
    generator = maskformer_state(state)
    missing = [key for key in OWN[method] if key not in state]
    if missing:
        raise UsageError(f"{where}: this is no checkpoint of {method}, '{missing[0]}' is missing.")
    try:
        sizes = MaskFormerConfig.from_state_dict(generator, **known)
    except KeyError as error:
        raise UsageError(f"{where}: this is no checkpoint of {method}, '{error.args[0]}' is missing.") from error
    scale = f"{PREDICTOR}logit_scale"
    settings = {"host_scale": float(state[scale].float().exp())} if scale in state else {}
    used = {*generator, *OWN[method], scale}
    clip = {k.removeprefix(CLIP[method]): v for k, v in state.items() if k.startswith(CLIP[method])}
    rest = [key for key in state if key not in used and not key.startswith(CLIP[method])]
    weights = {f"generator.{key}": value for key, value in generator.items()}
    weights |= {own: state[key] for key, own in OWN[method].items()}
    return OfficialHost(sizes, weights, clip, settings, {key: _reason(key, where, method) for key in rest})


def _reason(key: str, where: str, method: str) -> str:
    for prefix, reason in IGNORED.items():
        if key.startswith(prefix):
            return reason
    raise UsageError(f"{where}: '{key}' belongs to no part of {method}.", "Convert an unchanged official checkpoint.")
