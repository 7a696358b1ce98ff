"""Official checkpoints of ZSSeg and ZegFormer, taken apart: every key ends somewhere, sizes come from shapes."""

import pytest
import torch

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.zegformer import ZegFormer, ZegFormerConfig
from ovseg_cli.core.methods.zsseg import ZSSeg, ZSSegConfig
from ovseg_cli.core.nn.maskformer_official import split_checkpoint
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import tiny_clip
from tests.core.methods.tiny_methods import tiny_method

PREDICTOR = "sem_seg_head.predictor."


def official(name):
    """A tiny host's weights under the names of the published files, with what lies beside them there."""
    method = tiny_method(name, seed=3)
    state = {key.removeprefix("generator."): value for key, value in method.trained_state().items()}
    if name == "zsseg":
        state["clip_adapter.non_object_embedding"] = state.pop("non_object_embedding")
        beside = ["clip_adapter.clip_model.visual.proj", "clip_adapter.pixel_mean", "criterion.empty_weight"]
        beside += ["clip_adapter.prompt_learner.prefix_prompt", "_region_clip_adapter.clip_model.logit_scale"]
    else:
        state[f"{PREDICTOR}bg_feature"] = state.pop("background")
        state[f"{PREDICTOR}logit_scale"] = torch.tensor([50.0]).log()
        beside = [f"{PREDICTOR}clip_model.visual.proj", "criterion.empty_weight"]
    return method, {**state, **{key: torch.zeros(2) for key in beside}}


@pytest.mark.parametrize("name", ["zsseg", "zegformer"])
def test_a_checkpoint_becomes_the_same_method(name):
    method, state = official(name)
    parts = split_checkpoint(state, name, "x.pth", heads=2, groups=4)
    kind, config = {"zsseg": (ZSSeg, ZSSegConfig), "zegformer": (ZegFormer, ZegFormerConfig)}[name]
    sizes = parts.sizes.model_dump()
    other = kind(tiny_clip(), config(resize="none", generator=sizes)).eval()
    other.load_trained_state(parts.weights, "x.pth")
    image = torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8)
    text = TextFeatures.of_classes(torch.eye(24)[:4])
    assert other.predict([image], text)[0].class_scores.equal(method.predict([image], text)[0].class_scores)


@pytest.mark.parametrize("name", ["zsseg", "zegformer"])
def test_every_key_is_used_or_has_a_reason(name):
    _, state = official(name)
    parts = split_checkpoint(state, name, "x.pth", heads=2, groups=4)
    scale = int(f"{PREDICTOR}logit_scale" in state)
    assert len(parts.weights) + len(parts.clip) + len(parts.ignored) + scale == len(state)
    assert parts.clip.keys() == {"visual.proj"} and all(parts.ignored.values())
    assert parts.settings == ({"host_scale": pytest.approx(50.0)} if scale else {})


def test_an_unknown_key_is_named():
    _, state = official("zsseg")
    with pytest.raises(UsageError, match="'ema.weight' belongs to no part of zsseg"):
        split_checkpoint({**state, "ema.weight": torch.zeros(1)}, "zsseg", "x.pth", heads=2, groups=4)


@pytest.mark.parametrize("key", ["clip_adapter.non_object_embedding", f"{PREDICTOR}query_embed.weight"])
def test_a_missing_part_is_named(key):
    _, state = official("zsseg")
    with pytest.raises(UsageError, match=f"x.pth: this is no checkpoint of zsseg, '{key}' is missing"):
        split_checkpoint({k: v for k, v in state.items() if k != key}, "zsseg", "x.pth", heads=2, groups=4)


def test_the_other_hosts_checkpoint_is_refused():
    _, state = official("zegformer")
    with pytest.raises(UsageError, match="no checkpoint of zsseg"):
        split_checkpoint(state, "zsseg", "x.pth", heads=2, groups=4)
