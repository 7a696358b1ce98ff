"""What the demo shows and what it was asked for. `ROWS` is the place for further methods: one line each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ovseg_cli.core.evaluation.request import EvalRequest, resolve
from ovseg_cli.core.prediction.segmenter import Segmenter
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import HOST
from ovseg_cli.core.runtime import Folders, open_runtime

DATA = "toy:combo"
QUICK_IMAGES = 60
TRAINING: dict[str, Any] = {}  # settings of the toy CLIPs beside their seed: none, the shipped one's recipe
HOSTS = ("freeseg", "zegformer", "zsseg")
MAFT: dict[str, Any] = {}  # settings of MAFT and its host step: none, the toy world's recipe
QUICK_MAFT: dict[str, Any] = {"host": {"iterations": 30}, "iterations": 15}
QUICK_ITERATIONS: dict[str, Any] = {"iterations": 15}
"""Under `--quick`: enough to see that everything runs, not enough to learn."""
ONE_STAGE = ("zegclip", "tagclip")
LABEL_FREE = "pixelclip"

Part = Literal["host", "frozen", "tuned"]


@dataclass(frozen=True)
class Row:
    """One line of the demo's table.

    Attributes:
        caption: As printed.
        method: Its method.
        settings: What differs from the method's defaults on the toy world.
        host: Host whose masks are named; None where a method needs none.
        trained: Name of the training that it comes from (`Job.name`); None for what needs none.
        part: Which of the models that come with a host: the host itself, frozen CLIP on its masks, or MAFT on them.
        drawn: Whether the comparison picture has a column for it.
    """

    caption: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    host: str | None = None
    trained: str | None = None
    part: Part | None = None
    drawn: bool = True


def host_rows(host: str) -> tuple[Row, ...]:
    """A host, frozen CLIP on its masks, and MAFT on the same masks."""
    title, drawn = METHODS[host].title, host == HOSTS[0]
    return (
        Row(title, host, host=host, trained=host, part="host", drawn=drawn),
        Row(f"IP-CLIP (frozen) on {title}", "ipclip", host=host, trained=host, part="frozen", drawn=drawn),
        Row(f"MAFT on {title}", "maft", host=host, trained=host, part="tuned", drawn=drawn),
    )


DENSE_ROWS = (
    Row("CLIP", "clip"),
    Row("MaskCLIP", "maskclip", {"variant": "original"}),
    Row("MaskCLIP, class residual", "maskclip", {"variant": "value-cls"}, drawn=False),
    *(Row(METHODS[name].title, name, drawn=False) for name in ("sclip", "clearclip", "naclip")),
)


ONE_STAGE_ROWS = tuple(Row(METHODS[name].title, name, trained=name) for name in ONE_STAGE)
LABEL_FREE_ROW = Row(f"{METHODS[LABEL_FREE].title} (no labels)", LABEL_FREE, trained=LABEL_FREE)
SAME_PATH = DENSE_ROWS[2]
"""CLIP read as PixelCLIP reads it, before it is trained."""


def rows_of(request: "DemoRequest") -> tuple[Row, ...]:
    """All rows of a demo: dense ones, those without labels, those of its hosts, one-stage methods."""
    without_labels = (LABEL_FREE_ROW,) if request.label_free else ()
    return (*DENSE_ROWS, *without_labels, *(row for host in request.hosts for row in host_rows(host)), *ONE_STAGE_ROWS)


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
    def hosts(self) -> tuple[str, ...]:
        """Hosts that are trained; `--quick` takes the first."""
        return HOSTS[:1] if self.quick else HOSTS

    @property
    def label_free(self) -> tuple[str, ...]:
        """Methods that are trained without labels; `--quick` leaves them out, whose masks have to be made first."""
        return () if self.quick else (LABEL_FREE,)

    @property
    def folders(self) -> Folders:
        """Data and runs of the demo lie in its own folder."""
        return Folders(self.out / "datasets", self.out / "runs")


@dataclass(frozen=True)
class Job:
    """One training of the demo.

    Attributes:
        name: The host of MAFT, or the method.
        method: What is trained.
        settings: What differs from the toy world's recipe.
    """

    name: str
    method: str
    settings: dict[str, Any]

    @property
    def host(self) -> str | None:
        """The host of MAFT; other methods have none."""
        return self.name if self.method == "maft" else None


def jobs_of(request: DemoRequest) -> tuple[Job, ...]:
    """All trainings of a demo for one CLIP."""
    tuned = QUICK_MAFT if request.quick else MAFT
    others = QUICK_ITERATIONS if request.quick else {}
    hosts = (Job(host, "maft", tuned) for host in request.hosts)
    return (*hosts, *(Job(name, name, others) for name in (*request.label_free, *ONE_STAGE)))


def eval_request(row: Row, clip: str, seed: int, tuned: Mapping[str, Path], request: DemoRequest) -> EvalRequest:
    """How a row is scored.

    Args:
        row: The row.
        clip: Its CLIP; runs bring theirs.
        seed: Seed of the CLIP and of what was trained with it.
        tuned: Name of a training → its finished run.
        request: What was asked of the demo.
    """
    model, settings, own_clip = row.method, dict(row.settings), False
    if row.trained is not None:
        run = tuned[row.trained]
        if row.part == "frozen":
            settings["proposals"] = str(run / HOST)
        else:
            model, own_clip = str(run / HOST if row.part == "host" else run), True
    return EvalRequest(
        model=model,
        data=(DATA,),
        clip=None if own_clip else clip,
        settings=settings,
        limit=QUICK_IMAGES if request.quick else None,
        gpus=request.gpus,
        seed=seed,
        force=True,  # plain CLIP may score below chance here: that is a finding of the demo, not a mistake
    )


def segmenter_of(row: Row, clip: str, tuned: Mapping[str, Path], request: DemoRequest, reporter: Reporter) -> Segmenter:
    """The model of a row as it was scored: with the data set's own settings."""
    choice = resolve(eval_request(row, clip, 0, tuned, request), request.folders, reporter).models[0]
    return Segmenter.build(choice, open_runtime(request.gpus), request.folders.cache, reporter)
