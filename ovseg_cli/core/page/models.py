"""How is a stored result made again on a few pictures? Its data and its model, checked against its fingerprints."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.evaluate import read_readout
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.methods.build import build_method, choose_model
from ovseg_cli.core.methods.texts import method_text
from ovseg_cli.core.page.rows import Member
from ovseg_cli.core.report.labelling import Labelled, label_pictures
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    import torch

    from ovseg_cli.core.data.splits import DataChoice
    from ovseg_cli.core.methods.base import Method

OF_A_RUN = "run of "  # begins what a protocol says of masks that a run makes, whichever run that is


def scored_pictures(result: Result, names: Sequence[str], folders: Folders) -> tuple["DataChoice", SegmentationData]:
    """Open pictures of the data that a result was scored on.

    Raises:
        UsageError: The data set is not known here.
        DataError: It is not prepared, or its classes, pictures or labels are others than those that were scored.
    """
    choice = _data_of(result, folders)
    prepared = PreparedData.open(choice.spec, folders)
    if prepared.fingerprint != result.fingerprints.get("data", prepared.fingerprint):
        what = f"{prepared.root}: its pictures or labels are not those that were scored."
        raise DataError(what, "Score the runs again (ovseg eval RUN), or bring the old data set back.")
    data = prepared.subset(result.subset)
    places = {name: i for i, name in enumerate(data.names)}
    return choice, data.select([places[name] for name in names])


def label_again(
    member: Member,
    choice: "DataChoice",
    data: SegmentationData,
    device: "torch.device",
    folders: Folders,
    reporter: Reporter,
) -> Labelled:
    """Let the model of a result label some of its pictures as it did when it was scored.

    Names, sentences, settings, windows, candidates, calibration and the threshold of the background are those of the
    stored protocol.

    Raises:
        OvsegError: The run or what it needs is gone, or has changed since.
    """
    result, method = member.result, _method(member, device, reporter)
    protocol = result.protocol
    vocabulary = choice.spec.vocabulary(choice.split, protocol.get("templates"), protocol.get("names"))
    _check(member, {"weights": method.digest, "vocabulary": vocabulary.digest()})
    text = method_text(method, vocabulary, folders.cache, reporter).to(device)
    return label_pictures(method, text, read_readout(protocol, vocabulary), data, member.label, folders, reporter)


def _data_of(result: Result, folders: Folders) -> "DataChoice":
    """Find the data set and class split; one of the user's own is named by its unseen classes."""
    name, unseen = result.data, None
    if str(result.class_split).startswith("custom-"):
        own = [name for name, flag in zip(result.class_names, result.unseen, strict=True) if flag]
        name, unseen = result.data.partition(":")[0], own[0] if len(own) == 1 else "; ".join(own)
    choice = find_data(name, unseen, folders)
    flags = [i in choice.spec.unseen_ids(choice.split) for i in range(choice.spec.num_classes)]
    if (tuple(choice.spec.class_names), tuple(flags)) != (result.class_names, result.unseen):
        what = f"{result.data}: its classes are not those that were scored."
        raise DataError(what, "Score the runs again: ovseg eval RUN")
    return choice


def _method(member: Member, device: "torch.device", reporter: Reporter) -> "Method":
    run, settings = member.run, dict(member.result.protocol.get("method", {}))
    if run is None:
        raise DataError("its run is not here.", "Bring the run folder back, or train or score it anew.")
    if str(settings.get("proposals", "")).startswith(OF_A_RUN):
        del settings["proposals"]  # which run that was stands in the config of this one
    return build_method(choose_model(run.as_model, run.path.parent, settings=settings), device, reporter)


def _check(member: Member, own: dict[str, str]) -> None:
    for name, digest in own.items():
        if digest != member.result.fingerprints.get(name, digest):
            what = f"its {name} {'are' if name == 'weights' else 'is'} not what was scored."
            model = shlex.quote(member.run.as_model) if member.run else "RUN"
            raise DataError(what, f"Score it again: ovseg eval {model}")
