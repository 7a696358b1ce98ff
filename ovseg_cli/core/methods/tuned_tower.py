"""An image tower that is tuned while the CLIP stays as it is: what is frozen in it are the CLIP's very tensors.

MAFT and PixelCLIP train some weights of CLIP's image tower and need the others once, not twice: a `twin` shares them.
A run keeps the tower's own weights alone.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from ovseg_cli.core.errors import DataError


def twin(visual: nn.Module, own: Sequence[str]) -> nn.Module:
    """Copy a tower so that only the weights named in `own` are new; the others are the same tensors."""
    shared = {id(p): p for name, p in visual.named_parameters() if name not in own}
    return deepcopy(visual, shared)


def owned(tower: nn.Module, visual: nn.Module) -> set[str]:
    """Return the names of a twin's weights that are not the CLIP's own tensors."""
    frozen = dict(visual.named_parameters())
    return {name for name, parameter in tower.named_parameters() if parameter is not frozen[name]}


def own(tower: nn.Module, visual: nn.Module, names: Sequence[str]) -> None:
    """Give a twin copies of weights that it shares with the CLIP so far."""
    for name in set(names) - owned(tower, visual):
        module, _, last = name.rpartition(".")
        parent = tower.get_submodule(module)
        setattr(parent, last, nn.Parameter(getattr(parent, last).detach().clone()))


def tower_state(tower: nn.Module, visual: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Return the weights that are a twin's own, under a prefix."""
    names = owned(tower, visual)
    return {prefix + name: tensor for name, tensor in tower.named_parameters() if name in names}


def load_tower(
    tower: nn.Module, visual: nn.Module, prefix: str, state: Mapping[str, Tensor], method: str, where: str
) -> None:
    """Load what `tower_state` returned, or any further weights of the tower, as official checkpoints hold them.

    A frozen weight that equals the CLIP's stays shared with it.

    Args:
        tower: A twin of `visual`.
        visual: The CLIP's image tower.
        prefix: Of the names in `state`; all of its names have it.
        state: Weights by name.
        method: For messages.
        where: The file, for messages.

    Raises:
        DataError: Names or shapes differ; the first difference is named.
    """
    frozen = {prefix + name: tensor for name, tensor in visual.named_parameters()}
    if missing := {prefix + name for name in owned(tower, visual)} - state.keys():
        raise DataError(f"{where}: lacks weight '{min(missing)}' of {method}.", "Train or convert it anew.")
    if unknown := state.keys() - frozen.keys():
        raise DataError(f"{where}: has an unknown weight '{min(unknown)}' of {method}.", "Train or convert it anew.")
    for name, tensor in state.items():
        if tensor.shape != frozen[name].shape:
            shapes = f"{tuple(tensor.shape)}, this CLIP's is {tuple(frozen[name].shape)}"
            raise DataError(f"{where}: weight '{name}' is {shapes}.", "Use the CLIP that it was made from: --clip")
    changed = [name for name, tensor in state.items() if not _equal(tensor, frozen[name])]
    own(tower, visual, [name.removeprefix(prefix) for name in changed])
    mine = tower_state(tower, visual, prefix)
    with torch.no_grad():
        for name in mine.keys() & state.keys():
            mine[name].copy_(state[name])


def _equal(loaded: Tensor, frozen: Tensor) -> bool:
    return bool(torch.equal(loaded.to(frozen.device, frozen.dtype), frozen))
