"""What `ovseg prepare` and its check say of broken files: each by name with what to do, then one error, exit code 3."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.data.handmade import make_source, make_spec, write_png
from tests.core.data.tars import write_official


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    make_spec(tmp_path)
    return make_source(tmp_path / "source")


def break_three(source: Path) -> None:
    write_png(source / "labels/train/a.png", [[10, 10, 77], [10, 0, 20]])
    write_png(source / "labels/train/b.png", [[10, 10], [10, 0]])
    (source / "images/val/c.png").write_bytes((source / "images/val/c.png").read_bytes()[:50])


SAID = (
    "train/a.png: the label holds value 77 (1 pixels)",
    "train/b.png: the label is 2 x 2",
    "val/c.png: the file is cut off",
)


@pytest.mark.parametrize("more", [[], ["--check"]], ids=["prepare", "check of the source"])
def test_every_broken_file_is_listed_with_what_to_do(cli: Callable, source: Path, more: list[str]) -> None:
    break_three(source)
    done = cli("prepare", "mini.toml", "--source", "source", *more)
    assert done.code == 3 and done.out == "" and "3 problems" in done.err
    lines = done.err.splitlines()
    for said, mend in zip(SAID, ("Is it the right file", "Fetch both again", "Fetch it again"), strict=True):
        assert any(said in line and mend in line for line in lines), (said, done.err)


def test_check_of_prepared_data_lists_every_file(cli: Callable, source: Path, tmp_path: Path) -> None:
    assert cli("prepare", "mini.toml", "--source", "source").code == 0
    write_png(tmp_path / "data/mini/labels/train/a.png", [[1, 1, 1], [1, 1, 77]])
    (tmp_path / "data/mini/labels/val/c.png").unlink()
    (tmp_path / "data/mini/labels/train/mine.png").write_bytes(b"")
    (source / "images/train/b.png").write_bytes(b"GIF")
    done = cli("prepare", "mini", "--check")
    for said in (
        "a.png: the label has changed",
        "c.png: there is no such file",
        "mine.png: this label has no image",
        "b.png",
    ):
        assert said in done.err, done.err
    assert done.code == 3 and "4 problems" in done.err
    as_json = cli("prepare", "mini", "--check", "--json")
    assert (
        as_json.code == 3 and as_json.out == "" and json.loads(as_json.err.splitlines()[-1])["error"]["kind"] == "data"
    )


def test_data_without_classes_has_no_share_of_unlabelled_pixels(cli: Callable, source: Path, tmp_path: Path) -> None:
    write_official(tmp_path / "sa", {"sa_000000": ["sa_1"]})
    for arguments in (["--source", "sa"], ["--check"]):
        done = cli("prepare", "sa-1b", *arguments)
        assert done.code == 0 and "1 pictures of the official 11,185,362\n" in done.out
