"""What `ovseg convert` does: read a checkpoint, make the method of it, account for every entry."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.clip.model import ClipModel, load_clip
from ovseg_cli.core.clip.prompts import resolve_templates
from ovseg_cli.core.conversion.checkpoint import Checkpoint, read_checkpoint
from ovseg_cli.core.conversion.choices import take_table
from ovseg_cli.core.conversion.class_check import check_classes, check_text_features
from ovseg_cli.core.conversion.freeseg import import_freeseg
from ovseg_cli.core.conversion.importer import Asked, Imported
from ovseg_cli.core.conversion.layouts import check_layout
from ovseg_cli.core.conversion.ledger import Ledger
from ovseg_cli.core.conversion.maft import import_maft
from ovseg_cli.core.conversion.one_stage import import_tagclip, import_zegclip
from ovseg_cli.core.conversion.pixelclip import import_pixelclip
from ovseg_cli.core.conversion.request import Conversion, ConvertRequest
from ovseg_cli.core.conversion.run_folder import check_out
from ovseg_cli.core.conversion.zegformer import import_zegformer
from ovseg_cli.core.conversion.zsseg import import_zsseg
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.texts import default_templates
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice

IMPORTERS: dict[str, Callable[[Ledger, Asked], Imported]] = {
    "maft": import_maft,
    "freeseg": import_freeseg,
    "zegformer": import_zegformer,
    "zsseg": import_zsseg,
    "zegclip": import_zegclip,
    "tagclip": import_tagclip,
    "pixelclip": import_pixelclip,
}
KEEPS_CLASSES = ("zegclip", "tagclip")
"""Their training program, mmcv, writes class names beside the weights."""


def convert(request: ConvertRequest, folders: Folders, reporter: Reporter) -> Conversion:
    """Read a checkpoint and make its method; nothing is written.

    Raises:
        UsageError: The checkpoint is of another method or incomplete; a setting is unknown or contradicts it.
        MachineError: The file is missing or broken.
    """
    if request.out is not None:
        check_out(request.out)
    settings = dict(request.settings)
    sentences = settings.pop("templates", None)
    templates = None if sentences is None else _templates_of(sentences)
    clip_table = take_table(settings, "clip") if request.method in IMPORTERS else {}
    data = find_data(request.data, request.unseen, folders) if request.data else None
    if request.unseen and data is None:
        raise UsageError("--unseen: of which data set?", "Name it: --data")
    checkpoint = read_checkpoint(request.checkpoint)
    where = str(request.checkpoint)
    check_layout(checkpoint.tensors, request.method, where)
    ledger = Ledger(checkpoint.tensors, where)
    is_clip_named = bool(request.clip or request.pretrained)
    asked = Asked(
        settings=settings,
        clip=clip_table,
        has_templates=templates is not None,
        recipe=data.spec.preset.methods if data else {},
        data=data.label if data else "",
        other_clip=lambda: _other_clip(request),
        text_clip=lambda: load_clip(*request.named_clip, reporter=reporter),
        original_clip=(lambda: load_clip(*request.named_clip, reporter=reporter)) if is_clip_named else None,
        counts=(len(data.spec.seen_ids(data.split)), data.spec.num_classes) if data else None,
    )
    imported = IMPORTERS[request.method](ledger, asked)
    ledger.close()
    if imported.has_clip and imported.has_text and is_clip_named and not imported.compares_clip:
        raise UsageError(f"--clip: {where} holds its own CLIP.", "Leave --clip and --pretrained out.")
    _check_training_classes(imported, data, where)
    own = default_templates(type(imported.method), data=data.spec.name if data else "")
    checks = _check_order(request, checkpoint, data, imported, templates or own)
    source = "default; code" if templates is None else "--config / --set"
    for note in checkpoint.beside:
        reporter.say(f"{where}: '{note}' is no weight of the model and is left out")
    checks = (*imported.checks, *checks)
    return Conversion(checkpoint, imported, ledger.rows, templates or own, source, data, checks)


def _check_order(
    request: ConvertRequest,
    checkpoint: Checkpoint,
    data: "DataChoice | None",
    imported: Imported,
    templates: tuple[str, ...],
) -> tuple[str, ...]:
    """Compare what is known about the order of the classes; return what was found.

    Raises:
        UsageError: Lists differ, or text features do not stand in their order.
    """
    where, classes = str(request.checkpoint), checkpoint.classes
    found = []
    if classes is not None or request.method in KEEPS_CLASSES:
        found.append(check_classes(classes, data, where))
    if request.text_features is not None:
        names = classes or (data.spec.class_names if data else None)
        found.append(check_text_features(request.text_features, names, templates, imported.clip, where))
    return tuple(found)


def _templates_of(sentences: Any) -> tuple[str, ...]:
    entries = [sentences] if isinstance(sentences, str) else sentences
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise UsageError(f"templates = {sentences!r}: must be a sentence with {{}}, a set's name, or a list of them.")
    return resolve_templates(entries)


def _other_clip(request: ConvertRequest) -> ClipModel:
    """Make the CLIP that a checkpoint does not hold: of open_clip only its form, since its weights are not needed."""
    name, pretrained = request.named_clip
    return load_clip(name, pretrained and "random")


def _check_training_classes(imported: Imported, data: "DataChoice | None", where: str) -> None:
    """Compare the number of classes that the loss weighed with the seen ones of `--data`.

    Raises:
        UsageError: They differ: seen and unseen would be mixed up in every score.
    """
    count = imported.training_classes
    if data is None or count is None:
        return
    seen, every = len(data.spec.seen_ids(data.split)), data.spec.num_classes
    all_names = imported.facts.get("setting") == "transductive" and count == every
    if count != seen and not all_names:
        on_all = f"It was trained on all of them: --data {data.spec.name}:none"
        other = "Name the data set and split that it was trained on, or leave --data out."
        raise UsageError(
            f"--data {data.label}: has {seen} seen classes, but {where} was trained on {count} "
            "(criterion.empty_weight).",
            on_all if count == every else other,
        )
