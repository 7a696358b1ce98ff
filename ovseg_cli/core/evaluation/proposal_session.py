"""What `ovseg eval --task proposals` does: find a cache, compare it with the label maps, keep the scores beside it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError, UsageError, unknown_name
from ovseg_cli.core.evaluation.proposal_quality import LIMITS, THRESHOLDS, QualityCounts, regions_of, score_image
from ovseg_cli.core.files import write_json
from ovseg_cli.core.methods.build import check_settings
from ovseg_cli.core.proposals.caches import find_cache
from ovseg_cli.core.proposals.entry import Entry
from ovseg_cli.core.proposals.formats import binary_codes
from ovseg_cli.core.proposals.request import choose_data
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import is_run_path, typed_command
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import SegmentationData
    from ovseg_cli.core.data.specs import DataChoice

METRICS = (*(f"AR@{limit}" for limit in LIMITS), "best-IoU", "mIoU")
SCORE_SUBSET = "val"


class QualityConfig(BaseModel):
    """Settings of the scoring of proposals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    regions: Literal["class", "component"] = Field(
        default="class", description="A region is all pixels of a class in a picture, or each connected piece of them."
    )


@dataclass(frozen=True)
class QualityRequest:
    """Options of `ovseg eval --task proposals`, as typed."""

    proposals: str | None
    data: str | None = None
    unseen: str | None = None
    subset: str | None = None
    split: str = "all"
    settings: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None


@dataclass(frozen=True)
class QualityPlan:
    """A request whose names all exist."""

    request: QualityRequest
    config: QualityConfig
    data: "DataChoice"
    pictures: "SegmentationData"
    store: ProposalStore

    @property
    def path(self) -> Path:
        """File of the scores."""
        limit = f"-first{self.request.limit}" if self.request.limit else ""
        label = self.data.label.replace(":", "-").replace("/", "-")
        stem = f"{label}-{self.pictures.name}-proposals-{self.config.regions}{limit}"
        return self.store.folder / "results" / f"{stem}.json"

    def document(self) -> dict[str, Any]:
        """The plan for `--dry-run`."""
        return {
            "schema": 1,
            "task": "proposals",
            "proposals": str(self.store.folder),
            "data": self.data.label,
            "subset": self.pictures.name,
            "images": len(self.pictures),
            "regions": self.config.regions,
            "result": str(self.path),
        }


@dataclass(frozen=True)
class Quality:
    """Scores of a set of proposals: the document that is kept, and its file."""

    document: dict[str, Any]
    path: Path

    def group(self, name: str) -> dict[str, Any]:
        """Scores of "all", "seen" or "unseen"."""
        found: dict[str, Any] = self.document["groups"][name]
        return found


def resolve(request: QualityRequest, folders: Folders, reporter: Reporter) -> QualityPlan:
    """Check every name of a request.

    Raises:
        UsageError: An unknown name, or `--split` without a class split.
        DataError: No such cache, data that is not prepared, or that has changed since the masks were made.
    """
    from ovseg_cli.core.data.dataset import PreparedData

    if request.proposals is None:
        raise UsageError("--task proposals: say which.", "Add --proposals CACHE|GENERATOR; see: ovseg list proposals")
    config = check_settings(QualityConfig, request.settings, "proposals")
    label, subset = _from_cache(request)
    data = choose_data(label, request.unseen, folders, reporter)
    if request.split != "all" and data.split is None:
        raise UsageError(
            f"--split: {data.spec.name} has no class split, all of its classes count as seen.",
            'Make one of your own with --unseen "a, b".',
        )
    prepared = PreparedData.open(data.spec, folders)
    if subset not in prepared.subsets:
        raise unknown_name(f"subset of {data.spec.name}", subset, prepared.subsets)
    pictures = prepared.subset(subset)
    if not pictures.has_labels or data.spec.task != "semantic":
        raise DataError(
            f"{data.spec.name}, subset '{subset}', has no label maps.", "Choose another --data or --subset."
        )
    store = find_cache(request.proposals, data.spec.name, subset, folders)
    store.require({"data_fingerprint": pictures.fingerprint})
    return QualityPlan(request, config, data, pictures.select(range(_count(request, pictures))), store)


def _count(request: QualityRequest, pictures: "SegmentationData") -> int:
    return min(len(pictures), request.limit) if request.limit else len(pictures)


def _from_cache(request: QualityRequest) -> tuple[str | None, str]:
    """Data and subset where the command names none: those of the cache, if it is named by its folder."""
    assert request.proposals is not None
    path = Path(request.proposals)
    if not is_run_path(request.proposals) or not (path / MANIFEST).is_file():
        return request.data, request.subset or SCORE_SUBSET
    manifest = ProposalStore.open(path).manifest
    return request.data or manifest.get("data"), request.subset or str(manifest.get("subset"))


def score(plan: QualityPlan, reporter: Reporter) -> Quality:
    """Score a set of proposals and keep the scores under the folder of the cache.

    Raises:
        DataError: A picture has no entry, or a broken one.
    """
    spec, pictures = plan.data.spec, plan.pictures
    counts = QualityCounts(spec.num_classes)
    what = f"proposals of {spec.name} {pictures.name}"
    for index, picture in enumerate(reporter.track(pictures.entries, what)):
        label = pictures.label(index)
        assert label is not None
        entry = plan.store.read_entry(picture.stem)
        _require_size(entry, label, plan.store)
        found = regions_of(label, pictures.ignore_label, plan.config.regions)
        counts.add(score_image(binary_codes(entry), entry.scores, found))
    document = _document(plan, counts)
    write_json(plan.path, document)
    return Quality(document, plan.path)


def _require_size(entry: Entry, label: np.ndarray, store: ProposalStore) -> None:
    if entry.size != label.shape:
        have, said = (f"{h} x {w}" for h, w in (entry.size, label.shape))
        raise DataError(f"{store.folder}: the masks of '{entry.name}' are {have}, the image is {said}.", store.mend)


def _document(plan: QualityPlan, counts: QualityCounts) -> dict[str, Any]:
    spec, split = plan.data.spec, plan.data.split
    seen, unseen = spec.seen_ids(split), spec.unseen_ids(split)
    groups = {"all": list(range(spec.num_classes)), "seen": seen, "unseen": unseen}
    names = spec.class_names
    classes = [
        {"id": i, "class": names[i], "unseen": i in set(unseen), **_plain(counts.scores([i]))} for i in groups["all"]
    ]
    return {
        "schema": 1,
        "kind": "ovseg-proposal-quality",
        "generator": plan.store.generator,
        "proposals": str(plan.store.folder),
        "data": plan.data.label,
        "subset": plan.pictures.name,
        "images": counts.images,
        "proposals_an_image": round(counts.proposals / max(1, counts.images), 2),
        "protocol": {
            "regions": plan.config.regions,
            "thresholds": list(THRESHOLDS),
            "matching": "COCO: proposals by descending score, each takes the free region it overlaps most",
            "limit": plan.request.limit,
        },
        "fingerprints": {"data": plan.pictures.data.fingerprint, "proposals": plan.store.digest},
        "groups": {name: _plain(counts.scores(ids)) for name, ids in groups.items()},
        "classes": [row for row in classes if row["regions"]],
        "command": typed_command(),
        "version": __version__,
    }


def _plain(scores: dict[str, Any]) -> dict[str, Any]:
    """Return scores in percent, rounded."""
    return {key: round(100 * value, 4) if isinstance(value, float) else value for key, value in scores.items()}
