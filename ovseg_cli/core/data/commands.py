"""The command that prepares a data set, as a user would type it: what messages offer as the mend."""

import shlex
from pathlib import Path

from ovseg_cli.core.data.spec import Spec


def prepare_command(spec: Spec, source: Path | str | None = None, known: bool = False) -> str:
    """Return `ovseg prepare …` for a spec.

    Args:
        spec: Named as the user named it: by its name, or by the path of a spec of the user's own.
        source: Folder of the originals; None leaves `DIR` for the user to fill in.
        known: The folder was recorded by an earlier preparation and need not be typed again.
    """
    command = f"ovseg prepare {shlex.quote(spec.typed)}"
    if spec.generator is not None or known:
        return command
    return f"{command} --source {shlex.quote(str(source)) if source else 'DIR'}"


def download_command(spec: Spec) -> str:
    """Return `ovseg prepare NAME --download`."""
    return f"ovseg prepare {shlex.quote(spec.typed)} --download"
