"""How a converted checkpoint is written: a run folder, whole or absent."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.clip.model import RUN_FILE, save_clip
from ovseg_cli.core.conversion.request import Conversion, ConvertRequest
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import explain_os_error, make_folder, write_bytes
from ovseg_cli.core.methods.build import HOST_CLIP, JOINT, OWN_CLIP
from ovseg_cli.core.methods.texts import names_of, training_vocabulary
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.runs import HOST, WEIGHTS, Run, create_run, fresh_folder
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    import torch

KIND = "segmentation"


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
    name, pretrained = request.named_clip
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
    names: list[str] | None = [] if conversion.is_label_free else None
    if data is not None and not conversion.is_label_free:
        names = list(names_of(training_vocabulary(data.spec.vocabulary(data.split))))
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
            **conversion.imported.facts,
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
