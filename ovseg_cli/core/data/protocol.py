"""What a reader must know of a data set before comparing scores on it, out of its spec: for `ovseg show NAME`."""

from collections.abc import Iterator

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Encoding

_MOST_VALUES = 16


def label_facts(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield label and text: what is ignored, what is background and how papers predict it, how labels are stored."""
    encoding = spec.encoding
    ignored = "none" if spec.ignore_label is None else str(spec.ignore_label)
    becomes = f"; {_ignored(encoding)}" if encoding and spec.ignore_label is not None else ""
    yield "ignore label", f"{ignored}{becomes}"
    yield "background", f"train id {spec.background.train_id}: {spec.background.meaning}" if spec.background else "none"
    if spec.background and spec.background.prediction:
        yield "background, in papers", spec.background.prediction
    if encoding:
        yield "labels", f"{encoding.kind}; {encoding.values or encoding.note or ''}".rstrip("; ")
    if encoding and encoding.values and encoding.note:
        yield "to train ids", encoding.note


def split_facts(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield what is to be known of class splits, each remark once."""
    by_note: dict[str, list[str]] = {}
    for split in spec.class_splits:
        if split.note:
            by_note.setdefault(split.note, []).append(split.id)
    for note, ids in by_note.items():
        yield "split", f"{', '.join(ids)}: {note}"


def _ignored(encoding: Encoding) -> str:
    """Which raw values become the ignore label, as the end of a sentence."""
    listed = [str(value) for value in encoding.ignore_raw]
    more = f" and {len(listed) - _MOST_VALUES} more" if len(listed) > _MOST_VALUES else ""
    parts = [f"raw {', '.join(listed[:_MOST_VALUES])}{more}"] if listed else []
    parts += ["some colours"] if encoding.ignore_colors else []
    parts += ["every raw value that is no class"] if encoding.elsewhere == "ignore" else []
    return f"from {', '.join(parts)}" if parts else "no pixel has it"
