"""What is on the page? Plain records, gathered by the other files of this folder and written as HTML by `render`.

Numbers are not rounded here: what is shown is rounded where it is shown, what is embedded is what `--format json` says.
"""

from dataclasses import dataclass

from ovseg_cli.core.report.cells import Table


@dataclass(frozen=True)
class ClassChart:
    """The classes of one data set: a table that is drawn with bars too.

    Attributes:
        title: Data and subset.
        table: A row a class (`class_tables.class_table` or `delta_table`).
        bars: Keys of its columns that are drawn as bars from 0 to 100.
        deltas: Keys of its columns that are drawn as bars to both sides of zero.
    """

    title: str
    table: Table
    bars: tuple[str, ...] = ()
    deltas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confusion:
    """Which classes one model takes for which: those n of its K classes that lose most pixels to each other.

    Attributes:
        model: Label of its row in the table of scores.
        title: Data and subset.
        names: n class names.
        pixels: (n, n) counts: rows ground truth, columns prediction.
        totals: Pixels of ground truth of each of the n classes, over all K predictions.
    """

    model: str
    title: str
    names: tuple[str, ...]
    pixels: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]


@dataclass(frozen=True)
class Drawing:
    """An encoded picture.

    Attributes:
        mime: "image/webp", "image/jpeg" or "image/png".
        data: Its bytes.
    """

    mime: str
    data: bytes


@dataclass(frozen=True)
class Swatch:
    """One entry of a picture's legend.

    Attributes:
        name: Class name.
        color: RGB, 0 to 255.
        set: "seen", "unseen", or None where nobody knows.
    """

    name: str
    color: tuple[int, int, int]
    set: str | None = None


@dataclass(frozen=True)
class GalleryPicture:
    """One picture and what each model found in it.

    Attributes:
        name: Of the picture.
        width: Pixels, of all drawings of this picture.
        height: Pixels.
        image: The picture itself.
        truth: Ground truth, class colours, transparent where nothing is labelled.
        maps: One label map a model, in class colours.
        scores: Mean IoU of this picture, percent, one a model; None where no pixel has a class.
        disagreement: Share of labelled pixels, percent, on which two models differ, averaged over all pairs of them
            (one model: on which it is wrong).
        legend: The classes of ground truth and label maps.
    """

    name: str
    width: int
    height: int
    image: Drawing
    truth: Drawing
    maps: tuple[Drawing, ...]
    scores: tuple[float | None, ...]
    disagreement: float
    legend: tuple[Swatch, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures of one data set, the most telling first.

    Attributes:
        title: Data and subset.
        models: Labels of the models, one a label map.
        pictures: By falling disagreement.
        notes: Which pictures were taken, of how many; what must be said of a model.
    """

    title: str
    models: tuple[str, ...]
    pictures: tuple[GalleryPicture, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of a chart: a label and its points."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """One chart of a training log: a loss term or a rate, a line a run."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Setting:
    """One setting in each of several runs.

    Attributes:
        name: Dotted key.
        values: One text a run; "–" where the run has no such setting.
        sources: Where each value came from: a default's source, a recipe, `--set`.
        differs: Whether the values differ.
    """

    name: str
    values: tuple[str, ...]
    sources: tuple[str, ...]
    differs: bool


@dataclass(frozen=True)
class Settings:
    """Settings of several runs of one kind, side by side."""

    title: str
    runs: tuple[str, ...]
    rows: tuple[Setting, ...]


@dataclass(frozen=True)
class Reproduction:
    """How one row came about.

    Attributes:
        model: Label of its row.
        commands: What to type, in order.
        facts: What it depended on: (name, value) of fingerprints, versions, device, seed, date.
    """

    model: str
    commands: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """Everything.

    Attributes:
        title: Of the page.
        version: Of ovseg.
        command: The command that made the page.
        tables: Scores, then differences to the baseline, in the order of `ovseg report`.
        further: What else is stored of the runs: truly novel classes, named masks, the oracle ladder.
        classes: A chart a data set.
        confusions: One a result.
        galleries: One a data set; none where pictures were not wanted or cannot be made.
        curves: Of the runs that were trained.
        settings: Of the runs.
        reproductions: One a result.
        notes: What must be said of the page as a whole: what was left out, and why.
    """

    title: str
    version: str
    command: str
    tables: tuple[Table, ...]
    further: tuple[Table, ...] = ()
    classes: tuple[ClassChart, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    curves: tuple[Curves, ...] = ()
    settings: tuple[Settings, ...] = ()
    reproductions: tuple[Reproduction, ...] = ()
    notes: tuple[str, ...] = ()
