"""The contract of a method, for every name in the registry, with a tiny random CLIP: a new method is tested at once."""

import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core import registry
from ovseg_cli.core.methods.base import Method, MethodConfig
from ovseg_cli.core.nn.label_maps import full_scores
from ovseg_cli.core.types import DensePrediction, MaskPrediction, TextFeatures, WindowPrediction
from tests.core.methods.tiny_methods import tiny_method

SIZES = [(32, 32), (48, 96), (96, 32), (31, 57), (1, 50), (50, 1), (1, 1), (3, 200)]


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def names(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 24, generator=generator), dim=1)


@pytest.fixture(scope="module", params=sorted(registry.METHODS))
def method(request) -> Method:
    return tiny_method(request.param)


def scores(method, image, features):
    (prediction,) = method.predict([image], TextFeatures.of_classes(features))
    return full_scores(prediction, (image.shape[-2], image.shape[-1]))


def test_class_says_what_list_and_show_print(method):
    entry = registry.METHODS[method.name]
    assert (method.title, method.paper, method.trains) == (entry.title, entry.paper, entry.trained)
    assert method.__doc__ and issubclass(method.Config, MethodConfig)
    for name, field in method.Config.model_fields.items():
        assert field.description and field.description.endswith("."), f"{name} has no sentence"
        assert method.sources[name].place, f"{name} has no source"
    assert set(method.sources) == set(method.Config.model_fields)


def test_settings_and_training_settings_share_no_name(method):
    training = getattr(method, "Training", None)
    if training is None:
        return
    assert not set(method.Config.model_fields) & set(training.model_fields)
    for name, field in training.model_fields.items():
        assert field.description and field.description.endswith("."), f"{name} has no sentence"


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_any_picture_gets_a_finite_score_for_every_name(method, size):
    image = picture(*size)
    (prediction,) = method.predict([image], TextFeatures.of_classes(names(5)))
    assert prediction.size == size
    if isinstance(prediction, DensePrediction):
        assert prediction.logits.shape[0] == 5
    elif isinstance(prediction, WindowPrediction):
        assert prediction.logits.shape[:2] == (len(prediction.boxes), 5)
    elif isinstance(prediction, MaskPrediction):
        assert prediction.class_scores.shape[1] == 5
    result = full_scores(prediction, size)
    assert result.shape == (5, *size) and bool(result.isfinite().all())


def test_pictures_of_several_sizes_go_in_together_and_keep_their_order(method):
    images = [picture(*size, seed=i) for i, size in enumerate([(40, 64), (64, 40), (40, 64), (16, 16)])]
    together = method.predict(images, TextFeatures.of_classes(names(4)))
    assert [p.size for p in together] == [(40, 64), (64, 40), (40, 64), (16, 16)]
    for image, prediction in zip(images, together, strict=True):
        alone = scores(method, image, names(4))
        torch.testing.assert_close(full_scores(prediction, prediction.size), alone, atol=1e-5, rtol=1e-4)


def test_no_pictures_give_no_predictions(method):
    assert method.predict([], TextFeatures.of_classes(names(3))) == []


def test_permuted_names_permute_the_scores(method):
    image, features, order = picture(40, 56), names(6), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        scores(method, image, features[order]), scores(method, image, features)[order], atol=1e-5, rtol=1e-4
    )


def test_a_smaller_vocabulary_and_a_single_name_work(method):
    image = picture(40, 56)
    for count in (1, 2):
        assert scores(method, image, names(count)).shape == (count, 40, 56)


def test_same_picture_twice_gives_the_same_scores(method):
    image, features = picture(45, 64), names(5)
    assert scores(method, image, features).equal(scores(method, image, features))


def test_predicting_changes_neither_pictures_nor_weights(method):
    image, digest = picture(40, 56), method.clip.digest
    before = image.clone()
    scores(method, image, names(3))
    assert image.equal(before) and method.clip.digest == digest
    assert not any(p.grad is not None for p in method.parameters())


def test_training_free_methods_have_no_trainable_weights(method):
    if method.trains == "nothing":
        assert not any(p.requires_grad for p in method.parameters())


def test_synonym_rows_pass_through(method):
    text = TextFeatures(names(4), torch.tensor([0, 0, 1, 2]), 3)
    (prediction,) = method.predict([picture(32, 32)], text)
    assert full_scores(prediction, (32, 32)).shape[0] == 4


def test_scores_for_notebooks_have_the_asked_size(method):
    result = method.predict_scores([picture(32, 48), picture(48, 32)], names(3), (20, 30))
    assert result.shape == (2, 3, 20, 30) and result.dtype == torch.float32


def test_masks_are_classified_and_an_empty_one_scores_zero(method):
    masks = torch.zeros(3, 40, 56)
    masks[0, :20], masks[1, 10:30, 20:40] = 1, 0.5
    logits = method.classify_masks(picture(40, 56), masks, TextFeatures.of_classes(names(5)))
    assert logits.shape == (3, 5) and bool(logits.isfinite().all())
    assert float(logits[2].abs().max()) == 0 and float(logits[:2].abs().max()) > 0
    order = torch.tensor([4, 2, 0, 1, 3])
    turned = method.classify_masks(picture(40, 56), masks, TextFeatures.of_classes(names(5)[order]))
    torch.testing.assert_close(turned, logits[:, order], atol=1e-4, rtol=1e-4)


def test_no_masks_give_no_rows(method):
    logits = method.classify_masks(picture(40, 56), torch.zeros(0, 40, 56), TextFeatures.of_classes(names(5)))
    assert logits.shape == (0, 5)
