"""The log of a run: one JSON line each few steps, and none from a future that a resume takes back."""

import json
from pathlib import Path
from typing import Any

from ovseg_cli.core.files import explain_os_error, make_folder, write_text


class MetricsLog:
    """`metrics.jsonl`.

    Args:
        path: The file.
        step: Where the run stands: lines of later steps are removed, a last half line too; 0 empties the log.
        evaluated: Step of the last evaluation that counts; lines of later ones are removed.
    """

    def __init__(self, path: Path, step: int, evaluated: int = 0):
        self.path = path
        make_folder(path.parent)
        records = read_log(path) if step else []
        kept = [r for r in records if r["step"] <= (evaluated if "evaluation" in r else step)]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it has a `step`."""
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise explain_os_error(error, self.path) from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log, in order, without the half line that a kill may leave; none where there is no file.

    Records of training have the mean of each loss term since the one before; those of evaluations an "evaluation".
    """
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records
