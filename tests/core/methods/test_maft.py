from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from ovseg_cli.core.data import rle
from ovseg_cli.core.errors import DataError, ShapeError, UsageError
from ovseg_cli.core.methods.ipclip import IpClip, IpClipConfig
from ovseg_cli.core.methods.maft import TOWER, Maft, MaftConfig, MaftTraining, tuned_names
from ovseg_cli.core.methods.masked import Candidates
from ovseg_cli.core.nn.maft_losses import normalised_rows, present_classes, soft_iou
from ovseg_cli.core.proposals.regions import RegionMasks, split_regions
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.one_sequence import one_sequence
from tests.core.clip.tiny import CONVNEXT, VIT, tiny_clip
from tests.core.methods.tiny_methods import tiny_method

SIDE = 64


def method_of(start_layer=1, **settings):
    return Maft(tiny_clip(), MaftConfig(resize="none", clip_side=48, start_layer=start_layer, **settings))


def in_training(recipe=None, **settings):
    method = method_of(**settings)
    method.parameter_groups(recipe or MaftTraining())
    method.train_mode()
    return method


def text_of(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TextFeatures.of_classes(F.normalize(torch.randn(count, 24, generator=generator), dim=1))


def batch_of(counts=(3, 5), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    def blocks(low, high, count):
        return draw(low, high, count, 4, 4).repeat_interleave(SIDE // 4, 1).repeat_interleave(SIDE // 4, 2)

    return {
        "images": draw(0, 256, len(counts), 3, SIDE, SIDE).to(torch.uint8),
        "labels": blocks(-1, classes, len(counts)),
        "masks": [blocks(0, 256, count).to(torch.uint8) for count in counts],
    }


def part_of(batch, i):
    return {name: value[i : i + 1] for name, value in batch.items()}


def gradients(method):
    return {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}


def test_exactly_attention_and_layer_norms_are_trained():
    method = method_of()
    groups = method.parameter_groups(MaftTraining(weight_decay=0.3))
    block = ["attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"]
    block += [f"{norm}.{part}" for norm in ("ln_1", "ln_2") for part in ("weight", "bias")]
    expected = {f"transformer.resblocks.{i}.{name}" for i in range(VIT["layers"]) for name in block}
    expected |= {"ln_post.weight", "ln_post.bias"}
    trained = {name.removeprefix(TOWER) for name, p in method.named_parameters() if p.requires_grad}
    assert trained == expected == set(tuned_names(method.clip.visual))
    names = {id(p): name for name, p in method.ip_clip.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.0 if "ln_" in names[id(parameter)] else 0.3)
    assert {names[id(p)] for group in groups for p in group["params"]} == expected


def test_gradients_are_in_what_is_trained_and_nowhere_else():
    method = in_training()
    batch = batch_of()
    sum(method.losses(batch, text_of(), method.normalisers(batch)).values()).backward()
    with_gradient = {name.removeprefix(TOWER) for name in gradients(method)}
    assert with_gradient == set(tuned_names(method.ip_clip))
    assert all(g.isfinite().all() for g in gradients(method).values())


def test_frozen_weights_are_held_once():
    method = method_of()
    teacher, tuned = dict(method.clip.visual.named_parameters()), tuned_names(method.clip.visual)
    for name, parameter in method.ip_clip.named_parameters():
        assert (parameter is teacher[name]) == (name not in tuned)
    method.double()  # moving and casting must not part them
    assert method.ip_clip.conv1.weight is method.clip.visual.conv1.weight
    assert method.ip_clip.conv1.weight.dtype == torch.float64


def test_untrained_maft_is_frozen_ip_clip():
    maft = method_of()
    frozen = IpClip(tiny_clip(), IpClipConfig(resize="none", clip_side=48, start_layer=1))
    image, masks = batch_of()["images"][0], batch_of()["masks"][1] / 255
    assert maft.classify_masks(image, masks, text_of()).equal(frozen.classify_masks(image, masks, text_of()))


def plain_terms(method, batch, text, distillation):
    """The losses from separate, whole passes: one long sequence with masks, CLIP without, pictures one by one."""
    overlap, rows, kept = torch.zeros(()), 0, torch.zeros(())
    images = F.interpolate(
        (batch["images"].float() / 255 - method.clip.mean[:, None, None]) / method.clip.std[:, None, None],
        (48, 48),
        mode="bilinear",
        align_corners=False,
    )
    for image, masks, label in zip(images, batch["masks"], batch["labels"], strict=True):
        masks = masks.float() / 255
        features = one_sequence(method.ip_clip, image[None], masks[None], method.start_layer)[0, : len(masks)]
        probabilities = (100 * F.normalize(features, dim=-1) @ text.features.T).softmax(-1)
        classes = present_classes(label)
        targets = normalised_rows(soft_iou(masks, label, classes))
        overlap = overlap + F.smooth_l1_loss(probabilities[:, classes].T, targets, reduction="sum")
        rows += len(classes) * len(masks)
        student, teacher = (_whole(tower, image[None], text) for tower in (method.ip_clip, method.clip.visual))
        kept = kept + F.smooth_l1_loss(student, teacher.detach(), reduction="mean")
    return {"mask_aware": overlap / rows, "distillation": distillation * kept / len(images)}


def _whole(tower, image, text):
    from ovseg_cli.core.clip.dense import pooled_features

    return (100 * F.normalize(pooled_features(tower, image, "align-corners"), dim=-1) @ text.features.T).softmax(-1)


def test_losses_and_gradients_equal_those_of_separate_passes():
    method, batch, text = in_training(MaftTraining(distillation=1.0)), batch_of(), text_of()
    with torch.no_grad():  # a tuned tower, so that the distillation is not zero
        for name in tuned_names(method.ip_clip):
            method.ip_clip.get_parameter(name).mul_(1.1)
    terms = method.losses(batch, text, method.normalisers(batch))
    sum(terms.values()).backward()
    found = gradients(method)
    method.zero_grad()
    expected = plain_terms(method, batch, text, 1.0)
    sum(expected.values()).backward()
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, atol=1e-6, rtol=1e-4)
        assert term > 0
    for name, gradient in gradients(method).items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_distillation_of_an_untrained_student_is_zero():
    method, batch = in_training(), batch_of()
    assert method.losses(batch, text_of(), method.normalisers(batch))["distillation"].item() == 0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 4), min_size=2, max_size=3))
