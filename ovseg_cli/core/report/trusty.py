"""What `ovseg report RUN… --figures trusty-map` does: measure or read TagCLIP's trusty map, then a table and a figure.

For each run: pictures, chosen by their labels alone, with ground truth, map, and the labels that the model gives
without and with the weighting by the map; and the map's mean on pixels of seen classes, of unseen ones and without a
class, over all measured pictures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.measurement_files import measured_before
from ovseg_cli.core.evaluation.names import vocabulary_of
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.methods.build import ModelChoice, build_method, choose_model
from ovseg_cli.core.methods.texts import method_text
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.figure_inputs import (
    FigureReport,
    FigureRequest,
    Pictures,
    captions_of,
    fingerprints_of,
    named_runs,
    pictures_of,
)
from ovseg_cli.core.report.remarks import sign_of
from ovseg_cli.core.report.seen import SeenClasses
from ovseg_cli.core.report.trusty_figure import Scene, draw_trusty_maps, mean_text
from ovseg_cli.core.report.trusty_results import PARTS, PictureMeans, TrustyMaps
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import now, typed_command
from ovseg_cli.core.runtime import Folders, open_runtime
from ovseg_cli.core.training.starts import caveats_of
from ovseg_cli.core.types import SigmoidPrediction

if TYPE_CHECKING:
    from ovseg_cli.core.types import Sample, TextFeatures

FIGURE = "trusty-map"
DRAWN = 4  # pictures in the figure
_VISIBLE = 0.03  # share of a picture that unseen classes cover at least, and seen ones too
_WEIGHTED = {"fusion": "both", "across": "calibrated"}
"""Settings under which the map is used wherever there is one, also by runs that leave it out."""
_WORDS = {"seen": "seen", "unseen": "unseen", "unlabelled": "without a class"}


@dataclass(frozen=True)
class _Model:
    """A model that makes maps, the names that it is asked for, and what must be said of its results."""

    choice: ModelChoice
    method: Any
    text: "TextFeatures"
    class_names: tuple[str, ...]
    seen: SeenClasses
    notes: tuple[str, ...] = ()

    def trusty(self, sample: "Sample") -> torch.Tensor:
        """The map 1 - w of a picture at its own size, (H, W) in host memory."""
        (unseen,) = self.method.trust_maps([sample.image], self.text)
        size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        full = F.interpolate(unseen[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]
        return (1 - full).clamp(0, 1).cpu()

    def means(self, sample: "Sample") -> PictureMeans:
        """The map's means on a picture."""
        assert sample.label is not None
        return PictureMeans.of(sample.name, self.trusty(sample).numpy(), sample.label.numpy(), self._flags)

    def scene(self, sample: "Sample") -> Scene:
        """Everything that the figure shows of a picture."""
        assert sample.label is not None
        trusty, label = self.trusty(sample).numpy(), sample.label.numpy()
        (weighted,) = self.method.predict([sample.image], self.text)
        plain = replace(weighted, trust=None, gate=None)
        means = PictureMeans.of(sample.name, trusty, label, self._flags)
        image = sample.image.permute(1, 2, 0).numpy()
        return Scene(image, label, trusty, self._labels(plain), self._labels(weighted), means)

    def _labels(self, prediction: SigmoidPrediction) -> np.ndarray:
        ids = label_map(prediction, None, self.text.class_of_row, self.text.num_classes)
        return ids.cpu().numpy().astype(np.int64)

    @property
    def _flags(self) -> list[bool]:
        return [bool(flag) for flag in self.seen.flags]


