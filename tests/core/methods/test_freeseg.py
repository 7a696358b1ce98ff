"""FreeSeg: what its queries say, how CLIP reads masks, how both meet, and how the generator is trained."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from ovseg_cli.core.clip.inputs import normalise
from ovseg_cli.core.clip.masked import masked_features
from ovseg_cli.core.errors import DataError, ShapeError, UsageError
from ovseg_cli.core.methods.freeseg import FreeSeg, FreeSegConfig, FreeSegTraining
from ovseg_cli.core.methods.masked import Candidates
from ovseg_cli.core.nn.ensembles import geometric_scores, host_scores
from ovseg_cli.core.nn.host_training import pad_images, pad_labels
from ovseg_cli.core.nn.region_crops import masked_crops
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import tiny_clip
from tests.core.methods.tiny_methods import FREESEG, tiny_method


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def text_of(count, seed=0, seen=None):
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(count, 24, generator=generator), dim=1)
    return replace(TextFeatures.of_classes(rows), seen=None if seen is None else torch.tensor(seen))


def candidates_of(method, image, text):
    canvas = method.canvas(image)
    with torch.no_grad():
        (candidates,) = method.propose([canvas], text)
    return canvas, candidates


def batch_of(count, size=(40, 64), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, classes, (count, size[0] // 8, size[1] // 8), generator=generator)
    return {"images": images, "labels": labels.repeat_interleave(8, 1).repeat_interleave(8, 2), "names": []}


@pytest.fixture(scope="module")
def host():
    return tiny_method("freeseg")


# --- masks and names by the host


@torch.no_grad()
def test_masks_are_upsampled_with_corners_aligned_and_named_by_a_scaled_cosine(host):
    text = text_of(4)
    canvas, candidates = candidates_of(host, picture(40, 70), text)
    assert canvas.size == (64, 96) and candidates.masks.shape == (6, 64, 96)
    config, rows = host.config.generator, host.text_rows(text)
    output = host.generator(canvas.normalised(config.pixel_mean, config.pixel_std)[None], rows)
    large = F.interpolate(output.mask_logits, (64, 96), mode="bilinear", align_corners=True)[0]
    torch.testing.assert_close(candidates.masks, large.sigmoid())
    torch.testing.assert_close(candidates.class_logits, 100 * F.normalize(output.embeddings[0], dim=1) @ rows.T)


def test_no_object_is_the_last_row_and_of_unit_length(host):
    rows = host.text_rows(text_of(3))
    assert rows.shape == (4, 24)
    assert rows[-1].detach().norm().item() == pytest.approx(1)
    torch.testing.assert_close(rows[:3], text_of(3).features)


def test_embeddings_take_the_width_of_the_clip_unless_told_otherwise():
    assert FreeSegConfig(generator=FREESEG).generator.embed_width == 0
    host = tiny_method("freeseg")
    assert host.config.generator.embed_width == host.clip.embed_dim == 24
    again = FreeSeg(tiny_clip(), FreeSegConfig(**host.config.model_dump()))
    assert again.config == host.config
    with pytest.raises(ShapeError, match="embed_width 12"):
        tiny_method("freeseg", generator={**FREESEG, "embed_width": 12})


# --- names by CLIP


@torch.no_grad()
def test_crops_are_read_as_single_pictures_and_an_empty_mask_gives_zeros(host):
    image, text = picture(32, 64), text_of(5)
    canvas = host.canvas(image)
    masks = torch.zeros(3, 32, 64)
    masks[0, :9, 5:30], masks[1, 20:, 40:] = 0.9, 0.6
    logits = host.clip_logits(canvas, masks, text)
    ready = normalise(canvas.image, host.clip.mean, host.clip.std)
    crops, valid = masked_crops(ready, masks, host.clip.image_size, align_corners=True)
    features = F.normalize(host.clip.encode_image(crops), dim=1)
    assert valid.tolist() == [True, True, False]
    torch.testing.assert_close(logits[:2], host.clip.logit_scale * features @ text.features.T, atol=1e-4, rtol=1e-4)
    assert not logits[2].any()


@torch.no_grad()
def test_masked_clip_reads_all_masks_in_one_pass():
    host = tiny_method("freeseg", scorer="masked-clip", clip_side=48, start_layer=1, logit_scale=7.0)
    image, text = picture(32, 64), text_of(5)
    masks = torch.rand(4, 32, 64, generator=torch.Generator().manual_seed(0))
    square = F.interpolate(normalise(image[None].float(), host.clip.mean, host.clip.std), (48, 48), mode="bilinear")
    features = F.normalize(masked_features(host.clip.visual, square, masks[None], 1)[0], dim=1)
    logits = host.clip_logits(host.canvas(image), masks, text)
    torch.testing.assert_close(logits, 7 * features @ text.features.T, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_masked_clip_may_leave_the_canvas_as_it_is():
    text, masks = text_of(3), torch.rand(2, 32, 64, generator=torch.Generator().manual_seed(0))
    squashed, whole = (tiny_method("freeseg", scorer="masked-clip", clip_side=side) for side in (48, 0))
    canvas = whole.canvas(picture(32, 64))
    image = canvas.normalised(whole.clip.mean * 255, whole.clip.std * 255)[None]
    features = F.normalize(masked_features(whole.clip.visual, image, masks[None], 2)[0], dim=1)
    expected = whole.clip.logit_scale * features @ text.features.T
    torch.testing.assert_close(whole.clip_logits(canvas, masks, text), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(squashed.clip_logits(canvas, masks, text), expected, atol=1e-2)


@torch.no_grad()
def test_a_mask_too_small_for_any_patch_is_kept_if_asked_for():
    text, masks = text_of(3), torch.zeros(2, 32, 32)
    masks[0, 9:11, 9:11] = 1  # between the centres of patches
    plain, kept = (tiny_method("freeseg", scorer="masked-clip", clip_side=0, keep_best=k) for k in (False, True))
    logits = plain.clip_logits(plain.canvas(picture(32, 32)), masks, text)
    assert logits[0].equal(logits[1])
    logits = kept.clip_logits(kept.canvas(picture(32, 32)), masks, text)
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


def test_start_layer_is_two_thirds_of_the_depth_or_what_is_said():
    assert tiny_method("freeseg", scorer="masked-clip").start_layer == 2  # of 3
    assert tiny_method("freeseg", scorer="masked-clip", start_layer=0).start_layer == 0
    with pytest.raises(UsageError, match="has 3 blocks"):
        tiny_method("freeseg", scorer="masked-clip", start_layer=3)


# --- both together


@pytest.mark.parametrize("seen", [None, [True, False, True, False]])
def test_scores_are_the_papers_formula(host, seen):
    text = text_of(4, seen=seen)
    canvas, candidates = candidates_of(host, picture(40, 70), text)
    with torch.no_grad():
        scores = host.score_candidates(canvas, candidates, text)
        clip = host.clip_logits(canvas, candidates.masks, text)
    flag = None if seen is None else torch.tensor(seen)
    empty = ~(candidates.masks[:, :40, :70] > 0.5).flatten(1).any(1)
    torch.testing.assert_close(scores, geometric_scores(candidates.class_logits, clip, 0.8, flag, empty))


def test_masks_that_lie_in_the_padding_alone_count_as_empty():
    host, text = tiny_method("freeseg", ensemble_weight=0.0), text_of(3)
    canvas = host.canvas(picture(20, 20))
    masks = torch.zeros(2, *canvas.size)
    masks[0, :10, :10], masks[1, 20:, 20:] = 1, 1
    with torch.no_grad():
        scores = host.score_candidates(canvas, Candidates(masks, torch.zeros(2, 4)), text)
    assert scores[0].sum().item() == pytest.approx(1) and not scores[1].any()


def test_host_alone_needs_no_clip(monkeypatch):
    host, text = tiny_method("freeseg", ensemble=False), text_of(4)
    monkeypatch.setattr(FreeSeg, "clip_logits", lambda *_: pytest.fail("CLIP was asked"))
    canvas, candidates = candidates_of(host, picture(32, 32), text)
    torch.testing.assert_close(host.score_candidates(canvas, candidates, text), host_scores(candidates.class_logits))


def test_masks_from_elsewhere_have_no_scores_of_the_host(host):
    canvas = host.canvas(picture(32, 32))
    with pytest.raises(ShapeError, match="without class logits"):
        host.score_candidates(canvas, Candidates(torch.ones(1, 32, 32)), text_of(2))


def test_masks_of_another_size_are_refused(host):
    with pytest.raises(ShapeError, match="differ in height or width"):
        host.classify_masks(picture(32, 40), torch.ones(1, 32, 32), text_of(2))


@pytest.mark.parametrize(
    "wrong", [{"ensemble_weight": 1.5}, {"start_layer": -2}, {"scorer": "crop"}, {"clip_side": -1}, {"queries": 5}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        FreeSegConfig(**wrong)


# --- training


def test_the_generator_and_no_object_are_trained_and_clip_is_not():
    host = tiny_method("freeseg")
    groups = host.parameter_groups(FreeSegTraining(learning_rate=1e-3, weight_decay=1e-2, backbone_rate=0.5))
    trained = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in trained}) == len(trained)
    expected = {n for n, _ in host.named_parameters() if not n.startswith("clip.")}
    assert {n for n, p in host.named_parameters() if p.requires_grad} == expected
    assert {n for n, p in host.named_parameters() if any(p is q for q in trained)} == expected
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    predictor = host.generator.sem_seg_head.predictor
    assert rates[id(host.non_object_embedding)] == (1e-3, 1e-2)
    assert rates[id(predictor.query_embed.weight)] == rates[id(predictor.decoder_norm.weight)] == (1e-3, 0.0)
    assert rates[id(host.generator.backbone.res2[0].conv1.weight)] == (5e-4, 1e-2)
    assert rates[id(host.generator.backbone.res2[0].conv1.norm.weight)] == (5e-4, 0.0)


def test_training_mode_has_the_generators_dropout_and_leaves_clip_alone():
    host = tiny_method("freeseg")
    host.parameter_groups(FreeSegTraining())
    host.train_mode()
    assert host.generator.training and not host.clip.training
    assert all(m.training for m in host.generator.modules() if isinstance(m, nn.Dropout))


def step(host, batch, text, totals=None):
    host.zero_grad()
    losses = host.losses(batch, text, totals or host.normalisers(batch))
    sum(losses.values()).backward()
    gradients = {n: p.grad.clone() for n, p in host.named_parameters() if p.grad is not None}
    return {k: v.item() for k, v in losses.items()}, gradients


@pytest.fixture
def learner():
    host = tiny_method("freeseg")
    host.parameter_groups(FreeSegTraining())
    return host


def test_terms_are_those_of_all_layers_but_the_one_before_the_last(learner):
    losses, gradients = step(learner, batch_of(2), text_of(4))
    assert list(losses) == [n + e for e in ("", "_0") for n in ("ce", "mask", "dice")]  # two decoder layers
    assert {n for n, p in learner.named_parameters() if p.requires_grad} == gradients.keys()
    assert all(bool(g.isfinite().all()) for g in gradients.values())


def test_parts_of_a_batch_add_up_in_losses_and_gradients(learner):
    batch, text = batch_of(4), text_of(4)
    batch["labels"][0] = -1
    totals = learner.normalisers(batch)
    whole, gradients = step(learner, batch, text)
    parts = [step(learner, {k: v[s] for k, v in batch.items()}, text, totals) for s in (slice(1), slice(1, None))]
    for name, value in whole.items():
        assert sum(losses[name] for losses, _ in parts) == pytest.approx(value, rel=1e-4, abs=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(sum(g[name] for _, g in parts), gradient, atol=1e-3, rtol=1e-3)


def test_a_batch_without_any_label_trains_without_error(learner):
    batch = batch_of(2)
    batch["labels"][:] = -1
    losses, gradients = step(learner, batch, text_of(4))
    assert losses["mask"] == losses["dice"] == 0 and losses["ce"] > 0
    assert all(bool(g.isfinite().all()) for g in gradients.values())


def test_canvases_that_are_no_multiple_of_the_stride_are_padded(learner):
    assert pad_images(torch.ones(1, 3, 33, 64), 32).shape == (1, 3, 64, 64)
    labels = pad_labels(torch.zeros(1, 33, 64, dtype=torch.int64), 32)
    assert labels.shape == (1, 64, 64) and labels[0, 33:].unique().tolist() == [-1]
    losses, _ = step(learner, batch_of(1, (40, 72)), text_of(4))
    assert all(value == value for value in losses.values())


def test_losses_are_computed_in_full_precision_under_autocast(learner):
    batch, text = batch_of(2), text_of(4)
    totals = learner.normalisers(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = learner.losses(batch, text, totals)
    assert all(v.dtype == torch.float32 and bool(v.isfinite()) for v in rough.values())


def test_a_few_steps_on_one_picture_lower_the_loss(learner):
    batch, text = batch_of(2), text_of(4)
    optimizer = torch.optim.AdamW(learner.parameter_groups(FreeSegTraining(learning_rate=3e-3, backbone_rate=1.0)))
    learner.train_mode()
    totals, values = learner.normalisers(batch), []
    for _ in range(15):
        loss = sum(learner.losses(batch, text, totals).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_weights_of_a_run_come_back_and_others_are_refused(learner):
    other = tiny_method("freeseg", seed=5)
    state = {k: v.clone() for k, v in learner.trained_state().items()}
    assert all(k.startswith("generator.") or k == "non_object_embedding" for k in state)
    other.load_trained_state(state, "run")
    image, text = picture(32, 32), text_of(3)
    one, two = (candidates_of(m, image, text)[1] for m in (learner, other))
    assert one.masks.equal(two.masks) and other.digest == learner.digest
    with pytest.raises(DataError, match="non_object_embedding"):
        other.load_trained_state({k: v for k, v in state.items() if k != "non_object_embedding"}, "run")


def test_training_begins_with_what_is_asked_for(learner):
    before = learner.generator.backbone.stem.conv1.weight.clone()
    learner.begin_training(FreeSegTraining(backbone_weights="none"), Silent())
    assert learner.generator.backbone.stem.conv1.weight.equal(before)
    with pytest.raises(UsageError, match="group norm"):
        learner.begin_training(FreeSegTraining(), Silent())


def test_every_setting_says_where_it_comes_from():
    assert set(FreeSeg.training_sources) <= set(FreeSegTraining.model_fields)
    own = set(FreeSegTraining.model_fields) - set(FreeSegTraining.__base__.model_fields)
    assert own <= set(FreeSeg.training_sources)
