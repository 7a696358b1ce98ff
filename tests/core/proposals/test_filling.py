"""Filling a cache: only what is missing, by one process or several at once, whenever they are killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from ovseg_cli.core.data import parallel
from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.proposals.filling import Filled, Job, Outcome, Place, fill, read_picture
from ovseg_cli.core.proposals.ground_truth import GroundTruth, GroundTruthConfig
from ovseg_cli.core.proposals.locks import Locks
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders, launched_place
from ovseg_cli.core.types import Proposals
from tests.core.proposals.small import PICTURES, draw_masks, open_data, prepared, same

ROOT = Path(__file__).resolve().parents[3]
TRAIN = PICTURES["train"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return prepared(tmp_path_factory.mktemp("mini"))


def make_ground_truth(device: str) -> ProposalGenerator:
    return GroundTruth(GroundTruthConfig(max_masks=4, min_area=4), device)


def place_of(folders: Folders, folder: Path, generator: ProposalGenerator | None = None) -> Place:
    key = {"generator": "ground-truth", "settings": {}, "images": TRAIN}
    store = ProposalStore.create(folder, key)
    return Place(open_data(folders).subset("train"), generator or make_ground_truth("cpu"), store, Locks(folder))


class Counting(GroundTruth):
    """Remembers how often it was asked, and what for."""

    def __init__(self) -> None:
        super().__init__(GroundTruthConfig(max_masks=4, min_area=4))
        self.labels: list[torch.Tensor] = []

    def generate(self, image: torch.Tensor, label: torch.Tensor | None = None) -> Proposals:
        assert label is not None
        self.labels.append(label)
        return super().generate(image, label)


def test_only_what_is_missing_is_made(folders: Folders, tmp_path: Path) -> None:
    generator = Counting()
    place = place_of(folders, tmp_path / "c", generator)
    assert fill(place, Silent(), range(2)).made == 2
    assert fill(place, Silent()) == Filled(made=TRAIN - 2, kept=2, masks=4 * (TRAIN - 2))
    assert fill(place, Silent()) == Filled(made=0, kept=TRAIN, masks=0)
    assert len(generator.labels) == TRAIN and place.store.complete


def test_broken_entries_are_made_again(folders: Folders, tmp_path: Path) -> None:
    place = place_of(folders, tmp_path / "c")
    fill(place, Silent())
    before = place.store.read("001")
    damaged = sorted((tmp_path / "c").rglob("*.masks"))[:2]
    damaged[0].write_bytes(damaged[0].read_bytes()[:-9])
    damaged[1].write_bytes(b"")
    again = place_of(folders, tmp_path / "c")
    assert fill(again, Silent()).made == 2
    assert same(ProposalStore.open(tmp_path / "c").read("001"), before)


def test_label_holds_minus_one_where_no_class_may_be_seen(folders: Folders) -> None:
    data = open_data(folders)
    split = data.spec.split("no-dog")
    for pictures, dog in ((data.subset("train"), 2), (data.subset("train", split), -1)):
        _, label = read_picture(pictures, 1, with_label=True)  # an odd picture shows a dog on the right
        assert label is not None and label.dtype == torch.int64
        assert label[0, 0] == -1 and label[5, 5] == 0 and label[5, 25] == dog
    image, label = read_picture(data.subset("train"), 0, with_label=False)
    assert label is None and image.dtype == torch.uint8 and image.shape == (3, 24, 32)


def test_first_says_where_a_process_begins(folders: Folders, tmp_path: Path) -> None:
    generator = Counting()
    place = place_of(folders, tmp_path / "c", generator)
    fill(place, Silent(), first=0.5)
    order = [generator.labels[0][5, 25].item(), len(generator.labels)]
    assert order == [2, TRAIN]  # picture 3 of 6, an odd one, came first; and all came


def test_worker_processes_share_the_work(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE", 0.0)  # start processes at once
    place = place_of(folders, tmp_path / "c")
    job = Job(tmp_path / "c", partial(open_train, folders), make_ground_truth)
    filled = fill(place, Silent(), job=job, workers=2)
    assert filled == Filled(TRAIN, 0, 4 * TRAIN)
    alone = place_of(folders, tmp_path / "alone")
    fill(alone, Silent())
    for name in alone.store.names():
        assert same(place.store.read(name), alone.store.read(name))


def open_train(folders: Folders) -> object:
    return open_data(folders).subset("train")


def test_job_opens_once_and_deals_out_devices(folders: Folders, tmp_path: Path) -> None:
    made: list[str] = []

    def make(device: str) -> ProposalGenerator:
        made.append(device)
        return make_ground_truth("cpu")

    place_of(folders, tmp_path / "c")
    job = Job(tmp_path / "c", partial(open_train, folders), make, ("cuda:0", "cuda:1"))  # type: ignore[arg-type]
    assert job(0) == Outcome(0, masks=4) and job(0) == Outcome(0)
    assert made == ["cuda:0"]


def test_broken_picture_is_named_and_the_finished_stay(tmp_path: Path) -> None:
    folders = prepared(tmp_path)
    (tmp_path / "source/images/train/003.png").write_bytes(b"no picture")
    place = place_of(folders, tmp_path / "c")
    with pytest.raises(DataError, match="003.png"):
        fill(place, Silent())
    assert ProposalStore.open(tmp_path / "c").names() == ["000", "001", "002"]


SLOW = """
import os, sys, time
from pathlib import Path
from ovseg_cli.core.proposals.filling import Place, fill
from ovseg_cli.core.proposals.locks import Locks
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Folders
from tests.core.proposals.small import draw_masks, open_data
root, folder, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])

