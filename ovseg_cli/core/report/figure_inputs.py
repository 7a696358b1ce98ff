"""What `ovseg report RUN… --figures` draws from: the runs that were named, and pictures with labels."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError, UsageError, nearest, unknown_name
from ovseg_cli.core.evaluation.mask_sensitivity import LIMIT
from ovseg_cli.core.evaluation.request import SCORE_SUBSET
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.build import ModelChoice
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.runs import Run, find_run
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import SegmentationData
    from ovseg_cli.core.data.splits import DataChoice
    from ovseg_cli.core.methods.base import Method
    from ovseg_cli.core.proposals.store import ProposalStore
    from ovseg_cli.core.types import Vocabulary

_OF_SOURCE = ("proposals", "proposal_settings")  # settings that play no part where masks are given
_MOST_SETTINGS = 2  # in a caption


@dataclass(frozen=True)
class FigureRequest:
    """Options of `ovseg report --figures`, as typed; the fields are explained in its help."""

    runs: tuple[str, ...]
    data: str | None = None
    subset: str | None = None
    out: Path | None = None
    limit: int | None = None
    proposals: str | None = None
    gpus: int | None = None
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class FigureReport:
    """What was found.

    Attributes:
        table: The main table.
        pictures: Those that were drawn.
        further: Tables below the main one.
        details: Tables too long to read: in CSV and JSON alone.
    """

    table: Table
    pictures: tuple[Path, ...]
    further: tuple[Table, ...] = ()
    details: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """What models are measured on.

    Attributes:
        choice: Data set and class split.
        data: The pictures; those that were asked for by name come first.
        store: Their proposals, where a cache was named.
        named: How many were asked for by name.
    """

    choice: "DataChoice"
    data: "SegmentationData"
    store: "ProposalStore | None" = None
    named: int = 0

    def drawn(self, most: int) -> list[int]:
        """Places of the pictures to draw: those that were named, else at most so many, evenly spread."""
        if self.named:
            return list(range(self.named))
        count = min(most, len(self.data))
        return [i * len(self.data) // count for i in range(count)]

    @property
    def place(self) -> str:
        """Data set, subset and number of pictures, for titles."""
        count = len(self.data)
        return f"{self.choice.label} {self.data.name}, {count} picture{'s' if count > 1 else ''}"

    def stem(self, figure: str) -> str:
        """Stem of the files of a figure: FIGURE-DATA-SUBSET."""
        label = Path(self.choice.label.replace(":", "-").replace("/", "-")).name
        return f"{figure}-{label}-{self.data.name}" + ("-proposals" if self.store else "")

    def path(self, figure: str, out: Path | None, run: Path, several: bool) -> Path:
        """File of a figure of one run: in its folder, or in `out`, where those of several runs have their names."""
        name = self.stem(figure) + (f"-{run.name}" if out and several else "")
        return (out or run) / f"{name}.png"


def named_runs(request: FigureRequest, folders: Folders) -> list[Run]:
    """Open the runs of a request, each once.

    Raises:
        UsageError: One of them is no run.
    """
    runs = [_run(name, folders) for name in request.runs]
    return list({run.path: run for run in runs}.values())


def _run(name: str, folders: Folders) -> Run:
    if name != "latest" and Path(name).is_file():
        raise UsageError(f"{name}: this is a file; --figures builds models, which takes run folders.")
    return find_run(name, folders.runs)


def pictures_of(request: FigureRequest, run: Run, folders: Folders, most: int = LIMIT) -> Pictures:
    """Open the labelled pictures of a request; where it names no data, those of a run.

    Args:
        request: The request.
        run: Its first run.
        folders: Where data lies.
        most: How many pictures are taken where the request does not say.

    Raises:
        UsageError: An unknown data set, subset or picture, or a data set without classes.
        DataError: It is not prepared, or has no labels.
    """
    limit = request.limit or most
    choice = choice_of(request, run, folders)
    return open_pictures(choice, request.subset, limit, request.proposals, folders, request.pictures)


def choice_of(request: FigureRequest, run: Run, folders: Folders) -> "DataChoice":
    """Return the data set and class split of a request; where it names none, those of a run."""
    from ovseg_cli.core.data.find import find_data

    label, unseen = (request.data, None) if request.data else run.data
    return find_data(label, unseen, folders)


def open_pictures(
    choice: "DataChoice",
    subset: str | None,
    limit: int,
    proposals: str | None,
    folders: Folders,
    names: Sequence[str] = (),
) -> Pictures:
    """Open the first `limit` labelled pictures of a subset, by default the one that is scored, and their proposals."""
    from ovseg_cli.core.proposals.caches import find_cache

    if choice.spec.task != "semantic":
        raise UsageError(f"{choice.spec.name} holds masks without classes: there is nothing to name.")
    data = _subset(choice, subset, folders)
    if not data.has_labels:
        raise DataError(f"{choice.spec.name}, subset '{data.name}', has no label maps.", "Choose another --subset.")
    store = None if proposals is None else find_cache(proposals, choice.spec.name, data.name, folders)
    if store is not None:
        store.require({"data_fingerprint": data.fingerprint})
    chosen, named = _chosen(data, limit, names)
    return Pictures(choice, chosen, store, named)


def any_pictures(
    choice: "DataChoice",
    subset: str | None,
    limit: int,
    folders: Folders,
    names: Sequence[str] = (),
    prefer: str = SCORE_SUBSET,
) -> Pictures:
    """Open pictures that need neither labels nor classes.

    Args:
        choice: Data set.
        subset: Its subset; None takes the preferred one; where a data set without classes has none of that
            name, the first.
        limit: How many pictures at most.
        folders: Where data lies.
        names: Pictures that are wanted, whatever the limit.
        prefer: Name of a subset.

    Raises:
        UsageError: An unknown subset or picture.
        DataError: The data set is not prepared.
    """
    chosen, named = _chosen(_subset(choice, subset, folders, prefer), limit, names)
    return Pictures(choice, chosen, named=named)


def _subset(
    choice: "DataChoice", subset: str | None, folders: Folders, prefer: str = SCORE_SUBSET
) -> "SegmentationData":
    from ovseg_cli.core.data.dataset import PreparedData

    prepared = PreparedData.open(choice.spec, folders)
    if subset is None and choice.spec.task != "semantic":
        prefer = prefer if prefer in prepared.subsets else next(iter(prepared.subsets), prefer)
    subset = subset or prefer
    if subset not in prepared.subsets:
        raise unknown_name(f"subset of {choice.spec.name}", subset, prepared.subsets)
    return prepared.subset(subset)


def _chosen(data: "SegmentationData", limit: int, names: Sequence[str]) -> "tuple[SegmentationData, int]":
    """Take the named pictures, then the first others until there are `limit`; and how many were named."""
    places = {name: i for i, name in enumerate(data.names)}
    first = list(dict.fromkeys(_place_of(name, places, data) for name in names))
    others = [i for i in range(min(len(data), limit)) if i not in first]
    return data.select([*first, *others[: max(0, limit - len(first))]]), len(first)


def _place_of(name: str, places: dict[str, int], data: "SegmentationData") -> int:
    for known in (name, name.rpartition(".")[0]):
        if known in places:
            return places[known]
    where = f"{data.spec.name}, subset '{data.name}', has no picture '{name}'."
    hit = nearest(name, places)
    raise UsageError(where, f"Did you mean '{hit}'?" if hit else f"One of them is '{next(iter(places))}'.")


def captions_of(choices: Sequence[ModelChoice]) -> list[str]:
    """Name models by their methods; those of one method by the settings that they differ in, else by their runs."""
    titles = [METHODS[choice.method].title + (" (frozen)" if choice.method == "ipclip" else "") for choice in choices]
    captions = list(titles)
    for title, count in Counter(titles).items():
        places = [i for i, other in enumerate(titles) if other == title]
        if count > 1:
            for i, words in zip(places, _differences([choices[i] for i in places]), strict=True):
                captions[i] = title + words
    return captions


def _differences(rivals: Sequence[ModelChoice]) -> list[str]:
    """What sets models of one method apart: a few settings, or the names of their folders."""
    tables = [{**(c.run.config.get("training", {}) if c.run else {}), **c.settings} for c in rivals]
    keys = [key for key in dict.fromkeys(key for table in tables for key in table) if key not in _OF_SOURCE]
    differing = [key for key in keys if len({repr(table.get(key)) for table in tables}) > 1]
    words = ["".join(f", {key} {table.get(key, 'default')}" for key in differing) for table in tables]
    if len(set(words)) == len(words) and len(differing) <= _MOST_SETTINGS:
        return words
    return [f" {c.run.path.name}" if c.run else f" {number}" for number, c in enumerate(rivals, start=1)]


def fingerprints_of(method: "Method", vocabulary: "Vocabulary", pictures: Pictures) -> dict[str, str]:
    """What a measurement depends on, beside the masks that it is made with."""
    return {
        "data": pictures.data.fingerprint,
        "weights": method.digest,
        "settings": digest_of([json.dumps(method.config.model_dump(mode="json"), sort_keys=True)]),
        "vocabulary": vocabulary.digest(),
        "unseen": digest_of(["unseen-1", *(str(flag) for flag in vocabulary.unseen)]),
        "version": __version__,
    }
