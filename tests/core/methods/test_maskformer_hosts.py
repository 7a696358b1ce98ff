"""ZSSeg and ZegFormer: what their queries and their CLIP say, how both meet, and how MaskFormer is trained."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.clip.inputs import normalise
from ovseg_cli.core.clip.prompts import template_set
from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.methods.masked import IMAGENET_MEAN, IMAGENET_STD, Candidates, Canvas
from ovseg_cli.core.methods.texts import default_templates
from ovseg_cli.core.methods.zegformer import ZegFormer, ZegFormerConfig
from ovseg_cli.core.methods.zsseg import ZSSeg, ZSSegConfig
from ovseg_cli.core.nn.ensembles import geometric_scores, host_scores, zegformer_scores
from ovseg_cli.core.nn.region_crops import masked_crops, zegformer_regions
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import tiny_clip
from tests.core.methods.tiny_methods import MASKFORMER, tiny_method

HOSTS = ("zsseg", "zegformer")
MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]


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


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    return tiny_method(request.param)


# --- masks


def test_masks_cover_the_canvas_and_come_with_one_column_more_than_names(host):
    canvas, candidates = candidates_of(host, picture(40, 70), text_of(4))
    assert canvas.size == (64, 96) and canvas.area == (40, 70)
    assert candidates.masks.shape == (6, 64, 96) and candidates.class_logits.shape == (6, 5)
    assert 0 <= float(candidates.masks.min()) and float(candidates.masks.max()) <= 1


def test_queries_are_compared_with_names_by_a_scaled_cosine(host):
    text, image = text_of(4), picture(32, 64)
    canvas, candidates = candidates_of(host, image, text)
    with torch.no_grad():
        output = host.generator(canvas.normalised(IMAGENET_MEAN, IMAGENET_STD)[None])
    cosines = F.normalize(output.embeddings[0], dim=1) @ text.features.T
    torch.testing.assert_close(candidates.class_logits[:, :-1], 100 * cosines, atol=1e-4, rtol=1e-4)
    wanted = F.interpolate(output.mask_logits, (32, 64), mode="bilinear", align_corners=False)[0].sigmoid()
    torch.testing.assert_close(candidates.masks, wanted)


def test_no_object_has_unit_length_in_zsseg_and_its_own_in_zegformer():
    zsseg, zegformer, text = tiny_method("zsseg"), tiny_method("zegformer"), text_of(3)
    before = [m.text_rows(text)[-1].detach().clone() for m in (zsseg, zegformer)]
    with torch.no_grad():
        zsseg.non_object_embedding.mul_(3)
        zegformer.background.mul_(3)
    after = [m.text_rows(text)[-1].detach() for m in (zsseg, zegformer)]
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1], 3 * before[1])
    torch.testing.assert_close(float(after[0].norm()), 1.0)


# --- CLIP's opinion


def test_zsseg_shows_clip_the_masked_crops_without_padding():
    method, text = tiny_method("zsseg"), text_of(4)
    canvas, candidates = candidates_of(method, picture(40, 70), text)
    masks = candidates.masks.clone()
    masks[1] = 0
    masks[2, :40, :70] = 0  # what lies in the padding alone is no region
    masks[2, 40:, 70:] = 1
    logits, valid = method.region_logits(canvas, masks, text)
    image = normalise(picture(40, 70).float(), method.clip.mean, method.clip.std)
    crops, wanted_valid = masked_crops(image, masks[:, :40, :70], method.clip.image_size)
    assert valid.equal(wanted_valid) and not valid[1:3].any()
    cosines = F.normalize(method.clip.encode_image(crops), dim=1) @ text.features.T
    torch.testing.assert_close(logits[valid], method.clip.logit_scale * cosines, atol=1e-4, rtol=1e-4)
    assert not logits[~valid].any()


def test_zegformer_shows_clip_regions_of_the_padded_canvas_under_other_sentences():
    method, region_text = tiny_method("zegformer"), text_of(4, seed=9).features
    text = replace(text_of(4), extra={"region": region_text})
    canvas, candidates = candidates_of(method, picture(40, 70), text)
    logits, valid = method.region_logits(canvas, candidates.masks, text)
    padded = F.pad(normalise(picture(40, 70).float(), method.clip.mean, method.clip.std), (0, 26, 0, 24))
    regions = zegformer_regions(padded, candidates.masks, method.clip.image_size)
    cosines = F.normalize(method.clip.encode_image(regions), dim=1) @ region_text.T
    torch.testing.assert_close(logits, method.clip.logit_scale * cosines, atol=1e-3, rtol=1e-3)
    assert bool(valid.all())


def test_without_sentences_for_regions_zegformer_reads_the_names():
    method, text = tiny_method("zegformer"), text_of(4)
    canvas, candidates = candidates_of(method, picture(32, 32), text)
    alone = method.region_logits(canvas, candidates.masks, text)[0]
    same = method.region_logits(canvas, candidates.masks, replace(text, extra={"region": text.features}))[0]
    assert alone.equal(same)


def test_number_of_regions_at_once_changes_nothing(host):
    text, image = text_of(3), picture(40, 70)
    canvas, candidates = candidates_of(host, image, text)
    few = tiny_method(host.name, windows_per_batch=2)
    wanted = host.region_logits(canvas, candidates.masks, text)[0]
    torch.testing.assert_close(few.region_logits(canvas, candidates.masks, text)[0], wanted, atol=1e-4, rtol=1e-4)


# --- both


@pytest.mark.parametrize("seen", [None, [True, False, True, False]])
def test_scores_are_the_papers_fusion(host, seen):
    text = text_of(4, seen=seen)
    canvas, candidates = candidates_of(host, picture(40, 70), text)
    masks = candidates.masks.clone()
    masks[0] = 0
    candidates = replace(candidates, masks=masks)
    logits, valid = host.region_logits(canvas, masks, text)
    own = candidates.class_logits
    if host.name == "zsseg":
        wanted = geometric_scores(own, logits, 0.8, text.seen, ~valid)
    else:
        wanted = zegformer_scores(own, logits, "seen_unseen", text.seen)
    assert host.score_candidates(canvas, candidates, text).equal(wanted)


def test_without_the_ensemble_the_queries_alone_name_the_masks(host):
    method, text = tiny_method(host.name, ensemble=False), text_of(4)
    canvas, candidates = candidates_of(method, picture(32, 64), text)
    assert method.score_candidates(canvas, candidates, text).equal(host_scores(candidates.class_logits))


def test_masks_without_class_logits_are_named_by_clip(host):
    text = text_of(4)
    canvas, candidates = candidates_of(host, picture(32, 64), text)
    scores = host.score_candidates(canvas, Candidates(candidates.masks), text)
    logits, valid = host.region_logits(canvas, candidates.masks, text)
    torch.testing.assert_close(scores, logits.softmax(1) * valid[:, None])


def test_zegformer_asks_for_its_calibration():
    assert tiny_method("zegformer").seen_penalty == 0.1 and tiny_method("zsseg").seen_penalty == 0
    assert tiny_method("zegformer", seen_penalty=0.0).seen_penalty == 0


def test_flags_change_the_scores(host):
    image = picture(40, 70)
    results = [
        host.predict([image], text_of(4, seen=seen))[0].class_scores
        for seen in (None, [False] * 4, [True, False, False, False])
    ]
    assert results[0].equal(results[1])
    assert not results[0][:, 0].equal(results[2][:, 0]) and results[0][:, 1:].equal(results[2][:, 1:])


def test_texts_are_those_of_the_code():
    assert len(default_templates(ZSSeg)) == 14 and len(default_templates(ZegFormer)) == 8
    regions = template_set(ZegFormer.extra_templates["region"])
    assert len(set(regions)) == 32 and sum("masked" in sentence for sentence in regions) == 10


def test_sizes_of_the_published_models_are_the_defaults():
    zsseg, zegformer = ZSSegConfig().generator, ZegFormerConfig(generator={"queries": 7}).generator
    assert zsseg.backbone.stem == "deeplab" and zsseg.embed_hidden == 1024
    assert zegformer.backbone.stem == "basic" and zegformer.embed_hidden == 0 and zegformer.queries == 7


def test_class_embeddings_as_wide_as_another_clip_are_refused(host):
    with pytest.raises(ShapeError, match="embed_width of 25"):
        type(host)(tiny_clip(), host.Config(generator={**MASKFORMER, "embed_width": 25}))


# --- training


@pytest.fixture(params=HOSTS)
def trained(request):
    method = tiny_method(request.param)
    for module in method.modules():
        if isinstance(module, torch.nn.MultiheadAttention | torch.nn.Dropout):
            module.dropout = module.p = 0.0
    method.parameter_groups(method.Training())
    method.train_mode()
    return method


def total(losses):
    return torch.stack(list(losses.values())).sum()


def added(*counts):
    return {key: sum(count[key] for count in counts) for key in counts[0]}


def test_exactly_maskformer_and_no_object_are_trained(trained):
    wanted = {name for name, _ in trained.named_parameters() if not name.startswith("clip.")}
    assert {name for name, p in trained.named_parameters() if p.requires_grad} == wanted
    batch, text = batch_of(2), text_of(4)
    total(trained.losses(batch, text, trained.normalisers(batch))).backward()
    assert {name for name, p in trained.named_parameters() if p.grad is not None} == wanted


def test_groups_slow_the_backbone_and_spare_norms_and_embeddings(trained):
    training = trained.Training(learning_rate=1e-3, weight_decay=0.2, backbone_rate=0.1)
    names = {id(p): name for name, p in trained.named_parameters()}
    groups = trained.parameter_groups(training)
    listed = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(name for name in names.values() if not name.startswith("clip."))
    for group in groups:
        for name in (names[id(p)] for p in group["params"]):
            assert group["lr"] == pytest.approx(1e-4 if name.startswith("generator.backbone") else 1e-3)
            assert (group["weight_decay"] == 0) == ("norm" in name or "query_embed" in name), name


def test_losses_of_the_parts_add_up_to_those_of_the_whole(trained):
    text, whole = text_of(4), batch_of(3)
    parts = [{key: value[s] for key, value in whole.items() if key != "names"} for s in (slice(0, 1), slice(1, 3))]
    counts = [trained.normalisers(p) for p in parts]
    assert added(*counts) == pytest.approx(trained.normalisers(whole))
    together = trained.losses(whole, text, trained.normalisers(whole))
    pieces = [trained.losses(p, text, added(*counts)) for p in parts]
    assert together.keys() == {"ce", "mask", "dice", "ce_0", "mask_0", "dice_0"}
    for name, value in together.items():
        torch.testing.assert_close(pieces[0][name] + pieces[1][name], value, atol=1e-4, rtol=1e-4)


def test_a_batch_without_labels_teaches_no_object_alone(trained):
    batch = batch_of(2)
    batch["labels"].fill_(-1)
    losses = trained.losses(batch, text_of(4), trained.normalisers(batch))
    assert losses["ce"].item() > 0 and losses["mask"].item() == losses["dice"].item() == 0
    total(losses).backward()
    assert all(bool(p.grad.isfinite().all()) for p in trained.parameters() if p.grad is not None)


def test_weights_of_the_losses_are_settings(trained):
    batch, text = batch_of(2), text_of(4)
    before = trained.losses(batch, text, trained.normalisers(batch))
    trained.parameter_groups(trained.Training(mask_weight=0.0, dice_weight=0.0, class_weight=2.0))
    after = trained.losses(batch, text, trained.normalisers(batch))
    assert after["mask"].item() == after["dice"].item() == 0 and before["mask"].item() > 0


def test_training_wakes_dropout_in_maskformer_only(host):
    method = tiny_method(host.name)
    method.train_mode()
    assert all(module.training for module in method.generator.modules())
    assert not any(module.training for module in method.clip.modules())


def test_padding_for_training_is_no_label(trained):
    """A picture of 40 x 72 and the same one on a canvas of 64 x 96 in the mean colour: the same losses."""
    batch, text = batch_of(1, size=(40, 72)), text_of(4)
    losses = trained.losses(batch, text, trained.normalisers(batch))
    padded = {
        "images": F.pad(batch["images"].float() - MEAN, (0, 24, 0, 24)) + MEAN,
        "labels": F.pad(batch["labels"], (0, 24, 0, 24), value=-1),
    }
    for name, value in trained.losses(padded, text, trained.normalisers(padded)).items():
        torch.testing.assert_close(value, losses[name], atol=1e-4, rtol=1e-4)


def test_backbone_begins_as_the_settings_say(trained):
    before = {name: p.clone() for name, p in trained.generator.backbone.state_dict().items()}
    trained.begin_training(trained.Training(backbone_weights="none"), Silent())
    assert all(p.equal(before[name]) for name, p in trained.generator.backbone.state_dict().items())
    with pytest.raises(UsageError, match="group norm"):
        trained.begin_training(trained.Training(), Silent())


def test_trained_weights_survive_a_run_folder(trained):
    batch, text, image = batch_of(2), text_of(4), picture(40, 64)
    optimizer = torch.optim.SGD(trained.parameter_groups(trained.Training()), lr=1e-3)
    total(trained.losses(batch, text, trained.normalisers(batch))).backward()
    optimizer.step()
    trained.eval()
    other = tiny_method(trained.name, seed=5)
    other.load_trained_state(trained.trained_state(), "run")
    assert other.predict([image], text)[0].class_scores.equal(trained.predict([image], text)[0].class_scores)
    assert not any(key.startswith("clip.") for key in trained.trained_state())


def test_one_picture_can_be_learned_by_heart(trained):
    """Two halves, two names: after some steps a query covers each half and names it."""
    image = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    image[..., 32:] = 255
    labels = torch.zeros(1, 32, 64, dtype=torch.int64)
    labels[..., 32:] = 1
    batch, text = {"images": image, "labels": labels, "names": ["a"]}, text_of(2, seed=3)
    groups = trained.parameter_groups(trained.Training(learning_rate=5e-3, backbone_rate=1.0))
    optimizer = torch.optim.AdamW(groups)
    for _ in range(80):
        optimizer.zero_grad()
        total(trained.losses(batch, text, trained.normalisers(batch))).backward()
        optimizer.step()
    trained.eval()
    canvas = Canvas(image[0].float(), (32, 64), image[0])
    with torch.no_grad():
        (candidates,) = trained.propose([canvas], text)
    scores = torch.einsum("nm,nhw->mhw", host_scores(candidates.class_logits), candidates.masks)
    assert float((scores.argmax(0) == labels[0]).float().mean()) > 0.9
