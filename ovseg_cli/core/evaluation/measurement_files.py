"""How does a measurement stand in a file that can be read without us? As JSON, one record a line.

Measurements lie among the results of a run and are none: they hold what a model said of single masks or pixels.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import read_json, write_text
from ovseg_cli.core.reporter import Reporter

T = TypeVar("T")


@dataclass(frozen=True)
class MeasurementFile:
    """One kind of file.

    Attributes:
        kind: Stands in the file as `kind`.
        schema: Stands in the file as `schema`.
        what: What is measured, for messages: "mask sensitivity".
        figure: Of `ovseg report RUN --figures`, which measures it again.
    """

    kind: str
    schema: int
    what: str
    figure: str

    def save(self, path: Path, document: Mapping[str, Any], lists: Sequence[str]) -> None:
        """Write a document: a key a line, and of some keys, which hold lists of records, a record a line.

        Args:
            path: The file, written whole or not at all.
            document: Plain values; NaN becomes null.
            lists: Keys of such lists; they come last.

        Raises:
            MachineError: The file cannot be written.
        """
        head = {"schema": self.schema, "kind": self.kind, **document}
        lines = [f"{json.dumps(key)}: {_line(value)}" for key, value in head.items() if key not in lists]
        for name in lists:
            records = ",\n".join(_line(record) for record in head[name])
            lines.append(f"{json.dumps(name)}: [\n{records}\n]")
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    def load(self, path: Path, build: Callable[[dict[str, Any]], T]) -> T:
        """Read a document and build a measurement of it.

        Raises:
            DataError: The file is missing, broken, of another schema or of another kind.
        """
        mend = f"Delete it; it is measured again by: ovseg report RUN --figures {self.figure}"
        document = read_json(path, f"the measurement of {self.what}", mend)
        try:
            if document["kind"] != self.kind or document["schema"] != self.schema:
                raise DataError(f"{path}: is no measurement of {self.what} of schema {self.schema}.", mend)
            return build(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: is broken ({type(error).__name__}: {error}).", mend) from error


def measured_before(path: Path, load: Callable[[Path], T], reporter: Reporter) -> T | None:
    """Read a measurement that may be there; a broken one is said so, and will be made anew."""
    if not path.is_file():
        return None
    try:
        return load(path)
    except DataError as error:
        reporter.warn(f"{error.message} It is measured anew.")
        return None


def _line(value: Any) -> str:
    return json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
