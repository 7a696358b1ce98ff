"""What `ovseg convert` does: read a checkpoint, make the method of it, write a run folder, account for every entry."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.clip.model import RUN_FILE, ClipModel, load_clip, save_clip
from ovseg_cli.core.clip.prompts import resolve_templates
from ovseg_cli.core.conversion.checkpoint import Checkpoint, read_checkpoint
from ovseg_cli.core.conversion.choices import Choice, take_table
from ovseg_cli.core.conversion.freeseg import import_freeseg
from ovseg_cli.core.conversion.importer import Asked, Imported
from ovseg_cli.core.conversion.layouts import check_layout
from ovseg_cli.core.conversion.ledger import Ledger, Row
from ovseg_cli.core.conversion.maft import import_maft
from ovseg_cli.core.conversion.zegformer import import_zegformer
from ovseg_cli.core.conversion.zsseg import import_zsseg
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import explain_os_error, make_folder, write_bytes
from ovseg_cli.core.methods.build import DEFAULT_CLIP, HOST_CLIP, JOINT, OWN_CLIP
from ovseg_cli.core.methods.texts import default_templates, names_of, training_vocabulary
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import HOST, WEIGHTS, Run, create_run, fresh_folder
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    import torch

    from ovseg_cli.core.data.specs import DataChoice

IMPORTERS: dict[str, Callable[[Ledger, Asked], Imported]] = {
    "maft": import_maft,
    "freeseg": import_freeseg,
    "zegformer": import_zegformer,
    "zsseg": import_zsseg,
}
KIND = "segmentation"


@dataclass(frozen=True)
class ConvertRequest:
    """Options of `ovseg convert`, as typed.

    Attributes:
        checkpoint: The file.
        method: A key of `IMPORTERS`.
        settings: What `--config` and `--set` said; tables `clip`, `generator` and `host`, and `templates` among them.
        data: What it was trained on, `NAME[:CLASS_SPLIT]`; None: not said.
        unseen: A class split of the user's own.
        clip, pretrained: For checkpoints that hold no CLIP.
        out: Folder of the run; None: a new one below the runs.
    """

    checkpoint: Path
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    data: str | None = None
    unseen: str | None = None
    clip: str | None = None
    pretrained: str | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint.

    Attributes:
        checkpoint: The file and its entries.
        imported: The method with its weights.
        rows: What became of the tensors.
        templates: Sentences that names are put into.
        templates_source: Where they come from.
        data: What it was trained on, or None.
    """

    checkpoint: Checkpoint
    imported: Imported
    rows: list[Row]
    templates: tuple[str, ...]
    templates_source: str
    data: "DataChoice | None"

    @property
    def label(self) -> str:
        """What it was trained on, `NAME:CLASS_SPLIT`, `NAME:none` for all classes of a data set; "" if not said."""
        return "" if self.data is None else self.data.label

    @property
    def choices(self) -> list[Choice]:
        """Every value and its source."""
        return [*self.imported.choices, Choice("templates", list(self.templates), self.templates_source)]

    def document(self, run: Path | None) -> dict[str, Any]:
        """Return the account as plain data."""
        return {
            "schema": 1,
            "checkpoint": str(self.checkpoint.path),
            "sha256": self.checkpoint.digest,
            "method": self.imported.method.name,
            "run": None if run is None else str(run),
            "data": self.label or None,
            "training_classes": self.imported.training_classes,
            "tensors": len(self.checkpoint.tensors),
            "keys": [vars(row) for row in self.rows],
            "beside": list(self.checkpoint.beside),
            "settings": [vars(choice) for choice in self.choices],
        }


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
    asked = Asked(
        settings=settings,
        clip=clip_table,
        has_templates=templates is not None,
        recipe=data.spec.preset.methods if data else {},
        data=data.label if data else "",
        other_clip=lambda: _other_clip(request),
    )
    imported = IMPORTERS[request.method](ledger, asked)
    ledger.close()
    if imported.has_clip and (request.clip or request.pretrained):
        raise UsageError(f"--clip: {where} holds its own CLIP.", "Leave --clip and --pretrained out.")
    _check_training_classes(imported, data, where)
    own = default_templates(type(imported.method))
    source = "default; code" if templates is None else "--config / --set"
    for note in checkpoint.beside:
        reporter.say(f"{where}: '{note}' is no weight of the model and is left out")
    return Conversion(checkpoint, imported, ledger.rows, templates or own, source, data)


