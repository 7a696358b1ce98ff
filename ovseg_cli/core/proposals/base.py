"""The contract of a proposal generator: one config, one verb. Imports no torch, so that settings are checked at once.

A generator file opens with its source, what it needs and where it departs from its source; then its config model with
one sentence a field; then the class, which imports torch and whatever else is heavy inside its methods, or keeps its
network in a file of its own. `registry.PROPOSALS` finds the class by name.
"""

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ovseg_cli.core.files import digest_of
from ovseg_cli.core.reporter import Reporter, Silent

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals


class GeneratorConfig(BaseModel):
    """Settings that every generator shares. Unknown keys are refused; errors name the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_masks: int = Field(default=100, ge=1, description="At most so many masks a picture; the best scores are kept.")


class ProposalGenerator(ABC):
    """Makes class-agnostic masks of one picture at a time.

    Class attributes are what `ovseg list proposals` and `ovseg show` print.

    Attributes:
        name: As typed.
        title: As printed in papers.
        source: Paper or program that it follows.
        Config: Its settings.
        sources: Setting → where its default comes from, in words ("paper: §3.2", "code: …", "ours: why").
        needs_labels: Whether it is given the label map (only studies with an oracle do).
        needs_weights: Whether building it reads weights; their fingerprint then belongs to the cache's key.
        reads_originals: Whether nothing is generated, but masks are read that the data set itself holds.
        version: Raised whenever the same settings give other masks than before, so that old caches are not mixed in.

    Args:
        config: Settings; None takes the defaults.
        device: Where a network runs.
        reporter: Receives messages.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    Config: ClassVar[type[GeneratorConfig]] = GeneratorConfig
    sources: ClassVar[dict[str, str]] = {}
    needs_labels: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
    reads_originals: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __init__(self, config: GeneratorConfig | None = None, device: str = "cpu", reporter: Reporter | None = None):
        self.config = config or self.Config()
        self.device = device
        self.reporter = reporter or Silent()

    @abstractmethod
    def generate(self, image: "Tensor", label: "Tensor | None" = None) -> "Proposals":
        """Make the masks of one picture: a pure function of its arguments and the settings.

        Args:
            image: (3, H, W) uint8 RGB, on the CPU.
            label: (H, W) int64 train ids, -1 where no class is known or may be seen; given if `needs_labels`.

        Returns:
            0 to `max_masks` masks on the CPU, best score first, bool (H, W) or soft uint8 (h, w).
        """

    @property
    def weights(self) -> str | None:
        """Fingerprint of the weights, None where there are none."""
        return None

    @property
    def vocabulary(self) -> str | None:
        """Fingerprint of the names that the masks depend on, None where they depend on none."""
        return None

    @property
    def digest(self) -> str:
        """Fingerprint of all that the masks of a picture depend on but the picture."""
        return settings_digest(type(self), self.config, self.weights, self.vocabulary)


def settings_digest(
    generator: type[ProposalGenerator],
    config: GeneratorConfig,
    weights: str | None = None,
    vocabulary: str | None = None,
) -> str:
    """Return `ProposalGenerator.digest` of a generator that need not be built."""
    settings = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return digest_of(["proposals-1", generator.name, str(generator.version), settings, weights or "", vocabulary or ""])
