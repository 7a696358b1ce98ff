"""Where CLIP weights come from and how they are read: hub tags, local files in open_clip's or OpenAI's form.

Nothing here runs code from a file: safetensors hold only tensors, other files are read with `weights_only=True`, and
OpenAI's own archives (TorchScript) give only their tensors.
"""

import pickle
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg_cli.core.errors import MachineError, UsageError, unknown_name

TIMEOUT = 15.0  # seconds without an answer before a download is given up
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def model_config(architecture: str) -> dict[str, Any]:
    """Return open_clip's configuration of an architecture.

    Raises:
        UsageError: open_clip does not know the name.
    """
    import open_clip

    config = open_clip.get_model_config(architecture.replace("/", "-"))
    if config is None:
        raise unknown_name("CLIP", architecture, [*open_clip.list_models(), "toy-clip"], "--clip: ")
    return config


def tag_config(architecture: str, tag: str) -> dict[str, Any]:
    """Return what open_clip knows about a tag: hub address, mean, std, activation.

    Raises:
        UsageError: The architecture has no such tag and there is no such file.
    """
    from open_clip import pretrained as tags

    known = tags.list_pretrained_tags_by_model(architecture)
    config = tags.get_pretrained_cfg(architecture, tag)
    if config:
        return config
    if not known:
        raise UsageError(
            f"--pretrained: {architecture} has no published weights, and there is no file '{tag}'.",
            "Pass a file, or 'random' for weights that were never trained.",
        )
    error = unknown_name(f"weights of {architecture}", tag, [*known, "random"], "--pretrained: ")
    error.mend = f"{error.mend} Known: {', '.join(known)}; a path to a file is also possible."
    raise error


def fetch_tag(architecture: str, tag: str) -> Path:
    """Return the local file of a tag, downloading it into the hub's cache where it is not there yet.

    Raises:
        MachineError: It is not in the cache and cannot be downloaded; says which file to put where.
    """
    config = tag_config(architecture, tag)
    hub = config.get("hf_hub") or ""
    try:
        with _timeout():
            return _from_hub(*hub.rsplit("/", 1)) if hub else _from_url(config["url"])
    except Exception as error:
        where = f"{hub.rsplit('/', 1)[0]} on the Hugging Face hub" if hub else config["url"]
        raise MachineError(
            f"the weights '{tag}' of {architecture} are not on this machine and could not be downloaded from "
            f"{where} ({_first_line(error)}).",
            f"Download {_hub_files(hub)[0] if hub else 'that file'} on a machine with a network and pass it with "
            f"--pretrained FILE, or copy the cache folder from there ({_cache_hint(bool(hub))}).",
        ) from error


def _hub_files(hub: str) -> list[str]:
    """Names to try, in order: safetensors first."""
    name = hub.rsplit("/", 1)[1] or "open_clip_pytorch_model.bin"
    if name == "open_clip_pytorch_model.bin":
        return ["open_clip_model.safetensors", name]
    stem, dot, ending = name.rpartition(".")
    return [f"{stem}{dot}safetensors", name] if ending in ("bin", "pth", "pt") else [name]


def _from_hub(repository: str, name: str) -> Path:
    """Look into the cache first, so that cached weights need no network; then ask the hub, once for each name."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    names = _hub_files(f"{repository}/{name}")
    for candidate in names:
        try:
            return Path(hf_hub_download(repository, candidate, local_files_only=True))
        except (EntryNotFoundError, OSError):
            continue
    for candidate in names:
        try:
            return Path(hf_hub_download(repository, candidate, etag_timeout=TIMEOUT))
        except LocalEntryNotFoundError:  # no answer from the hub: asking for another name is of no use
            raise
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"none of {', '.join(names)} is there")


def _from_url(url: str) -> Path:
    from open_clip.pretrained import download_pretrained_from_url

    return Path(download_pretrained_from_url(url))


@contextmanager
def _timeout() -> Iterator[None]:
    """Give every new socket a time limit, so that a silent network is an error and not a hang."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cache_hint(hub: bool) -> str:
    return "HF_HOME, by default ~/.cache/huggingface" if hub else "by default ~/.cache/clip"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read the tensors of a checkpoint.

    Args:
        path: safetensors, a state dict saved by torch (bare or under "state_dict" / "model"), or OpenAI's archive.

    Returns:
        Tensors by name without a `module.` prefix, and whether the file is in OpenAI's own form (its weights were
        trained with QuickGELU).

    Raises:
        MachineError: The file is missing, cut off or of another kind.
        UsageError: The file holds code or no state dict.
    """
    if not path.is_file():
        raise MachineError(f"{path}: there is no such file.", "Check the path given to --clip or --pretrained.")
    state, archive = _read_file(path)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path}: holds no state dict of tensors.", "Pass the file of a CLIP checkpoint.")
    state = {str(k).removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}
    is_openai = archive or any(key in state for key in _OPENAI_EXTRAS)
    return {k: v for k, v in state.items() if k not in _OPENAI_EXTRAS}, is_openai


def _read_file(path: Path) -> tuple[Any, bool]:
    """Return the content and whether it was a TorchScript archive."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path), False
        if _is_script(path):
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict()), True
        return torch.load(path, map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path}: is refused, since reading it would run code ({_first_line(error)}).",
            "Save its state dict alone, or as safetensors.",
        ) from error
    except Exception as error:
        raise MachineError(
            f"{path}: cannot be read as weights; the file is cut off or of another kind ({_first_line(error)}).",
            "Download it again, or pass another file.",
        ) from error


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def load_into(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Copy tensors into a CLIP; all names and shapes must agree.

    Args:
        module: open_clip model.
        state: Tensors by name, of any floating type.
        what: File and architecture, for the message.

    Raises:
        UsageError: The weights belong to another architecture; names the first entries that differ.
    """
    state = _rename(module, state)
    own = module.state_dict()
    missing = [k for k in own if k not in state]
    extra = [k for k in state if k not in own]
    differ = [f"{k} is {_shape(state[k])}, not {_shape(own[k])}" for k in own if k in state and _odd(own[k], state[k])]
    if missing or extra or differ:
        lines = differ[:2] + [f"{k} is missing" for k in missing[:2]] + [f"{k} is unknown" for k in extra[:2]]
        raise UsageError(
            f"{what}: these are weights of another architecture ({'; '.join(lines)}; "
            f"{len(differ) + len(missing) + len(extra)} entries differ).",
            "Choose the architecture that they were made for with --clip.",
        )
    module.load_state_dict({k: v.reshape(own[k].shape).to(own[k].dtype) for k, v in state.items()})


def _rename(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(module, dict(state))
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    unused = ("attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids")
    own = module.state_dict()
    return {k: v for k, v in state.items() if k not in unused or k in own}


def _odd(own: Tensor, other: Tensor) -> bool:
    return own.shape != other.shape and not (own.numel() == other.numel() == 1)


def _shape(tensor: Tensor) -> str:
    return "×".join(str(n) for n in tensor.shape) or "a scalar"
