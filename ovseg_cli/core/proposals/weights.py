"""How the networks of mask generators get their weights: cache first, then one download, then a clear error.

A model is a name on the Hugging Face hub or a local folder in transformers' form; timm's ViTs also take one file. With
"random" nothing is downloaded and the masks mean nothing: the code path can be tried without a network.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ovseg_cli.core.clip import hub
from ovseg_cli.core.errors import MachineError, UsageError, unknown_name
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.proposals.tiny_models import TINY, TINY_KINDS
from ovseg_cli.core.reporter import Reporter

T = TypeVar("T")
PUBLISHED, RANDOM = "published", "random"
_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def resolve_name(name: str, known: Mapping[str, str], kind: str) -> str:
    """Return the hub repository or the folder that a typed name stands for.

    Args:
        name: A short name, "owner/repository", or a local folder.
        known: Short names and the repository of each.
        kind: What the name should have named, for the message.

    Raises:
        UsageError: Neither; offers the nearest short name.
        MachineError: The name looks like a path and there is no such folder.
    """
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MachineError(f"model {name}: there is no such folder.", "Check the path given to --set model=….")
    if "/" not in name:
        raise unknown_name(kind, name, known)
    return name


def model_folder(name: str, with_weights: bool = True) -> Path:
    """Return the local folder of a transformers model, downloading it into the hub's cache where it is not there yet.

    Args:
        name: Local folder or hub repository, as `resolve_name` returns it.
        with_weights: False asks for the configuration alone.

    Raises:
        MachineError: It is not in the cache and cannot be downloaded, or the folder lacks a file; says which.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _cached(name, with_weights) or _download(name, with_weights)
    lacks = _lacking(folder, with_weights)
    if lacks:
        raise MachineError(
            f"{folder}: there is no {lacks} in it.", "Pass a folder that transformers' save_pretrained wrote."
        )
    return folder


def _lacking(folder: Path, with_weights: bool) -> str:
    """Return the first file that a model folder lacks, or nothing."""
    if not (folder / "config.json").is_file():
        return "config.json"
    found = next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
    if not with_weights:
        return ""
    if found is None:
        return _WEIGHT_FILES[0]
    parts = set(json.loads(found.read_text())["weight_map"].values()) if found.suffix == ".json" else set()
    return next((part for part in sorted(parts) if not (folder / part).is_file()), "")


def _cached(repository: str, with_weights: bool) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError):
        return None
    return None if _lacking(folder, with_weights) else folder


def _download(repository: str, with_weights: bool) -> Path:
    """Fetch JSON files and safetensors; a repository without safetensors gives its older .bin files."""
    from huggingface_hub import snapshot_download

    try:
        hub.check_reachable()
        folder = Path(snapshot_download(repository, allow_patterns=["*.json"], etag_timeout=hub.TIMEOUT))
        for pattern in ("model*.safetensors", "pytorch_model*.bin") if with_weights else ():
            if _lacking(folder, True):
                snapshot_download(repository, allow_patterns=[pattern], etag_timeout=hub.TIMEOUT)
        return folder
    except Exception as error:
        raise _absent(repository, error) from error


def _absent(repository: str, error: Exception) -> MachineError:
    return MachineError(
        f"the weights of {repository} are not on this machine and could not be downloaded from the Hugging Face hub "
        f"({hub.first_line(error)}).",
        f"Where there is a network run `hf download {repository}` and copy the cache folder from there (HF_HOME, by "
        "default ~/.cache/huggingface), or pass the folder with config.json, preprocessor_config.json and "
        "model.safetensors as --set model=FOLDER.",
    )


