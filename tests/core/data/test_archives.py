"""SA-1B as it is downloaded: tar files are listed, never unpacked, and what is wrong with one is named."""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from ovseg_cli.core.data import archive_list, layout
from ovseg_cli.core.data.archive import ArchiveMember, locate, read_file
from ovseg_cli.core.data.archive_list import list_archive
from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
from ovseg_cli.core.data.prepare import allowed_missing, plan, prepare
from ovseg_cli.core.data.reports import PreparedReport
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError, UsageError
from tests.core.data.handmade import folders_of, make_spec
from tests.core.data.tars import SIZE, jpeg, masks_json, member, pair, write_official, write_tar

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
STEMS = ["sa_1", "sa_2", "sa_3"]


def prepare_in(folder: Path, source: Path | None = None, **options: object) -> PreparedReport:
    return prepare(load_spec("sa-1b"), folders_of(folder), source, **options)  # type: ignore[arg-type]


def open_in(folder: Path) -> SegmentationData:
    return PreparedData.open(load_spec("sa-1b"), folders_of(folder)).subset("train")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_official(tmp_path / "source", {"sa_000020": STEMS[:2], "sa_000021": STEMS[2:]})


# --- one archive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_listing_says_where_each_file_lies(tmp_path: Path, form: str) -> None:
    long = f"./{'x' * 150}.json"  # more than the 100 bytes that a plain header has
    files = [*pair("sa_1"), *([(long, b"{}")] if form != "ustar" else [])]
    path = write_tar(tmp_path / "sa_000020.tar", files, FORMS[form])
    listing = list_archive(path)
    assert not listing.problems
    data = path.read_bytes()
    assert {m.name: data[m.offset : m.offset + m.size] for m in listing.members} == dict(files)
    assert {m.name: m.read() for m in listing.members} == dict(files)


def test_member_is_read_like_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 80
    path = write_tar(tmp_path / "a.tar", [("./first", b"1" * 700), ("./second", content), ("./third", b"3")])
    inside = list_archive(path).members[1]
    assert (inside.stem, inside.size, str(inside)) == ("second", len(content), f"{path}, member second")
    with inside.open() as stream, io.BytesIO(content) as plain:
        for where, whence, count in ((5, 0, 10), (-3, 2, 9), (-1, 1, 1), (20_000, 0, 800), (30_000, 0, 5), (0, 0, -1)):
            assert stream.seek(where, whence) == plain.seek(where, whence)
            assert stream.read(count) == plain.read(count)
    assert inside.read(7) == content[:7] and read_file(inside) == content
    assert pickle.loads(pickle.dumps(inside)) == inside == locate(path, inside.slot)
    assert locate(path, None) == path


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_archive_cut_anywhere_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = write_tar(tmp_path / "sa_000020.tar", [*pair("sa_1"), *pair("sa_2")], tarfile.PAX_FORMAT)
    whole = list_archive(path)
    last = whole.members[-1]
    end = -(-(last.offset + last.size) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    keep = data.draw(st.integers(0, end))
    path.write_bytes(path.read_bytes()[:keep])
    listing = list_archive(path)
    assert len(listing.problems) == 1 and str(path) in str(listing.problems[0])
    assert listing.members == [m for m in whole.members if m.offset + m.size <= keep][: len(listing.members)]
    assert len(listing.members) >= sum(m.offset + m.size <= keep for m in whole.members) - 1


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 511), st.integers(0, 255), st.sampled_from(list(FORMS)))
def test_a_changed_header_is_never_a_crash(tmp_path: Path, place: int, value: int, form: str) -> None:
    path = write_tar(tmp_path / "sa_000020.tar", [*pair("sa_1"), *pair("sa_2")], FORMS[form])
    before = list_archive(path)
    broken = bytearray(path.read_bytes())
    at = before.members[1].offset - 512 + place
    changed = broken[at] != value
    broken[at] = value
    path.write_bytes(broken)
    listing = list_archive(path)
    assert bool(listing.problems) == changed or listing.members == before.members  # blanks of a number may differ


