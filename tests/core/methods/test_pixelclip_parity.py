"""PixelCLIP's training step against the published code's own numbers (parity/pixelclip), on both backbones."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ovseg_cli.core.methods import pixelclip, tuned_tower
from ovseg_cli.core.methods.pixelclip import PixelClip, PixelClipConfig, PixelClipTraining
from ovseg_cli.core.training.precision import step_context
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.parity_models import STUDENT, Recorded, assert_close, load_recorded
from tests.core.nn.test_class_prompts import PROMPTS, RecordedParts

TEACHER = "teacher_encoder.visual."
NO_TEXT = TextFeatures(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), 0)


@dataclass
class WrittenMasks:
    """The masks of a picture, written out as the fixture has them."""

    values: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return int(self.values.shape[1]), int(self.values.shape[2])

    def __len__(self) -> int:
        return len(self.values)

    def masks(self) -> Tensor:
        return self.values * 255


@dataclass
class Crops:
    """What a batch holds as "masks"."""

    crops: list[WrittenMasks]


@pytest.fixture(params=["vit", "conv"])
def recorded(parity, request) -> Recorded:
    found = load_recorded(parity, request.param)
    ids = found.tensors["prompt.template_ids"][0]
    template = found.config["single_template"][0]
    found.clip.tokenizer = RecordedParts(template, ids, found.config["placeholder_token"])
    return found


def training_of(recorded: Recorded) -> PixelClipTraining:
    config = recorded.config
    groups = config["optimizer_groups"]
    prompts, decoder = groups[PROMPTS], next(g for name, g in groups.items() if name.startswith("head."))
    encoder = next(g for name, g in groups.items() if name.startswith(STUDENT))
    return PixelClipTraining(
        learning_rate=decoder["lr"],
        encoder_rate=encoder["lr"] / decoder["lr"],
        prompt_rate=prompts["lr"] / decoder["lr"],
        weight_decay=prompts["weight_decay"],
        teacher_momentum=config["momentum"],
        mask_size=config["mask_resolution"][0],
        sinkhorn_rounds=config["sinkhorn_iters"],
        assignment_scale=config["eps"],
        tune=config["clip_finetune"],
    )


def method_of(recorded: Recorded) -> PixelClip:
    """The official state, in the middle of a training: the momentum encoder has weights of its own throughout."""
    config = recorded.config
    own = PixelClipConfig(
        side=config["clip_resolution"][0],
        prompts=config["k"],
        prompt_length=config["prompt_length"],
        prompt_templates=tuple(config["single_template"]),
    )
    method = PixelClip(recorded.clip, own)
    method.class_prompts.load_state_dict({"prompt_tokens": recorded.state[PROMPTS]})
    decoder = method.decoder.state_dict()
    method.decoder.load_state_dict({name: recorded.state["head." + name] for name in decoder})
    method.groups = method.parameter_groups(training_of(recorded))  # type: ignore[assignment]
    tuned_tower.own(method.teacher, method.tower, [name for name, _ in method.teacher.named_parameters()])
    with torch.no_grad():
        for name, parameter in method.teacher.named_parameters():
            parameter.copy_(recorded.state[TEACHER + name])
    method.teacher.requires_grad_(False)
    method.train_mode()
    return method


def batch_of(recorded: Recorded) -> dict:
    images, strong = recorded.tensors["train.image"], recorded.tensors["train.image_strong"]
    masks = [WrittenMasks(recorded.tensors[f"train.masks.{i}"]) for i in range(len(images))]
    return {
        "images": images,
        "strong": strong,
        "areas": torch.tensor([images.shape[-2:]] * len(images)),
        "cut_outs": torch.zeros(len(images), 4, dtype=torch.int64),
        "masks": Crops(masks),
    }


def prepared(method: PixelClip, recorded: Recorded) -> dict:
    batch = batch_of(recorded)
    (joins,) = method.before_step([batch], NO_TEXT, lambda values: values)
    return batch | joins


def own_name(official: str) -> str:
    names = {PROMPTS: "class_prompts.prompt_tokens"}
    if official.startswith("head."):
        return "decoder." + official.removeprefix("head.")
    return names.get(official) or "tower." + official.removeprefix(STUDENT + "visual.")


def test_momentum_encoder_follows_before_it_sees_the_weak_view(recorded: Recorded) -> None:
    method = method_of(recorded)
    seen: list[Tensor] = []
    pooled = method._pooled
    method._pooled = lambda images, masks: seen.append(images) or pooled(images, masks)  # type: ignore[method-assign]
    prepared(method, recorded)
    for key in (key for key in recorded.tensors if key.startswith("momentum." + TEACHER)):
        name = key.removeprefix("momentum." + TEACHER)
        torch.testing.assert_close(method.teacher.get_parameter(name), recorded.tensors[key], atol=1e-7, rtol=1e-6)
    features = pixelclip.dense_features(method.teacher, seen[0], method.last_block).permute(0, 3, 1, 2)
    assert_close(features.detach(), recorded.tensors["train.teacher_feat"])


def test_masks_are_assigned_as_recorded(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = method_of(recorded), []

    def spy(logits: Tensor, rounds: int, total) -> Tensor:
        seen.append((logits, found := plain(logits, rounds, total)))
        return found

    plain = pixelclip.sinkhorn
    monkeypatch.setattr(pixelclip, "sinkhorn", spy)
    batch = prepared(method, recorded)
    ((logits, shares),) = seen
    assert_close(logits, recorded.tensors["train.assign_logits"])
    torch.testing.assert_close(shares, recorded.tensors["train.assign_Q"], atol=2e-6, rtol=0)
    assert shares.argmax(1).equal(recorded.tensors["train.assign_hard"])
    pairs = zip(batch["regions"].long(), batch["targets"], strict=True)
    targets = torch.stack([table[ids].permute(2, 0, 1) for ids, table in pairs])
    assert targets.equal(recorded.tensors["train.targets"])


def test_loss_gradients_and_one_step(recorded: Recorded) -> None:
    method = method_of(recorded)
    batch = prepared(method, recorded)
    with step_context(torch.device("cpu")):
        loss = method.losses(batch, NO_TEXT, method.normalisers(batch))["cross_entropy"]
        loss.backward()
    assert_close(loss.detach()[None], recorded.tensors["train.loss"])
    parameters = dict(method.named_parameters())
    gradients = {key: parameters[own_name(key.removeprefix("grad."))].grad for key in keys(recorded, "grad.")}
    for key, gradient in gradients.items():
        assert gradient is not None, key
        assert_close(gradient, recorded.tensors[key], 1e-4)
    trained = {own_name(name) for name in recorded.config["optimizer_groups"]}
    assert trained == {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    check_step(method, recorded, {key: g.clone() for key, g in gradients.items()})  # type: ignore[union-attr]


def check_step(method: PixelClip, recorded: Recorded, gradients: dict[str, Tensor]) -> None:
    """One update: the value, or, where the gradient is more than noise, the change."""
    parameters = dict(method.named_parameters())
    before = {
        key: parameters[own_name(key.removeprefix("step1."))].detach().clone() for key in keys(recorded, "step1.")
    }
    optimizer = torch.optim.AdamW(method.groups)  # type: ignore[arg-type]
    torch.nn.utils.clip_grad_norm_([p for g in method.groups for p in g["params"]], recorded.config["clip_norm"])  # type: ignore[union-attr]
    optimizer.step()
    for key, start in before.items():
        official = key.removeprefix("step1.")
        value, expected = parameters[own_name(official)].detach(), recorded.tensors[key]
        rate = recorded.config["optimizer_groups"][official]["lr"]
        close = (value - expected).abs() <= 2e-7
        clear = gradients["grad." + official].abs() > 1e-6 if "grad." + official in gradients else ~close
        same_change = ((value - start) - (expected - start)).abs() <= 0.01 * rate
        assert bool((close | (clear & same_change) | (~clear & ((value - expected).abs() <= 2.1 * rate))).all()), key


def test_each_group_has_the_recorded_rate_and_decay(recorded: Recorded) -> None:
    method = method_of(recorded)
    names = {id(p): name for name, p in method.named_parameters()}
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in method.groups for p in g["params"]}  # type: ignore[union-attr]
    expected = {own_name(n): (g["lr"], g["weight_decay"]) for n, g in recorded.config["optimizer_groups"].items()}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


def keys(recorded: Recorded, prefix: str) -> list[str]:
    return [key for key in recorded.tensors if key.startswith(prefix)]
