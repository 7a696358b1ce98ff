"""What `ovseg convert` is asked, and what became of a checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.conversion.checkpoint import Checkpoint
from ovseg_cli.core.conversion.choices import Choice
from ovseg_cli.core.conversion.importer import Imported
from ovseg_cli.core.conversion.ledger import Row
from ovseg_cli.core.methods.build import DEFAULT_CLIP

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice


@dataclass(frozen=True)
class ConvertRequest:
    """Options of `ovseg convert`, as typed.

    Attributes:
        checkpoint: The file.
        method: A key of `IMPORTERS`.
        settings: What `--config` and `--set` said; tables `clip`, `generator` and `host`, and `templates` among them.
        data: What it was trained on, `NAME[:CLASS_SPLIT]`; None: not said.
        unseen: A class split of the user's own.
        clip, pretrained: For checkpoints that hold no CLIP, or no text tower.
        out: Folder of the run; None: a new one below the runs.
        text_features: File of text features to check, FILE.npy or FILE.npz:KEY.
    """

    checkpoint: Path
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    data: str | None = None
    unseen: str | None = None
    clip: str | None = None
    pretrained: str | None = None
    out: Path | None = None
    text_features: str | None = None

    @property
    def named_clip(self) -> tuple[str, str | None]:
        """Name and weights of the CLIP for checkpoints that hold none."""
        if self.clip is None:
            return DEFAULT_CLIP[0], self.pretrained or DEFAULT_CLIP[1]
        return self.clip, self.pretrained or (DEFAULT_CLIP[1] if self.clip == DEFAULT_CLIP[0] else None)


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint.

    Attributes:
        checkpoint: The file and its entries.
        imported: The method with its weights.
        rows: What became of the tensors.
        templates: Sentences that names are put into.
        templates_source: Where they come from.
        data: What it was trained on, or None.
        checks: What was found about the order of its classes, sentences.
    """

    checkpoint: Checkpoint
    imported: Imported
    rows: list[Row]
    templates: tuple[str, ...]
    templates_source: str
    data: "DataChoice | None"
    checks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it was trained on, `NAME:CLASS_SPLIT`, `NAME:none` for all classes of a data set; "" if not said."""
        return "" if self.data is None else self.data.label

    @property
    def is_label_free(self) -> bool:
        """Whether no label was read in its training, so that no class was seen."""
        method = self.imported.method
        return method.label_view(method.Training()).labelled == "none"

    @property
    def choices(self) -> list[Choice]:
        """Every value and its source."""
        return [*self.imported.choices, Choice("templates", list(self.templates), self.templates_source)]

    def document(self, run: Path | None) -> dict[str, Any]:
        """Return the account as plain data."""
        return {
            "schema": 1,
            "checkpoint": str(self.checkpoint.path),
            "sha256": self.checkpoint.digest,
            "method": self.imported.method.name,
            "run": None if run is None else str(run),
            "data": self.label or None,
            "training_classes": self.imported.training_classes,
            "training": self.imported.facts,
            "checks": list(self.checks),
            "tensors": len(self.checkpoint.tensors),
            "keys": [vars(row) for row in self.rows],
            "beside": list(self.checkpoint.beside),
            "settings": [vars(choice) for choice in self.choices],
        }
