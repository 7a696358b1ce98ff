"""What `ovseg propose` will do, resolved and checked before anything heavy is loaded. Imports no torch."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core import registry
from ovseg_cli.core.data.check import is_training
from ovseg_cli.core.errors import DataError, UsageError, unknown_name
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.build import ModelChoice, check_settings, choose_model
from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator, settings_digest
from ovseg_cli.core.proposals.caches import cache_folder
from ovseg_cli.core.proposals.host import HostConfig, HostGenerator
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import is_run_path
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
    from ovseg_cli.core.data.specs import DataChoice

BYTES_A_MASK = 400
"""Of a binary mask in the cache: measured 250 (toy world) to 600 (480 x 640) for superpixels."""
SOFT_BYTES_A_PIXEL = 0.35
"""Of a soft mask in the cache, per value of its grid, compressed."""


@dataclass(frozen=True)
class ProposeRequest:
    """Options of `ovseg propose`, as typed; the fields are explained in its help."""

    generator: str
    data: str | None = None
    subset: str = "train"
    unseen: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None
    gpus: int | None = None
    limit: int | None = None
    force: bool = False


@dataclass(frozen=True)
class ProposePlan:
    """A request whose names all exist.

    Attributes:
        request: What was asked.
        data: Data set and class split.
        name: The generator's name in the cache: as typed, or the method of a run.
        config: Its settings, checked.
        labels: Class split whose seen-only labels the masks are made from; None: all labels, or none at all.
        uses_labels: Whether masks are made from labels.
        model: The run that makes the masks, None for a registered generator.
        images: Pictures of the subset.
        chosen: Pictures that are asked for.
    """

    request: ProposeRequest
    data: "DataChoice"
    name: str
    config: GeneratorConfig
    uses_labels: bool
    labels: str | None
    model: ModelChoice | None
    images: int
    chosen: int

    @property
    def generator_class(self) -> type[ProposalGenerator]:
        """The generator."""
        return HostGenerator if self.model else registry.PROPOSALS[self.name].load()

    def pictures(self, folders: Folders) -> "SegmentationData":
        """Open the subset, with the labels that may be seen; without any where the masks are not made from labels."""
        from ovseg_cli.core.data.dataset import PreparedData

        prepared = PreparedData.open(self.data.spec, folders)
        return prepared.subset(self.request.subset, self.data.split if self.labels else None, self.uses_labels)

    def digest(self, weights: str | None = None, vocabulary: str | None = None) -> str:
        """Fingerprint of generator, settings, weights, vocabulary and class split: what names the cache's folder."""
        own = settings_digest(self.generator_class, self.config, weights, vocabulary)
        return digest_of([self.name, own, self.labels or ""])

    def key(self, pictures: "SegmentationData", weights: str | None, vocabulary: str | None) -> dict[str, Any]:
        """Return the manifest of the cache."""
        return {
            "generator": self.name,
            "version": self.generator_class.version,
            "settings": self.config.model_dump(mode="json"),
            "weights": weights,
            "vocabulary": vocabulary,
            "labels": self.labels,
            "data": self.data.spec.name,
            "subset": self.request.subset,
            "data_fingerprint": pictures.data.subset_fingerprint(pictures.name),
            "images": len(pictures),
            "command": self.command(),
        }

    def folder(self, folders: Folders, weights: str | None = None, vocabulary: str | None = None) -> Path:
        """Return the folder of the cache."""
        digest = self.digest(weights, vocabulary)
        return cache_folder(folders, self.data.spec.name, self.name, digest, self.request.subset)

    def command(self) -> str:
        """Return what the user types to make these proposals; without `--limit`, workers and devices."""
        words = ["ovseg", "propose", self.request.generator, "--data", self.data.label, "--subset", self.request.subset]
        if self.request.unseen:
            words[4:5] = [self.data.spec.name, "--unseen", self.request.unseen]
        defaults = type(self.config)().model_dump(mode="json")
        for key, value in self.config.model_dump(mode="json").items():
            if value != defaults[key]:
                words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        return shlex.join(words)

    def document(self, folders: Folders) -> dict[str, Any]:
        """The plan for `--dry-run`: folder, counts, memory and disk (both estimated)."""
        pictures = self.pictures(folders)
        name, subset = self.data.spec.name, self.request.subset
        folder = None if self.generator_class.needs_weights else self.folder(folders)
        sizes = [h * w for h, w in pictures.sizes[: self.chosen]]
        largest, masks = max(sizes, default=0), self.config.max_masks
        return {
            "schema": 1,
            "generator": self.name,
            "data": self.data.label,
            "subset": subset,
            "folder": str(folder or cache_folder(folders, name, self.name, "KEY8", subset)),
            "images": self.chosen,
            "left": self.chosen - min(self.chosen, _count(folder)),
            "workers": self.request.workers,
            "settings": self.config.model_dump(mode="json"),
            "labels": _labels_in_words(self),
            "memory_mib": round((16 if self.generator_class.reads_originals else masks * 6) * largest / 2**20),
            "disk_mib": round(self.chosen * masks * self._bytes_a_mask(sizes) / 2**20, 1),
        }

    def _bytes_a_mask(self, sizes: list[int]) -> float:
        if self.generator_class.reads_originals:
            return 0
        if isinstance(self.config, HostConfig):
            return SOFT_BYTES_A_PIXEL * sum(sizes) / max(1, len(sizes)) / self.config.stride**2
        return BYTES_A_MASK