def report_trusty_maps(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Measure the maps of some runs and draw a figure of each.

    The data are those of the first run unless named. Each run's figure and numbers go into its folder, or to
    `request.out`.

    Raises:
        UsageError: An unknown run, data set or subset, a run whose method makes no map, or one without its token.
        DataError: Data or weights are missing or broken.
    """
    runs = named_runs(request, folders)
    choices = [choose_model(str(run.path.absolute()), folders.runs) for run in runs]
    for choice in choices:
        _check_map(choice)
    pictures = pictures_of(request, runs[0], folders)
    device = open_runtime(request.gpus).device
    measured, drawn = [], []
    for caption, run in zip(captions_of(choices), runs, strict=True):
        model = _build(str(run.path.absolute()), pictures, device, folders, reporter)
        out = _place(request.out, run.path, pictures.stem(FIGURE), several=len(runs) > 1)
        maps = _measured(caption, model, pictures, out.with_suffix(".json"), reporter)
        _draw(caption, model, maps, pictures, out)
        measured.append((caption, maps, model.text.at_home))
        drawn.append(out)
    place = f"{pictures.choice.label} {pictures.data.name}, {len(pictures.data)} pictures"
    return FigureReport(trusty_table(measured, place), tuple(drawn))


def _check_map(choice: ModelChoice) -> None:
    """Refuse a model without a map before anything is loaded.

    Raises:
        UsageError: Its method makes none, or it was trained without its token.
    """
    method, where = METHODS[choice.method].load(), choice.run.path if choice.run else choice.method
    if not hasattr(method, "trust_maps"):
        able = " or ".join(name for name, entry in METHODS.items() if hasattr(entry.load(), "trust_maps"))
        raise UsageError(f"{where}: a run of {choice.method} has no trusty map.", f"Name a run of {able}.")
    if not choice.settings.get("token", True):
        raise UsageError(f"{where}: was trained without its token, so it has no trusty map.", "Name another run.")


def _place(out: Path | None, run: Path, stem: str, several: bool) -> Path:
    if out is None:
        return run / f"{stem}.png"
    return out / (f"{stem}-{run.name}.png" if several else f"{stem}.png")


def _build(path: str, pictures: Pictures, device: torch.device, folders: Folders, reporter: Reporter) -> _Model:
    choice = choose_model(path, folders.runs, pictures.choice.spec, settings=_WEIGHTED)
    method = build_method(choice, device, reporter)
    vocabulary = vocabulary_of(pictures.choice, EvalRequest(), type(method), choice.run)
    text = method_text(method, vocabulary, folders.cache, reporter).to(device)
    if text.seen is None:
        seen = SeenClasses.of_split(vocabulary.unseen)
        text = replace(text, seen=torch.tensor(seen.flags, device=device)[text.class_of_row])
    else:
        known = set(text.class_of_row[text.seen].tolist())
        seen = SeenClasses(tuple(i in known for i in range(vocabulary.num_classes)), "in training")
    notes = tuple(caveats_of(type(method), choice.run.config)) if choice.run else ()
    return _Model(choice, method, text, vocabulary.class_names, seen, notes)


def _measured(caption: str, model: _Model, pictures: Pictures, path: Path, reporter: Reporter) -> TrustyMaps:
    """Read what was measured of the very same model and pictures; else measure, and keep it beside the figure."""
    vocabulary = vocabulary_of(pictures.choice, EvalRequest(), type(model.method), model.choice.run)
    prints = fingerprints_of(model.method, vocabulary, pictures)
    found = measured_before(path, TrustyMaps.load, reporter)
    if found is not None and (found.fingerprints, found.notes) == (prints, model.notes):
        reporter.say(f"{caption}: measured before, read from {path}")
        return found
    data = pictures.data
    samples = (data[i] for i in reporter.track(range(len(data)), f"{caption}: trusty maps", len(data)))
    facts = {
        "command": typed_command(),
        "created": now(),
        "run": str(model.choice.run.path) if model.choice.run else "",
    }
    means = tuple(model.means(sample) for sample in samples)
    maps = TrustyMaps(model.method.name, pictures.choice.label, data.name, means, prints, facts, model.notes)
    maps.save(path)
    return maps


def _draw(caption: str, model: _Model, maps: TrustyMaps, pictures: Pictures, out: Path) -> None:
    from ovseg_cli.core.data.palette import spec_colors

    unseen = [i for i, flag in enumerate(model.seen.flags) if not flag]
    scenes = [model.scene(pictures.data[i]) for i in telling(maps.pictures)]
    place = f"{maps.data} {maps.subset}"
    below = [f"Mean of the map over {len(maps.pictures)} pictures of {place}: {means_of(maps)}."]
    if not unseen:
        below.append("The model was trained on every class here, so nothing is unseen.")
    below += maps.notes
    draw_trusty_maps(
        scenes,
        model.class_names,
        spec_colors(pictures.choice.spec),
        model.seen,
        pictures.data.ignore_label,
        out,
        f"{caption}: where does the model trust that it sees what it was trained on? ({place})",
        below,
    )


def telling(pictures: Sequence[PictureMeans], most: int = DRAWN) -> list[int]:
    """Choose pictures by their labels alone: the first that show both seen and unseen classes, then others."""

    def shows_both(picture: PictureMeans) -> bool:
        whole = sum(getattr(picture, part).pixels for part in PARTS)
        return min(picture.seen.pixels, picture.unseen.pixels) >= _VISIBLE * whole

    both = [i for i, picture in enumerate(pictures) if shows_both(picture)]
    others = [i for i in range(len(pictures)) if i not in set(both)]
    return sorted([*both, *others][:most])


def means_of(maps: TrustyMaps) -> str:
    """Say the means in words."""
    return ", ".join(f"{mean_text(maps.mean(part))} on pixels {_of(part)}" for part in PARTS)


def _of(part: str) -> str:
    return f"of {part} classes" if part != "unlabelled" else "without a class"


def trusty_table(models: Iterable[tuple[str, TrustyMaps, bool]], place: str) -> Table:
    """Make a table: of each model, the mean of its map on each part of the pictures.

    Args:
        models: Caption, measurement, and whether the names are those it was trained on.
        place: Data and number of pictures, for the title.
    """
    models = list(models)
    away = not all(at_home for _, _, at_home in models)
    signs = {text: sign_of(i) for i, text in enumerate(dict.fromkeys(t for _, maps, _ in models for t in maps.notes))}
    columns = (
        Column("model", "model"),
        Column("classes", "pixels of classes that are"),
        Column("pixels", "pixels", "count"),
        Column("mean", "mean of the map", "number", decimals=3),
        *([Column("notes", "notes", shown=False)] if signs else []),
    )
    rows: list[tuple[Cell, ...]] = []
    for caption, maps, _ in models:
        label = Cell(caption, signs="".join(signs[text] for text in maps.notes))
        remark = Cell(" ".join(maps.notes) or None)
        for part in PARTS:
            mean = maps.mean(part)
            rows.append((label, Cell(_WORDS[part]), Cell(mean.pixels), Cell(mean.mean), *([remark] if signs else [])))
    notes = [
        "Map: 1 - w, 0 to 1; 1: the model trusts that it sees a class it was trained on.",
        "Seen: the labels of these classes were read in training.",
    ]
    if away:
        notes.append(
            "Names of another data set: the map is used here (across = calibrated), which scores leave out by default."
        )
    for text, sign in signs.items():
        notes.append(f"{sign} {', '.join(caption for caption, maps, _ in models if text in maps.notes)}: {text}")
    return Table(f"Trusty map, {place}", columns, tuple(rows), tuple(notes))
