"""Labels in MATLAB files: one matrix of whole numbers, by itself or in a structure.

Read here rather than by scipy, whose reader crashes the process on some damaged files. Every length is checked before
it is followed, only what leads to the matrix is read, and of a compressed variable only its head unless it is the one.

Source: "MAT-File Format", The MathWorks, version 5 files (MATLAB 5 to 7.2).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg_cli.core.data.images import MAX_PIXELS
from ovseg_cli.core.errors import DataError

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # as stored
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # meant
_OTHERS = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 5: "a sparse matrix"}
_MATRIX, _COMPRESSED, _STRUCTURE = 14, 15, 2
_COMPLEX = 0x800
_HEAD = 4096
_AGAIN = "Fetch it again."


class _Damaged(ValueError):
    """The bytes are no file of this form; the text says where they stop being one."""


@dataclass(frozen=True)
class _Variable:
    """A variable, or a field of a structure: its kind, its size, and the elements behind them, not looked into."""

    name: str
    kind: int
    flags: int
    dims: tuple[int, ...]
    rest: bytes


def load_matrix(path: Path, variable: str) -> np.ndarray:
    """Read a matrix of class ids.

    Args:
        path: File of MATLAB 5 to 7.2.
        variable: Its name; "GTcls.Segmentation" is the field of a structure.

    Returns:
        (H, W) of its own integer type; whole numbers of a floating type as int64.

    Raises:
        DataError: It is missing, damaged, of another version, has no such variable, or that is no such matrix.
    """
    try:
        data = path.read_bytes()
        order = _byte_order(path, data)
        name, *fields = variable.split(".")
        value = _find(path, _variables(data, order, name), name, "variable")
        for field in fields:
            parts = _fields(value, order) if value.kind == _STRUCTURE else iter(())
            value = _find(path, parts, f"{value.name}.{field}", "field")
        return _class_ids(path, value, variable, order)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: the .mat file cannot be read ({error.strerror}).", _AGAIN) from error
    except (_Damaged, zlib.error, struct.error) as error:
        raise DataError(f"{path}: the .mat file is cut off or damaged ({error}).", _AGAIN) from error


def _byte_order(path: Path, data: bytes) -> str:
    """Return "<" or ">"; the last two bytes of the header say which."""
    if data.startswith(b"MATLAB 7.3"):
        what = f"{path}: this file is of MATLAB 7.3 (HDF5), which is not read."
        raise DataError(what, "Save it in MATLAB again with save(..., '-v7').")
    if len(data) < 128:
        raise _Damaged(f"it has {len(data)} bytes, its header alone 128")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise DataError(f"{path}: this is no .mat file of MATLAB 5 to 7.2.", "Save it again with save(..., '-v7').")
    return order


def _elements(data: bytes, order: str, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield type and contents of the elements that stand one after the other."""
    while len(data) - at >= 8:
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # four bytes or fewer stand within the tag
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 8
            if size > 4:
                raise _Damaged(f"an element at byte {at} has {size} bytes where 4 fit")
        else:
            start = at + 8
            end = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > len(data):
            raise _Damaged(f"an element at byte {at} has {size} bytes, {len(data) - start} are there")
        yield kind, data[start : start + size]
        at = end


def _variables(data: bytes, order: str, wanted: str) -> Iterator[_Variable]:
    """Yield the variables of a file; only the wanted one is unpacked as a whole."""
    for kind, contents in _elements(data, order, 128):
        if kind == _COMPRESSED:
            head = _unpacked(contents, _HEAD)
            size = struct.unpack_from(f"{order}II", head)[1]
            variable = _variable(head[8:], order)
            if variable.name == wanted:
                if size > _most_bytes():
                    raise _Damaged(f"'{variable.name}' claims {size:,} bytes")
                variable = _variable(_unpacked(contents, size + 8)[8:], order)
            yield variable
        elif kind == _MATRIX:
            yield _variable(contents, order)


