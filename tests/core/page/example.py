"""Pages made by hand, for the tests of how a page looks and works: hostile names, many classes, missing values."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ovseg_cli.core.page.document import (
    ClassChart,
    Confusion,
    Curves,
    Drawing,
    Gallery,
    GalleryPicture,
    Line,
    Page,
    Reproduction,
    Setting,
    Settings,
    Swatch,
)
from ovseg_cli.core.report.cells import Cell, Column, Table

HOSTILE = (
    "<script>window.owned = 1</script>",
    "</script><script>window.owned = 2</script>",
    "\"'><img src=x onerror='window.owned = 3'>",
    "{{ 7 * 7 }}{% raw %}&amp;",
    "</style></title><b>天空</b> 🌤️",
)
NAMES = ("sky", "tree", "building", "grass", "road", "person")
NAN = float("nan")


def page(models: Sequence[str] = ("CLIP", "MaskCLIP", "MAFT"), **changes: object) -> Page:
    """A page with everything: the models on six classes, the last two unseen."""
    whole = Page(
        title="Results on toy:combo",
        version="0.1.0",
        command="ovseg report runs/a runs/b --baseline runs/a --format html",
        tables=(score_table(models), difference_table(models[1:], models[0])),
        classes=(ClassChart("toy:combo val", class_table(models, NAMES), _keys(models), ("delta",)),),
        confusions=tuple(confusion(model, NAMES) for model in models),
        galleries=(gallery(models, NAMES),),
        curves=(curves("loss", models, 120), curves("learning rate", models[:1], 1)),
        settings=(settings(models),),
        reproductions=tuple(reproduction(model) for model in models),
        notes=("Pictures of one run were left out: its data set is not prepared here.",),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def hostile_page() -> Page:
    """Every text from outside is an attempt to run something."""
    bad = HOSTILE
    whole = page(bad[:3])
    drawn = replace(gallery(bad[:3], bad), title=bad[0], notes=(bad[1],))
    drawn = replace(drawn, pictures=tuple(replace(p, name=bad[i]) for i, p in enumerate(drawn.pictures)))
    hurt = replace(score_table(bad), title=bad[1], notes=bad)
    chart = ClassChart(bad[2], class_table(bad[:3], bad), _keys(bad[:3]), ("delta",))
    return replace(
        whole,
        title=bad[0],
        version=bad[1],
        command=bad[2],
        tables=(hurt, difference_table(bad[1:], bad[0])),
        classes=(chart,),
        confusions=tuple(replace(confusion(name, bad), title=name) for name in bad),
        galleries=(drawn,),
        curves=(replace(curves(bad[0], bad, 5)),),
        notes=bad,
    )


def plain_page() -> Page:
    """The least: one model, no unseen classes, no pictures, no training."""
    columns = (Column("method", "method"), Column("mIoU", "mIoU", "percent"))
    table = Table("Results on voc-20", columns, ((Cell("CLIP"), Cell(41.25)),), ())
    return Page("One result", "0.1.0", "ovseg report latest --format html", (table,))


def wide_page(classes: int = 171, models: Sequence[str] = ("MaskCLIP", "MAFT (FreeSeg)")) -> Page:
    """As many classes as COCO-Stuff has."""
    names = [f"{NAMES[i % 6]}-{'other' if i % 3 else 'stuff'}-{i}" for i in range(classes)]
    chart = ClassChart("coco-stuff:156-15 val", class_table(models, names), _keys(models), ("delta",))
    return replace(page(models), title="Results on coco-stuff:156-15", classes=(chart,))


def seeds_page() -> Page:
    """Groups of seeds: mean ± spread, one of a single seed, one value missing."""
    columns = (Column("method", "method"), *(Column(n, n, "percent") for n in ("mIoU", "hIoU")))
    rows = (
        (Cell("MAFT"), Cell(38.04, spread=0.61, count=3), Cell(35.55, spread=1.2, count=3)),
        (Cell("ZegCLIP"), Cell(36.96, spread=NAN, count=1), Cell(NAN)),
        (Cell("CLIP"), Cell(14.4, interval=(13.2, 15.4)), Cell(None)),
    )
    return replace(plain_page(), tables=(Table("Results on toy:combo", columns, rows, ("±: over 3 seeds.",)),))


def score_table(models: Sequence[str]) -> Table:
    """Four means with intervals, two without brackets, one column that is not shown."""
    draw = np.random.default_rng(0)
    columns = (
        Column("method", "method"),
        *(Column(n, n, "percent") for n in ("mIoU", "sIoU", "uIoU", "hIoU")),
        Column("pAcc", "pAcc", "percent", brackets=False),
        Column("images", "images", "count"),
        Column("run", "run", shown=False),
    )
    rows = []
    for i, model in enumerate(models):
        base = 14 + 43 * i / max(1, len(models) - 1) + draw.random(4) * 8
        cells = [Cell(float(v), interval=(float(v - 1 - 2 * draw.random()), float(v + 2))) for v in base]
        last = Cell(NAN) if i == 1 else Cell(float(base[0] + 20), interval=(1.0, 2.0))
        rows.append((Cell(model, signs="†" if i == 2 else ""), *cells, last, Cell(200), Cell(f"runs/{i}")))
    notes = ("Scores in percent. toy:combo val: 200 images. 32 classes averaged.", "Ranges: 95 % intervals.")
    return Table("Results on toy:combo", columns, tuple(rows), notes)


def difference_table(models: Sequence[str], baseline: str) -> Table:
    """One real gain, one real loss, one that is none, over and over."""
    columns = (Column("method", "method"), *(Column(f"delta_{n}", f"Δ {n}", "points") for n in ("mIoU", "hIoU")))
    kinds = (Cell(12.46, (11.1, 13.6), mark=True), Cell(-3.21, (-4.4, -2.0), mark=True), Cell(0.04, (-0.9, 1.0)))
    rows = tuple((Cell(model), kinds[i % 3], kinds[(i + 1) % 3]) for i, model in enumerate(models))
    notes = ("Ranges: paired 95 % intervals from 1000 resamples of the images; * marks those that exclude 0.",)
    return Table(f"Differences to {baseline} on toy:combo", columns, rows, notes)


def class_table(models: Sequence[str], names: Sequence[str]) -> Table:
    """A row a class; the third has no score, the last two are unseen."""
    draw = np.random.default_rng(1)
    columns = (
        Column("id", "id", "count", shown=False),
        Column("class", "class"),
        Column("set", "set"),
        *(Column(key, f"IoU {model}", "percent") for key, model in zip(_keys(models), models, strict=True)),
        Column("delta", "Δ", "points"),
        Column("pixels", "pixels", "count"),
    )
    rows = []
    for i, name in enumerate(names):
        scores = [NAN if i == 2 else float(v) for v in draw.random(len(models)) * 90]
        delta = scores[-1] - scores[0]
        marked = Cell(delta, (delta - 9, delta + 9), mark=abs(delta) > 9)
        kind = "unseen" if i >= len(names) - 2 else "seen"
        size = Cell(int(draw.integers(10, 2_000_000)))
        rows.append((Cell(i), Cell(name), Cell(kind), *map(Cell, scores), marked, size))
    return Table("Classes of toy:combo", columns, tuple(rows), ("Rule union.",))


def confusion(model: str, names: Sequence[str]) -> Confusion:
    """More right than wrong; the last class has no pixels."""
    draw = np.random.default_rng(len(model))
    counts = draw.integers(0, 900, (len(names), len(names))) + 4000 * np.eye(len(names), dtype=int)
    counts[-1] = 0
    totals = [int(row.sum() * 1.2) for row in counts]
    pixels = tuple(tuple(map(int, row)) for row in counts)
    return Confusion(model, "toy:combo val", tuple(names), pixels, tuple(totals))


def gallery(
    models: Sequence[str], names: Sequence[str], pictures: int = 4, size: tuple[int, int] = (160, 112)
) -> Gallery:
    """Discs on a ground; each model puts its boundary elsewhere; one score of one model is missing."""
    colors = [tuple(int(c) for c in row) for row in np.random.default_rng(5).integers(30, 250, (len(names), 3))]
    legend = tuple(
        Swatch(name, color, "unseen" if i >= len(names) - 2 else "seen")  # type: ignore[arg-type]
        for i, (name, color) in enumerate(zip(names, colors, strict=True))
    )
    made, size = [], (160, 112)
    for i in range(pictures):
        maps = tuple(_map(size, i, shift, colors) for shift in range(len(models)))
        truth = _map(size, i, 0, colors, hole=True)
        scores = tuple(None if (i, j) == (1, 0) else 20.0 + 11.11 * ((i + j) % 5) for j in range(len(models)))
        name = f"0000{i}"
        made.append(GalleryPicture(name, *size, _photo(size, i), truth, maps, scores, 40.0 - 7.77 * i, legend))
    return Gallery("toy:combo val", tuple(models), tuple(made), (f"{pictures} of 200 pictures.",))


def curves(title: str, models: Sequence[str], steps: int) -> Curves:
    """A falling line a model; the first has a gap."""
    lines = []
    for i, model in enumerate(models):
        values = [2.0 * 0.97**s + 0.3 * i for s in range(steps)]
        if i == 0 and steps > 20:
            values[10] = NAN
        lines.append(Line(model, tuple(range(1, steps + 1)), tuple(values)))
    return Curves(title, tuple(lines))


def settings(models: Sequence[str]) -> Settings:
    """One that differs, one that some lack, two that are shared."""
    several = len(models) > 1
    rows = (
        Setting("learning_rate", tuple(f"{i + 1}e-4" for i in range(len(models))), ("--set",) * len(models), several),
        Setting("host.decoder", ("–", *("fpn",) * (len(models) - 1)), ("", *("default",) * (len(models) - 1)), several),
        Setting("clip.name", ("ViT-B-16",) * len(models), ("the paper, section 4.1",) * len(models), False),
        Setting("templates", ("a photo of a {}.",) * len(models), ("default",) * len(models), False),
    )
    return Settings("trained models", tuple(models), rows)


def reproduction(model: str) -> Reproduction:
    """Two commands, one fact of its own."""
    facts = (("data", "0f3b8a6c11d2"), ("weights", f"{len(model):012x}"), ("ovseg", "0.1.0"), ("seed", "0"))
    return Reproduction(model, (f"ovseg train {model.lower()} --data toy", "ovseg eval latest --data toy"), facts)


def _keys(models: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"IoU_{i + 1}" for i in range(len(models)))


def _photo(size: tuple[int, int], draw: int) -> Drawing:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([(x + 40 * draw) % 256, y * 2 % 256, (x + y) % 256], -1).astype(np.uint8)
    return _drawing(Image.fromarray(pixels), "WEBP")


def _map(size: tuple[int, int], draw: int, shift: int, colors: Sequence[Sequence[int]], hole: bool = False) -> Drawing:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    label = (y > size[1] // 2 + 9 * shift).astype(int)
    label[(x - 50 - 20 * draw) ** 2 + (y - 60 + 6 * shift) ** 2 < 900] = 2 + draw % (len(colors) - 2)
    alpha = np.full(label.shape, 255)
    alpha[:12] = 0 if hole else 255
    pixels = np.dstack([np.array(colors)[label], alpha]).astype(np.uint8)
    return _drawing(Image.fromarray(pixels), "PNG")


def _drawing(image: Image.Image, form: str) -> Drawing:
    stream = io.BytesIO()
    image.save(stream, form)
    return Drawing(f"image/{form.lower()}", stream.getvalue())
