"""What is broken in a data set, file by file, and the one error that names it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg_cli.core.errors import DataError

_SHOWN = 4


@dataclass(frozen=True)
class Problem:
    """Something broken: the file, what is wrong, and what mends it."""

    file: str
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"

    @property
    def line(self) -> str:
        """The problem with what mends it."""
        return f"{self}. {self.mend}".rstrip()


class BrokenData(DataError):
    """Files of a data set are broken.

    Args:
        name: Data set.
        problems: All of them; the message shows the first few.
        listed: File that holds them all, None where nothing was written.
        command: The command to run after mending.
    """

    def __init__(self, name: str, problems: Sequence[Problem], listed: Path | None, command: str):
        self.problems = tuple(problems)
        self.listed = listed
        shown = "; ".join(str(problem) for problem in problems[:_SHOWN])
        more = len(problems) - _SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        where = f" (all: {listed})" if listed and more > 0 else ""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        mend = f"{problems[0].mend} Then: {command}" if problems[0].mend else f"Run: {command}"
        super().__init__(f"{name}: {count}: {shown}{rest}{where}.", mend)

    def __reduce__(self) -> tuple[object, ...]:
        return (DataError, (self.message, self.mend))
