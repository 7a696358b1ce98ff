"""Which published weights an architecture has, and how they get onto this machine: cache first, then one download.

Without a network the answer comes at once and says which file to put where; nothing retries in silence.
"""

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import MachineError, UsageError, unknown_name

TIMEOUT = 10.0  # seconds without an answer before a connection is given up
_WEIGHTS = "open_clip_pytorch_model.bin"


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
    if "Did you mean" in (error.mend or ""):
        error.mend = f"{error.mend} Known: {', '.join(known)}; or the path of a file."
    raise error


def fetch_tag(architecture: str, tag: str) -> Path:
    """Return the local file of a tag, downloading it into the hub's cache where it is not there yet.

    Raises:
        UsageError: The architecture has no such tag.
        MachineError: It is not in the cache and cannot be downloaded; says which file to put where.
    """
    config = tag_config(architecture, tag)
    address = config.get("hf_hub") or ""
    if not address:
        return _from_url(config["url"], f"the weights '{tag}' of {architecture}")
    repository, _, name = address.rpartition("/")
    return _from_hub(repository, candidates(name), f"the weights '{tag}' of {architecture}")


def candidates(name: str) -> list[str]:
    """Return the file names to try, safetensors first; an empty name is open_clip's own."""
    if name in ("", _WEIGHTS):
        return ["open_clip_model.safetensors", _WEIGHTS]
    stem, _, ending = name.rpartition(".")
    return [f"{stem}.safetensors", name] if ending in ("bin", "pth", "pt") else [name]


def fetch_file(repository: str, names: list[str]) -> Path:
    """Look into the cache, so that cached files need no network; then ask the hub, once for each name.

    Args:
        repository: "owner/name".
        names: File names, the best first; the first that exists is returned.

    Raises:
        Exception: Whatever kept the hub's client from it; `first_line` makes a reason of it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=True))
        except (EntryNotFoundError, OSError):
            continue
    check_reachable()
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, etag_timeout=TIMEOUT))
        except LocalEntryNotFoundError:  # no answer from the hub: another name is of no use
            raise
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"{repository} holds none of {', '.join(names)}")


def _from_hub(repository: str, names: list[str], what: str) -> Path:
    try:
        return fetch_file(repository, names)
    except Exception as error:
        raise _absent(what, f"{repository} on the Hugging Face hub", names[0], "HF_HOME", error) from error


def _from_url(url: str, what: str) -> Path:
    from open_clip.pretrained import download_pretrained_from_url

    try:
        with _socket_timeout():
            return Path(download_pretrained_from_url(url))
    except Exception as error:
        raise _absent(what, url, "that file", "~/.cache/clip", error) from error


def _absent(what: str, where: str, name: str, cache: str, error: Exception) -> MachineError:
    cache = f"{cache}, by default ~/.cache/huggingface" if cache == "HF_HOME" else cache
    return MachineError(
        f"{what} are not on this machine and could not be downloaded from {where} ({first_line(error)}).",
        f"Download {name} where there is a network and pass it with --pretrained FILE, or copy the cache folder from "
        f"there ({cache}).",
    )


def check_reachable() -> None:
    """Ask the hub for one answer; the hub's own client would retry for minutes.

    Raises:
        OSError: There is none in `TIMEOUT` seconds, or the hub is switched off (HF_HUB_OFFLINE).
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # an answer, whatever it says
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return  # somebody answers; the hub's client brings certificates of its own
        raise OSError(f"no network: {error.reason}") from error


@contextmanager
def hub_as_it_is() -> Iterator[None]:
    """Let libraries ask the hub where it answers, and only its cache where it does not."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        check_reachable()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """Give every new socket a time limit, so that a silent network is an error and not a hang."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def first_line(error: BaseException) -> str:
    """Return kind and first line of an error, for a message."""
    text = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
