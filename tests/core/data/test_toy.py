"""The toy world: the same for everybody, seen and unseen in every subset, nothing shared between subsets."""

import subprocess
import sys

import numpy as np
import pytest

from ovseg_cli.core.data import toy, toy_captions, toy_shapes, toy_textures
from ovseg_cli.core.data.specs import load_spec

SCENES = 60
RECORDED = [[137.7, 143.0, 86.3], [53.2, 100.6, 91.7], [121.8, 136.6, 137.6]]


@pytest.fixture(scope="module")
def world():
    return toy.ToyWorld()


@pytest.fixture(scope="module")
def drawn(world):
    return {name: [world.scene(name, i) for i in range(SCENES)] for name in world.subsets}


def test_a_scene_is_a_picture_a_label_and_a_sentence(drawn):
    for image, label, text in drawn["train"][:5]:
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8
        assert label.shape == (96, 96) and label.dtype == np.uint8
        assert isinstance(text, str) and text


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_size_is_honoured(size):
    assert toy.draw(1, 0, size).image.shape == (size, size, 3)
    assert toy.draw(1, 0, size).label.shape == (size, size)


def test_scene_does_not_depend_on_order_or_on_what_was_drawn_before(drawn):
    fresh = toy.ToyWorld()
    for index in (7, 3, 7, 0):
        image, label, text = fresh.scene("val", index)
        assert np.array_equal(image, drawn["val"][index][0])
        assert np.array_equal(label, drawn["val"][index][1])
        assert text == drawn["val"][index][2]


