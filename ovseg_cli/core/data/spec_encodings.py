"""Rules on how label files store classes: every class has a raw value, and no value means two things."""

from collections.abc import Iterator
from dataclasses import dataclass

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Encoding
from ovseg_cli.core.errors import UsageError


@dataclass(frozen=True)
class Problem:
    """One broken rule: the dotted key, what is wrong, and what mends it."""

    key: str
    what: str
    mend: str

    @classmethod
    def of(cls, key: str, error: UsageError) -> "Problem":
        """Take over the sentence and the mend of an error about a value."""
        return cls(key, error.message, error.mend or "")


def encoding_problems(spec: Spec) -> Iterator[Problem]:
    """Yield every broken rule of the spec's encoding and of those of its layouts."""
    if spec.encoding:
        yield from _encoding(spec, spec.encoding, "encoding", None)
    for i, layout in enumerate(spec.layouts):
        if layout.encoding:
            yield from _encoding(spec, layout.encoding, f"layouts[{i}].encoding", i)


def _encoding(spec: Spec, encoding: Encoding, key: str, layout: int | None) -> Iterator[Problem]:
    raw_ids = spec.raw_ids(None if layout is None else spec.layouts[layout])
    if isinstance(encoding.raw_ids, list) and len(raw_ids) != spec.num_classes:
        yield Problem(
            f"{key}.raw_ids",
            f"{len(raw_ids)} raw_ids for {spec.num_classes} classes.",
            "Give one a class, in train-id order.",
        )
        return
    yield from _needed(encoding, key)
    yield from _colors(spec, encoding, key)
    background = spec.background.train_id if spec.background else None
    if (encoding.elsewhere == "background" or encoding.background_raw) and background is None:
        yield Problem(f"{key}.elsewhere", "there is no background class.", "Add [background] with its train_id.")
    for i, raw in enumerate(raw_ids):
        if raw is None and spec.task == "semantic" and i != background:
            name = "color" if encoding.rgb_rule == "color" else "raw_id"
            yield Problem(
                f"classes[{i}].{name}",
                f"class '{spec.class_names[i]}' has no {name}.",
                f"Add {name}; only a background class may lack it.",
            )
    limit, bits = encoding.limit, encoding.limit.bit_length() - 1
    for where, values in (
        ("ignore_raw", encoding.ignore_raw),
        ("background_raw", encoding.background_raw),
        ("raw_ids", raw_ids),
    ):
        for k, raw in enumerate(values):
            spot = (
                f"{key}.{where}[{k}]"
                if where != "raw_ids" or isinstance(encoding.raw_ids, list)
                else f"classes[{k}].raw_id"
            )
            if raw is not None and raw >= limit:
                yield Problem(
                    spot,
                    f"raw value {raw} does not fit into {bits} bits.",
                    f"Values are 0 to {limit - 1}; raise {key}.bits.",
                )
            if where != "raw_ids" and raw in raw_ids:
                yield Problem(
                    spot,
                    f"raw value {raw} is also class '{spec.class_names[raw_ids.index(raw)]}'.",
                    f"Remove it from '{where}'.",
                )
    for k, raw in enumerate(encoding.background_raw):
        if raw in encoding.ignore_raw:
            yield Problem(
                f"{key}.background_raw[{k}]", f"raw value {raw} is also in 'ignore_raw'.", "Remove it from one of them."
            )


def _colors(spec: Spec, encoding: Encoding, key: str) -> Iterator[Problem]:
    """Colours that are ignored: only where labels are compared with colours, and none that is a class's own."""
    if encoding.ignore_colors and encoding.rgb_rule != "color":
        what = "'ignore_colors' means nothing without rgb_rule = \"color\"."
        yield Problem(f"{key}.ignore_colors", what, "Remove it, or list numbers in 'ignore_raw'.")
        return
    own = [c.color for c in spec.classes]
    for k, color in enumerate(encoding.ignore_colors):
        if color in own:
            what = f"colour {tuple(color)} is also class '{spec.class_names[own.index(color)]}'."
            yield Problem(f"{key}.ignore_colors[{k}]", what, "Remove it from 'ignore_colors'.")
    if encoding.rgb_rule == "color":
        for i, shade in enumerate(own):
            if shade is not None and shade in own[:i]:
                what = f"'{spec.class_names[own.index(shade)]}' and '{spec.class_names[i]}' have one colour."
                yield Problem(f"classes[{i}].color", what, "Labels are coded by colours; give each class its own.")


def _needed(encoding: Encoding, key: str) -> Iterator[Problem]:
    """Keys that a kind needs, and that no other kind may carry."""
    for kind, name, example in (
        ("rgb-png", "rgb_rule", '"color"'),
        ("mat", "variable", '"LabelMap"'),
        ("rle-json", "records", '"annotations"'),
    ):
        given = getattr(encoding, name) is not None
        if encoding.kind == kind and not given:
            yield Problem(f"{key}.{name}", f"kind '{kind}' needs '{name}'.", f"Add {name} = {example}.")
        if encoding.kind != kind and given:
            yield Problem(
                f"{key}.{name}",
                f"'{name}' means nothing for kind '{encoding.kind}'.",
                f'Remove it, or use kind = "{kind}".',
            )
