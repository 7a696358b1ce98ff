"""MAFT against the recorded model in the official layout (parity/maft, section 5).

Encoder and scores from the recorded masks, the training step from masks that the recorded generator makes.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ovseg_cli.core.clip import weights
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.methods.freeseg import FreeSeg, FreeSegConfig
from ovseg_cli.core.methods.maft import TOWER, Maft, MaftConfig, MaftTraining
from ovseg_cli.core.methods.masked import Candidates, training_canvases
from ovseg_cli.core.nn.generator import official_state
from ovseg_cli.core.nn.generator_config import GeneratorConfig, half_statistics
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import tiny_tokenizer

TEACHER, STUDENT = "clip_adapter.clip_model.", "IPCLIP."
HEADS = "MODEL.SEM_SEG_HEAD.NUM_HEADS"
ROUND_OFF = 1e-4  # relative; the fixture's README: a mask's pixel at one half may flip an attention key


class Recorded:
    def __init__(self, folder):
        self.config = json.loads((folder / "maft_e2e_config.json").read_text())
        self.state = {k: v.float() for k, v in load_file(folder / "maft_e2e_weights.safetensors").items()}
        self.io = load_file(folder / "maft_e2e_io.safetensors")
        self.text = TextFeatures.of_classes(self.io["text_features"])
        self.pictures = [self.io[f"image_{i}"] for i in range(len(self.config["input_sizes"]))]

    def clip(self) -> ClipModel:
        sizes = self.config["clip"]
        vision = {
            "image_size": sizes["image_resolution"],
            "layers": sizes["vision_layers"],
            "width": sizes["vision_width"],
            "head_width": 64,
            "patch_size": sizes["vision_patch_size"],
        }
        text = {
            "context_length": sizes["context_length"],
            "vocab_size": sizes["vocab_size"],
            "width": sizes["transformer_width"],
            "heads": sizes["transformer_heads"],
            "layers": sizes["transformer_layers"],
        }
        config = {"embed_dim": sizes["embed_dim"], "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
        module = build_module(config)
        weights.load_into(module, self.part(TEACHER), "recorded")
        adapter = self.part("clip_adapter.")  # its mean and deviation were rounded like all weights
        colours = {k: (adapter[f"pixel_{k}"].flatten() / 255).tolist() for k in ("mean", "std")}
        return ClipModel(module, "recorded", config, tiny_tokenizer(), colours)

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)}

    def maft(self, **settings) -> Maft:
        method = Maft(self.clip(), MaftConfig(resize="none", start_layer=self.config["start_layers"], **settings))
        tower = {TOWER + name: tensor for name, tensor in self.part(STUDENT).items()}
        method.load_trained_state(tower, "recorded")
        return method

    def probabilities(self, size) -> torch.Tensor:
        masks = self.io["pred_masks"]
        return F.interpolate(masks, size, mode="bilinear", align_corners=True).sigmoid()


class RecordedHost:
    """Gives the recorded masks."""

    def __init__(self, recorded: Recorded):
        self.recorded = recorded

    def propose(self, canvases, text):
        masks = self.recorded.probabilities(canvases[0].size)
        return [Candidates(m) for m in masks]


@pytest.fixture(scope="module")
def recorded(parity):
    if not (parity / "maft" / "maft_e2e_config.json").is_file():
        pytest.skip("no recorded MAFT model")
    return Recorded(parity / "maft")


def assert_near(actual, expected, tolerance=ROUND_OFF):
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    assert error <= tolerance * max(float(expected.abs().max()), 1e-12), f"off by {error:.2e}"


@torch.no_grad()
def test_mask_features_match(recorded):
    method = recorded.maft()
    canvases = [method.canvas(image) for image in recorded.pictures]
    size = tuple(max(sizes) for sizes in zip(*(c.size for c in canvases), strict=True))
    canvases = [type(c)(c.image, size, c.picture) for c in canvases]
    masks = recorded.probabilities(size)
    assert_near((masks >= 0.5).flatten(2).float().mean(-1), recorded.io["ipclip_masks_stats"][0])
    assert_near(method.mask_features(canvases, masks), recorded.io["ipclip_features"], 2e-5)


@torch.no_grad()
def test_scores_match(recorded):
    method = recorded.maft()
    method.set_source(RecordedHost(recorded))
    for i, size in enumerate(recorded.config["output_sizes"]):
        scores = method.predict_scores(recorded.pictures, recorded.io["text_features"], tuple(size))[i]
        expected = recorded.io[f"maft_sem_seg_{i}"]
        assert_near(scores, expected)
        assert scores.argmax(0).equal(expected.argmax(0))


def training_batch(recorded):
    """The recorded samples, with the masks that the recorded generator makes of them, dropout off."""
    clip = recorded.clip()
    known = {"interaction_heads": recorded.config["dims"][HEADS], **half_statistics(recorded.state)}
    config = GeneratorConfig.from_state_dict(recorded.state, **known)
    host = FreeSeg(clip, FreeSegConfig(generator=config))
    host.generator.load_state_dict(official_state(recorded.state))
    host.non_object_embedding.data.copy_(recorded.state["clip_adapter.non_object_embedding"])
    count = sum(key.startswith("train_image_") for key in recorded.io)
    images = torch.stack([recorded.io[f"train_image_{i}"] for i in range(count)])
    labels = torch.stack([recorded.io[f"train_labels_{i}"] for i in range(count)]).long()
    with torch.no_grad():
        masks = [c.masks for c in host.propose(training_canvases(images), recorded.text)]
    return {"images": images, "labels": labels.masked_fill(labels == 255, -1), "masks": masks}


def test_training_step_matches(recorded):
    method, batch = recorded.maft(), training_batch(recorded)
    method.parameter_groups(MaftTraining(distillation=recorded.config["dis_weight"]))
    method.train_mode()
    terms = method.losses(batch, recorded.text, method.normalisers(batch))
    sum(terms.values()).backward()
    assert_near(terms["mask_aware"].detach(), recorded.io["maft_train_ma_loss"])
    assert_near(terms["distillation"].detach(), recorded.io["maft_train_dis_loss_weighted"])
    gradients = {name: p.grad for name, p in method.ip_clip.named_parameters() if p.requires_grad}
    last = f"transformer.resblocks.{recorded.config['clip']['vision_layers'] - 1}.attn.in_proj_weight"
    expected = recorded.io["maft_train_grad_in_proj_last"]
    assert_near(gradients[last][: len(expected)], expected)
    assert_near(gradients["ln_post.weight"], recorded.io["maft_train_grad_ln_post_weight"])
    for name, norm in recorded.config["maft_grad_norms"].items():
        assert float(gradients[name.removeprefix(STUDENT)].norm()) == pytest.approx(norm, rel=ROUND_OFF)
    assert not any(p.grad is not None for name, p in method.named_parameters() if not p.requires_grad)


def test_trained_parameters_are_those_of_the_code(recorded):
    method = recorded.maft()
    method.parameter_groups(MaftTraining())
    trained = {n.removeprefix(TOWER) for n, p in method.named_parameters() if p.requires_grad}
    assert trained == {n.removeprefix(STUDENT) for n in recorded.config["maft_trainable_parameters"]}
