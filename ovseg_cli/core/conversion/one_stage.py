"""Checkpoints of ZegCLIP and TagCLIP, as mmcv writes them: a prompted CLIP, its text tower, and a decoder of masks.

`backbone.*` without its prompts and `text_encoder.*` become the run's own CLIP, the rest the run's weights. Files made
with precomputed text features may lack the text tower; it then comes from `--clip`. What no shape tells (heads, gamma,
fusion, statistics) has the values of the released configurations.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.conversion.choices import Choice, choose_settings
from ovseg_cli.core.conversion.importer import Asked, Imported
from ovseg_cli.core.conversion.ledger import Ledger, check_fit
from ovseg_cli.core.conversion.one_stage_clip import clip_of
from ovseg_cli.core.conversion.one_stage_names import (
    BACKBONE,
    DECODER,
    DESCRIPTOR,
    EMPTY_WEIGHT,
    LOSS,
    PROMPT_NORM,
    PROMPTS,
    TOKEN,
    dead_weights,
    learner_of,
    official_name,
)
from ovseg_cli.core.conversion.one_stage_training import facts_of, reason_of, setting_of, source_of
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.tagclip import TagClip
from ovseg_cli.core.methods.zegclip import ZegClip
from ovseg_cli.core.nn.resnet_config import count_parts

NO_EFFECT = "no gradient, no effect: inherited and never called, or behind the last layer's masks"
BLOCKS = f"{BACKBONE}transformer.resblocks."


def import_zegclip(ledger: Ledger, asked: Asked) -> Imported:
    """Make a ZegCLIP of a checkpoint.

    Raises:
        UsageError: Entries are missing, or a setting contradicts the file.
    """
    return _import(ZegClip, ledger, asked)


def import_tagclip(ledger: Ledger, asked: Asked) -> Imported:
    """Make a TagCLIP of a checkpoint.

    Raises:
        UsageError: Entries are missing, or a setting contradicts the file.
    """
    return _import(TagClip, ledger, asked)


def _import(method_class: Any, ledger: Ledger, asked: Asked) -> Imported:
    name = method_class.name
    told = _sizes(ledger, name)
    classes = _count_classes(ledger)
    _write_off(ledger, name, told)
    prompts = {key: value for place in PROMPTS for key, value in ledger.load(place, "prompts, trained").items()}
    clip, of_clip, has_text = clip_of(ledger, asked)
    facts = facts_of(name, setting_of(classes, asked.counts), told)
    implied = method_class.implied({**told, **facts})
    official = {key: (value, f"default; code: {reason_of(facts)}") for key, value in implied.items()}
    recipe = (asked.recipe.get(name, {}), asked.data)
    config, choices = choose_settings(method_class, told, official, recipe, _settings(told, asked, clip), ledger.where)
    method = method_class(clip, config)
    _fill(method, ledger, prompts)
    choices += [Choice(f"training: {key}", value, source_of(key, value, classes)) for key, value in facts.items()]
    return Imported(
        method,
        clip,
        True,
        [*of_clip, *choices],
        training_classes=classes,
        facts=facts,
        has_text=has_text,
    )


def _sizes(ledger: Ledger, method: str) -> dict[str, Any]:
    """Read the settings that names and shapes tell.

    Raises:
        UsageError: A part is missing, or the decoder's widths are not of the published form.
    """
    state, decoder, where = ledger.state, DECODER[method], ledger.where
    try:
        prompts, blocks = state[f"{BACKBONE}prompt_embeddings"], count_parts(state, BLOCKS)
        linear = state[f"{decoder}layers.0.linear1.weight"]
        layers = count_parts(state, f"{decoder}layers.")
    except KeyError as error:
        raise UsageError(f"{where}: lacks '{error.args[0]}'.", "Pass the checkpoint of a whole model.") from error
    for name, value, form in (("prompt_embeddings", prompts, "(1, T, width)"), ("linear1.weight", linear, "(n d, d)")):
        if value.ndim != form.count(",") + 1 or 0 in value.shape or (value is linear and len(linear) % linear.shape[1]):
            raise UsageError(f"{where}: '{name}' is {tuple(value.shape)}, not {form}.", "Check --method.")
    deep = state.get(f"{BACKBONE}deep_prompt_embeddings")
    depth = 0 if deep is None else len(deep)
    if depth >= blocks:
        raise UsageError(
            f"{where}: holds deep prompts for {depth} blocks, its image tower has {blocks - 1} after the first.",
            "Check that the file is whole and of the published code.",
        )
    told: dict[str, Any] = {
        "prompts": int(prompts.shape[1]),
        "prompt_depth": -1 if depth == blocks - 1 else depth,
        "decoder_layers": layers,
        "decoder_ffn": len(linear) // linear.shape[1],
    }
    if method == "tagclip":
        told |= {"token": TOKEN in state, "learner": learner_of(state)}
    projection = state.get(official_name("descriptor.q_proj.weight", method))
    if projection is not None and projection.shape[-1] == linear.shape[1]:
        told["descriptor"] = "text"
    return told


def _count_classes(ledger: Ledger) -> int | None:
    """Return the number of names in the loss, K of K + 1, where the file tells."""
    weights = ledger.state.get(EMPTY_WEIGHT)
    ledger.ignore(LOSS, "a buffer of the training loss; its length tells how many names were trained")
    return None if weights is None else len(weights) - 1


def _write_off(ledger: Ledger, method: str, told: Mapping[str, Any]) -> None:
    """Leave out what has no effect."""
    attends = told.get("learner") == "released"
    dead = dead_weights(ledger.state, DECODER[method], told["decoder_layers"], attends)
    ledger.ignore_each(dead, f"{DECODER[method]}layers.*", NO_EFFECT)
    if told["prompt_depth"] == 0:
        ledger.ignore(PROMPT_NORM, "no gradient, no effect: never called where prompts enter the input alone")


def _settings(told: Mapping[str, Any], asked: Asked, clip: ClipModel) -> dict[str, Any]:
    """Return what the user said, without a depth of the prompts that says the same as the file in a number."""
    every = len(clip.visual.transformer.resblocks) - 1
    same = told["prompt_depth"] == -1 and asked.settings.get("prompt_depth") == every
    return {key: value for key, value in asked.settings.items() if not (same and key == "prompt_depth")}


def _fill(method: Any, ledger: Ledger, prompts: Mapping[str, Tensor]) -> None:
    """Load the run's own weights.

    Raises:
        UsageError: Names are missing or unknown, or shapes differ.
    """
    name = method.name
    found = {**prompts, **ledger.load(DECODER[name], "decoder"), **ledger.load(TOKEN, "trusty token")}
    found |= ledger.load(DESCRIPTOR[name], "relationship descriptor")
    wanted = {official_name(own, name): own for own in method.trained_state()}
    check_fit({key: method.trained_state()[own] for key, own in wanted.items()}, found, ledger.where, "the model")
    method.load_trained_state({own: found[key] for key, own in wanted.items()}, ledger.where)
