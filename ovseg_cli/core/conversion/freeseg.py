"""Checkpoints of FreeSeg in the form of the MAFT repository (step 1, `freeseg_model.pt`), and the host inside MAFT's.

`backbone.*`, `sem_seg_head.*` and the row "no object" become the run's weights; `clip_adapter.clip_model.*` its CLIP.
"""

from typing import Any

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.conversion.choices import Choice, choose_settings, make_sizes, read_sizes, take_table
from ovseg_cli.core.conversion.clip_tower import read_clip
from ovseg_cli.core.conversion.importer import (
    ADAPTER,
    CLIP,
    Asked,
    Imported,
    check_constants,
    count_training_classes,
    fill_generator,
    fill_row,
    refuse_learned_prompt,
)
from ovseg_cli.core.conversion.ledger import Ledger
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.freeseg import FreeSeg
from ovseg_cli.core.nn.generator import official_state
from ovseg_cli.core.nn.generator_config import GeneratorConfig
from ovseg_cli.core.nn.resnet_config import ResNetConfig

UNTOLD = ("points", "interaction_heads", "groups", "dropout", "pixel_mean", "pixel_std")
UNTOLD_OF_BACKBONE = ("stride_in_1x1", "multi_grid")
_PARTS = ("pixel_decoder.", "interaction.", "predictor.")


def import_freeseg(ledger: Ledger, asked: Asked) -> Imported:
    """Make a FreeSeg of a checkpoint.

    Raises:
        UsageError: Entries are missing, or a setting contradicts the file.
    """
    clip, of_clip = read_clip(ledger, CLIP, asked.clip, "converted")
    learned = ledger.has(f"{ADAPTER}prompt_learner.")
    refuse_learned_prompt(ledger, ADAPTER, asked.has_templates)
    method, choices = read_freeseg(ledger, clip, dict(asked.settings), asked, crops=learned)
    ledger.ignore("IPCLIP.", "the image tower that MAFT tuned: --method maft loads it")
    ledger.ignore("T.", "a copy of the original image tower, which the code never uses")
    check_constants(ledger)
    classes = count_training_classes(ledger)
    return Imported(method, clip, True, [*of_clip, *choices], training_classes=classes)


def read_freeseg(
    ledger: Ledger, clip: ClipModel, settings: dict[str, Any], asked: Asked, crops: bool
) -> tuple[FreeSeg, list[Choice]]:
    """Build the method around a CLIP and fill it.

    Args:
        ledger: The checkpoint.
        clip: Its CLIP.
        settings: What the user said about it; the table `generator` is taken out.
        asked: For the data set's recipe.
        crops: It was trained with the original FreeSeg repository, whose CLIP reads crops.
    """
    sizes, of_sizes = _generator_sizes(ledger, take_table(settings, "generator"))
    place = "published code with a learned prompt" if crops else "MAFT repository, which the weights are used in"
    official = {
        "scorer": ("crops" if crops else "masked-clip", f"default; code: {place}"),
        "logit_scale": (100.0, "default; code: temperature 100, a constant"),
        "start_layer": (clip_depth(clip) * 2 // 3, "default; code: 8 of 12 for ViT-B/16, 16 of 24 for ViT-L/14"),
    }
    told = {"generator": sizes.model_dump()}
    recipe = (asked.recipe.get("freeseg", {}), asked.data)
    config, choices = choose_settings(FreeSeg, told, official, recipe, settings, ledger.where)
    method = FreeSeg(clip, config)
    found = ledger.load("backbone.", "backbone of the mask generator")
    for part in _PARTS:
        found |= ledger.load(f"sem_seg_head.{part}", "mask generator")
    fill_generator(method.generator, official_state(found), ledger.where)
    fill_row(method.non_object_embedding, ledger, f"{ADAPTER}non_object_embedding", 'the row "no object"')
    return method, [*of_sizes, *choices]


def clip_depth(clip: ClipModel) -> int:
    """Return the number of blocks of the image tower."""
    return len(clip.visual.transformer.resblocks)


def _generator_sizes(ledger: Ledger, asked: dict[str, Any]) -> tuple[GeneratorConfig, list[Choice]]:
    """Return the generator's sizes."""
    where = ledger.where
    backbone, of_backbone = backbone_sizes(ledger, take_table(asked, "backbone"))
    known = {"points": asked["points"]} if "points" in asked else {}
    try:
        read = GeneratorConfig.from_state_dict(ledger.state, backbone=ResNetConfig(), **known, **_LOOSE)
    except KeyError as error:
        raise missing_size(where, error) from error
    from_shapes = {key: value for key, value in read.model_dump().items() if key != "backbone"}
    from_shapes |= {key: GeneratorConfig.model_fields[key].default for key in _LOOSE}
    chosen, choices = read_sizes(GeneratorConfig, from_shapes, asked, UNTOLD, where, "generator")
    sizes = make_sizes(GeneratorConfig, {**chosen, "backbone": backbone}, where, "generator")
    return sizes, [*of_backbone, *choices]


_LOOSE = {"interaction_heads": 1, "groups": 1}
"""Divide everything, so that shapes can be read before it is known what divides them."""


def backbone_sizes(ledger: Ledger, asked: dict[str, Any]) -> tuple[ResNetConfig, list[Choice]]:
    """Return the sizes of the ResNet.

    Raises:
        UsageError: A stage is missing, or a setting contradicts the file.
    """
    try:
        read = ResNetConfig.from_state_dict(ledger.state)
    except KeyError as error:
        raise missing_size(ledger.where, error) from error
    prefix = "generator.backbone"
    chosen, choices = read_sizes(ResNetConfig, read.model_dump(), asked, UNTOLD_OF_BACKBONE, ledger.where, prefix)
    return make_sizes(ResNetConfig, chosen, ledger.where, prefix), choices


def missing_size(where: str, error: KeyError) -> UsageError:
    """Name the entry whose shape would have told a size."""
    return UsageError(f"{where}: lacks '{error.args[0]}'.", "Pass the checkpoint of a whole model.")