class Slow(ProposalGenerator):
    name, title, source = "slow", "Slow", "this test"

    def generate(self, image, label=None):
        print("at work", flush=True)
        time.sleep(seconds)
        with open(log, "a") as stream:
            stream.write(f"{int(image.sum())}\\n")
        return draw_masks(3)

store = ProposalStore.open(folder)
locks = Locks(folder)
locks.begin()
print("ready", flush=True)
sys.stdin.readline()
print(fill(Place(open_data(Folders(root, root)).subset("train"), Slow(), store, locks), Silent()), flush=True)
"""


def start(folders: Folders, folder: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", SLOW, str(folders.data), str(folder), str(log), str(seconds)]
    return subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def lines_of(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_at_once_make_nothing_twice_and_both_return_when_all_is_there(
    folders: Folders, tmp_path: Path
) -> None:
    place_of(folders, tmp_path / "c")
    pair = [start(folders, tmp_path / "c", tmp_path / "log", 0.1) for _ in range(2)]
    for process in pair:
        wait_for(process, "ready")
    with Locks(tmp_path / "c") as locks, pytest.raises(MachineError, match="while another process makes"):
        locks.require_alone("emptying")
    for process in pair:
        go(process)
    ends = [process.communicate(timeout=60)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert len(lines_of(tmp_path / "log")) == TRAIN == len(set(lines_of(tmp_path / "log")))
    store = ProposalStore.open(tmp_path / "c")
    assert store.complete and all(same(store.read(name), draw_masks(3)) for name in store.names())
    made = [int(end.split("made=")[1].split(",")[0]) for end in ends]
    assert sum(made) == TRAIN and min(made) > 0


def test_killed_process_loses_only_the_picture_it_was_at(folders: Folders, tmp_path: Path) -> None:
    place_of(folders, tmp_path / "c")
    first = start(folders, tmp_path / "c", tmp_path / "log", 0.0)
    second = start(folders, tmp_path / "c", tmp_path / "log", 600.0)
    for process in (first, second):
        wait_for(process, "ready")
    go(second)
    wait_for(second, "at work")  # it holds one picture and will never finish it
    go(first)
    deadline = time.monotonic() + 60
    while len(lines_of(tmp_path / "log")) < TRAIN - 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert first.poll() is None, "it should wait for the picture that the other one holds"
    second.send_signal(signal.SIGKILL)
    second.wait()
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 0 and f"made={TRAIN}" in out
    assert ProposalStore.open(tmp_path / "c").complete


def test_place_among_processes_comes_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched_place() == (0, 0, 1)
    monkeypatch.setenv("RANK", "5")
    assert launched_place() == (0, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert launched_place() == (5, 5, 8)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched_place() == (5, 1, 8)
