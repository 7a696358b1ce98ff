"""What lies beside a file that is being fetched: its first bytes, and what must hold for going on with them.

FILE.part         the bytes so far
FILE.part.json    from which address, which version of it (ETag or date), and how many bytes it has in all
"""

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import explain_os_error, make_folder, read_json, write_json


@dataclass(frozen=True)
class Notes:
    """What is known of the file that the first bytes belong to.

    Attributes:
        address: Where they came from.
        version: The server's strong ETag or date of it, which it compares before it goes on; None: it gives none.
        total: Bytes of the whole file; None: the server does not say.
    """

    address: str
    version: str | None = None
    total: int | None = None


class Part:
    """The part of a file that is there.

    Args:
        target: The file as it will be called.
    """

    def __init__(self, target: Path):
        self.path = target.with_name(target.name + ".part")
        self._notes = target.with_name(target.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def notes(self) -> Notes | None:
        """What was noted when the first byte came; None where that is lost."""
        try:
            facts: Any = read_json(self._notes, "the note")
            return Notes(str(facts["address"]), facts["version"], facts["total"])
        except (DataError, KeyError, TypeError):
            return None

    def begin(self, notes: Notes) -> None:
        """Start from the first byte."""
        self.remove()
        make_folder(self.path.parent)
        write_json(self._notes, asdict(notes))

    def remove(self) -> None:
        """Forget it."""
        for path in (self.path, self._notes):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def finish(self, target: Path) -> None:
        """Give the complete file its name."""
        try:
            with open(self.path, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(self.path, target)
        except OSError as error:
            raise explain_os_error(error, target) from error
        self.remove()