def test_another_process_draws_the_same_scene(drawn):
    code = (
        "import numpy; numpy.random.seed(5); from ovseg_cli.core.data.toy import ToyWorld; import sys;"
        "image, label, text = ToyWorld().scene('tune', 4); sys.stdout.buffer.write(image.tobytes() + label.tobytes())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert out == drawn["tune"][4][0].tobytes() + drawn["tune"][4][1].tobytes()


def test_drawing_leaves_global_random_numbers_alone():
    before = np.random.get_state()[1].copy()
    toy.draw(1, 3, 64)
    assert np.array_equal(before, np.random.get_state()[1])


def test_subsets_share_no_scene_and_no_texture(drawn):
    hashes = {name: {image.tobytes() for image, _, _ in scenes} for name, scenes in drawn.items()}
    assert all(len(h) == SCENES for h in hashes.values())
    labels = {name: {label.tobytes() for _, label, _ in scenes} for name, scenes in drawn.items()}
    for one, other in (("train", "tune"), ("train", "val"), ("tune", "val")):
        assert not labels[one] & labels[other] and not hashes[one] & hashes[other]
    first, second = (toy_textures.canvases("gravel", bank, 2) for bank in (1, 3))
    assert not np.array_equal(first, second)


def test_pretraining_streams_differ_from_subsets_and_from_each_other():
    images = [toy.draw(stream, 0, 96).image.tobytes() for stream in (1, 2, 3, 1000, 1001)]
    assert len(set(images)) == 5


def test_labels_are_classes_or_ignore(drawn):
    values = np.unique(np.stack([label for _, label, _ in drawn["train"]]))
    assert set(values) <= {*range(len(toy_captions.CLASS_NAMES)), toy.IGNORE}


@pytest.mark.parametrize("size", [64, 96])
def test_clutter_covers_about_eight_percent(size):
    labels = np.stack([toy.draw(1, index, size).label for index in range(200)])
    assert 0.05 < (labels == toy.IGNORE).mean() < 0.11


def test_every_class_occurs_in_each_subset(world):
    for name, count in world.subsets.items():
        seen = np.zeros(256, bool)
        for index in range(count):
            seen[np.unique(world.scene(name, index)[1])] = True
            if seen[: len(toy_captions.CLASS_NAMES)].all():
                break
        assert seen[: len(toy_captions.CLASS_NAMES)].all(), name


def test_no_toy_is_smaller_than_what_a_caption_mentions(drawn):
    for _, label, text in drawn["train"]:
        for train_id in np.unique(label[label != toy.IGNORE]):
            if (label == train_id).sum() < toy.MIN_NAMED_PIXELS and train_id < len(toy_captions.STUFF):
                assert toy_captions.STUFF[train_id] not in text.replace(",", "").split()


def test_captions_mention_only_what_is_there(drawn):
    for _, label, text in drawn["train"]:
        words, present = set(text.replace(",", "").split()), set(np.unique(label).tolist())
        assert words <= set(toy_captions.WORDS)
        for place, noun in enumerate(toy_captions.STUFF):
            assert noun not in words or place in present
        factors = [toy_captions.thing_factors(i) for i in present if len(toy_captions.STUFF) <= i < toy.IGNORE]
        for place, color in enumerate(toy_captions.COLORS):
            assert color not in words or any(c == place for c, _ in factors)
        for place, pattern in enumerate(toy_captions.PATTERNS):
            assert pattern not in words or any(p == place for _, p in factors)


def test_a_caption_names_something_even_when_all_would_be_dropped():
    class Unlucky:
        def permutation(self, count):
            return np.arange(count)

        def random(self):
            return 0.0  # below every probability: drop the class, shorten the toy

        def integers(self, count):
            return 0

    assert toy_captions.caption([0], Unlucky()) == "a photo of grass"
    assert toy_captions.caption([toy_captions.thing_id(0, 1)], Unlucky()) == "a photo of a striped toy"


def test_spec_and_generator_name_the_same_classes_and_subsets():
    spec = load_spec("toy")
    assert tuple(c.name for c in spec.classes) == toy_captions.CLASS_NAMES
    assert [c.is_thing for c in spec.classes] == [i >= len(toy_captions.STUFF) for i in range(32)]
    assert {name: subset.images for name, subset in spec.subsets.items()} == toy.SUBSETS
    assert spec.ignore_label == toy.IGNORE


def test_spec_speaks_only_words_that_captions_teach():
    spec = load_spec("toy")
    texts = [template.replace("{}", c.name) for template in spec.preset.templates for c in spec.classes]
    assert {word for text in texts for word in text.split()} <= set(toy_captions.WORDS)


def test_splits_hide_stuff_and_toys():
    spec = load_spec("toy")
    splits = {split.id: set(split.unseen) for split in spec.class_splits}
    stuff = {"gravel", "leaves", "tiles"}
    assert splits["combo"] - stuff == {
        "red striped toy",
        "yellow spotted toy",
        "green checked toy",
        "blue plain toy",
        "purple striped toy",
    }
    assert splits["novel"] - stuff == {f"purple {pattern} toy" for pattern in toy_captions.PATTERNS}
    seen_colors = {name.split()[0] for name in toy_captions.CLASS_NAMES[12:] if name not in splits["combo"]}
    seen_patterns = {name.split()[1] for name in toy_captions.CLASS_NAMES[12:] if name not in splits["combo"]}
    assert seen_colors == set(toy_captions.COLORS) and seen_patterns == set(toy_captions.PATTERNS)


def test_unknown_subset_and_index_are_refused(world):
    with pytest.raises(KeyError):
        world.scene("test", 0)
    with pytest.raises(IndexError):
        world.scene("val", 200)


def test_digest_is_stable_and_depends_on_size(world):
    assert world.digest() == toy.ToyWorld().digest() != toy.ToyWorld(64).digest()


def test_the_world_is_the_one_that_its_version_names(drawn):
    """Mean colors of three scenes, one grey level of room for other platforms. On purpose? Then raise VERSION."""
    means = [np.round(image.mean((0, 1)), 1).tolist() for image, _, _ in drawn["val"][:3]]
    assert toy.VERSION == "toyseg-1"
    assert np.allclose(means, RECORDED, atol=1)


@pytest.mark.parametrize("name", toy_textures.TEXTURES)
def test_canvases_are_repeatable_pictures_with_texture(name):
    first, again = (toy_textures.canvases(name, 9, 2) for _ in range(2))
    assert first.shape == (2, toy_textures.SIDE, toy_textures.SIDE, 3) and np.array_equal(first, again)
    assert first.std() > 2 and not np.array_equal(first[0], first[1])


def test_hue_saturation_value_by_hand():
    # red, green, blue, grey, and a hue below zero that wraps to purple
    pixels = toy_textures.hsv_to_rgb(np.array([0, 1 / 3, 2 / 3, 0.4, -0.25]), np.array([1, 1, 1, 0, 1.0]), 1.0)
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.5, 0, 1]]
    assert np.allclose(pixels, expected)


@pytest.mark.parametrize("outline", toy_shapes.TOY_OUTLINES + toy_shapes.CLUTTER_OUTLINES)
@pytest.mark.parametrize("seed", range(5))
def test_outlines_stay_in_their_box_and_cover_a_fair_area(outline, seed):
    patch = toy_shapes.place(outline, (48.0, 48.0), 20.0, np.random.default_rng(seed), 96)
    border = np.concatenate([patch.alpha[0], patch.alpha[-1], patch.alpha[:, 0], patch.alpha[:, -1]])
    assert border.max() == 0
    assert 0.1 < patch.inside.sum() / (np.pi * 20**2) < 1.05


def test_ball_has_the_area_of_a_circle():
    patch = toy_shapes.place("ball", (48.0, 48.0), 20.0, np.random.default_rng(0), 96)
    assert abs(patch.inside.sum() - np.pi * 19**2) < 25  # the radius is 0.95 of 20
