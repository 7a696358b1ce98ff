"""What the demo shows and what it was asked for. `ROWS` is the place for further methods: one line each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg_cli.core.evaluation.request import EvalRequest, resolve
from ovseg_cli.core.prediction.segmenter import Segmenter
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders, open_runtime

DATA = "toy:combo"
QUICK_IMAGES = 60
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


def segmenter_of(row: Row, clip: str, request: DemoRequest, reporter: Reporter) -> Segmenter:
    """The model of a row as it was scored: with the data set's own settings."""
    asked = EvalRequest(model=row.method, data=(DATA,), clip=clip, settings=row.settings, gpus=request.gpus)
    choice = resolve(asked, request.folders, reporter).models[0]
    return Segmenter.build(choice, open_runtime(request.gpus), request.folders.cache, reporter)
