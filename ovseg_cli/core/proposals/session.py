"""What `ovseg propose` does once every name is resolved: open or begin the cache, make what is missing, say so."""

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from ovseg_cli.core.proposals.filling import Filled, Job, Place, fill
from ovseg_cli.core.proposals.locks import Locks
from ovseg_cli.core.proposals.request import ProposePlan, generator_of
from ovseg_cli.core.proposals.sa1b import open_annotations
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runtime import Folders, launched_place, open_runtime


@dataclass(frozen=True)
class Proposed:
    """A filled cache, and what was done to fill it."""

    store: ProposalStore
    filled: Filled
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "schema": 1,
            "generator": self.store.generator,
            "data": self.store.manifest.get("data"),
            "subset": self.store.manifest.get("subset"),
            "folder": str(self.store.folder),
            "digest": self.store.digest,
            "images": self.filled.made + self.filled.kept,
            "made": self.filled.made,
            "masks_made": self.filled.masks,
            "complete": self.store.complete,
            "seconds": round(self.seconds, 1),
        }


def propose(plan: ProposePlan, folders: Folders, reporter: Reporter) -> Proposed:
    """Make the proposals of a subset, or what is missing of them.

    Other processes may fill the same cache at the same time, with this command or under torch's launcher; each picture
    is made by one of them, and this returns when all that were asked for are there.

    Raises:
        DataError: A picture is broken, or the data has changed since the cache was begun.
        MachineError: Weights, device, disk, or a worker that died; what is finished stays.
    """
    started = time.monotonic()
    if plan.generator_class.reads_originals:
        return Proposed(*open_annotations(plan, folders, reporter), time.monotonic() - started)
    devices = _devices(plan, reporter)
    rank, local, world_size = launched_place()
    make_generator = generator_of(plan, folders, Silent() if rank else reporter)
    generator = make_generator(devices[local % len(devices)])
    pictures = plan.pictures(folders)
    key = plan.key(pictures, generator.weights, generator.vocabulary)
    store = open_store(plan, folders, key, generator.weights, generator.vocabulary)
    job = Job(store.folder, partial(plan.pictures, folders), generator_of(plan, folders, Silent()), devices)
    with Locks(store.folder) as locks:
        if locks.begin_alone():
            store.sweep()
        locks.begin()
        filled = fill(
            Place(pictures, generator, store, locks),
            Silent() if rank else reporter,
            range(plan.chosen),
            job,
            1 if world_size > 1 else _workers(plan, devices),
            rank / world_size,
        )
    return Proposed(ProposalStore.open(store.folder), filled, time.monotonic() - started)


def open_store(
    plan: ProposePlan, folders: Folders, key: dict[str, Any], weights: str | None, vocabulary: str | None
) -> ProposalStore:
    """Open or begin the cache of a plan; with `--force` it is emptied first.

    Raises:
        DataError: The data has changed since it was begun.
        MachineError: It is to be emptied while another process fills it.
    """
    folder = plan.folder(folders, weights, vocabulary)
    if plan.request.force and (folder / MANIFEST).exists():
        with Locks(folder) as locks:
            locks.require_alone("emptying this cache")
            ProposalStore(folder, {}).clear()
    return ProposalStore.create(folder, key)


def _devices(plan: ProposePlan, reporter: Reporter) -> tuple[str, ...]:
    """Devices of a generator with a network; without one there is nothing that a GPU could do."""
    if not plan.generator_class.needs_weights:
        if plan.request.gpus:
            open_runtime(plan.request.gpus)
            reporter.say(f"{plan.name} has no network: it runs on the CPU")
        return ("cpu",)
    runtime = open_runtime(plan.request.gpus)
    for note in runtime.notes:
        reporter.say(note)
    return runtime.devices


def _workers(plan: ProposePlan, devices: tuple[str, ...]) -> int:
    if plan.request.workers is not None:
        return plan.request.workers
    if devices != ("cpu",):
        return len(devices)
    return max(1, len(os.sched_getaffinity(0)))
