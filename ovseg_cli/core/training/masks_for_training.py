"""Which masks does a method learn from? A cache of the training pictures, filled first where something is missing."""

from pathlib import Path
from typing import Any

from ovseg_cli.core.data.splits import DataChoice
from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.proposals.caches import find_cache
from ovseg_cli.core.proposals.request import ProposeRequest, generator_of, resolve
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.registry import PROPOSALS
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runs import CONFIG, HOST, Run, is_run_path
from ovseg_cli.core.runtime import Folders


def masks_for_training(
    proposals: str,
    settings: dict[str, Any],
    run: Run,
    data: DataChoice,
    subset: str,
    folders: Folders,
    reporter: Reporter,
    gpus: int | None = None,
) -> ProposalStore:
    """Return the masks of a training subset; masks that are there already are not made again.

    Args:
        proposals: "host" (the host in the run's folder), a generator, a cache of `ovseg propose`, or the run of a host.
        settings: Settings of that generator.
        run: The run that is to be trained; it knows its data and class split.
        data: The same, looked up.
        subset: Subset of the pictures.
        folders: Where data and runs lie.
        reporter: Shown the progress.
        gpus: What `--gpus` said.

    Raises:
        UsageError: There is no such generator, or the run makes no masks.
        DataError: The cache is broken, has no mask at all, or was made of data that has changed since.
    """
    from ovseg_cli.core.proposals.session import propose

    if _is_cache(proposals):
        return _with_masks(find_cache(proposals, data.spec.name, subset, folders))
    label, unseen = run.data
    source = str(run.path / HOST) if proposals == HOST else proposals
    request = ProposeRequest(source, label, subset, unseen, settings, gpus=gpus)
    return _with_masks(propose(resolve(request, folders, reporter), folders, reporter).store)


def check_weights(
    proposals: str,
    settings: dict[str, Any],
    data: DataChoice,
    subset: str,
    folders: Folders,
    device: str,
) -> None:
    """Load the network of a generator, where it has one, before anything is made for a training; then drop it.

    Raises:
        MachineError: Its weights are absent, cut off or incomplete.
    """
    if proposals not in PROPOSALS or not PROPOSALS[proposals].load().needs_weights:
        return
    request = ProposeRequest(proposals, data.spec.name, subset, settings=settings)
    try:
        generator_of(resolve(request, folders, Silent()), folders, Silent())(device)
    except MachineError as error:
        mend = (error.mend or "").replace("--set ", "--set proposal_settings.")
        mend += " Masks without a network: --proposals superpixels."
        raise MachineError(f"--proposals {proposals}: {error.message}", mend.strip()) from error


def cache_of(
    proposals: str,
    settings: dict[str, Any],
    label: str,
    unseen: str | None,
    data: DataChoice,
    subset: str,
    folders: Folders,
    reporter: Reporter,
) -> ProposalStore | None:
    """Look up where masks will come from, before anything is made for a training.

    Returns:
        The cache that is named; None where masks are made by a generator or by a run.

    Raises:
        UsageError: There is no such generator, setting or run.
        DataError: There is no such cache, it is of other data, or has no mask at all.
    """
    if _is_cache(proposals):
        return _with_masks(find_cache(proposals, data.spec.name, subset, folders))
    resolve(ProposeRequest(proposals, label, subset, unseen, settings), folders, reporter)
    return None


def _with_masks(store: ProposalStore) -> ProposalStore:
    """Refuse a store in which no picture has a mask; reads up to the first mask. Without a picture it is let through.

    Raises:
        DataError: There is nothing to learn from, or a picture's masks are broken.
    """
    names = store.names()
    if names and not any(len(store.read_entry(name).scores) for name in names):
        what = f"{store.folder}: none of its {len(names)} pictures has a mask: there is nothing to learn from."
        raise DataError(what, "Choose other masks, --proposals, or settings of the generator that leave some.")
    return store


def _is_cache(proposals: str) -> bool:
    return is_run_path(proposals) and not (Path(proposals) / CONFIG).is_file()
