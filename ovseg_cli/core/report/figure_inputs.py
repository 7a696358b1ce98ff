"""What `ovseg report RUN… --figures` draws from: the runs that were named, and pictures with labels."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError, UsageError, unknown_name
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
    limit: int = LIMIT
    proposals: str | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class FigureReport:
    """What was found: a table, and the pictures that were drawn."""

    table: Table
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class Pictures:
    """What models are measured on."""

    choice: "DataChoice"
    data: "SegmentationData"
    store: "ProposalStore | None" = None

    def stem(self, figure: str) -> str:
        """Stem of the files of a figure: FIGURE-DATA-SUBSET."""
        label = Path(self.choice.label.replace(":", "-").replace("/", "-")).name
        return f"{figure}-{label}-{self.data.name}" + ("-proposals" if self.store else "")


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


def pictures_of(request: FigureRequest, run: Run, folders: Folders) -> Pictures:
    """Open the data of a request; where it names none, those of a run.

    Raises:
        UsageError: An unknown data set or subset, or one without classes.
        DataError: It is not prepared, or has no labels.
    """
    from ovseg_cli.core.data.find import find_data

    label, unseen = (request.data, None) if request.data else run.data
    choice = find_data(label, unseen, folders)
    return open_pictures(choice, request.subset, request.limit, request.proposals, folders)


def open_pictures(
    choice: "DataChoice", subset: str | None, limit: int, proposals: str | None, folders: Folders
) -> Pictures:
    """Open the first `limit` pictures of a subset, by default the one that is scored, and a cache of proposals."""
    from ovseg_cli.core.data.dataset import PreparedData
    from ovseg_cli.core.proposals.caches import find_cache

    if choice.spec.task != "semantic":
        raise UsageError(f"{choice.spec.name} holds masks without classes: there is nothing to name.")
    prepared, subset = PreparedData.open(choice.spec, folders), subset or SCORE_SUBSET
    if subset not in prepared.subsets:
        raise unknown_name(f"subset of {choice.spec.name}", subset, prepared.subsets)
    data = prepared.subset(subset)
    if not data.has_labels:
        raise DataError(f"{choice.spec.name}, subset '{subset}', has no label maps.", "Choose another --subset.")
    store = None if proposals is None else find_cache(proposals, choice.spec.name, subset, folders)
    if store is not None:
        store.require({"data_fingerprint": data.fingerprint})
    return Pictures(choice, data.select(range(min(limit, len(data)))), store)


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
