"""How the file of some CLIP weights is read and copied into a model: open_clip's form, OpenAI's form, safetensors.

Nothing here runs code from a file: safetensors hold only tensors, other files are read with `weights_only=True`, and
OpenAI's own archives (TorchScript) give only their tensors.
"""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg_cli.core.clip.hub import first_line
from ovseg_cli.core.errors import MachineError, UsageError, nearest

_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def model_config(architecture: str) -> dict[str, Any]:
    """Return open_clip's configuration of an architecture.

    Raises:
        UsageError: open_clip does not know the name.
        MachineError: The name looks like a path and there is nothing.
    """
    import open_clip

    name = architecture.replace("/", "-")
    if name in open_clip.list_models():
        return open_clip.get_model_config(name)
    if "/" in architecture and ":" not in architecture:
        raise MachineError(f"--clip {architecture}: there is no such file or folder.", "Check the path.")
    hit = nearest(architecture, [*open_clip.list_models(), "toy-clip"])
    examples = (
        "Known are open_clip's architectures, such as ViT-B-16, ViT-L-14-336 or convnext_base_w_320, and toy-clip."
    )
    raise UsageError(f"--clip: unknown CLIP '{architecture}'.", f"Did you mean '{hit}'?" if hit else examples)


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read the tensors of a checkpoint.

    Args:
        path: safetensors, a state dict saved by torch (bare or under "state_dict" / "model"), or OpenAI's archive.

    Returns:
        Tensors by name without a `module.` prefix, and whether the file is in OpenAI's own form (its weights were
        trained with QuickGELU).

    Raises:
        MachineError: The file is missing, cut off or of another kind.
        UsageError: The file holds code or no state dict.
    """
    if not path.is_file():
        raise MachineError(f"{path}: there is no such file.", "Check the path given to --clip or --pretrained.")
    state, archive = _read_file(path)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path}: holds no state dict of tensors.", "Pass the file of a CLIP checkpoint.")
    state = {str(k).removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}
    is_openai = archive or any(key in state for key in _OPENAI_EXTRAS)
    return {k: v for k, v in state.items() if k not in _OPENAI_EXTRAS}, is_openai


def _read_file(path: Path) -> tuple[Any, bool]:
    """Return the content and whether it was a TorchScript archive."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path), False
        if _is_script(path):
            return _read_script(path), True
        return torch.load(path, map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path}: is refused, since reading it would run code ({first_line(error)}).",
            "Save its state dict alone, or as safetensors.",
        ) from error
    except Exception as error:
        raise MachineError(
            f"{path}: cannot be read as weights; the file is cut off or of another kind ({first_line(error)}).",
            "Download it again, or pass another file.",
        ) from error


def _read_script(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():  # torch calls the whole format outdated; OpenAI's files will not change
        warnings.simplefilter("ignore", FutureWarning)
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def load_into(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Copy tensors into a CLIP; all names and shapes must agree.

    Args:
        module: open_clip model.
        state: Tensors by name, of any floating type.
        what: File and architecture, for the message.

    Raises:
        UsageError: The weights belong to another architecture; names the first entries that differ.
    """
    state = _rename(module, state)
    own = module.state_dict()
    missing = [k for k in own if k not in state]
    extra = [k for k in state if k not in own]
    differ = [f"{k} is {_shape(state[k])}, not {_shape(own[k])}" for k in own if k in state and _odd(own[k], state[k])]
    if missing or extra or differ:
        lines = differ[:2] + [f"{k} is missing" for k in missing[:2]] + [f"{k} is unknown" for k in extra[:2]]
        raise UsageError(
            f"{what}: these are weights of another architecture ({'; '.join(lines)}; "
            f"{len(differ) + len(missing) + len(extra)} entries differ).",
            "Choose the architecture that they were made for with --clip.",
        )
    module.load_state_dict({k: v.reshape(own[k].shape).to(own[k].dtype) for k, v in state.items()})


def _rename(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(module, dict(state))
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    unused = ("attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids")
    own = module.state_dict()
    return {k: v for k, v in state.items() if k not in unused or k in own}


def _odd(own: Tensor, other: Tensor) -> bool:
    return own.shape != other.shape and not (own.numel() == other.numel() == 1)


def _shape(tensor: Tensor) -> str:
    return "×".join(str(n) for n in tensor.shape) or "a scalar"