EVIL: dict[str, tuple[tuple[tarfile.TarInfo, bytes], str]] = {
    "parent": (member("../sa_9.jpg", b"x"), "'../sa_9.jpg': its name leads out of the folder"),
    "parent inside": (member("./a/../../sa_9.jpg", b"x"), "leads out of the folder"),
    "backslashes": (member("..\\sa_9.jpg", b"x"), "leads out of the folder"),
    "absolute": (member("/etc/sa_9.jpg", b"x"), "'/etc/sa_9.jpg': its name is an absolute path"),
    "a drive": (member("C:/sa_9.jpg", b"x"), "absolute path"),
    "symbolic link": (member("./sa_9.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd"), "it is a link to '/etc/passwd'"),
    "hard link": (member("./sa_9.jpg", kind=tarfile.LNKTYPE, link="./sa_1.jpg"), "it is a link to './sa_1.jpg'"),
    "device": (member("./sa_9.jpg", kind=tarfile.CHRTYPE), "neither a file nor a folder"),
    "pipe": (member("./sa_9.jpg", kind=tarfile.FIFOTYPE), "neither a file nor a folder"),
    "control character": (member("./sa_9\x07.jpg", b"x"), "control characters"),
    "no UTF-8": (member("./sa_\udcff.jpg", b"x"), "not UTF-8"),
}


@pytest.mark.parametrize("row", EVIL)
def test_evil_members_are_refused_by_name(tmp_path: Path, row: str) -> None:
    evil, words = EVIL[row]
    path = write_tar(tmp_path / "sa_000020.tar", [*pair("sa_1"), evil], tarfile.GNU_FORMAT)
    listing = list_archive(path)
    (problem,) = listing.problems
    assert words in str(problem) and str(problem).startswith(f"{path}, member ") and "\x07" not in str(problem)
    assert [m.stem for m in listing.members] == ["sa_1", "sa_1"]


def test_many_evil_members_are_counted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [member(f"../{i}", b"") for i in range(20)])
    problems = list_archive(path).problems
    assert len(problems) == 6 and "15 more members are refused" in str(problems[-1])


def not_a_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(2000))


