"""Checkpoints of PixelCLIP, as detectron2 writes them: a CLIP whose image tower is tuned, and what trained it.

`sem_seg_head.predictor.clip_model.*` becomes the run's own CLIP, tuned tower and frozen text tower, so that other
methods can read with it too; `prompt_tokens` the run's weights. The rest served training alone: the momentum encoder
`teacher_encoder.*`, the decoder `head.*`, and the network of on-the-fly masks `dino.*`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ovseg_cli.core.clip.dense import tower_of
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.conversion.choices import choose_settings
from ovseg_cli.core.conversion.clip_tower import Borrowed, ClipNames, make_clip
from ovseg_cli.core.conversion.image_towers import CONVNEXT, VIT
from ovseg_cli.core.conversion.importer import Asked, Imported, fill_row
from ovseg_cli.core.conversion.ledger import Ledger
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.pixelclip import PixelClip

PREDICTOR = "sem_seg_head.predictor."
CLIP, PROMPTS, TEACHER = f"{PREDICTOR}clip_model.", f"{PREDICTOR}prompt_tokens", "teacher_encoder."
NAMES = ClipNames(f"{CLIP}visual.", CLIP)


def import_pixelclip(ledger: Ledger, asked: Asked) -> Imported:
    """Make a PixelCLIP of a checkpoint.

    Raises:
        UsageError: Entries are missing, a setting contradicts the file, or the CLIP that was named is another one.
    """
    tensors = ledger.load(NAMES.image, "image tower, tuned; in the run's own CLIP")
    tensors |= ledger.load(NAMES.text, "text tower, frozen; in the run's own CLIP")
    clip, of_clip = make_clip(ledger.where, NAMES, tensors, asked.clip, "converted", Borrowed(), (VIT, CONVNEXT))
    told = _prompt_sizes(ledger, clip)
    recipe = (asked.recipe.get("pixelclip", {}), asked.data)
    config, choices = choose_settings(PixelClip, told, {}, recipe, asked.settings, ledger.where)
    method = PixelClip(clip, config)
    fill_row(method.class_prompts.prompt_tokens, ledger, PROMPTS, "learned class prompts; scores do not need them")
    checks = (_against_teacher(ledger, clip), _against_original(clip, asked, ledger.where))
    ledger.ignore(TEACHER, "momentum encoder: serves training alone")
    ledger.ignore("head.", "decoder of similarity maps: serves training alone")
    ledger.ignore("dino.", "DINO, for masks made in training")
    found = tuple(check for check in checks if check)
    return Imported(method, clip, True, [*of_clip, *choices], compares_clip=True, checks=found)


def _prompt_sizes(ledger: Ledger, clip: ClipModel) -> dict[str, Any]:
    """Read k and l.

    Raises:
        UsageError: The prompts are missing, or are no words of this text tower.
    """
    tokens = ledger.state.get(PROMPTS)
    if tokens is None:
        raise UsageError(f"{ledger.where}: lacks '{PROMPTS}'.", "Pass the checkpoint of a whole model.")
    width = clip.word_table.embedding_dim
    if tokens.ndim != 3 or tokens.shape[2] != width or 0 in tokens.shape:
        shape = "×".join(str(n) for n in tokens.shape) or "a scalar"
        raise UsageError(
            f"{ledger.where}: '{PROMPTS}' is {shape}, not k×l×{width} as its text tower reads.",
            "Check that the file is whole and of the published code.",
        )
    return {"prompts": int(tokens.shape[0]), "prompt_length": int(tokens.shape[1])}


def _against_teacher(ledger: Ledger, clip: ClipModel) -> str | None:
    """Compare what the momentum encoder holds of a text tower: both started from the same, and neither is trained."""
    own = clip.module.state_dict()
    held = {name.removeprefix(TEACHER): t for name, t in ledger.state.items() if name.startswith(TEACHER)}
    held = {name: t for name, t in held.items() if not name.startswith("visual.") and name in own}
    if not (differ := _different(own, held)):
        return None
    return (
        f"Its text tower was not frozen: {_some(differ)} of the momentum encoder's {len(held)} text tensors are others."
    )


def _against_original(clip: ClipModel, asked: Asked, where: str) -> str:
    """Compare with the CLIP that was named.

    Raises:
        UsageError: It has another image tower, or towers of other sizes.
    """
    if asked.original_clip is None:
        return "Its text tower was compared with nothing; name the CLIP that it was tuned from to do so: --clip"
    other: ClipModel = asked.original_clip()
    kinds = [f"a {_TITLES[tower_of(found.visual).kind]}" for found in (other, clip)]
    own, theirs = clip.module.state_dict(), other.module.state_dict()
    mend = "Name the CLIP that it was tuned from, or leave --clip out: the file holds all that is needed."
    if kinds[0] != kinds[1]:
        raise UsageError(f"--clip {other.name}: has {kinds[0]} as image tower, {where} has {kinds[1]}.", mend)
    for name in sorted(own.keys() | theirs.keys()):
        shapes = [tuple(state[name].shape) if name in state else "absent" for state in (theirs, own)]
        if shapes[0] != shapes[1]:
            raise UsageError(f"--clip {other.name}: '{name}' is {shapes[0]}, in {where} {shapes[1]}.", mend)
    differ = _different(own, theirs)
    tuned = [name for name in differ if name.startswith("visual.")]
    count = sum(name.startswith("visual.") for name in own)
    text = [name for name in differ if not name.startswith("visual.")]
    said = f"differs from it in {_some(text)} of {len(own) - count} tensors" if text else "equals it"
    return (
        f"Compared with {other.name}: its text tower {said}; {len(tuned)} of {count} tensors of the image tower differ."
    )


_TITLES = {"vit": "ViT", "convnext": "ConvNeXt", "other": "tower of another kind"}


def _different(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors of `other` that are not those of `own`."""
    return [name for name in sorted(other) if not torch.equal(other[name].float().cpu(), own[name].float().cpu())]


def _some(names: list[str]) -> str:
    return f"{len(names)} ('{names[0]}'{', …' if len(names) > 1 else ''})"
