"""Which results does a name mean: a result file, a run folder, `latest` or a folder of seeds? And where do they lie?"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.runs import CONFIG, RESULTS, Run, find_run
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.training.seeds import open_seeds


@dataclass(frozen=True)
class Stored:
    """A result and the file that it was read from, which may lie elsewhere than it was written."""

    result: Result
    path: Path

    @property
    def run_folder(self) -> Path | None:
        """Folder of the run that the file lies in, else of that it was written for; None where both are gone."""
        own = self.path.parent.parent if self.path.parent.name == RESULTS else None
        written = Path(self.result.run) if self.result.run else None
        return next((path for path in (own, written) if path and (path / CONFIG).is_file()), None)


class NoResult(UsageError):
    """A run that was never scored."""


def find_results(name: str, folders: Folders) -> list[Result]:
    """Read the results that a name means; see `find_stored`."""
    return [one.result for one in find_stored(name, folders)]


def find_stored(name: str, folders: Folders) -> list[Stored]:
    """Read the results that a name means: a result file, a run folder (all of its results), `latest`, or all seeds.

    Raises:
        UsageError: There is no such run or file, or the run holds no result.
        DataError: A result file is broken.
    """
    if name != "latest" and Path(name).is_file():
        return [Stored(load_result(Path(name)), Path(name))]
    runs = _seeds_named(name, folders) or [find_run(name, folders.runs)]
    files = [file for run in runs for file in run.result_files()]
    if not files:
        run, which = runs[0], "this run holds" if len(runs) == 1 else f"its {len(runs)} seeds hold"
        path = run.path if len(runs) == 1 else run.path.parent
        words = [run.as_model] if run.kind == "segmentation" else ["maskclip", "--clip", str(run.path)]
        raise NoResult(f"{path}: {which} no result yet.", f"Score it: {shlex.join(['ovseg', 'eval', *words])}")
    return [Stored(load_result(file), file) for file in files]


def home_of(name: str, folders: Folders) -> Path:
    """Return the folder that belongs to a name: that of the run, of all seeds, or of a result file.

    Raises:
        UsageError: There is no such run or file.
    """
    if name != "latest" and Path(name).is_file():
        file = Path(name)
        is_kept = file.parent.name == RESULTS and (file.parent.parent / CONFIG).is_file()
        return file.parent.parent if is_kept else file.parent
    seeds = _seeds_named(name, folders)
    return seeds[0].path.parent if seeds else find_run(name, folders.runs).path


def _seeds_named(name: str, folders: Folders) -> list[Run]:
    """Open the runs in a folder of seeds (`train --seeds`); none where the name means something else."""
    path = Path(name) if Path(name).is_dir() else folders.runs / name
    return [] if (path / CONFIG).is_file() else list(open_seeds(path).values())
