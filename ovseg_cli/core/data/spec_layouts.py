"""Rules on where files lie: subsets that exist, patterns with a stem, and what only some kinds of labels have."""

from collections.abc import Iterator

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_encodings import Problem
from ovseg_cli.core.data.spec_files import ONE_FILE, Encoding, SubsetLayout
from ovseg_cli.core.errors import unknown_name


def layout_problems(spec: Spec) -> Iterator[Problem]:
    """Yield every broken rule of the spec's layouts."""
    for i, layout in enumerate(spec.layouts):
        encoding = spec.encoding_of(layout)
        for name, part in layout.subsets.items():
            key = f"layouts[{i}].subsets.{name}"
            if name not in spec.subsets:
                yield Problem.of(key, unknown_name("subset", name, spec.subsets))
            yield from _patterns(key, part)
            yield from _lists(key, part)
            if spec.task == "semantic":
                yield from _kinds(key, part, encoding)


def _patterns(key: str, part: SubsetLayout) -> Iterator[Problem]:
    if "{stem}" not in part.images:
        yield Problem(f"{key}.images", f"pattern '{part.images}' has no {{stem}}.", 'Write it as "images/{stem}.jpg".')
    for k, pattern in enumerate(part.labels_else):
        if "{stem}" not in pattern or not part.has_label_files:
            mend = 'Write all of them as "labels/{stem}.png".'
            yield Problem(f"{key}.labels_else[{k}]", f"pattern '{pattern}', or 'labels', has no {{stem}}.", mend)


def _lists(key: str, part: SubsetLayout) -> Iterator[Problem]:
    many = bool(part.list_also or part.list_without)
    if many and (part.list is None or part.list_columns == "json-phase"):
        what = "'list_also' and 'list_without' go with a 'list' of stems or paths."
        yield Problem(f"{key}.list", what, 'Add list = "train.txt", or remove them.')
    if part.list_columns == "json-phase" and part.list is None:
        yield Problem(f"{key}.list", "'json-phase' needs a 'list'.", 'Add list = "annotations.json".')


def _kinds(key: str, part: SubsetLayout, encoding: Encoding) -> Iterator[Problem]:
    """One JSON for all pictures or a file a picture; a JSON of segments for panoptic labels; no archives."""
    kind = encoding.kind
    if part.labels and kind in ONE_FILE and part.has_label_files:
        what = f"labels of kind '{kind}' are one file for all pictures, but '{part.labels}' has {{stem}}."
        yield Problem(f"{key}.labels", what, 'Write it as "annotations/train.json".')
    if part.labels and kind not in ONE_FILE and not part.has_label_files:
        what = f"labels of kind '{kind}' are a file a picture, but '{part.labels}' has no {{stem}}."
        yield Problem(f"{key}.labels", what, 'Write it as "labels/{stem}.png".')
    if part.labels and kind == "coco-panoptic" and part.segments is None:
        what = "kind 'coco-panoptic' needs 'segments', the JSON that says what class a segment is."
        yield Problem(f"{key}.segments", what, 'Add segments = "annotations/panoptic_train2017.json".')
    if part.segments and kind != "coco-panoptic":
        what = f"'segments' means nothing for kind '{kind}'."
        yield Problem(f"{key}.segments", what, 'Remove it, or use kind = "coco-panoptic".')
    if part.archives:
        what = "archives are read in place for class-agnostic masks only."
        yield Problem(f"{key}.archives", what, "Remove it, and unpack them.")
