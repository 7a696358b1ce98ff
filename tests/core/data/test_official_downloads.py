"""Every official data set in miniature, from a server that drops connections to prepared labels."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ovseg_cli.core.data.download import download
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders
from tests.core.data.flaky_server import Answer, FlakyServer, flaky_server
from tests.core.data.packing import PUBLISHED, make_mini, pack_all

FETCHED = [name for name, layout in PUBLISHED if layout == "official" and load_spec(name).downloads[0].file]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("os.fsync", lambda _: None)  # nobody pulls the plug here
    with flaky_server() as running:
        yield running


def of_any_size(spec: Spec) -> Spec:
    """The spec without the sizes and checksums of the published files, which a miniature cannot have."""
    unknown = {"size": None, "about": None, "sha256": None, "md5": None}
    return spec.model_copy(update={"downloads": [part.model_copy(update=unknown) for part in spec.downloads]})


@pytest.mark.parametrize("name", FETCHED)
def test_official_files_are_fetched_unpacked_and_prepared(tmp_path: Path, server: FlakyServer, name: str) -> None:
    original, _ = make_mini(tmp_path / "unpacked", name)
    spec, folders = of_any_size(original), Folders(tmp_path / "data", tmp_path)
    place = folders.data / "_downloads" / (spec.download_folder or spec.name)
    for path in pack_all(tmp_path / "unpacked", tmp_path / "packed", name):
        server.files[f"/m/{path.name}"] = path.read_bytes()
    server.answers = [Answer(cut=200), Answer(status=503)]
    if spec.downloads[0].login:
        with pytest.raises(DataError, match="log in"):
            download(spec, folders, f"{server.url}/m", Silent(), lambda _: None)
        for path in (tmp_path / "packed").iterdir():
            path.rename(place / path.name)  # what people do
    source = download(spec, folders, f"{server.url}/m", Silent(), lambda _: None)
    fetched = prepare(spec, folders, source)
    assert (
        fetched.fingerprint == prepare(original, Folders(tmp_path / "o", tmp_path), tmp_path / "unpacked").fingerprint
    )
    assert bool(server.log) != spec.downloads[0].login, "a mirror is not asked for what needs a login"
