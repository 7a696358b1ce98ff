"""How does a model become counts? Pictures in batches, each predicted once and read under every protocol asked for."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.evaluation.chance import CHANCE_IMAGES, check_chance
from ovseg_cli.core.evaluation.confusion import Counts, add, count
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.journal import Journal
from ovseg_cli.core.evaluation.prefetch import ScoredData, reading
from ovseg_cli.core.evaluation.results import Facts, Result
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.nn.label_maps import label_maps
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.training.group import ONE, Group
from ovseg_cli.core.types import Prediction, Readout, Sample, TextFeatures, Vocabulary

STAGES = ("load", "predict", "label_map", "count")

Batch = tuple[list[Sample], float]  # pictures, and the seconds that they were waited for


class Predicts(Protocol):
    """The verb of a method that an evaluation needs."""

    def predict(self, images: Sequence[Tensor], text: TextFeatures) -> list[Prediction]:
        """Score pictures against names."""


@torch.no_grad()
def evaluate(
    method: Predicts,
    data: ScoredData,
    vocabulary: Vocabulary,
    text: TextFeatures,
    readouts: Mapping[str, Readout],
    facts: Facts,
    reporter: Reporter,
    *,
    batch_size: int = 4,
    limit: int | None = None,
    force: bool = False,
    journal: Path | None = None,
    group: Group = ONE,
) -> dict[str, Result]:
    """Score a model on labelled pictures; every readout shares the one forward pass of a picture.

    Several processes take turns with the batches that one would make, none twice and none to fill up, so that the
    counts are those of one process, exactly.

    Args:
        method: Model, in evaluation mode and on its device.
        data: Labelled pictures; labels are train ids or `data.ignore_label`.
        vocabulary: K classes and their flags.
        text: Features of the vocabulary, on the model's device.
        readouts: Protocols by name; the first is the one that is checked against chance.
        facts: What the caller knows. Its `protocol` is completed by each readout, its protocol fingerprint made anew.
        reporter: Receives progress and warnings.
        batch_size: Pictures that are given to the method at once.
        limit: Only the first pictures.
        force: Go on although the first pictures score below chance.
        journal: File that keeps finished pictures, so that the same call continues after an interruption. Delete it
            when the results are saved (`remove_journal`).
        group: The processes that score together; each calls this, with the same model, and gets the results.

    Returns:
        One result a readout. `timing` holds seconds of `STAGES`; "load" is what had to be waited for, since the next
        batch is read while one is predicted; of several processes it is the sum.

    Raises:
        DataError: A picture has no label or a wrong one, or the first pictures score below chance.
        UsageError: There is no picture.
    """
    names = list(data.names)[:limit]
    if not names:
        raise UsageError(f"{facts.data}: subset {facts.subset} has no picture to score.")
    facts_of = {name: _completed(facts, readout, vocabulary) for name, readout in readouts.items()}
    key = group.broadcast(_key(facts_of))
    with Journal(journal, key, vocabulary.num_classes, group.rank) as done:
        todo = group.broadcast([i for i, name in enumerate(names) if set(done.counts.get(name, ())) != set(readouts)])
        if len(todo) < len(names):
            reporter.say(f"{len(names) - len(todo)} of {len(names)} pictures were scored before: going on from there")
        plan = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
        own = plan[group.rank :: group.world_size]
        first = _number_of_first(plan, len(names) - len(todo), len(names))
        own_first = len(plan[:first][group.rank :: group.world_size])
        main = next(iter(readouts))

        def check() -> None:
            """Compare with chance once the first pictures are done, by whatever process."""
            parts = [part[main] for part in done.counts.values()]
            found = group.gather((len(parts), add(parts, vocabulary.num_classes)))
            matrix = np.sum([matrix for _, matrix in found], axis=0)
            who = f"{facts.method} on {facts.data}"
            check_chance(matrix, sum(number for number, _ in found), readouts[main], who, reporter)

        def score(batches: Iterable[Batch]) -> Iterator[Sample]:
            """Score batch by batch; gives back each picture when it is done."""
            if own_first == 0 and plan and not force:
                check()
            for number, batch in enumerate(batches, 1):
                _score_batch(method, batch, text, readouts, data.ignore_label, done)
                if number == own_first and not force:
                    check()
                yield from batch[0]

        with reading(data, own) as batches:
            for _ in reporter.track(score(batches), f"scoring {facts.data}", total=sum(map(len, own))):
                pass
    done.take_in(group.gather((done.counts, done.timing)))
    return {name: _result(facts_of[name], name, names, done, vocabulary, data.ignore_label) for name in readouts}


def _number_of_first(plan: Sequence[Sequence[int]], num_done: int, num_images: int) -> int:
    """Return how many batches it takes until there are enough pictures to compare with chance."""
    enough, number = min(CHANCE_IMAGES, num_images), 0
    while number < len(plan) and (number == 0 or num_done < enough):
        num_done += len(plan[number])
        number += 1
    return number


def _key(facts_of: Mapping[str, Facts]) -> str:
    """Return a digest of all that changes counts; the same scores asked for by another command continue as well."""
    parts = [
        (name, f.method, f.data, f.subset, f.seed, f.fingerprints, f.environment.get("device"))
        for name, f in facts_of.items()
    ]
    return digest_of([__version__, json.dumps(parts, sort_keys=True)])


class _Clock:
    """Seconds by stage; waits for the GPU so that its work counts where it was asked for."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.spent[name] += time.perf_counter() - start


