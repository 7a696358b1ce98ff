"""How do the micro-batches of a step become new weights, in one process or several?

The gradient of a step is the sum over its micro-batches and over the processes, as the loss terms are: each is divided
by normalisers of the whole step. DistributedDataParallel divides by the number of processes, so losses are multiplied
by it first.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.training.precision import choose_precision, forward_context, step_context
from ovseg_cli.core.training.stream import num_images, to_device
from ovseg_cli.core.training.task import LoopSettings, Task

SMALLEST_SCALE = 2.0**-10
"""Gradients that overflow float16 even when they are made smaller by this are broken, not large."""


class Losses(nn.Module):
    """A task's losses as a module, which is what DistributedDataParallel and torch.compile take.

    Args:
        task: Its `module` is the only child.
        dtype: Of autocast.
        device: Where the module lies.
    """

    def __init__(self, task: Task, dtype: torch.dtype, device: torch.device):
        super().__init__()
        self.module = task.module
        self._call, self.dtype, self.device = task.losses, dtype, device

    def forward(self, batch: Any, totals: dict[str, float]) -> dict[str, Tensor]:
        """Return the loss terms of a part; a part without any loss gives zeros that still have gradients."""
        with forward_context(self.device, self.dtype):
            terms = self._call(batch, totals)
        if not any(term.requires_grad for term in terms.values()):
            nothing = torch.stack([p.flatten()[0] for p in self.module.parameters() if p.requires_grad]).sum() * 0.0
            terms = {name: term + nothing for name, term in terms.items()}
        return terms


class Updater:
    """Makes updates.

    Args:
        task: What is trained; its module lies on the device already.
        settings: How.
        device: Where.
        group: The processes; all must make one.

    Attributes:
        optimizer: The task's.
        scaler: Magnifies the loss in float16, so that small gradients do not vanish; does nothing otherwise.

    Raises:
        MachineError: The precision is not this device's.
    """

    def __init__(self, task: Task, settings: LoopSettings, device: torch.device, group: Group):
        self.task, self.device, self.group = task, device, group
        self.is_compiled = settings.compile
        self.dtype = choose_precision(settings.precision, device)
        self.max_norm = settings.clip_grad_norm or math.inf
        self.optimizer = task.optimizer()
        self.base_rates = [float(g["lr"]) for g in self.optimizer.param_groups]
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        own = {id(p) for p in task.module.parameters()}
        assert all(id(p) in own for p in self.parameters), "the optimizer has a parameter that the module has not"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.losses: nn.Module = self._wrapped(Losses(task, self.dtype, device))
        self.names: list[str] = []

    def _wrapped(self, losses: nn.Module) -> nn.Module:
        if self.is_compiled:
            losses.compile()
        if self.group.world_size == 1:
            return losses
        return DistributedDataParallel(
            losses,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            # A part may have no loss for some of the weights. It also keeps the buckets as they are from the first step
            # on, so that a resumed run adds in the same order.
            find_unused_parameters=True,
        )

    @property
    def rates(self) -> list[float]:
        """Learning rate of each parameter group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def gradients(self, batches: Sequence[Any], factor: float, flags: dict[str, float]) -> dict[str, float]:
        """Set the learning rates and compute the gradients of a step.

        Args:
            batches: This process's micro-batches, in host memory.
            factor: Of the learning rates.
            flags: Numbers that are added over all processes on the way.

        Returns:
            The loss terms of the global batch; and, under names in brackets, the sums of the flags, "(images)" and
            "(gradient_norm)".
        """
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        self.task.before_step(batches, self.group.total)
        totals = self._totals(batches)
        with step_context(self.device):
            terms = [self._backward(batch, totals, i == len(batches) - 1) for i, batch in enumerate(batches)]
        if not self.names:
            self.names = sorted(set().union(*self.group.gather({name for part in terms for name in part})))
        assert all(part.keys() <= {*self.names} for part in terms), "a task's losses have the same names each time"
        values = torch.stack([torch.stack([part[n].double() for part in terms]).sum() for n in self.names])
        found = dict(zip(self.names, values.tolist(), strict=True))
        found["(images)"] = float(sum(num_images(batch) for batch in batches))
        found |= {f"({name})": value for name, value in flags.items()}
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        return {**self.group.sum(found), "(gradient_norm)": float(norm)}

    def _totals(self, batches: Sequence[Any]) -> dict[str, float]:
        totals: dict[str, float] = {}
        for batch in batches:
            for name, value in self.task.normalisers(batch).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        return self.group.sum(totals)

    def _backward(self, batch: Any, totals: dict[str, float], is_last: bool) -> dict[str, Tensor]:
        waits = not is_last and isinstance(self.losses, DistributedDataParallel)
        with self.losses.no_sync() if waits else nullcontext():  # type: ignore[operator]
            terms = self._forward(to_device(batch, self.device), totals)
            loss = torch.stack([term.float() for term in terms.values()]).sum() * self.group.world_size
            self.scaler.scale(loss).backward()
        return {name: term.detach() for name, term in terms.items()}

    def _forward(self, batch: Any, totals: dict[str, float]) -> dict[str, Tensor]:
        if not self.is_compiled:
            return self.losses(batch, totals)
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self.losses(batch, totals)
        except TorchDynamoException as error:
            first = str(error).strip().splitlines()[0]
            raise MachineError(
                f"{self.task.name}: torch.compile failed ({type(error).__name__}: {first}).", "Use --set compile=false."
            ) from error

    def step(self) -> bool:
        """Change the weights; False where float16 gradients overflowed, which only makes the next ones smaller."""
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return not self.scaler.is_enabled() or self.scaler.get_scale() >= before

    @property
    def may_overflow(self) -> bool:
        """Whether a gradient that is not finite can be met by magnifying less."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE

    def state_dict(self) -> dict[str, Any]:
        """Return what an update depends on beside weights and random states."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