def test_parts_of_a_batch_add_up_to_its_loss(seed, counts):
    method, batch, text = in_training(), batch_of(counts, seed=seed), text_of()
    totals = method.normalisers(batch)
    parts = [part_of(batch, i) for i in range(len(counts))]
    sums = {name: sum(method.normalisers(part)[name] for part in parts) for name in totals}
    assert sums == totals
    whole = method.losses(batch, text, totals)
    for name in whole:
        added = sum(method.losses(part, text, totals)[name] for part in parts)
        torch.testing.assert_close(added, whole[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("counts", [(3, 2), (0, 0)])
def test_batch_without_labels_or_masks_has_zero_loss_and_gradient(counts):
    method, batch = in_training(), batch_of(counts)
    batch["labels"] = torch.full_like(batch["labels"], -1)
    totals = method.normalisers(batch)
    terms = method.losses(batch, text_of(), totals)
    assert totals["overlaps"] == 0 and terms["mask_aware"].item() == 0
    sum(terms.values()).backward()
    assert all(not g.any() for g in gradients(method).values())


def cached(masks):
    """What the training data make of binary masks: a map of regions."""
    codes = rle.encode((masks > 127).numpy())
    ids, table = split_regions(codes, (SIDE, SIDE))
    return RegionMasks(torch.from_numpy(np.ascontiguousarray(ids)), torch.from_numpy(table))


@pytest.mark.parametrize("keep_best", [False, True])
def test_masks_from_the_cache_need_not_be_written_out(keep_best):
    method, batch = in_training(keep_best=keep_best), batch_of((3, 5))
    batch["masks"] = [(masks > 127).to(torch.uint8) * 255 for masks in batch["masks"]]
    totals, terms = method.normalisers(batch), method.losses(batch, text_of(), method.normalisers(batch))
    batch["masks"] = SimpleNamespace(crops=[cached(masks) for masks in batch["masks"]])
    assert method.normalisers(batch) == totals
    torch.testing.assert_close(method.losses(batch, text_of(), totals), terms)


def test_each_loss_can_be_left_out():
    batch = batch_of()
    for recipe, names in (
        (MaftTraining(mask_aware=False), {"distillation"}),
        (MaftTraining(distillation=0), {"mask_aware"}),
    ):
        method = in_training(recipe)
        assert set(method.losses(batch, text_of(), method.normalisers(batch))) == names
    with pytest.raises(ValidationError, match="nothing is learned"):
        MaftTraining(mask_aware=False, distillation=0)


def test_training_lowers_the_loss_and_leaves_clip_alone():
    method, batch, text = in_training(temperature=0), batch_of((6, 6)), text_of()
    before = method.clip.digest
    optimizer = torch.optim.AdamW(method.parameter_groups(MaftTraining()), lr=1e-3)
    course = []
    for _ in range(15):
        loss = sum(method.losses(batch, text, method.normalisers(batch)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        course.append(loss.item())
    assert course[-1] < 0.9 * course[0]
    assert method.clip.digest == before


def test_the_whole_tower_can_be_tuned_and_the_teacher_stays():
    method, batch, text = in_training(MaftTraining(tune="all")), batch_of(), text_of()
    assert all(p.requires_grad for p in method.ip_clip.parameters())
    assert not any(p.requires_grad for p in method.clip.parameters())
    assert method.trained_state().keys() == {TOWER + name for name, _ in method.ip_clip.named_parameters()}
    with torch.no_grad():  # if the student's patches were the teacher's, the distillation would not see this
        method.ip_clip.conv1.weight.mul_(2)
    assert method.losses(batch, text, method.normalisers(batch))["distillation"] > 0


def test_competing_names_count_as_their_class():
    method, batch = in_training(), batch_of(classes=2)
    rows = text_of(3).features
    text = TextFeatures(rows, torch.tensor([0, 1, 1]), 2)
    features = torch.randn(5, 24)
    logits = 100 * F.normalize(features, dim=1) @ rows.T
    expected = torch.stack([logits[:, 0], logits[:, 1:].amax(1)], dim=1)
    torch.testing.assert_close(method._class_logits(features, text), expected)
    assert method.losses(batch, text, method.normalisers(batch))["mask_aware"].isfinite()


def test_logits_are_float32_under_autocast():
    method, batch = in_training(), batch_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = method.losses(batch, text_of(), method.normalisers(batch))
        assert method.logits(torch.randn(2, 24).bfloat16(), text_of()).dtype == torch.float32
    high = method.losses(batch, text_of(), method.normalisers(batch))
    torch.testing.assert_close(low["mask_aware"].float(), high["mask_aware"], atol=0.02, rtol=0.1)


def tuned():
    method = method_of()
    with torch.no_grad():
        for name in tuned_names(method.ip_clip):
            method.ip_clip.get_parameter(name).add_(0.1)
    return method


def test_a_run_keeps_what_was_trained_and_gives_it_back():
    method, again = tuned(), method_of()
    state = method.trained_state()
    assert state.keys() == {TOWER + name for name in tuned_names(method.ip_clip)}
    assert again.digest != method.digest
    again.load_trained_state({name: tensor.clone() for name, tensor in state.items()}, "here")
    assert again.digest == method.digest
    image, masks = batch_of()["images"][0], batch_of()["masks"][1] / 255
    assert again.classify_masks(image, masks, text_of()).equal(method.classify_masks(image, masks, text_of()))
    assert again.trained_state().keys() == state.keys()


def test_official_checkpoints_hold_the_whole_tower():
    method, again = tuned(), method_of()
    whole = {TOWER + name: tensor.clone() for name, tensor in method.ip_clip.named_parameters()}
    again.load_trained_state(whole, "here")  # frozen weights that equal CLIP's stay CLIP's
    assert again.trained_state().keys() == method.trained_state().keys()
    whole[TOWER + "proj"] += 1
    again.load_trained_state(whole, "here")
    assert again.trained_state().keys() == {*method.trained_state(), TOWER + "proj"}
    assert again.ip_clip.proj.equal(whole[TOWER + "proj"])
    assert again.clip.visual.proj.equal(method.clip.visual.proj)


def test_weights_that_do_not_fit_are_refused():
    method = method_of()
    state = dict(method.trained_state())
    with pytest.raises(DataError, match="here: has an unknown weight 'ip_clip.nonsense'"):
        method.load_trained_state({**state, "ip_clip.nonsense": torch.zeros(1)}, "here")
    with pytest.raises(DataError, match="here: weight 'ip_clip.ln_post.bias' is \\(3,\\), this CLIP's is \\(32,\\)"):
        method.load_trained_state({**state, TOWER + "ln_post.bias": torch.zeros(3)}, "here")
    state.pop(TOWER + "ln_post.bias")
    with pytest.raises(DataError, match="here: lacks weight 'ip_clip.ln_post.bias'"):
        method.load_trained_state(state, "here")


def test_start_layer_is_checked_and_two_thirds_by_default():
    assert Maft(tiny_clip({**VIT, "layers": 6})).start_layer == 4
    assert Maft(tiny_clip()).start_layer == 2
    with pytest.raises(UsageError, match="start layer 3: this CLIP has 3 blocks"):
        method_of(start_layer=3)
    with pytest.raises(UsageError, match="class token of a plain ViT"):
        Maft(tiny_clip(CONVNEXT))


def test_temperature_is_a_choice():
    image, masks = batch_of()["images"][0], batch_of()["masks"][1] / 255
    hundred = method_of().classify_masks(image, masks, text_of())
    own = method_of(temperature=0)
    torch.testing.assert_close(
        own.classify_masks(image, masks, text_of()), hundred * own.clip.logit_scale / 100, atol=1e-5, rtol=1e-4
    )


def test_canvas_may_stay_as_it_is():
    method = Maft(tiny_clip(), MaftConfig(resize="none", clip_side=0))
    canvas = method.canvas(torch.zeros(3, 40, 70, dtype=torch.uint8))
    assert method.clip_images([canvas]).shape == (1, 3, 64, 96)  # padded to multiples of 32
    logits = method.classify_masks(torch.zeros(3, 40, 70, dtype=torch.uint8), torch.ones(2, 40, 70), text_of())
    assert logits.shape == (2, 4)


def test_small_masks_keep_their_best_patch_when_asked():
    image, masks = batch_of()["images"][0], torch.zeros(2, SIDE, SIDE)
    masks[0, 0, 0] = 1  # vanishes on a grid of 6 x 6
    masks[1, :, :40] = 1
    vanished, kept = (method_of(keep_best=k).classify_masks(image, masks, text_of()) for k in (False, True))
    assert not torch.allclose(vanished[0], kept[0], atol=1e-3)
    assert torch.allclose(vanished[1], kept[1], atol=1e-4)


def test_masks_of_another_size_are_refused():
    with pytest.raises(ShapeError, match="differ in height or width"):
        method_of().classify_masks(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.ones(1, 8, 9), text_of())


def test_with_the_host_its_own_formula_combines_both():
    host = tiny_method("freeseg")
    maft = Maft(host.clip, MaftConfig(resize="none", clip_side=48, ensemble=True))
    maft.set_source(host)
    image, text = batch_of()["images"][0], text_of()
    canvas = maft.canvas(image)
    with torch.no_grad():
        (candidates,) = maft.propose([canvas], text)
        scores = maft.score_candidates(canvas, candidates, text)
        empty = ~(candidates.masks > 0.5).flatten(1).any(1)
        logits = maft.mask_logits(canvas, candidates.masks, text)
    assert scores.equal(host.fuse(candidates.class_logits, logits, None, empty))
    assert not scores.equal(logits.softmax(-1))
    alone = Maft(host.clip, MaftConfig(resize="none", clip_side=48))
    assert alone.score_candidates(canvas, candidates, text).equal(logits.softmax(-1))


def test_ensemble_without_a_host_is_refused():
    method = method_of(ensemble=True)
    canvas = method.canvas(batch_of()["images"][0])
    method.set_source(tiny_method("maft").source)
    with pytest.raises(UsageError, match="these masks come from no host"):
        method.score_candidates(canvas, Candidates(torch.ones(1, SIDE, SIDE)), text_of())


def test_digest_covers_weights_and_masks():
    method = method_of()
    alone = method.digest
    method.set_source(tiny_method("freeseg"))
    assert len({alone, method.digest, tuned().digest}) == 3