def _most_bytes() -> int:
    """Of the largest variable that is unpacked: a matrix of the widest type, with as much again beside it."""
    return 16 * MAX_PIXELS


def _unpacked(contents: bytes, most: int) -> bytes:
    head = zlib.decompressobj().decompress(contents, most)
    if len(head) < 8:
        raise _Damaged("a compressed variable ends within its head")
    return head


def _variable(contents: bytes, order: str, name: str = "") -> _Variable:
    """Read flags, dimensions and name; what follows them may be cut off, if nobody asks for it."""
    parts, at = [], 0
    for _ in range(3):
        kind, part = next(_elements(contents[at:], order), (0, b""))
        small = struct.unpack_from(f"{order}I", contents, at)[0] >> 16
        at += 8 if small else 8 + len(part) + -len(part) % 8
        parts.append((kind, part))
    (_, flags), (_, dims), (_, own) = parts
    if len(flags) < 8 or not dims or len(dims) % 4:
        raise _Damaged("a variable has no flags or no size")
    first = struct.unpack_from(f"{order}I", flags)[0]
    sizes = tuple(int(side) for side in np.frombuffer(dims, f"{order}i4"))
    return _Variable(name or _plain(own.decode("latin-1")), first & 0xFF, first, sizes, contents[at:])


def _fields(value: _Variable, order: str) -> Iterator[_Variable]:
    """Yield the fields of a structure; of an array of structures none."""
    parts = _elements(value.rest, order)
    _, length = next(parts, (0, b""))
    _, names = next(parts, (0, b""))
    width = struct.unpack(f"{order}i", length)[0] if len(length) == 4 else 0
    if width < 1 or value.dims != (1, 1):
        return
    for start in range(0, len(names), width):
        name = _plain(names[start : start + width].split(b"\0")[0].decode("latin-1"))
        kind, contents = next(parts, (0, b""))
        if kind == _MATRIX and contents:
            yield _variable(contents, order, f"{value.name}.{name}")


def _find(path: Path, variables: Iterator[_Variable], name: str, word: str) -> _Variable:
    known = []
    for variable in variables:
        if variable.name == name:
            return variable
        known.append(variable.name)
    there = f"it holds {', '.join(known[:6])}" if known else "it holds none"
    raise DataError(f"{path}: there is no {word} '{name}' ({there}).", "Is it the right file, and encoding.variable?")


def _class_ids(path: Path, value: _Variable, variable: str, order: str) -> np.ndarray:
    shape = " x ".join(map(str, value.dims))
    if value.kind not in _CLASSES or len(value.dims) != 2 or min(value.dims) < 1 or value.flags & _COMPLEX:
        what = f"{path}: '{variable}' is no matrix of class ids ({_OTHERS.get(value.kind, 'numbers')}, {shape})."
        raise DataError(what, "Is it the right encoding.variable? A field of a structure is written NAME.FIELD.")
    count = value.dims[0] * value.dims[1]
    if count > MAX_PIXELS:
        raise DataError(f"{path}: '{variable}' is {shape}, more than {MAX_PIXELS:,} values.", "Make it smaller first.")
    kind, data = next(_elements(value.rest, order), (0, b""))
    if kind not in _TYPES or len(data) != count * int(_TYPES[kind][1]):
        raise _Damaged(f"'{variable}' has {len(data)} bytes of values for {shape}")
    stored = np.frombuffer(data, order + _TYPES[kind]).reshape(value.dims, order="F")
    if _CLASSES[value.kind][0] != "f":
        return np.ascontiguousarray(stored, _CLASSES[value.kind])
    whole = np.isfinite(stored) & (stored == np.floor(stored)) & (np.abs(stored) < 1 << 31)
    if not whole.all():
        what = f"{path}: '{variable}' holds {stored[~whole][0]}, which is no class id."
        raise DataError(what, "Is it the right variable?")
    return np.ascontiguousarray(stored, np.int64)


def _plain(text: str) -> str:
    """Return a name out of a file without signs that are not printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])
