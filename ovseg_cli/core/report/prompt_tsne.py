"""What `ovseg report RUN… --figures tsne` does: the learned prompts and the class names as points of a plane, by t-SNE.

As Figure 5 of PixelCLIP's paper, in two panels: the prompts as they began, and as they were learned. All points are
placed together, so that a name stands at the same place in both panels.

Source: van der Maaten, Hinton, "Visualizing data using t-SNE", 2008; scikit-learn's exact form, on unit-length
features, whose squared distance is 2 - 2 cosine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.files import write_json
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.figure_inputs import FigureReport, FigureRequest, choice_of, named_runs
from ovseg_cli.core.report.prompt_models import (
    NamedPrompts,
    PromptModel,
    first_prompts,
    load_prompts,
    named_prompts,
    prompt_choices,
    require_names,
)
from ovseg_cli.core.report.prompt_tsne_figure import draw_plane
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import now, typed_command
from ovseg_cli.core.runtime import Folders, open_runtime

if TYPE_CHECKING:
    from ovseg_cli.core.data.splits import DataChoice

FIGURE = "tsne"
SCHEMA, KIND = 1, "ovseg-prompt-tsne"
SEED = 0
MOST_NEIGHBOURS = 30.0
"""scikit-learn's own perplexity; few points get a third of their number."""
DIGITS = 4


@dataclass(frozen=True)
class Plane:
    """Prompts and names as points of a plane.

    Attributes:
        names: (K, 2).
        first: (k, 2), the prompts as they began.
        learned: (k, 2).
        settings: Of the t-SNE, and how well it fits.
    """

    names: NDArray[np.float64]
    first: NDArray[np.float64]
    learned: NDArray[np.float64]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Moved:
    """What a training did to the prompts of a model.

    Attributes:
        caption: The model.
        first: The prompts as they began, and the names nearest to them.
        learned: The same of the learned ones.
        kept: (k,) cosine of each prompt with where it began.
    """

    caption: str
    first: NamedPrompts
    learned: NamedPrompts
    kept: Tensor


def report_tsne(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Place the prompts of some runs and the class names of a data set in a plane: figure and JSON for each run.

    Raises:
        UsageError: An unknown run or data set, a run without learned prompts, or data without class names.
        DataError: Weights are missing or broken.
        MachineError: scikit-learn is not installed.
    """
    check_installed()
    runs = named_runs(request, folders)
    choices = prompt_choices(runs, folders)
    data = choice_of(request, runs[0], folders)
    require_names(data.spec.name, data.spec.class_names)
    device = open_runtime(request.gpus).device
    moves, drawn = [], []
    for caption, choice in choices:
        model = load_prompts(caption, choice, device, reporter)
        moved = _moved(model, data, folders, reporter)
        reporter.say(f"{caption}: placing {2 * len(model)} prompts and {len(moved.learned.names)} names")
        plane = place(moved.learned.features, first_prompts(model), model.prompts)
        name = f"{FIGURE}-{Path(data.label.replace(':', '-').replace('/', '-')).name}"
        out = (
            request.out or model.run.path
        ) / f"{name}{f'-{model.run.path.name}' if request.out and runs[1:] else ''}.png"
        write_json(out.with_suffix(".json"), document_of(moved, plane, model, data.label))
        draw_plane(
            plane.names, (plane.first, plane.learned), moved.learned.names, out, *_words(caption, data.label, plane)
        )
        moves.append(moved)
        drawn.append(out)
    return FigureReport(moves_table(moves, data.label), tuple(drawn))


def check_installed() -> None:
    """Say what is missing before anything is loaded.

    Raises:
        MachineError: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise MachineError("--figures tsne needs scikit-learn, which is not installed.", "pip install scikit-learn")


def _moved(model: PromptModel, data: "DataChoice", folders: Folders, reporter: Reporter) -> Moved:
    first = first_prompts(model)
    began = named_prompts(replace(model, prompts=first), data, folders, reporter)
    learned = named_prompts(model, data, folders, reporter)
    return Moved(model.caption, began, learned, (first * model.prompts).sum(1).cpu())


def place(names: Tensor, first: Tensor, learned: Tensor) -> Plane:
    """Place unit-length features in a plane: (K, D) names, (k, D) prompts as they began and as they were learned.

    The same on every call: exact, started from the two main axes, seeded.
    """
    from sklearn import __version__ as version
    from sklearn.manifold import TSNE

    points = torch.cat([names, first, learned]).double().cpu().numpy()
    perplexity = min(MOST_NEIGHBOURS, (len(points) - 1) / 3)
    settings = {"perplexity": perplexity, "init": "pca", "method": "exact", "random_state": SEED}
    fit = TSNE(learning_rate="auto", **settings)
    found = fit.fit_transform(points).astype(np.float64)
    of_names, began, are = np.split(found, [len(names), len(names) + len(first)])
    facts = {
        **settings,
        "scikit_learn": version,
        "iterations": int(fit.n_iter_),
        "divergence": float(fit.kl_divergence_),
    }
    return Plane(of_names, began, are, facts)


def _words(caption: str, data: str, plane: Plane) -> tuple[str, str]:
    """Title, and what stands below."""
    title = f"{caption}: learned prompts among the class names of {data}"
    perplexity, count = plane.settings["perplexity"], len(plane.names) + len(plane.first) + len(plane.learned)
    below = f"t-SNE of all {count} text features together (cosine, perplexity {perplexity:.3g}, seed {SEED})"
    return title, f"{below}: a name stands at the same place in both panels."


def document_of(moved: Moved, plane: Plane, model: PromptModel, data: str) -> dict[str, Any]:
    """Return coordinates and settings as plain JSON values."""

    def plain(points: NDArray[np.float64]) -> list[list[float]]:
        return points.round(DIGITS).tolist()

    return {
        "schema": SCHEMA,
        "kind": KIND,
        "run": str(model.run.path),
        "data": data,
        "created": now(),
        "command": typed_command(),
        "templates": list(model.method.config.prompt_templates),
        "tsne": plane.settings,
        "names": list(moved.learned.names),
        "points": {"names": plain(plane.names), "first": plain(plane.first), "learned": plain(plane.learned)},
        "prompts": moves_table([moved], data).records(),
    }


def moves_table(models: Sequence[Moved], data: str) -> Table:
    """Make a table: for each prompt the name that it began near to, that it is nearest to, and how far it moved."""
    several = len(models) > 1
    columns = (
        *([Column("model", "model")] if several else []),
        Column("prompt", "prompt", "count"),
        Column("began", "began near"),
        Column("began_cosine", "cos", "number", decimals=2),
        Column("nearest", "is near"),
        Column("cosine", "cos", "number", decimals=2),
        Column("kept", "cos with its beginning", "number", decimals=2),
    )
    rows = []
    for moved in models:
        for prompt, kept in enumerate(moved.kept.tolist()):
            ends = (*moved.first.nearest(prompt, 1)[0], *moved.learned.nearest(prompt, 1)[0])
            head = (moved.caption, prompt) if several else (prompt,)
            rows.append(tuple(Cell(value) for value in (*head, *ends, kept)))
    notes = ("Cosines of text features, in the sentence of the prompts; a prompt begins as words drawn at random.",)
    return Table(f"Learned prompts and class names of {data}", columns, tuple(rows), notes)
