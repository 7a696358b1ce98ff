"""Labels in MATLAB files: one matrix of whole numbers, by itself or in a structure."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ovseg_cli.core.data.images import MAX_PIXELS
from ovseg_cli.core.errors import DataError

_HDF5 = "MATLAB 7.3"
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError, struct.error, zlib.error)
_AGAIN = "Fetch it again."


def load_matrix(path: Path, variable: str) -> np.ndarray:
    """Read a matrix of class ids.

    Args:
        path: File of MATLAB 4 to 7.2.
        variable: Its name; "GTcls.Segmentation" is the field of a structure.

    Returns:
        (H, W) of its own integer type; whole numbers of a floating type as int64.

    Raises:
        DataError: It is missing, damaged, of MATLAB 7.3, has no such variable, or that is no such matrix.
    """
    name, *fields = variable.split(".")
    value = _load(path, name)
    for i, field in enumerate(fields):
        value = _field(path, value, field, ".".join([name, *fields[:i]]))
    return _matrix(path, value, variable)


def _load(path: Path, name: str) -> Any:
    from scipy.io import loadmat, whosmat

    try:
        with open(path, "rb") as stream:
            if stream.read(len(_HDF5)).decode("latin-1") == _HDF5:
                what = f"{path}: this file is of MATLAB 7.3 (HDF5), which is not read."
                raise DataError(what, "Save it in MATLAB again with save(..., '-v7').")
        shapes = {known: shape for known, shape, _ in whosmat(str(path))}
        if name not in shapes:
            raise _no_variable(path, name, sorted(shapes), "variable")
        if np.prod(shapes[name], dtype=float) > MAX_PIXELS:
            size = " x ".join(map(str, shapes[name]))
            raise DataError(f"{path}: '{name}' is {size}, more than {MAX_PIXELS:,} values.", "Make it smaller first.")
        return loadmat(str(path), variable_names=[name])[name]
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: the .mat file cannot be read ({error.strerror or error}).", _AGAIN) from error
    except NotImplementedError as error:
        raise DataError(f"{path}: the .mat file is of a form that is not read ({error}).", "Save it again.") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: the .mat file is cut off or damaged ({str(error)[:120]}).", _AGAIN) from error


def _field(path: Path, value: Any, field: str, parent: str) -> Any:
    """Return a field of a structure, which scipy reads as an array of one record."""
    names = getattr(getattr(value, "dtype", None), "names", None) or ()
    if field not in names or value.size != 1:
        raise _no_variable(path, f"{parent}.{field}", [f"{parent}.{name}" for name in names], "field")
    return value.reshape(-1)[0][field]


def _no_variable(path: Path, name: str, known: list[str], word: str) -> DataError:
    there = f"it holds {', '.join(known[:6])}" if known else "it holds none"
    return DataError(f"{path}: there is no {word} '{name}' ({there}).", "Is it the right file, and encoding.variable?")


def _matrix(path: Path, value: Any, variable: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "biuf" or not value.size:
        shape = " x ".join(map(str, getattr(value, "shape", ()))) or "no size"
        kind = getattr(value, "dtype", type(value).__name__)
        raise DataError(
            f"{path}: '{variable}' is no matrix of class ids ({shape}, {'structure' if kind == 'O' else kind}).",
            "Is it the right encoding.variable? A field of a structure is written NAME.FIELD.",
        )
    if value.dtype.kind == "f":
        whole = np.isfinite(value) & (value == np.floor(value)) & (np.abs(value) < 1 << 31)
        if not whole.all():
            first = value[~whole][0]
            raise DataError(f"{path}: '{variable}' holds {first}, which is no class id.", "Is it the right variable?")
        return value.astype(np.int64)
    return value.astype(np.uint8) if value.dtype.kind == "b" else value
