import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.prediction.folders import Done, Job, find_pictures, predict_folder
from ovseg_cli.core.prediction.segmentation import Segmentation
from ovseg_cli.core.reporter import Silent


class BrightOrDark:
    """Stands in for a model: id 1 where the picture is bright. Stops like a user would after `stop` pictures."""

    def __init__(self, stop: int | None = None):
        self.count, self.stop = 0, stop

    def fingerprint(self, query: tuple[str, ...]) -> str:
        return "bright-or-dark " + " ".join(query)

    def segment(self, pixels: np.ndarray, query: tuple[str, ...], source: str = "") -> Segmentation:
        if self.count == self.stop:
            raise KeyboardInterrupt
        self.count += 1
        return Segmentation((pixels.mean(2) > 127).astype(np.uint8), query, pixels, source=source)


class Talking(Silent):
    def __init__(self):
        super().__init__()
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


NAMES = ("dark", "bright")


def picture(path: Path, size=(6, 4), value=200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path)
    return path


def run(inputs: list[Path], out: Path, reporter=None, stop=None) -> Done:
    return predict_folder(BrightOrDark(stop), find_pictures(inputs, out), NAMES, out, reporter)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_each_picture_gets_three_files(tmp_path: Path):
    picture(tmp_path / "in" / "a.jpg")
    picture(tmp_path / "in" / "b.PNG", value=0)
    done = run([tmp_path / "in"], tmp_path / "out")
    assert names(tmp_path / "out") == ["a.json", "a.png", "a_overlay.png", "b.json", "b.png", "b_overlay.png"]
    assert np.asarray(Image.open(tmp_path / "out" / "a.png")).tolist() == [[1] * 6] * 4
    assert json.loads((tmp_path / "out" / "b.json").read_text())["segments"][0]["name"] == "dark"
    assert done.error() is None and len(done.outputs) == 2


def test_what_is_no_picture_is_skipped_aloud(tmp_path: Path):
    picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / ".hidden.png").write_text("x")
    (tmp_path / "in" / "below").mkdir()
    reporter = Talking()
    done = run([tmp_path / "in"], tmp_path / "out", reporter)
    assert reporter.said == [
        "skipping 1 file that is no picture: notes.txt",
        f"folders within folders are not searched; name them, too: {tmp_path / 'in' / 'below'}",
    ]
    assert len(done.outputs) == 1 and done.error() is None


def test_equal_stems_do_not_overwrite_each_other(tmp_path: Path):
    inputs = [picture(tmp_path / p) for p in ("x/a.jpg", "y/a.png", "y/A.bmp", "x/a-2.png", "x/a_overlay.jpg")]
    done = run(inputs, tmp_path / "out")
    assert [job.stem for job, _ in done.outputs] == ["a", "a-2", "A-3", "a-2-2", "a_overlay-2"]
    assert len(names(tmp_path / "out")) == 15


def test_a_picture_given_twice_is_done_once(tmp_path: Path):
    path = picture(tmp_path / "in" / "a.jpg")
    jobs = find_pictures([path, tmp_path / "in", tmp_path / "in" / ".." / "in" / "a.jpg"], tmp_path / "out")
    assert jobs.pictures == (Job(path, "a"),)


def test_bad_pictures_are_named_and_the_others_finished(tmp_path: Path):
    whole = picture(tmp_path / "in" / "a.png", (64, 64)).read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "c.jpg").write_text("not a picture")
    picture(tmp_path / "in" / "d.png")
    reporter = Talking()
    done = run([tmp_path / "in"], tmp_path / "out", reporter)
    assert [job.stem for job, _ in done.outputs] == ["a", "d"]
    assert [path.name for path, _ in done.failed] == ["b.png", "c.jpg"] and len(reporter.warnings) == 2
    error = done.error()
    assert isinstance(error, UsageError) and error.exit_code == 2
    assert "2 of 4 pictures could not be segmented" in error.message and "b.png" in error.message
    assert len(names(tmp_path / "out")) == 6


def test_interrupted_work_is_kept_and_whole(tmp_path: Path):
    for stem in "abc":
        picture(tmp_path / "in" / f"{stem}.png")
    reporter = Talking()
    with pytest.raises(KeyboardInterrupt):
        run([tmp_path / "in"], tmp_path / "out", reporter, stop=2)
    assert names(tmp_path / "out") == ["a.json", "a.png", "a_overlay.png", "b.json", "b.png", "b_overlay.png"]
    assert "2 of 3 pictures are finished" in reporter.said[-1]


