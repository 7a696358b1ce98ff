"""How large is the learning rate at a step? Pure functions of the step, so that nothing has to be saved to resume."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Factor on every parameter group's own learning rate.

    Attributes:
        total: Steps in all.
        kind: "constant", "cosine" or "poly".
        warmup: Steps of linear rise from `warmup_start`; 0 is none.
        warmup_start: Factor at step 0 when there is a warm-up.
        final: Factor that remains at `total` (cosine and poly).
        power: Exponent of "poly".

    Source: "cosine" falls over the steps after the warm-up, as open_clip's. "poly" falls over all steps and the warm-up
    multiplies it, as in detectron2 and mmcv, which the papers use.
    """

    total: int
    kind: Literal["constant", "cosine", "poly"] = "constant"
    warmup: int = 0
    warmup_start: float = 0.0
    final: float = 0.0
    power: float = 0.9

    def factor(self, step: int) -> float:
        """Return the factor for the update that follows after `step` updates, step from 0 to total."""
        rise = 1.0
        if step < self.warmup:
            rise = self.warmup_start + (1.0 - self.warmup_start) * step / self.warmup
        return rise * self._fall(step)

    def _fall(self, step: int) -> float:
        if self.kind == "cosine":
            done = min(1.0, max(0, step - self.warmup) / max(1, self.total - self.warmup))
            return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))
        if self.kind == "poly":
            left = max(0.0, 1.0 - step / max(1, self.total))
            return self.final + (1.0 - self.final) * left**self.power
        return 1.0
