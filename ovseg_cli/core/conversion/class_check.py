"""What is known about a checkpoint's classes is compared: its own list, the data set's, and a file of text features."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.text import encode_vocabulary
from ovseg_cli.core.conversion.class_order import check_rows, difference
from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.types import Vocabulary

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice

LEAVE_OUT = "or leave --data out: then every class counts as unseen"


def check_classes(classes: Sequence[str] | None, data: "DataChoice | None", where: str) -> str:
    """Compare the class names that a checkpoint holds with those of `--data`, in order.

    Args:
        classes: Names of the checkpoint; None where it holds none.
        data: What it is said to be trained on; None where nobody said.
        where: The file.

    Returns:
        What was found, a sentence.

    Raises:
        UsageError: The lists differ: other classes would count as seen than were.
    """
    if classes is None:
        and_data = "" if data else ", and no --data was named"
        return f"The order of its classes was not checked: it holds no class names{and_data}."
    if data is None:
        known = _data_with(classes)
        hint = f"they are those of {known}: say it with --data {known}" if known else "name the data set with --data"
        return f"Its {len(classes)} class names were compared with nothing; {hint}."
    names = data.spec.class_names
    seen = [names[i] for i in data.spec.seen_ids(data.split)]
    for own, what in ((names, "classes"), (seen, "seen classes")):
        if difference(classes, own) is None:
            return f"Its {len(own)} class names are the {what} of {data.label}, in order."
    known = _data_with(classes)
    raise UsageError(
        f"{where}: its class list is not that of --data {data.label}: {difference(classes, names)}.",
        f"{f'Its names are those of --data {known}' if known else 'Name the data set that it was trained on'}, "
        f"{LEAVE_OUT}.",
    )


def _data_with(classes: Sequence[str]) -> str | None:
    """Return the shipped data set with this class list, or None."""
    specs = (load_spec(name) for name in spec_names())
    return next((s.name for s in specs if s.class_names and difference(classes, s.class_names) is None), None)


def check_text_features(
    place: str, names: Sequence[str] | None, templates: Sequence[str], clip: ClipModel, where: str
) -> str:
    """Compare the rows of a file of text features with the names by the checkpoint's own text tower.

    Args:
        place: FILE.npy or FILE.npz:KEY.
        names: K class names.
        templates: Sentences that they are put into.
        clip: The checkpoint's.
        where: The checkpoint, for messages.

    Returns:
        What was found, a sentence.

    Raises:
        UsageError: The rows are of other sizes, stand in another order, or nobody says which names they are of.
        MachineError: The file is missing or broken.
    """
    if not names:
        raise UsageError(f"--text-features {place}: of which names? {where} holds none.", "Name them: --data")
    rows = read_rows(place)
    if rows.shape[1] != clip.embed_dim:
        raise UsageError(
            f"--text-features {place}: its rows have {rows.shape[1]} values, those of {where} {clip.embed_dim}.",
            "Pass the file that was made with the same CLIP.",
        )
    vocabulary = Vocabulary(tuple(names), tuple((name,) for name in names), tuple(templates))
    own = encode_vocabulary(clip, vocabulary).cpu()
    if wrong := check_rows(rows, own, names):
        raise UsageError(
            f"--text-features {place}: {wrong}.",
            f"Pass the file that belongs to {where}, or name the data set whose classes stand in its order: --data",
        )
    return f"Each of the {len(names)} rows of {place} is nearest to its own class name."


def read_rows(place: str) -> Tensor:
    """Read (K, D) float32 from FILE.npy or FILE.npz:KEY.

    Raises:
        UsageError: No such entry, or it is no table of numbers.
        MachineError: The file is missing or broken.
    """
    name, _, key = place.partition(".npz:")
    path = Path(f"{name}.npz" if key else place)
    if not path.is_file():
        raise MachineError(f"--text-features {place}: there is no such file.", "Check the path.")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            found = _entry(found, key, path)
    except (OSError, ValueError, EOFError) as error:
        raise MachineError(f"--text-features {place}: cannot be read as numbers of numpy ({error}).") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind != "f" or not found.size:
        shape = getattr(found, "shape", ())
        raise UsageError(f"--text-features {place}: holds {shape}, no table (K, D) of numbers with a point.")
    if not np.isfinite(found).all():
        raise UsageError(f"--text-features {place}: holds values that are no numbers.", "Pass another file.")
    return torch.from_numpy(found.astype(np.float32))


def _entry(archive: "np.lib.npyio.NpzFile", key: str, path: Path) -> "np.ndarray":
    if key not in archive.files:
        known = ", ".join(archive.files)
        raise UsageError(f"--text-features: {path} holds {known}.", f"Name one: --text-features {path}:KEY")
    return archive[key]
