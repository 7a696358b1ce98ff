"""The straightforward form of PixelCLIP's step gives the published code's numbers: others may be held against it."""

import copy

import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.training.precision import step_context
from tests.core import straight_pixelclip as straight
from tests.core.clip.parity_models import STUDENT, assert_close, load_recorded, read_fixture

PROMPTS = "sem_seg_head.predictor.prompt_tokens"


def prepared(images, config):
    """Normalised and resized."""
    mean, std = (torch.tensor(config[f"pixel_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
    return F.interpolate((images.float() - mean) / std, tuple(config["clip_resolution"]), mode="bilinear")


def step_of(recorded, kind):
    """The official state; weights that a gradient is recorded of, by name."""
    config, state = recorded.config, recorded.state
    teacher = copy.deepcopy(recorded.clip.visual)
    teacher.load_state_dict(
        {n: state[f"teacher_encoder.visual.{n}"].view_as(p) for n, p in teacher.state_dict().items()}
    )
    decoder = {n.removeprefix("head."): t.clone().requires_grad_() for n, t in state.items() if n.startswith("head.")}
    words, ids = state[PROMPTS].clone().requires_grad_(), recorded.tensors["prompt.template_ids"][0]
    recorded.clip.visual.requires_grad_(True)
    step = straight.Straight(
        module=recorded.clip.module,
        teacher=teacher,
        dense=straight.dense_vit if kind == "vit" else straight.dense_convnext,
        words=words,
        ids=ids,
        places=(ids == config["placeholder_token"]).nonzero()[:, 0].tolist(),
        decoder=decoder,
        scale=config["eps"],
        rounds=config["sinkhorn_iters"],
        momentum=config["momentum"],
        grid=config["mask_resolution"][0],
    )
    own = {f"{STUDENT}visual.{n}": p for n, p in recorded.clip.visual.named_parameters()}
    return step, {PROMPTS: words, **{f"head.{n}": t for n, t in decoder.items()}, **own}


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_the_step_is_the_published_one(parity, kind):
    recorded = load_recorded(parity, kind)
    step, weights = step_of(recorded, kind)
    tensors = recorded.tensors
    weak, strong = (prepared(tensors[key], recorded.config) for key in ("train.image", "train.image_strong"))
    masks = [tensors[f"train.masks.{b}"] for b in range(len(weak))]
    with step_context(torch.device("cpu")):
        loss = step.loss(weak, strong, masks)
        loss.backward()
    assert_close(loss.detach()[None], tensors["train.loss"])
    for key in (key for key in tensors if key.startswith("grad.")):
        gradient = weights[key.removeprefix("grad.")].grad
        assert gradient is not None, key
        assert_close(gradient, tensors[key], 1e-4)
    with torch.no_grad():
        names = F.normalize(straight.class_features(step.module, step.words, step.ids, step.places), dim=-1)
        teacher = step.dense(step.teacher, weak)
        assert step.targets(weak, masks, names).to(torch.uint8).equal(tensors["train.targets"])
        assert_close(straight.decode(step.decoder, tensors["train.similarity"]), tensors["train.decoder_out"])
    assert_close(teacher.permute(0, 3, 1, 2), tensors["train.teacher_feat"])


@pytest.mark.parametrize("name", ["vit", "conv", "few"])
def test_balanced_shares_are_the_recorded_ones(parity, name):
    found = read_fixture(parity, "sinkhorn")
    rounds = load_recorded(parity, "vit").config["sinkhorn_iters"]
    shares = straight.sinkhorn(found[f"{name}.logits"], rounds)
    torch.testing.assert_close(shares, found[f"{name}.Q"], atol=2e-6, rtol=0)


def test_regions_hold_the_same_targets():
    # 2 x 2 pixels, two classes: the first has the left column, the second the upper row; the last pixel is in none
    targets = torch.tensor([[[[1, 0], [1, 0]], [[1, 1], [0, 0]]]], dtype=torch.uint8)
    ids, tables = straight.regions(targets)
    assert ids.unique().numel() == 4
    assert tables[0][ids[0].long()].permute(2, 0, 1).equal(targets[0])