def compressed(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members:
            tar.addfile(*[(info, io.BytesIO(content)) for info, content in [member(name, data)]][0])


def long_header(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """A pax header that says it has 2 GiB, which must not be read into memory."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2 << 30
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT))
    os.truncate(path, (2 << 30) + 2048)


ODD: dict[str, tuple[Callable[[Path, Sequence[tuple[str, bytes]]], object], str]] = {
    "no tar": (not_a_tar, "is no plain tar file"),
    "compressed": (compressed, "is no plain tar file"),
    "empty": (lambda path, members: path.write_bytes(b""), "is empty (0 bytes)"),
    "a few bytes": (lambda path, members: path.write_bytes(b"abc"), "cut off within its first header"),
    "absent": (lambda path, members: None, "cannot be read"),
    "a folder": (lambda path, members: path.mkdir(), "cannot be read"),
    "a header of gigabytes": (long_header, "holds a header of 2,147,483,648 bytes"),
}


@pytest.mark.parametrize("row", ODD)
def test_what_is_no_plain_tar_is_named(tmp_path: Path, row: str) -> None:
    make, words = ODD[row]
    make(tmp_path / "sa_000020.tar", pair("sa_1"))
    listing = list_archive(tmp_path / "sa_000020.tar")
    assert not listing.members and words in str(listing.problems[0])


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_list, "MAX_MEMBERS", 3)
    listing = list_archive(write_tar(tmp_path / "a.tar", [*pair("sa_1"), *pair("sa_2")]))
    assert "holds more than 3 files" in str(listing.problems[0])


# --- a data set in archives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_official_archives_are_prepared_in_place(tmp_path: Path, form: str) -> None:
    source = write_official(tmp_path / "source", {"sa_000020": STEMS[:2], "sa_000021": STEMS[2:]}, FORMS[form])
    before = {path: path.read_bytes() for path in source.iterdir()}
    report = prepare_in(tmp_path, source)
    assert report.images == {"train": 3} and report.made == 3
    assert "3 of the 11,185,362 pictures" in report.warnings[0]
    data = open_in(tmp_path)
    assert data.names == STEMS and data.sizes == [SIZE] * 3 and data.has_masks and not data.has_labels
    for number, stem in enumerate(STEMS):
        expected = np.asarray(Image.open(io.BytesIO(jpeg(stem))))
        assert np.array_equal(data.image(number), expected)
        assert np.array_equal(data[number].image.permute(1, 2, 0).numpy(), expected) and data[number].label is None
        masks = data.entries[number].masks_file(data.data.root)
        assert masks is not None and read_file(masks) == masks_json(stem)
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    assert not list((tmp_path / "datasets").rglob("*.jpg")), "nothing is unpacked or linked"


def test_folders_and_archives_may_be_mixed_and_unpacking_changes_nothing(tmp_path: Path, source: Path) -> None:
    prepare_in(tmp_path, source)
    packed = open_in(tmp_path)
    with tarfile.open(source / "sa_000021.tar") as tar:
        tar.extractall(source / "sa_000021", filter="data")
    (source / "sa_000021.tar").unlink()
    report = prepare_in(tmp_path, source)
    assert report.made == 1 and report.fingerprint == packed.data.fingerprint
    mixed = open_in(tmp_path)
    assert [type(e.image_file(tmp_path)) is ArchiveMember for e in mixed.entries] == [True, True, False]
    assert np.array_equal(mixed.image(2), packed_image(STEMS[2]))


def packed_image(stem: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg(stem))))


LAYOUTS = {
    "folders": ("{tar}/{stem}.jpg", "{tar}/{stem}.json"),
    "pixelclip": ("images/{tar}/{stem}.jpg", "annotations/{tar}/{stem}.json"),
    "one folder": ("{stem}.jpg", "{stem}.json"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_unpacked_layouts_are_prepared_too(tmp_path: Path, name: str) -> None:
    for stem in STEMS:
        for pattern, data in zip(LAYOUTS[name], (jpeg(stem), masks_json(stem)), strict=True):
            path = tmp_path / "source" / pattern.format(tar="sa_000020", stem=stem)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    report = prepare_in(tmp_path, tmp_path / "source")
    assert report.images == {"train": 3}
    assert np.array_equal(open_in(tmp_path).image(1), packed_image(STEMS[1]))
    assert prepare_in(tmp_path).made == 0 and prepare_in(tmp_path, check_only=True).images == {"train": 3}
    (tmp_path / "source").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="missing"):
        open_in(tmp_path)


def test_archives_that_hold_a_folder_of_their_name_are_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "source/sa_000020.tar", pair("sa_1", "sa_000020/"))
    assert prepare_in(tmp_path, tmp_path / "source").images == {"train": 1}


def test_other_files_in_an_archive_do_not_count(tmp_path: Path) -> None:
    extra = [("./._sa_1.jpg", b"resource"), ("./readme.txt", b"words"), ("./deep/down/sa_5.jpg", b"")]
    write_tar(tmp_path / "source/sa_000020.tar", [*pair("sa_1"), *extra])
    assert prepare_in(tmp_path, tmp_path / "source").images == {"train": 1}


def test_unpacked_folder_beside_its_archive_is_left_out_aloud(tmp_path: Path, source: Path) -> None:
    with tarfile.open(source / "sa_000021.tar") as tar:
        tar.extractall(source / "sa_000021", filter="data")
    report = prepare_in(tmp_path, source)
    assert report.images == {"train": 3}
    assert any("the folder 'sa_000021' beside it is left out" in warning for warning in report.warnings)


def test_unchanged_archives_are_not_read_again(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    scan = archive_list._scan
    monkeypatch.setattr(archive_list, "_scan", lambda path, facts: (read.append(path.name), scan(path, facts))[1])
    prepare_in(tmp_path, source)
    assert read == ["sa_000020.tar", "sa_000021.tar"]
    assert prepare_in(tmp_path).made == 0
    assert len(read) == 2, "listings are kept"
    write_official(source, {"sa_000021": ["sa_3", "sa_4"], "sa_000022": ["sa_5"]})
    report = prepare_in(tmp_path)
    assert read[2:] == ["sa_000021.tar", "sa_000022.tar"] and report.images == {"train": 5} and report.made == 3
    for listing in (tmp_path / "datasets/sa-1b/index/archives").iterdir():
        listing.write_text("{")
    assert prepare_in(tmp_path).made == 0 and len(read) == 7, "a damaged listing is made again"


def test_interrupted_preparation_goes_on(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovseg_cli.core.data.originals import Recorder

    load = Recorder.load

    def stop(self: Recorder, item: object, problems: list) -> object:
        if item.stem == "sa_2":  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return load(self, item, problems)  # type: ignore[arg-type]

    monkeypatch.setattr(Recorder, "load", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_in(tmp_path, source)
    monkeypatch.setattr(Recorder, "load", load)
    assert prepare_in(tmp_path, source).made == 2


def test_removed_archives_leave_and_their_folder_stays(tmp_path: Path, source: Path) -> None:
    prepare_in(tmp_path, source)
    (source / "sa_000020.tar").unlink()
    report = prepare_in(tmp_path)
    assert report.images == {"train": 1} and open_in(tmp_path).names == STEMS[2:]
    (source / "sa_000021.tar").unlink()
    with pytest.raises(DataError, match="no known layout"):
        prepare_in(tmp_path)
    assert source.is_dir()


def test_plan_counts_and_writes_nothing(tmp_path: Path, source: Path) -> None:
    planned = plan(load_spec("sa-1b"), folders_of(tmp_path), source)
    assert (planned.images, planned.left, planned.need) == ({"train": 3}, {"train": 3}, 0)
    assert not (tmp_path / "datasets").exists()


def test_any_part_will_do_unless_a_number_is_given(tmp_path: Path, source: Path) -> None:
    assert allowed_missing(folders_of(tmp_path), load_spec("sa-1b")) is None
    assert allowed_missing(folders_of(tmp_path), load_spec("camvid")) == 0
    with pytest.raises(DataError, match="11,185,359 pictures of the official sa-1b are not there"):
        prepare_in(tmp_path, source, allow_missing=5)


def append(path: Path, name: str, data: bytes) -> None:
    with tarfile.open(path, "a") as tar:
        tar.addfile(*[(info, io.BytesIO(content)) for info, content in [member(name, data)]][0])


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def cut_within(path: Path, number: int) -> None:
    """Cut an archive after a few bytes of one of its files."""
    cut(path, list_archive(path).members[number].offset + 9)


def cut_after(path: Path, number: int) -> None:
    """Cut an archive where one of its files ends, filled up to whole blocks."""
    found = list_archive(path).members[number]
    cut(path, -(-(found.offset + found.size) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "cut off in a member": (
        lambda s: cut_within(s / "sa_000020.tar", 2),
        ["sa_000020.tar: the archive is cut off: './sa_2.jpg' should end at byte", "; 2 files are whole before that"],
    ),
    "cut off in a header": (
        lambda s: cut(s / "sa_000021.tar", 700),
        ["sa_000021.tar: the archive is cut off within the header at byte 512", "Download the archive again."],
    ),
    "without its end": (
        lambda s: cut_after(s / "sa_000021.tar", 1),
        ["sa_000021.tar: the archive is cut off: it ends at byte", "without the mark that ends a tar file; 2 files"],
    ),
    "between a picture and its masks": (
        lambda s: cut_after(s / "sa_000021.tar", 0),
        [
            "without the mark that ends a tar file; 1 file is whole",
            "Download the archive again. Then: ovseg prepare sa-1b",
        ],
    ),
    "picture without masks": (
        lambda s: append(s / "sa_000021.tar", "./sa_8.jpg", jpeg("sa_8")),
        ["sa_000021.tar, member sa_8.json: this label is missing (the image 'sa_8' of 'train' is there)"],
    ),
    "masks without picture": (
        lambda s: append(s / "sa_000021.tar", "./sa_8.json", b"{}"),
        ["sa_000021.tar, member sa_8.jpg: this image is missing"],
    ),
    "same picture in two archives": (
        lambda s: write_official(s, {"sa_000022": ["sa_1"]}),
        ["sa_000022.tar, member sa_1.jpg: has the same name 'sa_1' as", "sa_000020.tar, member sa_1.jpg"],
    ),
    "same picture twice in one": (
        lambda s: append(s / "sa_000021.tar", "./sa_3.jpg", jpeg("sa_3")),
        ["sa_000021.tar, member sa_3.jpg: has the same name 'sa_3' as"],
    ),
    "evil name": (
        lambda s: append(s / "sa_000021.tar", "../../sa_8.jpg", jpeg("sa_8")),
        ["sa_000021.tar, member '../../sa_8.jpg': its name leads out of the folder"],
    ),
    "picture that is none": (
        lambda s: write_tar(s / "sa_000022.tar", [("./sa_8.jpg", b"text"), ("./sa_8.json", b"{}")]),
        ["sa_000022.tar, member sa_8.jpg: this is not a picture"],
    ),
    "empty picture": (
        lambda s: write_tar(s / "sa_000022.tar", [("./sa_8.jpg", b""), ("./sa_8.json", b"{}")]),
        ["sa_000022.tar, member sa_8.jpg: the file is empty"],
    ),
}


@pytest.mark.parametrize("row", BROKEN)
def test_broken_archives_are_named_and_whole_pictures_stay(tmp_path: Path, source: Path, row: str) -> None:
    break_it, parts = BROKEN[row]
    break_it(source)
    with pytest.raises(DataError) as caught:
        prepare_in(tmp_path, source)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert not (tmp_path / "datasets/sa-1b/manifest.json").exists()
    assert "sa_1" in (tmp_path / "datasets/sa-1b/index/train.jsonl").read_text()
    with pytest.raises(DataError) as again:
        prepare_in(tmp_path / "elsewhere", source, check_only=True)
    assert parts[0] in str(again.value) and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", ["nothing", "only a picture"])
def test_folder_without_archives_says_what_was_looked_for(tmp_path: Path, content: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / ("a.png" if content == "only a picture" else ".hidden")).write_bytes(b"")
    with pytest.raises(DataError, match=r"no known layout of sa-1b is there; looked for sa_\*\.tar"):
        prepare_in(tmp_path, tmp_path / "source")


# --- reading what was prepared -------------------------------------------------------------------------------------


def test_workers_and_pickle_read_archives(tmp_path: Path, source: Path) -> None:
    prepare_in(tmp_path, source, workers=2)
    data = open_in(tmp_path)
    assert np.array_equal(pickle.loads(pickle.dumps(data)).image(2), packed_image("sa_3"))
    loader = DataLoader(data, batch_size=None, num_workers=2)  # type: ignore[arg-type]
    assert [sample.name for sample in loader] == STEMS
    assert data.select([2]).image(0).shape == (*SIZE, 3)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(512))


CHANGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "sa_000020.tar: this archive is missing"),
    "cut": (lambda path: cut(path, 3000), "sa_000020.tar: this archive has changed"),
    "grown": (grow, "sa_000020.tar: this archive has changed"),
}


@pytest.mark.parametrize("row", CHANGED)
def test_changed_archives_are_noticed_when_the_data_is_opened(tmp_path: Path, source: Path, row: str) -> None:
    change, words = CHANGED[row]
    prepare_in(tmp_path, source)
    data = open_in(tmp_path)
    change(source / "sa_000020.tar")
    with pytest.raises(DataError, match=words) as caught:
        open_in(tmp_path)
    assert caught.value.mend == "Prepare it again: ovseg prepare sa-1b"
    if row != "grown":
        with pytest.raises(DataError, match="sa_000020.tar, member sa_2.jpg: the archive"):
            data.image(1)


def test_check_reads_everything(tmp_path: Path, source: Path) -> None:
    prepare_in(tmp_path, source)
    path, entry = source / "sa_000020.tar", open_in(tmp_path).entries[1]
    assert entry.image_at is not None and entry.masks_at is not None
    content = bytearray(path.read_bytes())
    content[entry.image_at[1] + 200 : entry.image_at[1] + 900] = bytes(700)
    content[entry.masks_at[1] + 50] = ord("!")
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        prepare_in(tmp_path, check_only=True)
    text = str(caught.value)
    assert (
        "member sa_2.jpg: the picture has changed since it was prepared" in text or "member sa_2.jpg: the file" in text
    )
    assert "member sa_2.json: the " in text


def test_archives_are_for_masks_without_classes_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="archives are read in place for class-agnostic masks only"):
        make_spec(tmp_path, listed='archives = "*.tar"')


def test_the_shipped_spec_is_read_in_every_layout() -> None:
    spec = load_spec("sa-1b")
    assert {spec.encoding_of(form).kind for form in spec.layouts} == {"rle-json"} and layout.holds_masks(spec)


def test_listing_of_another_archive_of_that_name_is_not_taken(tmp_path: Path) -> None:
    one = write_tar(tmp_path / "one/sa_000020.tar", pair("sa_1"))
    other = write_tar(tmp_path / "other/sa_000020.tar", pair("sa_2"))
    list_archive(one).save(tmp_path)
    assert list_archive(one, tmp_path).is_known and not list_archive(other, tmp_path).is_known
    shutil.copy2(other, one)
    assert list_archive(one, tmp_path).members[0].stem == "sa_2"
    assert json.loads(next((tmp_path / "index/archives").iterdir()).read_text().splitlines()[0])["path"] == str(one)
