"""The CLIP of ZegCLIP's and TagCLIP's checkpoints: their towers without prompts; a missing text tower is borrowed."""

import math

import torch

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.conversion.choices import Choice
from ovseg_cli.core.conversion.clip_tower import Borrowed, ClipNames, make_clip
from ovseg_cli.core.conversion.importer import Asked
from ovseg_cli.core.conversion.ledger import Ledger
from ovseg_cli.core.conversion.one_stage_names import BACKBONE, TEXT
from ovseg_cli.core.errors import UsageError

NAMES = ClipNames(BACKBONE, TEXT)
LOGIT_SCALE = torch.tensor(math.log(100.0))
"""In none of these files, and read by neither method; OpenAI's, for whoever uses the run's CLIP otherwise."""


def clip_of(ledger: Ledger, asked: Asked) -> tuple[ClipModel, list[Choice], bool]:
    """Make the CLIP; a text tower that the file lacks is that of `--clip`.

    Args:
        ledger: The checkpoint; its prompts must have been handed out before.
        asked: For the table `clip`.

    Returns:
        The CLIP, where its values come from, and whether the text tower is the file's.
    """
    tensors = ledger.load(BACKBONE, "image tower of the frozen CLIP")
    has_text = ledger.has(TEXT)
    beside = Borrowed({"logit_scale": LOGIT_SCALE})
    if has_text:
        tensors |= ledger.load(TEXT, "text tower of the frozen CLIP")
    else:
        beside = _borrow_text(ledger, asked)
    return *make_clip(ledger.where, NAMES, tensors, asked.clip, "converted", beside), has_text


def _borrow_text(ledger: Ledger, asked: Asked) -> Borrowed:
    """Take the text tower of `--clip`, with its weights.

    Raises:
        UsageError: It does not fit the image tower of the file.
    """
    other: ClipModel = asked.text_clip()
    source = f"--clip {other.name}"
    projection = ledger.state.get(f"{BACKBONE}proj")
    if projection is not None and projection.shape[1] != other.embed_dim:
        raise UsageError(
            f"{source}: has {other.embed_dim} dimensions, {ledger.where} {projection.shape[1]}, and it holds no text "
            "tower of its own.",
            "Name the CLIP that it was trained with: --clip ViT-B-16",
        )
    if bool(other.open_clip_config.get("quick_gelu")) != bool(asked.clip.get("quick_gelu", True)):
        raise UsageError(
            f"{source}: its activation is not that of {ledger.where}, which holds no text tower of its own: published "
            "image towers have QuickGELU.",
            "Name OpenAI's weights: --clip ViT-B-16 --pretrained openai",
        )
    state = {key: value for key, value in other.module.state_dict().items() if not key.startswith("visual.")}
    if "token_embedding.weight" not in state:
        raise UsageError(f"{source}: its text tower is not of CLIP's form.", "Name another --clip.")
    heads = {"text_heads": other.open_clip_config["text_cfg"]["heads"]}
    return Borrowed({**state, "logit_scale": LOGIT_SCALE}, heads, other.tokenizer, source)