def test_originals_are_never_overwritten(tmp_path: Path):
    path = picture(tmp_path / "in" / "a.png")
    before = path.read_bytes()
    for out in (tmp_path / "in", tmp_path / "in" / "." / "x" / ".."):
        with pytest.raises(UsageError, match="Choose another --out"):
            find_pictures([path], out)
    foreign = picture(tmp_path / "out" / "a.png", value=7)
    kept = foreign.read_bytes()
    done = run([path], tmp_path / "out")
    assert "not made by a prediction" in str(done.error())
    assert path.read_bytes() == before and foreign.read_bytes() == kept


def test_a_second_run_replaces_the_first(tmp_path: Path):
    path = picture(tmp_path / "in" / "a.png")
    run([path], tmp_path / "out")
    picture(path, value=0)
    assert run([path], tmp_path / "out").error() is None
    assert np.asarray(Image.open(tmp_path / "out" / "a.png")).max() == 0


def test_output_that_is_a_file_is_a_machine_error(tmp_path: Path):
    path = picture(tmp_path / "in" / "a.png")
    (tmp_path / "out").write_text("")
    with pytest.raises(MachineError, match="in the way"):
        run([path], tmp_path / "out")


def test_full_disk_stops_at_once_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import errno

    from ovseg_cli.core import files

    inputs = [picture(tmp_path / "in" / f"{stem}.png") for stem in "ab"]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(MachineError, match="disk is full"):
        run(inputs, tmp_path / "out")
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    "make, part",
    [
        (lambda folder: folder / "nothing.jpg", "no such file or folder"),
        (lambda folder: folder / "holiday.jpq", "holiday.jpg'?"),
        (lambda folder: folder / "empty", "it is empty"),
        (lambda folder: folder / "texts", "none of its 1 files is a picture"),
    ],
)
def test_inputs_without_pictures_are_refused(tmp_path: Path, make, part: str):
    picture(tmp_path / "holiday.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("")
    with pytest.raises(UsageError) as error:
        find_pictures([make(tmp_path)], tmp_path / "out")
    assert part in str(error.value)


def test_no_input_at_all_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no picture to segment"):
        find_pictures([], tmp_path)


def test_one_bad_picture_alone_gives_its_own_reason(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    error = run([tmp_path / "a.png"], tmp_path / "out").error()
    assert error is not None and "empty (0 bytes)" in error.message


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("holidy.jpg", "holiday.jpg"),
        ("Holiday.png", "holiday.jpg"),
        ("none.jpg", None),
        ("one.jpg", "one.png"),
        ("x.png", None),
    ],
)
def test_only_a_near_name_is_offered(tmp_path: Path, typed: str, offered: str | None):
    picture(tmp_path / "holiday.jpg")
    picture(tmp_path / "one.png")
    with pytest.raises(UsageError) as caught:
        find_pictures([tmp_path / typed], tmp_path / "out")
    assert caught.value.mend == (f"Did you mean '{tmp_path / offered}'?" if offered else None)


def test_folder_of_folders_names_one_of_them(tmp_path: Path):
    picture(tmp_path / "in" / "below" / "a.jpg")
    with pytest.raises(UsageError, match="only folders, which are not searched. Name .* for instance .*below"):
        find_pictures([tmp_path / "in"], tmp_path / "out")


def test_finished_pictures_are_not_done_again(tmp_path: Path):
    for stem in "abc":
        picture(tmp_path / "in" / f"{stem}.png")
    jobs, out = find_pictures([tmp_path / "in"], tmp_path / "out"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_folder(BrightOrDark(stop=2), jobs, NAMES, out)
    again, reporter = BrightOrDark(), Talking()
    done = predict_folder(again, jobs, NAMES, out, reporter)
    assert again.count == 1 and len(done.outputs) == 3
    assert any("2 of 3 pictures were finished before" in line for line in reporter.said)


@pytest.mark.parametrize("change", ["names", "picture", "label map lost", "JSON cut off"])
def test_what_changed_is_done_again(tmp_path: Path, change: str):
    path = picture(tmp_path / "in" / "a.png")
    jobs, out = find_pictures([path], tmp_path / "out"), tmp_path / "out"
    predict_folder(BrightOrDark(), jobs, NAMES, out)
    words = NAMES
    if change == "names":
        words = ("night", "day")
    elif change == "picture":
        picture(path, size=(7, 4))
    elif change == "label map lost":
        (out / "a.png").unlink()
    else:
        text = (out / "a.json").read_text()
        (out / "a.json").write_text(text.replace('"made_from": "', '"made_from": "x'))
    again = BrightOrDark()
    predict_folder(again, jobs, words, out)
    assert again.count == 1
