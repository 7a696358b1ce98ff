"""The cache: what is written comes back, and what is broken or of another picture is refused by name."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg_cli.core.data import rle
from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.proposals import entry as entries
from ovseg_cli.core.proposals.entry import Entry, image_digest
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.types import Proposals
from tests.core.proposals.small import SIZE, draw_image, draw_masks, draw_soft, same

ROOT = Path(__file__).resolve().parents[3]
KEY = {
    "generator": "squares",
    "settings": {"side": 3},
    "weights": None,
    "data": "mini",
    "subset": "val",
    "data_fingerprint": "abc",
    "images": 2,
    "command": "ovseg propose squares --data mini --subset val",
}


@pytest.fixture
def store(tmp_path: Path) -> ProposalStore:
    return ProposalStore.create(tmp_path / "squares-12345678" / "val", KEY)


def file_of(store: ProposalStore, name: str) -> Path:
    [path] = [p for p in store.folder.rglob("*.masks") if p.name.startswith(name)]
    return path


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("draw", [draw_masks, draw_soft])
def test_what_is_written_comes_back(store: ProposalStore, draw: object, count: int) -> None:
    image, proposals = draw_image(), draw(count)  # type: ignore[operator]
    store.write("a", image, proposals)
    reopened = ProposalStore.open(store.folder)
    for found in (reopened.read("a"), reopened.read("a", image), reopened.find(image)):
        assert same(found, proposals)
        assert found.masks.dtype == proposals.masks.dtype and found.masks.is_contiguous()


NAMES = ["0001", "aachen/aachen_0001", "with space~and tilde", ".hidden", "ä#[1]*?", "x" * 200, "日本語" * 30, "a%2Fb"]


def test_pictures_of_any_name_are_found_again(store: ProposalStore) -> None:
    for number, name in enumerate(NAMES):
        store.write(name, draw_image(number), draw_masks(2, seed=number))
    reopened = ProposalStore.open(store.folder)
    assert reopened.names() == sorted(NAMES) and len(reopened) == len(NAMES)
    for number, name in enumerate(NAMES):
        assert same(reopened.read(name, draw_image(number)), draw_masks(2, seed=number))
        assert same(reopened.find(draw_image(number)), draw_masks(2, seed=number))
        assert reopened.is_whole(name)


def test_entry_is_replaced_and_never_doubled(store: ProposalStore) -> None:
    store.write("a", draw_image(0), draw_masks(2))
    store.write("a", draw_image(1), draw_masks(3))
    assert len(list(store.folder.rglob("*.masks"))) == 1
    assert same(ProposalStore.open(store.folder).read("a", draw_image(1)), draw_masks(3))


def test_complete_says_whether_every_picture_is_there(store: ProposalStore) -> None:
    assert not store.complete
    store.write("a", draw_image(0), draw_masks(1))
    assert not store.complete
    store.write("b", draw_image(1), draw_masks(0))
    assert store.complete and ProposalStore.open(store.folder).complete


def test_entries_of_another_process_are_seen(store: ProposalStore) -> None:
    assert store.names() == []
    ProposalStore.open(store.folder).write("a", draw_image(), draw_masks(1))
    assert same(store.read("a"), draw_masks(1)) and same(store.find(draw_image()), draw_masks(1))


def test_another_picture_is_refused_by_name(store: ProposalStore) -> None:
    store.write("a", draw_image(0), draw_masks(2))
    with pytest.raises(DataError, match="another picture than the 'a'") as caught:
        store.read("a", draw_image(1))
    assert KEY["command"] in str(caught.value)
    with pytest.raises(DataError, match="no proposals of this picture"):
        store.find(draw_image(1))
    with pytest.raises(DataError, match="no proposals of picture 'b'") as caught:
        store.read("b")
    assert KEY["command"] in str(caught.value)


def test_another_size_is_refused_by_name(store: ProposalStore) -> None:
    store.write("a", draw_image(0), draw_masks(2))
    with pytest.raises(DataError, match="holds masks of 24 x 32, the image is 32 x 24"):
        store.read("a", draw_image(0).transpose(1, 2).contiguous())


def test_an_entry_under_a_foreign_name_is_refused(store: ProposalStore) -> None:
    store.write("a", draw_image(0), draw_masks(2))
    path = file_of(store, "a")
    (store.folder / "entries" / "00").mkdir(exist_ok=True)
    path.rename(store.folder / "entries" / "00" / path.name.replace("a~", "b~"))
    with pytest.raises(DataError, match="of picture 'a', not of 'b'"):
        ProposalStore.open(store.folder).read("b")


@pytest.mark.parametrize("draw", [draw_masks, draw_soft])
def test_every_changed_byte_is_noticed(store: ProposalStore, draw: object) -> None:
    store.write("a", draw_image(), draw(3))  # type: ignore[operator]
    path = file_of(store, "a")
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not store.is_whole("a")
        with pytest.raises(DataError, match="squares-12345678") as caught:
            store.read("a")
        assert "a~" in str(caught.value) and KEY["command"] in str(caught.value)


@pytest.mark.parametrize("draw", [draw_masks, draw_soft])
def test_every_shortened_file_is_noticed(store: ProposalStore, draw: object) -> None:
    store.write("a", draw_image(), draw(3))  # type: ignore[operator]
    path = file_of(store, "a")
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 5), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not store.is_whole("a")
        with pytest.raises(DataError):
            store.read("a")


def forge(entry: Entry, path: Path) -> None:
    """Write an entry whose checksum is right."""
    path.write_bytes(entry.to_bytes())


FORGED = {
    "runs that overrun": rle.encode(np.ones((1, 600, 600), bool))[0],
    "runs that do not fill": rle.encode(np.ones((1, 2, 2), bool))[0],
    "no code": b"\x00\x01\x02",
}


@pytest.mark.parametrize("code", FORGED.values(), ids=FORGED)
def test_codes_that_do_not_fit_are_refused_though_the_checksum_is_right(store: ProposalStore, code: bytes) -> None:
    store.write("a", draw_image(), draw_masks(2))
    good = store.read_entry("a").codes
    assert good is not None
    scores = np.ones(2, np.float32)
    forge(Entry("a", image_digest(draw_image()), SIZE, scores, (good[0], code)), file_of(store, "a"))
    for read in (store.read, store.read_entry):
        with pytest.raises(DataError, match="mask 2") as caught:
            read("a")
        assert KEY["command"] in str(caught.value)


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    """Change the header and put the right checksum behind it."""
    body = data[: -entries._CHECKSUM].replace(old, new)
    assert body != data[: -entries._CHECKSUM]
    return body + entries._checksum(body)


HEADERS = {
    "more masks than there are": (b'"count": 3', b'"count": 9'),
    "fewer masks than there are": (b'"count": 3', b'"count": 1'),
    "a negative count": (b'"count": 3', b'"count":-3'),
    "no size": (b'"size"', b'"sice"'),
    "a size of nothing": (b"[24, 32]", b"[24,  0]"),
    "a size of another picture": (b"[24, 32]", b"[24, 31]"),
    "no JSON": (b'{"name', b'["name'),
}


@pytest.mark.parametrize(("old", "new"), HEADERS.values(), ids=HEADERS)
def test_header_that_contradicts_its_masks_is_refused(store: ProposalStore, old: bytes, new: bytes) -> None:
    store.write("a", draw_image(), draw_masks(3))
    path = file_of(store, "a")
    path.write_bytes(patched(path.read_bytes(), old, new))
    with pytest.raises(DataError, match="broken") as caught:
        store.read("a")
    assert str(path) in str(caught.value)


def test_soft_masks_that_unpack_to_more_than_they_say_are_refused(store: ProposalStore) -> None:
    store.write("a", draw_image(), draw_soft(3, grid=(6, 8)))
    path = file_of(store, "a")
    path.write_bytes(patched(path.read_bytes(), b"[6, 8]", b"[6, 7]"))
    with pytest.raises(DataError, match="not 3 x 6 x 7"):
        store.read("a")


def test_folder_without_or_with_a_broken_manifest(tmp_path: Path, store: ProposalStore) -> None:
    with pytest.raises(DataError, match="no such cache"):
        ProposalStore.open(tmp_path / "nothing")
    with pytest.raises(DataError, match="is no cache of proposals"):
        ProposalStore.open(tmp_path)
    for text in ("", "{", "[]", '{"schema": 1}', '{"schema": 99, "kind": "ovseg-proposals"}'):
        (store.folder / MANIFEST).write_text(text)
        with pytest.raises(DataError):
            ProposalStore.open(store.folder)


def test_changed_data_is_noticed(store: ProposalStore) -> None:
    with pytest.raises(DataError, match="mini have changed since") as caught:
        ProposalStore.create(store.folder, {**KEY, "data_fingerprint": "other"})
    assert f"{KEY['command']} --force" in str(caught.value)


def test_other_settings_are_noticed(store: ProposalStore) -> None:
    with pytest.raises(DataError, match="another settings and another weights"):
        store.require({"settings": {"side": 4}, "weights": "w"})
    store.require({"settings": {"side": 3}})
    assert ProposalStore.create(store.folder, {**KEY, "command": "typed otherwise"}).digest == store.digest


def test_digest_covers_what_the_masks_depend_on(tmp_path: Path, store: ProposalStore) -> None:
    changes = ({"settings": {"side": 4}}, {"weights": "w"}, {"vocabulary": "v"}, {"data_fingerprint": "x"})
    digests = {ProposalStore.create(tmp_path / str(n), {**KEY, **c}).digest for n, c in enumerate(changes)}
    assert len(digests | {store.digest}) == 5


def test_clear_leaves_no_entry(store: ProposalStore) -> None:
    store.write("a", draw_image(), draw_masks(1))
    store.clear()
    assert not list(store.folder.rglob("*.masks")) and not (store.folder / MANIFEST).exists()


def test_full_disk_is_said_and_leaves_nothing_half_written(
    store: ProposalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(MachineError, match="disk is full"):
            store.write("a", draw_image(), draw_masks(1))
    assert not [p for p in (store.folder / "entries").rglob("*") if p.is_file()]
    store.write("a", draw_image(), draw_masks(1))
    assert same(store.read("a"), draw_masks(1))


WRITER = """
import sys
from pathlib import Path
from ovseg_cli.core.proposals.store import ProposalStore
from tests.core.proposals.small import draw_image, draw_masks
store = ProposalStore.open(Path(sys.argv[1]))
print("begun", flush=True)
for number in range(10**6):
    store.write(f"{number % 50:03d}", draw_image(number % 50), draw_masks(5, seed=number % 50))
