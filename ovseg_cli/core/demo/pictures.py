"""The demo's pictures: scored scenes side by side, and drawn ones labelled with the user's own words."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg_cli.core.data import toy
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.palette import colors, spec_colors
from ovseg_cli.core.data.specs import Spec, load_spec
from ovseg_cli.core.demo.plan import DATA, DENSE_ROWS, DemoRequest, eval_request, rows_of, segmenter_of
from ovseg_cli.core.evaluation.request import EvalRequest, resolve
from ovseg_cli.core.files import write_bytes
from ovseg_cli.core.prediction.class_lists import parse_classes
from ovseg_cli.core.report.figures import PanelRow, side_by_side
from ovseg_cli.core.report.seen import SeenClasses
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import Vocabulary

PANEL_SCENES = (60, 35, 146, 58)  # of val: two that go well, one that is mixed, one that goes badly
PICTURE_STREAM = 4  # pictures of the user's words: no scene that is trained, tuned or scored on
PICTURES = 3
SEARCHED = 400
WORDS_ROW = DENSE_ROWS[1]
ELSE = "something else"
PICTURE_NOTES = (
    "comparison.png: four pictures of val, chosen to show both what works and what does not.",
    "mask-sensitivity.png: the probability of a region's class when its mask is made worse, before and after MAFT.",
    f"words-*: {WORDS_ROW.caption} gives each pixel one of your words, "
    f"or '{ELSE}' where another name of the world fits better.",
)


def check_words(words: str) -> Vocabulary:
    """Read the user's words; they are looked for among the world's classes when pictures are chosen."""
    return parse_classes(words)


def comparison_picture(clip: str, tuned: Mapping[str, Path], request: DemoRequest, reporter: Reporter) -> Path:
    """Some scored scenes: picture, ground truth, and the label maps of the rows that are drawn."""
    choice = resolve(EvalRequest(model="clip", data=(DATA,), clip=clip), request.folders, reporter).data[0]
    data = PreparedData.open(choice.spec, request.folders).subset("val")
    vocabulary = choice.spec.vocabulary(choice.split)
    drawn_rows = [row for row in rows_of(request) if row.drawn]
    models = [segmenter_of(row, clip, tuned, request, reporter) for row in drawn_rows]
    queries = [model.query(vocabulary) for model in models]
    rows = []
    for place in PANEL_SCENES:
        sample = data[place]
        image = sample.image.permute(1, 2, 0).numpy()
        maps = [model.segment(image, query).label_map for model, query in zip(models, queries, strict=True)]
        rows.append(PanelRow(image, [np.asarray(sample.label, dtype=np.uint8), *maps]))
    captions = ["picture", "ground truth", *(row.caption for row in drawn_rows)]
    seen = SeenClasses.of_split(vocabulary.unseen)
    drawn = side_by_side(
        rows,
        captions,
        vocabulary.class_names,
        spec_colors(choice.spec),
        data.ignore_label,
        borders=seen.borders,
        opacity=0.8,
        groups=_legend_groups(choice.spec, vocabulary.unseen_ids),
        meanings=seen.meanings,
    )
    path = request.out / "pictures" / "comparison.png"
    _save(drawn, path)
    return path


def sensitivity_picture(clip: str, tuned: Mapping[str, Path], request: DemoRequest, reporter: Reporter) -> Path:
    """How much class scores follow the mask, before and after MAFT's tuning, on the masks' own regions."""
    from ovseg_cli.core.report.sensitivity import draw_mask_sensitivity

    rows = [row for row in rows_of(request) if row.host == request.hosts[0] and row.part in ("frozen", "tuned")]
    models = [
        (row.caption, resolve(eval_request(row, clip, 0, tuned, request), request.folders, reporter).models[0])
        for row in rows
    ]
    path, limit = request.out / "pictures" / "mask-sensitivity.png", 10 if request.quick else 50
    return draw_mask_sensitivity(models, DATA, request.folders, path, reporter, limit, request.gpus)


def _legend_groups(spec: Spec, unseen: Sequence[int]) -> list[tuple[str, list[int]]]:
    seen = [i for i in range(spec.num_classes) if i not in set(unseen)]
    return [
        ("seen stuff", [i for i in seen if not spec.classes[i].is_thing]),
        ("seen things", [i for i in seen if spec.classes[i].is_thing]),
        (f"unseen in the class split {DATA}", list(unseen)),
    ]


def word_pictures(words: Vocabulary, clip: str, request: DemoRequest, reporter: Reporter) -> list[Path]:
    """Draw pictures that hold the user's words, and label them with these words, or as something else."""
    spec = load_spec(DATA.partition(":")[0])
    model = segmenter_of(WORDS_ROW, clip, {}, request, reporter)
    query = model.query(with_something_else(words, spec.class_names), spec.preset.templates)
    palette = word_colors(query.class_names, query.readout.background, spec)
    folder, paths = request.out / "pictures", []
    for number, scene in enumerate(pictures_of(words.class_names, reporter), start=1):
        source = folder / f"words-{number}-picture.png"
        _save(Image.fromarray(scene.image), source)
        result = replace(model.segment(scene.image, query, source.name), colors=palette)
        paths += [p for p in result.save(folder, f"words-{number}") if "overlay" in p.name]
    return paths


