"""Wrong input, command by command: one clear sentence, the right exit code, no traceback, nothing half-written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.core.data.records import Records

# name: (arguments, exit code, parts of the sentence)
WRONG_WORDS = {
    "unknown command": (["evla"], 2, ["evla", "eval"]),
    "unknown option": (["eval", "--dta", "toy"], 2, ["--dta", "--data"]),
    "prepare: unknown data set": (["prepare", "coco-stuf"], 2, ["coco-stuf", "Did you mean 'coco-stuff'?"]),
    "prepare: no such spec file": (["prepare", "mine.toml"], 2, ["mine.toml", "no such spec"]),
    "prepare: originals not given": (["prepare", "coco-stuff"], 3, ["coco-stuff", "--source DIR"]),
    "prepare: source is missing": (["prepare", "camvid", "--source", "nowhere"], 3, ["nowhere"]),
    "prepare: workers below one": (["prepare", "toy", "--workers", "0"], 2, ["workers"]),
    "prepare: check of what is not prepared": (["prepare", "camvid", "--check"], 3, ["camvid", "ovseg prepare"]),
    "train: unknown trainer": (["train", "toy-clib"], 2, ["toy-clib", "Did you mean 'toy-clip'?"]),
    "train: a training-free method": (["train", "maskclip"], 2, ["training-free", "ovseg eval maskclip"]),
    "train: unknown setting": (["train", "toy-clip", "--set", "iteration=3"], 2, ["iteration", "iterations"]),
    "train: a value that does not fit": (["train", "toy-clip", "--set", "batch_size=none"], 2, ["batch_size", "none"]),
    "train: a setting without a value": (["train", "toy-clip", "--set", "seed"], 2, ["key=value"]),
    "train: resume of nothing": (["train", "toy-clip", "--resume"], 2, ["no unfinished run of toy-clip"]),
    "train: resume of a missing run": (["train", "toy-clip", "--resume", "--run", "runs/none"], 2, ["runs/none", "no such run"]),
    "train: a run without resume": (["train", "toy-clip", "--run", "runs/none"], 2, ["--resume"]),
    "train: more GPUs than there are": (["train", "toy-clip", "--gpus", "999"], 4, ["--gpus 999", "this machine has"]),
    "train: unknown setting of a method": (["train", "maft", "--data", "toy", "--set", "iteration=3"], 2, ["'iteration'", "Did you mean 'iterations'?"]),
    "train: unknown setting in a table": (["train", "freeseg", "--data", "toy", "--set", "generator.querys=3"], 2, ["Did you mean 'generator.queries'?"]),
    "train: unknown setting of the host": (["train", "maft", "--data", "toy", "--set", "host.iteration=3"], 2, ["host step: freeseg", "Did you mean 'iterations'?"]),
    "train: unknown setting on resume": (["train", "maft", "--resume", "--set", "iteration=3"], 2, ["Did you mean 'iterations'?"]),
    "train: a value of a method that does not fit": (["train", "maft", "--data", "toy", "--set", "batch_size=0"], 2, ["batch_size = 0"]),
    "train: settings that exclude each other": (["train", "maft", "--data", "toy", "--set", "mask_aware=false", "--set", "distillation=0"], 2, ["nothing is learned"]),
    "train: unknown host": (["train", "maft", "--data", "toy", "--host", "freeseq"], 2, ["freeseq", "'freeseg'"]),
    "train: host of a host": (["train", "freeseg", "--data", "toy", "--host", "zsseg"], 2, ["--host", "freeseg has no such option"]),
    "train: settings of a host that is none": (["train", "freeseg", "--data", "toy", "--set", "host.iterations=3"], 2, ["host.iterations", "no host"]),
    "train: host beside other masks": (["train", "maft", "--data", "toy", "--host", "zsseg", "--proposals", "superpixels"], 2, ["--host zsseg", "superpixels"]),
    "train: settings of a host beside other masks": (["train", "maft", "--data", "toy", "--proposals", "superpixels", "--set", "host.iterations=3"], 2, ["host.iterations", "no host step"]),
    "train: masks for a host": (["train", "freeseg", "--data", "toy", "--proposals", "superpixels"], 2, ["--proposals", "no such option"]),
    "train: unknown generator": (["train", "maft", "--data", "toy", "--proposals", "superpixel"], 2, ["Did you mean 'superpixels'?"]),
    "train: unknown setting of a generator": (["train", "maft", "--data", "toy", "--proposals", "superpixels", "--set", "proposal_settings.max_mask=3"], 2, ["Did you mean 'max_masks'?"]),
    "train: no such cache of masks": (["train", "maft", "--data", "toy", "--proposals", "data/none"], 3, ["data/none"]),
    "train: data that is not prepared": (["train", "maft", "--data", "coco-stuff"], 3, ["coco-stuff", "ovseg prepare coco-stuff"]),
    "train: nothing is prepared": (["train", "maft", "--data-root", "none"], 3, ["none/", "ovseg prepare coco-stuff", "ovseg prepare toy"]),
    "train: unknown class split": (["train", "maft", "--data", "toy:comb"], 2, ["comb", "Did you mean 'combo'?"]),
    "train: no such unseen class": (["train", "maft", "--data", "toy", "--unseen", "gras"], 2, ["gras", "grass"]),
    "train: method, resume of nothing": (["train", "maft", "--resume"], 2, ["no unfinished run of maft"]),
    "train: method, a missing run": (["train", "maft", "--resume", "--run", "runs/none"], 2, ["runs/none", "no such run"]),
    "train: method, a run without resume": (["train", "maft", "--run", "runs/none"], 2, ["--resume"]),
    "train: method, more GPUs than there are": (["train", "maft", "--data", "toy", "--gpus", "999"], 4, ["--gpus 999", "this machine has"]),
    "train: unknown architecture": (["train", "freeseg", "--data", "toy", "--clip", "ViT-B-61"], 2, ["ViT-B-61", "ViT-B-16"]),
    "train: start layer beyond the depth": (["train", "maft", "--data", "toy", "--proposals", "superpixels", "--set", "start_layer=99"], 2, ["start layer 99", "0 to 5"]),
    "train: data for a CLIP": (["train", "toy-clip", "--data", "toy"], 2, ["--data", "toy-clip draws its own data"]),
    "eval: unknown method": (["eval", "maskclop", "--data", "toy"], 2, ["maskclop", "Did you mean 'maskclip'?"]),
    "eval: a trainer as method": (["eval", "toy-clip", "--data", "toy"], 2, ["toy-clip", "--clip toy-clip"]),
    "eval: unknown data set": (["eval", "maskclip", "--data", "toi"], 2, ["toi", "Did you mean 'toy'?"]),
    "eval: unknown class split": (["eval", "maskclip", "--data", "toy:nove"], 2, ["nove", "Did you mean 'novel'?"]),
    "eval: empty class split": (["eval", "maskclip", "--data", "toy:"], 2, ["missing"]),
    "eval: not prepared": (["eval", "maskclip", "--data", "voc-20"], 3, ["voc-20", "ovseg prepare voc-20"]),
    "eval: unknown subset": (["eval", "maskclip", "--data", "toy", "--subset", "vol"], 2, ["vol", "val"]),
    "eval: wrong split": (["eval", "maskclip", "--data", "toy", "--split", "both"], 2, ["both", "unseen"]),
    "eval: no split to report": (["eval", "clip", "--data", "cityscapes", "--split", "unseen"], 2, ["cityscapes", "--unseen"]),
    "eval: no such unseen class": (["eval", "clip", "--data", "toy", "--unseen", "gras"], 2, ["gras", "grass"]),
    "eval: unseen beside a split": (["eval", "clip", "--data", "toy:combo", "--unseen", "grass"], 2, ["--unseen"]),
    "eval: no such run": (["eval", "runs/none"], 2, ["runs/none", "no such run folder"]),
    "eval: bound without value": (["eval", "clip", "--data", "toy", "--fail-under", "mIoU"], 2, ["METRIC=VALUE"]),
    "eval: bound of an unknown metric": (["eval", "clip", "--fail-under", "mIuO=3"], 2, ["mIuO", "mIoU"]),
    "eval: bound that is no number": (["eval", "clip", "--fail-under", "mIoU=much"], 2, ["much"]),
    "eval: bound above 100 percent": (["eval", "clip", "--fail-under", "mIoU=300"], 2, ["0 to 100"]),
    "eval: unknown setting": (["eval", "maskclip", "--data", "toy", "--set", "wndow=3"], 2, ["wndow", "window"]),
    "eval: stride without window": (["eval", "maskclip", "--data", "toy", "--set", "stride=8"], 2, ["stride", "window"]),
    "eval: unknown templates": (["eval", "maskclip", "--data", "toy", "--templates", "imagnet"], 2, ["imagnet", "imagenet"]),
    "eval: unknown names": (["eval", "maskclip", "--data", "toy", "--names", "sclip"], 2, ["sclip"]),
    "eval: unknown architecture": (["eval", "clip", "--data", "toy", "--clip", "ViT-B-61"], 2, ["ViT-B-61", "ViT-B-16"]),
    "eval: unknown tag": (["eval", "clip", "--data", "toy", "--clip", "ViT-B-16", "--pretrained", "opnai"], 2, ["opnai", "openai"]),
    "eval: weights file is missing": (["eval", "clip", "--data", "toy", "--clip", "ViT-B-16", "--pretrained", "a/b.pt"], 4, ["a/b.pt"]),
    "eval: weights beside toy-clip": (["eval", "clip", "--data", "toy", "--clip", "toy-clip", "--pretrained", "x"], 2, ["--pretrained x"]),
    "eval: config is missing": (["eval", "clip", "--data", "toy", "--config", "none.toml"], 2, ["none.toml"]),
    "eval: background where there is none": (["eval", "clip", "--data", "toy", "--background-threshold", "0.5"], 2, ["background"]),
    "eval: more GPUs than there are": (["eval", "clip", "--data", "toy", "--gpus", "999"], 4, ["--gpus 999"]),
    "eval: a negative count of GPUs": (["eval", "clip", "--data", "toy", "--gpus", "-1"], 2, ["negative"]),
    "predict: no words": (["predict", "maskclip", "PICTURE"], 2, ["--classes"]),
    "predict: words twice": (["predict", "maskclip", "PICTURE", "--classes", "a", "--data", "toy"], 2, ["--classes", "--data"]),
    "predict: no such picture": (["predict", "maskclip", "none.jpg", "--classes", "a, b"], 2, ["none.jpg"]),
    "predict: empty word": (["predict", "maskclip", "PICTURE", "--classes", "a, , b"], 2, ["empty"]),
    "predict: a word twice": (["predict", "maskclip", "PICTURE", "--classes", "a, b, a"], 2, ["twice"]),
    "predict: missing words file": (["predict", "maskclip", "PICTURE", "--classes", "words.txt"], 2, ["words.txt"]),
    "report: no such run": (["report", "runs/none"], 2, ["runs/none"]),
    "report: wrong format": (["report", "latest", "--format", "pdf"], 2, ["pdf", "markdown"]),
    "report: unknown baseline": (["report", "latest", "--baseline", "runs/none"], 2, ["runs/none"]),
    "list: unknown list": (["list", "dataset"], 2, ["dataset", "datasets"]),
    "show: unknown name": (["show", "maskclop"], 2, ["maskclop", "maskclip"]),
    "show: unknown split": (["show", "voc:15-6"], 2, ["15-6", "15-5"]),
    "demo: quick and full": (["demo", "--quick", "--full"], 2, ["--quick", "--full"]),
    "demo: no seed": (["demo", "--full", "--seeds", "0"], 2, ["seeds"]),
    "demo: seeds without training": (["demo", "--quick", "--seeds", "2"], 2, ["--full"]),
    "demo: no words": (["demo", "--quick", "--classes", ""], 2, ["class"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_wrong_words_get_one_sentence(
    cli: Callable, world: Path, picture: Path, tmp_path: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    before = _folders(world)
    answer = cli(*[str(picture) if a == "PICTURE" else a for a in arguments])
    assert answer.code == code, answer.err
    assert not answer.out and "Traceback" not in answer.err
    assert answer.err.count("error:") == 1, answer.err
    for part in parts:
        assert part in answer.err
    assert list(tmp_path.iterdir()) == [] and _folders(world) == before, "something was written"


def _folders(world: Path) -> list[Path]:
    """Runs and caches of masks that there are."""
    return sorted([*(world / "runs").iterdir(), *world.glob("datasets/*/*")])


# name: what is done to a prepared label
def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def _resize(path: Path) -> None:
    Image.open(path).resize((31, 17), Image.Resampling.NEAREST).save(path)


def _out_of_range(path: Path) -> None:
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 77)).save(path)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN_LABELS = {
    "truncated": _truncate,
    "of another size": _resize,
    "value outside the spec": _out_of_range,
    "a folder in its place": _folder_instead,
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", BROKEN_LABELS.values(), ids=BROKEN_LABELS)
def test_damaged_label_is_named(
    cli: Callable, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable
) -> None:
    shutil.copytree(world / "datasets", tmp_path / "datasets", copy_function=os.link)
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path / "datasets"))
    monkeypatch.setenv("OVSEG_RUNS", str(tmp_path / "runs"))
    label = sorted((tmp_path / "datasets" / "toy" / "labels" / "val").glob("*.png"))[1]
    content = label.read_bytes()
    label.unlink()  # the copy is made of hard links: this one file becomes its own
    label.write_bytes(content)
    damage(label)
    answer = cli("eval", "maskclip", "--data", "toy", "--limit", "4", "--gpus", "0")
    assert answer.code == 3 and "Traceback" not in answer.err, answer.err
    assert label.stem in answer.err and "ovseg prepare toy" in answer.err
    assert not list(tmp_path.glob("runs/*/results/*.json")), "a result was written"


def test_check_finds_a_damaged_label(cli: Callable, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    shutil.copytree(world / "datasets", root, copy_function=os.link)
    label = sorted((root / "toy" / "labels" / "val").glob("*.png"))[1]
    label.unlink()
    checked = cli("prepare", "toy", "--check", "--workers", "1", "--data-root", str(root))
    assert checked.code == 3 and label.stem in checked.err and "1 problem" in checked.err, checked.err


def _header_only(path: Path) -> None:
    """A PNG whose header promises 20 000 x 20 000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


