"""The whole pipeline on the toy world: prepare, (train,) score, compare, draw. Every number is computed when it runs.

`ROWS` is the place for further methods: one line each. A row of a training-free method is scored at once; `--full`
trains the toy CLIP anew for each seed, scores every row on each and reports mean and spread.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovseg_cli.core.clip.model import RUN_FILE, load_clip
from ovseg_cli.core.data import toy
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.data.palette import colors, spec_colors
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.specs import Spec, load_spec
from ovseg_cli.core.evaluation.request import EvalRequest, resolve
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.evaluation.session import find_scored, score
from ovseg_cli.core.files import make_folder, write_text
from ovseg_cli.core.prediction.segmenter import Segmenter
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.compare import difference_table
from ovseg_cli.core.report.figures import PanelRow, side_by_side
from ovseg_cli.core.report.formats import render
from ovseg_cli.core.report.grouping import Group
from ovseg_cli.core.report.tables import View, result_table
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import list_runs
from ovseg_cli.core.runtime import Folders, open_runtime
from ovseg_cli.core.types import Vocabulary

DATA = "toy:combo"
QUICK_IMAGES = 60
PANEL_SCENES = (60, 35, 146, 58)  # of val: two that go well, one that is mixed, one that goes badly
UNSEEN = (255, 0, 0)
PICTURE_STREAM = 4  # pictures of the user's words: no scene that is trained, tuned or scored on
PICTURES = 3
SEARCHED = 400
TRAINING: dict[str, Any] = {}  # settings of the toy CLIPs beside their seed: none, the shipped one's recipe


@dataclass(frozen=True)
class Row:
    """One line of the demo's table."""

    caption: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)


ROWS = (
    Row("CLIP", "clip"),
    Row("MaskCLIP", "maskclip", {"variant": "original"}),
    Row("MaskCLIP, class residual", "maskclip", {"variant": "value-cls"}),
)
WORDS_ROW = ROWS[1]
ELSE = "something else"
PICTURE_NOTES = (
    "comparison.png: four pictures of val, chosen to show both what works and what does not.",
    f"words-*: {WORDS_ROW.caption} gives each pixel one of your words, "
    f"or '{ELSE}' where another name of the world fits better.",
)


