"""A data set of eight small pictures, settings of methods small enough for a test, and commands in real processes."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands.conftest import Answer, run_command

CLASSES = ("grass", "sand", "snow", "water", "brick")  # all known to the toy CLIP; no picture shows brick
SPEC = """
schema = 1
name = "mini"
title = "Eight small pictures"
ignore_label = 255
label_dtype = "uint8"
default_split = "no-snow"

[encoding]
kind = "label-png"
bits = 8
ignore_raw = [255]
raw_ids = "train-ids"

[subsets]
train = { images = 8 }
val = { images = 2 }

[preset]
clip = "toy-clip"
resize = "none"
side = 48
templates = ["a photo of {}"]

[[layouts]]
id = "official"
source = "made for tests"
roots = ["."]

[layouts.subsets.train]
images = "images/train/{stem}.png"
labels = "labels/train/{stem}.png"

[layouts.subsets.val]
images = "images/val/{stem}.png"
labels = "labels/val/{stem}.png"

[[class_splits]]
id = "no-snow"
unseen = ["snow"]
""" + "".join(f'\n[[classes]]\nname = "{name}"\n' for name in CLASSES)

BACKBONE = {
    "blocks": [1, 1, 1, 1],
    "stem_width": 8,
    "width": 4,
    "res2_width": 16,
    "norm": "group-norm",
    "multi_grid": [1],
}
GENERATOR = {"backbone": BACKBONE, "width": 16, "mask_width": 16, "groups": 4, "queries": 6, "heads": 2}
GENERATOR |= {"decoder_layers": 2, "decoder_ffn": 16, "embed_hidden": 16}
FREESEG = {**GENERATOR, "encoder_layers": 1, "encoder_ffn": 16, "interaction_width": 16, "interaction_heads": 2}
MASKFORMER = {**GENERATOR, "pyramid_width": 16}
SHORT = {"batch_size": 2, "workers": 0, "save_every": 1, "log_every": 1}
WHOLE = {"short_sides": [], "crop_size": 0, "color_jitter": False}
HOSTS = {
    "freeseg": {"generator": FREESEG, "scorer": "masked-clip", "clip_side": 48},
    "zegformer": {"generator": MASKFORMER},
    "zsseg": {"generator": MASKFORMER},
}


def host_settings(host: str, **more: object) -> dict:
    """Settings of a host that trains in half a second."""
    return {**SHORT, **WHOLE, "iterations": 3, "backbone_weights": "none", **HOSTS[host], **more}


def maft_settings(host: str = "freeseg", **more: object) -> dict:
    """Settings of MAFT that train it in half a second, and its host before."""
    return {**SHORT, **WHOLE, "iterations": 4, "clip_side": 48, "host": host_settings(host), **more}


def make_source(folder: Path) -> Path:
    """Write pictures, labels and the spec; returns the spec's path.

    Each picture shows grass and one of sand, snow and water; the last one four pixels of grass, else nothing labelled.
    """
    for subset, count in (("train", 8), ("val", 2)):
        for i in range(count):
            rng = np.random.default_rng([i, count])
            label = np.zeros((48, 40 + 8 * (i % 2)), np.uint8)
            label[:, 20:] = 1 + i % 3
            label[:4, :4] = 255
            colors = rng.integers(0, 256, (5, 3))
            pixels = colors[np.where(label == 255, 4, label)] + rng.integers(-20, 20, (*label.shape, 3))
            if i == 7:
                label[:] = 255
                label[40:42, 30:32] = 0
            for kind, values in (("images", np.clip(pixels, 0, 255)), ("labels", label)):
                path = folder / kind / subset / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(path)
    (folder / "mini.toml").write_text(SPEC)
    return folder / "mini.toml"


def as_process(arguments: list[str], output: Path):
    """Return what a forked process does to be `ovseg ARGUMENTS`: it ends with the command's own exit code."""

    def act() -> None:
        import torch

        from ovseg_cli import app

        torch.set_num_threads(1)
        code = 1
        with open(output, "a", encoding="utf-8") as stream:
            sys.stdout = sys.stderr = stream
            sys.argv = ["ovseg", *arguments]
            try:
                app.main()
            except SystemExit as end:
                code = int(end.code or 0)
            stream.flush()
        os._exit(code)

    return act


@contextmanager
def prepared_place(place: Path) -> Iterator[Path]:
    """Prepare the pictures in an empty folder and stay there, with one thread; data, runs and cache lie in it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            for name in ("data", "runs", "cache"):
                patch.setenv(f"OVSEG_{name.upper()}", str(place / name))
            spec = make_source(place / "source")
            done = run_command("prepare", str(spec), "--source", str(spec.parent), "--workers", "1")
            assert done.code == 0, done.err
            yield place
    finally:
        torch.set_num_threads(threads)


def commands_in(folder: Path, place: Path, patch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Return what runs a command in an empty folder, with the data of `place` and no runs."""
    patch.chdir(folder)
    for name, path in (("DATA", place / "data"), ("RUNS", folder / "runs"), ("CACHE", place / "cache")):
        patch.setenv(f"OVSEG_{name}", str(path))
    return run_command
