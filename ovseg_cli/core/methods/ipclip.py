"""IP-CLIP, frozen: the image encoder of MAFT (Jiao et al., NeurIPS 2023) with CLIP's own weights.

The baseline that MAFT starts from: one pass names all masks of a host or a generator, and hardly notices what a mask
leaves out. Class tokens are masked from the start layer on (core/clip/masked.py). Trained: nothing. Frozen: everything.

The MAFT repository calls this "FreeSeg" in its tables, since its frozen baseline reads masks this way; the paper of
FreeSeg itself reads crops. The later the start layer, the less a mask matters.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.masked_clip import MaskedClipConfig, MaskedClipMethod
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.types import TextFeatures, TrainBatch


class IpClipConfig(MaskedClipConfig):
    """Settings of frozen IP-CLIP; all are shared with MAFT."""


class IpClip(MaskedClipMethod):
    """Frozen CLIP, naming masks through masked class tokens."""

    name = "ipclip"
    title = "IP-CLIP"
    paper = "Jiao et al., NeurIPS 2023, frozen"
    trains = "nothing"
    Config = IpClipConfig
    Training = None  # type: ignore[assignment]
    config: IpClipConfig

    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        """Refuse: nothing is trained."""
        self._refuse()

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: Mapping[str, float]) -> dict[str, Tensor]:
        """Refuse: nothing is trained."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError("ipclip is frozen, there is nothing to train.", "Its tuned form: ovseg train maft")
