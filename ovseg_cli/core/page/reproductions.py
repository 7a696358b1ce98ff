"""How does one come to a result again? The commands that were typed, in order, and what the result depended on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovseg_cli.core.data.commands import prepare_command
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.page.document import Reproduction
from ovseg_cli.core.page.rows import Member
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.report.grouping import method_title
from ovseg_cli.core.runs import CONFIG, HOST, Run, is_run_path, open_run
from ovseg_cli.core.runtime import Folders


def reproduction_of(member: Member, folders: Folders) -> Reproduction:
    """Collect commands and facts of one result."""
    commands = dict.fromkeys(command for command in _commands(member, folders) if command)
    return Reproduction(member.label, tuple(commands), tuple(_facts(member)))


def _commands(member: Member, folders: Folders) -> Iterator[str]:
    """Yield what was typed: preparing the data, CLIP, masks, training, evaluation."""
    labels = [str(member.run.config["run"]["data"])] if member.run else []
    for label in dict.fromkeys([*labels, member.result.data]):
        try:
            yield prepare_command(find_data(label.partition(":")[0], None, folders).spec)
        except OvsegError:
            continue  # a data set of somebody else's, or a run that does not say on what it was trained
    if member.run:
        yield from commands_of(member.run)
    yield member.result.command


def commands_of(run: Run) -> Iterator[str]:
    """Yield the command of a run after those of what it was made from: its CLIP, its masks, the run it began with."""
    training, method = run.config.get("training", {}), run.config.get("method", {})
    made_from = (run.config.get("clip", {}).get("name"), method.get("proposals"), training.get("proposals"))
    for place in (*made_from, training.get("init")):
        if isinstance(place, str) and is_run_path(place):
            yield from _made_by(Path(place))
    if (run.path / HOST / CONFIG).is_file():
        yield from _made_by(run.path / HOST)
    yield str(run.config["run"].get("command", ""))


def _made_by(place: Path) -> Iterator[str]:
    """Yield the commands of a run or a cache of masks, as far as it is here."""
    try:
        if (place / CONFIG).is_file():
            yield from commands_of(open_run(place))
        elif place.is_dir():
            yield str(ProposalStore.open(place).manifest.get("command", ""))
    except OvsegError:
        return  # broken: the command that names it stays


def _facts(member: Member) -> Iterator[tuple[str, str]]:
    result = member.result
    yield "method", method_title(result.method)
    yield "data", f"{result.data}, {result.subset}, {len(result.images):,} images"
    if member.run is not None:
        yield "run", str(member.run.path)
    elif result.run:
        yield "run", f"{result.run} (not here)"
    yield "seed", str(result.seed)
    yield "evaluated", result.created
    yield "version", f"ovseg {result.version}"
    for name, digest in result.fingerprints.items():
        yield f"fingerprint of {name}", digest
    for name, value in result.environment.items():
        if name != "ovseg":
            yield name.replace("_", " "), _text(value)
    if seconds := sum(result.timing.values()):
        yield "seconds", f"{seconds:.1f}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
