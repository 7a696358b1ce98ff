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
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        make_folder(path.parent)
        write_text(path, "".join(line + "\n" for line in self._kept(step)))

    def _kept(self, step: int) -> list[str]:
        if step == 0 or not self.path.is_file():
            return []
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # the half line of a kill
        return kept

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it has a `step`."""
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise explain_os_error(error, self.path) from error