BAD_PICTURES = {
    "truncated": (_truncate, []),
    "empty": (lambda p: p.write_bytes(b""), ["empty"]),
    "no picture": (lambda p: p.write_text("hello"), []),
    "20 000 x 20 000": (_header_only, ["20000"]),
    "a folder without pictures": (_folder_instead, ["no picture"]),
}


@pytest.mark.parametrize(("damage", "parts"), BAD_PICTURES.values(), ids=BAD_PICTURES)
def test_bad_picture_is_named(cli: Callable, picture: Path, tmp_path: Path, damage: Callable, parts: list[str]) -> None:
    mine = Path(shutil.copy(picture, tmp_path / "mine.png"))
    damage(mine)
    answer = cli("predict", "maskclip", str(mine), "--classes", "snow, sand", "--clip", "toy-clip", "--gpus", "0")
    assert answer.code == 2 and "Traceback" not in answer.err, answer.err
    for part in ["mine.png", *parts]:
        assert part in answer.err
    assert not list(tmp_path.glob("predictions/mine*")), "half a prediction was written"


def test_one_bad_picture_does_not_stop_the_others(cli: Callable, picture: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(picture, photos / "good.png")
    Image.new("RGB", (1, 1), (255, 0, 0)).save(photos / "one-pixel.png")
    (photos / "bad.png").write_bytes(picture.read_bytes()[:80])
    answer = cli("predict", "maskclip", "photos", "--classes", "snow, sand", "--clip", "toy-clip", "--gpus", "0")
    assert answer.code == 2 and "bad.png" in answer.err
    assert Image.open(tmp_path / "predictions" / "good.png").size == Image.open(photos / "good.png").size
    assert Image.open(tmp_path / "predictions" / "one-pixel.png").size == (1, 1)


def test_output_folder_that_cannot_be_made(cli: Callable, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file in the way")
    for arguments in (
        ["predict", "maskclip", picture, "--classes", "a, b", "--clip", "toy-clip", "--out", "taken/x"],
        ["eval", "maskclip", "--data", "toy", "--limit", "2", "--runs", "taken/x"],
        ["prepare", "toy", "--data-root", "taken/x"],
        ["train", "toy-clip", "--runs", "taken/x"],
        ["demo", "--quick", "--out", "taken/x"],
    ):
        answer = cli(*arguments)
        assert answer.code == 4 and "taken" in answer.err and "Traceback" not in answer.err, (arguments, answer.err)


def test_full_disk_while_a_result_is_written(cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("OVSEG_RUNS", str(tmp_path / "runs"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: full() if str(b).endswith("all-first3.json") else replace(a, b))
    answer = cli("eval", "maskclip", "--data", "toy", "--limit", "3", "--gpus", "0")
    assert answer.code == 4 and "disk is full" in answer.err
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith((".part", "first3.json"))]
    monkeypatch.setattr(os, "replace", replace)
    again = cli("eval", "maskclip", "--data", "toy", "--limit", "3", "--gpus", "0")
    assert again.code == 0 and "scored before" in again.err, "finished pictures were not kept"


def test_two_processes_preparing_the_same_data(cli: Callable, tmp_path: Path) -> None:
    from ovseg_cli.core.files import folder_lock

    with folder_lock(tmp_path / "datasets" / "toy", "preparing toy"):
        answer = cli("prepare", "toy", "--data-root", str(tmp_path / "datasets"))
    assert answer.code == 4 and "already under way" in answer.err


def test_interrupted_preparation_goes_on(cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Records._add
    seen: list[str] = []

    def stop_after_five(records: Records, stream: Any, entry: Any) -> None:
        real(records, stream, entry)
        seen.append(entry.stem)
        if len(seen) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Records, "_add", stop_after_five)
    root = str(tmp_path / "datasets")
    answer = cli("prepare", "toy", "--data-root", root, "--workers", "1")
    assert answer.code == 130 and "Traceback" not in answer.err
    monkeypatch.setattr(Records, "_add", real)
    assert cli("eval", "maskclip", "--data", "toy", "--data-root", root).code == 3
    done = cli("prepare", "toy", "--data-root", root, "--workers", "1", "--json")
    assert done.code == 0
    import json

    report = json.loads(done.out)
    assert report["made"] == sum(report["images"].values()) - 5
