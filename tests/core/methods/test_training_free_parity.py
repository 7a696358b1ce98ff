"""SCLIP, ClearCLIP, NACLIP and ProxyCLIP against the recorded outputs of their own code (parity/pixelclip)."""

import re

import pytest
import torch

from ovseg_cli.core import registry
from ovseg_cli.core.clip.vit import LastBlock
from ovseg_cli.core.methods.proxyclip import ProxyAttention, shares, similarities
from ovseg_cli.core.methods.sclip import Sclip, SclipConfig
from ovseg_cli.core.nn.label_maps import full_scores, label_map
from ovseg_cli.core.types import Readout, TextFeatures
from tests.core.clip.parity_models import assert_close, load_recorded, read_fixture

NAMES = {
    "sclip": ["sclip", "clearclip_repo.SCLIP.residual"],
    "clearclip": ["clearclip_repo.ClearCLIP.noresidual"],
    "naclip": ["naclip"],
}


@pytest.fixture(scope="module")
def clip(parity):
    return load_recorded(parity, "vit").clip


@pytest.fixture(scope="module")
def recorded(parity):
    return read_fixture(parity, "training_free")


@torch.no_grad()
@pytest.mark.parametrize("shape", ["square", "rect"])
@pytest.mark.parametrize(("method", "name"), [(method, name) for method, names in NAMES.items() for name in names])
def test_features_match_their_repositories(clip, recorded, method, name, shape):
    features = registry.METHODS[method].load()(clip).features(recorded[f"input_{shape}"])
    assert_close(features.flatten(1, 2), recorded[f"{name}.{shape}"])


@torch.no_grad()
def test_proxy_attention_matches_proxyclip(clip, recorded):
    """Its mean runs over the whole recorded batch; ours is each picture's, unless another is given."""
    cases = {name: re.fullmatch(r"proxy\.beta([\d.]+)_gamma([\d.]+)", name) for name in recorded}
    runs = {name: ("proxy.ex_feats", float(m[1]), float(m[2])) for name, m in cases.items() if m}
    if "proxy.same_grid" in recorded:
        runs["proxy.same_grid"] = ("proxy.ex_feats_same_grid", 1.2, 3.0)
    if not runs:
        pytest.skip("these fixtures record no attention of ProxyCLIP")
    for name, (features, beta, gamma) in runs.items():
        tokens = recorded[features].permute(0, 2, 3, 1)
        similar = similarities(tokens)
        attention = ProxyAttention(shares(similar, beta, gamma, similar.mean()), tuple(tokens.shape[1:3]))
        block = LastBlock(attention, residual="none", mlp=False)
        dense = clip.dense(recorded["input_square"], block, "scale-factor")
        assert_close(dense.flatten(1, 2), recorded[name])


@torch.no_grad()
def test_windows_probabilities_and_background_match_sclip(clip, recorded, monkeypatch):
    window, stride, scale, threshold, *size = recorded["slide.params"].tolist()
    size = (int(size[0]), int(size[1]))
    config = SclipConfig(window=int(window), stride=int(stride), softmax_scale=scale, background_threshold=threshold)
    method = Sclip(clip, config)
    monkeypatch.setattr(method, "prepare", lambda image: image)  # what is recorded is normalised already
    rows = recorded["slide.query_idx"]
    text = TextFeatures(recorded["slide.query_features"], rows, int(rows.max()) + 1)
    (prediction,) = method.predict([recorded["slide.image"][0]], text)
    scores = full_scores(prediction, size)
    assert_close(scores[None], recorded["slide.logits"])

    shares_of_rows = (method.probability_scale * scores).softmax(0)
    best = torch.stack([shares_of_rows[rows == i].amax(0) for i in range(text.num_classes)])
    assert_close(best, recorded["slide.class_prob"])

    readout = Readout(softmax_scale=method.probability_scale, threshold=method.background_threshold, background=0)
    prediction = type(prediction)(**{**vars(prediction), "size": size})
    found = label_map(prediction, readout, text.class_of_row, text.num_classes)
    unsure = (best.amax(0) - threshold).abs() < 1e-5
    assert found[~unsure].equal(recorded["slide.pred"][0].to(found)[~unsure])
    assert 0 < float((recorded["slide.pred"] == 0).float().mean()) < 1
