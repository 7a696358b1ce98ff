"""The file form of a CLIP that describes itself: its weights with everything needed to run them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.files import write_bytes

TOY = "toy-clip"
_KEYS = ("open_clip_config", "tokenizer", "preprocess", "recipe")


@dataclass(frozen=True)
class Saved:
    """What such a file holds: tensors by name, and the four documents of its header."""

    state: dict[str, Tensor]
    config: dict[str, Any]
    tokenizer: dict[str, Any]
    preprocess: dict[str, Any]
    recipe: dict[str, Any]


def save_clip(
    path: Path,
    model: nn.Module,
    config: dict[str, Any],
    tokenizer: dict[str, Any],
    preprocess: dict[str, Any],
    recipe: dict[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a CLIP as one safetensors file that describes itself.

    Args:
        path: Where to; a run keeps it as `RUN/clip.safetensors`.
        model: open_clip model (not a ClipModel).
        config: open_clip's model configuration: embed_dim, vision_cfg, text_cfg, quick_gelu.
        tokenizer: `to_json()` of the tokenizer.
        preprocess: "mean" and "std" of RGB values between 0 and 1; optionally "dense_side" (`ClipModel.dense_side`).
        recipe: How the weights were made.
        dtype: Precision of the weights in the file.

    Raises:
        MachineError: The disk refuses.
    """
    from safetensors.torch import save

    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    documents = (config, tokenizer, preprocess, recipe)
    metadata = {key: json.dumps(document) for key, document in zip(_KEYS, documents, strict=True)}
    write_bytes(Path(path), save(tensors, {"format": "pt", "schema": "ovseg-clip-1", **metadata}))


def read_saved(path: Path, name: str) -> Saved:
    """Read such a file.

    Args:
        path: The file.
        name: What the user called it, for the message.

    Raises:
        UsageError: The file does not describe itself.
        MachineError: It is missing or broken.
    """
    from safetensors import SafetensorError, safe_open

    make = "Make it with 'ovseg train toy-clip'" if name == TOY else "Check the path"
    mend = f"{make}, or give an open_clip architecture to --clip."
    if not path.is_file():
        raise MachineError(f"{path}: there is no such file, so '{name}' cannot be loaded.", mend)
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{path}: only safetensors describe themselves, so the architecture is unknown.",
            f"Name it: --clip ViT-B-16 --pretrained {path}",
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
        return Saved(state, *(json.loads(metadata[key]) for key in _KEYS))
    except KeyError as error:
        raise UsageError(
            f"{path}: does not describe itself ({error} is not in its header), so the architecture is unknown.",
            f"Name it: --clip ViT-B-16 --pretrained {path}",
        ) from error
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise MachineError(f"{path}: cannot be read; it is cut off or no safetensors file ({error}).", mend) from error
