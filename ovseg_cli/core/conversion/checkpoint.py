"""What does a foreign checkpoint hold? Its tensors by name, read without running any code from the file."""

import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.files import sha256_file

WRAPPERS = ("model", "state_dict")
"""Entries under which training programs keep the weights, beside optimizer and counters."""


@dataclass(frozen=True)
class Checkpoint:
    """One file.

    Attributes:
        path: Where it lies.
        tensors: By name, without a `module.` prefix; floating ones in float32.
        beside: Entries that are no weights of the model, by name.
        digest: SHA-256 of the file.
        classes: Names of the data set's classes in order, where the file holds them (mmcv: `meta`, CLASSES).
    """

    path: Path
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    digest: str
    classes: tuple[str, ...] | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint: safetensors, or torch's own form with weights alone; bare, or under one of `WRAPPERS`.

    Raises:
        UsageError: The file would run code when read, or holds no tensors by name.
        MachineError: There is no such file, or it is cut off or of another kind.
    """
    if not path.is_file():
        raise MachineError(f"{path}: there is no such file.", "Check the path.")
    document = _read(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path}: holds a {type(document).__name__}, no weights by name.", "Pass a checkpoint.")
    wrapper = next((name for name in WRAPPERS if isinstance(document.get(name), dict)), None)
    state = document if wrapper is None else document[wrapper]
    classes = None if wrapper is None else _classes(document.get("meta"))
    read = {wrapper, "meta"} if classes else {wrapper}
    others = [] if wrapper is None else [str(key) for key in document if key not in read]
    others += [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            name = str(key).removeprefix("module.")
            if name in tensors:
                raise UsageError(f"{path}: holds '{name}' twice, with and without 'module.'.", "Remove one of them.")
            tensors[name] = value.float() if value.is_floating_point() else value
    if not tensors:
        raise UsageError(f"{path}: holds no tensors by name.", "Pass a checkpoint of a whole model.")
    return Checkpoint(path, tensors, tuple(others), sha256_file(path), classes)


def _classes(meta: Any) -> tuple[str, ...] | None:
    names = meta.get("CLASSES") if isinstance(meta, dict) else None
    is_list = isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if names and is_list else None


def _read(path: Path) -> Any:
    from safetensors.torch import load_file

    is_safe = path.suffix == ".safetensors"
    if not is_safe and not _is_pickle(path):
        raise _broken(path, "it is no file of torch")
    try:
        if is_safe:
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol
            with torch.serialization.safe_globals(_numbers()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path}: is refused, since reading it would run code from it ({_reason(error)}).",
            "Where you trust it, load it elsewhere and save its state dict alone, or as safetensors.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a broken pickle makes torch's reader fail in many ways
        raise _broken(path, _first_line(error)) from error


def _numbers() -> list[Any]:
    """Return what a single number of numpy is read by: mmcv keeps its best score as one; it runs no code."""
    import numpy as np
    from numpy.dtypes import Float32DType, Float64DType, Int64DType

    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    old, new = "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"
    return [(scalar, old), (scalar, new), np.dtype, Float32DType, Float64DType, Int64DType]


def _is_pickle(path: Path) -> bool:
    """Whether the file has the form of a pickle, bare or in torch's archive."""
    with open(path, "rb") as stream:
        return zipfile.is_zipfile(path) or stream.read(1) == b"\x80"


def _broken(path: Path, why: str) -> MachineError:
    return MachineError(
        f"{path}: cannot be read as a checkpoint; it is cut off or of another kind ({why}).",
        "Download it again, or pass another file.",
    )


def _reason(error: Exception) -> str:
    """Name what the file asks for: torch's own explanation is a page long."""
    found = re.search(r"GLOBAL:? (?:GLOBAL )?(\S+)", str(error))
    return f"it asks for {found[1]}" if found else "it holds more than weights"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
