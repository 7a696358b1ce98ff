"""Rules on what a spec says about downloads: an address is that of a named file which needs no login."""

from collections.abc import Iterator

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_encodings import Problem


def download_problems(spec: Spec) -> Iterator[Problem]:
    """Yield every broken rule of the spec's downloads."""
    seen: dict[str, int] = {}
    for i, part in enumerate(spec.downloads):
        key = f"downloads[{i}]"
        if part.url and not part.file:
            yield Problem(f"{key}.url", "it is the address of a file without a name.", 'Add file = "NAME.zip".')
        if part.url and part.login:
            yield Problem(f"{key}.url", "a file behind a login is not fetched.", "Remove 'url' or 'login'.")
        if part.file and seen.setdefault(part.file, i) != i:
            what = f"file '{part.file}' stands twice."
            yield Problem(f"{key}.file", what, f"Rename or remove it; first: downloads[{seen[part.file]}].")
