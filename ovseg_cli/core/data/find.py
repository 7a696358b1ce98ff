"""Which data set does `--data` mean? Shipped specs by name, a user's own by path, or by name once it is prepared."""

from ovseg_cli.core.data.manifest import SPEC, data_root
from ovseg_cli.core.data.specs import aliases, parse_data, spec_names
from ovseg_cli.core.data.splits import DataChoice
from ovseg_cli.core.errors import UsageError, nearest
from ovseg_cli.core.runtime import Folders


def find_data(text: str, unseen: str | None, folders: Folders) -> DataChoice:
    """Resolve `NAME[:CLASS_SPLIT]`, also for data sets of the user's own that are prepared here.

    Args:
        text: What stood after `--data`.
        unseen: What stood after `--unseen`, or None.
        folders: Where prepared data sets lie.

    Raises:
        UsageError: Unknown data set, class split or class.
    """
    name, colon, split = text.partition(":")
    if name.endswith(".toml") or "/" in text or "\\" in text:
        return parse_data(text, unseen)
    if name not in own_names(folders):
        return _parse_shipped(text, name, unseen, folders)
    choice = parse_data(f"{data_root(folders, name) / SPEC}{colon}{split}", unseen)
    return DataChoice(choice.spec.typed_as(name), choice.split)


def own_names(folders: Folders) -> list[str]:
    """Names of the user's own data sets that are prepared here, or begun, in alphabetical order."""
    shipped = {*spec_names(), *aliases()}
    found = folders.data.glob(f"*/{SPEC}") if folders.data.is_dir() else []
    return sorted(path.parent.name for path in found if path.parent.name not in shipped)


def _parse_shipped(text: str, name: str, unseen: str | None, folders: Folders) -> DataChoice:
    known = [*spec_names(), *aliases()]
    own = nearest(name, own_names(folders))
    if name not in known and own and nearest(name, [*known, own]) == own:
        raise UsageError(f"unknown data set '{name}'.", f"Did you mean '{own}'?")
    return parse_data(text, unseen)
