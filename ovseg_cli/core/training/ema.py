"""A moving average of trained weights: kept beside them, saved with them, scored in their place."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """`average ← decay · average + (1 - decay) · weights` after each update, in float32.

    Averaged are the parameters that are trained; buffers stay the model's own.

    Args:
        module: Holds the parameters.
        decay: 0 < decay < 1.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone().float() for name, p in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of this step in."""
        average = list(self.average.values())
        weights = [p.detach().float() for p in self.trained.values()]
        torch._foreach_lerp_(average, weights, 1.0 - self.decay)

    @torch.no_grad()
    def put(self) -> None:
        """Copy the average into the module, for good."""
        for name, parameter in self.trained.items():
            parameter.copy_(self.average[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the module hold the average while the block runs."""
        own = {name: p.detach().clone() for name, p in self.trained.items()}
        self.put()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average, by name of the parameter."""
        return dict(self.average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved average; names and shapes must be the module's."""
        assert state.keys() == self.average.keys()
        for name, tensor in self.average.items():
            tensor.copy_(state[name])
