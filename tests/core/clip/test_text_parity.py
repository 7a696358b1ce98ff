"""Class-name features against the recorded outputs of PixelCLIP's own text side."""

import pytest
import torch

from ovseg_cli.core.clip.prompts import IMAGENET_SELECT, SINGLE
from ovseg_cli.core.clip.text import template_features
from tests.core.clip.parity_models import assert_close, load_recorded


@pytest.fixture(scope="module", params=["vit", "conv"])
def recorded(parity, request):
    return load_recorded(parity, request.param)


@pytest.mark.parametrize("key", ["select8", "single"])
def test_features_of_each_template_match_pixelclip(recorded, key):
    templates = recorded.config["templates_select8" if key == "select8" else "single_template"]
    features = template_features(recorded.clip, recorded.synonyms, templates)
    assert_close(features, recorded.tensors[f"text.features_{key}"])


def test_the_shipped_sets_are_those_of_the_fixture(recorded):
    assert list(IMAGENET_SELECT) == recorded.config["templates_select8"]
    assert list(SINGLE) == recorded.config["single_template"]


def test_one_class_alone_has_the_feature_it_has_among_others(recorded):
    templates = recorded.config["templates_select8"]
    alone = template_features(recorded.clip, recorded.synonyms[2:3], templates)
    torch.testing.assert_close(alone[0], recorded.tensors["text.features_select8"][2], atol=1e-5, rtol=0)
