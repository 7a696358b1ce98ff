"""Masks that the data set itself holds (SA-1B), read where they lie.

Source: Segment Anything (Kirillov et al., ICCV 2023), whose data engine drew about 100 masks a picture; PixelCLIP is
trained on them. Needs a data set that was prepared with its masks: `ovseg prepare sa-1b --source DIR` with the official
tar files, which stay packed. Nothing is generated, decoded or copied: a picture's masks are read from its JSON file
when they are asked for, checked, and go on as run lengths. A score is SA-1B's `predicted_iou`.

PixelCLIP halves pictures and masks beforehand, since decoding masks dominates its loading; maps of regions (regions.py)
make that unnecessary (benchmarks/sa1b.py).
"""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.files import make_folder, write_json
from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.proposals.filling import Filled
    from ovseg_cli.core.proposals.request import ProposePlan
    from ovseg_cli.core.proposals.store import ProposalStore
    from ovseg_cli.core.reporter import Reporter
    from ovseg_cli.core.runtime import Folders
    from ovseg_cli.core.types import Proposals

LOOKED_AT = 100
"""Pictures whose masks are read at once, spread over the subset, so that what is wrong everywhere shows early.
`--limit N` looks at the first N, `--force` at all."""


class AnnotationsConfig(GeneratorConfig):
    """Settings of the masks that a data set holds."""

    max_masks: int = Field(default=1000, ge=1, description="At most so many masks a picture; the best scores are kept.")


class Annotations(ProposalGenerator):
    """The data set's own masks."""

    name: ClassVar[str] = "annotations"
    title: ClassVar[str] = "the data set's own masks (SA-1B)"
    source: ClassVar[str] = "Segment Anything, Kirillov et al., ICCV 2023"
    Config = AnnotationsConfig
    sources: ClassVar[dict[str, str]] = {"max_masks": "ours: no picture of SA-1B has as many; PixelCLIP takes all"}
    reads_originals: ClassVar[bool] = True

    def generate(self, image: "Tensor", label: "Tensor | None" = None) -> "Proposals":
        """Refuse: these masks belong to the pictures of a data set, and cannot be made for another.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "annotations are masks that a data set holds; they cannot be made for other pictures.",
            "Choose a generator: ovseg list proposals",
        )


def open_annotations(plan: "ProposePlan", folders: "Folders", reporter: "Reporter") -> "tuple[ProposalStore, Filled]":
    """Begin a cache that reads a data set's own masks, and look at some of them.

    Raises:
        DataError: The data holds no masks, or some that are looked at are broken.
        MachineError: The folder cannot be written.
    """
    from ovseg_cli.core.proposals.filling import Filled
    from ovseg_cli.core.proposals.store import MANIFEST, ORIGINALS, SCHEMA, ProposalStore

    pictures = plan.pictures(folders)
    if not pictures.has_masks:
        raise DataError(
            f"{plan.data.spec.name}, subset '{pictures.name}', holds no masks of its own, which annotations reads.",
            "Make some with a generator: ovseg list proposals",
        )
    folder = make_folder(plan.folder(folders))
    manifest = {"schema": SCHEMA, "kind": "ovseg-proposals", "reads": ORIGINALS, **plan.key(pictures, None, None)}
    make_folder(folder / "entries")
    write_json(folder / MANIFEST, manifest)
    store = ProposalStore.open(folder)
    chosen, masks = _looked_at(pictures.names, plan), 0
    for name in reporter.track(chosen, f"look at masks of {plan.data.spec.name} {pictures.name}", len(chosen)):
        masks += len(store.read_entry(name).scores)
    reporter.say(f"looked at {masks:,} masks of {len(chosen):,} pictures: all are whole")
    return store, Filled(0, len(pictures), 0)


def _looked_at(names: list[str], plan: "ProposePlan") -> list[str]:
    if plan.request.limit:
        return names[: plan.request.limit]
    return names if plan.request.force else names[:: max(1, len(names) // LOOKED_AT)]