def _templates_of(sentences: Any) -> tuple[str, ...]:
    entries = [sentences] if isinstance(sentences, str) else sentences
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise UsageError(f"templates = {sentences!r}: must be a sentence with {{}}, a set's name, or a list of them.")
    return resolve_templates(entries)


def _other_clip(request: ConvertRequest) -> ClipModel:
    """Make the CLIP that a checkpoint does not hold: of open_clip only its form, since its weights are not needed."""
    name, pretrained = _named_clip(request)
    return load_clip(name, pretrained and "random")


def _named_clip(request: ConvertRequest) -> tuple[str, str | None]:
    if request.clip is None:
        return DEFAULT_CLIP[0], request.pretrained or DEFAULT_CLIP[1]
    return request.clip, request.pretrained or (DEFAULT_CLIP[1] if request.clip == DEFAULT_CLIP[0] else None)


def _check_training_classes(imported: Imported, data: "DataChoice | None", where: str) -> None:
    """Compare the number of classes that the loss weighed with the seen ones of `--data`.

    Raises:
        UsageError: They differ: seen and unseen would be mixed up in every score.
    """
    count = imported.training_classes
    if data is None or count is None:
        return
    seen, every = len(data.spec.seen_ids(data.split)), data.spec.num_classes
    if count != seen:
        on_all = f"It was trained on all of them: --data {data.spec.name}:none"
        other = "Name the data set and split that it was trained on, or leave --data out."
        raise UsageError(
            f"--data {data.label}: has {seen} seen classes, but {where} was trained on {count} "
            "(criterion.empty_weight).",
            on_all if count == every else other,
        )


def check_out(path: Path) -> None:
    """Make sure that a run folder can be made.

    Raises:
        UsageError: Something is there already.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UsageError(f"--out {path}: is there already and not empty.", "Choose another folder, or remove it.")


def write_run(conversion: Conversion, request: ConvertRequest, folders: Folders) -> Path:
    """Write the run folder: beside its place first, then renamed, so that it is whole or absent.

    Returns:
        The folder.

    Raises:
        UsageError: Something is there already.
        MachineError: The disk refuses.
    """
    label = conversion.label or "converted"
    if request.out is None:
        path = fresh_folder(folders.runs, f"{request.method}-{label.replace(':', '-').replace('/', '-')}")
    else:
        check_out(request.out)
        path = make_folder(request.out)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        _write(conversion, request, folders, unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not any(path.iterdir()):
            path.rmdir()
    return path


def _write(conversion: Conversion, request: ConvertRequest, folders: Folders, path: Path) -> None:
    import torch

    imported = conversion.imported
    name, pretrained = _named_clip(request)
    named = {"name": OWN_CLIP} if imported.has_clip else {"name": name, "pretrained": pretrained}
    run = _begin(conversion, request, folders, path, imported.method, KIND, named)
    if imported.has_clip:
        clip = imported.clip
        made = {"converted from": conversion.checkpoint.path.name}
        tokenizer = clip.tokenizer.to_json()
        save_clip(path / RUN_FILE, clip.module, clip.open_clip_config, tokenizer, clip.preprocess, made, torch.float32)
    _finish(run, imported.method)
    if imported.host is not None:
        host = _begin(conversion, request, folders, path / HOST, imported.host, HOST, {"name": HOST_CLIP})
        _finish(host, imported.host)
        host.finish()
    run.finish()


def _begin(
    conversion: Conversion,
    request: ConvertRequest,
    folders: Folders,
    path: Path,
    method: TrainedMethod,
    kind: str,
    clip: dict[str, Any],
) -> Run:
    data = conversion.data
    names = None if data is None else list(names_of(training_vocabulary(data.spec.vocabulary(data.split))))
    tables = {
        "clip": clip,
        "method": method.config.model_dump(mode="json"),
        "vocabulary": {
            "unseen": request.unseen,
            "templates": list(conversion.templates),
            "training_names": names,
        },
        "conversion": {
            "checkpoint": str(conversion.checkpoint.path),
            "layout": request.method,
            "training_classes": conversion.imported.training_classes,
        },
        "fingerprints": {"checkpoint": conversion.checkpoint.digest},
    }
    if kind == KIND and conversion.imported.joint:
        tables[JOINT] = conversion.imported.joint
    return create_run(folders.runs, kind, method.name, conversion.label, tables, path=path)


def _finish(run: Run, method: TrainedMethod) -> None:
    from safetensors.torch import save

    state: dict[str, torch.Tensor] = method.trained_state()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_bytes(run.path / WEIGHTS, save(state, {"format": "pt"}))
