"""A data set is fetched, looked at, unpacked and prepared; what people have to fetch is named."""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovseg_cli.core.data.download import download
from ovseg_cli.core.data.download_plan import make_plan
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.errors import DataError, MachineError, UsageError
from ovseg_cli.core.runtime import Folders
from tests.core.data.flaky_server import Answer, FlakyServer, flaky_server
from tests.core.data.handmade import SPEC, folders_of, make_source, make_spec, tree
from tests.core.data.test_http_fetch import Heard
from tests.core.data.test_unpack import make_tar, make_zip

LIST = "a\nb\n"


class World:
    """The three pictures as three published files on a server, and a spec that knows their addresses."""

    def __init__(self, folder: Path, server: FlakyServer):
        self.folder, self.server, self.heard = folder, server, Heard()
        self.folders: Folders = folders_of(folder)
        self.files = tree(make_source(folder / "originals"))
        packed = folder / "packed"
        packed.mkdir()
        self.images = {f"mini/{name}": data for name, data in self.files.items() if name.startswith("images")}
        labels = {name.removeprefix("labels/"): data for name, data in self.files.items() if name.startswith("labels")}
        make_zip(packed / "pictures.zip", self.images)
        make_tar(packed / "labels.tar.gz", labels)
        (packed / "names.txt").write_text(LIST)
        for name in ("pictures.zip", "labels.tar.gz", "names.txt"):
            server.files[f"/data/{name}"] = (packed / name).read_bytes()
        self.packed = packed / "pictures.zip"

    def spec(self, **pictures: object) -> Spec:
        """The spec; what stands in `pictures` is added to the first file (None removes a key)."""
        base = f"{self.server.url}/data"
        first = {"what": "pictures", "file": "pictures.zip", "url": f"{base}/pictures.zip", **pictures}
        parts = [
            {k: v for k, v in first.items() if v is not None},
            {"what": "labels", "file": "labels.tar.gz", "url": f"{base}/labels.tar.gz", "into": "mini/labels"},
            {"what": "names", "file": "names.txt", "url": f"{base}/names.txt", "into": "mini/lists"},
        ]
        lines = []
        for part in parts:
            values = {"page": "http://example.org/get", **part}
            lines += ["[[downloads]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
        return make_spec(self.folder, SPEC.replace("[encoding]", "\n".join(lines) + "\n[encoding]"))

    def fetch(self, spec: Spec | None = None, mirror: str | None = None) -> Path:
        return download(spec or self.spec(), self.folders, mirror, self.heard, self.heard.waits.append)

    @property
    def place(self) -> Path:
        return self.folders.data / "_downloads" / "mini"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("no_proxy", "*")
    with flaky_server() as server:
        yield World(tmp_path, server)


def test_what_was_fetched_is_prepared_like_the_originals(world: World) -> None:
    spec = world.spec()
    source = world.fetch(spec)
    assert tree(source) == {f"mini/{name}": data for name, data in world.files.items()} | {
        "mini/lists/names.txt": LIST.encode()
    }
    fetched = prepare(spec, world.folders, source)
    assert fetched.images == {"train": 2, "val": 1}
    assert (
        fetched.fingerprint
        == prepare(spec, Folders(world.folder / "o", world.folder), world.folder / "originals").fingerprint
    )


def test_nothing_is_fetched_or_unpacked_twice(world: World) -> None:
    source = world.fetch()
    times = {p: os.stat(p).st_mtime_ns for p in source.rglob("*")}
    world.server.log.clear()
    assert world.fetch() == source and world.server.log == []
    assert {p: os.stat(p).st_mtime_ns for p in source.rglob("*")} == times
    assert [item.state for item in make_plan(world.spec(), world.folders).files] == ["unpacked"] * 3


def test_archives_may_be_deleted_once_they_are_unpacked(world: World) -> None:
    world.fetch()
    assert any("may be deleted" in said for said in world.heard.said)
    (world.place / "pictures.zip").unlink()
    world.server.log.clear()
    world.fetch()
    assert world.server.log == []


def test_lost_files_are_unpacked_again_or_fetched_again(world: World) -> None:
    source = world.fetch()
    before = tree(source)
    (source / "mini" / "images").rename(world.folder / "away")
    (source / "mini").rename(world.folder / "away too")
    world.server.log.clear()
    world.fetch()
    assert tree(source) == before and world.server.log == []
    (source / "mini").rename(world.folder / "gone")
    (world.place / "pictures.zip").unlink()
    world.fetch()
    assert tree(source) == before and [path for path, *_ in world.server.log] == ["/data/pictures.zip"]


def test_data_sets_of_the_same_files_share_them(world: World) -> None:
    world.fetch()
    text = (world.folder / "mini.toml").read_text()
    other = make_spec(world.folder, text.replace('name = "mini"', 'name = "two"\ndownload_folder = "mini"'))
    world.server.log.clear()
    assert world.fetch(other) == world.place / "unpacked" and world.server.log == []


def test_mirror_is_asked_for_the_name_of_the_file(world: World) -> None:
    for name in ("pictures.zip", "labels.tar.gz", "names.txt"):
        world.server.files[f"/deep/er/{name}"] = world.server.files.pop(f"/data/{name}")
    spec = world.spec(url="http://example.org/x/y/get.php?id=7")
    world.fetch(spec, f"{world.server.url}/deep/er/")
    assert [path for path, *_ in world.server.log] == [f"/deep/er/{part.file}" for part in spec.downloads]


@pytest.mark.parametrize(
    "mirror", ["ftp://a/b", "a/b", "http://a/b?x=1", "http://u:p@a/b", "http://a/b#c", "file:///a"]
)
def test_mirror_that_is_no_folder_of_a_server_is_refused(world: World, mirror: str) -> None:
    with pytest.raises(UsageError, match="no address of a folder"):
        world.fetch(mirror=mirror)


def facts_of(data: bytes) -> dict[str, object]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest()}


