import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_cli import load
from ovseg_cli.core.clip.model import save_clip
from ovseg_cli.core.clip.tokenizer import WordTokenizer
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.errors import MachineError, OvsegError, UsageError
from ovseg_cli.core.prediction import segmenter as predict
from ovseg_cli.core.prediction.segmenter import Segmenter, read_picture
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import DensePrediction, Vocabulary

WORDS = ("a", "photo", "of", "red", "green", "blue", "thing")


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights that describes itself: one block, 8-pixel patches, a dozen words."""
    tokenizer = WordTokenizer(WORDS, 10, reserve=128)
    text = {"context_length": 10, "vocab_size": tokenizer.vocab_size, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": False}
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_clip(path, build_module(config), config, tokenizer.to_json(), {"mean": [0.5] * 3, "std": [0.5] * 3}, {})
    return path


@pytest.fixture
def model(clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    return load("maskclip", clip=str(clip_file), device="cpu", reporter=Silent())


def noise(height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class FixedScores:
    """Stands in for a method: the scores of two rows, left and right half of any picture."""

    name = "fixed"
    probability_scale = 1.0
    templates = None
    templates_on: dict = {}
    extra_templates: dict = {}

    def __init__(self, clip, scores: list[list[float]]):
        self.clip, self.scores = clip, torch.tensor(scores)[:, None]

    def remark(self, text):
        return None

    def predict(self, images, text):
        return [DensePrediction(self.scores, tuple(image.shape[-2:])) for image in images]


def test_the_example_of_the_module_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    assert doctest.testmod(predict).failed == 0 and doctest.testmod(predict).attempted >= 6


def test_every_form_of_a_picture_gives_the_same_map(model: Segmenter, tmp_path: Path):
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    forms = (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    maps = [model.predict(form, "red, green, blue").label_map for form in (*forms, tensor)]
    assert maps[0].shape == (40, 56) and maps[0].dtype == np.uint8
    assert all((other == maps[0]).all() for other in maps[1:])


def test_grey_and_rotated_pictures_become_upright_rgb(tmp_path: Path):
    assert read_picture(np.full((2, 3), 7, np.uint8))[0].shape == (2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(noise(4, 6)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg")[0].shape == (6, 4, 3)
    assert (read_picture(Image.open(tmp_path / "a.jpg"))[0] == read_picture(tmp_path / "a.jpg")[0]).all()
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    clear.save(tmp_path / "b.png")
    assert (read_picture(clear)[0] == read_picture(tmp_path / "b.png")[0]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 7)])
def test_odd_sizes_keep_their_size(model: Segmenter, size: tuple[int, int]):
    result = model.predict(noise(*size), ["red", "green"])
    assert result.label_map.shape == size and sum(result.shares.values()) == pytest.approx(1)


def test_names_in_another_order_give_the_same_classes(model: Segmenter):
    first = model.predict(noise(), ["red", "green", "blue"])
    second = model.predict(noise(), ["blue", "red", "green"])
    for name in first.class_names:
        assert (first.mask(name) == second.mask(name)).all()


def test_threshold_adds_a_background_where_the_model_is_unsure(model: Segmenter):
    # left: scores 1 and 0, the softmax is 1 / (1 + 1 / e) = 0.73; right: both 0.5, it is one half
    unsure = Segmenter(FixedScores(model.method.clip, [[1.0, 0.5], [0.0, 0.5]]))  # type: ignore[arg-type]
    result = unsure.predict(noise(4, 8), "red, green", background_threshold=0.6)
    assert result.class_names == ("red", "green", "background") and result.background == 2
    assert result.label_map[:, 0].tolist() == [0] * 4 and result.label_map[:, -1].tolist() == [2] * 4
    assert unsure.predict(noise(4, 8), "red, green").label_map[:, -1].tolist() == [0] * 4


def test_threshold_falls_to_the_background_class_where_there_is_one(model: Segmenter):
    query = model.query("red, background/thing, blue", background_threshold=0.5)
    assert query.class_names == ("red", "background", "blue") and query.readout.background == 1


def test_named_background_collects_its_words(model: Segmenter):
    result = model.predict(noise(), "red, background/green/thing")
    words = ("red", "background", "green", "thing")
    plain = model.predict(noise(), Vocabulary(words, tuple((word,) for word in words)))
    assert (result.mask("red") == plain.mask("red")).all() and result.background == 1


def test_vocabulary_and_templates_are_taken_as_they_are(model: Segmenter):
    vocabulary = Vocabulary(("x",), (("red", "green"),), ("the {}",))
    assert model.predict(noise(), vocabulary).class_names == ("x",)
    a, b = model.query("red, green"), model.query("red, green", ["{} thing"])
    assert not torch.allclose(a.text.features, b.text.features)
    assert model.query("red, green") is a


def test_doubtful_requests_are_warned_about(model: Segmenter):
    warnings = model.reporter.warnings  # type: ignore[attr-defined]
    model.query("red, green", background_threshold=0.5)
    assert not warnings
    model.query("red", background_threshold=0.5)
    assert "only one name" in warnings[-1]
    model.query("zebra, red")
    assert "'zebra'" in warnings[-1]


BAD_PICTURES = {
    "missing file": ("nowhere.png", "no such file"),
    "folder": (".", "folder"),
    "float array": (np.zeros((4, 4, 3), np.float32), "uint8"),
    "four channels": (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
    "no pixel": (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3)"),
    "channels last tensor": (torch.zeros(4, 4, 3, dtype=torch.uint8), "(4, 3, 4)"),
    "batch": (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "Tensor"),
    "number": (3, "int"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_wrong_pictures_are_refused_with_a_sentence(model: Segmenter, case: str):
    picture, part = BAD_PICTURES[case]
    with pytest.raises(UsageError) as error:
        model.predict(picture, "red, green")  # type: ignore[arg-type]
    assert part in str(error.value)


BAD_REQUESTS = {
    "no names": ({}, "no class names to look for"),
    "empty name": ({"names": "red,,green"}, "name is empty"),
    "name twice": ({"names": ["red", "Red"]}, "stands twice"),
    "threshold zero": ({"names": "red", "background_threshold": 0.0}, "between 0 and 1"),
    "threshold in percent": ({"names": "red", "background_threshold": 30}, "between 0 and 1"),
    "threshold not a number": ({"names": "red", "background_threshold": float("nan")}, "between 0 and 1"),
    "template without place": ({"names": "red", "templates": ["a photo"]}, "template"),
    "missing list": ({"names": "nowhere.txt"}, "no such file"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_wrong_requests_are_refused_with_a_sentence(model: Segmenter, case: str):
    arguments, part = BAD_REQUESTS[case]
    with pytest.raises(UsageError) as error:
        model.predict(noise(), **arguments)  # type: ignore[arg-type]
    assert part in str(error.value)


@pytest.mark.parametrize(
    "arguments, kind, part",
    [
        ({"model": "maskclop"}, UsageError, "Did you mean 'maskclip'"),
        ({"model": "runs/none"}, UsageError, "no such run folder"),
        ({"model": "latest"}, UsageError, "no finished segmentation run"),
        ({"model": "toy-clip"}, UsageError, "--clip toy-clip"),
        ({"model": "maskclip", "clip": "./none.safetensors"}, MachineError, "no such file"),
        ({"model": "maskclip", "sidee": 3}, UsageError, "Did you mean 'side'"),
        ({"model": "maskclip", "side": -3}, UsageError, "side"),
    ],
)
def test_wrong_models_are_refused_with_a_sentence(arguments, kind, part, clip_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"clip": str(clip_file), "device": "cpu", **arguments}
    with pytest.raises(OvsegError) as error:
        load(given.pop("model"), **given)
    assert isinstance(error.value, kind) and part in str(error.value)


def test_unknown_words_are_in_the_result_and_by_origin_in_the_warnings(model: Segmenter):
    result = model.predict(noise(), ["red", "Blue Unicorn", "background"])
    assert {"unicorn", "wall"} <= set(result.unknown_words) and "red" not in result.unknown_words
    assert result.document()["unknown_words"] == list(result.unknown_words)
    assert result.class_names == ("red", "Blue Unicorn", "background"), "names stay as typed"
    of_classes, of_background = (line for line in model.reporter.warnings if "never trained" in line)  # type: ignore[attr-defined]
    assert "on 'unicorn':" in of_classes and "mean nothing" in of_classes and "wall" not in of_classes
    assert of_background.startswith("'background' stands for") and "'wall'" in of_background
    known = model.predict(noise(), ["red", "blue thing"])
    assert known.unknown_words == () and known.document()["unknown_words"] == []


def test_unknown_words_of_templates_are_named_as_such(model: Segmenter):
    result = model.predict(noise(), ["red", "blue"], templates=["a sketch of {}"])
    assert result.unknown_words == ()
    assert any("'sketch', words of the templates" in line for line in model.reporter.warnings)  # type: ignore[attr-defined]


def test_model_shows_itself_in_one_line(model: Segmenter):
    assert repr(model) == f"Segmenter(maskclip, {model.method.clip.name}, cpu)"


def test_names_of_the_data_are_known_whatever_the_split(model: Segmenter):
    for label, unseen in (("toy", None), ("toy:novel", None), ("toy", "red striped toy")):
        model.data, model.unseen = label, unseen
        assert len(model.query().class_names) == 32


def test_a_run_s_own_names_are_read_as_it_is_scored(model: Segmenter):
    """Its class split and the sentences that it keeps: else calibrated methods would score other names than `eval`."""
    model.data, model.templates = "toy:novel", ("one {}",)
    own = model._vocabulary(None, None)
    assert own.templates == ("one {}",) and sum(own.unseen) == 7
    assert model._vocabulary("red, green", None).templates == ("one {}",)
    assert model._vocabulary("red, green", ["two {}"]).templates == ("two {}",)


def split_of(*unseen: bool, background: int | None = None) -> Vocabulary:
    words = ("red", "green", "blue")
    return Vocabulary(words, tuple((w,) for w in words), unseen=unseen, background=background)


def test_what_training_saw_says_which_names_are_seen_else_their_class_split(model: Segmenter):
    assert model.query("red, green, blue").seen is None, "nobody knows"
    split = model.query(split_of(False, True, False)).seen
    assert split is not None and (split.flags, split.where) == ((True, False, True), "in the class split")
    model.method.training_names = ("Blue", "thing")  # type: ignore[attr-defined]
    for vocabulary in (split_of(False, False, True), "red/thing, green, blue"):
        trained = Segmenter(model.method).query(vocabulary).seen
        assert trained is not None and trained.where == "in training" and trained.flags[1:] == (False, True)
    assert trained.flags[0] is True, "a synonym was trained on"
    assert Segmenter(model.method).query("red, green").seen.flags == (False, False)  # type: ignore[union-attr]


def test_a_background_is_neither_seen_nor_unseen(model: Segmenter):
    named = model.query(split_of(False, True, False, background=0)).seen
    added = model.query(split_of(False, True, False), background_threshold=0.5).seen
    assert named is not None and named.flags == (None, False, True)
    assert added is not None and added.flags == (True, False, True, None)


def test_the_same_names_under_another_split_are_another_query(model: Segmenter):
    first, second = model.query(split_of(False, True, False)), model.query(split_of(True, False, False))
    assert first.seen != second.seen and model.fingerprint(first) != model.fingerprint(second)
