"""MAFT's checkpoints (`MAFT_Vitb.pt`): the tuned image tower, the CLIP that it was tuned from, and its FreeSeg.

`IPCLIP.*` becomes the run's weights, the rest a FreeSeg in `RUN/host`, which shares the run's CLIP. `T.*` is a copy of
the original image tower that the code builds, saves and never uses.
"""

from typing import Any

from ovseg_cli.core.conversion.choices import Choice, choose_settings
from ovseg_cli.core.conversion.clip_tower import read_clip
from ovseg_cli.core.conversion.freeseg import clip_depth, read_freeseg
from ovseg_cli.core.conversion.importer import (
    ADAPTER,
    CLIP,
    Asked,
    Imported,
    check_constants,
    count_training_classes,
    refuse_learned_prompt,
)
from ovseg_cli.core.conversion.ledger import Ledger, check_fit
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.build import merge
from ovseg_cli.core.methods.freeseg import FreeSegConfig
from ovseg_cli.core.methods.maft import TOWER, Maft, MaftConfig
from ovseg_cli.core.nn.generator_config import GeneratorConfig, half_statistics
from ovseg_cli.core.runs import HOST

TUNED = "IPCLIP."
SHARED = ("resize", "side", "max_long_side", "size_divisibility", "start_layer", "clip_side")
"""Settings that both have: how a picture reaches the generator, and how CLIP reads masks."""


def import_maft(ledger: Ledger, asked: Asked) -> Imported:
    """Make a MAFT and its host of a checkpoint.

    Raises:
        UsageError: Entries are missing, or a setting contradicts the file.
    """
    own, of_host = split_host(asked.settings)
    clip, of_clip = read_clip(ledger, CLIP, asked.clip, "converted")
    refuse_learned_prompt(ledger, ADAPTER, asked.has_templates)
    host, host_choices = read_freeseg(ledger, clip, dict(of_host), asked, crops=False)
    official = {
        "start_layer": (clip_depth(clip) * 2 // 3, "default; code: 8 of 12 for ViT-B/16, 16 of 24 for ViT-L/14"),
    }
    recipe = (asked.recipe.get("maft", {}), asked.data)
    config, choices = choose_settings(Maft, {HOST: "freeseg"}, official, recipe, own, ledger.where)
    method = Maft(clip, config)
    tuned = ledger.load(TUNED, "image tower, tuned")
    names = {TUNED + name: tensor for name, tensor in clip.visual.named_parameters()}
    check_fit(names, tuned, ledger.where, "the tuned image tower")
    method.load_trained_state({TOWER + k.removeprefix(TUNED): v for k, v in tuned.items()}, ledger.where)
    ledger.ignore("T.", "a copy of the original image tower, which the code never uses")
    check_constants(ledger)
    classes = count_training_classes(ledger)
    named = [Choice(f"{HOST}.{c.setting}", c.value, c.source) for c in host_choices]
    joint = _joint_statistics(ledger, of_host)
    named += [
        Choice(f"{HOST}.generator.{key}, in MAFT", value, "rounded, as all constants of a model in half precision")
        for key, value in joint.get("generator", {}).items()
    ]
    return Imported(method, clip, True, [*of_clip, *choices, *named], host, classes, joint)


def _joint_statistics(ledger: Ledger, of_host: dict[str, Any]) -> dict[str, Any]:
    """Return the host's settings where it makes MAFT's masks.

    A whole model that was brought to half precision had the generator's constants rounded with it, and MAFT's numbers
    belong to these; the host's own numbers belong to the published ones.
    """
    said = of_host.get("generator", {})
    rounded = {key: list(value) for key, value in half_statistics(ledger.state).items() if key not in said}
    return {"generator": rounded} if rounded else {}


def split_host(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part settings into MAFT's own and its host's.

    The host gets the table `host`, what only FreeSeg has, and what both have and the table does not say otherwise.

    Raises:
        UsageError: `host` names another host.
    """
    own = dict(settings)
    table = own.pop(HOST, {})
    if isinstance(table, str):
        if table != "freeseg":
            raise UsageError(f"host = {table}: the published checkpoints of MAFT stand on freeseg.", "Leave it out.")
        table = {}
    elif not isinstance(table, dict):
        raise UsageError(f"--config: 'host' must be a table, not {table!r}.", "Write [host], or host.KEY = …")
    if sizes := [key for key in own if key in GeneratorConfig.model_fields and key not in MaftConfig.model_fields]:
        raise UsageError(f"maft: '{sizes[0]}' is a setting of the mask generator.", f"Write generator.{sizes[0]} = …")
    only = [key for key in own if key not in MaftConfig.model_fields and key in FreeSegConfig.model_fields]
    of_host = {key: own.pop(key) for key in only}
    shared = {key: own[key] for key in SHARED if key in own}
    return own, merge(merge(shared, of_host), table)