def _score_batch(
    method: Predicts,
    batch: Batch,
    text: TextFeatures,
    readouts: Mapping[str, Readout],
    ignore_label: int,
    done: Journal,
) -> None:
    samples, waited = batch
    labels = [_label_of(sample) for sample in samples]
    clock = _Clock()
    clock.spent["load"] = waited
    with clock.stage("predict"):
        predictions = method.predict([sample.image for sample in samples], text)
    for sample, label, prediction in zip(samples, labels, predictions, strict=True):
        height, width = label.shape
        with clock.stage("label_map"):  # scores are brought to the label's size, never the label to theirs
            sized = replace(prediction, size=(height, width))
            maps = label_maps(sized, list(readouts.values()), text.class_of_row, text.num_classes)
        with clock.stage("count"):
            counts = [count(ids, label, text.num_classes, ignore_label, sample.name) for ids in maps]
        done.add(sample.name, dict(zip(readouts, counts, strict=True)))
    done.spend(clock.spent)


def _label_of(sample: Sample) -> Tensor:
    if sample.label is None:
        raise DataError(
            f"{sample.name}: this picture has no label, so it cannot be scored.", "Choose another --subset."
        )
    return sample.label


def _completed(facts: Facts, readout: Readout, vocabulary: Vocabulary) -> Facts:
    """Put a readout into the protocol and its fingerprint."""
    protocol = {**facts.protocol, **describe_readout(readout, vocabulary)}
    digest = digest_of([json.dumps(protocol, sort_keys=True), facts.fingerprints.get("protocol", "")])
    return replace(facts, protocol=protocol, fingerprints={**facts.fingerprints, "protocol": digest})


def describe_readout(readout: Readout, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a readout as plain JSON values; candidates are "all", "seen", "unseen" or a list of train ids."""
    sets = {"seen": vocabulary.seen_ids, "unseen": vocabulary.unseen_ids}
    candidates: str | list[int] = "all"
    if readout.candidates is not None:
        ids = sorted(readout.candidates)
        candidates = next((name for name, members in sets.items() if ids == members), ids)
        candidates = "all" if ids == list(range(vocabulary.num_classes)) else candidates
    return {
        "candidates": candidates,
        "seen_penalty": readout.seen_penalty,
        "background_threshold": readout.threshold,
        "softmax_scale": readout.softmax_scale,
    }


def read_readout(protocol: Mapping[str, Any], vocabulary: Vocabulary) -> Readout:
    """Return the readout that a stored protocol describes; the other way round than `describe_readout`."""
    sets = {"all": None, "seen": tuple(vocabulary.seen_ids), "unseen": tuple(vocabulary.unseen_ids)}
    candidates, threshold = protocol.get("candidates", "all"), protocol.get("background_threshold")
    penalty = float(protocol.get("seen_penalty") or 0.0)
    return Readout(
        candidates=sets[candidates] if isinstance(candidates, str) else tuple(candidates),
        seen_penalty=penalty,
        seen_ids=tuple(vocabulary.seen_ids) if penalty else (),
        softmax_scale=protocol.get("softmax_scale"),
        threshold=threshold,
        background=None if threshold is None else vocabulary.background,
    )


def _result(
    facts: Facts, name: str, names: Sequence[str], done: Journal, vocabulary: Vocabulary, ignore_label: int
) -> Result:
    parts: list[Counts] = [done.counts[image][name] for image in names]
    return Result(
        **{field: getattr(facts, field) for field in facts.__dataclass_fields__},
        class_names=vocabulary.class_names,
        unseen=tuple(vocabulary.unseen),
        is_thing=vocabulary.is_thing,
        background=vocabulary.background,
        ignore_label=ignore_label,
        counts=CountTable.of(names, parts, vocabulary.num_classes),
        timing=dict(done.timing),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
