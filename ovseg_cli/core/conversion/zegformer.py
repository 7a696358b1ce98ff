"""Checkpoints of ZegFormer: MaskFormer under `backbone.*` and `sem_seg_head.*`, CLIP inside the predictor or nowhere.

Training configurations leave CLIP's classification out, and with it CLIP's weights; then the CLIP comes from `--clip`.
"""

import math

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.conversion.choices import FILE, Choice, choose_settings, take_table
from ovseg_cli.core.conversion.clip_tower import read_clip
from ovseg_cli.core.conversion.importer import (
    Asked,
    Imported,
    check_constants,
    count_training_classes,
    fill_generator,
    fill_row,
)
from ovseg_cli.core.conversion.ledger import Ledger
from ovseg_cli.core.conversion.maskformer import load_generator, maskformer_sizes
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.zegformer import ZegFormer
from ovseg_cli.core.nn.maskformer_config import ZegFormerSizes

PREDICTOR = "sem_seg_head.predictor."
CLIP = f"{PREDICTOR}clip_model."
SCALE = f"{PREDICTOR}logit_scale"


def import_zegformer(ledger: Ledger, asked: Asked) -> Imported:
    """Make a ZegFormer of a checkpoint.

    Raises:
        UsageError: Entries are missing, or a setting contradicts the file.
    """
    settings = dict(asked.settings)
    clip, of_clip, has_clip = _clip_of(ledger, asked)
    sizes, of_sizes = maskformer_sizes(ledger, take_table(settings, "generator"), ZegFormerSizes)
    if sizes.embed_width != clip.embed_dim:
        raise UsageError(
            f"{ledger.where}: its class embeddings are {sizes.embed_width} wide, the CLIP's {clip.embed_dim}: they "
            "are not compared with CLIP's text (the code's word-vector models are 600 wide).",
            "Pass a checkpoint that was trained with CLIP's text, or the --clip that it was trained with.",
        )
    told = {"generator": sizes.model_dump()}
    if ledger.load(SCALE, "scale of the queries' cosines"):
        told["host_scale"] = round(math.exp(float(ledger.state[SCALE])), 4)
    recipe = (asked.recipe.get("zegformer", {}), asked.data)
    config, choices = choose_settings(ZegFormer, told, {}, recipe, settings, ledger.where)
    method = ZegFormer(clip, config)
    fill_row(method.background, ledger, f"{PREDICTOR}bg_feature", "the background row")
    fill_generator(method.generator, load_generator(ledger), ledger.where)
    check_constants(ledger)
    classes = count_training_classes(ledger)
    return Imported(method, clip, has_clip, [*of_clip, *of_sizes, *choices], training_classes=classes)


def _clip_of(ledger: Ledger, asked: Asked) -> tuple[ClipModel, list[Choice], bool]:
    if ledger.has(CLIP):
        return *read_clip(ledger, CLIP, asked.clip, "converted"), True
    if asked.clip:
        raise UsageError(f"{ledger.where}: holds no CLIP that clip.{min(asked.clip)} could be said of.", "Use --clip.")
    clip = asked.other_clip()
    return clip, [Choice("clip", clip.name, f"--clip, or its default; not in {FILE}")], False