def with_something_else(words: Vocabulary, names: Sequence[str]) -> Vocabulary:
    """Let the world's other names compete as one class, so that what is none of the words need not become one.

    Words with a `background` of their own, or with every name of the world, stay as they are.
    """
    bare = {_bare(text) for row in words.synonyms for text in row}
    others = tuple(name for name in names if name not in bare)
    if words.background is not None or not others or ELSE in words.class_names:
        return words
    return replace(
        words,
        class_names=(*words.class_names, ELSE),
        synonyms=(*words.synonyms, others),
        background=words.num_classes,
        synonym_rule="max",
    )


def word_colors(words: Sequence[str], background: int | None, spec: Spec) -> np.ndarray:
    """Colours of words, (K, 3) uint8: the world's own for its names, others from the palette."""
    palette = colors(len(words), background)
    own = dict(zip(spec.class_names, spec_colors(spec), strict=True))
    for i, word in enumerate(words):
        palette[i] = own.get(_bare(word), palette[i])
    return palette


def pictures_of(words: Sequence[str], reporter: Reporter, count: int = PICTURES, size: int = 96) -> list[toy.Scene]:
    """Choose scenes that show as many of the words as possible, each scene the words that were missing so far.

    The generator's labels decide, never what a model makes of a scene.
    """
    spec = load_spec(DATA.partition(":")[0])
    wanted = {i for i, name in enumerate(spec.class_names) if any(name == _bare(word) for word in words)}
    for word in words:
        if _bare(word) not in spec.class_names:
            reporter.warn(f"'{word}' is not drawn in the toy world (`ovseg show toy` lists what is)")
    scenes = [toy.draw(PICTURE_STREAM, i, size) for i in range(SEARCHED)]
    shown = [_visible(scene) & wanted for scene in scenes]
    chosen: list[int] = []
    missing = set(wanted)
    while len(chosen) < count:
        rest = [i for i in range(SEARCHED) if i not in chosen]
        best = max(rest, key=lambda i: (len(shown[i] & missing), _share(scenes[i], shown[i]), -i))
        chosen.append(best)
        missing = (missing - shown[best]) or set(wanted)
    return [scenes[i] for i in chosen]


def _visible(scene: toy.Scene) -> set[int]:
    """Classes that nobody overlooks: at least 4 % of the pixels."""
    ids, pixels = np.unique(scene.label, return_counts=True)
    return {int(i) for i, count in zip(ids, pixels, strict=True) if count >= 0.04 * scene.label.size}


def _share(scene: toy.Scene, classes: Iterable[int]) -> float:
    return float(np.isin(scene.label, list(classes)).mean())


def _bare(word: str) -> str:
    """A word without its article: captions have 'a red striped toy', the class is 'red striped toy'."""
    return word.removeprefix("a ").strip()


def _save(image: Image.Image, path: Path) -> None:
    """Write a view: with 64 levels a channel instead of 256, which nobody sees and which halves the file."""
    stream = io.BytesIO()
    coarse = image.point([round(round(value * 63 / 255) * 255 / 63) for value in range(256)] * 3)
    coarse.save(stream, "PNG", optimize=True)
    write_bytes(path, stream.getvalue())