@dataclass(frozen=True)
class DemoRequest:
    """Options of `ovseg demo`.

    Attributes:
        out: Folder of everything that is made.
        quick: Score fewer pictures.
        full_seeds: How many toy CLIPs are trained and scored; 0 takes the shipped one.
        words: The user's words, in the syntax of `--classes`.
        gpus: What `--gpus` said.
    """

    out: Path
    quick: bool = False
    full_seeds: int = 0
    words: str = ""
    gpus: int | None = None

    @property
    def folders(self) -> Folders:
        """Data and runs of the demo lie in its own folder."""
        return Folders(self.out / "datasets", self.out / "runs")


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo made."""

    tables: tuple[Table, ...]
    pictures: tuple[Path, ...]
    seconds: float
    next_steps: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The outcome as plain data."""
        tables = [{"title": t.title, "rows": t.records(), "notes": list(t.notes)} for t in self.tables]
        pictures = [str(path) for path in self.pictures]
        return {
            "schema": 1,
            "tables": tables,
            "pictures": pictures,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


def run_demo(request: DemoRequest, reporter: Reporter) -> DemoOutcome:
    """Run the demo; what an interrupted one finished is not done again.

    Raises:
        UsageError: The words make no sense.
        MachineError: The folder cannot be written.
    """
    started = time.monotonic()
    words = check_words(request.words)
    make_folder(request.out)
    steps = 4 if request.full_seeds else 3
    reporter.say(f"1/{steps} prepare: the toy world, drawn into {request.folders.data}")
    prepare(load_spec(DATA.partition(":")[0]), request.folders, reporter=reporter)
    clips = ["toy-clip"]
    if request.full_seeds:
        reporter.say(f"2/{steps} train: {request.full_seeds} toy CLIPs, {estimate(request.full_seeds)}")
        clips = [str(_trained(seed, request, reporter)) for seed in range(request.full_seeds)]
    reporter.say(f"{steps - 1}/{steps} score: {len(ROWS)} rows on {DATA}")
    groups = [_scored(row, clips, request, reporter) for row in ROWS]
    tables = _tables(groups)
    write_text(request.out / "table.md", render(tables, "markdown"))
    reporter.say(f"{steps}/{steps} draw: pictures, labelled by each row and by your words")
    pictures = [_compare_picture(clips[0], request, reporter), *_word_pictures(words, clips[0], request, reporter)]
    seconds = time.monotonic() - started
    return DemoOutcome(tuple(tables), tuple(pictures), seconds, _next_steps(request), PICTURE_NOTES)


def check_words(words: str) -> Vocabulary:
    """Read the user's words; they are looked for among the world's classes when pictures are chosen."""
    from ovseg_cli.core.prediction.class_lists import parse_classes

    return parse_classes(words)


def estimate(seeds: int) -> str:
    """How long training will take, from what the shipped toy CLIP took."""
    minutes = float(load_clip("toy-clip").recipe.get("cpu_minutes", 0.0))
    if not minutes:
        return "several minutes each"
    return f"about {minutes * seeds:.0f} minutes of one core ({minutes:.0f} each, as the shipped one took)"


def _trained(seed: int, request: DemoRequest, reporter: Reporter) -> Path:
    """A toy CLIP of one seed: a finished one is used again, an unfinished one continued."""
    from ovseg_cli.core.training.session import TrainRequest, train

    earlier = [
        r for r in list_runs(request.folders.runs) if r.kind == "toy-clip" and r.config["method"].get("seed") == seed
    ]
    if earlier and (earlier[0].path / RUN_FILE).exists():
        return earlier[0].path
    asked = TrainRequest(
        "toy-clip",
        {} if earlier else {**TRAINING, "seed": seed},
        resume=bool(earlier),
        run=earlier[0].path if earlier else None,
        gpus=request.gpus,
    )
    return Path(train(asked, request.folders, reporter)["run"])


def _scored(row: Row, clips: Sequence[str], request: DemoRequest, reporter: Reporter) -> list[Result]:
    """Score one row on every CLIP; the seed of a result is that of its CLIP."""
    results = []
    for seed, clip in enumerate(clips):
        asked = EvalRequest(
            model=row.method,
            data=(DATA,),
            clip=clip,
            settings=row.settings,
            limit=QUICK_IMAGES if request.quick else None,
            gpus=request.gpus,
            seed=seed,
            force=True,  # plain CLIP may score below chance here: that is a finding of the demo, not a mistake
        )
        plan = resolve(asked, request.folders, reporter)
        stored = find_scored(plan, request.folders, reporter)
        results.append((stored or score(plan, request.folders, reporter)[0]).result)
    return results


def _tables(groups: Sequence[Group]) -> list[Table]:
    view = View()
    title = "Toy world, unseen classes by combination" + (" (mean of seeds)" if len(groups[0]) > 1 else "")
    return [result_table(groups, view, title), difference_table(groups[1:], groups[0], view)]


def _segmenter(row: Row, clip: str, request: DemoRequest, reporter: Reporter) -> Segmenter:
    """The model of a row as it was scored: with the data set's own settings."""
    asked = EvalRequest(model=row.method, data=(DATA,), clip=clip, settings=row.settings, gpus=request.gpus)
    choice = resolve(asked, request.folders, reporter).models[0]
    return Segmenter.build(choice, open_runtime(request.gpus), request.folders.cache, reporter)


def _compare_picture(clip: str, request: DemoRequest, reporter: Reporter) -> Path:
    """Some scored scenes: picture, ground truth, and every row's label map."""
    choice = resolve(EvalRequest(model="clip", data=(DATA,), clip=clip), request.folders, reporter).data[0]
    data = PreparedData.open(choice.spec, request.folders).subset("val")
    vocabulary = choice.spec.vocabulary(choice.split)
    models = [_segmenter(row, clip, request, reporter) for row in ROWS]
    queries = [model.query(vocabulary) for model in models]
    rows = []
    for place in PANEL_SCENES:
        sample = data[place]
        image = sample.image.permute(1, 2, 0).numpy()
        maps = [model.segment(image, query).label_map for model, query in zip(models, queries, strict=True)]
        rows.append(PanelRow(image, [np.asarray(sample.label, dtype=np.uint8), *maps]))
    captions = ["picture", "ground truth", *(row.caption for row in ROWS)]
    unseen = choice.spec.unseen_ids(choice.split)
    drawn = side_by_side(
        rows,
        captions,
        vocabulary.class_names,
        spec_colors(choice.spec),
        data.ignore_label,
        borders=dict.fromkeys(unseen, UNSEEN),
        opacity=0.8,
        groups=_legend_groups(choice.spec, unseen),
    )
    path = request.out / "pictures" / "comparison.png"
    _save(drawn, path)
    return path


def _legend_groups(spec: Spec, unseen: Sequence[int]) -> list[tuple[str, list[int]]]:
    seen = [i for i in range(spec.num_classes) if i not in set(unseen)]
    return [
        ("seen stuff", [i for i in seen if not spec.classes[i].is_thing]),
        ("seen things", [i for i in seen if spec.classes[i].is_thing]),
        (f"unseen in the class split {DATA} (red border, here and in the pictures)", list(unseen)),
    ]


def _word_pictures(words: Vocabulary, clip: str, request: DemoRequest, reporter: Reporter) -> list[Path]:
    """Draw pictures that hold the user's words, and label them with these words, or as something else."""
    spec = load_spec(DATA.partition(":")[0])
    model = _segmenter(WORDS_ROW, clip, request, reporter)
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
    import io

    from ovseg_cli.core.files import write_bytes

    stream = io.BytesIO()
    coarse = image.point([round(round(value * 63 / 255) * 255 / 63) for value in range(256)] * 3)
    coarse.save(stream, "PNG", optimize=True)
    write_bytes(path, stream.getvalue())


def _next_steps(request: DemoRequest) -> tuple[tuple[str, str], ...]:
    """What to do next and the command that does it."""
    data = f"--data-root {request.folders.data}"
    return (
        ("The table again, with every class:", f"ovseg report {request.folders.runs}/*/ --per-class"),
        ("Another class split:", f"ovseg eval maskclip --data toy:novel {data}"),
        ("Your own pictures (downloads ViT-B-16):", 'ovseg predict maskclip photos/ --classes "cat, grass"'),
        ("A data set of photographs:", "ovseg prepare camvid --source DIR"),
        ("What a method does, and where its settings come from:", "ovseg show maskclip"),
    )