def _labels_in_words(plan: ProposePlan) -> str | None:
    if not plan.uses_labels:
        return None
    return f"seen classes of {plan.data.label}" if plan.labels else "all classes"


def _count(folder: Path | None) -> int:
    from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore

    return len(ProposalStore.open(folder)) if folder and (folder / MANIFEST).exists() else 0


def resolve(request: ProposeRequest, folders: Folders, reporter: Reporter) -> ProposePlan:
    """Check every name of a request and look up what it leaves open.

    Raises:
        UsageError: An unknown generator, setting, data set, class split or subset; a run without masks.
        DataError: The data set is not prepared, or has no labels where they are needed.
    """
    from ovseg_cli.core.data.dataset import PreparedData

    name, model, generator_class = _generator(request.generator, folders)
    config = check_settings(generator_class.Config, request.settings, name)
    data = choose_data(request.data, request.unseen, folders, reporter)
    prepared = PreparedData.open(data.spec, folders)
    if request.subset not in prepared.subsets:
        raise unknown_name(f"subset of {data.spec.name}", request.subset, prepared.subsets)
    images = prepared.subsets[request.subset]
    labels = None
    if generator_class.needs_labels:
        labels = _label_split(config, data, request.subset, prepared, name)
    chosen = min(images, request.limit) if request.limit else images
    return ProposePlan(request, data, name, config, generator_class.needs_labels, labels, model, images, chosen)


def _generator(typed: str, folders: Folders) -> tuple[str, ModelChoice | None, type[ProposalGenerator]]:
    if is_run_path(typed):
        model = choose_model(typed, folders.runs)
        method_class = registry.METHODS[model.method].load()
        if not hasattr(method_class, "propose"):
            raise UsageError(
                f"{typed}: a run of {model.method} makes no masks.", "Name a run of freeseg, zegformer or zsseg."
            )
        return model.method, model, HostGenerator
    if typed in registry.METHODS:
        raise UsageError(
            f"'{typed}' is a method, not a generator of proposals.",
            f"If it makes masks, name the folder of a run: ovseg propose runs/{typed}-…",
        )
    return typed, None, registry.lookup(registry.PROPOSALS, "generator of proposals", typed).load()


def choose_data(label: str | None, unseen: str | None, folders: Folders, reporter: Reporter) -> "DataChoice":
    """Resolve `--data` and `--unseen`; without `--data` the data set prepared last is taken, and that is said.

    Raises:
        UsageError: An unknown name.
        DataError: No data set is prepared.
    """
    from ovseg_cli.core.data.dataset import last_prepared
    from ovseg_cli.core.data.find import find_data

    if label is None:
        label = last_prepared(folders)
        if label is None:
            raise DataError(
                f"no data set is prepared in {folders.data}/, and --data names none.", "Start with: ovseg prepare toy"
            )
        reporter.say(f"--data not given: taking the data set prepared last, {label}")
    return find_data(label, unseen, folders)


def _label_split(
    config: GeneratorConfig, data: "DataChoice", subset: str, prepared: "PreparedData", name: str
) -> str | None:
    """Fingerprint of the class split whose seen classes' labels are used; None: the labels of all classes."""
    if not prepared.subset(subset).has_labels:
        raise DataError(f"{data.spec.name}, subset '{subset}', has no labels, which {name} needs.", "Choose another.")
    classes = getattr(config, "classes", "auto")
    if classes == "seen" and data.split is None:
        raise UsageError(
            f"classes = seen: {data.spec.name} has no class split, all of its classes count as seen.",
            'Make one of your own with --unseen "a, b".',
        )
    seen_only = classes == "seen" or (classes == "auto" and is_training(subset))
    return f"{data.split.id} {data.split.digest()}" if seen_only and data.split else None


def generator_of(plan: ProposePlan, folders: Folders, reporter: Reporter) -> Callable[[str], ProposalGenerator]:
    """Return what builds the generator on a device, in any process."""
    if plan.model is None:
        return partial(_registered_generator, plan.name, plan.config, reporter)
    return partial(_host_generator, plan, folders)


def _registered_generator(name: str, config: GeneratorConfig, reporter: Reporter, device: str) -> ProposalGenerator:
    generator: ProposalGenerator = registry.PROPOSALS[name].load()(config, device, reporter)
    return generator


def _host_generator(plan: ProposePlan, folders: Folders, device: str) -> HostGenerator:
    from ovseg_cli.core.methods.build import build_method
    from ovseg_cli.core.methods.texts import default_templates, method_text, training_vocabulary

    assert plan.model is not None and isinstance(plan.config, HostConfig)
    method = build_method(plan.model, device)
    kept = plan.model.run.config.get("vocabulary", {}).get("templates") if plan.model.run else None
    templates = kept or default_templates(type(method), plan.data.spec.preset.templates)
    vocabulary = plan.data.spec.vocabulary(plan.data.split, templates)
    if is_training(plan.request.subset):
        vocabulary = training_vocabulary(vocabulary)
    return HostGenerator(method, method_text(method, vocabulary, folders.cache), vocabulary.digest(), plan.config)
