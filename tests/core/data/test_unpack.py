"""An archive becomes files, all of them or none; what no data set needs is refused by name."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from ovseg_cli.core.data import unpack as unpacking
from ovseg_cli.core.data.unpack import Limits, judge, unpack
from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.reporter import Silent
from tests.core.data.handmade import tree

FILES = {"voc/images/a.jpg": b"\xff\xd8" * 700, "voc/labels/a.png": b"\x89PNG", "voc/empty.txt": b""}
KINDS = ["a.zip", "a.tar", "a.tar.gz", "a.tgz"]


def make_zip(path: Path, files: dict[str, bytes], **attributes: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo itself would mend it
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], change: Callable[[tarfile.TarInfo], object] | None = None) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change:
                change(info)
            archive.addfile(info, io.BytesIO(data[: info.size]))
    return path


def make(path: Path, files: dict[str, bytes]) -> Path:
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)


def put(path: Path, **limits: int) -> dict[str, bytes]:
    unpack(path, path.parent / "out", Silent(), Limits(**limits))
    return tree(path.parent / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / kind, FILES)
    assert put(archive) == FILES
    contents = judge(archive)
    assert (contents.files, contents.bytes, contents.top) == (3, sum(map(len, FILES.values())), ("voc",))
    assert sorted(p.name for p in tmp_path.iterdir()) == [kind, "out"]


@pytest.mark.parametrize("kind", KINDS)
def test_second_archive_joins_the_first(tmp_path: Path, kind: str) -> None:
    put(make(tmp_path / "first.zip", {"images/train/a.jpg": b"a", "images/list.txt": b"old"}))
    there = put(make(tmp_path / kind, {"images/val/b.jpg": b"b", "images/list.txt": b"new"}))
    assert there == {"images/train/a.jpg": b"a", "images/val/b.jpg": b"b", "images/list.txt": b"new"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "absolute path"),
        ("../outside.txt", "leads out of the folder"),
        ("voc/../../outside.txt", "leads out of the folder"),
        ("voc\\..\\..\\outside.txt", "leads out of the folder"),
        ("C:/windows/a.dll", "absolute path"),
        ("a\nb", "control characters"),
        ("n" * 2000, "too long"),
    ],
)
def test_names_that_lead_out_are_refused(tmp_path: Path, kind: str, name: str, why: str) -> None:
    archive = make(tmp_path / kind, {"good.txt": b"good", name: b"evil"})
    with pytest.raises(DataError, match=f"nothing of this archive is unpacked; it holds .*{why}") as caught:
        put(archive)
    assert repr(name)[:200] in str(caught.value) and caught.value.exit_code == 3
    assert [p.name for p in tmp_path.iterdir()] == [kind]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (tarfile.SYMTYPE, "it is a link to '/etc/passwd'"),
        (tarfile.LNKTYPE, "it is a link"),
        (tarfile.FIFOTYPE, "neither a file nor a folder"),
        (tarfile.CHRTYPE, "neither a file nor a folder"),
        (tarfile.BLKTYPE, "neither a file nor a folder"),
    ],
)
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_links_and_devices_of_a_tar_are_refused(tmp_path: Path, name: str, kind: bytes, why: str) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    with pytest.raises(DataError, match=f"'x': .*{why}"):
        put(make_tar(tmp_path / name, {"x": b""}, change))


@pytest.mark.parametrize(
    ("kind", "why"), [(stat.S_IFLNK, "it is a link"), (stat.S_IFIFO, "neither"), (stat.S_IFCHR, "neither")]
)
def test_links_and_devices_of_a_zip_are_refused(tmp_path: Path, kind: int, why: str) -> None:
    with pytest.raises(DataError, match=f"'x': .*{why}"):
        put(make_zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, create_system=3, external_attr=(kind | 0o777) << 16))


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "a.zip", {"x": b"secret"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="'x': it is encrypted"):
        put(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["a.zip", "a.tgz"])  # a plain tar is never smaller than what it holds
def test_bombs_are_refused_by_proportion(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / kind, {"zeros": bytes(3_000_000)})
    with pytest.raises(DataError, match=r"'zeros': with it, [\d,]+ bytes unpack to 3,000,000"):
        put(archive, small=1000, ratio=200)
    assert len(put(archive, small=1000, ratio=2000)["zeros"]) == 3_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_bytes_or_members_are_refused(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / kind, FILES)
    with pytest.raises(DataError, match="'voc/images/a.jpg': with it"):
        put(archive, bytes=1000)
    with pytest.raises(DataError, match="one of more than 3 members"):
        put(archive, members=3)


@pytest.mark.parametrize("kind", ["a.tar", "a.tgz"])
@pytest.mark.parametrize("second", ["a", "a/b"])
def test_one_path_is_one_file(tmp_path: Path, kind: str, second: str) -> None:
    with pytest.raises(DataError, match="twice|a part of its path is a file"):
        put(make(tmp_path / kind, {"a": b"1", "./" + second: b"2"}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.8])
def test_damaged_archives_leave_nothing(tmp_path: Path, kind: str, keep: float) -> None:
    noise = bytes((i * i * 31 + i // 7) % 256 for i in range(40_000))
    whole = make(tmp_path / kind, {"a.bin": noise, "b.bin": noise[::-1]}).read_bytes()
    (tmp_path / kind).write_bytes(whole[: int(keep * len(whole))] if keep != 1 else b"x" * 3000)
    with pytest.raises(DataError, match="the archive is"):
        put(tmp_path / kind)
    assert [p.name for p in tmp_path.iterdir()] == [kind]


def test_wrong_bytes_inside_a_zip_are_noticed(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.bin": b"0123456789" * 3}, compress_type=zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"0123456789", b"012345678x", 1))
    with pytest.raises(DataError, match="CRC"):
        put(archive)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("end", [b"", b"\0" * 8])
def test_checksum_at_the_end_of_a_tar_gz_is_read(tmp_path: Path, end: bytes) -> None:
    archive = make_tar(tmp_path / "a.tgz", {"a": b"1"})
    archive.write_bytes(archive.read_bytes()[:-8] + end)
    with pytest.raises(DataError, match="damaged or cut off"):
        put(archive)


def test_tar_that_ends_at_a_member_is_cut_off(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {"a": b"1" * 512, "b": b"2" * 512})
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(DataError, match="without the mark that ends"):
        put(archive)


class Stops(Silent):
    """Interrupts once so many bytes are written."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def track(self, items: Iterable, what: str, total: int | None = None) -> Iterator:
        for done, item in enumerate(items, 1):
            yield item
            if done == self.after:
                raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_unpacking_goes_on(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three members: the third is being written when Ctrl-C comes; the first two are not written again."""
    monkeypatch.setattr(unpacking, "_MB", 1000)
    files = {f"d/{name}": name.encode() * 1000 for name in "abc"}
    archive, target = make(tmp_path / kind, files), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, target, Stops(3))
    (beside,) = tmp_path.glob(".*.unpacking")
    assert not target.exists() and sorted(tree(beside / "files")) == ["d/a", "d/b"]
    (beside / "half").write_bytes(b"c" * 10)
    before = {name: (beside / "files" / name).stat().st_ino for name in ("d/a", "d/b")}
    unpack(archive, target, Silent())
    assert tree(target) == files and not list(tmp_path.glob(".*"))
    assert {name: (target / name).stat().st_ino for name in before} == before


def test_what_another_archive_of_the_same_name_left_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_MB", 1000)
    with pytest.raises(KeyboardInterrupt):
        unpack(make(tmp_path / "a.zip", {"a": b"1" * 1000, "b": b"2" * 1000}), tmp_path / "out", Stops(1))
    assert put(make(tmp_path / "a.zip", {"a": b"3" * 1000})) == {"a": b"3" * 1000}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "out"]


def test_interrupted_moving_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path / "a.zip", FILES)
    real = unpacking.merge
    monkeypatch.setattr(unpacking, "merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        put(archive)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(unpacking, "merge", real)
    assert put(archive) == FILES


def test_nothing_of_an_archive_counts_but_names_and_bytes(tmp_path: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.mode, info.uid, info.uname = 0o6777, 0, "root"

    put(make_tar(tmp_path / "a.tar", {"run.sh": b"#!/bin/sh"}, change))
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o7111 == 0


def test_folders_of_another_system_are_left_out(tmp_path: Path) -> None:
    assert put(make(tmp_path / "a.zip", {"a.txt": b"a", "__MACOSX/._a.txt": b"b", "e/": b""})) == {"a.txt": b"a"}
    assert (tmp_path / "out" / "e").is_dir()


def test_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path / "a.zip", FILES)
    monkeypatch.setattr("ovseg_cli.core.data.upkeep.free_bytes", lambda _: 1000)
    with pytest.raises(MachineError, match=r"unpacking a\.zip needs about"):
        put(archive)


def test_file_in_the_way_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "voc").write_text("mine")
    with pytest.raises(MachineError, match="cannot write"):
        put(make(tmp_path / "a.zip", FILES))
    assert (tmp_path / "out" / "voc").read_text() == "mine"
