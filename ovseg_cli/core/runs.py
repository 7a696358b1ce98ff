"""Run folders: `runs/METHOD-DATA-TIME/` with its config, log, checkpoints and results. Imports no torch."""

import os
import shlex
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError, UsageError, nearest
from ovseg_cli.core.files import explain_os_error, make_folder, write_text

SCHEMA = 1
CONFIG = "config.toml"
FINISHED = "finished"
SEED = "seed-"  # begins the names of run folders that lie side by side in one and differ in their seed
WEIGHTS = "model.safetensors"  # what a trained method's `trained_state` returned
RESULTS = "results"  # folder of the result files in a run
MEASURED = "mask-sensitivity"  # begins the names of measurements that lie among the results, and are none
HOST = "host"  # folder, inside a run of MAFT, of the run that makes its masks; also the kind of such a run
LIVE = "live"  # masks of that host too, in training made anew for each example instead of read from a cache


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        path: The folder.
        config: `config.toml` as read: tables `run`, `clip`, `method`, `vocabulary`, `fingerprints`.
    """

    path: Path
    config: dict[str, Any]

    @property
    def kind(self) -> str:
        """What was run: "segmentation", "toy-clip", or another trainer's word."""
        return str(self.config["run"]["kind"])

    @property
    def method(self) -> str:
        """Name of the method or trainer."""
        return str(self.config["run"]["method"])

    @property
    def created(self) -> str:
        """When the run began, ISO 8601 with microseconds, UTC: sorts by time."""
        return str(self.config["run"]["created"])

    @property
    def data(self) -> tuple[str, str | None]:
        """What `--data` and `--unseen` were: a class split of the user's own is no name that could be looked up.

        Raises:
            UsageError: The run does not say, as one that was converted without `--data`.
        """
        label = str(self.config["run"]["data"])
        if not label:
            raise UsageError(f"{self.path}: does not say what it was trained on.", "Name a data set with --data.")
        unseen = self.config.get("vocabulary", {}).get("unseen")
        return (label.partition(":")[0], str(unseen)) if unseen else (label, None)

    @property
    def as_model(self) -> str:
        """Its folder as MODEL would be typed: with a slash, since a bare word is a method."""
        return str(self.path) if is_run_path(str(self.path)) else f"./{self.path}"

    @property
    def is_finished(self) -> bool:
        """Whether training (where there is any) and one evaluation or more came to their end."""
        return (self.path / FINISHED).exists()

    def finish(self) -> None:
        """Mark the run as finished; `latest` looks for this."""
        write_text(self.path / FINISHED, now() + "\n")

    def result_files(self) -> list[Path]:
        """Result files, by name."""
        files = (self.path / RESULTS).glob("*.json")
        return sorted(path for path in files if not path.name.startswith(f"{MEASURED}-"))


def now() -> str:
    """Current time, UTC, ISO 8601 with microseconds."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"


def typed_command() -> str:
    """The command line as typed, quoted for a shell; the program's path is left out."""
    return shlex.join(["ovseg", *sys.argv[1:]])


def create_run(
    runs: Path,
    kind: str,
    method: str,
    data: str,
    config: dict[str, Any],
    seed: int = 0,
    path: Path | None = None,
) -> Run:
    """Make a new run folder and write its config.

    Args:
        runs: Folder of all runs.
        kind: "segmentation" or a trainer's word.
        method: Method name.
        data: Data label, `NAME[:CLASS_SPLIT]`.
        config: Tables that are written beside `run`; values None are left out (TOML has none).
        seed: Seed of the run.
        path: Its folder; None makes `METHOD-DATA-TIME` below `runs`.

    Raises:
        MachineError: The folder cannot be made.
    """
    import tomli_w

    table = {
        "schema": SCHEMA,
        "kind": kind,
        "method": method,
        "data": data,
        "seed": seed,
        "created": now(),
        "version": __version__,
        "command": typed_command(),
    }
    document = {"run": table, **_without_none(config)}
    path = make_folder(path) if path else fresh_folder(runs, f"{method}-{data.replace(':', '-').replace('/', '-')}")
    write_text(path / CONFIG, tomli_w.dumps(document))
    return Run(path, document)


def fresh_folder(runs: Path, stem: str) -> Path:
    """Make `STEM-TIME`, with a counter when two runs begin in the same second."""
    make_folder(runs)
    base = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for counter in range(1000):
        path = runs / (base if counter == 0 else f"{base}-{counter}")
        try:
            os.mkdir(path)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise explain_os_error(error, path) from error
    raise UsageError(f"{runs}: there are a thousand runs named {base} already.", "Choose another --runs folder.")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def open_run(path: Path) -> Run:
    """Open a run folder.

    Raises:
        UsageError: There is no such folder.
        DataError: It is not a run folder, is broken, or was made by another schema.
    """
    if not path.is_dir():
        hit = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else None
        hint = f"Did you mean '{path.parent / hit}'?" if hit else "`ovseg list runs` shows what there is."
        raise UsageError(f"{path}: there is no such run folder.", hint)
    try:
        config = tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
        schema = config["run"]["schema"]
    except FileNotFoundError as error:
        if seeds := sorted(path.glob(f"{SEED}*/{CONFIG}")):
            mend = f"Name one of them: {seeds[0].parent}   All of them together: ovseg report {path} --seeds"
            raise DataError(f"{path}: this is no run folder, it holds {len(seeds)} runs, one a seed.", mend) from error
        raise DataError(f"{path}: this is not a run folder, {CONFIG} is missing.", "See `ovseg list runs`.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path / CONFIG}: cannot be read ({error}).", "See `ovseg list runs`.") from error
    if schema != SCHEMA:
        raise DataError(
            f"{path}: was made with run schema {schema}, this ovseg reads {SCHEMA}.",
            f"Use ovseg {config['run'].get('version', 'of that time')}, or run it anew.",
        )
    return Run(path, config)


def list_runs(runs: Path) -> list[Run]:
    """All readable runs below `runs`, newest first; seeds that lie one folder deeper count too."""
    found = []
    for path in [*runs.glob(f"*/{CONFIG}"), *runs.glob(f"*/*/{CONFIG}")]:
        try:
            found.append(open_run(path.parent))
        except DataError:
            continue  # shown by `ovseg doctor`; a broken run must not hide the others
    return sorted(found, key=lambda run: run.created, reverse=True)


def latest_run(runs: Path) -> Run:
    """The newest finished segmentation run.

    Raises:
        UsageError: There is none.
    """
    for run in list_runs(runs):
        if run.kind == "segmentation" and run.is_finished:
            return run
    raise UsageError(
        f"there is no finished segmentation run in {runs}/ for `latest` to mean.",
        "Name a training-free method (`ovseg eval maskclip --data toy`) or a run folder.",
    )


def find_run(name: str, runs: Path) -> Run:
    """Open the run that a name means: `latest`, the path of a run folder, or its name below `runs`.

    Raises:
        UsageError: There is none.
        DataError: It is broken.
    """
    if name == "latest":
        return latest_run(runs)
    path = Path(name)
    return open_run(runs / name if not path.is_dir() and (runs / name).is_dir() else path)


def is_run_path(model: str) -> bool:
    """Whether MODEL means a run folder: it has a slash in it; a bare word is a method or `latest`."""
    return "/" in model or os.sep in model
