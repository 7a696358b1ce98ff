"""Score fusion: by hand, against the recorded outputs of the papers' own code, and at the edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.ensembles import clip_scores, geometric_scores, host_scores, zegformer_scores

FORMULA = 2e-5  # the recorded tolerance of float32 (its README)
HALF = 5e-3  # where the recording itself multiplied in half precision


def logits(*probabilities):
    return torch.tensor([[math.log(p) for p in row] for row in probabilities])


def close(found, wanted, tolerance=FORMULA):
    atol = tolerance * max(1.0, float(wanted.abs().nan_to_num().max()))
    torch.testing.assert_close(found, wanted, atol=atol, rtol=0, equal_nan=True)


# --- by hand: two names and "no object"

HOST = logits([0.4, 0.1, 0.5])
CLIP = logits([0.25, 0.75])


def test_host_alone_keeps_what_no_object_leaves():
    torch.testing.assert_close(host_scores(HOST), torch.tensor([[0.4, 0.1]]))


def test_geometric_mean_trusts_the_host_for_seen_and_clip_for_unseen_names():
    found = geometric_scores(HOST, CLIP, 0.8, seen=torch.tensor([True, False]))
    wanted = [[0.4**0.8 * 0.25**0.2, 0.1**0.2 * 0.75**0.8]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_without_flags_every_name_counts_as_unseen():
    all_unseen = torch.tensor([False, False])
    assert geometric_scores(HOST, CLIP, 0.8).equal(geometric_scores(HOST, CLIP, 0.8, seen=all_unseen))


def test_an_empty_mask_leaves_the_host_its_say():
    found = geometric_scores(HOST, CLIP, 0.8, torch.tensor([True, False]), empty=torch.tensor([True]))
    torch.testing.assert_close(found, torch.tensor([[0.4**0.8, 0.1**0.2]]))


def test_weight_zero_is_clip_alone_without_empty_masks():
    two = torch.cat([CLIP, CLIP])
    found = geometric_scores(torch.cat([HOST, HOST]), two, 0, torch.tensor([True, False]), torch.tensor([False, True]))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75], [0.0, 0.0]]))
    torch.testing.assert_close(clip_scores(two), torch.tensor([[0.25, 0.75], [0.25, 0.75]]))


def test_zegformer_gives_clip_the_hosts_background():
    # logits ln .4, ln .1, background ln .5; CLIP ln 1, ln 3 → with the background 1, 3, 0.5, sum 4.5
    clip = logits([1.0, 3.0])
    torch.testing.assert_close(zegformer_scores(HOST, clip, "none"), torch.tensor([[1 / 4.5, 3 / 4.5]]))


def test_zegformer_evens_out_clip_among_seen_names():
    host, clip = logits([0.3, 0.2, 0.4, 0.1]), logits([1.0, 3.0, 5.9])  # with the background: sum 10
    found = zegformer_scores(host, clip, "seen_unseen", torch.tensor([True, True, False]))
    mean = (0.1 + 0.3) / 2
    wanted = [[0.3 ** (2 / 3) * mean ** (1 / 3), 0.2 ** (2 / 3) * mean ** (1 / 3), 0.4 ** (1 / 3) * 0.59 ** (2 / 3)]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_zegformer_without_seen_names_is_the_formula_for_all():
    nobody = torch.tensor([False, False])
    for seen in (None, nobody):
        assert zegformer_scores(HOST, CLIP, "seen_unseen", seen).equal(zegformer_scores(HOST, CLIP, "all"))


@pytest.mark.parametrize("formula", [lambda h, c: geometric_scores(h, c, 0.5), zegformer_scores])
def test_a_clip_that_brings_its_own_no_object_is_refused(formula):
    with pytest.raises(ShapeError, match="one column more"):
        formula(HOST, HOST)


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(1, 6), st.floats(0, 1), st.integers(0, 9999), st.sampled_from([1.0, 20.0, 100.0]))
def test_scores_are_finite_and_never_above_one(masks, names, weight, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    host = scale * torch.randn(masks, names + 1, generator=generator)
    clip = scale * torch.randn(masks, names, generator=generator)
    seen = torch.rand(names, generator=generator) < 0.5
    for scores in (
        geometric_scores(host, clip, weight, seen),
        zegformer_scores(host, clip, "seen_unseen", seen, weight),
        zegformer_scores(host, clip, "all", seen, weight),
    ):
        assert scores.shape == (masks, names) and bool(((scores >= 0) & (scores <= 1 + 1e-6)).all())


# --- recorded


@pytest.fixture(scope="module")
def fusion(parity):
    return load_file(parity / "maft" / "semantic_inference.safetensors")


@pytest.fixture(scope="module")
def zegformer(parity):
    return load_file(parity / "maft" / "host_crops_and_ensembles.safetensors")


def score_map(scores, masks):
    return torch.einsum("nm,nhw->mhw", scores, masks)


def recorded_inputs(fusion):
    masks = fusion["mask_logits"].float().sigmoid()
    return (
        fusion["host_class_logits"].float(),
        fusion["clip_logits"].float()[:, :-1],
        masks,
        ~(masks > 0.5).flatten(1).any(1),
    )


def test_recorded_scores_of_host_and_clip_alone(fusion):
    host, clip, masks, empty = recorded_inputs(fusion)
    close(score_map(host_scores(host), masks), fusion["host_noensemble"])
    close(score_map(clip_scores(clip), masks), fusion["maft_w0"])
    close(score_map(clip_scores(clip, empty), masks), fusion["host_w0_ov"])


def test_recorded_scores_of_every_weight(fusion):
    host, clip, masks, empty = recorded_inputs(fusion)
    keys = [key for key in fusion if key.startswith(("host_w", "maft_formula_w"))]
    assert keys
    for key in keys:
        *_, weight, flags = key.split("_")
        seen = fusion["trainable_flag"].bool() if flags == "zs" else None
        scores = geometric_scores(host, clip, int(weight[1:]) / 10, seen, empty)
        close(score_map(scores, masks), fusion[key])


def test_recorded_zegformer_scores(zegformer):
    """Where the recorded stand-in CLIP gave an empty region no direction (0 / 0), the whole score map is no number."""
    keys = [key for key in zegformer if key.startswith("zegformer_") and key.endswith("_sem_seg")]
    assert keys
    canvas = zegformer["zegformer_image_u8"].shape[-2:]
    logits = zegformer["zegformer_pred_masks_logits"].float()
    masks = F.interpolate(logits, canvas, mode="bilinear", align_corners=False)[0].sigmoid()
    seen = zegformer["zegformer_seen_flag"].bool()
    for key in keys:
        style, _, fusion = key.removeprefix("zegformer_").removesuffix("_sem_seg").partition("_")
        fusion, _, calibration = fusion.partition("_calib")
        clip = zegformer["zegformer_logit_scale_log"].exp() * (
            zegformer[f"zegformer_{style}_clip_features"].float() @ zegformer["zegformer_text_features"].float().T
        )
        scores = zegformer_scores(zegformer["zegformer_pred_logits"][0].float(), clip, fusion, seen)
        found = score_map(scores, masks)
        found = F.interpolate(found[None], zegformer[key].shape[-2:], mode="bilinear", align_corners=False)[0]
        found[seen] -= float(calibration or 0)
        close(found, zegformer[key], HALF)
