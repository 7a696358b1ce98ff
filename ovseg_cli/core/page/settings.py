"""How do the runs differ? Their settings side by side, those that differ first, each with where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.errors import DataError, OvsegError
from ovseg_cli.core.page.document import Setting, Settings
from ovseg_cli.core.page.rows import Member, Row, members_of
from ovseg_cli.core.page.sources import protocol_sources, setting_sources
from ovseg_cli.core.report.cells import MISSING
from ovseg_cli.core.runs import HOST, Run, open_run
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.settings_tables import flat, value_text

if TYPE_CHECKING:
    from ovseg_cli.core.data.spec import Spec

MODELS, TRAININGS, HOSTS = "Settings of the models", "Settings of the trainings", "Settings of the hosts"

_NOTHING: tuple[Any, ...] = (None, "", [])


@dataclass(frozen=True)
class Sheet:
    """The settings of one run: dotted key → (value, source)."""

    label: str
    values: dict[str, tuple[str, str]]


def settings_of(rows: Sequence[Row], folders: Folders) -> list[Settings]:
    """Set the settings of all results side by side: of models, of trainings, and of hosts inside runs."""
    members = members_of(rows)
    sheets = {
        MODELS: [_model_sheet(member, folders) for member in members],
        TRAININGS: [_training_sheet(member, folders) for member in members],
        HOSTS: [_host_sheet(member, folders) for member in members],
    }
    kept = {title: [sheet for sheet in all_of if sheet.values] for title, all_of in sheets.items()}
    return [side_by_side(title, sheets) for title, sheets in kept.items() if sheets]


def side_by_side(title: str, sheets: Sequence[Sheet]) -> Settings:
    """Make the rows: a setting differs where two runs have it with two values; a run without it tells nothing."""
    keys = dict.fromkeys(key for sheet in sheets for key in sheet.values)
    rows = []
    for key in keys:
        cells = [sheet.values.get(key, (MISSING, "")) for sheet in sheets]
        there = {sheet.values[key][0] for sheet in sheets if key in sheet.values}
        rows.append(Setting(key, tuple(v for v, _ in cells), tuple(s for _, s in cells), len(there) > 1))
    return Settings(title, tuple(sheet.label for sheet in sheets), tuple(sorted(rows, key=lambda row: not row.differs)))


def _model_sheet(member: Member, folders: Folders) -> Sheet:
    """What predicted: settings of the method and everything else of the protocol."""
    result, spec = member.result, _spec_of(member, folders)
    own = result.protocol.get("method", {})
    sources = setting_sources(result.method, own, spec)
    values = {f"method.{key}": pair for key, pair in _texts(own, sources).items()}
    rest = {key: value for key, value in result.protocol.items() if key not in ("method", "training")}
    told = protocol_sources(result.method, result.protocol, _spec(result.data, None, folders))
    return Sheet(member.label, {"seed": (str(result.seed), ""), **_texts(rest, told), **values})


def _training_sheet(member: Member, folders: Folders) -> Sheet:
    """How it was trained: as its run keeps it, else as the result does."""
    own = member.run.config.get("training", {}) if member.run else member.result.protocol.get("training", {})
    if not own:
        return Sheet(member.label, {})
    if member.run is None:
        return Sheet(member.label, _texts(own, {}))
    of_run = {"data": (str(member.run.config["run"]["data"]), "")}
    return Sheet(member.label, of_run | _run_texts(member.run, "training", _spec_of(member, folders)))


def _host_sheet(member: Member, folders: Folders) -> Sheet:
    """The run inside the run that makes its masks."""
    try:
        host = open_run(member.run.path / HOST) if member.run else None
    except (OvsegError, DataError):  # there is none
        host = None
    if host is None:
        return Sheet(member.label, {})
    spec = _spec_of(member, folders)
    tables = [_run_texts(host, table, spec) for table in ("method", "training")]
    return Sheet(member.label, {"method": (host.method, ""), **tables[0], **tables[1]})


def _run_texts(run: Run, table: str, spec: "Spec | None") -> dict[str, tuple[str, str]]:
    """The values of one table of a run's config; the recipe is asked with both, since one may follow from the other."""
    both = {**run.config.get("method", {}), **run.config.get("training", {})}
    return _texts(run.config.get(table, {}), setting_sources(run.method, both, spec))


def _texts(values: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        key: ("none" if value in _NOTHING else value_text(value), sources.get(key, "")) for key, value in flat(values)
    }


def _spec_of(member: Member, folders: Folders) -> "Spec | None":
    """The data set whose recipe a model was made with: of a trained one that of its training."""
    trained = bool(member.result.protocol.get("training"))
    if not trained:
        return _spec(member.result.data, None, folders)
    if member.run is None:
        return None
    try:
        return _spec(*member.run.data, folders)
    except OvsegError:  # converted without saying what it was trained on
        return None


def _spec(label: str, unseen: str | None, folders: Folders) -> "Spec | None":
    """A data set by its label; None where it is not known here, as a user's own on another machine."""
    try:
        return find_data(label.partition(":")[0], unseen, folders).spec
    except OvsegError:
        return None
