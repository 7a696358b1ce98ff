"""Which data set does `--data` mean? Shipped specs by name, a user's own by path, or by name once it is prepared."""

from ovseg_cli.core.data.manifest import SPEC, data_root, prepared_names
from ovseg_cli.core.data.specs import aliases, parse_data, spec_names
from ovseg_cli.core.data.splits import DataChoice
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
    is_own = not name.endswith(".toml") and "/" not in name and name not in spec_names() and name not in aliases()
    if is_own and name in prepared_names(folders):
        return parse_data(f"{data_root(folders, name) / SPEC}{colon}{split}", unseen)
    return parse_data(text, unseen)
