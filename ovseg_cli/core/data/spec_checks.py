"""Rules between the values of a spec: what types alone cannot say. Each problem names its key and its mend."""

from collections.abc import Iterable, Iterator, Sequence

from ovseg_cli.core import registry
from ovseg_cli.core.data.spec import CANONICAL, Spec, no_class
from ovseg_cli.core.data.spec_downloads import download_problems
from ovseg_cli.core.data.spec_encodings import Problem, encoding_problems
from ovseg_cli.core.data.spec_layouts import layout_problems
from ovseg_cli.core.data.spec_models import BY_SETTING
from ovseg_cli.core.errors import unknown_name

NO_SPLIT = "none"


def problems(spec: Spec) -> Iterator[Problem]:
    """Yield every broken rule of a spec, in the order a reader would mend them."""
    yield from _task(spec)
    yield from _duplicates(spec)
    yield from _numbers(spec)
    yield from _splits(spec)
    yield from _variants(spec)
    yield from encoding_problems(spec)
    yield from layout_problems(spec)
    yield from download_problems(spec)
    yield from _settings(spec)


def _task(spec: Spec) -> Iterator[Problem]:
    masks = spec.task == "class-agnostic-masks"
    if masks and spec.classes:
        yield Problem("classes", "class-agnostic masks have no classes.", 'Remove them, or set task = "semantic".')
    if masks:
        return
    if not spec.classes:
        yield Problem("classes", "the list of classes is empty.", 'Add classes = ["grass", "sky"].')


