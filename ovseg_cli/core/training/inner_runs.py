"""Runs inside a run: a host that makes its masks, a first step whose weights it starts from. Is there one already?"""

from pathlib import Path
from typing import Any

import tomli_w

from ovseg_cli.core import registry
from ovseg_cli.core.clip.model import RUN_FILE
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.files import write_bytes, write_text
from ovseg_cli.core.methods.build import FIRST_STEP
from ovseg_cli.core.methods.texts import default_templates
from ovseg_cli.core.runs import CONFIG, FINISHED, HOST, WEIGHTS, Run, list_runs
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.training.request import MethodPlan

TAKEN = {HOST: "masks", FIRST_STEP: "weights"}
"""What a training takes from the run inside its own, by that run's folder."""


def matching_run(plan: MethodPlan, folders: Folders) -> Run | None:
    """The newest finished run with the same data, CLIP, sentences, settings and seed."""
    model, spec = plan.model, plan.data.spec
    prepared = PreparedData.open(spec, folders)
    method_class = registry.METHODS[model.method].load()
    templates = list(default_templates(method_class, spec.preset.templates, spec.name))
    clip = {k: v for k, v in {"name": model.clip, "pretrained": model.pretrained}.items() if v is not None}
    wanted = {"clip": clip, "method": _plain(plan.config), "training": _plain(plan.training)}
    for run in list_runs(folders.runs):
        same = run.kind in ("segmentation", *TAKEN) and run.method == model.method and run.is_finished
        same = same and run.config["run"]["data"] == plan.data.label and (run.path / WEIGHTS).is_file()
        same = same and run.config.get("vocabulary", {}).get("unseen") == plan.request.unseen
        same = same and run.config.get("vocabulary", {}).get("templates") == templates
        same = same and run.config.get("fingerprints", {}).get("data") == prepared.fingerprint
        tables = {key: dict(run.config.get(key, {})) for key in wanted}
        if same and all(_same_settings(tables[key], wanted[key]) for key in wanted):
            return run
    return None


_OF_NO_MATTER = {"workers", "log_every", "save_every", "eval_every", "accumulate"}


def _same_settings(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = (one.keys() | other.keys()) - _OF_NO_MATTER
    return all(one.get(key) == other.get(key) for key in keys)


def _plain(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.model_dump(mode="json").items() if value is not None}


def copy_run(found: Run, path: Path, kind: str) -> None:
    """Copy what a finished run needs to be used: weights, a CLIP of its own; its config comes last.

    The copy is a step of another run, so that `latest` never means it.
    """
    for file in (WEIGHTS, RUN_FILE, FINISHED):
        if (found.path / file).is_file():
            write_bytes(path / file, (found.path / file).read_bytes())
    config = {**found.config, "run": {**found.config["run"], "kind": kind}}
    write_text(path / CONFIG, tomli_w.dumps(config))
