"""Where masks come from beside a host: a generator that runs on each picture, or a cache of proposals.

Both make their masks of the picture as it is; here they are brought to the canvas of the method.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core import registry
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.build import check_settings
from ovseg_cli.core.methods.masked import Candidates, Canvas
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import Proposals, TextFeatures


class GeneratorSource:
    """Runs a generator on each picture."""

    def __init__(self, generator: ProposalGenerator):
        self.generator = generator

    @classmethod
    def make(
        cls, name: str, settings: Mapping[str, Any], device: torch.device | str, reporter: Reporter
    ) -> "GeneratorSource":
        """Build a generator by name.

        Raises:
            UsageError: There is no such generator or setting, or it needs labels, which pictures do not have.
            MachineError: Its weights are missing.
        """
        generator_class = registry.lookup(registry.PROPOSALS, "generator of proposals", name).load()
        if generator_class.needs_labels:
            raise DataError(
                f"{name}: these masks are made from labels, which a picture alone does not have.",
                f"Make them first (ovseg propose {name} --data D --subset val) and name the cache: --proposals FOLDER",
            )
        config = check_settings(generator_class.Config, settings, name)
        return cls(generator_class(config, str(device), reporter))

    @property
    def digest(self) -> str:
        """Fingerprint of the generator's settings and weights."""
        return self.generator.digest

    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        """Make the masks of canvases."""
        return [on_canvas(self.generator.generate(canvas.picture.cpu()), canvas) for canvas in canvases]


class StoreSource:
    """Looks proposals up by the pixels of the picture.

    Args:
        stores: Caches that are asked one after the other.
    """

    def __init__(self, stores: Sequence[ProposalStore]):
        self.stores = list(stores)

    @classmethod
    def open(cls, path: Path) -> "StoreSource":
        """Open the cache of one subset, or those of all subsets of one generator.

        Raises:
            DataError: There is none, or it is broken.
        """
        folders = [path] if (path / MANIFEST).is_file() else sorted(file.parent for file in path.glob(f"*/{MANIFEST}"))
        return cls([ProposalStore.open(folder) for folder in folders or [path]])

    @property
    def digest(self) -> str:
        """Fingerprint of the caches."""
        return digest_of(["store-source-1", *(store.digest for store in self.stores)])

    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        """Read the masks of canvases.

        Raises:
            DataError: A picture has no entry.
        """
        return [on_canvas(self._find(canvas.picture.cpu()), canvas) for canvas in canvases]

    def _find(self, picture: Tensor) -> Proposals:
        for store in self.stores[:-1]:
            try:
                return store.find(picture)
            except DataError:
                continue
        return self.stores[-1].find(picture)


def on_canvas(proposals: Proposals, canvas: Canvas) -> Candidates:
    """Bring masks of a picture to its canvas: bilinear, align_corners=False, zeros as padding."""
    masks = proposals.probabilities().to(canvas.image.device)
    (height, width), (h, w) = canvas.size, canvas.area
    if masks.shape[-2:] != (h, w):
        masks = F.interpolate(masks[:, None], (h, w), mode="bilinear", align_corners=False)[:, 0]
    return Candidates(F.pad(masks, (0, width - w, 0, height - h)))
