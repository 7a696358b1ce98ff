"""The rows of conventions that change what is predicted: numbers of another result, or the command that makes them."""

import shlex
from collections.abc import Callable, Sequence
from functools import cache

from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.evaluation import metrics
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report import explain_words as words
from ovseg_cli.core.report.explain_gaps import Reading
from ovseg_cli.core.report.explain_rows import Row, sets_of
from ovseg_cli.core.report.explain_variants import Knobs, Variant, find, of_pixels

Command = Callable[[Variant], str]
"""The command that scores a variant."""


def name_rows(result: Result, variants: Sequence[Variant], others: Sequence[Result], command: Command) -> list[Row]:
    """Return sIoU, uIoU and hIoU where other names compete, or seen names are lowered."""
    rows: list[Row] = []
    for variant in (v for v in variants if v.knob != "threshold"):
        found = find(result, others, variant)
        if found is None:
            rows.append(_not_scored(variant, command))
            continue
        names = {"unseen": ("uIoU",), "seen": ("sIoU",)}.get(str(variant.value), ("sIoU", "uIoU", "hIoU"))
        readings = {name: reading for name, reading in sets_of(found, "union").items() if name in names}
        rows.append(Row(variant.key, _convention(variant), variant.used_by, readings, _why(variant, result, found)))
        if variant.value == "unseen":
            rows.append(_unseen_pixels(found))
    return rows


def _unseen_pixels(found: Result) -> Row:
    """The old zero-shot setting: unseen names on pixels of unseen classes, all else ignored."""
    share = words.percent(words.pixels_of(found, unseen=False), found.areas.truth.sum())
    return Row(
        "unseen-pixels",
        "unseen names, unseen pixels only",
        "val_unseen labels of ZegFormer and zsseg",
        {"uIoU": sets_of(of_pixels(found, found.class_sets.unseen), "union")["uIoU"]},
        f"{share} of the pixels are seen classes and are ignored: no unseen name can be wrong there.",
    )


def background_rows(
    result: Result, variants: Sequence[Variant], others: Sequence[Result], command: Command
) -> list[Row]:
    """Return mIoU without the background, without its pixels, and under other thresholds; nothing without one."""
    if result.background is None:
        return []
    rest = [i for i in range(result.num_classes) if i != result.background]

    def mean_of_rest(areas: metrics.Areas) -> metrics.Floats:
        return metrics.mean_iou(areas, "union", rest)

    rows = [
        Row(
            "background-out", "background out of the mean", "no evaluator that was read",
            {"mIoU": Reading(result, mean_of_rest)}, words.of_background_out(result),
        ),
        Row(
            "background-ignored", "background's pixels ignored", "as in VOC-20, Context-59, but its name competes",
            {"mIoU": Reading(of_pixels(result, rest), mean_of_rest)}, words.of_background_ignored(result),
        ),
    ]  # fmt: skip
    for variant in (v for v in variants if v.knob == "threshold"):
        found = find(result, others, variant)
        if found is None:
            rows.append(_not_scored(variant, command))
        else:
            reading = {"mIoU": Reading(found, metrics.mean_iou)}
            why = _why(variant, result, found)
            rows.append(Row(variant.key, _convention(variant), variant.used_by, reading, why))
    return rows


def related_rows(result: Result, others: Sequence[Result], model: str) -> list[Row]:
    """Return mIoU on the same pictures with a background class where there is none, and without where there is one.

    Args:
        result: The result.
        others: Further results, of the same weights.
        model: The run, as MODEL is typed.
    """
    rows = []
    for name in _with_or_without(result):
        found = [one for one in others if _is_of(one, name, result)]
        has = result.background is None
        convention = f"background {'in' if has else 'out'}: {name}"
        if not found:
            command = shlex.join(["ovseg", "eval", model, "--data", name])
            rows.append(Row(f"data-{name}", convention, _USED[has], {}, f"Not scored yet: {command}", command))
            continue
        other = max(found, key=lambda one: (_likeness(one, result), one.created))
        share = words.percent(other.areas.truth.sum() - result.areas.truth.sum(), other.areas.truth.sum())
        why = (
            f"{share} of the pixels are background there, a class to be told from all others."
            if has
            else "No pixel is background there, and its name does not compete."
        )
        rows.append(Row(f"data-{name}", convention, _USED[has], {"mIoU": Reading(other, metrics.mean_iou)}, why))
    return rows


