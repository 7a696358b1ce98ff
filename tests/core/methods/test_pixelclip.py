"""PixelCLIP's training: the momentum encoder by hand, parts and processes as one, ablations, and batches without masks.

That the step equals the published code's is test_pixelclip_parity.py's.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.pixelclip import PixelClip, PixelClipConfig, PixelClipTraining
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.nn.mask_groups import grouped_targets
from ovseg_cli.core.training.mask_crops import MaskCrops
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import CONVNEXT, VIT, tiny_clip

SIDE, GRID = 48, 24
NAMES = 5


def text(count: int = 0, dim: int = 0) -> TextFeatures:
    rows = torch.nn.functional.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(3)), dim=1)
    return TextFeatures(rows, torch.arange(count), count)


def begun(settings: dict[str, Any] | None = None) -> PixelClip:
    """A tiny method at the first step of a training."""
    torch.manual_seed(0)
    config = PixelClipConfig(resize="none", prompts=NAMES, prompt_length=2, prompt_templates=("a photo of a {}",))
    method = PixelClip(tiny_clip(), config)
    recipe = {"mask_size": GRID, "assignment_scale": 10.0, "teacher_momentum": 0.9, **(settings or {})}
    method.groups = method.parameter_groups(PixelClipTraining(**recipe))  # type: ignore[assignment]
    method.train_mode()
    return method


def batch_of(counts: list[int], seed: int = 0) -> dict[str, Any]:
    """Random pictures with so many random stripes as masks each."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (2, len(counts), 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    masks = []
    for count in counts:
        ids = torch.randint(count + 1, (SIDE // 4,), generator=generator, dtype=torch.int32)
        table = torch.cat([torch.zeros(count, 1), torch.eye(count)], dim=1).byte()
        masks.append({"ids": ids.repeat_interleave(4)[:, None].expand(-1, SIDE).contiguous(), "table": table})
    return {
        "images": images[0],
        "strong": images[1],
        "areas": torch.tensor([[SIDE, SIDE]] * len(counts)),
        "cut_outs": torch.tensor([[0, 0, 8, 8]] * len(counts)),
        "masks": MaskCrops.of(masks),
    }


def part_of(batch: dict[str, Any], places: slice) -> dict[str, Any]:
    return {key: value[places] for key, value in batch.items()}


def step(method: PixelClip, parts: list[dict[str, Any]], names: TextFeatures | None = None) -> tuple[Tensor, list[Any]]:
    """Loss and targets of a step that is cut into parts, gradients added up."""
    names = names or text()
    joined = [p | j for p, j in zip(parts, method.before_step(parts, names, lambda v: v), strict=True)]
    totals = {"pairs": sum(method.normalisers(part)["pairs"] for part in joined)}
    losses = [method.losses(part, names, totals)["cross_entropy"] for part in joined]
    torch.stack(losses).sum().backward()
    return torch.stack(losses).sum().detach(), joined


def gradients(method: PixelClip) -> dict[str, Tensor]:
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def test_the_momentum_encoder_by_hand() -> None:
    method = begun()
    name = "positional_embedding"
    start = method.tower.get_parameter(name).detach().clone()
    with torch.no_grad():
        method.tower.get_parameter(name).add_(1.0)
    method.before_step([batch_of([2])], text(), lambda values: values)
    torch.testing.assert_close(method.teacher.get_parameter(name), start + 0.1)
    method.before_step([batch_of([2])], text(), lambda values: values)
    torch.testing.assert_close(method.teacher.get_parameter(name), start + 0.19)


def test_without_momentum_it_is_the_image_tower_itself() -> None:
    method = begun({"teacher_momentum": 0.0})
    with torch.no_grad():
        method.tower.get_parameter("positional_embedding").add_(1.0)
    method.before_step([batch_of([2])], text(), lambda values: values)
    for name, parameter in method.teacher.named_parameters():
        assert parameter.equal(method.tower.get_parameter(name)), name


def test_what_is_frozen_is_shared_by_all_three_towers() -> None:
    method = begun()
    for name, parameter in method.clip.visual.named_parameters():
        is_tuned = "attn" in name or "position" in name
        assert (method.tower.get_parameter(name) is parameter) != is_tuned, name
        assert (method.teacher.get_parameter(name) is parameter) != is_tuned, name
        assert not method.teacher.get_parameter(name).requires_grad


def test_parts_of_a_step_are_clustered_together_and_add_up() -> None:
    batch = batch_of([4, 0, 3, 5])
    whole, cut = begun(), begun()
    loss, (joined,) = step(whole, [batch])
    summed, parts = step(cut, [part_of(batch, slice(0, 1)), part_of(batch, slice(1, 4))])
    torch.testing.assert_close(summed, loss)
    rows = [dict(zip(ids.flatten().tolist(), table[ids.flatten().long()].tolist(), strict=True))
            for part in parts for ids, table in zip(part["regions"], part["targets"], strict=True)]  # fmt: skip
    expected = [dict(zip(ids.flatten().tolist(), table[ids.flatten().long()].tolist(), strict=True))
                for ids, table in zip(joined["regions"], joined["targets"], strict=True)]  # fmt: skip
    assert rows == expected
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(cut)[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("counts", [[0, 0], [0, 3]])
def test_pictures_without_masks_add_nothing(counts: list[int]) -> None:
    method = begun()
    loss, (joined,) = step(method, [batch_of(counts)])
    assert bool(loss.isfinite()) and (float(loss) == 0) == (not any(counts))
    assert not joined["targets"][0].any() and method.after_step()["masks_per_picture"] == sum(counts) / 2
    assert all(bool(g.isfinite().all()) for g in gradients(method).values())


def test_fewer_masks_than_names_leave_names_empty() -> None:
    method = begun()
    _, (joined,) = step(method, [batch_of([2])])
    assert 1 <= int(joined["targets"].any(1).sum()) <= 2 == method.after_step()["masks_per_picture"]


@pytest.mark.parametrize(
    "settings",
    [
        {"clustering": False},
        {"class_names": "data"},
        {"mask_feature": "masked-cls"},
        {"teacher_momentum": 1.0},
        {"tune": "full"},
        {"tune": "conv"},
        {"tune": "none"},
    ],
    ids=lambda s: "-".join(f"{k}-{v}" for k, v in s.items()),
)
def test_ablations_learn_what_they_say(settings: dict[str, Any]) -> None:
    method = begun(settings)
    names = text(4, method.clip.embed_dim) if settings.get("class_names") == "data" else text()
    loss, _ = step(method, [batch_of([3, 4, 0])], names)
    assert float(loss) > 0
    learned = {name.split(".")[0] for name, g in gradients(method).items() if bool(g.any())}
    has_prompts = settings.get("clustering", True) and settings.get("class_names") != "data"
    expected = {"decoder"} | ({"class_prompts"} if has_prompts else set())
    assert learned == expected | ({"tower"} if settings.get("tune") != "none" else set())
    optimized = {id(p) for group in method.groups for p in group["params"]}  # type: ignore[union-attr]
    assert optimized == {id(p) for p in method.parameters() if p.requires_grad}


def test_without_clustering_each_mask_is_a_name_of_its_own() -> None:
    method = begun({"clustering": False})
    _, (joined,) = step(method, [batch_of([3, 1])])
    assert [int(t.any(0).sum()) for t in joined["targets"]] == [3, 1]
    assert joined["mask_features"].shape == (2, 3, method.clip.embed_dim)
    covered = [int((t.any(1)[ids.long()]).sum()) for ids, t in zip(joined["regions"], joined["targets"], strict=True)]
    assert method.normalisers(joined)["pairs"] == covered[0] * 3 + covered[1]


def test_without_clustering_the_text_encoder_does_not_run() -> None:
    method = begun({"clustering": False})
    method.class_prompts.forward = None  # type: ignore[method-assign, assignment]
    step(method, [batch_of([3, 1])])
    assert method.after_step() == {"masks_per_picture": 2.0}


def test_data_names_take_the_nearest_and_no_prompt_is_trained() -> None:
    method = begun({"class_names": "data", "assignment_scale": 1.0})
    names = text(4, method.clip.embed_dim)
    batch = batch_of([3])
    _, (joined,) = step(method, [batch], names)
    assert joined["targets"].shape[2] == 4
    assert method.label_view(method.recipe).names == "all" and method.label_view(method.recipe).labelled == "none"


def test_the_image_tower_waits_as_long_as_it_is_told() -> None:
    method = begun({"encoder_delay": 1})
    step(method, [batch_of([3])])
    assert {name.split(".")[0] for name in gradients(method)} == {"decoder", "class_prompts"}
    step(method, [batch_of([3])])
    assert "tower" in {name.split(".")[0] for name in gradients(method)}


def test_the_box_hides_masks_of_a_cache_but_not_live_ones() -> None:
    batch = batch_of([3])
    cached = begun().before_step([batch], text(), lambda values: values)[0]
    live = begun({"proposals": "live"}).before_step([batch], text(), lambda values: values)[0]
    assert not cached["regions"][0, :4, :4].any() and live["regions"][0, 4:, :].equal(cached["regions"][0, 4:, :])
    assert bool((live["regions"] != 0).sum() >= (cached["regions"] != 0).sum())


def test_outside_the_pictures_the_network_sees_zeros() -> None:
    method = begun()
    images = torch.full((1, 3, SIDE, SIDE), 200, dtype=torch.uint8)
    seen = method._inputs(images, torch.tensor([[20, 30]]))
    assert not seen[:, :, 20:].any() and not seen[:, :, :, 30:].any() and bool(seen[:, :, :20, :30].all())


@pytest.mark.parametrize(
    ("resize", "side", "size"),
    [("none", 32, (48, 64)), ("square", 32, (32, 32)), ("square", 30, (32, 32)), ("short-side", 24, (24, 32))],
)
def test_the_network_sees_as_large_pictures_as_in_scoring(resize: Any, side: int, size: tuple[int, int]) -> None:
    """Patches are 8 pixels wide; a canvas is brought to the size that a picture of its size would get."""
    method = PixelClip(tiny_clip(), PixelClipConfig(resize=resize, side=side, first_short_side=0, prompt_length=1))
    images = torch.randint(256, (2, 3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = method._inputs(images, torch.tensor([[48, 64], [48, 64]]))
    assert seen.shape[2:] == size
    for found, image in zip(seen, images, strict=True):
        torch.testing.assert_close(found, method.prepare(image))


@pytest.mark.parametrize(("vision", "says"), [(VIT, "has 3 blocks"), (CONVNEXT, "class token of a plain ViT")])
def test_masks_in_a_class_token_need_a_vit_with_that_block(vision: dict[str, Any], says: str) -> None:
    method = PixelClip(tiny_clip(vision), PixelClipConfig(prompt_length=1))
    refused = PixelClipTraining(mask_feature="masked-cls", mask_start_layer=3)
    with pytest.raises(UsageError, match=says) as error:
        method.check_training(refused)
    assert "mask_feature=pooled" in str(error.value.mend)
    method.check_training(PixelClipTraining(mask_start_layer=3))
    if vision is VIT:
        method.check_training(PixelClipTraining(mask_feature="masked-cls", mask_start_layer=2))


def test_a_checkpoint_holds_what_the_next_steps_depend_on() -> None:
    one, other = begun({"encoder_delay": 1}), begun({"encoder_delay": 1})
    optimizer = torch.optim.AdamW(one.groups)  # type: ignore[arg-type]
    step(one, [batch_of([3])])
    optimizer.step()
    kept = {name: tensor.clone() for name, tensor in one.checkpoint_state().items()}
    with torch.no_grad():
        for name, tensor in other.checkpoint_state().items():
            tensor.copy_(kept[name])
    one.zero_grad()
    losses = [step(method, [batch_of([4], seed=5)])[0] for method in (one, other)]
    assert losses[0].equal(losses[1])
    assert gradients(one).keys() == gradients(other).keys()


def test_a_run_keeps_tower_and_prompts_alone() -> None:
    method = begun()
    state = method.trained_state()
    assert {name.split(".")[0] for name in state} == {"tower", "class_prompts"}
    with torch.no_grad():
        for tensor in state.values():
            tensor.add_(0.5)
    fresh = PixelClip(method.clip, method.config)
    fresh.load_trained_state({name: tensor.clone() for name, tensor in state.items()}, "somewhere")
    assert fresh.digest == method.digest


def test_weights_of_a_tower_that_never_moved_are_loaded() -> None:
    """As after a training shorter than `encoder_delay`: they equal the CLIP's, and stay shared with it."""
    method, fresh = begun(), PixelClip(tiny_clip(), begun().config)
    state = {name: tensor.clone() for name, tensor in method.trained_state().items()}
    assert any(name.startswith("tower.") for name in state)
    fresh.load_trained_state(state, "somewhere")
    assert torch.equal(fresh.class_prompts.prompt_tokens, method.class_prompts.prompt_tokens)
    for name, parameter in fresh.clip.visual.named_parameters():
        assert fresh.tower.get_parameter(name) is parameter, name


def test_frozen_norms_and_trained_ones_do_not_decay() -> None:
    method = begun({"tune": "full"})
    names = {id(p): name for name, p in method.named_parameters()}
    still = {names[id(p)] for g in method.groups if not g["weight_decay"] for p in g["params"]}  # type: ignore[union-attr]
    assert "tower.ln_pre.weight" in still and "decoder.conv1.double_conv.1.bias" in still
    assert all("ln_" in name or "double_conv" in name for name in still)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"proposals": "host"}, "no host"),
        ({"clustering": False, "class_names": "data"}, "its own name"),
        ({"mask_size": 1}, "greater than or equal to 2"),  # no mask has two pixels there: all would be left out
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PixelClipTraining(**settings)


def test_no_other_method_sees_two_views() -> None:
    assert PixelClip.second_view(PixelClipTraining(cut_out=False)).cut_out is False
    assert super(PixelClip, PixelClip).second_view(TrainingConfig()) is None


def test_masks_are_grouped_for_a_picture_as_in_a_step() -> None:
    method, batch = begun({"teacher_momentum": 1.0}), batch_of([3, 0, 4])
    steps, state = int(method.steps_done), {k: v.clone() for k, v in method.checkpoint_state().items()}
    parts = [part_of(batch, slice(i, i + 1)) for i in range(3)]
    found = method.grouped(method.recipe, parts)
    assert [len(names) for _, names in found] == [len(group.tables[0]) for group, _ in found] and not len(found[1][1])
    assert int(method.steps_done) == steps and method.teacher is not method.tower
    for key, value in method.checkpoint_state().items():
        assert torch.equal(value, state[key])
    (whole,) = method.before_step([batch], text(), lambda values: values)
    for i, (group, names) in enumerate(found):
        targets = grouped_targets(group, names, NAMES)[0]
        assert torch.equal(group.ids[0], whole["regions"][i])
        assert (
            torch.equal(targets, whole["targets"][i, : len(targets)]) and not whole["targets"][i, len(targets) :].any()
        )


def test_one_sentence_needs_no_list():
    assert PixelClipConfig(prompt_templates="imagenet-select").prompt_templates == ("imagenet-select",)
