"""Checkpoints that are whole or absent, and from which a run continues bit for bit.

One folder a step holds `weights.safetensors`, `state.pt` (optimizer, random states, position) and `checkpoint.json`
with the hashes of both. A folder is written under another name and renamed; the pointer `latest.json` comes last.
"""

import contextlib
import io
import os
import pickle
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg_cli.core.errors import DataError, OvsegError, UsageError
from ovseg_cli.core.files import explain_os_error, make_folder, read_json, sha256_file, write_bytes, write_json
from ovseg_cli.core.reporter import Reporter

SCHEMA = 2
POINTER = "latest.json"
_WEIGHTS, _STATE, _HEADER = "weights.safetensors", "state.pt", "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run continues from.

    Attributes:
        step: Updates done.
        weights: Tensors by name, in the precision of training.
        state: Optimizer, random states and whatever else the loop keeps: tensors, numbers, strings, lists, dicts.
    """

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint, move the pointer to it, remove all but the newest `keep`.

    Args:
        folder: `RUN/checkpoints`.
        checkpoint: What to write.
        keep: How many stay; at least 2, so that one that turns out broken has a predecessor.

    Raises:
        MachineError: The disk refuses; what was there before stays.
    """
    final = step_folder(make_folder(folder), checkpoint.step)
    part = folder / f".{final.name}.{os.getpid()}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _write_parts(part, checkpoint)
        if final.exists():  # the same step again: its content is the same, unless it was broken
            shutil.rmtree(final)
        os.replace(part, final)
    except OSError as error:
        raise explain_os_error(error, final) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    write_json(folder / POINTER, {"schema": SCHEMA, "step": checkpoint.step, "folder": final.name})
    past = [path for path in _steps(folder) if path.name <= final.name]
    for old in {*_steps(folder)} - {*past[: max(2, keep)]}:  # a later one is a future that was taken back
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write_parts(part: Path, checkpoint: Checkpoint) -> None:
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.weights.items()}
    state = io.BytesIO()
    torch.save(checkpoint.state, state)
    for name, content in ((_WEIGHTS, save(tensors, {"format": "pt"})), (_STATE, state.getvalue())):
        write_bytes(part / name, content)
    hashes = {name: sha256_file(part / name) for name in (_WEIGHTS, _STATE)}
    write_json(part / _HEADER, {"schema": SCHEMA, "step": checkpoint.step, "sha256": hashes})


def load_checkpoint(folder: Path, reporter: Reporter) -> Checkpoint:
    """Read the newest whole checkpoint; a broken one is named in a warning and its predecessor taken.

    Args:
        folder: `RUN/checkpoints`.
        reporter: Told what was broken.

    Raises:
        UsageError: There is none.
        DataError: All are broken, or were made by another version.
    """
    candidates = _candidates(folder)
    if not candidates:
        raise UsageError(f"{folder}: there is no checkpoint to resume from.", "Start the run without --resume.")
    reason = ""
    for path in candidates:
        try:
            return read_checkpoint(path)
        except (OvsegError, OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            reporter.warn(f"{path} is broken ({error}); the checkpoint before it is tried.")
            reason = str(error)
    raise DataError(f"{folder}: no checkpoint can be used ({reason}).", "Start the run anew, without --resume.")


def step_folder(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def has_checkpoint(folder: Path) -> bool:
    """Whether there is anything to resume from."""
    return bool(_steps(folder))


def _steps(folder: Path) -> list[Path]:
    """Folders of checkpoints, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def _candidates(folder: Path) -> list[Path]:
    """The one that the pointer names, then all older ones; without a readable pointer all, newest first."""
    steps = _steps(folder)
    with contextlib.suppress(OvsegError, KeyError, TypeError):
        named = read_json(folder / POINTER, "the pointer to the newest checkpoint")["folder"]
        return [path for path in steps if path.name <= named] or steps
    return steps


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint's folder; what is wrong with it is raised, most of it as DataError or OSError."""
    from safetensors.torch import load_file

    header = read_json(path / _HEADER, "a checkpoint's header")
    if header["schema"] != SCHEMA:
        raise DataError(f"it was made with checkpoint schema {header['schema']}, this ovseg reads {SCHEMA}")
    for name, expected in header["sha256"].items():
        if sha256_file(path / name) != expected:
            raise DataError(f"{name} is cut off or was changed")
    state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    return Checkpoint(int(header["step"]), load_file(path / _WEIGHTS), state)


def random_states() -> dict[str, Any]:
    """Return the states of all random generators (Python, numpy, torch, CUDA) as plain values and tensors."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],  # of this process's device
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Bring all random generators back to what `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0])
