"""Masks that DINO makes anew for every training example, as PixelCLIP was published, instead of a cache.

The network sees the weak view itself: cropped, mirrored, its colours changed. k-means starts from a draw that depends
on the seed and the pixels alone, so that a step's masks are the same whatever the processes, and after a resume.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.methods.build import check_settings
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.proposals.dino import Dino, DinoConfig
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import TrainBatch


class LiveClusters:
    """Asks a generator whose masks do not overlap for the masks of training batches.

    Args:
        generator: On its device.
    """

    def __init__(self, generator: ProposalGenerator):
        self.generator = generator

    @classmethod
    def open(cls, settings: Mapping[str, Any], device: torch.device | str, reporter: Reporter) -> "LiveClusters":
        """Load DINO with settings of the generator.

        Raises:
            UsageError: A setting is unknown or does not fit.
            MachineError: The weights are missing.
        """
        with _settings_as_typed():
            return cls(Dino(cluster_settings(settings), str(device), reporter))

    @property
    def digest(self) -> str:
        """Fingerprint of network and settings."""
        return self.generator.digest

    @torch.no_grad()
    def of(self, batch: TrainBatch) -> list[dict[str, Tensor]]:
        """Return the masks of each example, in the form that `MaskCrops.of` takes; empty outside the example.

        Args:
            batch: "images" (B, 3, H, W) uint8 in host memory, and "areas" (B, 2).

        Raises:
            UsageError: An example is smaller than a patch of the network.
        """
        pairs = zip(batch["images"], batch["areas"].tolist(), strict=True)
        with _settings_as_typed():
            return [self._masks(image, height, width) for image, (height, width) in pairs]

    def _masks(self, image: Tensor, height: int, width: int) -> dict[str, Tensor]:
        masks = self.generator.generate(image[:, :height, :width].contiguous()).masks
        ids = torch.zeros(image.shape[1:], dtype=torch.int32)
        numbers = torch.arange(1, len(masks) + 1, dtype=torch.int32)
        ids[:height, :width] = torch.einsum("nhw,n->hw", masks.to(torch.int32), numbers)
        table = torch.cat([torch.zeros(len(masks), 1), torch.eye(len(masks))], dim=1)
        return {"ids": ids, "table": table.to(torch.uint8)}


@contextmanager
def _settings_as_typed() -> Iterator[None]:
    """Let the generator's advice name its settings as a training calls them."""
    try:
        yield
    except OvsegError as error:
        error.mend = error.mend and error.mend.replace("--set ", "--set proposal_settings.")
        raise


def cluster_settings(settings: Mapping[str, Any]) -> DinoConfig:
    """Check settings of the generator.

    Raises:
        UsageError: One is unknown or does not fit.
    """
    config: DinoConfig = check_settings(DinoConfig, settings, "proposals = live (dino)")
    return config
