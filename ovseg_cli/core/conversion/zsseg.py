"""Checkpoints of ZSSeg: MaskFormer under `backbone.*` and `sem_seg_head.*`, CLIP under `clip_adapter.*`.

With separate adapters a second CLIP, `_region_clip_adapter.*`, reads the regions. Both start from the same weights and
stay frozen, so that the second is a copy; its own "no object" is dropped before the softmax and never matters.
"""

import torch

from ovseg_cli.core.conversion.choices import choose_settings, take_table
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
from ovseg_cli.core.conversion.maskformer import load_generator, maskformer_sizes
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.zsseg import ZSSeg
from ovseg_cli.core.nn.maskformer_config import MaskFormerConfig

REGIONS = "_region_clip_adapter."


def import_zsseg(ledger: Ledger, asked: Asked) -> Imported:
    """Make a ZSSeg of a checkpoint.

    Raises:
        UsageError: Entries are missing, a setting contradicts the file, or regions have a CLIP of their own.
    """
    settings = dict(asked.settings)
    clip, of_clip = read_clip(ledger, CLIP, asked.clip, "converted")
    for prefix in (ADAPTER, REGIONS):
        refuse_learned_prompt(ledger, prefix, asked.has_templates)
    _write_off_region_adapter(ledger)
    sizes, of_sizes = maskformer_sizes(ledger, take_table(settings, "generator"), MaskFormerConfig)
    told = {"generator": sizes.model_dump()}
    official = {"logit_scale": (100.0, "default; code: temperature 100, a constant")}
    recipe = (asked.recipe.get("zsseg", {}), asked.data)
    config, choices = choose_settings(ZSSeg, told, official, recipe, settings, ledger.where)
    method = ZSSeg(clip, config)
    fill_row(method.non_object_embedding, ledger, f"{ADAPTER}non_object_embedding", 'the row "no object"')
    fill_generator(method.generator, load_generator(ledger), ledger.where)
    check_constants(ledger)
    classes = count_training_classes(ledger)
    return Imported(method, clip, True, [*of_clip, *of_sizes, *choices], training_classes=classes)


def _write_off_region_adapter(ledger: Ledger) -> None:
    """Make sure that the second CLIP is the first.

    Raises:
        UsageError: It is another one.
    """
    first, second = CLIP, f"{REGIONS}clip_model."
    for name in [key for key in ledger.state if key.startswith(second)]:
        twin = ledger.state.get(first + name.removeprefix(second))
        if twin is None or not torch.equal(twin, ledger.state[name]):
            raise UsageError(
                f"{ledger.where}: '{name}' differs from the CLIP under '{first}'; two CLIPs in one model are not "
                "supported.",
                "Convert a checkpoint whose regions are read by the same CLIP.",
            )
    ledger.ignore(second, f"equal to '{first}*'")
    ledger.ignore(f"{REGIONS}non_object_embedding", "dropped before the softmax")
    for constant in ("pixel_mean", "pixel_std"):
        mine, other = (ledger.state.get(f"{prefix}{constant}") for prefix in (ADAPTER, REGIONS))
        if mine is not None and other is not None and torch.equal(mine, other):
            ledger.ignore(f"{REGIONS}{constant}", f"equal to '{ADAPTER}{constant}'")
