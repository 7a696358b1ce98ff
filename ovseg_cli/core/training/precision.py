"""In which arithmetic, and with which attention kernel, does a training step run on this device?"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ovseg_cli.core.errors import MachineError


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return float32, bfloat16 or float16.

    Args:
        wanted: One of these, or "auto": bfloat16 where the device computes it in hardware, else float32.
        device: Where the step runs.

    Raises:
        MachineError: bfloat16 is wanted on a GPU that has none, or float16 on the CPU.
    """
    if wanted == "float32":
        return torch.float32
    if wanted == "float16":
        if device.type != "cuda":
            offer = "Use --set precision=bfloat16 or precision=float32."
            raise MachineError("float16 is for GPUs: on the CPU it is slow and overflows.", offer)
        return torch.float16
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bfloat16" and not fast:
            raise MachineError("this GPU has no bfloat16.", "Use --set precision=float32.")
    else:
        fast = any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if fast or wanted == "bfloat16" else torch.float32


@contextmanager
def step_context(device: torch.device) -> Iterator[None]:
    """Wrap forward and backward: on the CPU attention runs as plain matrix products.

    The fused CPU kernel's backward took more than half of a step with small heads (444 against 279 images a second).
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with ExitStack() as stack:
        if device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def forward_context(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast for the forward pass; does nothing in float32."""
    is_on = dtype != torch.float32
    return torch.autocast(device.type, dtype if is_on else torch.bfloat16, enabled=is_on)
