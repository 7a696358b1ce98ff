"""How the cache is written for other programs: as a COCO result file, or as SA-1B's one file a picture."""

import json
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import atomic_write, write_text
from ovseg_cli.core.proposals.formats import coco_records, sa1b_document
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Reporter


def export_masks(store: ProposalStore, out: Path, form: str, force: bool, reporter: Reporter) -> dict[str, Any]:
    """Write all masks of a cache.

    In a COCO file `image_id` is the picture's name as a number where all names are different numbers, as COCO's are,
    and the name itself elsewhere. Soft masks are cut at one half, at the picture's size.

    Args:
        store: The cache.
        out: File, or folder for "sa-1b".
        form: "coco" or "sa-1b".
        force: Write over what is there.
        reporter: Shows progress.

    Returns:
        What was written: `file` or `folder`, `images`, `masks`.

    Raises:
        UsageError: Something is there already.
        DataError: An entry is broken.
        MachineError: The disk is full, and so on.
    """
    if out.exists() and not force:
        raise UsageError(f"--export {out}: this exists already.", "Choose another name, or add --force.")
    if out.is_dir() != (form == "sa-1b") and out.exists():
        raise UsageError(f"--export {out}: --format {form} writes a {'folder' if form == 'sa-1b' else 'file'}.")
    return _export_coco(store, out, reporter) if form == "coco" else _export_sa1b(store, out, reporter)


def _export_coco(store: ProposalStore, out: Path, reporter: Reporter) -> dict[str, Any]:
    names = store.names()
    ids = _ids(names)
    masks = 0
    with atomic_write(out, "w") as stream:
        separator = "[\n"
        for name in reporter.track(names, f"export to {out.name}"):
            for record in coco_records(store.read_entry(name), ids[name]):
                stream.write(separator + json.dumps(record, separators=(",", ":"), ensure_ascii=False))
                separator, masks = ",\n", masks + 1
        stream.write("[]\n" if masks == 0 else "\n]\n")
    return {"file": str(out), "images": len(names), "masks": masks}


def _export_sa1b(store: ProposalStore, out: Path, reporter: Reporter) -> dict[str, Any]:
    names = store.names()
    masks = 0
    for number, name in enumerate(reporter.track(names, f"export to {out.name}")):
        document = sa1b_document(store.read_entry(name), number, f"{name}.jpg")
        path = out / f"{name}.json"
        if not path.resolve().is_relative_to(out.resolve()):
            raise UsageError(f"picture '{name}': its name leads out of {out}.")
        write_text(path, json.dumps(document, separators=(",", ":"), ensure_ascii=False))
        masks += len(document["annotations"])
    return {"folder": str(out), "images": len(names), "masks": masks}


def _ids(names: list[str]) -> dict[str, int | str]:
    numbers = {name: int(name) for name in names if name.isdecimal()}
    if len(set(numbers.values())) == len(names):
        return dict(numbers)
    return {name: name for name in names}
