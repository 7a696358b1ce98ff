"""What ZegCLIP and TagCLIP share, and where they differ: settings, scores, calibration, losses, self-training."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.methods import zegclip
from ovseg_cli.core.methods.one_stage import OneStageConfig, OneStageTraining, by_class
from ovseg_cli.core.methods.tagclip import TagClip, TagClipConfig, TagClipTraining
from ovseg_cli.core.methods.trained import LabelView
from ovseg_cli.core.methods.zegclip import ZegClip, ZegClipConfig, ZegClipTraining
from ovseg_cli.core.nn.label_maps import full_scores, label_map
from ovseg_cli.core.types import UNSEEN_PIXEL, TextFeatures
from tests.core.clip.tiny import CONVNEXT, tiny_clip
from tests.core.methods import straight_one_stage as straight
from tests.core.methods.tiny_methods import tiny_method

BOTH = pytest.mark.parametrize("name", ["zegclip", "tagclip"])
LEARNERS = ["released", "figure-5-left", "figure-5-right"]
OTHER_VIT = {"image_size": 28, "layers": 2, "width": 48, "head_width": 12, "patch_size": 7}
SEEN = torch.tensor([True, True, False, True, False])


def text(seen=SEEN, count=5, at_home=True, classes=None, seed=0):
    rows = F.normalize(torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)), dim=1)
    classes = torch.arange(count) if classes is None else torch.tensor(classes)
    return TextFeatures(rows, classes, int(classes.max()) + 1, seen, at_home=at_home)


def picture(height=32, width=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def scores(method, names, image=None, size=(32, 40)):
    (prediction,) = method.predict([picture() if image is None else image], names)
    return full_scores(prediction, size)


def by_hand(method):
    """The straightforward form of a tiny method."""
    return straight.Straight(
        method.clip.visual, straight.with_dead_end(method.trained_state()), method.config.decoder_heads
    )


# --- scores


@torch.no_grad()
@BOTH
def test_scores_by_hand(name):
    """sigmoid(logit) - gamma where seen; times 1 - w where seen and w where unseen (TagCLIP)."""
    method = tiny_method(name)
    logits, trust = method.mask_logits(method.prepare(picture())[None], text())
    cell = straight.enlarged(logits, (32, 40))[0, :, 20, 7].sigmoid()
    expected = cell - 0.1 * SEEN.float()
    if trust is not None:
        w = straight.enlarged(trust[:, None], (32, 40))[0, 0, 20, 7].sigmoid()
        expected = expected * torch.where(SEEN, 1 - w, w)
    torch.testing.assert_close(scores(method, text())[:, 20, 7], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@BOTH
@pytest.mark.parametrize(("window", "stride"), [(24, 16), (16, 0)])
def test_windows_are_those_of_the_straightforward_form(name, window, stride):
    method = tiny_method(name, window=window, stride=stride)
    fusion = {"fusion": "both"} if name == "tagclip" else {}
    (prediction,) = method.predict([picture()], text())
    expected = straight.slide_scores(
        by_hand(method), method.prepare(picture())[None], text().features, SEEN, (32, 40), window, stride or window,
        0.1, **fusion,
    )[0]  # fmt: skip
    torch.testing.assert_close(full_scores(prediction, (32, 40)), expected, atol=1e-5, rtol=1e-4)
    best = expected.topk(2, dim=0).values
    clear = best[0] - best[1] > 1e-5
    assert label_map(prediction)[clear].equal(expected.argmax(0)[clear].int())


@BOTH
def test_any_plain_vit_and_windows_that_are_not_square_work(name):
    method_class = type(tiny_method(name))
    for resize, window, stride, size in (
        ("none", 0, 0, (30, 45)),
        ("none", 21, 14, (15, 50)),
        ("square", 28, 7, (9, 9)),
    ):
        config = method_class.Config(
            resize=resize, side=28, window=window, stride=stride, prompts=2, decoder_heads=3, decoder_layers=1
        )
        method = method_class(tiny_clip(OTHER_VIT), config)
        assert bool(scores(method, text(), picture(*size), size).isfinite().all())


@torch.no_grad()
def test_zegclips_scores_depend_neither_on_other_names_nor_on_chunks(monkeypatch):
    method, names = tiny_method("zegclip"), text()
    whole = scores(method, names)
    fewer = TextFeatures(names.features[:2], torch.arange(2), 2, SEEN[:2])
    torch.testing.assert_close(scores(method, fewer), whole[:2], atol=1e-6, rtol=1e-5)
    monkeypatch.setattr(zegclip, "ROWS_AT_ONCE", 2)
    torch.testing.assert_close(scores(method, names), whole, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("learner", LEARNERS)
def test_tagclips_scores_depend_on_the_vocabulary(learner):
    method, names = tiny_method("tagclip", learner=learner), text()
    with torch.no_grad():
        for parameter in method.descriptor.parameters():
            parameter.mul_(3)
    fewer = TextFeatures(names.features[:2], torch.arange(2), 2, SEEN[:2])
    assert not torch.allclose(scores(method, fewer), scores(method, names)[:2], atol=1e-5)


# --- calibration


@torch.no_grad()
@BOTH
def test_names_of_another_data_set_are_not_calibrated_unless_asked(name):
    plain, calibrated = tiny_method(name), tiny_method(name, across="calibrated")
    away, home = text(at_home=False), text()
    torch.testing.assert_close(scores(calibrated, away), scores(calibrated, home))
    torch.testing.assert_close(scores(plain, home), scores(calibrated, home))
    (prediction,) = plain.predict([picture()], away)
    assert prediction.penalty is None and prediction.trust is None
    assert not torch.allclose(scores(plain, away), scores(plain, home), atol=1e-4)


@torch.no_grad()
def test_away_from_home_tagclip_leaves_its_token_out():
    method = tiny_method("tagclip")
    without = tiny_method("tagclip", token=False, fusion="none", gamma=0.0)
    without.load_trained_state({k: v for k, v in method.trained_state().items() if k != "trust_token"}, "")
    torch.testing.assert_close(scores(method, text(at_home=False)), scores(without, text()))


@torch.no_grad()
@BOTH
def test_where_nobody_knows_what_was_seen_nothing_is_calibrated(name):
    method = tiny_method(name)
    torch.testing.assert_close(scores(method, text(seen=None)), scores(method, text(at_home=False)))
    (prediction,) = tiny_method(name, gamma=0.0).predict([picture()], text())
    assert prediction.penalty is None


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["none", "seen", "unseen", "both"])
def test_fusion_says_whose_scores_are_weighed(fusion):
    method = tiny_method("tagclip", fusion=fusion, gamma=0.0)
    plain = tiny_method("tagclip", fusion="none", gamma=0.0)
    (w,) = method.trust_maps([picture()], text())
    expected = scores(plain, text())
    assert w.shape == (32, 40) and 0 <= float(w.min()) <= float(w.max()) <= 1
    if fusion in ("seen", "both"):
        expected[SEEN] *= 1 - w
    if fusion in ("unseen", "both"):
        expected[~SEEN] *= w
    torch.testing.assert_close(scores(method, text()), expected, atol=1e-5, rtol=1e-4)


def test_without_its_token_tagclip_has_no_trust_map():
    with pytest.raises(UsageError, match="no trust map"):
        tiny_method("tagclip", token=False, fusion="none").trust_maps([picture()], text())


# --- settings


@BOTH
def test_a_convnext_is_refused(name):
    method_class = type(tiny_method(name))
    with pytest.raises(UsageError, match="takes no prompts"):
        method_class(tiny_clip(CONVNEXT), method_class.Config(decoder_heads=4))


@BOTH
def test_heads_that_do_not_divide_are_refused(name):
    with pytest.raises(UsageError, match="decoder_heads = 5 does not divide the 24 dimensions") as caught:
        tiny_method(name, decoder_heads=5)
    assert "decoder_heads=" in caught.value.mend


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_gamma_lies_between_0_and_1(gamma):
    with pytest.raises(ValidationError, match="gamma"):
        ZegClipConfig(gamma=gamma)


def test_windows_leave_no_gaps():
    with pytest.raises(ValidationError, match="leaves gaps"):
        OneStageConfig(window=32, stride=40)


def test_fusion_needs_the_token():
    with pytest.raises(ValidationError, match="needs the token"):
        TagClipConfig(token=False)
    assert not TagClipConfig(token=False, fusion="none").token
    with pytest.raises(ValidationError, match="leave descriptor at product"):
        TagClipConfig(learner="figure-5-left", descriptor="text")


@pytest.mark.parametrize(
    "changed", [{"self_training": "starred"}, {"pseudo_threshold": 0.5}, {"init": "runs/some"}], ids=str
)
def test_settings_of_self_training_need_it(changed):
    with pytest.raises(ValidationError, match="needs setting=transductive"):
        OneStageTraining(**changed)
    OneStageTraining(setting="transductive", **changed)


def test_honest_self_training_and_the_official_target_contradict_each_other():
    with pytest.raises(ValidationError, match="self_training=starred"):
        TagClipTraining(setting="transductive", trust_target="official-unseen")
    TagClipTraining(setting="transductive", self_training="starred", trust_target="official-unseen")


def test_text_features_of_another_clip_are_refused():
    with pytest.raises(ShapeError, match="24 dimensions"):
        tiny_method("zegclip").predict([picture()], TextFeatures.of_classes(torch.eye(3)))


VIEWS = [
    (ZegClip, {}, LabelView()),
    (TagClip, {}, LabelView()),
    (TagClip, {"trust_target": "official-unseen"}, LabelView("seen", "seen", marks_unseen=True)),
    (ZegClip, {"setting": "transductive"}, LabelView("all", "seen")),
    (ZegClip, {"setting": "transductive", "self_training": "starred"}, LabelView("all", "seen", marks_unseen=True)),
    (TagClip, {"setting": "transductive"}, LabelView("all", "seen")),
    (ZegClip, {"setting": "supervised"}, LabelView("all", "all")),
    (TagClip, {"setting": "supervised", "trust_target": "official-unseen"}, LabelView("all", "all")),
]


@pytest.mark.parametrize(("method", "training", "view"), VIEWS)
def test_labels_that_a_setting_reads(method, training, view):
    assert method.label_view(method.Training(**training)) == view


def test_settings_that_follow_from_others():
    assert ZegClip.implied({}) == {} == TagClip.implied({"setting": "inductive"})
    for setting in ("transductive", "supervised"):
        assert ZegClip.implied({"setting": setting}) == {"gamma": 0.0}
        assert TagClip.implied({"setting": setting}) == {"gamma": 0.0, "fusion": "none"}
    assert TagClip.implied({"token": False}) == {"fusion": "none"}
    with pytest.raises(UsageError, match="trust_target official-unseen is what the token learns, which is off"):
        TagClip.implied({"token": False, "trust_target": "official-unseen"})


def test_self_training_comes_second():
    for kind in (ZegClipTraining, TagClipTraining):
        method = ZegClip if kind is ZegClipTraining else TagClip
        assert method.first_step(kind()) is None
        assert method.first_step(kind(setting="supervised")) is None
        assert method.first_step(kind(setting="transductive", init="runs/some")) is None
        starred = kind(setting="transductive", self_training="starred", pseudo_threshold=0.3)
        first = method.first_step(starred)
        assert first is not None and first["setting"] == "inductive"
        assert kind(**{**starred.model_dump(), **first}).setting == "inductive"  # and it is legal


def test_results_that_read_the_place_of_unseen_classes_say_so():
    assert ZegClip.caveats(ZegClipTraining().model_dump()) == [] == TagClip.caveats(TagClipTraining().model_dump())
    starred = {"setting": "transductive", "self_training": "starred"}
    (said,) = ZegClip.caveats(starred)
    assert "not which" in said
    assert len(TagClip.caveats({**starred, "trust_target": "official-unseen"})) == 2
    (said,) = TagClip.caveats({"setting": "inductive", "trust_target": "official-unseen"})
    assert "where unseen classes are" in said
    assert TagClip.caveats({"setting": "supervised", "trust_target": "official-unseen"}) == []


# --- training


def trained(name, training=None, **changed):
    method = tiny_method(name, dropout=0.0, **changed)
    method.parameter_groups(method.Training(**(training or {})))
    return method


def batch_of(labels, seed=0):
    count, height, width = labels.shape
    images = torch.stack([picture(height, width, seed + i) for i in range(count)])
    return {"images": images, "labels": labels, "areas": torch.tensor([[height, width]] * count)}


def drawn(count=2, classes=5, lowest=-1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(lowest, classes, (count, 4, 5), generator=generator)
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)


@BOTH
def test_exactly_the_clip_is_frozen(name):
    method = trained(name)
    (group,) = method.parameter_groups(method.Training())
    own = {n for n, _ in method.named_parameters() if not n.startswith("clip.")}
    assert {n for n, p in method.named_parameters() if p.requires_grad} == own == set(method.trained_state())
    assert len(group["params"]) == len(own)
    method.train_mode()
    assert method.decoder.training and method.prompted.training and not method.clip.training


@BOTH
@pytest.mark.parametrize("changed", [{}, {"decoder_layers": 1}, {"prompt_depth": 0}, {"head_init": "copies"}], ids=str)
def test_losses_and_gradients_are_those_of_the_straightforward_form(name, changed):
    method, names, labels = trained(name, **changed), text(seen=torch.ones(5, dtype=torch.bool)), drawn()
    batch = batch_of(labels)
    losses = method.losses(batch, names, method.normalisers(batch))
    sum(losses.values()).backward()
    model, recipe = by_hand(method), method.recipe
    model.weights = {k: v.requires_grad_() for k, v in model.weights.items()}
    logits, trust = model(method.normalise(batch["images"].float()), names.features)
    weights = {"focal": recipe.focal_weight, "dice": recipe.dice_weight, "trust": getattr(recipe, "trust_weight", 0.0)}
    total = straight.total_loss(logits, trust, labels, labels < 0, weights)
    total.backward()
    assert sum(losses.values()).item() == pytest.approx(total.item(), rel=1e-5)
    largest = max(float(p.grad.abs().max()) for p in model.weights.values() if p.grad is not None)
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, model.weights[key].grad, atol=1e-5 * largest, rtol=1e-3)


@BOTH
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_parameter_gets_a_gradient(name, learner):
    method = trained(name, **({"learner": learner} if name == "tagclip" else {}))
    method.train_mode()
    batch = batch_of(drawn())
    sum(method.losses(batch, text(), method.normalisers(batch)).values()).backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not missing
    assert not any(p.grad is not None for p in method.clip.parameters())


@BOTH
def test_a_batch_is_the_sum_of_its_parts(name):
    method, batch = trained(name), batch_of(drawn(3))
    totals = method.normalisers(batch)
    whole = method.losses(batch, text(), totals)
    parts = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(3)]
    assert sum(method.normalisers(part)["pairs"] for part in parts) == totals["pairs"]
    found = [method.losses(part, text(), totals) for part in parts]
    for key, value in whole.items():
        torch.testing.assert_close(sum(part[key] for part in found), value, atol=1e-5, rtol=1e-4)


@BOTH
def test_pictures_without_any_label_are_legal(name):
    method, batch = trained(name), batch_of(torch.full((2, 32, 40), -1))
    losses = method.losses(batch, text(), method.normalisers(batch))
    sum(losses.values()).backward()
    assert all(bool(value.isfinite()) for value in losses.values()) and losses["dice"] == 0 < losses["focal"]


@BOTH
def test_the_best_of_several_names_of_a_class_speaks_for_it(name):
    names = text(classes=[0, 0, 1, 2, 2])
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    found = by_class(logits, names)
    assert found.shape == (2, 3, 3, 4)
    assert found[:, 2].equal(torch.maximum(logits[:, 3], logits[:, 4])) and found[:, 1].equal(logits[:, 2])
    method, batch = trained(name), batch_of(drawn(classes=3))
    losses = method.losses(batch, names, method.normalisers(batch))
    assert all(bool(value.isfinite()) for value in losses.values())


# --- the token's target


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), setting=st.sampled_from(["inductive", "transductive"]))
def test_the_default_target_reads_no_unseen_pixel(seed, setting):
    """With or without the mark of unseen classes it is the same: 1 wherever no seen class is."""
    method = TagClip.__new__(TagClip)
    method.recipe = TagClipTraining(setting=setting)
    labels = drawn(lowest=-2, seed=seed)
    labels[(labels == 2) | (labels == 4)] = -1  # classes that were not seen have no label
    target = TagClip.unseen_target(method, labels, text())
    assert target.equal(TagClip.unseen_target(method, labels.masked_fill(labels == UNSEEN_PIXEL, -1), text()))
    assert target.equal(labels < 0)


def test_the_official_target_is_where_unseen_classes_are():
    method = trained("tagclip", {"trust_target": "official-unseen"})
    labels = torch.tensor([[[0, -1, UNSEEN_PIXEL, 3]]])
    assert method.unseen_target(labels, text()).tolist() == [[[False, False, True, False]]]


def test_pseudo_labels_count_as_unseen():
    labels = torch.tensor([[[0, 2, -1, 4]]])
    for target, of_none in (("seen-vs-rest", True), ("official-unseen", False)):
        training = {"setting": "transductive", "self_training": "starred", "trust_target": target}
        method = trained("tagclip", training)
        assert method.unseen_target(labels, text()).tolist() == [[[False, True, of_none, True]]]


# --- self-training

_METHODS: dict[tuple[str, str], object] = {}


def self_trained(name, kind, **training):
    if (name, kind) not in _METHODS:
        _METHODS[name, kind] = trained(name, {"setting": "transductive", "self_training": kind})
    method = _METHODS[name, kind]
    method.parameter_groups(method.Training(setting="transductive", self_training=kind, **training))
    return method


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["zegclip", "tagclip"]),
    kind=st.sampled_from(["honest", "starred"]),
    height=st.integers(8, 32),
    width=st.integers(8, 40),
    seed=st.integers(0, 1000),
)
def test_own_labels_touch_nothing_but_open_pixels(name, kind, height, width, seed):
    method, labels = self_trained(name, kind), drawn(lowest=-2, seed=seed)
    labels[(labels == 2) | (labels == 4)] = -1
    labels[0, :2, :2] = UNSEEN_PIXEL
    labels[:, height:], labels[:, :, width:] = -1, -1
    batch = batch_of(labels)
    batch["areas"] = torch.tensor([[height, width]] * 2)
    before = labels.clone()
    found = method.own_labels(batch, text())
    assert labels.equal(before)
    inside = torch.zeros_like(labels, dtype=torch.bool)
    inside[:, :height, :width] = True
    open_pixels = (labels == UNSEEN_PIXEL) if kind == "starred" else (labels < 0) & inside
    assert found[~open_pixels].equal(labels[~open_pixels])
    assert bool(torch.isin(found[open_pixels], torch.tensor([2, 4])).all()) and bool(open_pixels.any())


@torch.no_grad()
@BOTH
def test_own_labels_are_the_best_unseen_names(name):
    method, labels = self_trained(name, "honest"), torch.full((1, 32, 40), -1)
    found = method.own_labels(batch_of(labels), text())
    logits, _ = by_hand(method)(method.normalise(picture()[None].float()), text().features)
    best = logits[:, [2, 4]].topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 1e-4
    assert found[clear].equal(torch.tensor([2, 4])[logits[:, [2, 4]].argmax(1)][clear])


@BOTH
def test_a_threshold_leaves_doubtful_pixels_without_a_label(name):
    labels = torch.full((1, 32, 40), -1)
    everywhere = self_trained(name, "honest").own_labels(batch_of(labels), text())
    nowhere = self_trained(name, "honest", pseudo_threshold=0.999999).own_labels(batch_of(labels), text())
    assert bool((everywhere >= 0).all()) and nowhere.equal(labels)


@BOTH
def test_own_labels_are_made_without_dropout(name):
    method = tiny_method(name, dropout=0.5)
    method.parameter_groups(method.Training(setting="transductive"))
    batch = batch_of(torch.full((1, 32, 40), -1))
    method.train_mode()
    first = method.own_labels(batch, text())
    method.train_mode()
    assert method.own_labels(batch, text()).equal(first)


@BOTH
def test_without_self_training_there_are_no_own_labels(name):
    for setting in ("inductive", "supervised"):
        assert trained(name, {"setting": setting}).own_labels(batch_of(drawn()), text()) is None


# --- masks


@BOTH
def test_masks_have_the_mean_score_of_their_pixels(name):
    method, masks = tiny_method(name), torch.zeros(2, 32, 40)
    masks[0, 3:17, 5:30], masks[1, 20:, 10:12] = 1, 0.5
    expected = torch.stack([(scores(method, text()) * mask).sum((1, 2)) / mask.sum() for mask in masks])
    found = method.classify_masks(picture(), masks, text())
    torch.testing.assert_close(found, torch.logit(expected, eps=1e-6), atol=1e-4, rtol=1e-3)
    with pytest.raises(ShapeError, match="differ in height or width"):
        method.classify_masks(picture(), masks[:, :20], text())


def test_names_of_elsewhere_are_scored_without_calibration_and_the_score_says_so():
    text = replace(TextFeatures.of_classes(torch.eye(2)), seen=torch.tensor([True, False]), at_home=False)
    away = {name: tiny_method(name).remark(text) for name in ("zegclip", "tagclip")}
    assert "without gamma," in str(away["zegclip"]) and "trust map and token" in str(away["tagclip"])
    assert tiny_method("tagclip").remark(replace(text, at_home=True)) is None
    assert tiny_method("zegclip", across="calibrated").remark(text) is None
    assert tiny_method("tagclip", gamma=0.0, fusion="none").remark(text) is None, "there is nothing to leave out"
    unknown = str(tiny_method("zegclip", across="calibrated").remark(replace(text, seen=None)))
    assert "Nobody knows" in unknown and "convert --data" in unknown, "no setting helps there"
