"""What a user reads of a download: where a file comes from, whether that was ever tried, what is left to people."""

from pathlib import Path

from ovseg_cli.core.data.download_plan import FilePlan
from ovseg_cli.core.data.http_fetch import amount
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Download

UNTRIED = "address never tried by ovseg"


def is_untried(item: FilePlan) -> bool:
    """Whether a file would be fetched from an address that stands in the spec and was never tried."""
    return item.address is not None and item.address == item.part.url and item.part.tried is None


def download_fact(part: Download) -> str:
    """One line of `ovseg show NAME`: what, from which page, which file, and from where `--download` takes it."""
    name = f" ({part.file})" if part.file else ""
    if part.login:
        return f"{part.what}{name}: {part.page} (login; by hand)"
    if part.url is None:
        return f"{part.what}{name}: {part.page} (by hand)"
    tried = f"tried on {part.tried}" if part.tried else UNTRIED
    return f"{part.what}{name}: {part.page}; --download takes {part.url} ({tried})"


def describe_file(item: FilePlan, source: Path, spec: Spec) -> str:
    """One line of the plan: what becomes of a file."""
    if item.state == "unpacked":
        return f"{_name(item)}: unpacked, nothing to do"
    if item.state == "fetched" and not item.is_foreign:
        return f"{_name(item)}: {amount(item.have)} are there, {'unpack' if item.is_archive else 'put in place'}"
    if item.address is None or (item.is_foreign and item.state == "fetched"):
        kind = "not needed for most" if item.part.optional else "needed"
        return f"by hand ({kind}): {errand(item, source, spec)}"
    size = "size unknown" if item.total is None else amount(item.total)
    begun = f", {amount(item.have)} are there" if item.have else ""
    untried = f" ({UNTRIED})" if is_untried(item) else ""
    return f"{_name(item)}: fetch {size}{begun} from {item.address}{untried}"


def errand(item: FilePlan, source: Path, spec: Spec) -> str:
    """What people have to fetch, from which page, and where to put it."""
    part, target = item.part, source / item.part.into
    why = "log in at" if part.login else "see"
    if item.is_foreign and item.path is not None and item.path.exists():
        return f"{item.path} is no archive that ovseg unpacks; unpack it into {target}"
    if item.path is None:
        how = "put it" if _takes_archives(spec) else "unpack it"
        return f"{part.what}: {why} {part.page}, and {how} into {target}"
    return f"{item.path.name} ({part.what}): {why} {part.page}, and put it at {item.path}"


def _name(item: FilePlan) -> str:
    return f"{item.path.name if item.path else '-'} ({item.part.what})"


def _takes_archives(spec: Spec) -> bool:
    """Whether the data set is read out of its archives."""
    return any(part.archives for layout in spec.layouts for part in layout.subsets.values())