"""


def test_kill_while_writing_leaves_whole_entries(store: ProposalStore) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.folder)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    deadline = time.monotonic() + 60
    while len(list(store.folder.rglob("*.masks"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (store.folder / "entries" / "00").mkdir(exist_ok=True)
    (store.folder / "entries" / "00" / ".a~0.masks.left.part").write_bytes(b"half")  # as a kill between two writes
    reopened = ProposalStore.open(store.folder)
    assert len(reopened) >= 20
    for name in reopened.names():
        assert same(reopened.read(name, draw_image(int(name))), draw_masks(5, seed=int(name)))
    reopened.sweep()
    assert not list(store.folder.rglob("*.part"))


def test_digest_of_a_picture_knows_its_shape() -> None:
    flat = torch.zeros(3, 4, 6, dtype=torch.uint8)
    assert image_digest(flat) != image_digest(flat.reshape(3, 6, 4))
    assert (
        image_digest(flat) == image_digest(flat.numpy()) == image_digest(flat.transpose(1, 2).clone().transpose(1, 2))
    )
    with pytest.raises(ValueError, match="uint8"):
        image_digest(flat.float())


def test_proposals_on_another_shape_cannot_be_written(store: ProposalStore) -> None:
    with pytest.raises(Exception, match="size"):
        Proposals(torch.zeros(1, 3, 3, dtype=torch.bool), torch.ones(1), (4, 4))