def _twice(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Yield (place, earlier place) of each value that occurs before; None never counts."""
    first: dict[object, int] = {}
    for place, value in enumerate(values):
        if value is not None and first.setdefault(value, place) != place:
            yield place, first[value]


def _duplicates(spec: Spec) -> Iterator[Problem]:
    for i, j in _twice(spec.class_names):
        yield Problem(
            f"classes[{i}].name",
            f"class '{spec.class_names[i]}' stands twice.",
            f"Rename or remove it; first: classes[{j}].",
        )
    for i, j in _twice([c.raw_id for c in spec.classes]):
        what = f"raw_id {spec.classes[i].raw_id} is used by '{spec.classes[j].name}' and by '{spec.classes[i].name}'."
        yield Problem(f"classes[{i}].raw_id", what, "Give each class a raw_id of its own.")
    for key, ids in (
        ("class_splits", [s.id for s in spec.class_splits]),
        ("name_variants", [v.id for v in spec.name_variants]),
        ("layouts", [x.id for x in spec.layouts]),
    ):
        for i, j in _twice(ids):
            yield Problem(f"{key}[{i}].id", f"id '{ids[i]}' stands twice.", f"Rename one of them; first: {key}[{j}].")
    for i, c in enumerate(spec.classes):
        for k, _ in _twice(c.synonyms):
            yield Problem(
                f"classes[{i}].synonyms[{k}]", f"synonym '{c.synonyms[k]}' stands twice.", "Remove one of them."
            )


def _numbers(spec: Spec) -> Iterator[Problem]:
    largest = {"uint8": 255, "uint16": 65535, None: 65535}[spec.label_dtype]
    ignore, count = spec.ignore_label, spec.num_classes
    if ignore is not None and ignore < count:
        what = f"ignore_label {ignore} is the train id of class '{spec.class_names[ignore]}'."
        yield Problem("ignore_label", what, f"Train ids are 0 to {count - 1}; use {255 if count <= 255 else 65535}.")
    if count - 1 > largest or (ignore or 0) > largest:
        what = (
            f"label_dtype '{spec.label_dtype}' ends at {largest}; {count} classes and ignore_label {ignore} need more."
        )
        yield Problem("label_dtype", what, 'Use label_dtype = "uint16" and ignore_label = 65535.')
    if spec.background and spec.background.train_id >= max(count, 1):
        what = f"background.train_id {spec.background.train_id} is not a train id."
        yield Problem("background.train_id", what, f"Train ids are 0 to {count - 1}, in the order of 'classes'.")


def _splits(spec: Spec) -> Iterator[Problem]:
    known, ids = spec.class_names, [s.id for s in spec.class_splits]
    for i, split in enumerate(spec.class_splits):
        key = f"class_splits[{i}]"
        if split.id == NO_SPLIT:
            yield Problem(f"{key}.id", f"'{NO_SPLIT}' is the word for no split at all.", "Choose another id.")
        if not split.unseen:
            yield Problem(
                f"{key}.unseen",
                f"class split '{split.id}' is empty: no class is unseen.",
                "Name at least one class, or remove the split.",
            )
        for part in ("unseen", "val", "seen", "extra_seen_background"):
            names = getattr(split, part) or []
            word = "background class" if part == "extra_seen_background" else f"{part} class"
            yield from _unknown(f"{key}.{part}", word, names, known)
            for k, _ in _twice(names):
                yield Problem(
                    f"{key}.{part}[{k}]",
                    f"{word} '{names[k]}' stands twice in split '{split.id}'.",
                    "Remove one of them.",
                )
        yield from _partition(spec, i)
    if spec.default_split is not None and spec.default_split not in ids:
        yield Problem.of("default_split", unknown_name("class split", spec.default_split, ids))


def _unknown(key: str, word: str, names: Iterable[str], known: Sequence[str]) -> Iterator[Problem]:
    for k, name in enumerate(names):
        if name not in known:
            yield Problem.of(f"{key}[{k}]", no_class(word, name, known))


def _partition(spec: Spec, i: int) -> Iterator[Problem]:
    """A class is seen, unseen or val: exactly one of them, and at least one class is seen."""
    split, key = spec.class_splits[i], f"class_splits[{i}]"
    hidden = set(split.hidden)
    for part, others in (("val", split.unseen), ("extra_seen_background", split.hidden), ("seen", split.hidden)):
        for k, name in enumerate(getattr(split, part) or []):
            if name in others:
                what = f"class split '{split.id}' is not a partition: '{name}' is in '{part}' and also unseen or val."
                yield Problem(f"{key}.{part}[{k}]", what, "A class is seen, unseen or val; remove it from one of them.")
    rest = [name for name in spec.class_names if name not in hidden]
    if hidden and not rest:
        yield Problem(
            f"{key}.unseen", f"class split '{split.id}' leaves no class seen.", "Remove some of the unseen classes."
        )
    left_out = [n for n in rest if split.seen is not None and n not in split.seen]
    if left_out:
        what = f"class split '{split.id}' is not a partition: '{left_out[0]}' is neither seen nor unseen nor val."
        yield Problem(f"{key}.seen", what, "Remove 'seen' (it is the rest), or name every class.")


def _variants(spec: Spec) -> Iterator[Problem]:
    ids = [v.id for v in spec.name_variants]
    for i, variant in enumerate(spec.name_variants):
        key = f"name_variants[{i}]"
        if variant.id == CANONICAL:
            yield Problem(
                f"{key}.id", f"'{CANONICAL}' is the word for the class names themselves.", "Choose another id."
            )
        for name in variant.entries:
            if name not in spec.class_names:
                yield Problem.of(f"{key}.entries.{name}", no_class("class", name, spec.class_names))
        if variant.kind == "comma-parts" and variant.entries:
            yield Problem(
                f"{key}.entries", "kind 'comma-parts' takes no entries.", 'Remove them, or use kind = "synonyms".'
            )
    if spec.default_variant is not None and spec.default_variant not in [CANONICAL, *ids]:
        yield Problem.of("default_variant", unknown_name("name variant", spec.default_variant, [CANONICAL, *ids]))


def _settings(spec: Spec) -> Iterator[Problem]:
    if spec.generator is not None and spec.generator not in registry.GENERATORS:
        yield Problem.of("generator", unknown_name("generator", spec.generator, registry.GENERATORS))
    for k, template in enumerate(spec.preset.templates or []):
        if template.count("{}") != 1:
            yield Problem(
                f"preset.templates[{k}]",
                f"template '{template}' needs exactly one {{}}.",
                'Write it as "a photo of a {}.".',
            )
    for name in spec.preset.methods:
        if name not in registry.METHODS:
            yield Problem.of(f"preset.methods.{name}", unknown_name("method", name, registry.METHODS))
        yield from _by_setting(f"preset.methods.{name}.{BY_SETTING}", spec.preset.methods[name].get(BY_SETTING, {}))


def _by_setting(key: str, tables: object) -> Iterator[Problem]:
    """A table of tables, none of which chooses the setting that it is chosen by."""
    if not isinstance(tables, dict):
        yield Problem(key, f"'{BY_SETTING}' is a table for each setting.", f"Write [{key}.SETTING].")
        return
    for name, table in tables.items():
        if not isinstance(table, dict):
            yield Problem(f"{key}.{name}", "this is no table of settings.", f"Write [{key}.SETTING].")
        elif "setting" in table:
            yield Problem(f"{key}.{name}.setting", "the table is chosen by this very value.", "Remove it.")