def load_transformers(
    auto_class: Any, name: str, weights: str, kinds: Sequence[str], what: str, reporter: Reporter
) -> tuple[Any, Path | None]:
    """Load a model of the transformers library, in float32 and eval mode, without gradients.

    Args:
        auto_class: transformers' Auto class of the task.
        name: Hub repository or local folder, as `resolve_name` returns it, or a tiny model.
        weights: "published", or "random" for weights that were never trained (only config.json is read).
        kinds: Values of "model_type" in config.json that the generator can use.
        what: What such a model is, for the message.
        reporter: Told where the weights are random.

    Returns:
        The model, and its folder (for the image processor); None for a tiny model.

    Raises:
        UsageError: A model of another kind, or one that this transformers does not know; no such choice of weights.
        MachineError: The weights are absent, cut off or incomplete.
    """
    if weights not in (PUBLISHED, RANDOM):
        raise UsageError(
            f"weights '{weights}': {name} takes 'published' or 'random'.",
            "For weights of your own pass their folder: --set model=FOLDER.",
        )
    folder = None if name in TINY else model_folder(name, with_weights=weights != RANDOM)
    kind = TINY_KINDS[name] if folder is None else _model_type(folder)
    if kind not in kinds:
        raise UsageError(f"{name}: is a model of type '{kind}', not {what}.", f"Known types: {', '.join(kinds)}.")
    config = _tiny_config(name, weights) if folder is None else _read_config(folder, kind)
    if weights == RANDOM:
        reporter.say(f"{name} runs with random weights: its masks mean nothing")
        model = with_seed(lambda: auto_class.from_config(config))
    else:
        assert folder is not None
        model = _read_model(auto_class, folder, config, name)
    return model.float().eval().requires_grad_(False), folder


def _tiny_config(name: str, weights: str) -> Any:
    if weights != RANDOM:
        raise UsageError(f"{name}: was never trained, so it has no published weights.", "Add --set weights=random.")
    try:
        return TINY[name]()
    except ImportError as error:
        raise _outdated(name, name, error) from error


def _outdated(where: Any, kind: str, error: Exception) -> UsageError:
    import transformers

    return UsageError(
        f"{where}: transformers {transformers.__version__} does not know a model of type '{kind}' "
        f"({hub.first_line(error)}).",
        "Update it: pip install --upgrade transformers",
    )


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MachineError(
            f"{folder / 'config.json'}: is no configuration of a transformers model ({hub.first_line(error)}).",
            "Pass a folder that transformers' save_pretrained wrote.",
        ) from error


def _read_config(folder: Path, kind: str) -> Any:
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, ImportError) as error:
        raise _outdated(folder, kind, error) from error


def _read_model(auto_class: Any, folder: Path, config: Any, name: str) -> Any:
    """Read weights; what the file leaves out would stay random, so that is an error."""
    try:
        model, info = auto_class.from_pretrained(
            folder, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:
        raise MachineError(
            f"{name}: its weights cannot be read ({hub.first_line(error)}).", "Download them again."
        ) from error
    missing = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info.get("mismatched_keys", ()))
    if missing:
        raise MachineError(
            f"{name}: {len(missing)} tensors of the model are not in its weights, or of another shape (first: "
            f"{missing[0]}).",
            "Pass the folder of a complete checkpoint, or update transformers.",
        )
    return model


def image_processor(folder: Path | None, default: Callable[[], Any]) -> Any:
    """Return the checkpoint's own image processor, or `default()` where there is no folder or none in it."""
    if (
        folder is None
        or not (folder / "preprocessor_config.json").is_file()
        and not (folder / "processor_config.json").is_file()
    ):
        return default()
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, local_files_only=True)


def processor_class(family: str) -> Any:
    """Return transformers' image processor of a family ("Sam2"); older releases have it under "…Fast" alone."""
    import transformers

    name = f"{family}ImageProcessor"
    return getattr(transformers, name, None) or getattr(transformers, f"{name}Fast")


def with_seed(build: Callable[[], T]) -> T:
    """Call `build()` with seed 0 and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def weights_digest(module: nn.Module) -> str:
    """Return the fingerprint of all tensors of a module, for the key of the proposal cache."""
    parts: list[str | bytes] = ["weights-1"]
    for key, tensor in sorted(module.state_dict().items()):
        parts += [key, tensor.detach().float().cpu().contiguous().numpy().data.cast("B")]
    return digest_of(parts)
