"""The picture of a run: drawn from its log, with the panels that there is something for."""

import errno
import json
import os

import pytest
from PIL import Image

from ovseg_cli.core import files
from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.training import curves
from ovseg_cli.core.training.curves import draw_curves


def log_of(folder, lines):
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def line(step, **more):
    return {"step": step, "loss": 3.0 / step, "terms": {"fit": 2.0 / step, "rare": 1.0 / step}, **RATES, **more}


RATES = {"gradient_norm": 1.5, "learning_rate": 0.1, "images_per_second": 3.0, "seconds": 2.0, "waited_share": 0.5}


def panels_of(monkeypatch, log, picture):
    found = []
    monkeypatch.setattr(curves, "_png", lambda panels, title: found.extend(panels) or b"png")
    assert draw_curves(log, picture, "x") and picture.read_bytes() == b"png"
    return dict(found)


def test_panels_show_terms_rates_extras_and_evaluations(tmp_path, monkeypatch):
    lines = [line(1, logit_scale=7.0), line(2), {"step": 2, "evaluation": {"mIoU": 30.0}}, line(3)]
    panels = panels_of(monkeypatch, log_of(tmp_path, lines), tmp_path / "curves.png")
    assert panels["loss"] == {"fit": ([1, 2, 3], [2.0, 1.0, 2 / 3]), "rare": ([1, 2, 3], [1.0, 0.5, 1 / 3])}
    assert panels["other"] == {"logit_scale": ([1], [7.0])}
    assert panels["learning rate"] == {"rate": ([1, 2, 3], [0.1, 0.1, 0.1])}
    assert panels["evaluation"] == {"mIoU": ([2], [30.0])} and "gradient norm" in panels


def test_rates_of_groups_that_run_together_are_one_curve(tmp_path, monkeypatch):
    lines = [line(1), line(2, learning_rates=[0.1, 0.01, 0.1])]
    panels = panels_of(monkeypatch, log_of(tmp_path, lines), tmp_path / "curves.png")
    assert panels["learning rate"] == {"group 0": ([1, 2], [0.1, 0.1]), "group 1": ([1, 2], [0.1, 0.01])}


def test_picture_is_a_png_with_many_terms_and_a_half_line(tmp_path):
    lines = [line(s, terms={f"t{i}": (i + 1) / s for i in range(20)}) for s in (1, 2, 3)]
    log = log_of(tmp_path, lines)
    log.write_text(log.read_text() + '{"step": 4, "ter')
    assert draw_curves(log, tmp_path / "curves.png", "x")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG" and picture.width > 600


@pytest.mark.parametrize("lines", [[], [line(1)]])
def test_less_than_two_lines_are_no_curve(tmp_path, lines):
    assert not draw_curves(log_of(tmp_path, lines), tmp_path / "curves.png", "x")
    assert not (tmp_path / "curves.png").exists() and not draw_curves(tmp_path / "no", tmp_path / "curves.png", "x")


def test_full_disk_is_said_and_the_old_picture_stays(tmp_path, monkeypatch):
    (tmp_path / "curves.png").write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(MachineError, match="the disk is full"):
        draw_curves(log_of(tmp_path, [line(1), line(2)]), tmp_path / "curves.png", "x")
    assert (tmp_path / "curves.png").read_bytes() == b"old"
