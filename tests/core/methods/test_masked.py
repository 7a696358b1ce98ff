"""Methods that name masks: canvas, padding, and independence of what else is in the batch."""

import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.methods.masked import Candidates, training_canvases
from ovseg_cli.core.types import TextFeatures
from tests.core.methods.tiny_methods import tiny_method

HOSTS = ["freeseg", "zegformer", "zsseg"]
TEXT = TextFeatures.of_classes(F.normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(0)), dim=1))


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("size", "canvas"), [((32, 64), (32, 64)), ((33, 64), (64, 64)), ((1, 1), (32, 32))])
def test_canvas_is_the_next_multiple_of_32_and_padding_comes_after_the_mean(size, canvas):
    method = tiny_method("freeseg")
    found = method.canvas(picture(*size))
    assert found.size == canvas and found.area == size
    normalised = found.normalised((100.0, 100.0, 100.0), (50.0, 50.0, 50.0))
    assert normalised.shape == (3, *canvas)
    torch.testing.assert_close(normalised[:, : size[0], : size[1]], (picture(*size).float() - 100) / 50)
    assert not normalised[:, size[0] :].any() and not normalised[:, :, size[1] :].any()


def test_pictures_that_are_none_are_refused():
    method = tiny_method("freeseg")
    for wrong in (torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(3, 0, 4, dtype=torch.uint8), torch.zeros(3, 4)):
        with pytest.raises(ShapeError, match="a picture must be"):
            method.canvas(wrong)


@pytest.mark.parametrize("name", [*HOSTS, "maft"])
def test_a_picture_is_predicted_alike_alone_and_in_company(name):
    method = tiny_method(name)
    pictures = [picture(40, 50), picture(33, 61, 1), picture(64, 64, 2)]
    together = method.predict(pictures, TEXT)
    for image, found in zip(pictures, together, strict=True):
        (alone,) = method.predict([image], TEXT)
        assert found.size == tuple(image.shape[1:]) and found.masks.shape[1:] == image.shape[1:]
        torch.testing.assert_close(found.class_scores, alone.class_scores, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.masks, alone.masks, atol=1e-5, rtol=1e-4)


def test_scores_for_notebooks_lie_on_the_canvas_of_the_largest_picture():
    method = tiny_method("freeseg")
    seen = []
    propose = method.propose
    method.propose = lambda canvases, text: seen.append([c.size for c in canvases]) or propose(canvases, text)
    found = method.predict_scores([picture(30, 70), picture(65, 31)], TEXT.features, (16, 20))
    assert seen == [[(96, 96), (96, 96)]] and found.shape == (2, 4, 16, 20)


def test_a_picture_without_masks_has_no_score_anywhere():
    method = tiny_method("maft")

    class Nothing:
        digest = "nothing"

        def propose(self, canvases, text):
            return [Candidates(torch.zeros(0, *canvas.size)) for canvas in canvases]

    method.set_source(Nothing())
    (found,) = method.predict([picture(40, 50)], TEXT)
    assert found.class_scores.shape == (0, 4) and found.masks.shape == (0, 40, 50)
    assert not method.predict_scores([picture(40, 50)], TEXT.features, (8, 8)).any()


def test_digest_depends_on_the_source_and_a_missing_one_is_said():
    method = tiny_method("maft")
    before = method.digest
    method.set_source(type("Other", (), {"digest": "other"})())
    assert method.digest != before
    method._source = ()
    with pytest.raises(UsageError, match="nobody has said where its masks come from"):
        method.propose([], TEXT)


def test_training_canvases_are_the_batch_as_it_is():
    images = torch.stack([picture(40, 50), picture(40, 50, 1)])
    found = training_canvases(images)
    assert [canvas.size for canvas in found] == [(40, 50)] * 2 and torch.equal(found[1].image, images[1].float())
