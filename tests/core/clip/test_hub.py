"""Downloads that fail: the answer comes at once, names the file and the place; the cache needs no network."""

import socket
import ssl
import urllib.error

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from ovseg_cli.core.clip import hub
from ovseg_cli.core.errors import MachineError, UsageError


@pytest.fixture
def empty_cache(monkeypatch):
    """No cached file; asking the hub's client itself, which retries for minutes, is a failure of the test."""
    asked = []

    def download(repository, name, local_files_only=False, **_):
        asked.append(local_files_only)
        raise LocalEntryNotFoundError(f"{name} is not cached")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    yield
    assert asked and all(asked)


def no_network(*_, **__):
    raise urllib.error.URLError("Name or service not known")


def test_no_network_says_which_file_to_put_where(empty_cache, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(MachineError) as caught:
        hub.fetch_tag("ViT-B-16", "laion2b_s34b_b88k")
    text = str(caught.value)
    assert "laion/CLIP-ViT-B-16-laion2B-s34B-b88K" in text and "open_clip_model.safetensors" in text
    assert "HF_HOME" in text and "--pretrained FILE" in text and caught.value.exit_code == 4


def test_a_silent_network_is_given_up_in_time(empty_cache, monkeypatch):
    server = socket.create_server(("127.0.0.1", 0))  # accepts nothing and never answers
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(hub, "TIMEOUT", 0.2)
    with server, pytest.raises(MachineError, match="could not be downloaded"):
        hub.fetch_tag("ViT-B-16", "laion2b_s34b_b88k")


def test_offline_mode_is_respected(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MachineError, match="HF_HUB_OFFLINE is set"):
        hub.fetch_tag("ViT-B-16", "openai")


def test_cached_weights_need_no_network(monkeypatch, tmp_path):
    asked = []

    def download(repository, name, local_files_only=False, **_):
        asked.append((name, local_files_only))
        if name.endswith(".bin"):
            return str(tmp_path / name)
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    assert hub.fetch_tag("ViT-B-16", "laion2b_s34b_b88k").name == "open_clip_pytorch_model.bin"
    assert asked == [("open_clip_model.safetensors", True), ("open_clip_pytorch_model.bin", True)]


def test_an_answer_with_an_error_code_counts_as_a_network(monkeypatch):
    def refuses(*_, **__):
        raise urllib.error.HTTPError("x", 403, "no", {}, None)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", refuses)
    hub.check_reachable()


def test_missing_certificates_of_python_do_not_stop_the_hubs_own_client(monkeypatch):
    def untrusted(*_, **__):
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed"))

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", untrusted)
    hub.check_reachable()


def test_plain_addresses_have_a_time_limit_too(monkeypatch):
    limits = []

    def download(url):
        limits.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    before = socket.getdefaulttimeout()
    monkeypatch.setattr("open_clip.pretrained.download_pretrained_from_url", download)
    monkeypatch.setattr(hub, "tag_config", lambda *_: {"url": "https://example.org/rn50.pt"})
    with pytest.raises(MachineError, match="example.org/rn50.pt.*TimeoutError.*~/.cache/clip"):
        hub.fetch_tag("RN50", "yfcc15m")
    assert limits == [hub.TIMEOUT] and socket.getdefaulttimeout() == before


def test_names_to_try_put_safetensors_first():
    assert hub.candidates("") == ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    assert hub.candidates("a.bin") == ["a.safetensors", "a.bin"]
    assert hub.candidates("a.safetensors") == ["a.safetensors"]


def test_unknown_tag_lists_the_known_ones():
    with pytest.raises(UsageError, match="Did you mean 'dfn2b'.*Known: openai"):
        hub.tag_config("ViT-B-16", "dfn2")