_USED = {
    True: "SCLIP, ProxyCLIP, ClearCLIP, NACLIP, FC-CLIP beside it",
    False: "zsseg, SAN, CAT-Seg, MAFT, MAFT+, PixelCLIP",
}


def published_thresholds(result: Result) -> dict[float, str] | None:
    """Return the thresholds that papers take on a data set, and whose they are; None where it is not a shipped one."""
    name = result.data.partition(":")[0]
    if result.background is None or name not in spec_names():
        return None
    found: dict[float, list[str]] = {}
    for method, settings in load_spec(name).preset.methods.items():
        if value := settings.get("background_threshold"):
            found.setdefault(float(value), []).append(method)
    return {value: ", ".join(methods) for value, methods in found.items()} or None


def _with_or_without(result: Result) -> list[str]:
    """Shipped data sets that have the same classes but for the background."""
    own = frozenset(name for i, name in enumerate(result.class_names) if i != result.background)
    return [name for name, (rest, has) in _shipped().items() if rest == own and has == (result.background is None)]


@cache
def _shipped() -> dict[str, tuple[frozenset[str], bool]]:
    """Of each shipped data set its class names without the background, and whether there is one."""
    found = {}
    for name in spec_names():
        spec = load_spec(name)
        back = spec.background.train_id if spec.background else None
        found[name] = frozenset(one for i, one in enumerate(spec.class_names) if i != back), back is not None
    return found


def _is_of(other: Result, name: str, result: Result) -> bool:
    same = (other.method, other.subset, len(other.images)) == (result.method, result.subset, len(result.images))
    weights = other.fingerprints.get("weights") == result.fingerprints.get("weights")
    return same and weights and other.data.partition(":")[0] == name and Knobs.of(other).candidates == "all"


def _likeness(other: Result, result: Result) -> int:
    """How many settings two results share: else the gap would be that of a setting, and not of the background."""
    mine, theirs = ({**one.protocol, **(one.protocol.get("method") or {})} for one in (result, other))
    return sum(key in theirs and theirs[key] == value for key, value in mine.items())


def _not_scored(variant: Variant, command: Command) -> Row:
    typed = command(variant)
    return Row(variant.key, _convention(variant), variant.used_by, {}, f"Not scored yet: {typed}", typed)


def _convention(variant: Variant) -> str:
    value = f"{variant.value:g}" if isinstance(variant.value, float) else variant.value
    if variant.value == 0:
        return "seen scores as they are" if variant.knob == "penalty" else "no threshold for the background"
    said = {"candidates": "{} names compete", "penalty": "seen scores − {}", "threshold": "background below {}"}
    return said[variant.knob].format(value)


def _why(variant: Variant, result: Result, found: Result) -> str:
    """What the change does to pixels, before and after."""
    if variant.knob == "threshold":
        before, after = (words.percent(r.areas.predicted[r.background], r.areas.truth.sum()) for r in (result, found))
        return f"{after} of the pixels become background, {before} before."
    if variant.value in ("seen", "unseen"):
        return words.of_names(result, unseen=variant.value == "unseen")
    unseen, seen = ([words.taken(one, flag) for one in (result, found)] for flag in (True, False))
    return (
        f"Unseen pixels with a seen name: {unseen[0]} before, {unseen[1]} here; "
        f"seen pixels with an unseen name: {seen[0]}, {seen[1]}."
    )
