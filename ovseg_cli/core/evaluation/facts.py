"""How did a result come about? Protocol, fingerprints and environment, put down before the first picture."""

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ovseg_cli import __version__
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.evaluation.names import names_of
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.texts import training_doubt
from ovseg_cli.core.runs import CONFIG, Run, is_run_path, open_run, typed_command
from ovseg_cli.core.runtime import Runtime
from ovseg_cli.core.training.starts import caveats_of
from ovseg_cli.core.types import Vocabulary

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice
    from ovseg_cli.core.methods.base import Method


def facts_of(
    choice: "DataChoice",
    subset: str,
    prepared: PreparedData,
    method: "Method",
    vocabulary: Vocabulary,
    run: Run,
    request: EvalRequest,
    runtime: Runtime,
) -> Facts:
    """Put down all that is known of a result before it is there."""
    clip, seed = _clip_of(method.clip.name, request.seed)
    training = dict(run.config.get("training", {}))
    if training:  # of two seeds of one recipe the protocol is the same, so that a report can average them
        seed = int(training.pop("seed", seed))
        training |= {"init": "a run"} if training.get("init") else {}  # its path would set its seeds apart
    notes = []
    if subset in prepared.shortfall:
        have, official = prepared.shortfall[subset]
        notes.append(f"Of {choice.spec.name} {subset} only {have:,} of the official {official:,} pictures are here.")
    if request.limit:
        notes.append(f"Only the first {request.limit} pictures were scored.")
    if doubt := training_doubt(method, vocabulary):
        notes.append(doubt)
    notes += caveats_of(method, run.config)
    protocol = {
        "method": settings_of(method),
        "templates": list(vocabulary.templates),
        "names": names_of(choice, request, type(method)),
        "synonym_rule": vocabulary.synonym_rule,
        "limit": request.limit,
    }
    fingerprints = {
        "data": prepared.fingerprint,
        "weights": method.digest,
        "vocabulary": vocabulary.digest(),
        "protocol": digest_of([json.dumps(protocol, sort_keys=True)]),
    }
    return Facts(
        method=method.name,
        data=choice.label,
        subset=subset,
        run=str(run.path),
        class_split=choice.split.id if choice.split else None,
        protocol={**protocol, "clip": clip, **({"training": training} if training else {})},
        fingerprints=fingerprints,
        environment=environment(runtime),
        seed=seed,
        command=typed_command(),
        notes=tuple(notes),
    )


def settings_of(method: "Method") -> dict[str, Any]:
    """Settings for the protocol; masks of a host's run go by the host's name, so that its seeds share a protocol."""
    settings = method.config.model_dump(mode="json")
    proposals = settings.get("proposals")
    if proposals and is_run_path(proposals) and (Path(proposals) / CONFIG).is_file():
        settings["proposals"] = f"run of {open_run(Path(proposals)).method}"
    return settings


def _clip_of(name: str, seed: int) -> tuple[str, int]:
    """Name and seed of a CLIP for the protocol: of one that was trained here, its trainer and its own seed.

    So runs on CLIPs that differ in their seed alone share a protocol, and a report can average them.
    """
    if not is_run_path(name) or not (Path(name) / CONFIG).is_file():
        return name, seed
    made = open_run(Path(name))
    return made.method, int(made.config["run"]["seed"])


def environment(runtime: Runtime) -> dict[str, Any]:
    """Versions and device, as plain JSON values."""
    import open_clip

    device = runtime.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "ovseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "processes": runtime.world_size,
    }