@pytest.mark.parametrize("key", ["size", "sha256", "md5"])
def test_published_facts_are_compared(world: World, key: str) -> None:
    right = facts_of(world.packed.read_bytes())[key]
    wrong = 10**9 if key == "size" else str(right)[::-1]
    with pytest.raises((DataError, MachineError)) as caught:
        world.fetch(world.spec(**{key: wrong}))
    assert "pictures.zip" in str(caught.value) and "http://example.org/get" in str(caught.value)
    assert "never tried" in str(caught.value)
    assert not (world.place / "pictures.zip").exists() and not (world.place / "pictures.zip.part").exists()
    world.fetch(world.spec(**{key: right}))


def test_wrong_bytes_in_pieces_get_a_second_chance(world: World) -> None:
    """A part of a version that changed without a word (no ETag, same size): only the checksum can tell."""
    data = world.packed.read_bytes()
    world.server.tag, world.server.answers = None, [Answer(cut=100), *[Answer(status=500)] * 5]
    world.server.files["/data/pictures.zip"] = b"?" * len(data)
    spec = world.spec(sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(MachineError):
        world.fetch(spec)
    world.server.files["/data/pictures.zip"] = data
    world.fetch(spec)
    assert any("fetched again in one" in said for said in world.heard.said)


def test_checksum_is_recorded_at_the_first_download_and_compared_later(world: World) -> None:
    world.fetch()
    record = json.loads((world.place / "pictures.zip.record.json").read_text())
    data = world.packed.read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest() and record["bytes"] == len(data)
    assert record["address"] == f"{world.server.url}/data/pictures.zip"
    (world.place / "pictures.zip").unlink()
    (world.place / "unpacked" / "mini").rename(world.folder / "gone")
    world.server.files["/data/pictures.zip"] = make_zip(world.folder / "new.zip", {"other.png": b"x"}).read_bytes()
    with pytest.raises(DataError, match=r"not the file that was fetched first.*pictures\.zip\.record\.json"):
        world.fetch()
    (world.place / "pictures.zip.record.json").unlink()
    world.fetch()
    assert (world.place / "unpacked" / "other.png").exists()


def test_file_that_changed_on_the_disk_is_noticed(world: World) -> None:
    world.fetch()
    (world.place / "pictures.zip").write_bytes(b"PK, but not the same")
    with pytest.raises(DataError, match="not the file that was fetched first"):
        world.fetch()


def test_login_files_are_named_with_page_and_place(world: World) -> None:
    spec = world.spec(url=None, login=True)
    with pytest.raises(DataError) as caught:
        world.fetch(spec)
    said = str(caught.value)
    assert caught.value.exit_code == 3 and "log in at http://example.org/get" in said
    assert str(world.place / "pictures.zip") in said and "mini.toml --download" in said
    assert (world.place / "unpacked" / "mini" / "labels").is_dir(), "what needs no login is fetched meanwhile"
    with pytest.raises(DataError, match="log in"):
        world.fetch(spec, f"{world.server.url}/data")  # nor from a mirror
    assert "/data/pictures.zip" not in [path for path, *_ in world.server.log]
    (world.place / "pictures.zip").write_bytes(world.packed.read_bytes())
    assert prepare(spec, world.folders, world.fetch(spec)).images == {"train": 2, "val": 1}


def test_file_put_there_by_hand_is_looked_at(world: World) -> None:
    data = world.packed.read_bytes()
    spec = world.spec(url=None, login=True, size=len(data))
    world.place.mkdir(parents=True)
    (world.place / "pictures.zip").write_bytes(data[:-10])
    with pytest.raises(DataError, match="its size in bytes is"):
        world.fetch(spec)
    (world.place / "pictures.zip").write_bytes(data)
    world.fetch(spec)


def test_optional_files_are_mentioned_and_missed_by_nobody(world: World) -> None:
    source = world.fetch(world.spec())
    spec = world.spec(file=None, url=None, what="extra labels", optional=True)
    assert world.fetch(spec) == source
    assert any("extra labels" in said and "http://example.org/get" in said for said in world.heard.said)


def test_archives_of_other_kinds_are_left_to_people(world: World) -> None:
    world.server.files["/data/pictures.7z"] = b"7z\xbc\xaf"
    spec = world.spec(file="pictures.7z", url=f"{world.server.url}/data/pictures.7z")
    with pytest.raises(DataError, match=r"unpack it into .*unpacked.*--source .*unpacked") as caught:
        world.fetch(spec)
    assert caught.value.exit_code == 3 and (world.place / "pictures.7z").exists()


def test_evil_archive_leaves_the_folder_as_it_was(world: World) -> None:
    def link(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = tarfile.SYMTYPE, "/", 0

    evil = make_tar(world.folder / "labels.tar.gz", {"mini/x": b""}, link)
    world.server.files["/data/labels.tar.gz"] = evil.read_bytes()
    with pytest.raises(DataError, match="'mini/x': it is a link to '/'"):
        world.fetch()
    assert tree(world.place / "unpacked") == world.images


def test_full_disk_is_said_before_anything_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovseg_cli.core.data.upkeep.free_bytes", lambda _: 5 << 30)
    with pytest.raises(MachineError, match="downloading mini needs about 8.07 GB, 5.37 GB are free"):
        world.fetch(world.spec(about=4_000_000_000))
    assert world.server.log == []


def test_plan_counts_bytes_and_asks_nobody(world: World) -> None:
    size = len(world.packed.read_bytes())
    plan = make_plan(world.spec(size=size), world.folders)
    assert plan.need == 2 * size and not plan.folder.exists() and world.server.log == []
    world.server.answers = [Answer(cut=10), *[Answer(status=500)] * 9]
    with pytest.raises(MachineError):
        world.fetch(world.spec(size=size))
    begun = make_plan(world.spec(size=size), world.folders)
    assert (begun.files[0].state, begun.files[0].have, begun.need) == ("begun", 10, 2 * size - 10)


def test_data_without_downloads_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names nothing to download"):
        download(make_spec(tmp_path), folders_of(tmp_path))
    with pytest.raises(UsageError, match="drawn by the program"):
        download(load_spec("toy"), folders_of(tmp_path))


def test_spec_of_another_meaning_is_refused_before_the_download(world: World) -> None:
    text = (world.folder / "mini.toml") if world.spec() else None
    assert text is not None
    spec = make_spec(world.folder, text.read_text().replace('name = "mini"', 'name = "camvid"'))
    with pytest.raises(UsageError, match="name of a shipped data set"):
        world.fetch(spec)
    assert world.server.log == []


@pytest.mark.parametrize("name", [n for n in spec_names() if load_spec(n).generator is None])
def test_shipped_specs_say_where_each_file_is(name: str, tmp_path: Path) -> None:
    spec = load_spec(name)
    plan = make_plan(spec, folders_of(tmp_path))
    for item in plan.files:
        assert item.address or item.part.page.startswith("http")
        assert item.part.tried is None, "an address that was tried: say when"
        assert not item.is_foreign and (item.address is None or item.path is not None)
    login = {"cityscapes", "sa-1b", "ade20k-847"}
    assert all(item.part.login for item in plan.files) == (name in login)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": None}, "without a name"),
        ({"login": True}, "behind a login"),
        ({"file": "labels.tar.gz"}, "stands twice"),
        ({"file": "../x.zip"}, "file"),
        ({"url": "ftp://example.org/a.zip"}, "url"),
        ({"into": "../out"}, "into"),
    ],
)
def test_specs_that_contradict_themselves_are_refused(world: World, change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        world.spec(**change)
