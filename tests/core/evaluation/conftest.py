"""A small result of drawn counts, and a small data set."""

import numpy as np
import pytest

from ovseg_cli.core.data.prepare import prepare
from tests.core.data import handmade
from tests.core.evaluation.drawn import draw_result


@pytest.fixture
def result():
    return draw_result()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Eight pictures of three colours as a data set in which the official count is nine."""
    text = handmade.SPEC.replace("train = { images = 2 }\nval = { images = 1 }", "val = { images = 9 }")
    train = text[text.index("[layouts.subsets.train]") : text.index("[layouts.subsets.val]")]
    preset = '[preset]\nclip = "toy-clip"\nresize = "none"\nside = 32\n'
    spec = handmade.make_spec(tmp_path, text.replace(train, "") + preset)
    generator = np.random.default_rng(0)
    for i in range(8):
        raw = generator.choice([0, 10, 20, 30], (32, 32))
        handmade.write_png(tmp_path / "source" / "labels" / "val" / f"{i}.png", raw)
        image = np.stack([raw * 8, 255 - raw * 8, raw], axis=-1)
        handmade.write_png(tmp_path / "source" / "images" / "val" / f"{i}.png", image)
    prepare(spec, handmade.folders_of(tmp_path), tmp_path / "source", workers=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["ovseg", "eval"])
    return tmp_path
